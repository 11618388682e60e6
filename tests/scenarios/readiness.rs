//! When a gateway says that it is ready: not before it has the lists by which it knows its clients, and then for good.

use crate::support::client::H1;
use crate::support::gateway::{Builder, Gateway, gateway, plain_http};
use crate::support::pki::{self, Ca, Identity};
use crate::support::reply::Reply;
use crate::support::upstream::{Answer, Upstream};
use serde_json::json;
use std::time::{Duration, Instant};

fn ready(gateway: &Gateway) -> Reply {
    plain_http(gateway.health(), "GET", "/readyz")
}

#[track_caller]
fn wait_until_ready(gateway: &Gateway) {
    let end = Instant::now() + Duration::from_secs(30);
    while ready(gateway).status != 200 {
        assert!(Instant::now() < end, "{}", ready(gateway).text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_served(gateway: &Gateway, identity: &Identity) -> bool {
    H1::connect(&gateway.tls_as(identity))
        .map_err(std::io::Error::other)
        .and_then(|mut client| client.request("GET", "/v2/", &[], b""))
        .is_ok_and(|reply| reply.status == 200)
}

/// A gateway that asks `url` once a second, beside whatever else it has.
fn with_url(builder: Builder, url: &str) -> Builder {
    builder.configure(|c| {
        let source = json!({ "url": url, "refresh": "1s", "timeout": "1s" });
        match c["revocation"]["crls"].as_array_mut() {
            Some(sources) => sources.push(source),
            None => c["revocation"]["crls"] = json!([source]),
        }
    })
}

#[test]
fn a_new_gateway_is_not_ready_before_a_dead_url_has_given_its_list() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    // Nobody listens there yet.
    let address = crate::support::registry::free_address();
    let url = format!("http://{address}/ca.crl");
    let gateway = with_url(builder, &url).configure(|c| c["revocation"]["clock_skew"] = "0s".into()).start();
    let answer = ready(&gateway);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains(&url), "{}", answer.text());
    assert_eq!(plain_http(gateway.health(), "GET", "/livez").status, 200, "it lives: it must not be started anew");
    assert!(!is_served(&gateway, gateway.identity()), "nobody knows who is revoked");
    let soon = super::revocation_live::time_in(Duration::from_secs(6));
    let server = Upstream::start_on(&address.to_string());
    let short = gateway.client_ca.crl().last_update("20260101000000Z").next_update(&soon).pem();
    server.answer(move |_| Answer::new(200).body(short.as_bytes()));
    wait_until_ready(&gateway);
    // The URL dies, and the list runs out: that is no reason to take the gateway away from the others' clients.
    server.answer(|_| Answer::new(503));
    let end = Instant::now() + Duration::from_secs(30);
    while is_served(&gateway, gateway.identity()) {
        assert!(Instant::now() < end, "the list doesn't run out");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ready(&gateway).status, 200, "{}", ready(&gateway).text());
}

#[test]
fn a_source_that_is_added_later_makes_nobody_unready() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    let list = builder.client_ca.crl().pem();
    let other = Ca::root(&builder.pki(), "Other CA");
    let mut gateway = builder.crl(&list).start();
    assert_eq!(ready(&gateway).status, 200);
    gateway.write("client-ca.pem", gateway.client_ca.pem() + &other.pem());
    let dead = format!("http://{}/other.crl", crate::support::registry::free_address());
    gateway.change_config(|c| {
        c["revocation"]["crls"].as_array_mut().expect("a list").push(json!({ "url": dead, "timeout": "1s" }));
    });
    gateway.reload_ok();
    assert!(!is_served(&gateway, &other.issue(&pki::client("x"))));
    assert_eq!(ready(&gateway).status, 200, "{}", ready(&gateway).text());
}

#[test]
fn a_dead_url_holds_up_nothing_that_is_served_without_it() {
    let registry = Upstream::start();
    let dead = format!("http://{}/ca.crl", crate::support::registry::free_address());
    // A mirror of a list that is there.
    let builder = gateway().upstream(registry.url());
    let list = builder.client_ca.crl().pem();
    let mirrored = with_url(builder.crl(&list), &dead).start();
    assert!(is_served(&mirrored, mirrored.identity()));
    assert_eq!(ready(&mirrored).status, 200, "{}", ready(&mirrored).text());
    // Lists that needn't be.
    let optional = with_url(gateway().upstream(registry.url()), &dead)
        .configure(|c| c["revocation"]["freshness"] = "optional".into())
        .start();
    assert!(is_served(&optional, optional.identity()));
    assert_eq!(ready(&optional).status, 200, "{}", ready(&optional).text());
}

#[test]
fn a_directory_without_a_list_is_waited_for() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    std::fs::create_dir(builder.path().join("lists")).expect("the test directory is writable");
    let gateway = builder.configure(|c| c["revocation"]["crls"] = json!([{ "directory": "lists" }])).start();
    assert_eq!(ready(&gateway).status, 503);
    gateway.write("lists/ca.crl", "<html>");
    gateway.reload_ok();
    assert_eq!(ready(&gateway).status, 503, "{}", ready(&gateway).text());
    gateway.write("lists/ca.crl", gateway.client_ca.crl().pem());
    gateway.reload_ok();
    assert_eq!(ready(&gateway).status, 200, "{}", ready(&gateway).text());
    assert!(is_served(&gateway, gateway.identity()));
}
