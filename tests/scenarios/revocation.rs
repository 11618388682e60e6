//! Revocation: at the handshake, on the next request, in the middle of a transfer; and what bad lists can't do.

use super::tls_faults::{alert, s_client};
use crate::support::gateway::{Builder, Gateway, gateway};
use crate::support::pki::{self, Ca, Identity, openssl};
use crate::support::upstream::{Answer, Upstream};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// A gateway with an empty list in force, and a second client that a test may revoke.
fn start() -> (Upstream, Gateway, Identity) {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let list = builder.client_ca.crl().pem();
    let victim = builder.client_ca.issue(&pki::client("victim"));
    (upstream, builder.crl(&list).start(), victim)
}

fn revoke(gateway: &Gateway, victim: &Identity) {
    gateway.write("ca.crl", gateway.client_ca.crl().number(2).revoke(&victim.certificate).pem());
    gateway.reload_ok();
}

fn is_served(gateway: &Gateway, identity: &Identity) -> bool {
    s_client(gateway, Some(identity), &[]).text().contains("HTTP/1.1 200")
}

#[test]
fn idle_connections_of_the_revoked_end_and_others_stay() {
    let (upstream, gateway, victim) = start();
    let mut h1 = gateway.h1_as(&victim);
    let mut h2 = gateway.h2_as(&victim);
    let [mut other1, mut other2] = gateway.both();
    assert_eq!((h1.get("/v2/").status, h2.get("/v2/").status), (200, 200));
    assert_eq!((other1.get("/v2/").status, other2.get("/v2/").status), (200, 200));
    upstream.take();
    revoke(&gateway, &victim);
    assert!(h1.is_closed_within(Duration::from_secs(2)), "the HTTP/1.1 connection stays");
    assert!(h2.ended_within(Duration::from_secs(2)).is_some(), "the HTTP/2 connection stays");
    assert!(h2.request("GET", "/v2/", &[], b"").is_err());
    upstream.assert_untouched("a revoked client");
    assert_eq!((other1.get("/v2/").status, other2.get("/v2/").status), (200, 200), "the same connections of others");
    gateway.wait_for_metric("portcullis_connections_ended_total", &[("reason", "revoked")], |n| n >= 2.0);
    let shown = s_client(&gateway, Some(&victim), &[]);
    assert_eq!(alert(&shown), Some(44), "{}", shown.all());
}

#[test]
fn a_download_in_flight_is_cut() {
    let (upstream, gateway, victim) = start();
    upstream.answer(|_| Answer::new(200).pattern(0, 1 << 30).slowly(64 * 1024, Duration::from_millis(20)));
    let mut client = gateway.h1_as(&victim);
    client.send_request("GET", &format!("/v2/a/blobs/{}", crate::DIGEST), &[], b"").expect("sent");
    assert_eq!(client.head().expect("a head").status, 200);
    let mut other = gateway.h2();
    let mut transfer = other.open("GET", &format!("/v2/a/blobs/{}", crate::DIGEST), &[], true).expect("a stream");
    assert_eq!(transfer.head().expect("a head").status, 200);
    revoke(&gateway, &victim);
    let start = Instant::now();
    assert!(client.is_closed_within(Duration::from_secs(3)), "the download goes on");
    assert!(start.elapsed() < Duration::from_secs(3));
    for _ in 0..5 {
        assert!(transfer.part().expect("the other's transfer goes on").is_some());
    }
    let record = gateway.wait_for_record(|r| r["outcome"] == "connection_revoked");
    assert_eq!((&record["end_reason"], &record["route"]), (&"revoked".into(), &"blob".into()), "{record}");
    assert!(record["bytes_out"].as_u64().is_some_and(|n| n > 0), "{record}");
}

#[test]
fn an_upload_in_flight_is_cut() {
    let (upstream, gateway, victim) = start();
    for h2 in [false, true] {
        let victim = if h2 { gateway.client("second") } else { victim.clone() };
        let target = "/v2/a/blobs/uploads/1?_state=x";
        let head = [("content-length", "10000000")];
        let mut one = None;
        let mut two = None;
        if h2 {
            let mut client = gateway.h2_as(&victim);
            let mut upload = client.open("PATCH", target, &head, false).expect("a stream");
            upload.send(vec![1_u8; 1000].into(), false).expect("sent");
            two = Some((client, upload));
        } else {
            let mut client = gateway.h1_as(&victim);
            client.send_request("PATCH", target, &head, &[1_u8; 1000]).expect("sent");
            one = Some(client);
        }
        let end = Instant::now() + Duration::from_secs(5);
        while upstream.body_bytes() < 1000 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let list = gateway.client_ca.crl().number(2 + u64::from(h2)).revoke(&victim.certificate).pem();
        gateway.write("ca.crl", list);
        gateway.reload_ok();
        if let Some(mut client) = one {
            assert!(client.is_closed_within(Duration::from_secs(2)), "the upload stays open");
        }
        if let Some((client, _upload)) = two {
            assert!(client.ended_within(Duration::from_secs(2)).is_some(), "the upload stays open");
        }
        let seen = upstream.wait_for(|r| r.method == "PATCH");
        assert!(!seen.complete, "the upstream must not take a cut upload for a whole one");
        gateway.wait_for_record(|r| r["outcome"] == "connection_revoked" && r["route"] == "upload");
        upstream.take();
    }
}

