//! The end of a gateway: what still counts while it drains, and how its operator can cut that short.

use super::revocation_live::time_in;
use crate::support::client::H1;
use crate::support::gateway::{Gateway, gateway};
use crate::support::h2client::{Exchange, H2};
use crate::support::pki::{self, Identity};
use crate::support::upstream::{Answer, Upstream};
use std::time::{Duration, Instant};

/// Far longer than any of these tests may take.
const GRACE: &str = "60s";

/// A gateway with an empty list in force, and an upstream whose blobs take minutes.
fn start() -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    upstream.answer(|request| match request.target.contains("/blobs/") {
        true => Answer::new(200).pattern(0, 1 << 30).slowly(16 * 1024, Duration::from_millis(20)),
        false => Answer::new(200).header("Content-Type", "application/json").body(b"{}"),
    });
    let builder = gateway().upstream(upstream.url());
    let list = builder.client_ca.crl().pem();
    let gateway = builder.crl(&list).configure(|c| c["drain"]["grace"] = GRACE.into()).start();
    (upstream, gateway)
}

/// A download under way on each version of HTTP.
struct Loading {
    h1: H1,
    h2: H2,
    transfer: Exchange,
}

impl Loading {
    #[track_caller]
    fn start(gateway: &Gateway, identity: &Identity) -> Self {
        let target = format!("/v2/a/blobs/{}", crate::DIGEST);
        let mut h1 = gateway.h1_as(identity);
        h1.send_request("GET", &target, &[], b"").expect("sent");
        assert_eq!(h1.head().expect("a head").status, 200);
        let mut h2 = gateway.h2_as(identity);
        let mut transfer = h2.open("GET", &target, &[], true).expect("a stream");
        assert_eq!(transfer.head().expect("a head").status, 200);
        Self { h1, h2, transfer }
    }

    #[track_caller]
    fn assert_goes_on(&mut self, why: &str) {
        assert!(!self.h1.is_closed_within(Duration::from_millis(200)), "{why}: the HTTP/1.1 download was cut");
        for _ in 0..3 {
            assert!(matches!(self.transfer.part(), Ok(Some(_))), "{why}: the HTTP/2 download was cut");
        }
    }

    #[track_caller]
    fn assert_ends(&mut self, why: &str) {
        assert!(self.h1.is_closed_within(Duration::from_secs(3)), "{why}: the HTTP/1.1 download goes on");
        assert!(self.h2.ended_within(Duration::from_secs(3)).is_some(), "{why}: the HTTP/2 download goes on");
    }
}

/// Tells the gateway to stop, and waits until it has noticed.
fn drain(gateway: &mut Gateway) {
    gateway.process().signal("TERM");
    gateway.wait_for_log("draining");
}

#[test]
fn a_revocation_counts_while_draining() {
    let (_upstream, mut gateway) = start();
    let (first, second) = (gateway.client("first"), gateway.client("second"));
    let mut by_request = Loading::start(&gateway, &first);
    let mut by_signal = Loading::start(&gateway, &second);
    let mut other = Loading::start(&gateway, gateway.identity());
    drain(&mut gateway);
    by_request.assert_goes_on("draining");
    gateway.write("ca.crl", gateway.client_ca.crl().number(2).revoke(&first.certificate).pem());
    gateway.reload_ok();
    by_request.assert_ends("revoked while draining");
    by_signal.assert_goes_on("another client is revoked");
    let list = gateway.client_ca.crl().number(3).revoke(&first.certificate).revoke(&second.certificate);
    gateway.write("ca.crl", list.pem());
    gateway.process().signal("HUP");
    by_signal.assert_ends("revoked while draining");
    other.assert_goes_on("other clients are revoked");
    gateway.wait_for_record(|r| r["outcome"] == "connection_revoked" && r["http_version"] == "HTTP/1.1");
    gateway.wait_for_record(|r| r["outcome"] == "connection_revoked" && r["http_version"] == "HTTP/2");
}

#[test]
fn a_changed_list_is_noticed_while_draining() {
    let upstream = Upstream::start();
    upstream.answer(|_| Answer::new(200).pattern(0, 1 << 30).slowly(16 * 1024, Duration::from_millis(20)));
    let builder = gateway().upstream(upstream.url());
    let list = builder.client_ca.crl().pem();
    let mut gateway = builder
        .crl(&list)
        .configure(|c| {
            c["drain"]["grace"] = GRACE.into();
            c["reload"]["watch"] = true.into();
        })
        .start();
    let mut loading = Loading::start(&gateway, gateway.identity());
    drain(&mut gateway);
    gateway.write("ca.crl", gateway.client_ca.crl().number(2).revoke(&gateway.identity().certificate).pem());
    loading.assert_ends("revoked while draining");
}

