//! The commands around policies: `policy explain` and `policy test`, schemas, completions and man pages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::DIGEST;
use crate::support::gateway::gateway;
use crate::support::pki;
use crate::support::process::{self, Finished};
use crate::support::upstream::Upstream;

pub fn portcullis(arguments: &[&str]) -> Finished {
    process::run(env!("CARGO_BIN_EXE_portcullis"), arguments, b"", Duration::from_secs(20))
}

pub fn shipped(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name).to_string_lossy().into_owned()
}

/// A directory with these files.
pub fn files(files: &[(&str, &str)]) -> (TempDir, impl Fn(&str) -> String + use<>) {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, content) in files {
        fs::write(directory.path().join(name), content).expect("written");
    }
    let path = directory.path().to_owned();
    (directory, move |name: &str| path.join(name).to_string_lossy().into_owned())
}

#[test]
fn the_example_cases_hold_for_the_example_policy() {
    let finished = portcullis(&["policy", "test", &shipped("conf/policy-test.yaml")]).expect_success("policy test");
    let text = finished.text();
    assert!(text.contains("all as expected"), "{text}");
    assert!(!text.contains("rules that settled no request"), "{text}");
    let quiet =
        portcullis(&["policy", "test", "--quiet", &shipped("conf/policy-test.yaml")]).expect_success("--quiet").text();
    assert_eq!(quiet.lines().count(), 1, "{quiet}");
}

#[test]
fn a_case_that_does_not_hold_is_named_with_its_line() {
    let policy = "rules: [{name: all-pull, subjects: [any], repositories: ['**'], actions: [pull], effect: allow},\n\
                  {name: unused, subjects: [any], actions: [catalog], effect: allow}]\n";
    let cases = "policy: policy.yaml\nclients: {x: {subject: CN=x}}\ncases:\n  - name: pushes\n    client: x\n    \
                 requests:\n      - GET /v2/a/tags/list\n      - PUT /v2/a/manifests/v1\n    expect: allow\n";
    let (_directory, at) = files(&[("policy.yaml", policy), ("cases.yaml", cases), ("other.yaml", "rules: []\n")]);
    let finished = portcullis(&["policy", "test", &at("cases.yaml")]);
    assert_eq!(finished.code, Some(4), "{}", finished.all());
    let expected = format!(
        "{}:8: cases[0].requests[1]: PUT /v2/a/manifests/v1: expected allow, found deny by default deny: \
         push to a:v1 is not allowed for CN=x (rule: default deny)",
        at("cases.yaml")
    );
    assert_eq!(finished.stderr.trim(), expected);
    for part in ["ok      pushes", "FAILED  pushes", "settled no request here: unused", "2 requests, 1 not as expected"]
    {
        assert!(finished.text().contains(part), "{part}: {}", finished.text());
    }
    let finished = portcullis(&["policy", "test", "--policy", &at("other.yaml"), &at("cases.yaml")]);
    assert!(finished.text().contains("2 requests, 2 not as expected"), "{}", finished.all());
}

