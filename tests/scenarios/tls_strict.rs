//! What a listener holds to: its demands on certificates that are connected already, and what it never offers.

use super::tls_faults::{alert, s_client};
use crate::open_gateway;
use crate::support::client::H1;
use crate::support::gateway::{Client, Gateway, NAME, gateway};
use crate::support::h2client::H2;
use crate::support::pki::{self, Identity, Key};
use crate::support::process::Finished;
use crate::support::upstream::Upstream;
use serde_json::Value;
use std::time::Duration;

/// The alert no_application_protocol (RFC 7301 §3.2).
const NO_APPLICATION_PROTOCOL: u16 = 120;

fn has_ended(client: &mut Client, limit: Duration) -> bool {
    match client {
        Client::H1(client) => client.is_closed_within(limit),
        Client::H2(client) => client.ended_within(limit).is_some(),
    }
}

fn is_served(gateway: &Gateway, identity: &Identity, more: &[&str]) -> bool {
    s_client(gateway, Some(identity), more).text().contains("HTTP/1.1 200")
}

/// Connects, raises a demand, and expects that `identity` is out, and that the default client may come again.
#[track_caller]
fn assert_ended_by(gateway: &mut Gateway, identity: &Identity, what: &str, change: impl FnOnce(&mut Value)) {
    let mut live = gateway.both_as(identity);
    for client in &mut live {
        assert_eq!(client.get("/v2/").status, 200, "{what}: before");
    }
    gateway.change_config(|c| change(&mut c["listeners"][0]["tls"]));
    gateway.reload_ok();
    for client in &mut live {
        let version = client.version();
        assert!(has_ended(client, Duration::from_secs(2)), "{what}: the {version} connection stays");
    }
    assert!(!is_served(gateway, identity, &[]), "{what}: a new connection");
    for mut client in gateway.both() {
        assert_eq!(client.get("/v2/").status, 200, "{what}: who meets the demand");
    }
    gateway.wait_for_metric("portcullis_connections_ended_total", &[("reason", "untrusted")], |n| n >= 2.0);
}

#[test]
fn a_new_demand_for_an_extended_key_usage_ends_connections_without_it() {
    let upstream = Upstream::start();
    let mut gateway = gateway().upstream(upstream.url()).start();
    let without = gateway.client_ca.issue(&pki::client("no-eku").without("extendedKeyUsage"));
    assert_ended_by(&mut gateway, &without, "require_eku", |tls| tls["require_eku"] = true.into());
}

#[test]
fn version_1_certificates_that_are_no_longer_accepted_lose_their_connections() {
    let upstream = Upstream::start();
    let mut gateway =
        gateway().upstream(upstream.url()).configure(|c| c["listeners"][0]["tls"]["allow_v1"] = true.into()).start();
    let old = gateway.client_ca.issue(&pki::Profile::new("v1").version1());
    assert_ended_by(&mut gateway, &old, "allow_v1", |tls| tls["allow_v1"] = false.into());
}

#[test]
fn a_smaller_depth_ends_connections_of_longer_paths() {
    let upstream = Upstream::start();
    let mut gateway = gateway().upstream(upstream.url()).start();
    let middle = gateway.client_ca.intermediate("Middle", &[]);
    let far = middle.issue(&pki::client("far"));
    assert_ended_by(&mut gateway, &far, "verify_depth", |tls| tls["verify_depth"] = 0.into());
}

#[test]
fn other_changes_leave_connections_alone() {
    let upstream = Upstream::start();
    let mut gateway = gateway().upstream(upstream.url()).start();
    let mut live = gateway.both();
    for client in &mut live {
        assert_eq!(client.get("/v2/").status, 200);
    }
    let before = gateway.generation();
    gateway.change_config(|c| {
        c["limits"]["keep_alive_timeout"] = "50s".into();
        c["listeners"][0]["tls"]["session_tickets"] = false.into();
    });
    gateway.reload_ok();
    assert!(gateway.generation() > before);
    for client in &mut live {
        assert_eq!(client.get("/v2/").status, 200, "{}: still the same connection", client.version());
    }
}

