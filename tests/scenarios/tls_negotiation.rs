//! What is negotiated: server certificates, versions, protocols, and what becomes of those who never finish.

use super::tls_faults::{alert, s_client};
use crate::open_gateway;
use crate::support::gateway::{NAME, gateway};
use crate::support::pki::{self, Key};
use crate::support::tls::{ALPN_BOTH, ALPN_H1, ALPN_H2};
use crate::support::upstream::Upstream;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[test]
fn server_certificates_are_chosen_by_name_and_algorithm() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let rsa = builder.server_ca.issue(&pki::server(&[NAME]).key(Key::Rsa(2048)).attribute("OU", "rsa"));
    let other = builder.server_ca.issue(&pki::server(&["other.test", "*.wild.test"]).attribute("OU", "other"));
    for (identity, name) in [(&rsa, "rsa"), (&other, "other")] {
        fs::copy(&identity.chain, builder.path().join(format!("{name}.crt"))).expect("writable");
        fs::copy(&identity.key, builder.path().join(format!("{name}.key"))).expect("writable");
    }
    let gateway = builder
        .configure(|c| {
            c["listeners"][0]["tls"]["certificates"] = json!([
                { "certificate": "server.crt", "key": "server.key" },
                { "certificate": "rsa.crt", "key": "rsa.key" },
                { "certificate": "other.crt", "key": "other.key" },
            ]);
        })
        .start();
    let shown = |more: &[&str]| {
        let mut more = more.to_vec();
        more.push("-tls1_2");
        let text = s_client(&gateway, Some(gateway.identity()), &more).all();
        text.lines().find(|line| line.starts_with("subject=")).unwrap_or("none").to_owned()
    };
    assert!(shown(&["-sigalgs", "ECDSA+SHA256:RSA-PSS+SHA256"]).contains(&format!("CN = {NAME}")));
    assert!(!shown(&["-sigalgs", "ECDSA+SHA256:RSA-PSS+SHA256"]).contains("OU"));
    let only_rsa = shown(&["-sigalgs", "RSA-PSS+SHA256:RSA+SHA256", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]);
    assert!(only_rsa.contains("OU = rsa"), "{only_rsa}");
    assert!(shown(&["-servername", "other.test"]).contains("OU = other"));
    assert!(shown(&["-servername", "OTHER.test"]).contains("OU = other"));
    assert!(shown(&["-servername", "a.wild.test"]).contains("OU = other"));
    for default in ["unknown.test", "a.b.wild.test", "wild.test"] {
        assert!(!shown(&["-servername", default]).contains("OU"), "{default}");
    }
}

#[test]
fn clients_without_a_name_get_the_default_certificate() {
    let (_upstream, gateway) = open_gateway();
    let stream = gateway.tls().name(None).alpn(ALPN_H1).connect().expect("a connection");
    drop(stream);
    let by_address = gateway.tls().name(None);
    let mut client = crate::support::client::H1::connect(&by_address).expect("a connection");
    assert_eq!(client.get("/v2/").status, 200);
}

#[test]
fn both_versions_of_http_are_offered() {
    let (_upstream, gateway) = open_gateway();
    for (offered, chosen) in [(ALPN_BOTH, Some(&b"h2"[..])), (ALPN_H2, Some(b"h2")), (ALPN_H1, Some(b"http/1.1"))] {
        let stream = gateway.tls().alpn(offered).connect().expect("a connection");
        assert_eq!(stream.ssl().selected_alpn_protocol(), chosen);
    }
    // Old clients send no ALPN at all.
    let shown = s_client(&gateway, Some(gateway.identity()), &[]);
    assert!(shown.text().contains("HTTP/1.1 200"), "{}", shown.all());
}

#[test]
fn old_versions_are_refused() {
    let (upstream, gateway) = open_gateway();
    for version in ["-tls1", "-tls1_1"] {
        let shown = s_client(&gateway, Some(gateway.identity()), &[version]);
        assert_eq!(alert(&shown), Some(70), "{version}: {}", shown.all());
    }
    upstream.assert_untouched("TLS 1.1");
}

