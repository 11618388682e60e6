//! Floods of HTTP/2 frames.

use super::{ENDED, PULL, arena, ended, head, until_ended};
use crate::open_gateway;
use crate::support::gateway::Gateway;
use crate::support::h2raw::RawH2;
use serde_json::json;
use std::thread;
use std::time::Duration;

/// The error code ENHANCE_YOUR_CALM (RFC 9113 §7).
const ENHANCE_YOUR_CALM: u32 = 11;

fn raw(gateway: &Gateway) -> RawH2 {
    RawH2::connect(&gateway.tls()).unwrap_or_else(|e| panic!("connecting: {e}"))
}

fn get(stream: u32) -> Vec<u8> {
    RawH2::encode_headers(stream, &head(b"GET", PULL.as_bytes()), true)
}

/// Opens an upload on stream 1, and floods with what `frames` makes of a number until the connection is gone.
fn flood(name: &str, reason: &'static str, frames: impl Fn(u32) -> Vec<u8> + Sync) {
    let arena = arena(&json!({}));
    arena.withstands(name, (ENDED, &ended(reason), super::ATTACKERS), |gateway| {
        let mut client = raw(gateway);
        client.headers(1, &head(b"PATCH", super::UPLOAD.as_bytes()), false);
        client.frame(RawH2::DATA, 0, 1, b"some");
        // One upload at least is under way when the flood begins.
        until_ended(|| {
            thread::sleep(Duration::from_millis(5));
            arena.upstream.body_bytes() < 4
        });
        let mut number = 0;
        until_ended(|| {
            let batch: Vec<u8> = (0..64).flat_map(|n| frames(number + n)).collect();
            number += 64;
            client.send(&batch).is_ok()
        });
        assert!(number < 1_000_000, "{name}: still connected after {number} frames");
    });
    // What was under way ended with the connection, and for its reason.
    let cut = arena.gateway.wait_for_record(|record| record["outcome"] == "client_flood");
    assert_eq!(cut["end_reason"], reason);
    let requests = arena.upstream.requests();
    assert!(requests.iter().all(|request| request.complete || request.method == "PATCH"), "{requests:#?}");
}

