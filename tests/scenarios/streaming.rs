//! Bodies of any size: whole, in order, and in constant memory.

use crate::support::gateway::{Client, Gateway, gateway};
use crate::support::h2raw::RawH2;
use crate::support::upstream::{Answer, Upstream, pattern, pattern_sha256, sha256};
use crate::{DIGEST, open_gateway};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

const BIG: u64 = 128 << 20;
const UPLOAD: &str = "/v2/a/blobs/uploads/1?_state=x";

fn blob() -> String {
    format!("/v2/a/blobs/{DIGEST}")
}

/// What memory grew by at most since `before`, in MiB.
fn growth(gateway: &Gateway, before: u64) -> u64 {
    gateway.peak_kib().saturating_sub(before) / 1024
}

/// Downloads a blob piece by piece; its length and digest.
fn download(client: &mut Client) -> (u64, String) {
    let mut hash = Sha256::new();
    let mut length = 0;
    match client {
        Client::H1(client) => {
            client.send_request("GET", &blob(), &[], b"").expect("sent");
            let head = client.head().expect("a head");
            length = client.body(&head, "GET", |part| hash.update(part)).expect("a whole body");
        }
        Client::H2(client) => {
            let mut exchange = client.open("GET", &blob(), &[], true).expect("a stream");
            exchange.head().expect("a head");
            while let Some(part) = exchange.part().expect("a whole body") {
                length += part.len() as u64;
                hash.update(&part);
            }
        }
    }
    (length, crate::support::upstream::hex(&hash.finalize()))
}

/// Uploads `size` bytes piece by piece, chunked or without a length; the status.
fn upload(client: &mut Client, size: u64) -> u16 {
    let pieces = (0..size).step_by(1 << 20).map(|at| {
        let length = usize::try_from((size - at).min(1 << 20)).expect("at most a MiB");
        (at + length as u64 == size, pattern(at, length))
    });
    match client {
        Client::H1(client) => {
            client.send_request("PATCH", UPLOAD, &[("Transfer-Encoding", "chunked")], b"").expect("sent");
            for (last, piece) in pieces {
                client.send(format!("{:x}\r\n", piece.len()).as_bytes()).expect("sent");
                client.send(&piece).expect("sent");
                client.send(if last { b"\r\n0\r\n\r\n" } else { b"\r\n" }).expect("sent");
            }
            client.answer().expect("an answer").status
        }
        Client::H2(client) => {
            let mut exchange = client.open("PATCH", UPLOAD, &[], false).expect("a stream");
            for (last, piece) in pieces {
                exchange.send(piece.into(), last).expect("sent");
            }
            exchange.reply().expect("an answer").status
        }
    }
}

#[test]
fn a_big_download_arrives_whole_in_constant_memory() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|_| Answer::new(200).pattern(0, BIG));
    let wanted = pattern_sha256(BIG);
    for mut client in gateway.both() {
        gateway.reset_peak();
        let before = gateway.rss_kib();
        assert_eq!(download(&mut client), (BIG, wanted.clone()), "{}", client.version());
        let grown = growth(&gateway, before);
        assert!(grown < 64, "{}: memory grew by {grown} MiB", client.version());
    }
}

#[test]
fn a_big_upload_arrives_whole_in_constant_memory() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|_| Answer::new(202));
    let wanted = pattern_sha256(BIG);
    for mut client in gateway.both() {
        gateway.reset_peak();
        let before = gateway.rss_kib();
        assert_eq!(upload(&mut client, BIG), 202, "{}", client.version());
        let seen = upstream.only();
        assert_eq!((seen.body_length, &seen.body_sha256), (BIG, &wanted), "{}", client.version());
        let grown = growth(&gateway, before);
        assert!(grown < 64, "{}: memory grew by {grown} MiB", client.version());
    }
}