#[test]
fn a_certificate_that_expires_while_draining_ends_its_connections() {
    let (_upstream, mut gateway) = start();
    let until = time_in(Duration::from_secs(4));
    let brief = gateway.client_ca.issue(&pki::client("brief").valid("20260101000000Z", &until));
    let start = Instant::now();
    let mut expiring = Loading::start(&gateway, &brief);
    let mut other = Loading::start(&gateway, gateway.identity());
    drain(&mut gateway);
    expiring.assert_goes_on("draining");
    std::thread::sleep(Duration::from_secs(5).saturating_sub(start.elapsed()));
    expiring.assert_ends("the certificate has expired");
    other.assert_goes_on("another client's certificate has expired");
    gateway.wait_for_record(|r| r["end_reason"] == "expired" && r["route"] == "blob");
}

#[test]
fn a_second_signal_ends_the_draining() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let (_upstream, mut gateway) = start();
        let mut loading = Loading::start(&gateway, gateway.identity());
        gateway.process().signal(first);
        gateway.wait_for_log("draining");
        loading.assert_goes_on("one signal");
        gateway.process().signal(second);
        let status = gateway.process().wait(Duration::from_secs(5));
        let status = status.unwrap_or_else(|| panic!("{first}, {second}: it still waits for the transfers"));
        assert!(status.success(), "{first}, {second}: {status}");
        let cut = gateway.wait_for_record(|r| r["outcome"] == "shutdown" && r["http_version"] == "HTTP/1.1");
        assert_eq!(cut["route"], "blob", "the records of what was cut are written: {cut}");
        gateway.wait_for_record(|r| r["outcome"] == "shutdown" && r["http_version"] == "HTTP/2");
    }
}

#[test]
fn a_moved_access_log_is_reopened_while_draining() {
    let (_upstream, mut gateway) = start();
    let mut loading = Loading::start(&gateway, gateway.identity());
    drain(&mut gateway);
    let log = gateway.path().join("access.log");
    std::fs::rename(&log, gateway.path().join("access.log.1")).expect("the log can be moved");
    gateway.process().signal("HUP");
    let end = Instant::now() + Duration::from_secs(5);
    while !matches!(log.try_exists(), Ok(true)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(log.try_exists(), Ok(true)), "SIGHUP is not heard");
    loading.assert_goes_on("SIGHUP");
    gateway.process().signal("TERM");
    assert!(gateway.process().wait(Duration::from_secs(5)).is_some());
    gateway.wait_for_record(|r| r["outcome"] == "shutdown");
}

#[test]
fn a_draining_gateway_is_not_ready_and_takes_no_connection() {
    let (_upstream, mut gateway) = start();
    let mut loading = Loading::start(&gateway, gateway.identity());
    drain(&mut gateway);
    let ready = crate::support::gateway::plain_http(gateway.health(), "GET", "/readyz");
    assert_eq!(ready.status, 503, "{}", ready.text());
    let live = crate::support::gateway::plain_http(gateway.health(), "GET", "/livez");
    assert_eq!(live.status, 200, "{}", live.text());
    let end = Instant::now() + Duration::from_secs(2);
    let mut taken = true;
    while taken && Instant::now() < end {
        taken = H1::connect(&gateway.tls()).is_ok();
    }
    assert!(!taken, "a new connection is served while draining");
    loading.assert_goes_on("draining");
}

/// Connections to this port that are established, as clients see it.
fn established(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let remote = format!(":{port:04X}");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields
        .filter(|fields| fields.get(2).is_some_and(|to| to.ends_with(&remote)) && fields.get(3) == Some(&"01"))
        .count()
}

#[test]
fn what_the_kernel_has_let_in_is_served_before_leaving() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url()).configure(|c| {
        c["drain"]["grace"] = GRACE.into();
        c["limits"]["max_handshakes"] = 4096.into();
        c["limits"]["max_handshakes_per_address"] = 4096.into();
        c["threads"] = 1.into();
    });
    let mut gateway = builder.start();
    // It listens before it serves; stopped in between it would have nobody to serve.
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    gateway.process().signal("STOP");
    // So many before them that the order to leave comes while they wait.
    let crowd = 600;
    let silent: Vec<_> =
        (0..crowd).map(|_| std::net::TcpStream::connect(gateway.address()).expect("the kernel lets in")).collect();
    let clients = 10;
    let requests: Vec<_> = (0..clients)
        .map(|_| {
            let tls = gateway.tls();
            std::thread::spawn(move || {
                let reply = H1::connect(&tls)?.request("GET", "/v2/", &[], b"").map_err(|e| e.to_string())?;
                if reply.status == 200 { Ok(()) } else { Err(format!("{reply:?}")) }
            })
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(30);
    while established(gateway.address().port()) < crowd + clients {
        assert!(Instant::now() < end, "the kernel lets in whom the gateway doesn't accept yet");
        std::thread::sleep(Duration::from_millis(10));
    }
    gateway.process().signal("TERM");
    gateway.process().signal("CONT");
    drop(silent);
    for request in requests {
        assert_eq!(request.join().expect("no panic"), Ok(()));
    }
    assert!(gateway.process().wait(Duration::from_secs(30)).is_some_and(|status| status.success()));
}
