//! Bounds on what a client may take, each with its own name in the metrics or the record.

use crate::support::client::H1;
use crate::support::gateway::{Gateway, gateway};
use crate::support::h2raw::RawH2;
use crate::support::upstream::{Answer, Upstream};
use serde_json::json;
use std::io::{Read, Write};
use std::time::Duration;

const PULL: &str = "/v2/a/manifests/v1";

fn start(limits: &serde_json::Value) -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let gateway = gateway()
        .upstream(upstream.url())
        .configure(|c| {
            for (key, value) in limits.as_object().expect("keys") {
                c["limits"][key] = value.clone();
            }
        })
        .start();
    (upstream, gateway)
}

/// Connects, asks, and tells whether there was an answer.
fn is_served(gateway: &Gateway) -> bool {
    H1::connect(&gateway.tls()).is_ok_and(|mut client| client.request("GET", PULL, &[], b"").is_ok())
}

#[test]
fn a_head_beyond_its_bounds_is_refused_by_name() {
    let (upstream, gateway) = start(&json!({ "max_head": "4KiB", "max_header_fields": 20, "max_target": "1KiB" }));
    let names: Vec<String> = (0..30).map(|n| format!("x-field-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let large = "x".repeat(5000);
    let long = format!("/v2/a/tags/list?last={}", "a".repeat(1100));
    for version in 0..2 {
        let ask = |target: &str, headers: &[(&str, &str)]| {
            let [mut h1, mut h2] = gateway.both();
            let client = if version == 0 { &mut h1 } else { &mut h2 };
            client.request("GET", target, headers, b"").status
        };
        assert_eq!(ask(PULL, &many), 431, "too many fields");
        assert_eq!(ask(PULL, &[("x-large", &large)]), 431, "too many bytes");
        assert_eq!(ask(&long, &[]), 414, "too long a target");
        upstream.assert_untouched("a head beyond its bounds");
        assert_eq!(ask(PULL, &[("x-small", "1")]), 200);
        upstream.take();
    }
    gateway.wait_for_record(|record| record["outcome"] == "too_large" && record["status"] == 431);
}

#[test]
fn a_manifest_beyond_its_bound_is_never_whole() {
    let (upstream, gateway) = start(&json!({ "max_manifest": "4KiB" }));
    for mut client in gateway.both() {
        let reply = client.request("PUT", PULL, &[], &vec![b' '; 5000]);
        assert_eq!(reply.status, 413, "{}", client.version());
    }
    let mut client = gateway.h1();
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 5000, " ".repeat(5000));
    client.send_request("PUT", PULL, &[("Transfer-Encoding", "chunked")], b"").expect("sent");
    client.send(chunk.as_bytes()).expect("sent");
    assert_eq!(client.answer().map(|reply| reply.status).ok(), Some(413), "without a length");
    assert!(upstream.take().iter().all(|request| !request.complete), "the registry never gets a whole one");
    let mut client = gateway.h1();
    assert_eq!(client.request("PUT", PULL, &[], &vec![b' '; 4000]).expect("an answer").status, 200);
    gateway.wait_for_record(|record| record["outcome"] == "too_large");
}

#[test]
fn an_address_has_its_share_of_connections() {
    let (_upstream, gateway) = start(&json!({ "max_connections_per_address": 2 }));
    let (first, _second) = (gateway.h1(), gateway.h1());
    assert!(!is_served(&gateway), "a third connection");
    gateway.wait_for_metric("portcullis_handshakes_total", &[("result", "too_many_of_address")], |n| n >= 1.0);
    drop(first);
    let served = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        is_served(&gateway)
    });
    assert!(served, "a place that was given back");
}

#[test]
fn a_client_has_its_share_of_connections() {
    let (_upstream, gateway) = start(&json!({ "max_connections_per_identity": 1 }));
    let _held = gateway.h1();
    assert!(!is_served(&gateway), "a second connection of the same client");
    gateway.wait_for_metric("portcullis_handshakes_total", &[("result", "too_many_of_identity")], |n| n >= 1.0);
    let renewed = gateway.client("ci-7");
    let served =
        H1::connect(&gateway.tls_as(&renewed)).is_ok_and(|mut client| client.request("GET", PULL, &[], b"").is_ok());
    assert!(!served, "another certificate of the same client");
    let other = gateway.client("ci-8");
    assert_eq!(gateway.h1_as(&other).get(PULL).status, 200, "another client has its own share");
}