#[test]
fn a_client_that_reads_nothing_fills_no_memory() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|_| Answer::new(200).pattern(0, 512 << 20));
    gateway.reset_peak();
    let before = gateway.rss_kib();
    let mut h1 = gateway.h1();
    h1.send_request("GET", &blob(), &[], b"").expect("sent");
    assert_eq!(h1.head().expect("a head").status, 200);
    let mut h2 = gateway.h2();
    let mut stalled = h2.open("GET", &blob(), &[], true).expect("a stream");
    assert_eq!(stalled.head().expect("a head").status, 200);
    std::thread::sleep(Duration::from_secs(2));
    let grown = growth(&gateway, before);
    assert!(grown < 48, "memory grew by {grown} MiB");
    assert_eq!(gateway.h1().get("/v2/").status, 200, "others are served");
}

#[test]
fn an_upstream_that_reads_slowly_holds_the_client_back() {
    let (upstream, gateway) = open_gateway();
    upstream.read_slowly(Duration::from_millis(100));
    gateway.reset_peak();
    let before = gateway.rss_kib();
    let mut client = gateway.h2();
    let mut exchange = client.open("PATCH", UPLOAD, &[], false).expect("a stream");
    let start = Instant::now();
    let mut sent = 0_u64;
    while start.elapsed() < Duration::from_secs(2) && sent < 64 << 20 {
        exchange.send(pattern(sent, 1 << 16).into(), false).expect("sent");
        sent += 1 << 16;
    }
    // Sockets and windows hold a few MiB; the rest must have waited at the client.
    assert!(sent < 32 << 20, "{} MiB taken from a client whose upstream reads 640 KiB/s", sent >> 20);
    let grown = growth(&gateway, before);
    assert!(grown < 32, "memory grew by {grown} MiB");
}

#[test]
fn all_uploads_of_one_connection_together_stay_bounded() {
    let upstream = Upstream::start();
    upstream.read_slowly(Duration::from_secs(10));
    let gateway =
        gateway().upstream(upstream.url()).configure(|c| c["limits"]["h2_upload_memory"] = "8MiB".into()).start();
    gateway.reset_peak();
    let before = gateway.rss_kib();
    let mut clients: Vec<_> = (0..4).map(|_| gateway.h2()).collect();
    let mut uploads = Vec::new();
    for client in &mut clients {
        for _ in 0..20 {
            uploads.push(client.open("PATCH", UPLOAD, &[], false).expect("a stream"));
        }
    }
    std::thread::scope(|scope| {
        for mut upload in uploads {
            scope.spawn(move || {
                // Held back by the window; ends when the gateway or its patience does.
                let _ = upload.send(pattern(0, 8 << 20).into(), false);
            });
        }
        std::thread::sleep(Duration::from_secs(3));
        let grown = growth(&gateway, before);
        assert!(grown < 64, "memory grew by {grown} MiB");
        assert_eq!(gateway.h1().request("HEAD", "/v2/", &[], b"").expect("an answer").status, 200);
        drop(clients);
    });
}

#[test]
fn ranges_pass_both_ways() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|request| {
        assert_eq!(request.header("range"), Some("bytes=1000-1999"));
        Answer::new(206).header("Content-Range", "bytes 1000-1999/5000").pattern(1000, 1000)
    });
    for mut client in gateway.both() {
        let reply = client.request("GET", &blob(), &[("range", "bytes=1000-1999")], b"");
        assert_eq!((reply.status, reply.header("content-range")), (206, Some("bytes 1000-1999/5000")));
        assert_eq!(reply.body, pattern(1000, 1000));
    }
}

#[test]
fn an_unread_head_request_keeps_its_length() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|_| Answer::new(200).header("Docker-Content-Digest", DIGEST).pattern(0, 12_345));
    for mut client in gateway.both() {
        let reply = client.request("HEAD", &blob(), &[], b"");
        assert_eq!((reply.status, reply.header("content-length")), (200, Some("12345")), "{}", client.version());
        assert!(reply.body.is_empty());
    }
}

