//! The PROXY protocol: whose word on a client's address counts, and what becomes of everything else.

use crate::support::balancer::{Balancer, Manner, connect_from};
use crate::support::client::H1;
use crate::support::gateway::{Gateway, NAME, gateway};
use crate::support::h2client::H2;
use crate::support::process::{self, Process};
use crate::support::skip;
use crate::support::tls::Tls;
use crate::support::upstream::Upstream;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const PULL: &str = "/v2/a/manifests/v1";
const HANDSHAKES: &str = "portcullis_handshakes_total";

/// Where the trusted load balancer connects from, and where somebody else does.
const TRUSTED: [u8; 4] = [127, 0, 0, 2];
const STRANGER: [u8; 4] = [127, 0, 0, 3];

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("a short block").to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

fn v2_tcp4() -> Vec<u8> {
    v2(0x21, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb])
}

/// A gateway that believes `TRUSTED`, with these limits.
fn start(limits: &Value) -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).configure(|c| {
        c["listeners"][0]["proxy_protocol"] = json!({ "trusted_sources": ["127.0.0.2"] });
        c["limits"] = limits.clone();
    });
    (upstream, gateway.start())
}

fn by_way_of(gateway: &Gateway, balancer: &Balancer) -> Tls {
    Tls { address: balancer.address, ..gateway.tls() }
}

/// Sends bytes from an address, and waits for the end of the connection. Whatever comes back is returned.
fn send_raw(gateway: &Gateway, source: [u8; 4], bytes: &[u8], then_close: bool) -> Vec<u8> {
    let mut stream = connect_from(source, gateway.address()).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    // The gateway may have refused before all was sent.
    let _ = stream.write_all(bytes);
    if then_close {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("it is still open"),
        _ => answer,
    }
}

fn counted(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(HANDSHAKES, &[("result", result)]).unwrap_or(0.0)
}

#[test]
fn the_client_is_the_one_in_the_header_whatever_the_pieces() {
    let (upstream, gateway) = start(&json!({}));
    let extended = [&[192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb][..], &[4, 3, 232], &[0; 1000]].concat();
    let tcp6 = [&[0x20, 1, 13, 184][..], &[0; 11], &[1], &[0; 16], &[0xdc, 4, 1, 0xbb]].concat();
    let cases: [(Vec<u8>, &str); 6] = [
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(), "192.0.2.1:56324"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n".to_vec(), "[2001:db8::1]:56324"),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(), "255.255.255.255:65535"),
        (v2_tcp4(), "192.0.2.1:56324"),
        (v2(0x21, 0x21, &tcp6), "[2001:db8::1]:56324"),
        (v2(0x21, 0x11, &extended), "192.0.2.1:56324"),
    ];
    for (header, client) in &cases {
        let address: SocketAddr = client.parse().expect("an address");
        for manner in [Manner::Together, Manner::Apart, Manner::Bytewise] {
            let what = format!("{client} {manner:?} {}", header.escape_ascii());
            let balancer = Balancer::start(gateway.address(), TRUSTED, header, manner);
            let tls = by_way_of(&gateway, &balancer);
            let forged = [("X-Forwarded-For", "6.6.6.6"), ("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6")];
            let mut h1 = H1::connect(&tls).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(h1.request("GET", PULL, &forged, b"").expect(&what).status, 200, "{what}");
            let mut h2 = H2::connect(&tls).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(h2.request("GET", PULL, &forged, b"").expect(&what).status, 200, "{what}");
            for request in upstream.take() {
                assert_eq!(request.header("x-forwarded-for"), Some(address.ip().to_string().as_str()), "{what}");
                assert!(!String::from_utf8_lossy(&request.head).contains("6.6.6.6"), "{what}");
            }
        }
    }
    let expected = 2 * 3 * cases.len();
    gateway.wait_for_metric(HANDSHAKES, &[("result", "established")], |n| n >= expected as f64);
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while gateway.records().len() < expected {
        assert!(std::time::Instant::now() < end, "{} of {expected} records", gateway.records().len());
        std::thread::sleep(Duration::from_millis(20));
    }
    for record in gateway.records() {
        assert!(cases.iter().any(|(_, client)| record["client"] == *client), "{record}");
    }
}

