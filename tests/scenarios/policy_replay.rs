//! Requests of the past asked again: `policy explain --decision` and `policy diff`, over logs that a gateway wrote.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::DIGEST;
use crate::policy_tools::{files, portcullis};
use crate::support::gateway::{Gateway, gateway};
use crate::support::pki;
use crate::support::process::{self, Finished};
use crate::support::upstream::Upstream;

const POLICY: &str = "
groups:
  ci: [{uri: 'spiffe://corp.example/ns/test/sa/*'}]
  team: [{subject: {OU: team-a}}]
rules:
  - {name: own, subjects: [ci], repositories: ['${subject.cn}/**'], actions: [pull, push, overwrite], effect: allow}
  - {name: shared, subjects: [any], repositories: ['shared/**'], actions: [pull], effect: allow}
  - {name: team, subjects: [team], repositories: ['team-a/**'], actions: [pull, push, overwrite], effect: allow}
  - {name: tags, subjects: [ci], repositories: [shared/base], actions: [push, overwrite], tags: ['v*'], effect: allow}
  - {name: frozen, subjects: [any], repositories: ['*/archive/**'], actions: [push, delete], effect: deny}
";

/// A gateway that has decided over some requests of two clients, and its records.
fn decided() -> (Upstream, Gateway, Vec<Value>) {
    let upstream = Upstream::start();
    let gateway = gateway().policy(POLICY).upstream(upstream.url()).start();
    let mount = |from: &str| format!("/v2/ci-7/app/blobs/uploads/?mount={DIGEST}&from={from}");
    let asked = [
        ("GET", "/v2/".to_owned()),
        ("PUT", "/v2/ci-7/app/manifests/v1".to_owned()),
        ("PUT", "/v2/ci-7/archive/x/manifests/v1".to_owned()),
        ("PUT", "/v2/shared/base/manifests/latest".to_owned()),
        ("PUT", format!("/v2/shared/base/manifests/{DIGEST}?tag=v1&tag=latest")),
        ("PUT", format!("/v2/shared/base/manifests/{DIGEST}?tag=v1&tag=v2")),
        ("POST", mount("shared/base")),
        ("POST", mount("ci-8/app")),
        ("GET", "/v2/_catalog?n=3".to_owned()),
        ("GET", "/v2/ci-7/%2e%2e/ci-8/manifests/v1".to_owned()),
    ];
    let member = gateway.client_ca.issue(&pki::client("alice").attribute("OU", "team-a").attribute("OU", "users"));
    for mut client in gateway.both() {
        for (method, target) in &asked {
            client.request(method, target, &[], b"");
        }
    }
    gateway.h1_as(&member).request("PUT", "/v2/team-a/app/manifests/v1", &[], b"").expect("an answer");
    let wanted = 2 * asked.len() + 1;
    gateway.wait_for_record(|_| gateway.records().len() >= wanted);
    let records = gateway.records();
    assert_eq!(records.len(), wanted);
    (upstream, gateway, records)
}

fn explain(gateway: &Gateway, decision: &str, more: &[&str]) -> Finished {
    let path = |name: &str| gateway.path().join(name).to_string_lossy().into_owned();
    let (config, log) = (path("portcullis.yaml"), path("access.log"));
    let arguments = ["policy", "explain", "--config", &config, "--decision", decision, "--log", &log];
    portcullis(&[&arguments[..], more].concat())
}

#[test]
fn every_recorded_decision_comes_out_the_same_by_the_same_policy() {
    let (_upstream, gateway, records) = decided();
    let mut seen = Vec::new();
    for record in &records {
        let id = record["decision_id"].as_str().expect("an id");
        let explained = explain(&gateway, id, &["--json"]);
        let told: Value =
            serde_json::from_str(&explained.text()).unwrap_or_else(|e| panic!("{e}: {}", explained.all()));
        let why = format!("{record:#}\n{told:#}");
        assert_eq!(told["differs"], false, "{why}");
        assert_eq!(told["certain"], true, "{why}");
        match record["decision"].as_str() {
            None => assert_eq!(told["decision"], "unasked", "{why}"),
            Some(decision) => {
                assert_eq!(told["decision"], decision, "{why}");
                assert_eq!(told["rule"], *record["rule"].as_str().unwrap_or("default deny"), "{why}");
            }
        }
        assert_eq!(explained.code, Some(if told["allowed"] == true { 0 } else { 4 }), "{why}");
        seen.push(told["recorded"]["decision"].as_str().unwrap_or("none").to_owned());
    }
    for judged in ["allow", "allow_without_mount", "deny", "none"] {
        assert!(seen.iter().any(|seen| seen == judged), "{judged}: {seen:?}");
    }
}

