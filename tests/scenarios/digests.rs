//! A registry that lies, or whose storage rots: no client gets wrong content whole.

mod told;

use crate::support::dockerd::Dockerd;
use crate::support::gateway::{Builder, Client, Gateway, gateway};
use crate::support::h2client::H2;
use crate::support::process::Finished;
use crate::support::registry::Registry;
use crate::support::reply::Reply;
use crate::support::skip;
use crate::support::skopeo::{certificates, image, skopeo};
use crate::support::upstream::{Answer, Upstream, hex, pattern, sha256};
use serde_json::json;
use sha2::{Digest as _, Sha512};
use std::fs;
use std::path::Path;
use std::time::Duration;

fn builder(url: String) -> Builder {
    gateway().upstream(url).with_upstream(|u| u["verify_digests"] = true.into())
}

fn start(upstream: &Upstream) -> Gateway {
    builder(upstream.url()).start()
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", sha256(content))
}

fn blob(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

/// What a client gets of an answer.
struct Got {
    head: Result<Reply, String>,
    body: Vec<u8>,
    end: Result<(), String>,
}

/// Downloads, and tells what came if it did not come whole.
fn download(client: &mut Client, target: &str) -> Got {
    let mut body = Vec::new();
    match client {
        Client::H1(client) => {
            client.send_request("GET", target, &[], b"").expect("the connection is open");
            let head = client.head().map_err(|e| e.to_string());
            let end = match &head {
                Ok(head) => client.body(head, "GET", |part| body.extend_from_slice(part)).map(|_| ()),
                Err(e) => Err(std::io::Error::other(e.clone())),
            };
            Got { head, body, end: end.map_err(|e| e.to_string()) }
        }
        Client::H2(client) => {
            let (head, end) = stream(client, target, &mut body);
            Got { head, body, end }
        }
    }
}

fn stream(client: &mut H2, target: &str, body: &mut Vec<u8>) -> (Result<Reply, String>, Result<(), String>) {
    let mut exchange = client.open("GET", target, &[], true).expect("the connection is open");
    let head = exchange.head();
    let end = loop {
        match exchange.part() {
            Ok(Some(part)) => body.extend_from_slice(&part),
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    (head, end)
}

/// Checks that what came of `sent` is no whole answer: an error from the start, or less than there was, or nothing.
#[track_caller]
fn assert_incomplete(got: &Got, sent: &[u8], what: &str) {
    let Ok(head) = &got.head else {
        // The head had not left the gateway when the end came.
        assert!(got.body.is_empty(), "{what}");
        return;
    };
    if head.status == 502 {
        let reply = Reply { body: got.body.clone(), ..head.clone() };
        reply.assert_refusal(502, "UNAVAILABLE");
        assert!(reply.message().contains("digest"), "{what}: {reply:?}");
        return;
    }
    assert_eq!(head.status, 200, "{what}");
    assert!(got.end.is_err(), "{what}: a whole answer of {} bytes", got.body.len());
    let part = got.body.is_empty() || (got.body.len() < sent.len() && sent.starts_with(&got.body));
    assert!(part, "{what}: {} bytes of {}", got.body.len(), sent.len());
}

fn flipped(content: &[u8], at: usize) -> Vec<u8> {
    let mut lie = content.to_vec();
    lie[at] ^= 1;
    lie
}

/// Everything that a registry may answer instead of `content`.
fn lies(content: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (size, last) = (content.len(), content.len() - 1);
    vec![
        ("its first byte flipped", flipped(content, 0)),
        ("a byte flipped", flipped(content, size / 2)),
        ("its last byte flipped", flipped(content, last)),
        ("its last byte missing", content[..last].to_vec()),
        ("half of it", content[..size / 2].to_vec()),
        ("a byte too much", [content, b"x"].concat()),
        ("nothing", Vec::new()),
    ]
}

/// The ways in which an answer can say where it ends.
fn framings(body: &[u8]) -> [(&'static str, Answer); 3] {
    let until_close = [b"HTTP/1.1 200 OK\r\nContent-Type: x/y\r\n\r\n", body].concat();
    [
        ("with its length", Answer::new(200).body(body)),
        ("in chunks", Answer::new(200).body(body).chunked().slowly(50_000, Duration::ZERO)),
        ("until the connection closes", Answer::raw(&until_close)),
    ]
}

#[test]
fn a_wrong_blob_never_completes() {
    let upstream = Upstream::start();
    let mut gateway = start(&upstream);
    let mut wrong = 0.0;
    for size in [10, 65_536, 300_000] {
        let content = pattern(0, size);
        let target = blob(&digest(&content));
        for (lie, sent) in lies(&content) {
            for (framing, answer) in framings(&sent) {
                upstream.answer(move |_| answer.clone());
                for mut client in gateway.both() {
                    let got = download(&mut client, &target);
                    let what = format!("{} {size} bytes, {lie}, {framing}", client.version());
                    assert_incomplete(&got, &sent, &what);
                    wrong += 1.0;
                }
            }
        }
    }
    let mismatches = [("upstream", "registry"), ("result", "mismatch")];
    assert_eq!(gateway.metric("portcullis_digest_checks_total", &mismatches), Some(wrong));
    let outcome = [("route", "blob"), ("outcome", "digest_mismatch")];
    gateway.wait_for_metric("portcullis_requests_total", &outcome, |requests| requests >= wrong);
    gateway.wait_for_record(|r| r["outcome"] == "digest_mismatch" && r["bytes_out"] != 0);
    let line = gateway.wait_for_log("it hashes to sha256:");
    assert!(line.contains("ERROR") && line.contains("team/app"), "{line}");
}

#[test]
fn what_is_right_passes_byte_by_byte() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut right = 0.0;
    for mut client in gateway.both() {
        for size in [0, 1, 50_000, 65_536, 65_537, (1 << 20) + 3] {
            let content = pattern(3, size);
            let sha512 = format!("sha512:{}", hex(&Sha512::digest(&content)));
            for (framing, answer) in framings(&content) {
                upstream.answer(move |_| answer.clone());
                for digest in [digest(&content), sha512.clone()] {
                    let got = download(&mut client, &blob(&digest));
                    let what = format!("{} {size} bytes {framing} {digest}", client.version());
                    assert_eq!((got.head.map(|head| head.status), got.end), (Ok(200), Ok(())), "{what}");
                    assert!(got.body == content, "{what}: {} bytes", got.body.len());
                    right += 1.0;
                }
            }
        }
    }
    assert_eq!(gateway.metric("portcullis_digest_checks_total", &[("result", "verified")]), Some(right));
    assert_eq!(gateway.metric("portcullis_digest_checks_total", &[("result", "mismatch")]), Some(0.0));
    // Digests are over what was pushed, so nothing else is asked for.
    upstream.take();
    upstream.answer(|_| Answer::new(200).body(b"{}"));
    for mut client in gateway.both() {
        client.request("GET", &blob(&digest(b"{}")), &[("accept-encoding", "gzip")], b"");
        assert_eq!(upstream.only().header("accept-encoding"), Some("identity"));
    }
}

#[test]
fn a_broken_off_blob_is_no_mismatch_and_no_blob() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let content = pattern(0, 300_000);
    for chunked in [false, true] {
        let answer = Answer::new(200).body(&content).cut_after(200_000);
        let answer = if chunked { answer.chunked() } else { answer };
        upstream.answer(move |_| answer.clone());
        for mut client in gateway.both() {
            let got = download(&mut client, &blob(&digest(&content)));
            assert!(got.end.is_err() && got.body.len() <= 200_000, "{}: {:?}", client.version(), got.end);
        }
    }
    gateway.wait_for_metric("portcullis_requests_total", &[("outcome", "upstream_error")], |requests| requests >= 4.0);
    assert_eq!(gateway.metric("portcullis_digest_checks_total", &[("result", "mismatch")]), Some(0.0));
}

#[test]
fn the_connection_of_a_lie_is_not_used_again() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let content = pattern(0, 200_000);
    let target = blob(&digest(&content));
    let (lie, truth) = (Answer::new(200).body(&flipped(&content, 7)), Answer::new(200).body(&content));
    let mut client = gateway.h2();
    upstream.answer(move |_| lie.clone());
    client.request("GET", &target, &[], b"").expect_err("a stream that is reset");
    assert_eq!(upstream.accepted(), 1);
    upstream.answer(move |_| truth.clone());
    for _ in 0..2 {
        assert_eq!(client.get(&target).body, content, "the client's connection goes on");
        assert_eq!(upstream.accepted(), 2, "the good one is kept");
    }
}

#[test]
fn manifests_are_held_to_their_digest_by_tag_too() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let manifest = br#"{"schemaVersion":2}"#;
    let (own, other) = (digest(manifest), digest(b"other"));
    let answer = |told: Option<&str>| {
        let answer = Answer::new(200).header("Content-Type", "application/json").body(manifest);
        told.map_or(answer.clone(), |told| answer.header("Docker-Content-Digest", told))
    };
    let by_tag = "/v2/team/app/manifests/v1".to_owned();
    let (by_own, by_other) = (format!("/v2/team/app/manifests/{own}"), format!("/v2/team/app/manifests/{other}"));
    let cases = [
        (&by_tag, Some(own.as_str()), true),
        (&by_tag, None, true),
        (&by_tag, Some(other.as_str()), false),
        (&by_own, Some(own.as_str()), true),
        (&by_own, None, true),
        (&by_own, Some(other.as_str()), false),
        (&by_other, Some(own.as_str()), false),
        (&by_other, Some(other.as_str()), false),
        (&by_other, None, false),
    ];
    for (target, told, good) in cases {
        let answer = answer(told);
        upstream.answer(move |_| answer.clone());
        for mut client in gateway.both() {
            let got = download(&mut client, target);
            let what = format!("{} {target} told {told:?}", client.version());
            if good {
                assert_eq!((got.head.map(|head| head.status), got.end), (Ok(200), Ok(())), "{what}");
                assert_eq!(got.body, manifest, "{what}");
            } else {
                assert_incomplete(&got, manifest, &what);
            }
        }
    }
    let check = |result| gateway.metric("portcullis_digest_checks_total", &[("result", result)]);
    assert_eq!((check("verified"), check("no_digest"), check("mismatch")), (Some(6.0), Some(2.0), Some(10.0)));
    // What a HEAD promises can be held against the digest that was asked for.
    let lie = answer(Some(&other));
    upstream.answer(move |_| lie.clone());
    for mut client in gateway.both() {
        assert_eq!(client.request("HEAD", &by_tag, &[], b"").status, 200);
        assert_eq!(client.request("HEAD", &by_own, &[], b"").status, 502);
    }
}

