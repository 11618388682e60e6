//! A policy beside the one in force: what it would do is told, and nothing of it is done.

use std::fs;

use serde_json::{Value, json};

use crate::DIGEST;
use crate::policy_tools::portcullis;
use crate::support::gateway::{Builder, Gateway, gateway};
use crate::support::upstream::Upstream;

const REAL: &str = "
rules:
  - {name: own, subjects: [any], repositories: ['own/**', shared/base], actions: [pull, push, overwrite], effect: allow}
  - {name: no-archive, subjects: [any], repositories: ['own/archive/**'], actions: [push], effect: deny}
";

/// Loses `own/old`, gains the archive, and pulls from elsewhere.
const NEXT: &str = "
rules:
  - {name: own-next, subjects: [any], repositories: ['own/**', other/base], actions: [pull, push, overwrite], effect: allow}
  - {name: no-old, subjects: [any], repositories: [own/old], actions: [pull, push], effect: deny}
";

fn shadowed(upstream: &Upstream) -> Builder {
    gateway()
        .policy(REAL)
        .file("next.yaml", NEXT)
        .configure(|config| config["shadow_policy"] = "next.yaml".into())
        .upstream(upstream.url())
}

fn counted(gateway: &Gateway) -> Vec<(&'static str, f64)> {
    ["same", "would_allow", "would_deny", "would_allow_mount", "would_refuse_mount", "unknown"]
        .into_iter()
        .map(|result| {
            let value = gateway.metric("portcullis_shadow_decisions_total", &[("result", result)]);
            (result, value.expect("a counter"))
        })
        .collect()
}

#[test]
fn differences_are_counted_and_recorded_and_nothing_is_enforced() {
    let upstream = Upstream::start();
    let gateway = shadowed(&upstream).start();
    let mount = |from: &str| format!("/v2/own/app/blobs/uploads/?mount={DIGEST}&from={from}");
    let cases = [
        ("GET", "/v2/own/app/tags/list".to_owned(), "allow", "allow", json!("own-next")),
        ("GET", "/v2/own/old/tags/list".to_owned(), "allow", "deny", json!("no-old")),
        ("PUT", "/v2/own/archive/x/manifests/v1".to_owned(), "deny", "allow", json!("own-next")),
        ("GET", "/v2/shared/base/tags/list".to_owned(), "allow", "deny", Value::Null),
        ("GET", "/v2/none/app/tags/list".to_owned(), "deny", "deny", Value::Null),
        ("POST", mount("shared/base"), "allow", "allow_without_mount", json!("own-next")),
        ("POST", mount("other/base"), "allow", "allow", json!("own-next")),
        ("GET", "/v2/".to_owned(), "allow", "allow", json!("ping")),
    ];
    for mut client in gateway.both() {
        for (method, target, real, shadow, rule) in &cases {
            let seen = gateway.records().len();
            let reply = client.request(method, target, &[], b"");
            let why = format!("{} {method} {target}", client.version());
            assert_eq!(reply.status == 403, *real == "deny", "{why}: {}", reply.text());
            gateway.wait_for_record(|_| gateway.records().len() > seen);
            let record = gateway.records().remove(seen);
            assert_eq!(record["decision"], *real, "{why}: {record:#}");
            assert_eq!(
                (&record["shadow_decision"], &record["shadow_rule"]),
                (&json!(shadow), rule),
                "{why}: {record:#}"
            );
        }
        let seen = gateway.records().len();
        assert_eq!(client.get("/v2/own/%2e%2e/app/tags/list").status, 400);
        gateway.wait_for_record(|_| gateway.records().len() > seen);
        assert_eq!(gateway.records().remove(seen)["shadow_decision"], Value::Null);
    }
    let expected = [
        ("same", 6.0),
        ("would_allow", 2.0),
        ("would_deny", 4.0),
        ("would_allow_mount", 2.0),
        ("would_refuse_mount", 2.0),
        ("unknown", 0.0),
    ];
    gateway.wait_for_metric("portcullis_shadow_decisions_total", &[], |all| all >= 16.0);
    assert_eq!(counted(&gateway), expected);
    // What the registry saw is what the policy in force let through, mounts included, and not a request more.
    let targets: Vec<_> = upstream.requests().into_iter().map(|request| request.target).collect();
    let passed = cases.iter().filter(|(_, _, real, ..)| *real == "allow").count();
    assert_eq!(targets.len(), 2 * passed, "{targets:?}");
    assert!(targets.iter().any(|target| target.contains("from=shared")), "{targets:?}");
    assert!(!targets.iter().any(|target| target.contains("from=other") || target.contains("archive")), "{targets:?}");
}

