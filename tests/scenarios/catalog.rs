//! The catalog: each client sees the repositories that it may pull, and nothing tells of the others.

mod walks;

use crate::support::gateway::{Builder, Gateway, gateway};
use crate::support::reply::Reply;
use crate::support::upstream::{Answer, Recorded, Upstream};
use serde_json::json;
use std::time::Duration;

/// Pulls from `team/**` except `team/hidden/**`, and lists.
const POLICY: &str = "
rules:
  - { name: list, subjects: [any], actions: [catalog], effect: allow }
  - { name: team, subjects: [any], repositories: ['team/**'], actions: [pull], effect: allow }
  - { name: push, subjects: [any], repositories: ['secret/**'], actions: [push, overwrite], effect: allow }
  - { name: not, subjects: [any], repositories: ['team/hidden/**'], actions: [pull], effect: deny }
";

fn parameter<'r>(request: &'r Recorded, key: &str) -> Option<&'r str> {
    let (_, query) = request.target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

/// Answers as distribution does, with `names` in their order and pages of at most `most`.
fn page_of(names: &[String], most: usize, request: &Recorded) -> Answer {
    let n = parameter(request, "n").and_then(|n| n.parse().ok()).unwrap_or(most).min(most);
    let last = parameter(request, "last").map(|last| last.replace("%2F", "/"));
    let from = last.as_ref().map_or(0, |last| names.iter().take_while(|name| *name <= last).count());
    let page = &names[from..names.len().min(from + n)];
    let answer = Answer::new(200).body(json!({ "repositories": page }).to_string().as_bytes());
    match page.last().filter(|_| from + n < names.len()) {
        Some(last) => {
            answer.header("Link", &format!("</v2/_catalog?last={}&n={n}>; rel=\"next\"", last.replace('/', "%2F")))
        }
        None => answer,
    }
}

fn registry(names: Vec<String>, most: usize) -> Upstream {
    let upstream = Upstream::start();
    upstream.answer(move |request| page_of(&names, most, request));
    upstream
}

fn builder(upstream: &Upstream) -> Builder {
    gateway().policy(POLICY).upstream(upstream.url())
}

fn start(upstream: &Upstream) -> Gateway {
    builder(upstream).start()
}