#[test]
fn rapid_reset() {
    flood("rapid reset", "reset_flood", |n| {
        let stream = 3 + n * 2;
        [get(stream), RawH2::encode(RawH2::RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
}

#[test]
fn resets_that_the_gateway_is_made_to_send() {
    // A window that overflows is an error of its stream, which the gateway must reset (RFC 9113 §6.9.1).
    flood("made-you-reset", "reset_flood", |n| {
        let stream = 3 + n * 2;
        let overflow = RawH2::encode(RawH2::WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        [get(stream), overflow].concat()
    });
}

#[test]
fn settings() {
    flood("SETTINGS flood", "settings_flood", |n| {
        let value = [&4_u16.to_be_bytes()[..], &(65_535 + n % 2).to_be_bytes()[..]].concat();
        RawH2::encode(RawH2::SETTINGS, 0, 0, &value)
    });
}

#[test]
fn pings() {
    flood("PING flood", "ping_flood", |n| RawH2::encode(RawH2::PING, 0, 0, &u64::from(n).to_be_bytes()));
}

#[test]
fn priorities() {
    flood("PRIORITY flood", "priority_flood", |n| RawH2::encode(RawH2::PRIORITY, 0, 5 + n * 2, &[0, 0, 0, 1, 9]));
}

#[test]
fn window_updates() {
    flood("WINDOW_UPDATE flood", "window_update_flood", |_| {
        RawH2::encode(RawH2::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())
    });
}

#[test]
fn empty_frames() {
    flood("empty DATA flood", "empty_frame_flood", |_| RawH2::encode(RawH2::DATA, 0, 1, &[]));
}

#[test]
fn data_frames_of_padding() {
    flood("DATA of nothing but padding", "empty_frame_flood", |n| {
        let padding = u8::try_from(n % 256).expect("a byte");
        let payload = [&[padding][..], &vec![0; usize::from(padding)]].concat();
        RawH2::encode(RawH2::DATA, RawH2::PADDED, 1, &payload)
    });
}

#[test]
fn continuations_without_end() {
    // The library ends a head that goes on and on; whichever counts first, the connection is gone.
    let arena = arena(&json!({}));
    arena.ends_all("CONTINUATION flood", &["http2_excess", "continuation_flood"], |gateway| {
        let mut client = raw(gateway);
        client.frame(RawH2::HEADERS, 0, 1, &[]);
        until_ended(|| {
            let frames: Vec<u8> = (0..64).flat_map(|_| RawH2::encode(RawH2::CONTINUATION, 0, 1, &[0; 64])).collect();
            client.send(&frames).is_ok()
        });
    });
    arena.upstream.take().iter().for_each(|request| assert_eq!(request.line(), format!("GET {PULL}")));
}

#[test]
fn many_heads_in_small_pieces() {
    flood("CONTINUATION pieces", "continuation_flood", |n| {
        let whole = get(3 + n * 2);
        let block = &whole[9..];
        let stream = 3 + n * 2;
        let (first, rest) = block.split_at(20);
        let (second, third) = rest.split_at(20);
        [
            RawH2::encode(RawH2::HEADERS, RawH2::END_STREAM, stream, first),
            RawH2::encode(RawH2::CONTINUATION, 0, stream, second),
            RawH2::encode(RawH2::CONTINUATION, RawH2::END_HEADERS, stream, third),
        ]
        .concat()
    });
}

#[test]
fn frames_of_unknown_types() {
    flood("unknown frames", "unknown_frame_flood", |n| RawH2::encode(0xfa, 0, 0, &n.to_be_bytes()));
}

#[test]
fn tiny_data_frames() {
    let arena = arena(&json!({}));
    arena.ends_all("DATA in single bytes on a stream that ended", &["protocol_error", "http2_excess"], |gateway| {
        let mut client = raw(gateway);
        client.headers(1, &head(b"GET", PULL.as_bytes()), true);
        until_ended(|| {
            let frames: Vec<u8> = (0..64).flat_map(|_| RawH2::encode(RawH2::DATA, 0, 1, b"x")).collect();
            client.send(&frames).is_ok()
        });
    });
}

#[test]
fn tiny_data_frames_of_an_upload_that_the_registry_holds() {
    let arena = arena(&json!({}));
    arena.upstream.read_slowly(Duration::from_secs(30));
    arena.ends_all("DATA in single bytes of a stalled upload", &["http2_excess"], |gateway| {
        let mut client = raw(gateway);
        client.headers(1, &head(b"PATCH", super::UPLOAD.as_bytes()), false);
        until_ended(|| {
            let frames: Vec<u8> = (0..64).flat_map(|_| RawH2::encode(RawH2::DATA, 0, 1, b"x")).collect();
            client.send(&frames).is_ok()
        });
    });
}

#[test]
fn a_client_that_floods_is_told_to_calm_down() {
    let (_upstream, gateway) = open_gateway();
    let mut client = raw(&gateway);
    for _ in 0..60 {
        client.frame(RawH2::SETTINGS, 0, 0, &[]);
    }
    assert_eq!(client.goaway(Duration::from_secs(10)), Some(ENHANCE_YOUR_CALM));
    gateway.wait_for_metric(ENDED, &ended("settings_flood"), |n| n >= 1.0);
}

#[test]
fn what_good_clients_send_is_no_flood() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|_| crate::support::upstream::Answer::new(200).pattern(0, 8 << 20));
    let mut client = raw(&gateway);
    client.frame(RawH2::WINDOW_UPDATE, 0, 0, &0x3fff_ffff_u32.to_be_bytes());
    client.headers(1, &head(b"GET", super::BLOB_PATH.as_bytes()), true);
    let mut received = 0;
    let mut updates = 0;
    while received < 8 << 20 {
        let frame = client.next(Duration::from_secs(20)).expect("the download goes on");
        if frame.kind != RawH2::DATA {
            continue;
        }
        received += frame.payload.len();
        // As Go's client does: both windows, every few KiB; and a PING now and then.
        for part in frame.payload.chunks(4096) {
            let step = u32::try_from(part.len()).expect("small").to_be_bytes();
            for stream in [0, 1] {
                client.frame(RawH2::WINDOW_UPDATE, 0, stream, &step);
                updates += 1;
            }
        }
        if received % (1 << 20) == 0 {
            client.frame(RawH2::PING, 0, 0, &[7; 8]);
        }
    }
    assert!(updates >= 4096, "{updates}");
    client.headers(3, &head(b"GET", b"/v2/"), true);
    let verdict = client.verdict(3);
    assert_eq!(verdict, "200");
}
