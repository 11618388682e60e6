//! Resumed sessions: as good as the trust they came from, and no longer.

use super::tls_faults::{alert, s_client};
use crate::support::gateway::{Gateway, gateway};
use crate::support::pki::{self, Ca, Identity};
use crate::support::process;
use crate::support::upstream::Upstream;
use std::time::Duration;

/// Connects once and keeps the session in a file.
fn keep(gateway: &Gateway, identity: &Identity, version: &str) -> String {
    let file = gateway.path().join("session").to_string_lossy().into_owned();
    let shown = s_client(gateway, Some(identity), &[version, "-sess_out", &file]);
    assert!(shown.text().contains("HTTP/1.1 200"), "{}", shown.all());
    file
}

fn resume(gateway: &Gateway, identity: &Identity, version: &str, file: &str) -> process::Finished {
    s_client(gateway, Some(identity), &[version, "-sess_in", file])
}

fn start() -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let list = builder.client_ca.crl().pem();
    let gateway = builder.crl(&list).start();
    (upstream, gateway)
}

#[test]
fn a_session_is_resumed_while_nothing_changes() {
    let (_upstream, gateway) = start();
    for version in ["-tls1_3", "-tls1_2"] {
        let file = keep(&gateway, gateway.identity(), version);
        let shown = resume(&gateway, gateway.identity(), version, &file).text();
        assert!(shown.contains("Reused, TLSv1"), "{version}: {shown}");
        assert!(shown.contains("HTTP/1.1 200"), "{version}: {shown}");
    }
    gateway.wait_for_metric("portcullis_handshakes_total", &[("result", "resumed")], |n| n >= 2.0);
    // A resumed client is known by the same identity.
    let record = gateway.wait_for_record(|r| r["route"] == "manifest");
    let same = gateway.records().iter().all(|r| r["identity"] == record["identity"] && r["serial"] == record["serial"]);
    assert!(same, "{:#?}", gateway.records());
}

#[test]
fn a_list_with_a_newer_date_only_leaves_sessions_alone() {
    let (_upstream, gateway) = start();
    let file = keep(&gateway, gateway.identity(), "-tls1_3");
    gateway.write("ca.crl", gateway.client_ca.crl().number(2).next_update("20900101000000Z").pem());
    gateway.reload_ok();
    let shown = resume(&gateway, gateway.identity(), "-tls1_3", &file).text();
    assert!(shown.contains("Reused, TLSv1"), "{shown}");
}

#[test]
fn resumed_session_of_revoked_client_is_refused() {
    for version in ["-tls1_3", "-tls1_2"] {
        let (upstream, gateway) = start();
        let file = keep(&gateway, gateway.identity(), version);
        upstream.take();
        let list = gateway.client_ca.crl().number(2).revoke(&gateway.identity().certificate).pem();
        gateway.write("ca.crl", list);
        gateway.reload_ok();
        let shown = resume(&gateway, gateway.identity(), version, &file);
        assert_eq!(alert(&shown), Some(44), "{version}: {}", shown.all());
        upstream.assert_untouched("a resumed session of a revoked client");
    }
}

#[test]
fn resumed_session_of_a_removed_ca_is_refused() {
    for version in ["-tls1_3", "-tls1_2"] {
        let upstream = Upstream::start();
        let gateway = gateway().upstream(upstream.url()).start();
        let file = keep(&gateway, gateway.identity(), version);
        upstream.take();
        let other = Ca::root(&gateway.path().join("pki"), "Another CA");
        gateway.write("client-ca.pem", other.pem());
        gateway.reload_ok();
        let shown = resume(&gateway, gateway.identity(), version, &file);
        assert_eq!(alert(&shown), Some(48), "{version}: {}", shown.all());
        upstream.assert_untouched("a resumed session of a removed CA");
    }
}

