//! Heads that don't end, are too large, or come too often; connections without any.

use super::{ATTACKERS, ENDED, PULL, REQUESTS, arena, ended, until_ended};
use crate::support::client::H1;
use crate::support::h2client::H2;
use crate::support::h2raw::RawH2;
use serde_json::json;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

#[test]
fn heads_byte_by_byte() {
    let arena = arena(&json!({ "request_head_timeout": "3s" }));
    arena.withstands("heads byte by byte", (ENDED, &ended("head_timeout"), 3 * ATTACKERS), |gateway| {
        let mut h1 = H1::connect(&gateway.tls()).expect("connected");
        h1.send(b"GET /v2/ HTTP/1.1\r\nHost: gw.test\r\nX-A: ").expect("sent");
        // The same before the preface of HTTP/2 is whole.
        let mut h2 = gateway.tls().alpn(crate::support::tls::ALPN_H2).connect().expect("connected");
        let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter();
        // And within a head of HTTP/2, beside an upload that is as slow as it may be.
        let mut raw = RawH2::connect(&gateway.tls()).expect("connected");
        raw.headers(1, &super::head(b"PATCH", super::UPLOAD.as_bytes()), false);
        raw.frame(RawH2::DATA, 0, 1, b"some");
        let whole = RawH2::encode_headers(3, &super::head(b"GET", PULL.as_bytes()), true);
        let (first, rest) = whole[9..].split_at(10);
        raw.frame(RawH2::HEADERS, RawH2::END_STREAM, 3, first);
        let continued = RawH2::encode(RawH2::CONTINUATION, RawH2::END_HEADERS, 3, rest);
        let mut continuation = continued.iter();
        until_ended(|| {
            thread::sleep(Duration::from_millis(200));
            if let Some(byte) = preface.next() {
                let _ = h2.write_all(&[*byte]);
            }
            if let Some(byte) = continuation.next() {
                let _ = raw.send(&[*byte]);
            }
            h1.send(b"x").is_ok()
        });
        assert_eq!(h2.read(&mut [0; 100]).unwrap_or(0), 0, "no byte of HTTP/2 before the preface");
        assert_eq!(raw.verdict(3), "closed");
    });
}

#[test]
fn giant_heads() {
    let arena = arena(&json!({}));
    let refused = [("outcome", "too_large")];
    arena.withstands("giant heads", (REQUESTS, &refused, 20 * ATTACKERS), |gateway| {
        let field = "x".repeat(40 * 1024);
        for _ in 0..20 {
            let mut h1 = H1::connect(&gateway.tls()).expect("connected");
            let reply = h1.request("GET", PULL, &[("X-A", &field)], b"");
            assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status == 431));
        }
        // Without any end.
        let mut h1 = H1::connect(&gateway.tls()).expect("connected");
        let _ = h1.send(format!("GET {PULL} HTTP/1.1\r\nX-A: ").as_bytes());
        until_ended(|| h1.send(field.as_bytes()).is_ok());
        let mut h2 = H2::connect(&gateway.tls()).expect("connected");
        assert_eq!(h2.request("GET", PULL, &[("x-a", &field)], b"").map(|reply| reply.status), Ok(431));
    });
    let requests = arena.upstream.take();
    assert!(requests.iter().all(|request| request.header("x-a").is_none()), "a giant head reached the registry");
}

#[test]
fn idle_connections() {
    let arena = arena(&json!({ "keep_alive_timeout": "3s", "h2_idle_timeout": "3s" }));
    arena.withstands("idle connections", (ENDED, &ended("idle_timeout"), 20 * ATTACKERS), |gateway| {
        let mut used: Vec<_> = (0..10).map(|_| gateway.h1()).collect();
        for client in &mut used {
            assert_eq!(client.get(PULL).status, 200);
        }
        let _unused: Vec<_> = (0..10).map(|_| RawH2::connect(&gateway.tls()).expect("connected")).collect();
        thread::sleep(Duration::from_secs(5));
    });
}

#[test]
fn endless_pipelines() {
    let arena = arena(&json!({ "max_requests_per_connection": 50 }));
    arena.withstands("endless pipelines", (ENDED, &ended("complete"), ATTACKERS), |gateway| {
        let mut client = H1::connect(&gateway.tls()).expect("connected");
        let request = format!("GET {PULL} HTTP/1.1\r\nHost: gw.test\r\n\r\n").repeat(100);
        // Nobody reads the answers until the gateway closes.
        until_ended(|| client.send(request.as_bytes()).is_ok());
    });
    let pipelined = arena.gateway.records().iter().filter(|record| record["identity"] == "CN=ci-7").count();
    assert!(pipelined <= 50 * ATTACKERS, "{pipelined} requests");
}
