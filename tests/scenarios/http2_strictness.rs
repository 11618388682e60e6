//! HTTP/2 frames that no library would send: the stream is reset or refused, and the upstream sees nothing of it.

use crate::open_gateway;
use crate::support::gateway::Gateway;
use crate::support::h2raw::RawH2;
use crate::support::upstream::Upstream;
use std::time::Duration;

type Field<'a> = (&'a [u8], &'a [u8]);

const HEAD: [Field<'static>; 4] =
    [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/v2/a/manifests/v1"), (b":authority", b"gw.test")];

fn raw(gateway: &Gateway) -> RawH2 {
    RawH2::connect(&gateway.tls()).unwrap_or_else(|e| panic!("connecting: {e}"))
}

#[track_caller]
fn assert_refused(upstream: &Upstream, gateway: &Gateway, fields: &[Field<'_>]) {
    let shown: Vec<_> = fields.iter().map(|(n, v)| format!("{}: {}", n.escape_ascii(), v.escape_ascii())).collect();
    let mut client = raw(gateway);
    client.headers(1, fields, true);
    let verdict = client.verdict(1);
    let refused = matches!(verdict.as_str(), "reset" | "goaway" | "closed") || verdict.starts_with('4');
    assert!(refused, "{verdict}: {shown:?}");
    upstream.assert_untouched(&format!("{shown:?}"));
}

#[test]
fn a_plain_request_passes_frame_by_frame() {
    let (upstream, gateway) = open_gateway();
    let mut client = raw(&gateway);
    client.headers(1, &HEAD, true);
    assert_eq!(client.verdict(1), "200");
    assert_eq!(upstream.only().line(), "GET /v2/a/manifests/v1");
}

#[test]
fn malformed_fields_are_refused() {
    let (upstream, gateway) = open_gateway();
    let extra: &[Field<'_>] = &[
        (b"x-a", b"b\r\nX-Forwarded-For: 6.6.6.6"),
        (b"x-a", b"b\nc"),
        (b"x-a", b"b\0c"),
        (b"X-Upper", b"1"),
        (b"x a", b"1"),
        (b"x:a", b"1"),
        (b"x-a\r\ny", b"1"),
        (b"", b"1"),
        (b":status", b"200"),
        (b":unknown", b"1"),
        (b":path", b"/v2/secret/manifests/v1"),
        (b":method", b"DELETE"),
        (b"connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"host", b"evil.example"),
    ];
    for field in extra {
        let fields: Vec<_> = HEAD.iter().chain([field]).copied().collect();
        assert_refused(&upstream, &gateway, &fields);
    }
}

#[test]
fn malformed_pseudo_headers_are_refused() {
    let (upstream, gateway) = open_gateway();
    let with = |name: &[u8], value: &'static [u8]| -> Vec<Field<'static>> {
        HEAD.iter().map(|(n, v)| (*n, if *n == name { value } else { *v })).collect()
    };
    let without = |name: &[u8]| -> Vec<Field<'static>> { HEAD.iter().filter(|(n, _)| *n != name).copied().collect() };
    let heads = [
        without(b":method"),
        without(b":path"),
        without(b":scheme"),
        without(b":authority"),
        with(b":path", b""),
        with(b":path", b"v2/a/manifests/v1"),
        with(b":path", b"*"),
        with(b":path", b"https://gw.test/v2/a/manifests/v1"),
        with(b":path", b"/v2/a/manifests/v1 HTTP/1.1\r\nX-A: b"),
        with(b":path", b"/v2/a/../secret/manifests/v1"),
        with(b":path", b"/v2/a\\manifests\\v1"),
        with(b":method", b"GET /v2/secret/manifests/v1 HTTP/1.1\r\nX:"),
        with(b":method", b"CONNECT"),
        with(b":authority", b"evil.example"),
        with(b":authority", b"user@gw.test"),
        with(b":authority", b"gw.test\r\nX-A: b"),
    ];
    for fields in heads {
        assert_refused(&upstream, &gateway, &fields);
    }
    let mut late = HEAD.to_vec();
    late.rotate_left(1);
    late.insert(0, (b"x-a", b"1"));
    assert_refused(&upstream, &gateway, &late);
}

#[test]
fn an_extended_connect_opens_no_tunnel() {
    let (upstream, gateway) = open_gateway();
    let fields: [Field<'_>; 5] = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", b"/v2/a/manifests/v1"),
        (b":authority", b"gw.test"),
    ];
    assert_refused(&upstream, &gateway, &fields);
}

#[test]
fn a_length_that_lies_never_completes_an_upload() {
    for (length, sent) in [(&b"9"[..], &b"hello"[..]), (b"3", b"hello"), (b"5, 5", b"hello"), (b"x", b"hello")] {
        let (upstream, gateway) = open_gateway();
        let mut client = raw(&gateway);
        let fields: [Field<'_>; 5] = [
            (b":method", b"PATCH"),
            (b":scheme", b"https"),
            (b":path", b"/v2/a/blobs/uploads/1?_state=x"),
            (b":authority", b"gw.test"),
            (b"content-length", length),
        ];
        client.headers(1, &fields, false);
        client.frame(RawH2::DATA, RawH2::END_STREAM, 1, sent);
        let verdict = client.verdict(1);
        let refused = matches!(verdict.as_str(), "reset" | "goaway" | "closed") || verdict.starts_with(['4', '5']);
        assert!(refused, "{verdict} for a length of {}", length.escape_ascii());
        std::thread::sleep(Duration::from_millis(50));
        assert!(upstream.take().iter().all(|request| !request.complete), "length {}", length.escape_ascii());
    }
}

#[test]
fn several_lengths_are_refused() {
    let (upstream, gateway) = open_gateway();
    let mut client = raw(&gateway);
    let fields: [Field<'_>; 6] = [
        (b":method", b"PATCH"),
        (b":scheme", b"https"),
        (b":path", b"/v2/a/blobs/uploads/1?_state=x"),
        (b":authority", b"gw.test"),
        (b"content-length", b"5"),
        (b"content-length", b"5"),
    ];
    client.headers(1, &fields, false);
    client.frame(RawH2::DATA, RawH2::END_STREAM, 1, b"hello");
    let verdict = client.verdict(1);
    assert!(matches!(verdict.as_str(), "reset" | "goaway" | "closed") || verdict.starts_with('4'), "{verdict}");
    upstream.assert_untouched("two lengths");
}

#[test]
fn resets_do_not_multiply_upstream_work() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|_| crate::support::upstream::Answer::new(200).delay(Duration::from_millis(50)).body(b"{}"));
    let mut client = raw(&gateway);
    for index in 0..2_000_u32 {
        client.headers(index * 2 + 1, &HEAD, true);
        client.frame(RawH2::RST_STREAM, 0, index * 2 + 1, &8_u32.to_be_bytes());
    }
    std::thread::sleep(Duration::from_millis(500));
    assert!(upstream.open_connections() <= 200, "{} connections", upstream.open_connections());
    assert_eq!(gateway.h2().get("/v2/").status, 200, "others are served");
}

#[test]
fn more_streams_than_allowed_are_refused_and_the_rest_served() {
    let upstream = Upstream::start();
    let gateway =
        crate::gateway().upstream(upstream.url()).configure(|c| c["limits"]["h2_max_streams"] = 5.into()).start();
    upstream.answer(|_| crate::support::upstream::Answer::new(200).delay(Duration::from_millis(300)).body(b"{}"));
    let mut client = raw(&gateway);
    for index in 0..8_u32 {
        client.headers(index * 2 + 1, &HEAD, true);
    }
    assert_eq!(client.verdict(15), "reset");
    assert!(upstream.take().len() <= 5);
}