#[test]
fn what_cannot_be_checked_is_counted_and_what_evades_the_check_refused() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let content = pattern(0, 1000);
    let target = blob(&digest(&content));
    let wrong = vec![0; 100];
    let passing = [
        ("GET", Some("bytes=0-99"), Answer::new(206).header("Content-Range", "bytes 0-99/1000").body(&wrong), "range"),
        ("HEAD", None, Answer::new(200).header("Content-Length", "1000"), "head"),
    ];
    for (method, range, answer, result) in passing {
        let wanted = if result == "range" { 206 } else { 200 };
        upstream.answer(move |_| answer.clone());
        for mut client in gateway.both() {
            let headers: Vec<_> = range.map(|range| ("range", range)).into_iter().collect();
            assert_eq!(client.request(method, &target, &headers, b"").status, wanted);
        }
        let checks = gateway.metric("portcullis_digest_checks_total", &[("result", result)]);
        assert_eq!(checks, Some(2.0), "{result}");
    }
    // A range that is not served brings the whole, which can be checked.
    let whole = Answer::new(200).body(&content);
    upstream.answer(move |_| whole.clone());
    for mut client in gateway.both() {
        assert_eq!(client.request("GET", &target, &[("range", "bytes=0-99")], b"").body, content);
    }
    let evading = [
        Answer::new(206).header("Content-Range", "bytes 0-99/100").body(&wrong),
        Answer::new(200).header("Content-Encoding", "gzip").body(&content),
        Answer::new(200).header("Docker-Content-Digest", crate::DIGEST).body(&content),
        Answer::new(203).body(&wrong),
        Answer::new(204),
    ];
    for answer in evading {
        let shown = format!("{answer:?}");
        upstream.answer(move |_| answer.clone());
        for mut client in gateway.both() {
            let got = download(&mut client, &target);
            let told = got.head.as_ref().map(|head| head.status);
            // A head is refused as such; a body that came with its head may be.
            let by_body = shown.contains("203") && got.end.is_err();
            assert!(told == Ok(502) || by_body, "{shown}: {told:?} {:?}", got.end);
        }
    }
    upstream.answer(|_| Answer::new(404).body(b"{}"));
    for mut client in gateway.both() {
        assert_eq!(client.get(&target).status, 404, "an error has no digest");
    }
}