#[test]
fn a_client_s_refusal_leads_to_its_explanation() {
    let (_upstream, gateway, _records) = decided();
    let reply = gateway.h1().request("PUT", "/v2/other/app/manifests/v1", &[], b"").expect("an answer");
    let told = reply.text();
    let id = told.split("decision ").nth(1).and_then(|rest| rest.split(')').next()).expect(&told).to_owned();
    gateway.wait_for_record(|record| record["decision_id"] == *id);
    let explained = explain(&gateway, &id.to_lowercase(), &[]);
    assert_eq!(explained.code, Some(4), "{}", explained.all());
    for part in [
        "then      refused by default deny; today it comes out alike",
        "generation 1",
        "uri spiffe://corp.example/ns/test/sa/ci-7",
        "issuer CN=Test Client CA",
        "from      127.0.0.1",
        "push other/app:v1: refused by default deny",
        "${subject.cn} is ci-7",
    ] {
        assert!(explained.text().contains(part), "{part}\nnot in\n{}", explained.text());
    }
    // The policy is changed. The gateway needs not know.
    gateway.write(
        "policy.yaml",
        POLICY.replace("['shared/**'], actions: [pull]", "['other/**'], actions: [push, overwrite]"),
    );
    let explained = explain(&gateway, &id, &[]).expect_success("allowed now");
    assert!(explained.text().contains("refused by default deny; today it comes out otherwise"), "{}", explained.text());
    assert!(explained.text().contains("decision  allowed by shared"), "{}", explained.text());
    // By standard input, behind a log that doesn't hold it.
    let log = fs::read(gateway.path().join("access.log")).expect("the log");
    fs::write(gateway.path().join("empty.log"), "").expect("written");
    let at = |name: &str| gateway.path().join(name).to_string_lossy().into_owned();
    let (policy, empty) = (at("policy.yaml"), at("empty.log"));
    let arguments = ["policy", "explain", "--policy", &policy, "--decision", &id, "--log", &empty, "--log", "-"];
    process::run(env!("CARGO_BIN_EXE_portcullis"), &arguments, &log, Duration::from_secs(20)).expect_success("stdin");
    let missing = explain(&gateway, "01HF7YAT3V0000000000000007", &[]);
    assert_eq!(missing.code, Some(1), "{}", missing.all());
    assert!(missing.stderr.contains("no record of decision 01HF7YAT3V0000000000000007 in "), "{}", missing.stderr);
}

#[test]
fn a_question_is_about_a_record_or_about_a_client() {
    let (_directory, at) = files(&[("policy.yaml", "rules: []\n"), ("old.log", "{}\n")]);
    let (policy, log) = (at("policy.yaml"), at("old.log"));
    let explain = |more: &[&str]| portcullis(&[&["policy", "explain", "--policy", &policy], more].concat());
    for arguments in [
        &["--decision", "01HF7YAT3V0000000000000007"][..],
        &["--log", &log, "--subject", "CN=x", "GET", "/v2/"],
        &["--decision", "x", "--log", &log, "--subject", "CN=x"],
        &["--decision", "x", "--log", &log, "GET", "/v2/"],
        &["--subject", "CN=x"],
        &["--subject", "CN=x", "GET"],
    ] {
        let finished = explain(arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.all());
    }
    let gone = explain(&["--decision", "x", "--log", &at("gone.log")]);
    assert!(gone.code == Some(1) && gone.stderr.contains("gone.log: "), "{}", gone.all());
}

#[test]
fn a_certificate_with_more_names_than_a_record_holds_is_not_explained_with_certainty() {
    let upstream = Upstream::start();
    let gateway = gateway().policy(POLICY).upstream(upstream.url()).start();
    let mut profile = pki::client("many");
    for i in 0..100 {
        profile = profile.san(&format!("DNS:{i}.{}.example.com", "x".repeat(60)));
    }
    let many = gateway.client_ca.issue(&profile);
    gateway.h1_as(&many).request("GET", "/v2/many/app/tags/list", &[], b"").expect("an answer");
    let record = gateway.wait_for_record(|record| record["repository"] == "many/app");
    assert_eq!(record["names"]["cut"], true, "{record:#}");
    assert!(record.to_string().len() < 8 * 1024, "{}", record.to_string().len());
    let explained = explain(&gateway, record["decision_id"].as_str().expect("an id"), &[]);
    assert!(explained.text().contains("caution   the record was cut"), "{}", explained.all());
}

