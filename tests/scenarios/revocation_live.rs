//! Revocation and live connections: lists that run out under them, and files beside the lists that are broken.

use crate::support::gateway::{ALLOW_ALL, Client, Gateway, gateway};
use crate::support::pki::{self, Ca};
use crate::support::upstream::{Answer, Upstream};
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};

/// The time `after` from now as certificates and lists write it.
pub fn time_in(after: Duration) -> String {
    let text = humantime::format_rfc3339_seconds(SystemTime::now() + after).to_string();
    text.chars().filter(|c| c.is_ascii_digit() || *c == 'Z').collect()
}

/// Until a list that [`expiring`] made has run out, and the gateway has looked for it.
const RUN_OUT: Duration = Duration::from_secs(8);

/// A gateway with two client CAs: the list of the first runs out in a few seconds, that of the second doesn't.
fn expiring(freshness: &str) -> (Upstream, Gateway, Ca) {
    let upstream = Upstream::start();
    upstream.answer(|request| match request.target.contains("/blobs/") {
        true => Answer::new(200).pattern(0, 1 << 30).slowly(16 * 1024, Duration::from_millis(20)),
        false => Answer::new(200).header("Content-Type", "application/json").body(b"{}"),
    });
    let builder = gateway().upstream(upstream.url());
    let other = Ca::root(&builder.pki(), "Other CA");
    let bundle = builder.client_ca.pem() + &other.pem();
    let lists = builder.client_ca.crl().next_update(&time_in(Duration::from_secs(5))).pem() + &other.crl().pem();
    let gateway = builder
        .file("client-ca.pem", &bundle)
        .crl(&lists)
        .configure(|c| {
            c["revocation"]["freshness"] = freshness.into();
            c["revocation"]["grace"] = "0s".into();
            c["revocation"]["clock_skew"] = "0s".into();
        })
        .start();
    (upstream, gateway, other)
}

fn is_served(client: &mut Client) -> bool {
    match client {
        Client::H1(client) => client.request("GET", "/v2/", &[], b"").is_ok_and(|reply| reply.status == 200),
        Client::H2(client) => client.request("GET", "/v2/", &[], b"").is_ok_and(|reply| reply.status == 200),
    }
}

fn has_ended(client: &mut Client, limit: Duration) -> bool {
    match client {
        Client::H1(client) => client.is_closed_within(limit),
        Client::H2(client) => client.ended_within(limit).is_some(),
    }
}

#[test]
fn a_list_that_runs_out_ends_the_live_connections_of_its_issuer() {
    let (_upstream, gateway, other) = expiring("required");
    let start = Instant::now();
    let unaffected = other.issue(&pki::client("unaffected"));
    let mut idle = gateway.both();
    let mut busy = gateway.both();
    let mut others = gateway.both_as(&unaffected);
    for client in idle.iter_mut().chain(&mut busy).chain(&mut others) {
        assert!(is_served(client), "{} while the list is good", client.version());
    }
    let mut loading = gateway.h1();
    loading.send_request("GET", &format!("/v2/a/blobs/{}", crate::DIGEST), &[], b"").expect("sent");
    assert_eq!(loading.head().expect("a head").status, 200);
    let mut loading2 = gateway.h2();
    let mut transfer = loading2.open("GET", &format!("/v2/a/blobs/{}", crate::DIGEST), &[], true).expect("a stream");
    assert_eq!(transfer.head().expect("a head").status, 200);
    for mut client in busy {
        // A request every now and then must not keep the first approval alive.
        let mut served = true;
        while served && start.elapsed() < RUN_OUT {
            std::thread::sleep(Duration::from_millis(50));
            served = is_served(&mut client);
        }
        assert!(!served, "{} goes on after the list has run out", client.version());
    }
    for mut client in idle {
        assert!(has_ended(&mut client, Duration::from_secs(3)), "the idle {} connection stays", client.version());
    }
    assert!(loading.is_closed_within(Duration::from_secs(3)), "the HTTP/1.1 download goes on");
    assert!(loading2.ended_within(Duration::from_secs(3)).is_some(), "the HTTP/2 download goes on");
    for mut client in others {
        assert!(is_served(&mut client), "{}: another issuer's list is good", client.version());
    }
    let reason = [("reason", "revocation_unknown")];
    gateway.wait_for_metric("portcullis_connections_ended_total", &reason, |n| n >= 4.0);
    gateway.wait_for_record(|r| r["end_reason"] == "revocation_unknown" && r["route"] == "blob");
}

