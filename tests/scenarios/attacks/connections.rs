//! Connections and handshakes in numbers.

use super::{ATTACKERS, HANDSHAKES, arena, until_ended};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::{Duration, Instant};

fn result(name: &'static str) -> [(&'static str, &'static str); 1] {
    [("result", name)]
}

/// How long an attack in numbers goes on.
const WHILE: Duration = Duration::from_secs(3);

#[test]
fn connections_in_numbers() {
    const TRIES: usize = 30;
    const PLACES: usize = 20;
    let arena = arena(&json!({ "max_connections_per_address": PLACES }));
    let all_tried = Barrier::new(ATTACKERS);
    let refused = ATTACKERS * TRIES - PLACES;
    // Half of them: who has a place and says nothing loses it after a while, to another one.
    arena.withstands("connections", (HANDSHAKES, &result("too_many_of_address"), refused / 2), |gateway| {
        let held: Vec<_> = (0..TRIES).map(|_| gateway.tls().connect()).collect();
        all_tried.wait();
        drop(held);
    });
}

#[test]
fn silent_handshakes() {
    // The test holds the other ends.
    const MOST: u32 = 150;
    // Longer than the bystander needs for its own, and shorter than the attack.
    let arena = arena(&json!({ "max_handshakes_per_address": 20, "handshake_timeout": "3s" }));
    arena.withstands("silent handshakes", (HANDSHAKES, &result("timeout"), 20), |gateway| {
        let mut held = Vec::new();
        for _ in 0..MOST {
            held.extend(TcpStream::connect(gateway.address()));
            std::thread::sleep(Duration::from_secs(5) / MOST);
        }
    });
    arena.gateway.wait_for_metric(HANDSHAKES, &result("too_many_handshakes_of_address"), |n| n >= 1.0);
}

#[test]
fn torn_handshakes() {
    let arena = arena(&json!({}));
    arena.withstands("torn handshakes", (HANDSHAKES, &result("disconnected"), 10 * ATTACKERS), |gateway| {
        let end = Instant::now() + WHILE;
        while Instant::now() < end {
            let Ok(mut tcp) = TcpStream::connect(gateway.address()) else { continue };
            // A record of a ClientHello that ends before it has begun.
            let _ = tcp.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
        }
    });
}

#[test]
fn full_handshakes_in_a_row() {
    let arena = arena(&json!({}));
    arena.withstands("handshakes in a row", (HANDSHAKES, &result("established"), 10 * ATTACKERS), |gateway| {
        let end = Instant::now() + WHILE;
        let mut tries = 0;
        while Instant::now() < end || tries < 10 {
            drop(gateway.tls().connect());
            tries += 1;
        }
    });
}

#[test]
fn hellos_in_single_bytes() {
    let mut limits = json!({});
    limits["handshake_timeout"] = "20s".into();
    let arena = arena(&limits);
    arena.withstands("hellos in single bytes", (HANDSHAKES, &[], 2), |gateway| {
        let mut tcp = TcpStream::connect(gateway.address()).expect("connected");
        // A hello of 16 KiB, which is the most there may be, in records of one byte: six times as much.
        let hello = [&[1, 0, 0x3f, 0xf0][..], &[0; 0x3ff0]].concat();
        let records: Vec<u8> = hello.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
        let mut parts = records.chunks(600).cycle();
        until_ended(|| parts.next().is_some_and(|part| tcp.write_all(part).is_ok()));
        let mut rest = Vec::new();
        let _ = tcp.read_to_end(&mut rest);
    });
    let refused = |name| arena.gateway.metric(HANDSHAKES, &result(name)).unwrap_or(0.0);
    let all = refused("too_many_bytes")
        + refused("protocol")
        + refused("malformed_certificate")
        + refused("certificate_too_large");
    assert!(all > 3.5, "{}", arena.gateway.metrics());
}