#[test]
fn all_connections_together_are_bounded() {
    let (_upstream, gateway) = start(&json!({ "max_connections": 1 }));
    let _held = gateway.h1();
    assert!(!is_served(&gateway));
    gateway.wait_for_metric("portcullis_handshakes_total", &[("result", "too_many_connections")], |n| n >= 1.0);
}

#[test]
fn silent_clients_of_one_address_take_a_bounded_number_of_handshakes() {
    let (_upstream, gateway) = start(&json!({ "max_handshakes_per_address": 2, "handshake_timeout": "1s" }));
    let silent: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(gateway.address()).expect("accepted")).collect();
    let labels = [("result", "too_many_handshakes_of_address")];
    gateway.wait_for_metric("portcullis_handshakes_total", &labels, |n| n >= 1.0);
    // Their deadline makes room for those who speak.
    let served = (0..60).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        is_served(&gateway)
    });
    assert!(served);
    drop(silent);
}

#[test]
fn a_connection_ends_in_good_order_after_its_last_request() {
    let (_upstream, gateway) = start(&json!({ "max_requests_per_connection": 2 }));
    let mut h1 = gateway.h1();
    assert_eq!(h1.get(PULL).status, 200);
    let last = h1.get(PULL);
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(h1.is_closed_within(Duration::from_secs(3)));
    let mut h2 = gateway.h2();
    assert_eq!(h2.get(PULL).status, 200);
    assert_eq!(h2.get(PULL).status, 200);
    let third = h2.request("GET", PULL, &[], b"");
    assert!(third.is_err(), "a connection that said goodbye takes no more: {third:?}");
}

#[test]
fn a_client_that_hears_no_goodbye_is_cut_off() {
    let (upstream, gateway) = start(&json!({ "max_requests_per_connection": 2, "h2_max_streams": 3 }));
    let mut client = RawH2::connect(&gateway.tls()).expect("connects");
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":path", PULL.as_bytes()), (b":authority", b"gw.test")];
    // It acknowledges nothing, so the goodbye never becomes final.
    for stream in (1..40).step_by(2) {
        client.headers(stream, &fields, true);
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = [("reason", "http2_excess")];
    gateway.wait_for_metric("portcullis_connections_ended_total", &ended, |n| n >= 1.0);
    let asked = upstream.take().len();
    assert!((2..=6).contains(&asked), "two, and what may have been under way: {asked}");
}

#[test]
fn a_refused_client_counts_until_its_connection_is_gone() {
    let (_upstream, gateway) = start(&json!({ "max_connections": 2 }));
    let labels = [("result", "too_many_connections")];
    // They are told why, and their sockets stay open until they have had the time to read it.
    let refused = (0..20).any(|_| {
        let strangers: Vec<_> = (0..2)
            .map(|_| {
                let mut stranger = std::net::TcpStream::connect(gateway.address()).expect("accepted");
                let _ = stranger.write_all(b"GET / HTTP/1.0\r\n\r\n");
                let _ = stranger.set_read_timeout(Some(Duration::from_secs(3)));
                let _ = stranger.read(&mut [0; 64]);
                stranger
            })
            .collect();
        let served = is_served(&gateway);
        drop(strangers);
        !served
    });
    assert!(refused, "connections in the middle of their end are connections");
    gateway.wait_for_metric("portcullis_handshakes_total", &labels, |n| n >= 1.0);
}

#[test]
fn a_request_has_its_time_however_it_moves() {
    let (upstream, gateway) = start(&json!({ "request_lifetime": "1s" }));
    upstream.answer(|_| Answer::new(200).pattern(0, 100_000).slowly(1000, Duration::from_millis(100)));
    let mut client = gateway.h1();
    assert!(client.request("GET", PULL, &[], b"").is_err(), "half an answer must not look whole");
    gateway.wait_for_record(|record| record["outcome"] == "lifetime_exceeded");
}