#[test]
fn chunked_and_unusual_answers_arrive_as_they_are() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|request| match request.target.as_str() {
        "/v2/a/manifests/chunked" => Answer::new(200).pattern(0, 100_001).slowly(777, Duration::ZERO).chunked(),
        "/v2/a/manifests/empty" => Answer::new(200),
        "/v2/a/manifests/none" => Answer::new(204),
        "/v2/a/manifests/cached" => Answer::new(304).header("Etag", "\"x\""),
        _ => Answer::new(404).header("Content-Type", "application/json").body(br#"{"errors":[{"code":"X"}]}"#),
    });
    for mut client in gateway.both() {
        let chunked = client.get("/v2/a/manifests/chunked");
        assert_eq!(sha256(&chunked.body), pattern_sha256(100_001), "{}", client.version());
        for (tag, status) in [("empty", 200), ("none", 204), ("cached", 304)] {
            let reply = client.get(&format!("/v2/a/manifests/{tag}"));
            assert_eq!((reply.status, reply.body.len()), (status, 0), "{} {tag}", client.version());
        }
        let error = client.get("/v2/a/manifests/gone");
        assert_eq!((error.status, error.code().as_str()), (404, "X"), "the registry's own errors pass");
        assert_eq!(client.get("/v2/").status, 404, "the connection goes on");
    }
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    let (upstream, gateway) = open_gateway();
    let mut client = gateway.h1();
    let headers = [("Expect", "100-continue"), ("Content-Length", "5")];
    client.send_request("PATCH", UPLOAD, &headers, b"").expect("sent");
    assert_eq!(client.any_head().expect("an interim answer").status, 100);
    client.send(b"hello").expect("sent");
    assert_eq!(client.answer().expect("an answer").status, 200);
    assert_eq!(upstream.only().body, b"hello");
}

#[test]
fn a_refused_client_that_waits_for_100_sends_nothing() {
    let upstream = Upstream::start();
    let gateway = gateway().policy("rules: []\n").upstream(upstream.url()).start();
    let mut client = gateway.h1();
    let headers = [("Expect", "100-continue"), ("Content-Length", "1000000000")];
    client.send_request("PATCH", UPLOAD, &headers, b"").expect("sent");
    let head = client.any_head().expect("an answer");
    assert_eq!(head.status, 403, "no 100 before the refusal");
    upstream.assert_untouched("a refused upload");
}

#[test]
fn a_refusal_reaches_a_client_in_the_middle_of_a_big_upload() {
    let upstream = Upstream::start();
    let gateway = gateway().policy("rules: []\n").upstream(upstream.url()).start();
    for mut client in gateway.both() {
        let reply = client.request("PATCH", UPLOAD, &[], &vec![1_u8; 3 << 20]);
        reply.assert_refusal(403, "DENIED");
    }
    upstream.assert_untouched("a refused upload");
}

#[test]
fn an_early_answer_of_the_upstream_reaches_the_client() {
    let (upstream, gateway) = open_gateway();
    upstream.answer_early(|request| {
        (request.method == "PATCH").then(|| Answer::new(416).header("Connection", "close").body(b"{}"))
    });
    for mut client in gateway.both() {
        let reply = client.request("PATCH", UPLOAD, &[], &vec![1_u8; 1 << 20]);
        assert!(matches!(reply.status, 416 | 502), "{} {reply:?}", client.version());
    }
}

#[test]
fn a_client_that_stalls_in_its_body_is_cut_off() {
    let upstream = Upstream::start();
    let gateway =
        gateway().upstream(upstream.url()).configure(|c| c["limits"]["body_idle_timeout"] = "1s".into()).start();
    let mut h1 = gateway.h1();
    h1.send_request("PATCH", UPLOAD, &[("Content-Length", "1000")], b"some").expect("sent");
    let mut h2 = gateway.h2();
    let mut stalled = h2.open("PATCH", UPLOAD, &[], false).expect("a stream");
    stalled.send(vec![1_u8; 10].into(), false).expect("sent");
    assert!(h1.is_closed_within(Duration::from_secs(6)), "HTTP/1.1");
    let start = Instant::now();
    let outcome = stalled.reply().map(|reply| reply.status);
    assert!(!matches!(outcome, Ok(200..400)), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_secs(6));
    std::thread::sleep(Duration::from_millis(100));
    assert!(upstream.take().iter().all(|request| !request.complete), "a stalled upload is not whole");
    gateway.wait_for_record(|r| r["outcome"] == "client_timeout");
}

