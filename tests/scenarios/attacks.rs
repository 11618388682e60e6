//! Attacks: each runs on several connections while somebody else works, and each has its name in the metrics.
//!
//! What is asserted is what an operator needs: others are answered within three seconds, the attacker's connections end
//! for the reason expected, and the memory of the gateway stays bounded. The figures are printed.

#![expect(clippy::print_stdout, reason = "the figures are what these tests are for")]

mod bodies;
mod connections;
mod frames;
mod heads;
mod records;
mod windows;

use crate::support::client::H1;
use crate::support::gateway::{Gateway, gateway};
use crate::support::h2client::H2;
use crate::support::pki::Identity;
use crate::support::tls::{PATIENCE, Tls};
use crate::support::upstream::{Answer, Upstream};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PULL: &str = "/v2/a/manifests/v1";

/// What every answer but a blob's is done within, whatever else goes on.
const SERVED: Duration = Duration::from_secs(3);

/// Connections that attack at a time.
const ATTACKERS: usize = 4;

/// What an attack may make the gateway's memory grow by: mostly buffers that are kept for reuse.
const MEMORY_MIB: u64 = 64;

/// An attack ends by itself after this.
const MOST: Duration = Duration::from_secs(8);

/// The size of a blob, more than all buffers on its way.
const BLOB: u64 = 256 << 20;

struct Arena {
    upstream: Upstream,
    gateway: Gateway,
    bystander: Identity,
}

/// A gateway with these limits; the upstream has small manifests and large blobs.
fn arena(limits: &Value) -> Arena {
    let upstream = Upstream::start();
    upstream.answer(|request| match request.line().contains("/blobs/") && request.method == "GET" {
        true => Answer::new(200).pattern(0, BLOB),
        false => Answer::new(200).body(b"{}"),
    });
    let gateway = gateway()
        .upstream(upstream.url())
        .configure(|c| {
            for (key, value) in limits.as_object().expect("keys") {
                c["limits"][key] = value.clone();
            }
        })
        .start();
    let bystander = gateway.client("bystander");
    Arena { upstream, gateway, bystander }
}

/// How the attackers' connections are to end: a metric, its labels, and at least how often.
type Ends<'a> = (&'a str, &'a [(&'a str, &'a str)], usize);

impl Arena {
    /// How the bystander connects: from an address of its own, since some limits are by address.
    fn bystander(&self) -> Tls {
        self.gateway.tls_as(&self.bystander).from(Ipv4Addr::new(127, 0, 0, 2))
    }

    /// Runs `attack` on [`ATTACKERS`] threads beside the bystander, and judges.
    fn withstands(&self, name: &str, ends: Ends<'_>, attack: impl Fn(&Gateway) + Sync) {
        let (metric, labels, least) = ends;
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let least = least as f64;
        self.runs_beside(name, attack, || self.gateway.wait_for_metric(metric, labels, |n| n >= least));
    }

    /// The same when each attacker's connection may end for any of these reasons, whichever comes first.
    fn ends_all(&self, name: &str, reasons: &[&'static str], attack: impl Fn(&Gateway) + Sync) {
        self.runs_beside(name, attack, || {
            let end = Instant::now() + PATIENCE;
            loop {
                let counts = reasons.iter().filter_map(|reason| self.gateway.metric(ENDED, &ended(reason)));
                if counts.sum::<f64>() > ATTACKERS as f64 - 0.5 {
                    return;
                }
                assert!(Instant::now() < end, "{name}: not for {reasons:?}\n{}", self.gateway.metrics());
                thread::sleep(Duration::from_millis(20));
            }
        });
    }

    fn runs_beside(&self, name: &str, attack: impl Fn(&Gateway) + Sync, wait_for_ends: impl Fn()) {
        let mut latencies = vec![self.ask(&mut None)];
        let before = self.gateway.rss_kib();
        self.gateway.reset_peak();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let bystander = scope.spawn(|| self.work_beside(&over));
            let end = SetOnDrop(&over);
            let attackers: Vec<_> = (0..ATTACKERS).map(|_| scope.spawn(|| attack(&self.gateway))).collect();
            for attacker in attackers {
                attacker.join().unwrap_or_else(|_| panic!("{name}: an attacker failed"));
            }
            wait_for_ends();
            drop(end);
            latencies.extend(bystander.join().unwrap_or_else(|_| panic!("{name}: the bystander was not served")));
        });
        let peak = self.gateway.peak_kib();
        latencies.sort_unstable();
        let (median, worst) = (latencies[latencies.len() / 2], latencies[latencies.len() - 1]);
        println!(
            "{name}: {} requests beside it, median {median:?}, slowest {worst:?}; memory {} MiB before, {} MiB at most",
            latencies.len(),
            before / 1024,
            peak / 1024
        );
        assert!(worst < SERVED, "{name}: the slowest of {} requests took {worst:?}", latencies.len());
        assert!(peak < before + MEMORY_MIB * 1024, "{name}: memory grew from {before} to {peak} KiB");
    }

    /// A request every tenth of a second until the attack is over: most on one connection, some on new ones.
    fn work_beside(&self, over: &AtomicBool) -> Vec<Duration> {
        let mut kept = None;
        let mut latencies = Vec::new();
        while !over.load(Ordering::Relaxed) || latencies.len() < 5 {
            if latencies.len() % 5 == 4 {
                let start = Instant::now();
                let mut h2 = H2::connect(&self.bystander()).unwrap_or_else(|e| panic!("the bystander: {e}"));
                assert_eq!(h2.get(PULL).status, 200);
                latencies.push(start.elapsed());
            } else {
                latencies.push(self.ask(&mut kept));
            }
            thread::sleep(Duration::from_millis(100));
        }
        latencies
    }

    fn ask(&self, kept: &mut Option<H1>) -> Duration {
        let start = Instant::now();
        let connect = || H1::connect(&self.bystander()).unwrap_or_else(|e| panic!("the bystander: {e}"));
        let used = kept.take();
        let again = used.is_some();
        let mut client = used.unwrap_or_else(connect);
        let reply = client.request("GET", PULL, &[], b"").or_else(|e| {
            // A kept connection may have been closed for being idle, as any client has to expect.
            assert!(again, "the bystander: {e}");
            client = connect();
            client.request("GET", PULL, &[], b"")
        });
        let reply = reply.unwrap_or_else(|e| panic!("the bystander: {e}"));
        assert_eq!(reply.status, 200);
        let took = start.elapsed();
        if reply.header("connection") != Some("close") {
            *kept = Some(client);
        }
        took
    }
}

/// Tells the bystander that it is over, also when a check has failed.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Calls `step` until it says that the connection has ended, or for [`MOST`].
fn until_ended(mut step: impl FnMut() -> bool) {
    let end = Instant::now() + MOST;
    while Instant::now() < end && step() {}
}

/// `ended` connections for `reason`, one for each attacker.
fn ended(reason: &'static str) -> [(&'static str, &'static str); 1] {
    [("reason", reason)]
}

const ENDED: &str = "portcullis_connections_ended_total";
const HANDSHAKES: &str = "portcullis_handshakes_total";
const REQUESTS: &str = "portcullis_requests_total";

type Field<'a> = (&'a [u8], &'a [u8]);

/// The head of an HTTP/2 request.
fn head<'a>(method: &'a [u8], path: &'a [u8]) -> [Field<'a>; 4] {
    [(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", b"gw.test")]
}

const BLOB_PATH: &str = "/v2/a/blobs/sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const UPLOAD: &str = "/v2/a/blobs/uploads/1?_state=x";
