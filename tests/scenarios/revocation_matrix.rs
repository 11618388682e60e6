//! Every way to lose one's rights, against everything that a connection can be doing, over both versions of HTTP and TLS:
//! it ends, at once, and nobody else notices.

use super::revocation_live::time_in;
use super::tls_faults::s_client;
use crate::support::client::H1;
use crate::support::gateway::{Client, Gateway, gateway};
use crate::support::h2client::{Exchange, H2};
use crate::support::pki::{self, Ca, Identity};
use crate::support::tls::Tls;
use crate::support::upstream::{Answer, Upstream, pattern, pattern_sha256, sha256};
use std::time::{Duration, Instant};

const UPLOAD: &str = "/v2/a/blobs/uploads/1?_state=x";
const UPLOADED: u64 = 200_000;
/// A download goes at 2 MiB a second, and must still be under way when the moment comes.
const BRIEF: u64 = 8 << 20;
const LONG: u64 = 36 << 20;

/// What the victims are doing when they lose their rights, and what the others do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Downloading,
    Uploading,
}

const ALL: [Doing; 3] = [Doing::Nothing, Doing::Downloading, Doing::Uploading];

/// A connection in the middle of something.
struct Busy {
    what: String,
    doing: Doing,
    client: Client,
    /// The stream of an HTTP/2 connection.
    exchange: Option<Exchange>,
}

impl Busy {
    #[track_caller]
    fn start(tls: &Tls, h2: bool, doing: Doing) -> Self {
        let newest = if tls.newest.is_some() { "TLS 1.2" } else { "TLS 1.3" };
        let what = format!("{doing:?} over {} and {newest}", if h2 { "HTTP/2" } else { "HTTP/1.1" });
        let blob = format!("/v2/a/blobs/{}", crate::DIGEST);
        let length = [("content-length", "200000")];
        let first = pattern(0, 1000);
        let (client, exchange) = if h2 {
            let mut client = H2::connect(tls).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(client.get("/v2/").status, 200, "{what}");
            let exchange = match doing {
                Doing::Nothing => None,
                Doing::Downloading => {
                    let mut exchange = client.open("GET", &blob, &[], true).expect("a stream");
                    assert_eq!(exchange.head().expect("a head").status, 200, "{what}");
                    Some(exchange)
                }
                Doing::Uploading => {
                    let mut exchange = client.open("PATCH", UPLOAD, &length, false).expect("a stream");
                    exchange.send(first.into(), false).expect("sent");
                    Some(exchange)
                }
            };
            (Client::H2(client), exchange)
        } else {
            let mut client = H1::connect(tls).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(client.get("/v2/").status, 200, "{what}");
            match doing {
                Doing::Nothing => {}
                Doing::Downloading => {
                    client.send_request("GET", &blob, &[], b"").expect("sent");
                    assert_eq!(client.head().expect("a head").status, 200, "{what}");
                }
                Doing::Uploading => client.send_request("PATCH", UPLOAD, &length, &first).expect("sent"),
            }
            (Client::H1(client), None)
        };
        Self { what, doing, client, exchange }
    }

    /// The rest of a transfer, whole; or another request.
    #[track_caller]
    fn finish(mut self, downloaded: u64) {
        let what = &self.what;
        match (self.doing, &mut self.client, self.exchange.take()) {
            (Doing::Nothing, client, _) => assert_eq!(client.get("/v2/").status, 200, "{what}"),
            (Doing::Downloading, Client::H1(client), _) => {
                let mut body = Vec::new();
                let head = crate::support::reply::Reply {
                    status: 200,
                    headers: vec![("content-length".to_owned(), downloaded.to_string())],
                    body: Vec::new(),
                };
                client
                    .body(&head, "GET", |part| body.extend_from_slice(part))
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(sha256(&body), pattern_sha256(downloaded), "{what}");
            }
            (Doing::Downloading, _, Some(mut exchange)) => {
                let mut body = Vec::new();
                while let Some(part) = exchange.part().unwrap_or_else(|e| panic!("{what}: {e}")) {
                    body.extend_from_slice(&part);
                }
                assert_eq!(sha256(&body), pattern_sha256(downloaded), "{what}");
            }
            (Doing::Uploading, Client::H1(client), _) => {
                client.send(&pattern(1000, 199_000)).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(client.answer().unwrap_or_else(|e| panic!("{what}: {e}")).status, 202, "{what}");
            }
            (Doing::Uploading, _, Some(mut exchange)) => {
                exchange.send(pattern(1000, 199_000).into(), true).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(exchange.reply().unwrap_or_else(|e| panic!("{what}: {e}")).status, 202, "{what}");
            }
            (_, Client::H2(_), None) => panic!("{what}: a stream is missing"),
        }
    }
}

/// A gateway that trusts a root, an intermediate below it and another root, with an empty list of each.
struct Site {
    upstream: Upstream,
    gateway: Gateway,
    middle: Ca,
    other: Ca,
    downloaded: u64,
}

impl Site {
    fn start(downloaded: u64) -> Self {
        let upstream = Upstream::start();
        upstream.answer(move |request| match (request.method.as_str(), request.target.contains("/blobs/sha256")) {
            ("GET", true) => Answer::new(200).pattern(0, downloaded).slowly(32 * 1024, Duration::from_millis(15)),
            ("PATCH", _) => Answer::new(202),
            _ => Answer::new(200).header("Content-Type", "application/json").body(b"{}"),
        });
        let builder = gateway().upstream(upstream.url());
        let other = Ca::root(&builder.pki(), "Other CA");
        let middle = builder.client_ca.intermediate("Middle", &[]);
        let bundle = builder.client_ca.pem() + &middle.pem() + &other.pem();
        let lists = builder.client_ca.crl().pem() + &middle.crl().pem() + &other.crl().pem();
        let gateway = builder.file("client-ca.pem", &bundle).crl(&lists).start();
        Self { upstream, gateway, middle, other, downloaded }
    }

