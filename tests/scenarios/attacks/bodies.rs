//! Bodies that hardly move, in both directions.

use super::{ATTACKERS, BLOB_PATH, ENDED, REQUESTS, UPLOAD, arena, ended, head, until_ended};
use crate::support::client::H1;
use crate::support::h2raw::RawH2;
use crate::support::upstream::Answer;
use serde_json::json;
use std::thread;
use std::time::Duration;

fn outcome(name: &'static str) -> [(&'static str, &'static str); 1] {
    [("outcome", name)]
}

#[test]
fn uploads_that_drip() {
    let arena = arena(&json!({ "min_upload_rate": "16KiB", "rate_window": "1s" }));
    let slow = outcome("client_too_slow");
    arena.withstands("uploads that drip", (REQUESTS, &slow, 2 * ATTACKERS), |gateway| {
        let mut h1 = H1::connect(&gateway.tls()).expect("connected");
        h1.send_request("PATCH", UPLOAD, &[("Content-Length", "1000000")], b"some").expect("sent");
        let mut h2 = RawH2::connect(&gateway.tls()).expect("connected");
        h2.headers(1, &head(b"PATCH", UPLOAD.as_bytes()), false);
        until_ended(|| {
            thread::sleep(Duration::from_millis(20));
            h2.frame(RawH2::DATA, 0, 1, b"x");
            h1.send(b"x").is_ok()
        });
        assert_eq!(h2.verdict(1), "reset");
    });
    assert!(arena.upstream.take().iter().all(|request| !request.complete || request.method == "GET"));
    let h1_ended = arena.gateway.metric(ENDED, &ended("too_slow"));
    assert!(h1_ended.is_some_and(|n| n > 3.5), "{h1_ended:?}");
}

#[test]
fn uploads_that_stop() {
    let arena = arena(&json!({ "body_idle_timeout": "1s" }));
    let silent = outcome("client_timeout");
    arena.withstands("uploads that stop", (REQUESTS, &silent, 2 * ATTACKERS), |gateway| {
        let mut h1 = H1::connect(&gateway.tls()).expect("connected");
        h1.send_request("PATCH", UPLOAD, &[("Content-Length", "1000000")], b"some").expect("sent");
        let mut h2 = RawH2::connect(&gateway.tls()).expect("connected");
        h2.headers(1, &head(b"PATCH", UPLOAD.as_bytes()), false);
        h2.frame(RawH2::DATA, 0, 1, b"some");
        assert!(h1.is_closed_within(super::MOST), "HTTP/1.1");
        assert!(matches!(h2.verdict(1).as_str(), "reset" | "408"));
    });
}

#[test]
fn downloads_that_are_hardly_read() {
    let arena = arena(&json!({ "min_download_rate": "1MiB", "rate_window": "1s" }));
    arena.withstands("downloads that are hardly read", (ENDED, &ended("too_slow"), ATTACKERS), |gateway| {
        let mut client = H1::connect(&gateway.tls()).expect("connected");
        client.send_request("GET", BLOB_PATH, &[], b"").expect("sent");
        let head = client.head().expect("an answer");
        let mut read = 0;
        // Until the gateway has enough of it: what is still in the kernel is lost with the connection.
        let _ = client.body(&head, "GET", |part| {
            read += part.len();
            thread::sleep(Duration::from_millis(100));
        });
        assert!((read as u64) < super::BLOB, "half an answer must not look whole");
    });
    arena.gateway.wait_for_record(|record| record["outcome"] == "client_too_slow");
}

#[test]
fn downloads_that_nobody_reads() {
    let arena = arena(&json!({ "body_idle_timeout": "1s", "min_download_rate": "0B" }));
    arena.withstands("downloads that nobody reads", (ENDED, &ended("too_slow"), ATTACKERS), |gateway| {
        let mut client = H1::connect(&gateway.tls()).expect("connected");
        client.send_request("GET", BLOB_PATH, &[], b"").expect("sent");
        thread::sleep(Duration::from_secs(5));
    });
    let faults = arena.gateway.metric("portcullis_upstream_errors_total", &[]).unwrap_or(0.0);
    assert!(faults < 0.5, "the registry did nothing wrong");
}

#[test]
fn a_slow_registry_is_not_held_against_its_clients() {
    let arena = arena(&json!({
        "min_upload_rate": "1MiB", "min_download_rate": "1MiB", "rate_window": "300ms", "body_idle_timeout": "20s"
    }));
    arena.upstream.answer(|request| match request.method.as_str() {
        // 20 KiB a second.
        "GET" => Answer::new(200).pattern(0, 30_000).slowly(2_000, Duration::from_millis(100)),
        _ => Answer::new(202),
    });
    // 64 KiB in 250 ms, when the buffers on the way are full.
    arena.upstream.read_slowly(Duration::from_millis(250));
    for mut client in arena.gateway.both() {
        let version = client.version();
        assert_eq!(client.get(BLOB_PATH).status, 200, "{version}");
        let reply = client.request("PATCH", UPLOAD, &[], &vec![1; 512 << 10]);
        assert_eq!(reply.status, 202, "{version}");
    }
    let outcomes: Vec<_> = arena.gateway.records().iter().map(|record| record["outcome"].clone()).collect();
    assert!(outcomes.iter().all(|outcome| outcome == "proxied"), "{outcomes:?}");
}
