//! Whose a redirect is, is for the configuration to say: no name that a client gives makes a storage's address the
//! registry's own.

use super::{SIGNED, following, redirects_to};
use crate::support::client::H1;
use crate::support::gateway::{Builder, Gateway, gateway};
use crate::support::h2client::H2;
use crate::support::registry::free_address;
use crate::support::reply::Reply;
use crate::support::upstream::{Answer, Upstream};
use serde_json::json;

const BLOB: &str = super::BLOB;

/// Asks over each version of HTTP with `host` as the Host, on connections for `server_name`.
fn ask(gateway: &Gateway, server_name: Option<&str>, host: &str, method: &str, target: &str) -> [Reply; 2] {
    let tls = gateway.tls().name(server_name);
    let mut h1 = H1::connect(&tls).expect("a connection");
    h1.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n").as_bytes())
        .expect("open");
    let mut h2 = H2::connect(&tls).expect("a connection");
    [
        h1.answer_to(method).expect("an answer"),
        h2.request(method, target, &[(":authority", host), ("content-length", "0")], b"").expect("an answer"),
    ]
}

fn get(gateway: &Gateway, server_name: Option<&str>, host: &str, target: &str) -> [Reply; 2] {
    ask(gateway, server_name, host, "GET", target)
}

fn with_mode(builder: Builder, mode: &str) -> Gateway {
    builder.with_upstream(|u| u["redirects"] = mode.into()).start()
}

#[test]
fn a_client_that_calls_itself_by_the_storages_name_gets_what_others_get() {
    let (registry, storage) = (Upstream::start(), Upstream::start());
    storage.answer(|_| Answer::new(200).body(b"content"));
    let port = storage.address().port();
    for (server_name, host) in [(None, "127.0.0.1"), (Some("localhost"), "localhost"), (Some("gw.test"), "gw.test")] {
        let named = format!("{host}:{port}");
        let place = format!("http://{named}");
        redirects_to(&registry, 307, &format!("{place}{SIGNED}"));
        let follow = with_mode(following(&registry, std::slice::from_ref(&place)), "follow");
        // Nothing resolves gw.test.
        let wanted = if host == "gw.test" { 503 } else { 200 };
        for reply in get(&follow, server_name, &named, BLOB) {
            assert_eq!((reply.status, reply.header("location")), (wanted, None), "{named}: {reply:?}");
        }
        assert_eq!(super::followed(&follow, "followed"), Some(2.0), "{named}");
        let pass = with_mode(following(&registry, std::slice::from_ref(&place)), "pass");
        for reply in get(&pass, server_name, &named, BLOB) {
            let location = format!("{place}{SIGNED}");
            assert_eq!((reply.status, reply.header("location")), (307, Some(location.as_str())), "{named}");
        }
        for mode in ["pass", "follow"] {
            let other = with_mode(following(&registry, &["https://other.example".to_owned()]), mode);
            for reply in get(&other, server_name, &named, BLOB) {
                reply.assert_refusal(502, "UNAVAILABLE");
                assert!(!format!("{:?}{}", reply.headers, reply.text()).contains("Signature"), "{named}: {reply:?}");
            }
        }
    }
    assert_eq!(storage.take().len(), 4);
}

#[test]
fn a_listed_host_is_never_the_registrys_own() {
    let registry = Upstream::start();
    redirects_to(&registry, 307, &format!("https://gw.test{SIGNED}"));
    let pass = with_mode(following(&registry, &["https://gw.test".to_owned()]), "pass");
    for reply in get(&pass, Some("gw.test"), "gw.test", BLOB) {
        let location = format!("https://gw.test{SIGNED}");
        assert_eq!((reply.status, reply.header("location")), (307, Some(location.as_str())));
    }
}

#[test]
fn the_gateways_names_are_those_of_its_certificates_and_its_port() {
    let registry = Upstream::start();
    let address = free_address();
    let port = address.port();
    let gateway = gateway()
        .upstream(registry.url())
        .configure(|c| c["listeners"][0]["addresses"] = json!([address.to_string()]))
        .with_upstream(|u| u["host"] = "registry.internal:8443".into())
        .start();
    let own = [
        "https://gw.test/v2/".to_owned(),
        "http://gw.test/v2/".to_owned(),
        "https://GW.test:443/v2/".to_owned(),
        format!("https://gw.test:{port}/v2/"),
        format!("https://localhost:{port}/v2/"),
        format!("https://127.0.0.1:{port}/v2/"),
        "https://registry.internal:8443/v2/".to_owned(),
        format!("{}/v2/", registry.url()),
    ];
    let foreign = ["https://gw.test:1/v2/", "https://registry.internal/v2/", "https://other.example:8443/v2/"];
    for host in ["gw.test", "gw.test:1"] {
        for location in &own {
            redirects_to(&registry, 301, location);
            for reply in get(&gateway, Some("gw.test"), host, BLOB) {
                assert_eq!((reply.status, reply.header("location")), (301, Some("/v2/")), "{location} as {host}");
            }
        }
        for location in foreign {
            redirects_to(&registry, 301, location);
            for reply in get(&gateway, Some("gw.test"), host, BLOB) {
                reply.assert_refusal(502, "UNAVAILABLE");
            }
        }
    }
}

#[test]
fn an_upload_goes_on_at_the_name_by_which_the_client_knows_the_gateway() {
    let registry = Upstream::start();
    let gateway = gateway().upstream(registry.url()).start();
    // As behind a mapped port: the registry builds its Location from the Host that it is told.
    registry.answer(|request| {
        let host = request.header("host").unwrap_or_default();
        Answer::new(202).header("Location", &format!("https://{host}/v2/team/app/blobs/uploads/1?_state=x"))
    });
    for host in ["gw.test", "gw.test:30443"] {
        for reply in ask(&gateway, Some("gw.test"), host, "POST", "/v2/team/app/blobs/uploads/") {
            let location = reply.header("location");
            assert_eq!((reply.status, location), (202, Some("/v2/team/app/blobs/uploads/1?_state=x")), "{host}");
        }
    }
}

#[test]
fn what_a_client_writes_is_sent_nowhere_else() {
    let registry = Upstream::start();
    let writes = [
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("PATCH", "/v2/team/app/blobs/uploads/1"),
        ("PUT", "/v2/team/app/manifests/v1"),
        ("DELETE", "/v2/team/app/manifests/v1"),
    ];
    for mode in ["pass", "follow"] {
        let gateway = with_mode(following(&registry, &["https://storage.example".to_owned()]), mode);
        let mut refused = 0.0;
        for (method, target) in writes {
            for status in [301, 302, 303, 307, 308] {
                for place in ["https://storage.example/b", "https://evil.example/b", "//evil.example/b"] {
                    redirects_to(&registry, status, place);
                    for mut client in gateway.both() {
                        let reply = client.request(method, target, &[], b"");
                        assert_eq!((reply.status, reply.header("location")), (502, None), "{method} {status} {place}");
                        reply.assert_refusal(502, "UNAVAILABLE");
                        refused += 1.0;
                    }
                }
                redirects_to(&registry, status, "https://gw.test/v2/team/other");
                for mut client in gateway.both() {
                    let reply = client.request(method, target, &[], b"");
                    assert_eq!((reply.status, reply.header("location")), (status, Some("/v2/team/other")), "{method}");
                }
            }
        }
        assert_eq!(super::followed(&gateway, "refused"), Some(refused), "{mode}");
        gateway.wait_for_record(|record| record["outcome"] == "redirect_refused" && record["method"] == "PATCH");
    }
}
