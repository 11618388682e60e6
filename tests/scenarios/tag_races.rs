//! Many pushes of one tag at a time: each waits for the one before it, however that ends.

use std::collections::HashMap;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::gateway::{Client, Gateway, gateway, plain_http};
use crate::support::registry::Registry;
use crate::support::skip;
use crate::support::upstream::{Answer, Upstream};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(super) const POLICY: &str = "
rules:
  - { name: all, subjects: [any], repositories: ['**'], actions: [pull, push, overwrite], effect: allow }
immutable_tags:
  - { repositories: ['app/**'], tags: ['v*'] }
";

/// A registry's tags, with what was pushed to each.
#[derive(Clone, Default)]
pub(super) struct Tags(Arc<Mutex<HashMap<String, Vec<Vec<u8>>>>>);

impl Tags {
    pub(super) fn serve(upstream: &Upstream, pause: Duration) -> Self {
        let tags = Self::default();
        let inside = tags.clone();
        upstream.answer(move |request| {
            if request.method == "HEAD" {
                let exists = inside.0.lock().expect("no panic").contains_key(&request.target);
                return Answer::new(if exists { 200 } else { 404 });
            }
            thread::sleep(pause);
            inside.0.lock().expect("no panic").entry(request.target.clone()).or_default().push(request.body.clone());
            Answer::new(201)
        });
        tags
    }

    pub(super) fn pushed(&self, target: &str) -> Vec<Vec<u8>> {
        self.0.lock().expect("no panic").get(target).cloned().unwrap_or_default()
    }
}

/// A manifest like no other, which refers to nothing.
pub(super) fn manifest(number: usize) -> Vec<u8> {
    let index =
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": { "n": number.to_string() } });
    index.to_string().into_bytes()
}

/// Pushes a different manifest with each of 32 clients of both versions at once; the statuses with the manifests.
fn push_all_at_once(gateway: &Gateway, target: &str) -> Vec<(u16, Vec<u8>)> {
    let clients: Vec<Client> = (0..16).flat_map(|_| gateway.both()).collect();
    let start = Arc::new(Barrier::new(clients.len()));
    let pushes: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(number, mut client)| {
            let (start, target) = (start.clone(), target.to_owned());
            thread::spawn(move || {
                let body = manifest(number);
                start.wait();
                (client.request("PUT", &target, &[("content-type", INDEX)], &body).status, body)
            })
        })
        .collect();
    pushes.into_iter().map(|push| push.join().expect("no panic")).collect()
}

#[track_caller]
fn the_only_winner(outcomes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.iter().partition(|(status, _)| *status == 201);
    assert_eq!(won.len(), 1, "{:?}", outcomes.iter().map(|(status, _)| status).collect::<Vec<_>>());
    assert!(lost.iter().all(|(status, _)| *status == 403), "{:?}", lost.iter().map(|(s, _)| s).collect::<Vec<_>>());
    won[0].1.clone()
}

#[test]
fn of_many_pushes_to_a_new_immutable_tag_one_wins() {
    let upstream = Upstream::start();
    let tags = Tags::serve(&upstream, Duration::from_millis(20));
    let gateway = gateway().policy(POLICY).upstream(upstream.url()).start();
    for tag in ["v1", "v2"] {
        let target = format!("/v2/app/manifests/{tag}");
        let winner = the_only_winner(&push_all_at_once(&gateway, &target));
        assert_eq!(tags.pushed(&target), [winner], "what reached the upstream");
    }
}

#[test]
fn of_many_pushes_to_a_new_immutable_tag_of_a_real_registry_one_wins() {
    if !skip::have(&["docker-registry"]) {
        return;
    }
    let registry = Registry::start();
    let gateway = gateway().policy(POLICY).upstream(registry.url()).bound_uploads().start();
    let target = "/v2/app/manifests/v1";
    let winner = the_only_winner(&push_all_at_once(&gateway, target));
    let mut client = gateway.h1();
    let pulled = client.request("GET", target, &[("accept", INDEX)], b"").expect("an answer");
    assert_eq!((pulled.status, pulled.body), (200, winner));
    // Not by way of the digest, nor by another tag beside, nor by taking it away.
    let digest = format!("sha256:{}", crate::support::upstream::sha256(&manifest(99)));
    let by_digest = format!("/v2/app/manifests/{digest}?tag=other&tag=v1");
    let push = client.request("PUT", &by_digest, &[("content-type", INDEX)], &manifest(99)).expect("an answer");
    push.assert_refusal(403, "DENIED");
    let pulled = client.request("GET", target, &[("accept", INDEX)], b"").expect("an answer");
    let digest = pulled.header("docker-content-digest").expect("a digest").to_owned();
    for reference in ["v1", &digest] {
        let delete = client.request("DELETE", &format!("/v2/app/manifests/{reference}"), &[], b"").expect("an answer");
        assert_eq!(delete.status, 403, "{reference}: {delete:?}");
    }
    assert_eq!(client.request("GET", target, &[("accept", INDEX)], b"").expect("an answer").status, 200);
    // Every kind of manifest is found, and a new tag is none of them.
    let fresh = client.request("PUT", "/v2/app/manifests/v2", &[("content-type", INDEX)], &manifest(1));
    assert_eq!(fresh.expect("an answer").status, 201);
    let listed = plain_http(registry.address(), "GET", "/v2/app/tags/list").json();
    assert_eq!(listed["tags"], json!(["v1", "v2"]));
}

