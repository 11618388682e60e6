//! HTTP/1.1 requests that two readers could read in two ways: the gateway refuses them, the upstream never sees them.

use crate::open_gateway;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use std::time::Duration;

const UPLOAD: &str = "PATCH /v2/a/blobs/uploads/1?_state=x HTTP/1.1";
const TARGET: &str = "/v2/a/blobs/uploads/1?_state=x";
const PULL: &str = "GET /v2/a/manifests/v1 HTTP/1.1";

/// Sends raw bytes on a fresh connection; the status, or 0 when the gateway closes without an answer.
fn status(gateway: &Gateway, bytes: &[u8]) -> u16 {
    let mut client = gateway.h1();
    let _ = client.send(bytes);
    client.answer().map_or(0, |reply| reply.status)
}

#[track_caller]
fn assert_refused(upstream: &Upstream, gateway: &Gateway, bytes: &[u8]) {
    let what = String::from_utf8_lossy(bytes).into_owned();
    let status = status(gateway, bytes);
    assert!(status == 0 || (400..500).contains(&status), "answered {status} to {what:?}");
    upstream.assert_untouched(&what);
}

#[test]
fn ambiguous_framing_is_refused() {
    let (upstream, gateway) = open_gateway();
    let framings: &[&str] = &[
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5;",
        "Content-Length:",
        "Content-Length: 99999999999999999999999",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:\u{b}chunked",
        "Transfer-Encoding : chunked",
        "Content-Length : 5",
        "Transfer_Encoding: chunked\r\nContent-Length: 5, 5",
    ];
    for framing in framings {
        let bytes = format!(
            "{UPLOAD}\r\nHost: gw.test\r\n{framing}\r\n\r\n0\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: gw.test\r\n\r\n"
        );
        assert_refused(&upstream, &gateway, bytes.as_bytes());
    }
}

#[test]
fn a_refused_framing_ends_the_connection() {
    let (upstream, gateway) = open_gateway();
    let mut client = gateway.h1();
    let smuggled = format!(
        "{UPLOAD}\r\nHost: gw.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
         {PULL}\r\nHost: gw.test\r\n\r\n"
    );
    client.send(smuggled.as_bytes()).expect("the connection is open");
    let first = client.answer().map(|reply| reply.status);
    assert!(matches!(first, Ok(400..500) | Err(_)), "{first:?}");
    assert!(client.is_closed_within(Duration::from_secs(5)), "a second reading of the bytes must not be tried");
    upstream.assert_untouched("what came after an ambiguous request");
}

#[test]
fn malformed_heads_are_refused() {
    let (upstream, gateway) = open_gateway();
    let heads: &[&[u8]] = &[
        b"GET /v2/a/manifests/v1 HTTP/1.1\nHost: gw.test\n\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\nX-A: b\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\nX-A: b\rX-C: d\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\nHost: gw.test\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\nHost: evil.example\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test, evil.example\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test/evil\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: user@gw.test\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost : gw.test\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\nX-A: b\r\n folded\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\nX-A: \0\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\nX(A): b\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\n: b\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\nno colon\r\n\r\n",
        b"GET  /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\n\r\n",
        b"GET\t/v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\n\r\n",
        b"GET /v2/a/manifests/v1 x HTTP/1.1\r\nHost: gw.test\r\n\r\n",
        b"GET /v2/a/manifests/v1\r\nHost: gw.test\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/2.0\r\nHost: gw.test\r\n\r\n",
        b"GET /v2/a/manifests/v1 HTTP/1.9\r\nHost: gw.test\r\n\r\n",
        b"GET /v2/a/manifests/v1 http/1.1\r\nHost: gw.test\r\n\r\n",
        b"G\xc3\x89T /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
    ];
    for head in heads {
        assert_refused(&upstream, &gateway, head);
    }
}

#[test]
fn odd_targets_are_refused() {
    let (upstream, gateway) = open_gateway();
    let targets: &[&[u8]] = &[
        b"https://gw.test/v2/a/manifests/v1",
        b"http://evil.example/v2/a/manifests/v1",
        b"v2/a/manifests/v1",
        b"*",
        b"gw.test:443",
        b"/v2\\a\\manifests\\v1",
        b"/v2/a\\..\\secret/manifests/v1",
        b"/v2/a/manifests/v1#x",
        b"/v2/a/manifests/v1%00",
        b"/v2/a/manifests/v1%0d%0aX-A:b",
        b"/v2/\xc3\xa9/manifests/v1",
        b"/v2/a/manifests/v1?last=\xc3\xa9",
        b"/v2/a/manifests/v1?x=\"<>",
    ];
    for target in targets {
        let bytes = [b"GET ", *target, b" HTTP/1.1\r\nHost: gw.test\r\n\r\n"].concat();
        assert_refused(&upstream, &gateway, &bytes);
    }
}

