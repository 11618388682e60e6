//! Blobs come on connections of their own, which are read in large pieces and used again only when that is safe.

use crate::support::gateway::{Client, Gateway, gateway};
use crate::support::upstream::{Answer, Upstream, pattern};
use serde_json::json;
use std::time::{Duration, Instant};

/// More than is read at once, and no multiple of anything.
const SIZE: u64 = 2_300_001;

fn blob(number: u64) -> String {
    format!("/v2/a/blobs/sha256:{number:064x}")
}

/// A registry whose blob `n` is [`SIZE`] bytes of the pattern from `n` on, each answer changed by the test.
fn registry(change: impl Fn(u64, Answer) -> Answer + Send + Sync + 'static) -> Upstream {
    let upstream = Upstream::start();
    upstream.answer(move |request| {
        let number = request.target.rsplit(':').next().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let number = number.expect("a blob is asked for");
        change(number, Answer::new(200).pattern(number, SIZE))
    });
    upstream
}

fn start(upstream: &Upstream) -> Gateway {
    gateway().upstream(upstream.url()).configure(|c| c["threads"] = json!(1)).start()
}

/// Downloads blob `number` and checks that it is that one.
#[track_caller]
fn download(client: &mut Client, number: u64) {
    let reply = client.get(&blob(number));
    assert_eq!(reply.status, 200, "{number}");
    let expected = pattern(number, usize::try_from(SIZE).expect("it fits"));
    assert!(reply.body == expected, "blob {number}: {} bytes that are not its", reply.body.len());
}

#[test]
fn downloads_in_a_row_share_a_connection() {
    for chunked in [false, true] {
        let upstream = registry(move |_, answer| if chunked { answer.chunked() } else { answer });
        let gateway = start(&upstream);
        for mut client in gateway.both() {
            for number in 0..10 {
                download(&mut client, number);
            }
        }
        assert_eq!(upstream.accepted(), 1, "chunked: {chunked}");
        gateway.wait_for_metric("portcullis_upstream_connects_total", &[("connection", "reused")], |n| n == 19.0);
    }
}

/// They are read in large pieces, which is no use to small answers, and have a pool of their own.
#[test]
fn blobs_and_manifests_share_no_connection() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    for mut client in gateway.both() {
        for number in 0..3 {
            assert_eq!(client.get(&blob(number)).status, 200);
            assert_eq!(client.get("/v2/a/manifests/v1").status, 200);
        }
    }
    assert_eq!(upstream.accepted(), 2);
}

#[test]
fn answers_without_a_body_share_a_connection_too() {
    let upstream = Upstream::start();
    let mut number = 0;
    let gateway = start(&upstream);
    for answer in [
        Answer::new(304).header("ETag", "\"x\""),
        Answer::new(307).header("Location", "/v2/a/blobs/elsewhere"),
        Answer::new(404).body(b"{}"),
    ] {
        upstream.answer(move |_| answer.clone());
        for mut client in gateway.both() {
            for _ in 0..3 {
                number += 1;
                client.get(&blob(number));
            }
        }
    }
    assert_eq!((upstream.accepted(), upstream.take().len()), (1, 18));
}

#[test]
fn downloads_at_once_have_a_connection_each() {
    let upstream = registry(|_, answer| answer);
    let gateway = start(&upstream);
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for (client, mut h) in gateway.both().into_iter().chain(gateway.both()).zip(0..) {
                let mut client = client;
                scope.spawn(move || {
                    for _ in 0..5 {
                        download(&mut client, h);
                        h += 100;
                    }
                });
            }
        });
    }
    assert!(upstream.accepted() <= 4, "{} connections for four at a time", upstream.accepted());
}

#[test]
fn a_kept_connection_that_the_registry_closed_costs_no_download() {
    let upstream = registry(|_, answer| answer.close());
    let gateway = start(&upstream);
    for mut client in gateway.both() {
        for number in 0..20 {
            download(&mut client, number);
            // With and without time to notice.
            std::thread::sleep(Duration::from_millis(number % 3 * 10));
        }
    }
}

#[test]
fn a_connection_whose_end_was_announced_is_not_kept() {
    let upstream = registry(|_, answer| answer.header("Connection", "close"));
    let gateway = start(&upstream);
    let mut client = gateway.h1();
    for number in 0..5 {
        let reply = client.request("GET", &blob(number), &[], b"").expect("an answer");
        assert_eq!(reply.status, 200);
    }
    assert_eq!(upstream.accepted(), 5);
}

/// What a registry sends beyond a blob is nobody's: not the answer to what is asked next, by whomever. (What it sends once
/// that was asked can't be told from an answer.)
#[test]
fn what_follows_a_blob_is_no_answer() {
    const EVIL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (pause, trailing) in [(0, EVIL), (0, b"H"), (5, EVIL), (5, b"\r\n")] {
        let pause = Duration::from_millis(pause);
        let upstream = registry(move |_, answer| answer.followed_by(pause, trailing));
        let gateway = start(&upstream);
        for mut client in gateway.both() {
            for number in 0..6 {
                download(&mut client, number);
                std::thread::sleep(Duration::from_millis(30));
            }
        }
    }
}

#[test]
fn a_download_that_was_broken_off_leaves_nothing_for_the_next_one() {
    // In the pause nothing is to be read, so that the connection looks as if its answer were over.
    let pause = Duration::from_millis(200);
    let size = usize::try_from(SIZE).expect("it fits");
    let upstream =
        registry(move |number, answer| if number < 50 { answer.slowly(size / 2 + 1, pause) } else { answer });
    let gateway = start(&upstream);
    for number in 0..5 {
        let mut leaving = gateway.h1();
        leaving.send_request("GET", &blob(number), &[], b"").expect("sent");
        leaving.head().expect("a head");
        std::thread::sleep(pause / 10);
        drop(leaving);
        std::thread::sleep(pause / 10);
        for mut client in gateway.both() {
            download(&mut client, number + 50);
        }
    }
}

#[test]
fn idle_connections_are_closed_in_time() {
    let upstream = registry(|_, answer| answer);
    let keep = |u: &mut serde_json::Value| u["timeouts"] = json!({ "pool_idle": "200ms" });
    let gateway = gateway().upstream(upstream.url()).with_upstream(keep).start();
    for mut client in gateway.both() {
        download(&mut client, 1);
    }
    let end = Instant::now() + Duration::from_secs(10);
    while upstream.open_connections() > 0 {
        assert!(Instant::now() < end, "{} connections are still open", upstream.open_connections());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Those that get no large buffer are served without.
#[test]
fn downloads_that_stand_still_hold_up_no_other() {
    let upstream = registry(|_, answer| answer);
    let gateway = start(&upstream);
    // More than there are large buffers, none of which is emptied.
    let idle: Vec<_> = (0..40)
        .map(|number| {
            let mut client = gateway.h1();
            client.send_request("GET", &blob(number), &[], b"").expect("sent");
            client.head().expect("a head");
            client
        })
        .collect();
    for mut client in gateway.both() {
        for number in 0..5 {
            download(&mut client, number);
        }
    }
    drop(idle);
}