#[test]
fn a_mistake_in_the_shadow_policy_holds_up_nothing() {
    let upstream = Upstream::start();
    let mut gateway = shadowed(&upstream).start();
    let failed = |gateway: &Gateway| gateway.metric("portcullis_shadow_policy_failed", &[]).expect("a gauge");
    let ask = |gateway: &Gateway| {
        let seen = gateway.records().len();
        let status = gateway.h1().request("GET", "/v2/own/old/tags/list", &[], b"").expect("an answer").status;
        gateway.wait_for_record(|_| gateway.records().len() > seen);
        let record = gateway.records().remove(seen);
        (status, record["shadow_decision"].clone())
    };
    assert!(failed(&gateway) < 0.5);
    assert_eq!(ask(&gateway), (200, json!("deny")));
    // A change of the real one takes effect beside it, and the last good shadow goes on.
    gateway.write("next.yaml", "rules: [{name: x}]\n");
    gateway.write("policy.yaml", REAL.replace("'own/**'", "'mine/**'"));
    let reply = gateway.reload();
    assert_eq!(reply.status, 200, "{}", reply.text());
    for part in ["next.yaml:1: rules[0]", "shadow_policy: ", "the one before is evaluated on"] {
        assert!(reply.text().contains(part), "{part}: {}", reply.text());
    }
    assert_eq!(ask(&gateway), (403, json!("deny")));
    assert!(failed(&gateway) > 0.5);
    // Mended.
    gateway.write("next.yaml", NEXT.replace("deny", "allow"));
    gateway.reload_ok();
    assert!(failed(&gateway) < 0.5);
    assert_eq!(ask(&gateway), (403, json!("allow")));
    // Another file has no last good one.
    gateway.write("broken.yaml", "rules: [");
    gateway.change_config(|config| config["shadow_policy"] = "broken.yaml".into());
    let reply = gateway.reload();
    assert!(reply.status == 200 && reply.text().contains("none is evaluated"), "{}", reply.text());
    assert_eq!(ask(&gateway), (403, Value::Null));
    // Switched off.
    gateway.change_config(|config| config["shadow_policy"] = Value::Null);
    gateway.reload_ok();
    assert!(failed(&gateway) < 0.5);
    assert_eq!(ask(&gateway), (403, Value::Null));
}

#[test]
fn a_gateway_starts_beside_a_broken_shadow_policy_and_check_says_so() {
    let upstream = Upstream::start();
    let builder = shadowed(&upstream).file("next.yaml", "rules: [{name: x}]\n");
    let config = builder.write_config();
    let checked = portcullis(&["check", "--config", &config.to_string_lossy()]);
    assert_eq!(checked.code, Some(1), "{}", checked.all());
    assert!(checked.stderr.contains("next.yaml:1: rules[0]"), "{}", checked.stderr);
    let gateway = builder.start();
    assert_eq!(gateway.h1().request("GET", "/v2/own/app/tags/list", &[], b"").expect("an answer").status, 200);
    let record = gateway.wait_for_record(|record| record["repository"] == "own/app");
    assert_eq!((&record["decision"], &record["shadow_decision"]), (&json!("allow"), &Value::Null));
    assert!(gateway.log().iter().any(|line| line.contains("none is evaluated")), "{:?}", gateway.log());
}

#[test]
fn a_shadow_policy_is_read_again_when_its_file_changes() {
    let upstream = Upstream::start();
    let gateway = shadowed(&upstream).configure(|config| config["reload"] = json!({ "watch": true })).start();
    assert!(fs::metadata(gateway.path().join("next.yaml")).is_ok());
    gateway.write("next.yaml", "rules: []\n");
    gateway.wait_for_metric("portcullis_config_generation", &[], |generation| generation >= 2.0);
    gateway.h1().request("GET", "/v2/own/app/tags/list", &[], b"").expect("an answer");
    let record = gateway.wait_for_record(|record| record["repository"] == "own/app");
    assert_eq!((&record["shadow_decision"], &record["shadow_rule"]), (&json!("deny"), &Value::Null));
}