#[test]
fn a_host_that_the_connection_does_not_stand_for_is_misdirected() {
    let (upstream, gateway) = open_gateway();
    for mut client in gateway.both() {
        let host = if client.version() == "HTTP/2" { ":authority" } else { "X-Ignored" };
        if host == ":authority" {
            let reply = client.request("GET", "/v2/a/manifests/v1", &[(host, "evil.example")], b"");
            assert!(matches!(reply.status, 400 | 421), "{reply:?}");
        }
    }
    let status = status(&gateway, b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(matches!(status, 400 | 421), "{status}");
    upstream.assert_untouched("a request for another host");
}

#[test]
fn a_port_or_case_in_the_host_is_no_other_host() {
    let (upstream, gateway) = open_gateway();
    for host in ["gw.test:8443", "GW.Test", "gw.test"] {
        let bytes = format!("{PULL}\r\nHost: {host}\r\n\r\n");
        assert_eq!(status(&gateway, bytes.as_bytes()), 200, "{host}");
    }
    assert_eq!(upstream.take().len(), 3);
}

#[test]
fn there_is_one_expectation_and_it_is_100_continue() {
    let (upstream, gateway) = open_gateway();
    for expectations in [
        "Expect: 100-continue\r\nExpect: foo",
        "Expect: foo\r\nExpect: 100-continue",
        "Expect: 100-continue\r\nExpect: 100-continue",
        "Expect: 100-continue, foo",
        "Expect: 200-ok",
        "Expect:",
    ] {
        let head = format!("{UPLOAD}\r\nHost: gw.test\r\n{expectations}\r\nContent-Length: 5\r\n\r\n");
        let mut client = gateway.h1();
        client.send(head.as_bytes()).expect("the connection is open");
        let first = client.any_head().map(|reply| reply.status);
        assert!(matches!(first, Ok(400 | 417)), "{expectations:?} answered {first:?}");
        upstream.assert_untouched(expectations);
    }
    let mut client = gateway.h2();
    for second in ["foo", "100-continue"] {
        let reply = client.request("PATCH", TARGET, &[("expect", "100-continue"), ("expect", second)], b"hello");
        assert!(matches!(reply.as_ref().map(|r| r.status), Ok(400 | 417) | Err(_)), "HTTP/2 {second}: {reply:?}");
        upstream.assert_untouched(second);
    }
}

#[test]
fn requests_that_have_no_body_bring_none() {
    let (upstream, gateway) = open_gateway();
    let blob = format!("/v2/a/blobs/{}", crate::DIGEST);
    let requests = [
        ("GET", "/v2/"),
        ("GET", "/v2/a/manifests/v1"),
        ("HEAD", "/v2/a/manifests/v1"),
        ("DELETE", "/v2/a/manifests/v1"),
        ("GET", blob.as_str()),
        ("HEAD", blob.as_str()),
        ("GET", "/v2/a/tags/list"),
        ("GET", "/v2/_catalog"),
        ("GET", TARGET),
        ("DELETE", TARGET),
    ];
    for (method, target) in requests {
        for body in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
            let what = format!("{method} {target} {body:?}");
            let mut client = gateway.h1();
            let smuggled = "GET /v2/smuggled/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\n\r\n";
            let bytes = format!("{method} {target} HTTP/1.1\r\nHost: gw.test\r\n{body}{smuggled}");
            client.send(bytes.as_bytes()).expect("the connection is open");
            let reply = client.answer_to(method).expect("an answer");
            assert_eq!(reply.status, 400, "{what}");
            // What follows may be answered as the request it is, but no part of the body may.
            let seen = upstream.take();
            assert!(seen.iter().all(|request| request.target == "/v2/smuggled/manifests/v1"), "{what}: {seen:#?}");
        }
        let mut client = gateway.h2();
        for length in [Some("5"), None] {
            let headers: Vec<_> = length.map(|length| ("content-length", length)).into_iter().collect();
            let reply = client.request(method, target, &headers, b"hello");
            let status = reply.as_ref().map(|reply| reply.status);
            assert!(matches!(status, Ok(400) | Err(_)), "HTTP/2 {method} {target} length {length:?}: {reply:?}");
            upstream.assert_untouched(&format!("HTTP/2 {method} {target} with a body, length {length:?}"));
        }
        let mut client = gateway.h1();
        let reply = client.request(method, target, &[("Content-Length", "0")], b"").expect("an answer");
        assert_eq!(reply.status, 200, "{method} {target}: a length of 0 is no body");
        assert_eq!(upstream.take().len(), 1, "{method} {target}");
    }
}

