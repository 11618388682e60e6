//! The gateway as a service: readiness, reloads, watchdog, sockets that were there before it.

use crate::support::client::H1;
use crate::support::gateway::{Builder, NAME, gateway, plain_http};
use crate::support::heir::{Heir, upgrade};
use crate::support::manager::{Manager, activated, listening};
use crate::support::process;
use crate::support::tls::{ALPN_BOTH, Tls};
use crate::support::upstream::Upstream;
use serde_json::json;
use std::os::unix::net::UnixListener;
use std::time::Duration;

fn managed(upstream: &Upstream) -> (Builder, Manager) {
    let builder = gateway().upstream(upstream.url());
    let manager = Manager::start(builder.path());
    (builder.started(|start| manager.adopt(start)), manager)
}

#[test]
fn readiness_comes_when_connections_are_served_and_stopping_before_they_are_not() {
    let upstream = Upstream::start();
    let (builder, manager) = managed(&upstream);
    let mut gateway = builder.start();
    let ready = manager.wait_for("READY=1");
    assert!(ready.contains(&"STATUS=serving generation 1".to_owned()), "{ready:?}");
    assert!(ready.contains(&format!("MAINPID={}", gateway.process().id())), "{ready:?}");
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    gateway.process().signal("TERM");
    let stopping = manager.wait_for("STOPPING=1");
    assert!(stopping.iter().any(|line| line.starts_with("STATUS=draining")), "{stopping:?}");
    assert!(gateway.process().wait(Duration::from_secs(10)).is_some_and(|status| status.success()));
}

#[test]
fn a_gateway_that_does_not_start_is_never_ready() {
    let upstream = Upstream::start();
    let (builder, manager) = managed(&upstream);
    let (_holder, address) = listening();
    let builder = builder.configure(|c| c["listeners"][0]["addresses"] = json!([address]));
    builder.try_start().err().expect("the address is taken");
    assert_eq!(manager.next_within(Duration::from_millis(200)), None);
}

#[test]
fn a_reload_by_signal_is_told_from_begin_to_end_with_its_time() {
    let upstream = Upstream::start();
    let (builder, manager) = managed(&upstream);
    let mut gateway = builder.start();
    manager.wait_for("READY=1");
    let before = monotonic();
    gateway.process().signal("HUP");
    let reloading = manager.wait_for("RELOADING=1");
    let at: i64 = reloading
        .iter()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC=")?.parse().ok())
        .unwrap_or_else(|| panic!("{reloading:?}"));
    assert!((before..=monotonic()).contains(&at), "{at}");
    let ready = manager.wait_for("READY=1");
    assert!(ready.contains(&"STATUS=serving generation 2".to_owned()), "{ready:?}");
    let main = |line: &String| line.starts_with("MAINPID=");
    assert!(!ready.iter().any(main), "a reload doesn't change who the service is: {ready:?}");
    // One that fails ends, too, and says so: else the service manager would wait for it.
    gateway.write("policy.yaml", "rules: 7");
    gateway.process().signal("HUP");
    manager.wait_for("RELOADING=1");
    let ready = manager.wait_for("READY=1");
    assert!(ready.iter().any(|line| line.contains("generation 2 (the last reload failed")), "{ready:?}");
}

/// Microseconds of the clock that systemd compares (sd_notify(3)).
fn monotonic() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

#[test]
fn generations_by_other_ways_show_in_the_status() {
    let upstream = Upstream::start();
    let (builder, manager) = managed(&upstream);
    let gateway = builder.start();
    manager.wait_for("READY=1");
    gateway.reload_ok();
    manager.wait_for("STATUS=serving generation 2");
}

#[test]
fn a_watchdog_is_pinged_while_the_process_turns() {
    let upstream = Upstream::start();
    let (builder, manager) = managed(&upstream);
    let builder = builder.started(|start| start.environment.push(("WATCHDOG_USEC", "2000000".to_owned())));
    let mut gateway = builder.start();
    for _ in 0..4 {
        manager.wait_for("WATCHDOG=1");
    }
    // A process that stands still as a whole doesn't ping; a thread that does is tested with the pulses themselves.
    gateway.process().signal("STOP");
    while manager.next_within(Duration::from_millis(300)).is_some() {}
    assert_eq!(manager.next_within(Duration::from_secs(3)), None);
    gateway.process().signal("CONT");
    manager.wait_for("WATCHDOG=1");
    gateway.process().signal("TERM");
    manager.wait_for("STOPPING=1");
}