#[test]
fn what_broke_off_as_wrong_is_not_to_be_had_in_parts() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let content = pattern(0, 200_000);
    let target = blob(&digest(&content));
    let lie = flipped(&content, 7);
    let answered = move |whole: Vec<u8>| {
        upstream.answer(move |request| match request.header("range") {
            Some(_) => Answer::new(206).header("Content-Range", "bytes 100000-199999/200000").body(&whole[100_000..]),
            None => Answer::new(200).body(&whole),
        });
    };
    let rest = |client: &mut Client| client.request("GET", &target, &[("range", "bytes=100000-")], b"").status;
    answered(lie.clone());
    let mut client = Client::H2(gateway.h2());
    assert_eq!(rest(&mut client), 206, "nobody knows yet");
    assert_incomplete(&download(&mut client, &target), &lie, "the whole");
    for mut client in gateway.both() {
        assert_eq!(rest(&mut client), 502);
    }
    // Somebody restores the storage.
    answered(content.clone());
    assert_eq!(rest(&mut client), 502, "nobody knows yet");
    assert_eq!(download(&mut client, &target).body, content);
    for mut client in gateway.both() {
        assert_eq!(rest(&mut client), 206);
    }
}

#[test]
fn checking_is_a_choice_of_each_upstream() {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).start();
    upstream.answer(|_| Answer::new(200).body(b"anything"));
    for mut client in gateway.both() {
        assert_eq!(client.get(&blob(crate::DIGEST)).body, b"anything");
    }
    assert_eq!(gateway.metric("portcullis_digest_checks_total", &[("result", "mismatch")]), Some(0.0));
}