#[test]
fn no_tunnel_is_opened() {
    let (upstream, gateway) = open_gateway();
    assert_refused(&upstream, &gateway, b"CONNECT gw.test:443 HTTP/1.1\r\nHost: gw.test:443\r\n\r\n");
    for upgrade in ["h2c", "websocket", "tcp"] {
        let bytes = format!(
            "{PULL}\r\nHost: gw.test\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Key: x\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        let status = status(&gateway, bytes.as_bytes());
        assert_ne!(status, 101, "{upgrade}");
        for request in upstream.take() {
            assert!(!request.has("upgrade"), "{request:?}");
            assert!(!request.header("connection").unwrap_or("").to_lowercase().contains("upgrade"), "{request:?}");
        }
    }
}

#[test]
fn broken_chunks_never_complete_an_upload() {
    let (upstream, gateway) = open_gateway();
    let bodies = [
        "5\r\nhello6\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff1\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
    ];
    for body in bodies {
        let head = format!("{UPLOAD}\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let mut client = gateway.h1();
        let _ = client.send(head.as_bytes());
        let reply = client.answer().map(|reply| reply.status);
        // Some spellings may be read leniently, but then the upstream gets exactly one clean request.
        std::thread::sleep(Duration::from_millis(50));
        for request in upstream.take() {
            let clean = request.complete && (request.body == b"hello" || request.body.is_empty());
            assert!(clean || !request.complete, "{body:?} answered {reply:?}, upstream read {request:?}");
        }
    }
}

#[test]
fn trailers_of_a_request_are_not_headers() {
    let (upstream, gateway) = open_gateway();
    let bytes = format!(
        "{UPLOAD}\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    );
    status(&gateway, bytes.as_bytes());
    for request in upstream.take() {
        assert!(!String::from_utf8_lossy(&request.head).contains("6.6.6.6"), "{request:?}");
    }
}

#[test]
fn pipelined_requests_are_each_judged() {
    let (upstream, gateway) = open_gateway();
    let mut client = gateway.h1();
    let bytes = format!(
        "{PULL}\r\nHost: gw.test\r\n\r\nGET /metrics HTTP/1.1\r\nHost: gw.test\r\n\r\n{PULL}\r\nHost: gw.test\r\n\r\n"
    );
    client.send(bytes.as_bytes()).expect("the connection is open");
    let mut seen = Vec::new();
    while let Ok(reply) = client.answer() {
        seen.push(reply.status);
        if seen.len() == 3 {
            break;
        }
    }
    // The connection may end after the first answer, but nothing may be answered out of turn.
    assert!([200, 404, 200].starts_with(&seen) && !seen.is_empty(), "{seen:?}");
    assert!(upstream.take().iter().all(|request| request.target == "/v2/a/manifests/v1"));
}

#[test]
fn giant_heads_are_refused_and_others_are_served() {
    let (upstream, gateway) = open_gateway();
    let mut many = format!("{PULL}\r\nHost: gw.test\r\n");
    for index in 0..5_000 {
        many.push_str(&format!("X-{index}: y\r\n"));
    }
    assert_refused(&upstream, &gateway, format!("{many}\r\n").as_bytes());
    let long = format!("{PULL}\r\nHost: gw.test\r\nX-A: {}\r\n\r\n", "a".repeat(4 << 20));
    assert_refused(&upstream, &gateway, long.as_bytes());
    let target = format!("GET /v2/{} HTTP/1.1\r\nHost: gw.test\r\n\r\n", "a".repeat(2 << 20));
    assert_refused(&upstream, &gateway, target.as_bytes());
    assert_eq!(gateway.h1().get("/v2/").status, 200);
}

#[test]
fn a_head_that_drips_is_cut_off() {
    let upstream = Upstream::start();
    let gateway = crate::gateway()
        .upstream(upstream.url())
        .configure(|c| c["limits"]["request_head_timeout"] = "1s".into())
        .start();
    for first_request in [false, true] {
        let mut client = gateway.h1();
        if first_request {
            assert_eq!(client.get("/v2/").status, 200);
            upstream.take();
        }
        let start = std::time::Instant::now();
        let mut open = true;
        while open && start.elapsed() < Duration::from_secs(6) {
            open = client.send(b"G").is_ok() && !client.is_closed_within(Duration::from_millis(200));
        }
        assert!(!open, "a byte every 200 ms must not keep a head open (after a request: {first_request})");
        upstream.assert_untouched("an unfinished head");
    }
}

#[test]
fn idle_connections_are_closed() {
    let (_upstream, gateway) = {
        let upstream = Upstream::start();
        let gateway = crate::gateway()
            .upstream(upstream.url())
            .configure(|c| {
                c["limits"]["keep_alive_timeout"] = "1s".into();
                c["limits"]["h2_idle_timeout"] = "1s".into();
                c["limits"]["request_head_timeout"] = "1s".into();
            })
            .start();
        (upstream, gateway)
    };
    let mut fresh = gateway.h1();
    let mut used = gateway.h1();
    assert_eq!(used.get("/v2/").status, 200);
    let mut multiplexed = gateway.h2();
    assert_eq!(multiplexed.get("/v2/").status, 200);
    assert!(used.is_closed_within(Duration::from_secs(5)), "idle after a request");
    assert!(fresh.is_closed_within(Duration::from_secs(5)), "idle before the first request");
    assert!(multiplexed.ended_within(Duration::from_secs(5)).is_some(), "idle h2");
}
