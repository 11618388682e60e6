//! What a client is called: one string, the same in records, refusals and headers, that nobody can put on.

use crate::support::gateway::{Gateway, gateway};
use crate::support::pki::{self, Identity};
use crate::support::upstream::Upstream;
use serde_json::{Value, json};

const PULL: &str = "/v2/team/app/manifests/v1";
const HEADER: &str = "x-client-identity";

/// Everybody may pull, and nothing else.
const PULL_ONLY: &str = r#"
rules:
  - { name: all-pull, subjects: [any], repositories: ["**"], actions: [pull], effect: allow }
"#;

fn start(order: &Value) -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let gateway = gateway()
        .upstream(upstream.url())
        .file("policy.yaml", PULL_ONLY)
        .configure(|c| {
            c["headers"]["identity"] = json!("X-Client-Identity");
            if order.is_array() {
                c["clients"]["identity"] = order.clone();
            }
        })
        .start();
    (upstream, gateway)
}

/// What the registry, the record and a refusal call a client, over each version of HTTP.
#[track_caller]
fn called(upstream: &Upstream, gateway: &Gateway, identity: &Identity) -> String {
    let mut names = Vec::new();
    for mut client in gateway.both_as(identity) {
        // A client can't choose what it is called, in no spelling of the header.
        let forged = [(HEADER, "CN=forged"), ("x_client_identity", "CN=forged")];
        let reply = client.request("GET", PULL, &forged, b"");
        assert_eq!(reply.status, 200, "{}", client.version());
        let seen = upstream.only();
        let values: Vec<_> = seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(HEADER)).collect();
        assert_eq!(values.len(), 1, "{seen:?}");
        assert!(!String::from_utf8_lossy(&seen.head).contains("forged"), "{seen:?}");
        names.push(values[0].1.clone());
        let refused = client.request("DELETE", PULL, &[], b"");
        assert_eq!(refused.status, 403, "{}", client.version());
        let text = refused.text();
        let (_, rest) = text.split_once("is not allowed for ").unwrap_or_else(|| panic!("{text}"));
        names.push(rest.split(" (rule").next().unwrap_or_default().to_owned());
        upstream.assert_untouched("a refused delete");
    }
    let record = gateway.wait_for_record(|record| record["identity"] == names[0].as_str());
    assert!(names.iter().all(|name| *name == names[0]), "{names:?} {record}");
    names.remove(0)
}

#[test]
fn by_default_the_spiffe_id_names_a_client_and_then_the_common_name() {
    let (upstream, gateway) = start(&Value::Null);
    assert_eq!(called(&upstream, &gateway, gateway.identity()), "spiffe://corp.example/ns/test/sa/ci-7");
    let plain = gateway.client_ca.issue(&pki::bare_client("build"));
    assert_eq!(called(&upstream, &gateway, &plain), "CN=build");
}

#[test]
fn the_configured_order_names_a_client_and_an_ambiguous_name_never_does() {
    let (upstream, mut gateway) = start(&json!(["dns", "email", "subject_cn"]));
    let host = gateway.client_ca.issue(&pki::client("a").san("DNS:a.example.com").san("email:a@example.com"));
    let two_hosts = pki::client("b").san("DNS:b.example.com").san("DNS:admin.example.com").san("email:b@example.com");
    let two_hosts = gateway.client_ca.issue(&two_hosts);
    let two_of_all = gateway.client_ca.issue(&two_names("c"));
    assert_eq!(called(&upstream, &gateway, &host), "DNS:a.example.com");
    assert_eq!(called(&upstream, &gateway, &two_hosts), "email:b@example.com");
    let nameless = called(&upstream, &gateway, &two_of_all);
    assert!(nameless.starts_with("sha256:") && nameless.len() == 71, "{nameless}");

    let mut before = gateway.h1_as(&host);
    gateway.change_config(|c| c["clients"]["identity"] = json!(["subject_cn"]));
    gateway.reload_ok();
    assert_eq!(called(&upstream, &gateway, &host), "CN=a", "a connection made after the reload");
    before.request("GET", PULL, &[], b"").expect("an answer");
    assert_eq!(upstream.only().header(HEADER), Some("DNS:a.example.com"), "an open connection keeps its name");
}

/// A client with two names of each kind that the tests order.
fn two_names(name: &str) -> pki::Profile {
    let profile = pki::client(name).attribute("CN", "admin").attribute("O", "Example");
    let names = [format!("DNS:{name}.example.com"), format!("email:{name}@example.com")];
    let profile = names.iter().fold(profile, |profile, name| profile.san(name));
    profile.san("DNS:admin.example.com").san("email:admin@example.com")
}

#[test]
fn a_name_in_the_clothes_of_another_is_told_from_it() {
    let (upstream, gateway) = start(&json!(["spiffe", "subject_cn", "email"]));
    let victim = called(&upstream, &gateway, gateway.identity());
    let pretender = gateway.client_ca.issue(&pki::bare_client(&victim));
    for mut client in gateway.both_as(&pretender) {
        assert_eq!(client.get(PULL).status, 200);
        assert_eq!(upstream.only().header(HEADER), Some(format!("CN={victim}").as_str()));
    }
}

#[test]
fn a_header_that_means_something_else_is_refused() {
    for name in ["Host", "X-Forwarded-For", "Docker-Content-Digest", "x_client", "no header", "Client-Cert"] {
        let refused =
            gateway().upstream("http://127.0.0.1:1").configure(|c| c["headers"]["identity"] = json!(name)).try_start();
        let Err(log) = refused else { panic!("{name} was accepted") };
        assert!(log.contains("headers.identity") && log.contains("X-Client-Identity"), "{name}: {log}");
    }
    for order in [json!([]), json!(["spiffe", "spiffe"]), json!(["cn"])] {
        let refused = gateway()
            .upstream("http://127.0.0.1:1")
            .configure(|c| c["clients"]["identity"] = order.clone())
            .try_start();
        let Err(log) = refused else { panic!("{order} was accepted") };
        assert!(log.contains("clients.identity"), "{order}: {log}");
    }
}