#[test]
fn a_diff_counts_who_would_lose_and_gain_what() {
    let (_upstream, gateway, records) = decided();
    let at = |name: &str| gateway.path().join(name).to_string_lossy().into_owned();
    let (old, new, log) = (at("policy.yaml"), at("new.yaml"), at("access.log"));
    // The team loses its repositories, builds may push `latest`, and nobody pulls from `shared` any more.
    let text = POLICY
        .replace("['team-a/**']", "['team-b/**']")
        .replace("tags: ['v*'], ", "")
        .replace("repositories: ['shared/**']", "repositories: ['gone/**']");
    gateway.write("new.yaml", text);
    let diff = |more: &[&str]| portcullis(&[&["policy", "diff", &old, &new, "--log", &log], more].concat());
    let finished = diff(&["--json"]);
    assert_eq!(finished.code, Some(1), "{}", finished.all());
    let told: Value = serde_json::from_str(&finished.text()).expect("JSON");
    let expected = json!({ "requests": 19, "undecided": 2, "unreadable": 0, "untold": 0, "unknown": 0, "drifted": 0,
        "ungrouped": 0, "differing": 7 });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&told[key], value, "{key}: {told:#}");
    }
    let build = "spiffe://corp.example/ns/test/sa/ci-7";
    let group = |client: &str, repository: &str, count: u64, old: [&str; 2], new: [&str; 2]| {
        let found =
            told["groups"].as_array().expect("groups").iter().find(|group| {
                group["client"] == client && group["action"] == "push" && group["repository"] == repository
            });
        let found = found.unwrap_or_else(|| panic!("{client} {repository}: {told:#}"));
        assert_eq!(found["count"], count, "{found:#}");
        for (key, [decision, rule]) in [("old", old), ("new", new)] {
            assert_eq!(found[key], json!({ "decision": decision, "rule": rule }), "{found:#}");
        }
        let example = records.iter().find(|record| record["decision_id"] == found["example"]).expect("an example");
        assert_eq!(example["identity"], client);
    };
    group(build, "shared/base", 4, ["deny", "default deny"], ["allow", "tags"]);
    group(build, "ci-7/app", 2, ["allow", "own"], ["allow_without_mount", "own"]);
    let alice = records.iter().find(|record| record["repository"] == "team-a/app").expect("a record");
    let alice = alice["identity"].as_str().expect("a label");
    group(alice, "team-a/app", 1, ["allow", "team"], ["deny", "default deny"]);
    let page = diff(&[]).text();
    for part in [
        "       4  spiffe://corp.example/ns/test/sa/ci-7  push shared/base: deny (default deny) -> allow (tags)  [01",
        "allow (own) -> allow_without_mount (own)",
        "7 of 19 requests come out otherwise\n2 were refused before a policy was asked\n",
    ] {
        assert!(page.contains(part), "{part}\nnot in\n{page}");
    }
    let same = portcullis(&["policy", "diff", &old, &old, "--log", &log]).expect_success("the same policy");
    assert!(same.text().starts_with("0 of 19 requests"), "{}", same.text());
    // A log of a time when something else was in force.
    let drifted = portcullis(&["policy", "diff", &new, &new, "--log", &log]).expect_success("the same policy");
    assert!(drifted.text().contains("7 were decided otherwise than the old policy does"), "{}", drifted.text());
}

#[test]
fn a_diff_goes_on_behind_lines_that_it_cannot_read() {
    let (_upstream, gateway, records) = decided();
    let at = |name: &str| gateway.path().join(name).to_string_lossy().into_owned();
    let (old, log, mixed) = (at("policy.yaml"), at("access.log"), at("mixed.log"));
    let good = fs::read_to_string(&log).expect("the log");
    // A line cut by a full disk, a foreign one, one of a version that told less, and one without end.
    let (whole, _) = good.split_at(good.trim_end().len() - 10);
    let mut earlier = records[1].clone();
    for key in ["names", "target"] {
        earlier.as_object_mut().expect("an object").remove(key);
    }
    let text = format!("{whole}\n\nhello\n{earlier}\n{}\n{good}", "x".repeat(300_000));
    fs::write(&mixed, &text).expect("written");
    let finished = portcullis(&["policy", "diff", &old, &old, "--log", &mixed]).expect_success("no difference");
    for part in ["0 of 37 requests", "3 lines are no access records", "1 can't be decided again"] {
        assert!(finished.text().contains(part), "{part}: {}", finished.all());
    }
    let first = format!("mixed.log:{}: this is no access record: ", whole.matches('\n').count() + 1);
    assert!(finished.stderr.contains(&first), "{first}: {}", finished.stderr);
    assert!(finished.stderr.contains("the record doesn't tell the request's target"), "{}", finished.stderr);
    let gzip = at("access.log.1.gz");
    fs::write(&gzip, [0x1f, 0x8b, 8, 0]).expect("written");
    for arguments in [
        &["policy", "diff", &old, &old, "--log", &gzip][..],
        &["policy", "diff", &old, &at("gone.yaml"), "--log", &log],
        &["policy", "diff", &old, &old],
    ] {
        let finished = portcullis(arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.all());
    }
}

#[test]
fn a_log_takes_no_more_memory_than_its_differences() {
    let (_upstream, gateway, _records) = decided();
    let directory = gateway.path().to_string_lossy().into_owned();
    // A gigabyte without the end of a line, and records behind it; half of that may be mapped, the program included.
    let script = format!(
        "ulimit -v 600000\n(head -c 1000000000 /dev/zero; echo; cat '{directory}/access.log') | \
         {} policy diff '{directory}/policy.yaml' '{directory}/policy.yaml' --log -",
        env!("CARGO_BIN_EXE_portcullis"),
    );
    let finished = process::run("bash", &["-c", &script], b"", Duration::from_secs(120)).expect_success("diff");
    for part in ["0 of 19 requests", "1 lines are no access records"] {
        assert!(finished.text().contains(part), "{part}: {}", finished.all());
    }
}
