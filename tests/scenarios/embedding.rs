//! The gateway as a part of another program: what `lib.rs` documents, done.

use crate::support::client::H1;
use crate::support::gateway::{NAME, gateway, plain_http};
use crate::support::pki;
use crate::support::tls::{ALPN_BOTH, Tls};
use crate::support::upstream::{Answer, Upstream};
use portcullis::{Gateway, ServeError};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

#[test]
fn a_program_starts_reloads_drains_and_stops_gateways() {
    let upstream = Upstream::start();
    upstream.answer(|request| match request.target.contains("/blobs/") {
        true => Answer::new(200).pattern(0, 1 << 20).slowly(64 * 1024, Duration::from_millis(60)),
        false => Answer::new(200).body(b"{}"),
    });
    let builder = gateway().upstream(upstream.url()).configure(|c| {
        c["drain"]["grace"] = "60s".into();
        // Of this test alone: nobody else is given a port there that is free again.
        c["listeners"][0]["addresses"] = serde_json::json!(["127.83.7.11:0"]);
        c["health"]["address"] = "127.83.7.11:0".into();
    });
    let file = builder.write_config();
    let tls = |address: SocketAddr| Tls {
        address,
        name: Some(NAME.to_owned()),
        ca: builder.server_ca.certificate.clone(),
        identity: Some(builder.client_ca.issue(&pki::client("embedded"))),
        alpn: ALPN_BOTH,
        source: None,
        newest: None,
    };

    let gateway = Gateway::load(&file).expect("the configuration is good");
    assert!(gateway.findings().is_empty(), "{}", gateway.findings());
    let running = gateway.start().expect("a free port");
    // Another one beside it, which shares nothing.
    let beside = Gateway::load(&file).and_then(Gateway::start).expect("a free port");
    let address = running.listeners()[0].address;
    assert_eq!(running.listeners()[0].name, "main");
    assert_ne!(address, beside.listeners()[0].address);
    let mut h1 = H1::connect(&tls(address)).expect("connects");
    assert_eq!(h1.get("/v2/").status, 200);
    let health = running.health_address().expect("is configured");
    assert_eq!(plain_http(health, "GET", "/readyz").status, 200);

    assert_eq!((running.generation(), running.reload().expect("the files are good")), (1, 2));
    let policy = builder.path().join("policy.yaml");
    let good = std::fs::read(&policy).expect("the policy");
    std::fs::write(&policy, "rules: 7").expect("the test directory is writable");
    let error = running.reload().expect_err("the policy is broken");
    assert!(error.to_string().contains("policy.yaml:1"), "{error}");
    assert_eq!((running.generation(), beside.generation()), (2, 1));
    assert!(matches!(Gateway::load(&file), Err(ServeError::Configuration(_))));
    std::fs::write(&policy, good).expect("the test directory is writable");

    h1.send_request("GET", &format!("/v2/a/blobs/{}", crate::DIGEST), &[], b"").expect("sent");
    upstream.wait_for(|request| request.target.contains("/blobs/"));
    running.drain();
    assert!(!running.has_ended(), "a transfer is under way");
    assert_eq!(plain_http(health, "GET", "/readyz").status, 503);
    assert_eq!(h1.answer().expect("the transfer ends well").body.len(), 1 << 20);
    drop(h1);
    running.stop();
    TcpStream::connect(address).expect_err("nobody listens");
    TcpStream::connect(health).expect_err("nobody listens");

    // The other one goes on, and is cut by dropping it.
    let address = beside.listeners()[0].address;
    let mut h1 = H1::connect(&tls(address)).expect("connects");
    h1.send_request("GET", &format!("/v2/a/blobs/{}", crate::DIGEST), &[], b"").expect("sent");
    assert_eq!(h1.head().expect("a head").status, 200);
    let begun = Instant::now();
    drop(beside);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(h1.is_closed_within(Duration::from_secs(5)));
    TcpStream::connect(address).expect_err("nobody listens");
}

#[test]
fn nothing_is_left_of_a_gateway_that_could_not_start() {
    let upstream = Upstream::start();
    let (_holder, taken) = crate::support::manager::listening();
    // Of this test alone: nobody else is given this address.
    let free = SocketAddr::from(([127, 83, 7, 12], 20_000 + (std::process::id() % 20_000) as u16));
    let builder = gateway().upstream(upstream.url()).configure(|c| {
        c["listeners"][0]["addresses"] = serde_json::json!([free.to_string()]);
        c["health"]["address"] = taken.clone().into();
    });
    let gateway = Gateway::load(builder.write_config()).expect("the configuration is good");
    let error = gateway.start().expect_err("an address is taken");
    assert!(matches!(&error, ServeError::Host(why) if why.contains(&taken)), "{error}");
    TcpStream::connect(free).expect_err("nobody listens");
}