const CREATE: &str = "
rules:
  - { name: create, subjects: [any], repositories: ['**'], actions: [push], effect: allow }
";

/// A gateway whose upstream holds each push until the test lets it go on.
fn held() -> (Upstream, Gateway, mpsc::SyncSender<()>) {
    let (release, released) = mpsc::sync_channel(8);
    let released = Mutex::new(released);
    let upstream = Upstream::start();
    upstream.answer(move |request| {
        if request.method == "HEAD" {
            return Answer::new(404);
        }
        let _ = released.lock().expect("no panic").recv_timeout(Duration::from_secs(30));
        Answer::new(201)
    });
    let gateway = gateway().policy(CREATE).upstream(upstream.url()).start();
    (upstream, gateway, release)
}

#[test]
fn a_push_waits_until_the_registry_has_answered_the_one_before() {
    let (upstream, gateway, release) = held();
    let target = "/v2/app/manifests/v1";
    let mut first = gateway.h1();
    first.send_request("PUT", target, &[], b"first").expect("sent");
    upstream.wait_for(|request| request.method == "PUT");
    let mut second = gateway.h1();
    second.send_request("PUT", target, &[], b"second").expect("sent");
    // Another tag is free meanwhile: the gateway has seen the second push before this one.
    let mut other = gateway.h2();
    let other = thread::spawn(move || other.request("PUT", "/v2/app/manifests/v2", &[], b"other"));
    upstream.wait_for(|request| request.body == b"other");
    let looks = upstream.requests().iter().filter(|r| r.method == "HEAD" && r.target == target).count();
    assert_eq!(looks, 1, "the second push has not been looked at before the first was answered");
    for _ in 0..3 {
        release.send(()).expect("the upstream waits");
    }
    assert_eq!(first.answer().expect("an answer").status, 201);
    assert_eq!(second.answer().expect("an answer").status, 201);
    assert_eq!(other.join().expect("no panic").expect("an answer").status, 201);
}

#[test]
fn who_leaves_in_the_middle_of_a_push_holds_up_nobody() {
    let upstream = Upstream::start();
    let tags = Tags::serve(&upstream, Duration::ZERO);
    let gateway = gateway().policy(CREATE).upstream(upstream.url()).start();
    for (round, target) in ["/v2/app/manifests/v1", "/v2/app/manifests/v2"].into_iter().enumerate() {
        // Half a push, over either version, and gone.
        if round == 0 {
            let mut leaving = gateway.h1();
            let headers = [("Content-Length", "1000")];
            leaving.send_request("PUT", target, &headers, b"half").expect("sent");
            upstream.wait_for(|request| request.line() == format!("HEAD {target}"));
            drop(leaving);
        } else {
            let mut leaving = gateway.h2();
            let mut stream = leaving.open("PUT", target, &[], false).expect("opened");
            stream.send(bytes::Bytes::from_static(b"half"), false).expect("sent");
            upstream.wait_for(|request| request.line() == format!("HEAD {target}"));
            drop(stream);
            drop(leaving);
        }
        let begun = Instant::now();
        let reply = gateway.h1().request("PUT", target, &[], b"whole").expect("an answer");
        assert_eq!(reply.status, 201, "{target} after {:?}: {reply:?}", begun.elapsed());
        assert_eq!(tags.pushed(target), [b"whole".to_vec()]);
    }
}

#[test]
fn a_push_without_an_answer_is_given_time_to_be_carried_out() {
    let (upstream, gateway, release) = held();
    let target = "/v2/app/manifests/v1";
    let mut first = gateway.h1();
    first.send_request("PUT", target, &[], b"first").expect("sent");
    upstream.wait_for(|request| request.method == "PUT");
    let gone = Instant::now();
    drop(first);
    gateway.wait_for_record(|r| r["method"] == "PUT" && r["outcome"] == "client_aborted");
    // For both pushes.
    release.send(()).expect("the upstream waits");
    release.send(()).expect("the upstream waits");
    let reply = gateway.h2().request("PUT", target, &[], b"second").expect("an answer");
    assert_eq!(reply.status, 201);
    assert!(gone.elapsed() >= Duration::from_secs(5), "{:?}: the first may still be carried out", gone.elapsed());
}

#[test]
fn waiting_for_another_push_ends() {
    let upstream = Upstream::start();
    let tags = Tags::serve(&upstream, Duration::ZERO);
    let quick = |config: &mut serde_json::Value| config["timeouts"] = json!({ "first_byte": "1s" });
    let gateway = gateway().policy(CREATE).upstream(upstream.url()).with_upstream(quick).start();
    let target = "/v2/app/manifests/v1";
    // One that doesn't send its manifest.
    let mut stalled = gateway.h1();
    stalled.send_request("PUT", target, &[("Content-Length", "5")], b"").expect("sent");
    upstream.wait_for(|request| request.method == "HEAD");
    for mut client in gateway.both() {
        let reply = client.request("PUT", target, &[], b"second");
        reply.assert_refusal(503, "UNAVAILABLE");
        assert!(reply.message().contains("another push of this tag"), "{}", reply.message());
        assert_eq!(reply.header("retry-after"), Some("5"));
    }
    stalled.send(b"first").expect("sent");
    assert_eq!(stalled.answer().expect("an answer").status, 201);
    assert_eq!(tags.pushed(target), [b"first".to_vec()]);
    let record = gateway.wait_for_record(|r| r["outcome"] == "tag_busy");
    assert_eq!((&record["decision"], &record["status"]), (&json!(null), &503.into()));
}