fn names(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
    let list = reply.json()["repositories"].as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_client_sees_what_it_may_pull() {
    let all = ["another", "secret/one", "team/app", "team/hidden/x", "team/tool", "teams/x", "zebra/last"];
    let upstream = registry(list(&all), 1000);
    let gateway = start(&upstream);
    for mut client in gateway.both() {
        let reply = client.get("/v2/_catalog");
        assert_eq!(names(&reply), ["team/app", "team/tool"], "{}", client.version());
        assert_eq!(reply.header("link"), None, "hidden names that follow are no next page");
        let seen = upstream.only();
        assert_eq!(seen.line(), "GET /v2/_catalog?n=1000");
        assert_eq!((seen.header("host"), seen.header("x-forwarded-proto")), (Some("gw.test"), Some("https")));
        assert!(!seen.has("accept-encoding") && !seen.has("content-length"));
        let text = format!("{:?}{}", reply.headers, reply.text());
        assert!(!["another", "secret", "hidden", "teams", "zebra"].iter().any(|name| text.contains(name)), "{text}");
        assert_eq!(client.get("/v2/team/app/tags/list").status, 200, "the connection goes on");
        upstream.take();
        assert_eq!(client.request("HEAD", "/v2/_catalog", &[], b"").status, 405);
        client.request("GET", "/v2/_catalog?n=-1", &[], b"").assert_refusal(400, "PAGINATION_NUMBER_INVALID");
        upstream.assert_untouched("refused");
    }
    let record = gateway.wait_for_record(|r| r["route"] == "catalog" && r["status"] == 200);
    assert_eq!((record["outcome"].as_str(), record["rule"].as_str()), (Some("answered"), Some("list")), "{record}");
    assert!(record["upstream"].is_string(), "{record}");
}

#[test]
fn pages_hold_what_was_asked_for_and_their_links_name_only_what_was_shown() {
    // Long stretches of hidden names, at both ends as well.
    let all: Vec<String> = (0..500)
        .map(|i| if i % 50 < 40 { format!("hidden-{i:03}/x") } else { format!("team/app-{i:03}") })
        .chain((0..150).map(|i| format!("zzz/hidden-{i:03}")))
        .collect();
    let mut all = all;
    all.sort();
    let visible: Vec<String> = all.iter().filter(|name| name.starts_with("team/")).cloned().collect();
    let upstream = registry(all, 100);
    let gateway = start(&upstream);
    for n in [1, 7, 50, 100] {
        for mut client in gateway.both() {
            let mut found: Vec<String> = Vec::new();
            let mut target = format!("/v2/_catalog?n={n}");
            loop {
                let reply = client.get(&target);
                let page = names(&reply);
                found.extend(page.clone());
                let text = format!("{:?}", reply.headers);
                assert!(!text.contains("hidden"), "{text}");
                let Some(link) = reply.header("link") else { break };
                assert_eq!(page.len(), n, "a page with a next one is full");
                let last = page.last().expect("a full page").replace('/', "%2F");
                target = format!("/v2/_catalog?n={n}&last={last}");
                assert_eq!(link, format!("<{target}>; rel=\"next\""));
            }
            assert_eq!(found, visible, "n={n} {}", client.version());
        }
    }
}

#[test]
fn a_registry_with_a_lower_limit_chooses_for_itself() {
    let all: Vec<String> = (0..120).map(|i| format!("team/app-{i:03}")).collect();
    let upstream = Upstream::start();
    let served = all.clone();
    upstream.answer(move |request| match parameter(request, "n") {
        Some(_) => Answer::new(400).body(b"{}"),
        None => page_of(&served, 50, request),
    });
    let gateway = start(&upstream);
    assert_eq!(names(&gateway.h1().get("/v2/_catalog")), all);
    assert_eq!(upstream.take().len(), 4);
}

#[test]
fn an_answer_that_is_no_catalog_is_not_passed_on() {
    let upstream = Upstream::start();
    let gateway = builder(&upstream).with_upstream(|u| u["timeouts"] = json!({ "first_byte": "300ms" })).start();
    let good = || Answer::new(200).body(br#"{"repositories":["team/app"]}"#);
    let huge = format!("{{\"repositories\":[\"{}\"]}}", "secret".repeat(1 << 20));
    let cases = [
        (Answer::new(500).body(b"secret"), 502),
        (Answer::new(401).header("WWW-Authenticate", "Basic realm=\"secret\"").body(b"secret"), 502),
        (Answer::new(302).header("Location", "/v2/secret"), 502),
        (Answer::new(200).body(b"<html>secret"), 502),
        (Answer::new(200).body(br#"{"repositories":{"secret":1}}"#), 502),
        (Answer::new(200).body(huge.as_bytes()), 502),
        (good().header("Link", "</v2/_catalog?next_page=secret>; rel=\"next\""), 502),
        (good().cut_after(5), 502),
        (Answer::raw(b"secret\r\n\r\n"), 502),
        (good().delay(Duration::from_secs(2)), 504),
        (good().slowly(1, Duration::from_secs(1)), 504),
    ];
    for (answer, status) in cases {
        let shown = format!("{answer:?}").chars().take(200).collect::<String>();
        upstream.answer(move |_| answer.clone());
        for mut client in gateway.both() {
            let reply = client.get("/v2/_catalog");
            assert_eq!(reply.status, status, "{shown}: {reply:?}");
            reply.assert_refusal(status, "UNAVAILABLE");
            assert!(!format!("{:?}{}", reply.headers, reply.text()).contains("secret"), "{shown}: {reply:?}");
            assert_eq!(client.request("HEAD", "/v2/_catalog", &[], b"").status, 405, "{shown}: the connection goes on");
        }
    }
    upstream.answer(|_| Answer::new(404).body(b"404 page not found"));
    gateway.h1().get("/v2/_catalog").assert_refusal(404, "NAME_UNKNOWN");
    upstream.answer(move |_| good());
    assert_eq!(names(&gateway.h1().get("/v2/_catalog")), ["team/app"]);
    assert!(gateway.metric("portcullis_upstream_errors_total", &[]).is_some_and(|errors| errors >= 22.0));
}

#[test]
fn the_work_for_one_request_is_bounded() {
    let upstream = Upstream::start();
    // A list without an end, hidden but for its first name.
    upstream.answer(|request| {
        let at = parameter(request, "last").and_then(|last| last.strip_prefix("x-")?.parse().ok()).unwrap_or(0_u32);
        let first = if parameter(request, "last").is_none() { "team/app" } else { "secret/app" };
        let link = format!("</v2/_catalog?last=x-{}>; rel=\"next\"", at + 1);
        Answer::new(200).header("Link", &link).body(json!({ "repositories": [first] }).to_string().as_bytes())
    });
    let gateway = start(&upstream);
    for mut client in gateway.both() {
        let reply = client.get("/v2/_catalog?n=5");
        assert_eq!(names(&reply), ["team/app"]);
        assert_eq!(reply.header("link"), Some("</v2/_catalog?n=5&last=team%2Fapp>; rel=\"next\""));
        assert!(upstream.take().len() <= 128);
        client.get("/v2/_catalog?n=5&last=team%2Fapp").assert_refusal(503, "UNAVAILABLE");
        assert!(upstream.take().len() <= 128);
    }
    // A list that leads to itself.
    upstream.answer(|_| {
        let link = "</v2/_catalog?last=a>; rel=\"next\"";
        Answer::new(200).header("Link", link).body(br#"{"repositories":["a"]}"#)
    });
    gateway.h1().get("/v2/_catalog").assert_refusal(502, "UNAVAILABLE");
    assert_eq!(upstream.take().len(), 2);
}

#[test]
fn names_that_nobody_could_pull_here_are_left_out() {
    let upstream = registry(list(&["Team/App", "team/../x", "team/app", "team/moved/app"]), 1000);
    let other = Upstream::start();
    let gateway = builder(&upstream)
        .upstream(other.url())
        .configure(|c| c["upstreams"][1]["repositories"] = json!(["team/moved"]))
        .start();
    for mut client in gateway.both() {
        assert_eq!(names(&client.get("/v2/_catalog")), ["team/app"], "another upstream serves the rest, or none can");
    }
    other.assert_untouched("the catalog is one upstream's");
}

#[test]
fn the_right_to_list_is_asked_first() {
    let upstream = registry(list(&["team/app"]), 1000);
    let policy = "rules:\n  - { name: p, subjects: [any], repositories: ['**'], actions: [pull], effect: allow }\n";
    let gateway = gateway().policy(policy).upstream(upstream.url()).start();
    for mut client in gateway.both() {
        client.get("/v2/_catalog").assert_refusal(403, "DENIED");
    }
    upstream.assert_untouched("no right to list");
}

#[test]
fn credentials_go_with_the_request_and_challenges_come_back() {
    let upstream = Upstream::start();
    let challenge = "Bearer realm=\"https://auth.example/token\",service=\"r\",scope=\"registry:catalog:*\"";
    upstream.answer(move |request| match request.header("authorization") {
        Some(_) => Answer::new(200).body(br#"{"repositories":["team/app"]}"#),
        None => Answer::new(401).header("WWW-Authenticate", challenge).body(b"{}"),
    });
    let gateway = builder(&upstream).with_upstream(|u| u["authorization"] = "pass".into()).start();
    for mut client in gateway.both() {
        let reply = client.get("/v2/_catalog");
        reply.assert_refusal(401, "UNAUTHORIZED");
        assert_eq!(reply.header("www-authenticate"), Some(challenge));
        let reply = client.request("GET", "/v2/_catalog", &[("Authorization", "Bearer abc")], b"");
        assert_eq!(names(&reply), ["team/app"]);
    }
    assert!(upstream.take().iter().any(|request| request.header("authorization") == Some("Bearer abc")));
    let gateway = builder(&upstream)
        .file("password", "s3cret\n")
        .with_upstream(|u| {
            u["authorization"] = "replace".into();
            u["credentials"] = json!({ "username": "reader", "password_file": "password" });
        })
        .start();
    let reply =
        gateway.h1().request("GET", "/v2/_catalog", &[("Authorization", "Bearer abc")], b"").expect("an answer");
    assert_eq!(names(&reply), ["team/app"]);
    assert_eq!(upstream.only().header("authorization"), Some("Basic cmVhZGVyOnMzY3JldA=="));
}