#[test]
fn a_balancer_that_speaks_for_itself_keeps_its_address() {
    let (upstream, gateway) = start(&json!({}));
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(),
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb]),
        v2(0x21, 0x00, &[]),
        v2(0x21, 0x31, &[b'x'; 216]),
    ] {
        let balancer = Balancer::start(gateway.address(), TRUSTED, &header, Manner::Together);
        let mut client = H1::connect(&by_way_of(&gateway, &balancer)).expect("served");
        assert_eq!(client.get(PULL).status, 200, "{}", header.escape_ascii());
        let request = upstream.take().pop().expect("a request");
        assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.2"), "{}", header.escape_ascii());
    }
    // As a health check of the fourth layer leaves: no fault of anybody's.
    assert!(send_raw(&gateway, TRUSTED, &v2(0x20, 0, &[]), true).is_empty());
    assert!(send_raw(&gateway, TRUSTED, b"", true).is_empty());
    gateway.wait_for_metric(HANDSHAKES, &[("result", "disconnected")], |n| n >= 2.0);
}

#[test]
fn what_a_balancer_sends_instead_of_a_header_is_refused_by_name() {
    let (upstream, gateway) = start(&json!({}));
    let refused = |what: &str, bytes: &[u8], then_close: bool, result: &str| {
        let before = counted(&gateway, result);
        let answer = send_raw(&gateway, TRUSTED, bytes, then_close);
        assert!(answer.is_empty(), "{what} was answered: {}", answer.escape_ascii());
        gateway.wait_for_metric(HANDSHAKES, &[("result", result)], |n| n >= before + 1.0);
        upstream.assert_untouched(what);
    };
    let hello = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    refused("TLS without a header", &hello, false, "proxy_header_missing");
    refused("plain HTTP", b"GET /v2/ HTTP/1.1\r\nHost: gw.test\r\n\r\n", false, "proxy_header_missing");
    refused("zeros", &[0; 64], false, "proxy_header_missing");
    let malformed = "proxy_header_malformed";
    refused("an unknown family", b"PROXY TCP5 192.0.2.1 198.51.100.1 56324 443\r\n", false, malformed);
    refused("no address", b"PROXY TCP4 nowhere 198.51.100.1 56324 443\r\n", false, malformed);
    refused("a line without end", &[b"PROXY TCP4 ", &[b'1'; 200][..]].concat(), false, malformed);
    refused("a line of 108 bytes", format!("PROXY UNKNOWN {:92}\r\n", "").as_bytes(), false, malformed);
    refused("a block too long", &v2(0x21, 0x11, &[0; 5000]), false, malformed);
    refused("a block too short", &v2(0x21, 0x11, &[0; 11]), false, malformed);
    refused("a datagram's", &v2(0x21, 0x12, &[0; 12]), false, malformed);
    refused("another version", &v2(0x11, 0x11, &[0; 12]), false, malformed);
    for end in [1, 5, 12, 20] {
        refused("half a line", &b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"[..end], true, malformed);
        refused("half a block", &v2_tcp4()[..end], true, malformed);
    }
    let line = gateway.log().into_iter().find(|line| line.contains("proxy_header_missing")).expect("a line of the log");
    assert!(line.contains("begins with TLS") && line.contains("client 127.0.0.2"), "{line}");
    let twice = [v2_tcp4(), v2_tcp4()].concat();
    let balancer = Balancer::start(gateway.address(), TRUSTED, &twice, Manner::Together);
    assert!(H1::connect(&by_way_of(&gateway, &balancer)).is_err(), "a second header is no TLS");
    let balancer = Balancer::start(gateway.address(), TRUSTED, &v2_tcp4(), Manner::Together);
    assert_eq!(H1::connect(&by_way_of(&gateway, &balancer)).expect("served").get(PULL).status, 200);
}

#[test]
fn a_stranger_is_an_ordinary_client_and_never_believed() {
    let (upstream, mut gateway) = start(&json!({}));
    let balancer = Balancer::start(gateway.address(), STRANGER, b"", Manner::Together);
    let mut direct = H1::connect(&by_way_of(&gateway, &balancer)).expect("served");
    assert_eq!(direct.get(PULL).status, 200);
    assert_eq!(upstream.take().pop().expect("a request").header("x-forwarded-for"), Some("127.0.0.3"));
    for header in [b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(), v2_tcp4(), v2(0x20, 0, &[])] {
        let balancer = Balancer::start(gateway.address(), STRANGER, &header, Manner::Together);
        assert!(H1::connect(&by_way_of(&gateway, &balancer)).is_err(), "{}", header.escape_ascii());
        upstream.assert_untouched("a header from a stranger");
    }
    gateway.wait_for_metric(HANDSHAKES, &[("result", "protocol")], |n| n >= 3.0);
    let log = gateway.log().join("\n");
    assert!(!log.contains("192.0.2.1") && gateway.records().iter().all(|r| r["client"] != "192.0.2.1:56324"), "{log}");

    // From the next connection on, the stranger is a load balancer.
    gateway.change_config(|c| c["listeners"][0]["proxy_protocol"]["trusted_sources"] = json!(["127.0.0.3/32"]));
    gateway.reload_ok();
    let balancer = Balancer::start(gateway.address(), STRANGER, &v2_tcp4(), Manner::Together);
    assert_eq!(H1::connect(&by_way_of(&gateway, &balancer)).expect("served").get(PULL).status, 200);
    assert_eq!(upstream.take().pop().expect("a request").header("x-forwarded-for"), Some("192.0.2.1"));
    assert_eq!(direct.get(PULL).status, 200, "who was served before goes on under the old address");
    assert_eq!(upstream.take().pop().expect("a request").header("x-forwarded-for"), Some("127.0.0.3"));
}

#[test]
fn limits_of_an_address_count_the_clients_and_not_the_balancer() {
    let (_upstream, gateway) = start(&json!({ "max_connections_per_address": 1 }));
    let one = Balancer::start(gateway.address(), TRUSTED, &v2_tcp4(), Manner::Together);
    let other = b"PROXY TCP4 192.0.2.2 198.51.100.1 56324 443\r\n";
    let other = Balancer::start(gateway.address(), TRUSTED, other, Manner::Together);
    let connect = |balancer: &Balancer| H1::connect(&by_way_of(&gateway, balancer));
    let mut first = connect(&one).expect("the first of this address");
    let mut second = connect(&other).expect("the first of another address");
    assert!(connect(&one).is_err(), "the second of the first address");
    gateway.wait_for_metric(HANDSHAKES, &[("result", "too_many_of_address")], |n| n >= 1.0);
    assert_eq!((first.get(PULL).status, second.get(PULL).status), (200, 200));
    drop(first);
    let served = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        connect(&one).is_ok_and(|mut client| client.request("GET", PULL, &[], b"").is_ok())
    });
    assert!(served, "the place comes back");
}