#[test]
fn resumed_session_of_an_expired_certificate_is_refused() {
    let (upstream, gateway) = start();
    let time = |offset: &str| {
        let arguments = ["-u", "-d", offset, "+%Y%m%d%H%M%SZ"];
        process::run("date", &arguments, b"", Duration::from_secs(5)).expect_success("date").text().trim().to_owned()
    };
    let profile = pki::client("short-lived").valid(&time("1 hour ago"), &time("6 seconds"));
    let identity = gateway.client_ca.issue(&profile);
    let issued = std::time::Instant::now();
    let sessions = ["-tls1_3", "-tls1_2"].map(|version| {
        let file = keep(&gateway, &identity, version);
        let kept = format!("{file}{version}");
        std::fs::rename(file, &kept).expect("it was kept");
        (version, kept)
    });
    upstream.take();
    std::thread::sleep(Duration::from_millis(7_200).saturating_sub(issued.elapsed()));
    for (version, file) in sessions {
        let shown = resume(&gateway, &identity, version, &file);
        assert!(!shown.text().contains("HTTP/1.1 200"), "{version}: {}", shown.all());
    }
    upstream.assert_untouched("a resumed session of an expired certificate");
}

#[test]
fn resumed_session_of_a_revoked_intermediates_client_is_refused() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let middle = builder.client_ca.intermediate("Middle", &[]);
    let bundle = builder.client_ca.pem() + &middle.pem();
    let lists = builder.client_ca.crl().pem() + &middle.crl().pem();
    let gateway = builder.file("client-ca.pem", &bundle).crl(&lists).start();
    // The gateway has the intermediate itself, so the client needn't send it, and gets tickets.
    let mut identity = middle.issue(&pki::client("ci-9"));
    identity.intermediates = None;
    let sessions = ["-tls1_3", "-tls1_2"].map(|version| {
        let kept = format!("{}{version}", keep(&gateway, &identity, version));
        std::fs::rename(gateway.path().join("session"), &kept).expect("it was kept");
        let shown = resume(&gateway, &identity, version, &kept).text();
        assert!(shown.contains("Reused, TLSv1"), "{version}: {shown}");
        (version, kept)
    });
    upstream.take();
    let root = gateway.client_ca.crl().number(2).revoke(&middle.certificate).pem();
    gateway.write("ca.crl", root + &middle.crl().pem());
    gateway.reload_ok();
    for (version, file) in sessions {
        let shown = resume(&gateway, &identity, version, &file);
        assert_eq!(alert(&shown), Some(44), "{version}: {}", shown.all());
    }
    upstream.assert_untouched("a resumed session below a revoked intermediate");
}

#[test]
fn a_session_survives_only_with_tickets_allowed() {
    let upstream = Upstream::start();
    let gateway = gateway()
        .upstream(upstream.url())
        .configure(|c| c["listeners"][0]["tls"]["session_tickets"] = false.into())
        .start();
    for version in ["-tls1_3", "-tls1_2"] {
        let file = gateway.path().join("session").to_string_lossy().into_owned();
        s_client(&gateway, Some(gateway.identity()), &[version, "-sess_out", &file]);
        let shown = resume(&gateway, gateway.identity(), version, &file).text();
        assert!(!shown.contains("Reused"), "{version}: {shown}");
    }
}

#[test]
fn a_chain_with_an_intermediate_of_the_clients_own_gets_no_ticket() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let middle = builder.client_ca.intermediate("Middle", &[]);
    let identity = middle.issue(&pki::client("ci-9"));
    let gateway = builder.start();
    let file = gateway.path().join("session").to_string_lossy().into_owned();
    s_client(&gateway, Some(&identity), &["-tls1_3", "-sess_out", &file]);
    if std::fs::metadata(&file).is_ok_and(|found| found.len() > 0) {
        let shown = resume(&gateway, &identity, "-tls1_3", &file).text();
        assert!(!shown.contains("Reused"), "{shown}");
    }
}
