//! Lists about a part of a CA's certificates, and deltas, taken in by a gateway that serves.

use crate::support::client::H1;
use crate::support::crl::Crl;
use crate::support::gateway::{Builder, Client, Gateway, gateway};
use crate::support::pki::{self, Identity};
use crate::support::upstream::{Answer, Upstream};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// How long an ending connection may take: much longer than it does, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(10);

const POINTS: [&str; 2] = ["http://pki.test/part-0.crl", "http://pki.test/part-1.crl"];

/// A gateway that reads these files, and an upstream whose blobs take minutes.
fn start(builder: Builder, lists: &[(&str, String)]) -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    upstream.answer(|request| match request.target.contains("/blobs/") {
        true => Answer::new(200).pattern(0, 1 << 30).slowly(16 * 1024, Duration::from_millis(20)),
        false => Answer::new(200).header("Content-Type", "application/json").body(b"{}"),
    });
    let sources: Vec<_> = lists.iter().map(|(name, _)| json!({ "file": name })).collect();
    let builder = lists.iter().fold(builder.upstream(upstream.url()), |builder, (name, list)| builder.file(name, list));
    let gateway = builder
        .configure(|c| {
            c["revocation"]["crls"] = json!(sources);
            c["reload"] = json!({ "watch": true });
        })
        .start();
    (upstream, gateway)
}

/// Waits until a metric of one source has a value.
#[track_caller]
fn wait_for_source(gateway: &Gateway, file: &str, metric: &str, wanted: impl Fn(f64) -> bool) {
    let source = gateway.path().join(file);
    gateway.wait_for_metric(metric, &[("source", &source.to_string_lossy())], wanted);
}

fn is_served(gateway: &Gateway, identity: &Identity) -> bool {
    H1::connect(&gateway.tls_as(identity))
        .map_err(std::io::Error::other)
        .and_then(|mut client| client.request("GET", "/v2/", &[], b""))
        .is_ok_and(|reply| reply.status == 200)
}

/// Idle connections of a client in both versions, and a download under way.
struct Busy {
    idle: [Client; 2],
    loading: H1,
}

impl Busy {
    fn begin(gateway: &Gateway, identity: &Identity) -> Self {
        let mut idle = gateway.both_as(identity);
        for client in &mut idle {
            assert_eq!(client.get("/v2/").status, 200, "{}", client.version());
        }
        let mut loading = gateway.h1_as(identity);
        loading.send_request("GET", &format!("/v2/a/blobs/{}", crate::DIGEST), &[], b"").expect("sent");
        assert_eq!(loading.head().expect("a head").status, 200);
        Self { idle, loading }
    }

    #[track_caller]
    fn goes_on(&mut self) {
        for client in &mut self.idle {
            assert_eq!(client.get("/v2/").status, 200, "{} goes on", client.version());
        }
        assert!(!self.loading.is_closed_within(Duration::from_millis(200)), "the download goes on");
    }

    #[track_caller]
    fn has_ended(mut self) {
        assert!(self.loading.is_closed_within(SOON), "the download goes on");
        for client in self.idle {
            let version = client.version();
            assert!(client.has_ended_within(SOON), "{version} goes on");
        }
    }
}

/// The list of one of the points.
fn part(ca: &pki::Ca, point: usize, number: u64) -> Crl<'_> {
    ca.crl().number(number).only_at(POINTS[point])
}

fn serial_of(certificate: &Path) -> String {
    let answer = pki::openssl(&["x509", "-in", &certificate.to_string_lossy(), "-noout", "-serial"]);
    answer.trim().trim_start_matches("serial=").to_owned()
}

#[test]
fn a_list_vouches_for_its_part_and_revokes_beyond_it() {
    let builder = gateway();
    let clients = POINTS.map(|point| {
        let profile = pki::client("partial").extension(&format!("crlDistributionPoints=URI:{point}"));
        builder.client_ca.issue(&profile)
    });
    let first = part(&builder.client_ca, 0, 1).pem();
    // A file that holds nothing yet: its part is vouched for by nobody.
    let (_upstream, gateway) = start(builder, &[("part-0.crl", first), ("part-1.crl", String::new())]);
    let [zero, one] = &clients;
    assert!(is_served(&gateway, zero));
    assert!(!is_served(&gateway, one), "a list of another part vouched for it");
    assert!(!is_served(&gateway, gateway.identity()), "no part has a client without a distribution point");

    gateway.write("part-1.crl", part(&gateway.client_ca, 1, 1).pem());
    wait_for_source(&gateway, "part-1.crl", "portcullis_crl_failed", |n| n == 0.0);
    assert!(is_served(&gateway, one), "its part has a list now");

    let mut stays = Busy::begin(&gateway, zero);
    let goes = Busy::begin(&gateway, one);
    gateway.write("part-1.crl", part(&gateway.client_ca, 1, 2).revoke(&one.certificate).pem());
    goes.has_ended();
    assert!(!is_served(&gateway, one));
    stays.goes_on();

    // Of the same CA, about the other part: what it names is revoked all the same.
    gateway.write(
        "part-1.crl",
        part(&gateway.client_ca, 1, 3).revoke(&one.certificate).serial(&serial_of(&zero.certificate)).pem(),
    );
    stays.has_ended();
    assert!(!is_served(&gateway, zero));
}

#[test]
fn a_delta_revokes_and_takes_back_on_its_base() {
    let builder = gateway();
    let [held, victim, stays] = ["held", "victim", "stays"].map(|name| builder.client_ca.issue(&pki::client(name)));
    let base = builder.client_ca.crl().number(1).revoke_for(&held.certificate, "certificateHold").pem();
    let delta = builder.client_ca.crl().number(2).delta_to(1).pem();
    let (_upstream, gateway) = start(builder, &[("base.crl", base), ("delta.crl", delta)]);
    assert!(!is_served(&gateway, &held));

    let mut stays = Busy::begin(&gateway, &stays);
    let goes = Busy::begin(&gateway, &victim);
    gateway.write("delta.crl", gateway.client_ca.crl().number(3).delta_to(1).revoke(&victim.certificate).pem());
    goes.has_ended();
    assert!(!is_served(&gateway, &victim));
    assert!(!is_served(&gateway, &held), "the base holds it still");
    stays.goes_on();

    let list = gateway.client_ca.crl().number(4).delta_to(1).revoke(&victim.certificate);
    gateway.write("delta.crl", list.revoke_for(&held.certificate, "removeFromCRL").pem());
    wait_for_source(&gateway, "delta.crl", "portcullis_crl_number", |n| n > 3.5);
    assert!(is_served(&gateway, &held), "the delta has released it");
    assert!(!is_served(&gateway, &victim));
    stays.goes_on();
}

#[test]
fn a_delta_alone_vouches_for_nobody_and_revokes() {
    let builder = gateway();
    let delta = builder.client_ca.crl().number(2).delta_to(1).pem();
    let (_upstream, gateway) = start(builder, &[("base.crl", String::new()), ("delta.crl", delta)]);
    assert!(!is_served(&gateway, gateway.identity()), "a delta passed for a list");
    gateway.write("base.crl", gateway.client_ca.crl().number(1).pem());
    wait_for_source(&gateway, "base.crl", "portcullis_crl_failed", |n| n == 0.0);
    assert!(is_served(&gateway, gateway.identity()));
}
