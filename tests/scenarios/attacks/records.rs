//! TLS records that carry nothing, once the handshake is done.

use super::{ATTACKERS, ENDED, arena, ended, until_ended};
use crate::support::gateway::Gateway;
use crate::support::h2raw::RawH2;
use serde_json::json;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The `openssl` client, which takes orders line by line.
fn s_client(gateway: &Gateway, version: &str) -> Child {
    let identity = gateway.identity();
    Command::new("openssl")
        .args(["s_client", "-connect", &gateway.address().to_string(), "-servername", "gw.test", version])
        .arg("-cert")
        .arg(&identity.chain)
        .arg("-key")
        .arg(&identity.key)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("openssl: {e}"))
}

/// Gives an order again and again, each by itself, until the client has left, which it must.
fn repeat(client: &mut Child, order: &[u8]) {
    let mut stdin = client.stdin.take().expect("a pipe");
    // A library that doesn't count them needs some thousands, and the client takes one at a time.
    let end = Instant::now() + super::MOST * 3;
    let mut running = || client.try_wait().is_ok_and(|status| status.is_none());
    while Instant::now() < end && running() && stdin.write_all(order).is_ok() {
        thread::sleep(Duration::from_micros(500));
    }
    let left = !running() || Instant::now() < end;
    drop(stdin);
    let _ = client.kill();
    let _ = client.wait();
    assert!(left, "still connected");
}

#[test]
fn key_updates() {
    let arena = arena(&json!({}));
    arena.withstands("KeyUpdate flood", (ENDED, &ended("tls_fault"), ATTACKERS), |gateway| {
        repeat(&mut s_client(gateway, "-tls1_3"), b"k\n");
    });
}

#[test]
fn renegotiations() {
    let arena = arena(&json!({}));
    // A server with OpenSSL declines, and the client leaves; who left is known by the thread, so nothing is left to wait for.
    let reasons = if cfg!(feature = "openssl") { &["client_closed", "tls_fault"][..] } else { &["tls_fault"] };
    arena.ends_all("renegotiation", reasons, |gateway| {
        repeat(&mut s_client(gateway, "-tls1_2"), b"R\n");
    });
    let handshakes = arena.gateway.metric(super::HANDSHAKES, &[("result", "established")]);
    let requests = arena.upstream.take().len();
    assert!(handshakes.is_some_and(|n| n >= 4.0), "{handshakes:?}, {requests} requests");
}

#[test]
fn records_that_are_no_tls() {
    let arena = arena(&json!({}));
    arena.withstands("broken records", (ENDED, &ended("tls_fault"), 2 * ATTACKERS), |gateway| {
        for record in [&[20, 3, 3, 0, 1, 1][..], &[23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
        {
            let mut client = RawH2::connect(&gateway.tls()).expect("connected");
            client.headers(1, &super::head(b"GET", super::PULL.as_bytes()), true);
            assert_eq!(client.verdict(1), "200");
            let records = record.repeat(100);
            until_ended(|| {
                thread::sleep(Duration::from_millis(1));
                client.tcp().write_all(&records).is_ok()
            });
        }
    });
}
