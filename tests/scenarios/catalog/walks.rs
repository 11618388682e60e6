//! The work that a client can make the gateway do at a registry: no more walks through it than a few at a time, and none
//! for nobody.

use super::{builder, names};
use crate::support::upstream::{Answer, Upstream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A registry that answers for its catalog when it is told to.
struct Held {
    upstream: Upstream,
    asked: Arc<AtomicUsize>,
    open: Arc<AtomicBool>,
}

impl Held {
    fn start() -> Self {
        let (asked, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let upstream = Upstream::start();
        let (count, gate) = (Arc::clone(&asked), Arc::clone(&open));
        upstream.answer(move |_| {
            let page = count.fetch_add(1, Ordering::SeqCst);
            while !gate.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(2));
            }
            let link = format!("</v2/_catalog?last=x-{page}>; rel=\"next\"");
            let answer = Answer::new(200).body(br#"{"repositories":["team/app"]}"#);
            if page < 8 { answer.header("Link", &link) } else { answer }
        });
        Held { upstream, asked, open }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    #[track_caller]
    fn wait_for(&self, asked: usize) {
        let end = Instant::now() + Duration::from_secs(9);
        while self.asked() < asked {
            assert!(Instant::now() < end, "asked {} times", self.asked());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_client_walks_the_catalog_twice_at_a_time() {
    let registry = Held::start();
    let gateway = builder(&registry.upstream).start();
    let mut client = gateway.h2();
    let walks = [(); 2].map(|()| client.open("GET", "/v2/_catalog", &[], true).expect("a stream"));
    registry.wait_for(2);
    for mut more in gateway.both() {
        let reply = more.get("/v2/_catalog");
        reply.assert_refusal(429, "TOOMANYREQUESTS");
        assert_eq!(reply.header("retry-after"), Some("1"), "{reply:?}");
        assert_eq!(more.request("HEAD", "/v2/_catalog", &[], b"").status, 405, "the connection goes on");
    }
    assert_eq!(registry.asked(), 2);
    // Nobody waits for somebody else.
    let mut other = gateway.h2_as(&gateway.client("other"));
    let others = other.open("GET", "/v2/_catalog", &[], true).expect("a stream");
    registry.wait_for(3);
    registry.open.store(true, Ordering::SeqCst);
    for walk in walks.into_iter().chain([others]) {
        assert!(!names(&walk.reply().expect("an answer")).is_empty());
    }
    assert!(!names(&client.get("/v2/_catalog")).is_empty(), "there is room again");
    let record = gateway.wait_for_record(|r| r["status"] == 429);
    assert_eq!(record["outcome"], "limited", "{record}");
}

#[test]
fn nothing_is_asked_for_a_client_that_has_gone() {
    for version in ["HTTP/1.1", "HTTP/2"] {
        let registry = Held::start();
        let gateway = builder(&registry.upstream).start();
        let mut h2 = gateway.h2();
        let gone = || gateway.records().iter().filter(|record| record["outcome"] == "client_aborted").count();
        // More than there may be at a time: each gives up its place, while the registry is silent.
        for walk in 1..=4 {
            if version == "HTTP/2" {
                let mut exchange = h2.open("GET", "/v2/_catalog", &[], true).expect("a stream");
                registry.wait_for(walk);
                exchange.reset();
            } else {
                let mut h1 = gateway.h1();
                h1.send_request("GET", "/v2/_catalog", &[], b"").expect("open");
                registry.wait_for(walk);
            }
            let end = Instant::now() + Duration::from_secs(8);
            while gone() < walk {
                assert!(Instant::now() < end, "{version}: {:?}", gateway.records());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert_eq!(registry.asked(), 4, "{version}");
        registry.open.store(true, Ordering::SeqCst);
        assert!(!names(&h2.get("/v2/_catalog")).is_empty(), "{version}: the connection goes on");
    }
}