#[test]
fn no_signature_with_sha1_is_asked_for_or_taken() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let rsa = builder.client_ca.issue(&pki::client("ci-7").key(Key::Rsa(2048)));
    let gateway = builder.start();
    for version in ["-tls1_2", "-tls1_3"] {
        let shown: Finished = s_client(&gateway, Some(&rsa), &[version]);
        let text = shown.text();
        let asked: Vec<&str> = text.lines().filter(|line| line.contains("equested Signature Algorithms")).collect();
        assert!(!asked.is_empty(), "{version}: {}", shown.all());
        assert!(asked.iter().all(|line| !line.contains("SHA1") && !line.contains("MD5")), "{version}: {asked:#?}");
        assert!(asked.iter().any(|line| line.contains("RSA-PSS+SHA256")), "{version}: {asked:#?}");
        assert!(text.contains("HTTP/1.1 200"), "{version}: {}", shown.all());
    }
    upstream.take();
    for only in ["RSA+SHA1", "RSA+SHA1:ECDSA+SHA1"] {
        let shown = s_client(&gateway, Some(&rsa), &["-tls1_2", "-client_sigalgs", only]);
        assert!(!shown.text().contains("HTTP/1.1"), "{only}: {}", shown.all());
    }
    upstream.assert_untouched("a client that proves its key with SHA-1 only");
}

#[test]
fn a_client_that_speaks_neither_version_of_http_gets_the_alert() {
    let (upstream, gateway) = open_gateway();
    for version in ["-tls1_2", "-tls1_3"] {
        for offered in ["ftp", "http/1.0", "h2c,spdy/3", "http/0.9,smtp"] {
            let shown = s_client(&gateway, Some(gateway.identity()), &[version, "-alpn", offered]);
            assert_eq!(alert(&shown), Some(NO_APPLICATION_PROTOCOL), "{version} {offered}: {}", shown.all());
        }
        let among_others = s_client(&gateway, Some(gateway.identity()), &[version, "-alpn", "ftp,http/1.1"]);
        assert!(among_others.text().contains("HTTP/1.1 200"), "{version}: {}", among_others.all());
        assert_eq!(upstream.take().len(), 1, "{version}");
    }
}

#[test]
fn without_a_server_name_a_host_must_be_one_of_the_listeners_own() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let server = builder.server_ca.issue(&pki::server(&["other.test", "*.wild.test"]));
    std::fs::copy(&server.chain, builder.path().join("other.crt")).expect("writable");
    std::fs::copy(&server.key, builder.path().join("other.key")).expect("writable");
    let gateway = builder
        .configure(|c| {
            let all = c["listeners"][0]["tls"]["certificates"].as_array_mut().expect("a list");
            all.push(serde_json::json!({ "certificate": "other.crt", "key": "other.key" }));
        })
        .start();
    let tls = gateway.tls().name(None);
    let port = gateway.address().port();
    let of_address = format!("127.0.0.1:{port}");
    let good = [NAME, "GW.Test:443", "localhost", "other.test", "a.wild.test", "127.0.0.1", "[::1]:443", &of_address];
    let bad = ["evil.example", "a.b.wild.test", "wild.test", "gw.test.evil.example", "test", "metadata.internal"];
    for (hosts, served) in [(&good[..], true), (&bad[..], false)] {
        for host in hosts {
            let mut h1 = H1::connect(&tls).expect("a connection");
            let head = format!("GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: {host}\r\n\r\n");
            h1.send(head.as_bytes()).expect("sent");
            let mut h2 = H2::connect(&tls).expect("a connection");
            let one = h1.answer().expect("an answer").status;
            let two = h2.request("GET", "/v2/a/manifests/v1", &[(":authority", host)], b"").expect("an answer").status;
            let wanted = if served { 200 } else { 421 };
            assert_eq!((one, two), (wanted, wanted), "{host}");
        }
        let seen = upstream.take();
        assert_eq!(seen.len(), if served { 2 * hosts.len() } else { 0 }, "{seen:#?}");
    }
}