#[test]
fn files_at_fault_are_named_with_line_and_key() {
    let (_directory, at) = files(&[
        (
            "bad-policy.yaml",
            "rules:\n  - {name: r, subjects: [nobody], repositories: [A], actions: [pull], effect: allow}\n",
        ),
        ("policy.yaml", "rules: []\n"),
        ("no-policy.yaml", "clients: {}\ncases: []\n"),
        ("names-bad.yaml", "policy: bad-policy.yaml\ncases: []\n"),
        (
            "cases.yaml",
            "policy: policy.yaml\nclients:\n  a: {certificate: gone.crt}\n  b: {certificate: key.pem}\ncases:\n  \
                        - {name: n, client: c, requests: GET /v2/, expect: allow, rule: r}\n",
        ),
        ("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ]);
    for (file, expected) in [
        ("no-policy.yaml", &["no-policy.yaml:1: policy: missing"][..]),
        ("names-bad.yaml", &["bad-policy.yaml:2: rules[0].subjects[0]: unknown group", "rules[0].repositories[0]"]),
        ("gone.yaml", &["gone.yaml: there is no such file"]),
        (
            "cases.yaml",
            &[
                "cases.yaml:3: clients.a.certificate: \"gone.crt\": there is no such file",
                "cases.yaml:4: clients.b.certificate: \"key.pem\": this holds no certificate but: PRIVATE KEY",
                "cases.yaml:6: cases[0].client: unknown client \"c\"",
                "cases.yaml:6: cases[0].rule: the policy has no rule \"r\"",
            ],
        ),
    ] {
        let finished = portcullis(&["policy", "test", &at(file)]);
        assert_eq!(finished.code, Some(1), "{file}: {}", finished.all());
        for part in expected {
            assert!(finished.stderr.contains(part), "{file}: {part}: {}", finished.stderr);
        }
    }
    let explain = |arguments: &[&str]| portcullis(&[&["policy", "explain"], arguments, &["GET", "/v2/"]].concat());
    for arguments in [
        &["--policy", &at("bad-policy.yaml"), "--subject", "CN=x"][..],
        &["--policy", &at("policy.yaml"), "--certificate", &at("key.pem")],
        &["--config", &at("gone.yaml"), "--subject", "CN=x"],
    ] {
        let finished = explain(arguments);
        assert_eq!(finished.code, Some(1), "{arguments:?}: {}", finished.all());
    }
    for arguments in [
        &["--policy", &at("policy.yaml")][..],
        &["--policy", &at("policy.yaml"), "--subject", "ci-7"],
        &["--policy", &at("policy.yaml"), "--spiffe", "spiffe://A/b"],
        &["--policy", &at("policy.yaml"), "--certificate", &at("key.pem"), "--dns", "a"],
    ] {
        let finished = explain(arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.all());
    }
}

#[test]
fn an_explanation_tells_of_every_rule_why() {
    let ask = |more: &[&str]| {
        let policy = shipped("conf/policy.yaml");
        portcullis(&[&["policy", "explain", "--policy", &policy], more].concat())
    };
    let refused =
        ask(&["--spiffe", "spiffe://example.com/team-a/build", "PUT", "https://gw/v2/team-b/app/manifests/v1"]);
    assert_eq!(refused.code, Some(4), "{}", refused.all());
    for part in [
        "decision  refused: push to team-b/app:v1 is not allowed for spiffe://example.com/team-a/build (rule: default deny)",
        "   admins-everything (allow) does not match\n     client: not described by admins[0] wants subject \
         OU=registry-admins and issuer CN=Example Client CA\n",
        "repository: team-b/app does not fit ${san.uri.path[0]}/** (${san.uri.path[0]} is team-a)",
        "   frozen (deny) does not match\n     repository: team-b/app does not fit archive/**\n",
    ] {
        assert!(refused.text().contains(part), "{part}\nnot in\n{}", refused.text());
    }
    let admin = ["--subject", "CN=root", "--subject", "OU=registry-admins", "--issuer", "CN=Example Client CA"];
    let denied = ask(&[&admin[..], &["DELETE", "/v2/archive/app/manifests/v1"]].concat());
    assert_eq!(denied.code, Some(4), "{}", denied.all());
    assert!(denied.text().contains("=> frozen (deny) matches"), "{}", denied.text());
    assert!(denied.text().contains("   admins-everything (allow) matches"), "{}", denied.text());
    let allowed =
        ask(&[&admin[..], &["--client", "192.0.2.7", "GET", "/v2/_catalog"]].concat()).expect_success("allowed");
    assert!(allowed.text().contains("=> admins-catalog (allow) matches"), "{}", allowed.text());
    assert!(allowed.text().contains("from      192.0.2.7"), "{}", allowed.text());
    let invalid = ask(&[&admin[..], &["GET", "/v2/a/../b/tags/list"]].concat());
    assert_eq!(invalid.code, Some(4), "{}", invalid.all());
    assert!(invalid.text().contains("refused before the policy is asked: 400 NAME_INVALID"), "{}", invalid.text());
}

const LIVE: &str = "
groups:
  ci: [{uri: 'spiffe://corp.example/ns/test/sa/*'}]
rules:
  - {name: own, subjects: [ci], repositories: ['${subject.cn}/**'], actions: [pull, push, overwrite], effect: allow}
  - {name: shared, subjects: [any], repositories: ['shared/**'], actions: [pull], effect: allow}
  - {name: releases, subjects: [ci], repositories: [shared/base], actions: [push, overwrite], tags: ['v*'], effect: allow}
  - {name: frozen, subjects: [any], repositories: ['*/archive/**'], actions: [push, delete], effect: deny}
";

#[test]
fn an_explanation_is_what_the_gateway_does() {
    let upstream = Upstream::start();
    let gateway = gateway().policy(LIVE).upstream(upstream.url()).start();
    let identity = gateway.identity();
    let config = gateway.path().join("portcullis.yaml");
    let mut client = gateway.h1();
    let mount = |from: &str| format!("/v2/ci-7/app/blobs/uploads/?mount={DIGEST}&from={from}");
    let mut decisions = BTreeSet::new();
    for (i, (method, target)) in [
        ("GET", "/v2/".to_owned()),
        ("GET", "/v2/ci-7/app/manifests/v1".to_owned()),
        ("PUT", "/v2/ci-7/app/manifests/v1".to_owned()),
        ("PUT", "/v2/ci-7/archive/x/manifests/v1".to_owned()),
        ("GET", "/v2/ci-7/archive/x/manifests/v1".to_owned()),
        ("GET", "/v2/shared/base/tags/list".to_owned()),
        ("PUT", "/v2/shared/base/manifests/v1".to_owned()),
        ("PUT", "/v2/shared/base/manifests/latest".to_owned()),
        ("DELETE", format!("/v2/ci-7/app/manifests/{DIGEST}")),
        ("POST", mount("shared/base")),
        ("POST", mount("ci-8/app")),
        ("GET", "/v2/ci-8/app/manifests/v1".to_owned()),
        ("GET", "/v2/_catalog".to_owned()),
        ("GET", "/v2/ci-7/%2e%2e/ci-8/manifests/v1".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = client.request(method, &target, &[], b"").expect("an answer");
        gateway.wait_for_record(|_| gateway.records().len() > i);
        let record = gateway.records().remove(i);
        let chain = identity.chain.to_string_lossy();
        let config = config.to_string_lossy();
        let explained =
            portcullis(&["policy", "explain", "--config", &config, "--certificate", &chain, "--json", method, &target]);
        let told: Value =
            serde_json::from_str(&explained.text()).unwrap_or_else(|e| panic!("{e}: {}", explained.all()));
        let why = format!("{method} {target}: {record}\n{told:#}");
        let decision = told["decision"].as_str().expect("a decision");
        assert_eq!(told["allowed"], Value::from(reply.status < 400), "{why}");
        assert_eq!(explained.code, Some(if reply.status < 400 { 0 } else { 4 }), "{why}");
        match decision {
            "invalid" => assert_eq!(reply.status, 400, "{why}"),
            _ => assert_eq!(record["decision"], decision, "{why}"),
        }
        if decision == "allow" || told["rule"] != "default deny" && decision == "deny" {
            assert_eq!(record["rule"], told["rule"], "{why}");
        }
        decisions.insert(decision.to_owned());
    }
    assert_eq!(decisions.into_iter().collect::<Vec<_>>(), ["allow", "deny", "invalid"]);
}

#[test]
fn a_certificate_that_the_handshake_refuses_is_said_to_be() {
    let builder = gateway();
    let ca = pki::Ca::root(&builder.pki(), "Tools CA");
    let (_directory, at) = files(&[("policy.yaml", LIVE)]);
    let policy = at("policy.yaml");
    let explain = |certificate: &PathBuf| {
        let certificate = certificate.to_string_lossy().into_owned();
        portcullis(&[
            "policy",
            "explain",
            "--policy",
            &policy,
            "--certificate",
            &certificate,
            "GET",
            "/v2/shared/a/tags/list",
        ])
    };
    let good = explain(&ca.issue(&pki::client("ci-7")).certificate).expect_success("a client");
    assert!(good.text().contains("issuer CN=Tools CA"), "{}", good.text());
    for (profile, expected) in [
        (pki::client("old").version1(), "X.509 version 1"),
        (pki::server(&["gw.test"]), "lacks clientAuth"),
        (pki::client("weak").key(pki::Key::Rsa(1024)), "RSA of 1024 bits"),
        (pki::client("sha").sha1(), "SHA-1"),
    ] {
        let finished = explain(&ca.issue(&profile).certificate);
        assert_eq!(finished.code, Some(4), "{}", finished.all());
        assert!(
            finished.text().contains("refused in the TLS handshake: ") && finished.text().contains(expected),
            "{}",
            finished.all()
        );
    }
}

#[test]
fn schemas_are_strict_and_know_every_key_of_the_examples() {
    for (kind, example) in
        [("config", "conf/portcullis.yaml"), ("policy", "conf/policy.yaml"), ("cases", "conf/policy-test.yaml")]
    {
        let text = portcullis(&["schema", kind]).expect_success(kind).text();
        let schema: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{kind}");
        let definitions = schema["$defs"].as_object().into_iter().flatten().map(|(_, definition)| definition);
        let objects = definitions.chain([&schema]).filter(|definition| definition.get("properties").is_some());
        let mut known = BTreeSet::new();
        for object in objects {
            assert_eq!(object["additionalProperties"], false, "{kind}: {object:#}");
            known.extend(object["properties"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()));
        }
        let example = fs::read_to_string(shipped(example)).expect("the example");
        let keys = example.lines().filter_map(|line| line.trim_start_matches([' ', '-']).split_once(':'));
        let top_level = ["groups", "rules", "clients", "cases", "listeners", "upstreams", "policy"];
        for (key, _) in keys.filter(|(key, _)| top_level.contains(key)) {
            assert!(known.contains(key), "{kind}: {key}");
        }
    }
    assert_eq!(portcullis(&["schema", "polizy"]).code, Some(2));
}

#[test]
fn bash_completes_commands_and_the_other_shells_get_a_script() {
    let script = portcullis(&["completions", "bash"]).expect_success("bash").text();
    let complete = |words: &str, last: usize| {
        let program = format!(
            "{script}\nCOMP_WORDS=({words}) COMP_CWORD={last}\n_portcullis portcullis \"${{COMP_WORDS[{last}]}}\" x\n\
                               printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        );
        process::run("bash", &["--norc"], program.as_bytes(), Duration::from_secs(10)).expect_success("bash").text()
    };
    assert_eq!(complete("portcullis pol", 1).trim(), "policy");
    assert_eq!(complete("portcullis policy exp", 2).trim(), "explain");
    assert!(complete("portcullis schema ''", 2).contains("cases"));
    for (shell, marks) in [("zsh", "#compdef portcullis"), ("fish", "complete -c portcullis")] {
        let script = portcullis(&["completions", shell]).expect_success(shell).text();
        assert!(script.contains(marks) && script.contains("explain"), "{shell}");
    }
    assert_eq!(portcullis(&["completions", "tcsh"]).code, Some(2));
}

#[test]
fn every_command_has_a_man_page() {
    let (directory, at) = files(&[]);
    portcullis(&["man", "--dir", &at("new/man1")]).expect_success("man");
    let pages = directory.path().join("new/man1");
    for (page, part) in [
        ("portcullis.1", "Exit codes"),
        ("portcullis-serve.1", "config"),
        ("portcullis-policy-explain.1", "certificate"),
        ("portcullis-policy-test.1", "expect: allow"),
        ("portcullis-schema.1", "yaml"),
    ] {
        let text = fs::read_to_string(pages.join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        assert!(text.contains(".TH ") && text.contains(part), "{page}: {text}");
    }
    fs::write(at("file"), "").expect("written");
    let finished = portcullis(&["man", "--dir", &at("file")]);
    assert_eq!(finished.code, Some(3), "{}", finished.all());
}

#[test]
fn help_shows_examples_and_exit_codes() {
    for command in [&["policy", "explain"][..], &["policy", "test"]] {
        let help = portcullis(&[command, &["--help"]].concat()).expect_success("--help").text();
        assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{command:?}: {help}");
    }
    let help = portcullis(&["--help"]).expect_success("--help").text();
    for command in ["policy", "schema", "completions", "man"] {
        assert!(help.contains(command), "{command}: {help}");
    }
}