#[test]
fn bad_lists_replace_nothing_and_forget_nothing() {
    let (_upstream, gateway, victim) = start();
    revoke(&gateway, &victim);
    let ca = &gateway.client_ca;
    let good = ca.crl().number(3).pem();
    let foreign = Ca::root(&gateway.path().join("pki"), "Test Client CA").crl().number(9).pem();
    let mut altered = good.clone().into_bytes();
    let middle = altered.len() / 2;
    altered[middle] = if altered[middle] == b'A' { b'B' } else { b'A' };
    let bad: [(&str, Vec<u8>); 8] = [
        ("empty", Vec::new()),
        ("truncated", good.as_bytes()[..good.len() / 2].to_vec()),
        ("garbage", b"-----BEGIN X509 CRL-----\n!!\n-----END X509 CRL-----\n".to_vec()),
        ("binary", vec![0x30, 0x82, 0xff, 0xff, 0x00]),
        ("altered", altered),
        ("signed by another key", foreign.into_bytes()),
        ("an older number", ca.crl().number(1).pem().into_bytes()),
        ("a certificate", ca.pem().into_bytes()),
    ];
    for (what, bytes) in bad {
        gateway.write("ca.crl", bytes);
        gateway.reload();
        assert!(!is_served(&gateway, &victim), "{what}: the revoked client is served");
        assert!(is_served(&gateway, gateway.identity()), "{what}: a good client is refused");
        gateway.wait_for_metric("portcullis_crl_failed", &[], |n| n >= 1.0);
    }
    std::fs::remove_file(gateway.path().join("ca.crl")).expect("the file is there");
    gateway.reload();
    assert!(!is_served(&gateway, &victim), "deleted: the revoked client is served");
    assert!(is_served(&gateway, gateway.identity()), "deleted: a good client is refused");
    // A newer good list sets everything right, without a restart.
    gateway.write("ca.crl", good);
    gateway.reload_ok();
    assert!(is_served(&gateway, &victim), "no longer revoked by the newer list");
    gateway.wait_for_metric("portcullis_crl_failed", &[], |n| n == 0.0);
}

#[test]
fn a_bad_list_does_not_hold_up_a_policy_change() {
    let (_upstream, gateway, _victim) = start();
    gateway.write("ca.crl", "");
    gateway.write("policy.yaml", "rules: []\n");
    gateway.reload();
    gateway.h1().get("/v2/a/manifests/v1").assert_refusal(403, "DENIED");
}

fn with_list(change: impl FnOnce(&Ca) -> String, freshness: &str) -> Gateway {
    let upstream = Upstream::start();
    let builder: Builder = gateway().upstream(upstream.url());
    let list = change(&builder.client_ca);
    let gateway = builder.crl(&list).configure(|c| c["revocation"]["freshness"] = freshness.into()).start();
    // The upstream must live as long as the gateway is asked.
    std::mem::forget(upstream);
    gateway
}

#[test]
fn a_list_that_has_run_out_refuses_unless_freshness_is_optional() {
    let old = |ca: &Ca| ca.crl().last_update("20200101000000Z").next_update("20200201000000Z").pem();
    let gateway = with_list(old, "required");
    assert!(!is_served(&gateway, gateway.identity()));
    gateway.wait_for_metric("portcullis_handshakes_total", &[("result", "revocation_unknown")], |n| n >= 1.0);
    gateway.write("ca.crl", gateway.client_ca.crl().number(2).pem());
    gateway.reload_ok();
    assert!(is_served(&gateway, gateway.identity()), "recovers without a restart");
    let gateway = with_list(old, "optional");
    assert!(is_served(&gateway, gateway.identity()));
}

#[test]
fn an_issuer_without_a_list_is_refused_unless_freshness_is_optional() {
    for (freshness, served) in [("required", false), ("optional", true)] {
        let upstream = Upstream::start();
        let builder = gateway().upstream(upstream.url());
        let other = Ca::root(&builder.pki(), "Other CA");
        let bundle = builder.client_ca.pem() + &other.pem();
        let list = other.crl().pem();
        let gateway = builder
            .file("client-ca.pem", &bundle)
            .crl(&list)
            .configure(|c| c["revocation"]["freshness"] = freshness.into())
            .start();
        assert_eq!(is_served(&gateway, gateway.identity()), served, "{freshness}");
        assert!(is_served(&gateway, &other.issue(&pki::client("x"))), "the issuer with a list");
    }
}