#[test]
fn who_waits_with_its_header_holds_a_handshake_and_has_its_deadline() {
    let (_upstream, gateway) = start(&json!({ "max_handshakes": 2, "handshake_timeout": "1s" }));
    let half = |bytes: &[u8]| {
        let mut stream = connect_from(TRUSTED, gateway.address()).expect("connected");
        // One that is refused may be gone before it has said anything.
        let _ = stream.write_all(bytes);
        stream
    };
    let waiting: [TcpStream; 2] = [half(b"PROXY TCP4 "), half(&v2_tcp4()[..14])];
    gateway.wait_for_metric(HANDSHAKES, &[("result", "timeout")], |n| n >= 2.0);
    drop(waiting);
    // And while some wait, the next are refused.
    let mut waiting = Vec::new();
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while counted(&gateway, "too_many_handshakes") < 1.0 {
        assert!(std::time::Instant::now() < end, "{}", gateway.metrics());
        waiting.push(half(&v2_tcp4()[..20]));
    }
}

#[test]
fn curl_sends_a_header_of_version_1() {
    if !skip::have(&["curl"]) {
        return;
    }
    let (_upstream, gateway) = start(&json!({}));
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let identity = gateway.identity();
    let (ca, chain, key) = (text(&gateway.server_ca.certificate), text(&identity.chain), text(&identity.key));
    let port = gateway.address().port();
    let (url, place) = (format!("https://{NAME}:{port}{PULL}"), format!("{NAME}:{port}:127.0.0.1"));
    let curl = |interface: &str| {
        let arguments = ["-sSf", "--cacert", &ca, "--cert", &chain, "--key", &key, "--resolve", &place, &url];
        let more = ["--noproxy", "*", "--haproxy-protocol", "--interface", interface];
        process::run("curl", &[&arguments[..], &more].concat(), b"", Duration::from_secs(20))
    };
    curl("127.0.0.2").expect_success("curl --haproxy-protocol from a trusted address");
    let record = gateway.wait_for_record(|record| record["route"] == "manifest");
    assert!(record["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.2:")), "{record}");
    assert!(!curl("127.0.0.3").success(), "and from a stranger's");
}