/// Changes a byte of what the registry has stored; it answers with it as if nothing were.
fn rot(registry: &Registry, digest: &str) {
    let file = registry.file_of(digest);
    let content = fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    fs::write(&file, flipped(&content, content.len() / 2)).expect("the storage is writable");
}

/// A copy by skopeo, with the certificates in `certs`.
fn copy(home: &Path, side: &str, from: &str, to: &str) -> Finished {
    let certs = home.join("certs").to_string_lossy().into_owned();
    skopeo(home, &["copy", "--insecure-policy", "--preserve-digests", side, &certs, from, to])
}

#[test]
fn skopeo_sees_that_a_rotten_layer_breaks_off() {
    if !skip::have(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start();
    let gateway = builder(registry.url()).bound_uploads().start();
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| home.path().join(name);
    certificates(&path("certs"), &gateway.server_ca.certificate, gateway.identity());
    let layer = image(&path("image"), &pattern(0, 2 << 20));
    let layout = |name: &str| format!("oci:{}:latest", path(name).display());
    let remote = format!("docker://localhost:{}/team/app:v1", gateway.address().port());
    copy(home.path(), "--dest-cert-dir", &layout("image"), &remote).expect_success("pushing");
    copy(home.path(), "--src-cert-dir", &remote, &layout("back")).expect_success("pulling what is right");
    let hash = layer.trim_start_matches("sha256:");
    let same = |name: &str| fs::read(path(name).join("blobs/sha256").join(hash)).ok();
    assert!(same("back").is_some() && same("back") == same("image"), "the layer came back as it was");
    assert!(gateway.metric("portcullis_digest_checks_total", &[("result", "verified")]).is_some_and(|n| n >= 3.0));

    rot(&registry, &layer);
    let refused = copy(home.path(), "--src-cert-dir", &remote, &layout("rotten"));
    assert!(!refused.success(), "{}", refused.all());
    assert!(refused.all().contains("unexpected EOF"), "{}", refused.all());
    assert_eq!(same("rotten"), None);
    assert!(gateway.metric("portcullis_digest_checks_total", &[("result", "mismatch")]).is_some_and(|n| n >= 1.0));
}

#[test]
fn docker_pulls_what_is_right_and_nothing_that_rotted() {
    if !skip::have(&["docker-registry", "dockerd", "docker"]) {
        return;
    }
    let registry = Registry::start();
    let gateway = builder(registry.url()).bound_uploads().start();
    let daemon = Dockerd::start_with(gateway.address(), |certs, name| {
        certificates(&certs.join(name), &gateway.server_ca.certificate, gateway.identity());
        // It would try each layer five times, and wait longer each time.
        let settings = certs.parent().expect("a directory above").join("daemon.json");
        fs::write(settings, json!({ "max-download-attempts": 1 }).to_string()).expect("the directory is writable");
    });
    let daemon = match daemon {
        Ok(daemon) => daemon,
        Err(reason) => {
            skip::skipped(&format!("no docker daemon: {reason}"));
            return;
        }
    };
    let name = format!("{}/team/app:v1", daemon.registry);
    daemon.import(&name, &pattern(0, 3 << 20));
    daemon.docker(&["push", &name]).expect_success("docker push");
    daemon.docker(&["rmi", &name]).expect_success("docker rmi");
    daemon.docker(&["pull", &name]).expect_success("docker pull of what is right");
    daemon.docker(&["rmi", &name]).expect_success("docker rmi");
    let schema2 = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = gateway.h1().request("GET", "/v2/team/app/manifests/v1", &[("accept", schema2)], b"");
    let manifest = manifest.expect("an answer").json();
    rot(&registry, manifest["layers"][0]["digest"].as_str().unwrap_or_else(|| panic!("no layer in {manifest}")));
    let refused = daemon.docker(&["pull", &name]);
    assert!(!refused.success(), "{}", refused.all());
    // It tries to go on where the layer broke off, and hears why it can't.
    assert!(refused.all().contains("502 Bad Gateway"), "{}", refused.all());
    assert!(!daemon.docker(&["image", "inspect", &name]).success(), "there is no such image");
    assert!(gateway.metric("portcullis_digest_checks_total", &[("result", "mismatch")]).is_some_and(|n| n >= 1.0));
}
