//! HTTP/2 clients that ask for much and open no window.

use super::{ATTACKERS, BLOB_PATH, ENDED, REQUESTS, arena, head, until_ended};
use crate::support::h2raw::RawH2;
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW: u16 = 4;

/// Downloads that each attacker asks for.
const STREAMS: u32 = 8;

fn limits() -> Value {
    json!({ "body_idle_timeout": "1s", "rate_window": "1s", "min_download_rate": "64KiB" })
}

fn too_slow() -> [(&'static str, &'static str); 1] {
    [("outcome", "client_too_slow")]
}

fn ask_for_blobs(client: &mut RawH2) {
    for stream in 0..STREAMS {
        client.headers(stream * 2 + 1, &head(b"GET", BLOB_PATH.as_bytes()), true);
    }
}

#[test]
fn zero_windows() {
    let arena = arena(&limits());
    let all = ATTACKERS * STREAMS as usize;
    arena.withstands("zero windows", (REQUESTS, &too_slow(), all), |gateway| {
        let mut client = RawH2::connect_with(&gateway.tls(), &[(INITIAL_WINDOW, 0)]).expect("connected");
        ask_for_blobs(&mut client);
        let mut resets = 0;
        until_ended(|| {
            let frame = client.next(Duration::from_secs(8));
            resets += u32::from(frame.as_ref().is_some_and(|frame| frame.kind == RawH2::RST_STREAM));
            frame.is_some() && resets < STREAMS
        });
        assert_eq!(resets, STREAMS, "every stream is given up");
    });
    assert!(arena.upstream.open_connections() <= 4, "registry connections come back");
}

#[test]
fn windows_of_single_bytes() {
    let arena = arena(&limits());
    let all = ATTACKERS * STREAMS as usize;
    arena.withstands("windows of single bytes", (REQUESTS, &too_slow(), all), |gateway| {
        let mut client = RawH2::connect_with(&gateway.tls(), &[(INITIAL_WINDOW, 0)]).expect("connected");
        ask_for_blobs(&mut client);
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            for stream in 0..STREAMS {
                client.frame(RawH2::WINDOW_UPDATE, 0, stream * 2 + 1, &1_u32.to_be_bytes());
            }
            thread::sleep(Duration::from_millis(50));
        }
    });
}

#[test]
fn clients_that_read_nothing_at_all() {
    let arena = arena(&limits());
    let all = ATTACKERS * STREAMS as usize;
    arena.withstands("HTTP/2 downloads that nobody reads", (REQUESTS, &too_slow(), all), |gateway| {
        let mut client = RawH2::connect_with(&gateway.tls(), &[(INITIAL_WINDOW, 0x7fff_ffff)]).expect("connected");
        client.frame(RawH2::WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
        ask_for_blobs(&mut client);
        thread::sleep(Duration::from_secs(5));
    });
    arena.gateway.wait_for_metric(ENDED, &[], |n| n >= 4.0);
}
