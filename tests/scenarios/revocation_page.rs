//! What the admin listener, the log and `check` say about revocation and about certificates that near their end.

use super::revocation_live::time_in;
use crate::support::gateway::{Gateway, gateway, plain_http};
use crate::support::pki::{self, Ca};
use crate::support::process;
use crate::support::upstream::Upstream;
use serde_json::{Value, json};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn page(gateway: &Gateway) -> String {
    let reply = plain_http(gateway.admin(), "GET", "/revocation");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text()
}

fn data(gateway: &Gateway) -> Value {
    plain_http(gateway.admin(), "GET", "/revocation?format=json").json()
}

#[test]
fn the_page_says_of_each_source_what_is_known_and_what_is_wrong() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let other = Ca::root(&builder.pki(), "Other CA");
    let bundle = builder.client_ca.pem() + &other.pem();
    let list = builder.client_ca.crl().number(7).serial("0102").pem();
    let gateway = builder.file("client-ca.pem", &bundle).crl(&list).start();
    let text = page(&gateway);
    for part in [
        "ca.crl (file, revocation.crls[0].file)",
        "CN=Test Client CA: in force",
        "number 7, 1 entries",
        "nextUpdate 2089-01-01T00:00:00Z (in ",
        "CN=Other CA: no list; certificates that it signed are refused",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let all = data(&gateway);
    let source = &all["sources"][0];
    assert_eq!(source["lists"][0]["number"], "7", "{all:#}");
    assert_eq!((&source["faults"], &all["issuers_without_list"]), (&json!([]), &json!(["CN=Other CA"])), "{all:#}");
    gateway.write("ca.crl", "");
    gateway.reload();
    let text = page(&gateway);
    assert!(text.contains("FAULT it is empty") && text.contains("number 7, 1 entries"), "{text}");
    assert_eq!(data(&gateway)["sources"][0]["faults"][0]["kind"], "empty");
    for (name, value) in [("crl_number", 7.0), ("crl_this_update_timestamp_seconds", 1_767_225_600.0)] {
        gateway.wait_for_metric(&format!("portcullis_{name}"), &[], |n| (n - value).abs() < 0.5);
    }
    gateway.wait_for_metric("portcullis_crl_errors_total", &[("fault", "empty")], |n| n >= 1.0);
}

#[test]
fn a_url_is_shown_as_it_is_now() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let good = builder.client_ca.crl().pem();
    let server = Upstream::start();
    server.answer(move |_| crate::support::upstream::Answer::new(200).body(good.as_bytes()));
    let url = format!("{}/ca.crl", server.url());
    let mut gateway = builder.configure(|c| c["revocation"]["crls"] = json!([{ "url": url, "refresh": "1s" }])).start();
    gateway.wait_for_metric("portcullis_crl_last_success_timestamp_seconds", &[], |n| n > 0.0);
    gateway.wait_for_log("serving");
    let text = page(&gateway);
    assert!(text.contains(&format!("{url} (url, revocation.crls[0].url)")) && text.contains("in force"), "{text}");
    server.answer(|_| crate::support::upstream::Answer::new(500));
    gateway.wait_for_metric("portcullis_crl_failed", &[], |n| n >= 1.0);
    let text = page(&gateway);
    assert!(text.contains("FAULT it answers with status 500") && text.contains("in force"), "{text}");
}

#[test]
fn a_client_whose_certificate_runs_out_is_named_once_a_day() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let short = builder.client_ca.issue(&pki::client("short").valid("20260101000000Z", &time_in(3 * DAY)));
    let long = builder.client_ca.issue(&pki::client("long").valid("20260101000000Z", &time_in(20 * DAY)));
    let mut gateway = builder.start();
    for identity in [&short, &long, &short] {
        for mut client in gateway.both_as(identity) {
            assert_eq!(client.get("/v2/").status, 200);
        }
    }
    gateway.wait_for_log("runs out in ");
    let text = page(&gateway);
    assert!(text.contains("client certificates that run out within 14 days"), "{text}");
    assert!(text.contains("sa/short") && !text.contains("sa/long"), "{text}");
    assert_eq!(data(&gateway)["expiring_clients"].as_array().map(Vec::len), Some(1));
    let said = gateway.log().iter().filter(|line| line.contains("runs out in")).count();
    assert_eq!(said, 1, "{:#?}", gateway.log());
}

#[test]
fn check_warns_of_a_list_that_runs_out_soon_and_of_an_issuer_without_one() {
    for (lasts, warning, warned) in
        [(12 * DAY / 24, "24h", true), (3 * DAY, "24h", false), (3 * DAY, "96h", true), (12 * DAY / 24, "0s", false)]
    {
        let upstream = Upstream::start();
        let builder = gateway().upstream(upstream.url());
        let other = Ca::root(&builder.pki(), "Other CA");
        let bundle = builder.client_ca.pem() + &other.pem();
        let list = builder.client_ca.crl().last_update("20260101000000Z").next_update(&time_in(lasts)).pem();
        let builder = builder
            .file("client-ca.pem", &bundle)
            .crl(&list)
            .configure(|c| c["revocation"]["expiry_warning"] = warning.into());
        let file = builder.write_config().to_string_lossy().into_owned();
        let arguments = ["check", "--config", &file];
        let finished = process::run(env!("CARGO_BIN_EXE_portcullis"), &arguments, b"", Duration::from_secs(20));
        assert_eq!(finished.code, Some(0), "{}", finished.all());
        let said = finished.all();
        assert_eq!(said.contains("the list of CN=Test Client CA runs out in"), warned, "{lasts:?} {warning}: {said}");
        assert!(said.contains("revocation.crls[0].file") == warned, "{said}");
        assert!(said.contains("there is no list of CN=Other CA"), "{said}");
    }
}

#[test]
fn a_state_directory_that_cannot_be_used_is_said_and_serving_goes_on() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let list = builder.client_ca.crl().pem();
    let builder = builder.crl(&list).file("state", "a file").configure(|c| c["state_directory"] = "state".into());
    let file = builder.write_config().to_string_lossy().into_owned();
    let arguments = ["check", "--config", &file];
    let finished = process::run(env!("CARGO_BIN_EXE_portcullis"), &arguments, b"", Duration::from_secs(20));
    assert_eq!(finished.code, Some(1), "{}", finished.all());
    assert!(
        finished.all().contains("state_directory") && finished.all().contains("not a directory"),
        "{}",
        finished.all()
    );
    let mut gateway = builder.start();
    gateway.wait_for_log("state_directory");
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    gateway.wait_for_metric("portcullis_state_failed", &[], |n| n >= 1.0);
}