#[test]
fn the_oldest_version_can_be_raised() {
    let upstream = Upstream::start();
    let gateway = gateway()
        .upstream(upstream.url())
        .configure(|c| c["listeners"][0]["tls"]["min_version"] = "1.3".into())
        .start();
    let shown = s_client(&gateway, Some(gateway.identity()), &["-tls1_2"]);
    assert_eq!(alert(&shown), Some(70), "{}", shown.all());
    assert_eq!(gateway.h1().get("/v2/").status, 200);
}

#[test]
fn weak_suites_compression_and_renegotiation_are_not_offered() {
    let (_upstream, gateway) = open_gateway();
    for suite in ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256"] {
        let shown = s_client(&gateway, Some(gateway.identity()), &["-tls1_2", "-cipher", suite]);
        assert!(!shown.text().contains("HTTP/1.1"), "{suite}: {}", shown.all());
    }
    let shown = s_client(&gateway, Some(gateway.identity()), &["-tls1_2", "-comp"]);
    assert!(shown.text().contains("Compression: NONE"), "{}", shown.all());
}

#[test]
fn an_unfinished_handshake_meets_its_deadline_and_delays_nobody() {
    let upstream = Upstream::start();
    let gateway =
        gateway().upstream(upstream.url()).configure(|c| c["limits"]["handshake_timeout"] = "4s".into()).start();
    // Silence, half a record, and a byte now and then.
    let openings: [&[u8]; 3] = [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"\x16"];
    let mut streams: Vec<TcpStream> = openings
        .iter()
        .map(|bytes| {
            let mut stream = TcpStream::connect(gateway.address()).expect("a connection");
            stream.write_all(bytes).expect("the connection is open");
            stream
        })
        .collect();
    let start = Instant::now();
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    assert!(start.elapsed() < Duration::from_secs(3), "served in {:?}", start.elapsed());
    for stream in &mut streams {
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
        let mut closed = false;
        while !closed && start.elapsed() < Duration::from_secs(9) {
            let mut byte = [0_u8; 64];
            closed = match stream.read(&mut byte) {
                Ok(0) => true,
                Ok(_) => false,
                Err(e) => !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            };
            let _ = stream.write_all(b"\0");
        }
        assert!(closed, "still open after {:?}", start.elapsed());
    }
    gateway.wait_for_metric("portcullis_handshakes_total", &[("result", "timeout")], |n| n >= 1.0);
}

#[test]
fn plain_http_on_the_tls_port_reaches_nobody() {
    let (upstream, gateway) = open_gateway();
    let mut stream = TcpStream::connect(gateway.address()).expect("a connection");
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: gw.test\r\n\r\n").expect("the connection is open");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("200"), "{answer:?}");
    upstream.assert_untouched("plain HTTP");
    gateway.wait_for_metric("portcullis_handshakes_total", &[("result", "protocol")], |n| n >= 1.0);
}

#[test]
fn several_listeners_serve_their_own_upstreams() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let gateway = gateway()
        .upstream(first.url())
        .upstream(second.url())
        .configure(|c| {
            let mut other = c["listeners"][0].clone();
            other["name"] = "other".into();
            other["upstream"] = "registry-2".into();
            other["addresses"] = json!(["[::1]:0"]);
            c["listeners"].as_array_mut().expect("a list").push(other);
        })
        .start();
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    let mut tls = gateway.tls();
    tls.address = gateway.addresses()[1];
    let mut client = crate::support::client::H1::connect(&tls).expect("a connection over IPv6");
    assert_eq!(client.get("/v2/").status, 200);
    assert_eq!((first.take().len(), second.take().len()), (1, 1));
}

#[test]
fn intermediates_may_come_from_the_client_or_from_the_bundle() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let middle = builder.client_ca.intermediate("Middle", &[]);
    let leaf = middle.issue(&pki::client("ci-7"));
    let mut bare = leaf.clone();
    bare.chain = leaf.certificate.clone();
    let gateway = builder.start();
    assert_eq!(gateway.h1_as(&leaf).get("/v2/").status, 200, "sent by the client");
    let refused = crate::support::client::H1::connect(&gateway.tls_as(&bare))
        .map_err(std::io::Error::other)
        .and_then(|mut client| client.request("GET", "/v2/", &[], b""));
    assert!(refused.is_err(), "{refused:?}");
    gateway.write("client-ca.pem", gateway.client_ca.pem() + &middle.pem());
    gateway.reload_ok();
    assert_eq!(gateway.h1_as(&bare).get("/v2/").status, 200, "from the bundle");
}