/// HAProxy in front, one port for each version of the protocol. Its ports can't be chosen by the kernel.
fn haproxy(gateway: &Gateway, versions: &[(&str, u16)]) -> Result<Process, String> {
    let mut text = "global\n  log stderr format raw local0\ndefaults\n  mode tcp\n  timeout connect 10s\n  \
                    timeout client 60s\n  timeout server 60s\n"
        .to_owned();
    for (option, port) in versions {
        let target = gateway.address();
        let _ = write!(
            text,
            "listen {option}\n  bind 127.0.0.1:{port}\n  server gateway {target} {option} source 127.0.0.2 \
             check check-send-proxy inter 200ms\n"
        );
    }
    let file = gateway.path().join("haproxy.cfg");
    std::fs::write(&file, text).map_err(|e| e.to_string())?;
    let program = skip::find("haproxy").ok_or("haproxy is not installed")?;
    let mut process =
        Process::spawn("haproxy", &program.to_string_lossy(), &["-db", "-f", &file.to_string_lossy()], |_| {});
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while std::time::Instant::now() < end {
        if let Some(status) = process.has_exited() {
            return Err(format!("haproxy ended with {status}: {}", process.tail(10)));
        }
        if versions.iter().all(|(_, port)| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
            return Ok(process);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("haproxy does not listen: {}", process.tail(10)))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

#[test]
fn haproxy_passes_clients_on_in_both_versions() {
    if !skip::have(&["haproxy"]) {
        return;
    }
    let (_upstream, gateway) = start(&json!({}));
    let mut last = String::new();
    // A port that was free may be taken by the time HAProxy binds it.
    let started = (0..5).find_map(|_| {
        let versions = [("send-proxy", free_port()), ("send-proxy-v2", free_port())];
        haproxy(&gateway, &versions).map_err(|e| last = e).ok().map(|process| (versions, process))
    });
    let (versions, process) = started.unwrap_or_else(|| panic!("{last}"));
    for (option, port) in versions {
        let client = Balancer::start(SocketAddr::from(([127, 0, 0, 1], port)), [127, 0, 0, 9], b"", Manner::Together);
        let tls = by_way_of(&gateway, &client);
        let seen = gateway.records().len();
        let mut h1 = H1::connect(&tls).unwrap_or_else(|e| panic!("{option}: {e}\n{}", process.tail(10)));
        assert_eq!(h1.get(PULL).status, 200, "{option}");
        let mut h2 = H2::connect(&tls).unwrap_or_else(|e| panic!("{option}: {e}\n{}", process.tail(10)));
        let body = vec![7; 3_000_000];
        assert_eq!(h2.request("PUT", "/v2/a/blobs/uploads/x", &[], &body).expect(option).status, 200, "{option}");
        gateway.wait_for_record(|record| record["method"] == "PUT" && record["http_version"] == "HTTP/2");
        for record in gateway.records().split_off(seen) {
            assert!(record["client"].as_str().is_some_and(|c| c.starts_with("127.0.0.9:")), "{option}: {record}");
        }
    }
    // Its health checks of both versions have come by meanwhile.
    gateway.wait_for_metric(HANDSHAKES, &[("result", "disconnected")], |n| n >= 2.0);
    for result in ["proxy_header_missing", "proxy_header_malformed", "protocol"] {
        assert!(counted(&gateway, result) < 0.5, "{result}: {}", gateway.metrics());
    }
}