#[test]
fn a_client_that_stalls_is_not_booked_as_a_silent_registry() {
    let upstream = Upstream::start();
    let gateway = gateway()
        .upstream(upstream.url())
        .with_upstream(|u| u["timeouts"] = serde_json::json!({ "first_byte": "1s" }))
        .configure(|c| c["limits"]["body_idle_timeout"] = "1500ms".into())
        .start();
    let mut h1 = gateway.h1();
    h1.send_request("PATCH", UPLOAD, &[("Content-Length", "1000")], b"some").expect("sent");
    let mut h2 = gateway.h2();
    let mut stalled = h2.open("PATCH", UPLOAD, &[], false).expect("a stream");
    stalled.send(vec![1_u8; 10].into(), false).expect("sent");
    // An answer may be anything that doesn't make a client try the same again.
    let one = h1.answer().map(|reply| reply.status);
    assert!(!matches!(one, Ok(200..400 | 500..)), "HTTP/1.1: {one:?}");
    let two = stalled.reply().map(|reply| reply.status);
    assert!(!matches!(two, Ok(200..400 | 500..)), "HTTP/2: {two:?}");
    for version in ["HTTP/1.1", "HTTP/2"] {
        let record = gateway.wait_for_record(|r| r["http_version"] == version && r["route"] == "upload");
        assert_eq!(record["outcome"], "client_timeout", "{record}");
    }
    let faults = gateway.metric("portcullis_upstream_errors_total", &[]).unwrap_or(0.0);
    assert!(faults < 0.5, "the upstream did nothing wrong: {}", gateway.metrics());
}

#[test]
fn the_wait_for_an_answer_starts_when_the_body_has_been_sent() {
    let upstream = Upstream::start();
    let gateway = gateway()
        .upstream(upstream.url())
        .with_upstream(|u| u["timeouts"] = serde_json::json!({ "first_byte": "1s" }))
        .start();
    let mut h1 = gateway.h1();
    h1.send_request("PATCH", UPLOAD, &[("Content-Length", "8")], b"some").expect("sent");
    let mut h2 = gateway.h2();
    let mut paused = h2.open("PATCH", UPLOAD, &[], false).expect("a stream");
    paused.send(b"some".to_vec().into(), false).expect("sent");
    std::thread::sleep(Duration::from_millis(1800));
    h1.send(b"more").expect("the connection is open");
    paused.send(b"more".to_vec().into(), true).expect("the stream is open");
    assert_eq!(h1.answer().expect("an answer").status, 200);
    assert_eq!(paused.reply().expect("an answer").status, 200);
    for version in ["HTTP/1.1", "HTTP/2"] {
        let record = gateway.wait_for_record(|r| r["http_version"] == version && r["route"] == "upload");
        let waited = record["upstream_ms"].as_f64();
        assert!(waited.is_some_and(|ms| ms < 1000.0), "the client's pause is not the upstream's time: {record}");
    }
}

#[test]
fn an_upload_that_the_client_breaks_off_is_not_whole() {
    let (upstream, gateway) = open_gateway();
    let mut h1 = gateway.h1();
    h1.send_request("PATCH", UPLOAD, &[("Transfer-Encoding", "chunked")], b"").expect("sent");
    h1.send(b"5\r\nhello\r\n").expect("sent");
    let mut h2 = gateway.h2();
    let mut reset = h2.open("PATCH", UPLOAD, &[], false).expect("a stream");
    reset.send(vec![1_u8; 10].into(), false).expect("sent");
    let end = Instant::now() + Duration::from_secs(5);
    while upstream.body_bytes() < 15 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(h1);
    reset.reset();
    let end = Instant::now() + Duration::from_secs(5);
    while upstream.requests().len() < 2 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    let seen = upstream.take();
    assert_eq!(seen.len(), 2, "{seen:#?}");
    assert!(seen.iter().all(|request| !request.complete), "{seen:#?}");
    gateway.wait_for_record(|r| r["outcome"] == "client_aborted");
}