    /// Replaces all lists, with that of the root made by `change`.
    fn publish(&self, root: String) {
        self.gateway.write("ca.crl", root + &self.middle.crl().pem() + &self.other.crl().pem());
        self.gateway.reload_ok();
    }

    fn busy(&self, identity: &Identity) -> Vec<Busy> {
        let mut all = Vec::new();
        for tls in [self.gateway.tls_as(identity), self.gateway.tls_as(identity).tls12()] {
            for h2 in [false, true] {
                all.extend(ALL.iter().map(|doing| Busy::start(&tls, h2, *doing)));
            }
        }
        all
    }

    /// Takes `victim` its rights by `take`, and checks what becomes of its connections and of everybody else's.
    #[track_caller]
    fn check(&self, victim: &Identity, reason: &str, take: impl FnOnce(&Self)) {
        let others = self.busy(self.gateway.identity());
        let victims = self.busy(victim);
        let count = victims.len();
        wait_until("the uploads have begun", || self.upstream.body_bytes() >= 8 * 1000);
        take(self);
        let before = Instant::now();
        for Busy { what, client, exchange, .. } in victims {
            assert!(client.has_ended_within(Duration::from_secs(5)), "{reason}: it goes on: {what}");
            drop(exchange);
        }
        eprintln!("{reason}: {count} connections had ended {:?} after the publication was reported", before.elapsed());
        let ended = [("reason", reason)];
        self.gateway.wait_for_metric("portcullis_connections_ended_total", &ended, |n| n >= 12.0);
        for version in ["-tls1_2", "-tls1_3"] {
            let shown = s_client(&self.gateway, Some(victim), &[version]);
            assert!(!shown.text().contains("HTTP/1.1 200"), "{reason}: a new connection is served: {}", shown.all());
        }
        // Four uploads and four downloads each leave a record that says why they ended.
        wait_until("the records are written", || {
            let records = self.gateway.records();
            ["upload", "blob"].iter().all(|route| {
                let cut = |r: &&serde_json::Value| r["end_reason"] == reason && r["route"] == *route;
                records.iter().filter(cut).count() == 4
            })
        });
        std::thread::scope(|scope| {
            others.into_iter().for_each(|other| drop(scope.spawn(|| other.finish(self.downloaded))));
        });
        let uploads = self.upstream.requests().into_iter().filter(|request| request.method == "PATCH");
        let (whole, cut): (Vec<_>, Vec<_>) = uploads.partition(|request| request.complete);
        assert_eq!((whole.len(), cut.len()), (4, 4), "{reason}: uploads that were whole and cut at the registry");
        assert!(whole.iter().all(|upload| upload.body_length == UPLOADED), "{reason}");
        let refused = self.gateway.metric("portcullis_connections_ended_total", &ended);
        assert_eq!(refused, Some(12.0), "{reason}: nobody else's connection was ended");
    }
}

#[test]
fn a_revoked_certificate_ends_all_that_its_client_does() {
    let site = Site::start(BRIEF);
    let victim = site.gateway.client("victim");
    site.check(&victim, "revoked", |site| {
        site.publish(site.gateway.client_ca.crl().number(2).revoke(&victim.certificate).pem());
    });
}

#[test]
fn a_revoked_intermediate_ends_all_that_its_clients_do() {
    let site = Site::start(BRIEF);
    let victim = site.middle.issue(&pki::client("victim"));
    site.check(&victim, "revoked", |site| {
        site.publish(site.gateway.client_ca.crl().number(2).revoke(&site.middle.certificate).pem());
    });
}

#[test]
fn a_removed_ca_ends_all_that_its_clients_do() {
    let site = Site::start(BRIEF);
    let victim = site.other.issue(&pki::client("victim"));
    site.check(&victim, "untrusted", |site| {
        site.gateway.write("client-ca.pem", site.gateway.client_ca.pem() + &site.middle.pem());
        site.gateway.reload();
    });
}

#[test]
fn a_certificate_that_runs_out_ends_all_that_its_client_does() {
    /// Long enough to open all connections on a slow machine.
    const LIFE: Duration = Duration::from_secs(12);
    let site = Site::start(LONG);
    let end = Instant::now() + LIFE;
    let victim = site.gateway.client_ca.issue(&pki::client("victim").valid("20260101000000Z", &time_in(LIFE)));
    // Certificates hold until the end of their last second, and connections are looked through each second.
    site.check(&victim, "expired", |_| std::thread::sleep(end.saturating_duration_since(Instant::now())));
}

/// The best of several attempts: what a busy machine adds says nothing about the gateway.
#[test]
fn connections_end_within_100_ms_of_the_publication() {
    let site = Site::start(BRIEF);
    let mut revoked = site.gateway.client_ca.crl();
    let mut best = Duration::MAX;
    for number in 2..12 {
        let victim = site.gateway.client(&format!("victim-{number}"));
        let clients = site.gateway.both_as(&victim);
        let mut clients = clients.map(|mut client| {
            assert_eq!(client.get("/v2/").status, 200);
            client
        });
        revoked = revoked.number(number).revoke(&victim.certificate);
        let lists = revoked.clone().pem();
        site.publish(lists);
        let start = Instant::now();
        for client in &mut clients {
            match client {
                Client::H1(client) => assert!(client.is_closed_within(Duration::from_secs(5))),
                Client::H2(client) => assert!(client.ended_within(Duration::from_secs(5)).is_some()),
            }
        }
        best = best.min(start.elapsed());
        if best <= Duration::from_millis(100) {
            return;
        }
    }
    panic!("the quickest of ten ends took {best:?}");
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}