#[test]
fn a_list_that_is_replaced_in_time_ends_nothing() {
    let (_upstream, gateway, other) = expiring("required");
    let start = Instant::now();
    let mut clients = gateway.both();
    assert!(clients.iter_mut().all(is_served));
    gateway.write("ca.crl", gateway.client_ca.crl().number(2).pem() + &other.crl().pem());
    gateway.reload_ok();
    while start.elapsed() < RUN_OUT {
        std::thread::sleep(Duration::from_millis(200));
        assert!(clients.iter_mut().all(is_served), "after {:?}", start.elapsed());
    }
}

#[test]
fn a_list_that_runs_out_ends_nothing_where_freshness_is_optional() {
    let (_upstream, gateway, _) = expiring("optional");
    let start = Instant::now();
    let mut clients = gateway.both();
    while start.elapsed() < RUN_OUT {
        assert!(clients.iter_mut().all(is_served), "after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Breaks a file of a running gateway; the file's name, and what it is to hold instead.
const BROKEN: &[(&str, &str)] = &[
    ("policy.yaml", "rules: []\nbogus: 1\n"),
    ("portcullis.yaml", "listeners: [\n"),
    ("client-ca.pem", ""),
    ("server.key", "-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n"),
];

#[test]
fn a_broken_file_does_not_hold_up_a_revocation() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let list = builder.client_ca.crl().pem();
    let gateway = builder.crl(&list).start();
    let mut stays = gateway.both();
    for (number, (file, content)) in (2..).zip(BROKEN) {
        let good = std::fs::read(gateway.path().join(file)).expect("the file is there");
        let victim = gateway.client(&format!("victim-{number}"));
        let mut connected = gateway.both_as(&victim);
        assert!(connected.iter_mut().all(is_served), "{file}: before");
        let before = gateway.generation();
        gateway.write(file, content);
        gateway.write("ca.crl", gateway.client_ca.crl().number(number).revoke(&victim.certificate).pem());
        let said = gateway.reload_refused();
        assert!(said.contains(file), "{file} must still be complained of: {said}");
        for client in &mut connected {
            let ended = has_ended(client, Duration::from_secs(2));
            assert!(ended, "{file} is broken, and the {} connection of the revoked stays", client.version());
        }
        assert!(gateway.generation() > before, "{file}: the new list is a new generation");
        assert_eq!(gateway.metric("portcullis_reload_failed", &[]), Some(1.0), "{file}");
        // A second look at the same broken files changes nothing.
        let held = gateway.generation();
        gateway.reload_refused();
        assert!((gateway.generation() - held).abs() < 0.5, "{file}: nothing new was published");
        assert!(stays.iter_mut().all(is_served), "{file}: others are served as before");
        assert_eq!(gateway.h1().get("/v2/a/manifests/v1").status, 200);
        gateway.write(file, good);
        gateway.reload_ok();
        let again = crate::support::client::H1::connect(&gateway.tls_as(&victim))
            .map_err(std::io::Error::other)
            .and_then(|mut client| client.request("GET", "/v2/", &[], b""));
        assert!(again.is_err(), "{file}: still revoked once the file is repaired: {again:?}");
        assert!(stays.iter_mut().all(is_served), "{file}: repaired");
    }
}

#[test]
fn a_broken_file_is_not_a_way_to_put_a_part_of_it_in_force() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let list = builder.client_ca.crl().pem();
    let mut gateway = builder.crl(&list).start();
    // Three changes at once: a list, a policy that is good, and a configuration that is not.
    gateway.write("ca.crl", gateway.client_ca.crl().number(2).serial("0102").pem());
    gateway.write("policy.yaml", "rules: []\n");
    gateway.change_config(|c| c["limits"] = json!({ "bogus": 1 }));
    gateway.reload_refused();
    assert_eq!(gateway.h1().get("/v2/a/manifests/v1").status, 200);
    gateway.wait_for_metric("portcullis_crl_entries", &[], |n| n >= 1.0);
    gateway.change_config(|c| c["limits"] = json!({}));
    gateway.reload_ok();
    gateway.h1().get("/v2/a/manifests/v1").assert_refusal(403, "DENIED");
    gateway.write("policy.yaml", ALLOW_ALL);
    gateway.reload_ok();
    assert_eq!(gateway.h1().get("/v2/a/manifests/v1").status, 200);
}