#[test]
fn a_revoked_intermediate_takes_its_clients_along() {
    for (check, served) in [("chain", false), ("leaf", true)] {
        let upstream = Upstream::start();
        let builder = gateway().upstream(upstream.url());
        let middle = builder.client_ca.intermediate("Middle", &[]);
        let client = middle.issue(&pki::client("ci-9"));
        let bundle = builder.client_ca.pem() + &middle.pem();
        let lists = builder.client_ca.crl().revoke(&middle.certificate).pem() + &middle.crl().pem();
        let gateway = builder
            .file("client-ca.pem", &bundle)
            .crl(&lists)
            .configure(|c| c["revocation"]["check"] = check.into())
            .start();
        assert_eq!(is_served(&gateway, &client), served, "{check}");
        assert!(is_served(&gateway, gateway.identity()));
    }
}

#[test]
fn a_client_is_judged_by_the_path_that_it_shows_not_by_one_it_is_known_by() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let middle = builder.client_ca.intermediate("Middle", &[]);
    let by_the_first = middle.issue(&pki::client("ci-9"));
    // The same name and key, certified once more.
    let [request, renewed] = ["renewed.csr", "renewed.pem"].map(|name| builder.path().join(name));
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let [old, own_key, request, new] = [&middle.certificate, &middle.key, &request, &renewed].map(|path| text(path));
    let [ca, key] = [&builder.client_ca.certificate, &builder.client_ca.key].map(|path| text(path));
    let copied = ["-copy_extensions", "copyall"];
    openssl(&[&["x509", "-x509toreq", "-in", &old, "-signkey", &own_key, "-out", &request], &copied[..]].concat());
    let signed = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &key, "-set_serial", "0x5eed", "-out", &new];
    openssl(&[&signed[..], &copied[..]].concat());
    let read = |path: &Path| std::fs::read_to_string(path).expect("readable");
    let chain = builder.path().join("by-renewed.pem");
    std::fs::write(&chain, read(&by_the_first.certificate) + &read(&renewed)).expect("writable");
    let by_the_renewed = Identity { chain, intermediates: Some(renewed), ..by_the_first.clone() };
    // Of the intermediate itself there is no list: it comes from the client, and in the bundle it would be the only one.
    let list = builder.client_ca.crl().serial("5eed").pem();
    let gateway = builder.crl(&list).configure(|c| c["revocation"]["freshness"] = "optional".into()).start();
    const CERTIFICATE_REVOKED: u16 = 44;
    for _ in 0..2 {
        assert!(is_served(&gateway, &by_the_first));
        assert_eq!(alert(&s_client(&gateway, Some(&by_the_renewed), &[])), Some(CERTIFICATE_REVOKED));
    }
}

#[test]
fn the_same_serial_of_another_issuer_is_not_revoked() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    // Same name, other key: only the key tells the issuers apart.
    let twin = Ca::root(&builder.pki(), "Test Client CA");
    let revoked = builder.client_ca.issue(&pki::client("a").serial("0123456789"));
    let good = twin.issue(&pki::client("b").serial("0123456789"));
    let bundle = builder.client_ca.pem() + &twin.pem();
    let lists = builder.client_ca.crl().serial("0123456789").pem() + &twin.crl().pem();
    let gateway = builder.file("client-ca.pem", &bundle).crl(&lists).start();
    assert!(!is_served(&gateway, &revoked));
    assert!(is_served(&gateway, &good));
}

#[test]
fn a_directory_of_lists_is_read_whole() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let directory = builder.path().join("crls");
    std::fs::create_dir(&directory).expect("writable");
    let victim = builder.client_ca.issue(&pki::client("victim"));
    std::fs::write(directory.join("ca.crl"), builder.client_ca.crl().pem()).expect("writable");
    let gateway = builder.configure(|c| c["revocation"]["crls"] = json!([{ "directory": "crls/" }])).start();
    assert!(is_served(&gateway, &victim));
    let newer = gateway.client_ca.crl().number(2).revoke(&victim.certificate).pem();
    std::fs::write(directory.join("newer.crl"), newer).expect("writable");
    gateway.reload_ok();
    assert!(!is_served(&gateway, &victim));
    assert!(is_served(&gateway, gateway.identity()));
}

#[test]
fn a_long_list_is_loaded_while_others_are_served() {
    let (_upstream, gateway, victim) = start();
    let mut crl = gateway.client_ca.crl().number(2).revoke(&victim.certificate);
    for serial in 0..50_000 {
        crl = crl.serial(&format!("{:012X}", serial * 7 + 1));
    }
    gateway.write("ca.crl", crl.pem());
    let mut other = gateway.h1();
    let slowest = std::thread::scope(|scope| {
        let reload = scope.spawn(|| gateway.reload_ok());
        let mut slowest = Duration::ZERO;
        while !reload.is_finished() {
            let start = Instant::now();
            assert_eq!(other.get("/v2/").status, 200);
            slowest = slowest.max(start.elapsed());
        }
        slowest
    });
    assert!(slowest < Duration::from_secs(1), "a request took {slowest:?}");
    assert!(!is_served(&gateway, &victim));
    gateway.wait_for_metric("portcullis_crl_entries", &[], |n| n > 50_000.0);
}
