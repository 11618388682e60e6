//! Who is told of a registry's answer that was refused: the audit log each time, the gateway's own log now and then.

use super::{blob, digest, download, flipped};
use crate::support::gateway::{Gateway, gateway};
use crate::support::upstream::{Answer, Upstream, pattern};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

fn audited(url: String) -> Gateway {
    gateway()
        .upstream(url)
        .configure(|c| c["audit_log"] = json!({ "path": "audit.log" }))
        .with_upstream(|u| u["verify_digests"] = true.into())
        .start()
}

/// Waits for `count` records of refusals with this outcome, and returns them.
#[track_caller]
fn refusals(gateway: &Gateway, outcome: &str, count: usize) -> Vec<Value> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string(gateway.path().join("audit.log")).unwrap_or_default();
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<_> = records.filter(|r| r["event"] == "refused" && r["outcome"] == outcome).collect();
        if found.len() >= count {
            assert_eq!(found.len(), count, "{text}");
            return found;
        }
        assert!(Instant::now() < end, "{} of {count} records {outcome} in\n{text}", found.len());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Lines at `level` with `text`: no more than one for each minute that the test may have seen.
#[track_caller]
fn assert_sparing(gateway: &Gateway, started: Instant, level: &str, text: &str) {
    let log = gateway.log();
    let lines = log.iter().filter(|line| line.contains(level) && line.contains(text)).count();
    let minutes = 2 + usize::try_from(started.elapsed().as_secs() / 60).unwrap_or(0);
    assert!((1..=minutes).contains(&lines), "{lines} lines {text:?}: {log:#?}");
}

#[test]
fn wrong_content_is_in_the_audit_log_each_time_and_in_the_log_now_and_then() {
    let upstream = Upstream::start();
    let gateway = audited(upstream.url());
    let started = Instant::now();
    // One shows in the head, the other when most of it has gone out.
    let content = pattern(0, 300_000);
    let target = blob(&digest(&content));
    let by_body = Answer::new(200).body(&flipped(&content, 299_999));
    let by_head = Answer::new(200).header("Docker-Content-Digest", crate::DIGEST).body(&content);
    for answer in [by_body, by_head] {
        upstream.answer(move |_| answer.clone());
        for _ in 0..5 {
            for mut client in gateway.both() {
                download(&mut client, &target);
            }
        }
    }
    for record in refusals(&gateway, "digest_mismatch", 20) {
        assert_eq!((&record["repository"], &record["action"]), (&json!("team/app"), &json!("pull")), "{record}");
    }
    assert_sparing(&gateway, started, "ERROR", "with other content");
    assert_eq!(gateway.metric("portcullis_digest_checks_total", &[("result", "mismatch")]), Some(20.0));
}

#[test]
fn a_refused_redirect_is_in_the_audit_log_each_time_and_in_the_log_now_and_then() {
    let upstream = Upstream::start();
    let gateway = audited(upstream.url());
    let started = Instant::now();
    upstream.answer(|_| Answer::new(307).header("Location", "https://evil.example/b"));
    for _ in 0..5 {
        for mut client in gateway.both() {
            client.get(&blob(crate::DIGEST)).assert_refusal(502, "UNAVAILABLE");
        }
    }
    for record in refusals(&gateway, "redirect_refused", 10) {
        assert_eq!((&record["status"], &record["action"]), (&json!(502), &json!("pull")), "{record}");
    }
    assert_sparing(&gateway, started, "WARN", "evil.example");
    assert_eq!(gateway.metric("portcullis_upstream_redirects_total", &[("result", "refused")]), Some(10.0));
}