#[test]
fn a_watchdog_of_another_process_is_not_pinged() {
    let upstream = Upstream::start();
    let (builder, manager) = managed(&upstream);
    let builder = builder.started(|start| {
        start.environment.push(("WATCHDOG_USEC", "200000".to_owned()));
        start.environment.push(("WATCHDOG_PID", "1".to_owned()));
    });
    let _gateway = builder.start();
    manager.wait_for("READY=1");
    while let Some(notification) = manager.next_within(Duration::from_millis(500)) {
        assert!(!notification.contains(&"WATCHDOG=1".to_owned()), "{notification:?}");
    }
}

#[test]
fn an_inherited_socket_is_served_and_never_refused_a_connection() {
    let upstream = Upstream::start();
    let (listener, address) = listening();
    let builder = gateway().upstream(upstream.url());
    let tls = Tls {
        address: address.parse().expect("an address"),
        name: Some(NAME.to_owned()),
        ca: builder.server_ca.certificate.clone(),
        identity: Some(builder.client_ca.issue(&crate::support::pki::client("early"))),
        alpn: ALPN_BOTH,
        source: None,
        newest: None,
    };
    // Connects before there is a gateway: the kernel queues it.
    let early =
        std::thread::spawn(move || H1::connect(&tls)?.request("GET", "/v2/", &[], b"").map_err(|e| e.to_string()));
    let mut gateway = builder
        .configure(|c| {
            c["listeners"][0]["addresses"] = json!([address, "127.0.0.1:0"]);
            c["threads"] = 3.into();
        })
        .started(|start| activated(listener, start))
        .start();
    assert_eq!(early.join().expect("no panic").expect("served").status, 200);
    assert_eq!(gateway.address().to_string(), address);
    let many: Vec<H1> = (0..12).map(|_| gateway.h1()).collect();
    drop(many);
    gateway.process().signal("TERM");
    assert!(gateway.process().wait(Duration::from_secs(10)).is_some_and(|status| status.success()));
}

#[test]
fn health_and_administration_take_inherited_sockets_too() {
    let upstream = Upstream::start();
    let (listener, address) = listening();
    let builder = gateway().upstream(upstream.url()).configure(|c| c["health"]["address"] = address.clone().into());
    let gateway = builder.started(|start| activated(listener, start)).start();
    assert_eq!(gateway.health().to_string(), address);
    assert_eq!(plain_http(gateway.health(), "GET", "/readyz").status, 200);

    let builder = crate::support::gateway::gateway().upstream(upstream.url());
    let path = builder.path().join("admin.sock");
    let listener = UnixListener::bind(&path).expect("the test directory is writable");
    let builder = builder.configure(|c| c["admin"]["address"] = format!("unix:{}", path.display()).into());
    let mut gateway = builder.started(|start| activated(listener, start)).start();
    let socket = path.to_string_lossy().into_owned();
    let curl = ["-sSf", "--unix-socket", &socket, "http://gateway/config"];
    let answer = process::run("curl", &curl, b"", Duration::from_secs(20)).expect_success("curl").text();
    assert!(answer.contains("\"generation\": 1"), "{answer}");
    // Neither whoever leaves to a successor removes it, nor the successor.
    let mut heirs = Vec::new();
    for _ in 0..2 {
        let said = upgrade(&gateway.path().join("portcullis.yaml")).expect_success("upgrade").text();
        heirs.push(Heir::named_in(&said).unwrap_or_else(|| panic!("no process is named: {said}")));
    }
    let patience = Duration::from_secs(60);
    assert!(gateway.process().wait(patience).is_some());
    assert!(path.symlink_metadata().is_ok(), "the file is the service manager's");
    heirs[1].signal("TERM");
    assert!(heirs.iter().all(|heir| heir.ends_within(patience)));
    assert!(path.symlink_metadata().is_ok(), "the file is the service manager's");
}

#[test]
fn a_socket_that_nothing_is_configured_for_is_named() {
    let upstream = Upstream::start();
    let (listener, address) = listening();
    let builder = gateway().upstream(upstream.url()).started(|start| activated(listener, start));
    let said = builder.try_start().err().expect("nobody would serve it");
    assert!(said.contains(&address) && said.contains("listeners[].addresses"), "{said}");
    assert!(said.contains("unix_wait_status(768)"), "exit code 3 is the host: {said}");
}

#[test]
fn an_inherited_descriptor_that_does_not_listen_is_named() {
    let upstream = Upstream::start();
    let file = std::fs::File::open("/dev/null").expect("Linux");
    let builder = gateway().upstream(upstream.url()).started(|start| activated(file, start));
    let said = builder.try_start().err().expect("it can't be served");
    assert!(said.contains("descriptor 3 (\"test.socket\")"), "{said}");
}