/// What a client that has just come may send on its first stream and on its connection, by what the gateway tells it until it
/// may send what it wants, answers or falls silent (RFC 9113 §5.2, §6.5.2, §6.9.2).
fn windows_of_a_first(method: &[u8], path: &[u8], last: bool, wanted: u32) -> (u32, u32) {
    let (_upstream, gateway) = open_gateway();
    let mut client = RawH2::connect(&gateway.tls()).expect("connected");
    let head: [(&[u8], &[u8]); 4] =
        [(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", b"gw.test")];
    // The gateway's settings are never acknowledged: what it changes afterwards comes too late for a first request.
    client.headers(1, &head, last);
    let (mut stream, mut connection) = (65_535, 65_535);
    while stream < wanted || connection < wanted {
        let Some(frame) = client.next(Duration::from_secs(5)) else { break };
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        match frame.kind {
            RawH2::SETTINGS => {
                let initial = frame.payload.chunks_exact(6).find(|setting| setting[..2] == [0, 4]);
                stream = initial.map_or(stream, |setting| number(&setting[2..]));
            }
            RawH2::WINDOW_UPDATE if frame.stream == 0 => connection += number(&frame.payload),
            RawH2::HEADERS => break,
            _ => {}
        }
    }
    (stream, connection)
}

#[test]
fn an_http2_upload_has_room_also_as_the_first_request_and_others_have_little() {
    let (stream, connection) = windows_of_a_first(b"POST", b"/v2/a/blobs/uploads/", false, 1 << 20);
    assert!(stream >= 1 << 20 && connection >= 1 << 20, "an upload stops and goes: {stream}, {connection}");
    let (_, connection) = windows_of_a_first(b"GET", b"/v2/a/manifests/v1", true, u32::MAX);
    assert_eq!(connection, 65_535, "memory is promised to a client that sends nothing");
}

#[test]
fn http2_frames_may_be_of_32_kib_and_no_larger() {
    const MOST: u32 = 32_768;
    let (upstream, gateway) = open_gateway();
    let head: [(&[u8], &[u8]); 4] =
        [(b":method", b"PATCH"), (b":scheme", b"https"), (b":path", UPLOAD.as_bytes()), (b":authority", b"gw.test")];
    let send = |size: usize| {
        let mut client = RawH2::connect(&gateway.tls()).expect("connected");
        client.headers(1, &head, false);
        let mut largest = 16_384;
        while let Some(frame) = client.next(Duration::from_secs(5)) {
            if frame.kind == RawH2::SETTINGS && frame.flags == 0 {
                client.frame(RawH2::SETTINGS, 1, 0, &[]);
                let setting = frame.payload.chunks_exact(6).find(|setting| setting[..2] == [0, 5]);
                largest = setting.map_or(largest, |s| u32::from_be_bytes(s[2..].try_into().expect("four bytes")));
            }
            // An upload is given its room.
            if frame.kind == RawH2::WINDOW_UPDATE && frame.stream == 0 {
                break;
            }
        }
        assert_eq!(largest, MOST);
        client.frame(RawH2::DATA, 0, 1, &vec![b'd'; size]);
        client.frame(RawH2::DATA, 1, 1, &vec![b'd'; size]);
        client
    };
    let most = usize::try_from(MOST).expect("it fits");
    assert_eq!(send(most).verdict(1), "200");
    assert_eq!(upstream.only().body_length, 2 * u64::from(MOST));
    assert_eq!(send(most + 1).goaway(Duration::from_secs(5)), Some(6), "FRAME_SIZE_ERROR (RFC 9113 §7)");
}
