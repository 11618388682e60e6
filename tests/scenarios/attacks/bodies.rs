//! Bodies that hardly move, in both directions.

use super::{ATTACKERS, Arena, BLOB_PATH, ENDED, REQUESTS, UPLOAD, arena, ended, head, until_ended};
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
        "min_upload_rate": "1MiB", "min_download_rate": "1MiB", "rate_window": "3s", "body_idle_timeout": "20s"
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

#[test]
fn bytes_for_nobody_excuse_no_upload() {
    let arena = arena(&json!({ "body_idle_timeout": "1s" }));
    let silent = outcome("client_timeout");
    arena.withstands("bytes for nobody", (REQUESTS, &silent, ATTACKERS), |gateway| {
        let mut client = RawH2::connect(&gateway.tls()).expect("connected");
        client.headers(1, &head(b"PATCH", UPLOAD.as_bytes()), false);
        client.frame(RawH2::DATA, 0, 1, b"some");
        // Refused, and nobody waits for the body of one who asked before sending.
        let expecting = [&head(b"POST", super::PULL.as_bytes())[..], &[(b"expect", b"100-continue")]].concat();
        client.headers(3, &expecting, false);
        client.frame(RawH2::DATA, 0, 3, b"x");
        assert_eq!(client.verdict(3), "405");
        client.frame(RawH2::DATA, 0, 3, b"x");
        // No request at all: without an authority.
        client.headers(5, &head(b"POST", UPLOAD.as_bytes())[..3], false);
        client.frame(RawH2::DATA, 0, 5, b"x");
        // One that is over before its body is.
        client.headers(7, &head(b"PATCH", UPLOAD.as_bytes()), false);
        client.frame(RawH2::DATA, 0, 7, b"x");
        client.frame(RawH2::RST_STREAM, 0, 7, &8_u32.to_be_bytes());
        assert!(matches!(client.verdict(1).as_str(), "reset" | "408"));
    });
}

#[test]
fn an_upload_held_by_the_registry_outlives_a_cancelled_one_beside_it() {
    const SIZE: usize = 24 << 20;
    let arena = arena(&json!({ "body_idle_timeout": "1s", "min_upload_rate": "1MiB", "rate_window": "1s" }));
    arena.upstream.answer(|_| Answer::new(202));
    // The registry reads nothing for far longer than a client may stand still, and then all of it.
    arena.upstream.read_slowly(Duration::from_secs(4));
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(2));
            arena.upstream.read_slowly(Duration::ZERO);
        });
        upload_beside_a_cancelled_one(&arena, SIZE);
    });
    let record = arena.gateway.wait_for_record(|record| record["status"] == 202);
    assert_eq!((&record["outcome"], &record["bytes_in"]), (&"proxied".into(), &SIZE.into()), "{record:#}");
}

/// On two streams of one connection; the second one is cancelled when the registry has both.
fn upload_beside_a_cancelled_one(arena: &Arena, size: usize) {
    let mut client = RawH2::connect(&arena.gateway.tls()).expect("connected");
    let length = size.to_string();
    let upload = [&head(b"PATCH", UPLOAD.as_bytes())[..], &[(b"content-length", length.as_bytes())]].concat();
    client.headers(1, &upload, false);
    client.headers(3, &upload, false);
    client.frame(RawH2::DATA, 0, 3, &[1; 1000]);
    // Padding is no part of a body that anybody waits for.
    client.frame(RawH2::DATA, RawH2::PADDED, 1, &[&[200][..], &[0; 1000 + 200]].concat());
    let (mut left, mut stream_window, mut window) = (size - 1000, 65_535 - 1201_i64, 65_535 - 2201_i64);
    let (mut initial, mut cancelled) = (65_535, false);
    while left > 0 {
        let part = left.min(16_384).min(usize::try_from(stream_window.min(window)).unwrap_or(0));
        if part > 0 {
            client.send(&RawH2::encode(RawH2::DATA, u8::from(part == left), 1, &[1; 16_384][..part])).expect("taken");
            left -= part;
            stream_window -= i64::try_from(part).expect("small");
            window -= i64::try_from(part).expect("small");
            continue;
        }
        let frame = client.next(Duration::from_secs(20)).expect("the upload goes on");
        let number = |bytes: &[u8]| i64::from(u32::from_be_bytes(*bytes.first_chunk().expect("four bytes")));
        match (frame.kind, frame.stream) {
            (RawH2::WINDOW_UPDATE, 0) => window += number(&frame.payload),
            (RawH2::WINDOW_UPDATE, 1) => stream_window += number(&frame.payload),
            (RawH2::SETTINGS, _) if frame.flags == 0 => {
                for setting in frame.payload.chunks(6).filter(|setting| setting[..2] == [0, 4]) {
                    stream_window += number(&setting[2..]) - initial;
                    initial = number(&setting[2..]);
                }
                client.frame(RawH2::SETTINGS, 1, 0, &[]);
            }
            (RawH2::RST_STREAM, 1) | (RawH2::GOAWAY, _) => panic!("the upload was ended: {frame:?}"),
            _ => {}
        }
        if !cancelled && arena.upstream.accepted() >= 2 {
            cancelled = true;
            client.frame(RawH2::RST_STREAM, 0, 3, &8_u32.to_be_bytes());
        }
    }
    assert!(cancelled);
    assert_eq!(client.verdict(1), "202");
}
