//! `policy lint`: what is said about a policy, and with which exit code.

use std::fs;

use serde_json::Value;

use crate::policy_tools::{files, portcullis, shipped};
use crate::support::gateway::gateway;
use crate::support::pki;

const DOUBTFUL: &str = "\
groups:
  ci: [{dns: '*.ci.example.com'}]
  gone: [{subject: {OU: gone}}]
rules:
  - {name: all, subjects: [ci], repositories: ['team/**'], actions: [pull, push], effect: allow}
  - {name: some, subjects: [ci], repositories: [team/app], actions: [pull], effect: allow}
  - {name: open, subjects: [any], repositories: [drop/box], actions: [push], effect: allow}
  - {name: old, subjects: [ci], repositories: [archive/x], actions: [pull], effect: allow}
  - {name: frozen, subjects: [any], repositories: ['archive/**'], actions: [pull], effect: deny}
  - {name: held, subjects: [ci], repositories: ['team/*'], actions: [push], effect: deny}
";

#[test]
fn a_doubtful_policy_is_told_what_and_where() {
    let (_directory, at) = files(&[("policy.yaml", DOUBTFUL)]);
    let policy = at("policy.yaml");
    let lint = |more: &[&str]| portcullis(&[&["policy", "lint", "--policy", &policy], more].concat());
    let finished = lint(&[]).expect_success("without --strict");
    for part in [
        "policy.yaml:3: warning: groups.gone: no rule names the group \"gone\" (remove it, or name it in the subjects of a \
         rule) [unused_group]\n",
        "policy.yaml:6: warning: rules[1]: rule \"some\" never decides: \"all\" (rules[0]) stands before it and covers all",
        "policy.yaml:7: warning: rules[2].subjects: rule \"open\" lets every client with a verified certificate push in \
         drop/box",
        "policy.yaml:8: warning: rules[3]: rule \"old\" allows nothing: \"frozen\" (rules[4]) denies all of it",
        "policy.yaml:10: note: rules[5]: rule \"held\" denies a part of what is allowed by all",
        "4 warnings, 1 notes\n",
    ] {
        assert!(finished.text().contains(part), "{part}\nnot in\n{}", finished.text());
    }
    assert_eq!(lint(&["--strict"]).code, Some(4));
    let told: Value = serde_json::from_str(&lint(&["--json"]).text()).expect("JSON");
    let first = &told[0];
    assert_eq!(first["line"], 3);
    assert_eq!(
        (&first["kind"], &first["level"], &first["key"]),
        (&"unused_group".into(), &"warning".into(), &"groups.gone".into())
    );
    assert!(first["hint"].as_str().is_some_and(|hint| hint.contains("remove it")), "{first}");
    assert_eq!(told.as_array().map(Vec::len), Some(5));
}

#[test]
fn the_example_policy_has_notes_at_most() {
    portcullis(&["policy", "lint", "--strict", "--policy", &shipped("conf/policy.yaml")]).expect_success("lint");
}

#[test]
fn a_name_that_two_authorities_can_give_is_told_from_one_that_is_bound() {
    let builder = gateway().policy(
        "groups:\n  ci: [{dns: a.example.com}, {dns: b.example.com, issuer: {CN: Test Client CA}}]\nrules:\n  - {name: r, \
         subjects: [ci], repositories: [x], actions: [pull], effect: allow}\n",
    ).upstream("http://127.0.0.1:1");
    let config = builder.write_config().to_string_lossy().into_owned();
    let lint = || portcullis(&["policy", "lint", "--strict", "--config", &config]);
    let alone = lint().expect_success("one authority");
    assert!(alone.text().contains("0 warnings"), "{}", alone.all());
    // An intermediate of the same root is no authority of its own, and one of the same name none beside it.
    let intermediate = builder.client_ca.intermediate("Below", &[]);
    let partner = pki::Ca::root(&builder.pki(), "Partner CA");
    let bundle = |cas: &[&pki::Ca]| {
        let pems: String = cas.iter().map(|ca| fs::read_to_string(&ca.certificate).expect("the CA")).collect();
        fs::write(builder.path().join("client-ca.pem"), pems).expect("written");
    };
    bundle(&[&builder.client_ca, &intermediate]);
    lint().expect_success("one root");
    bundle(&[&builder.client_ca, &partner]);
    let two = lint();
    assert_eq!(two.code, Some(4), "{}", two.all());
    let expected =
        "policy.yaml:2: warning: groups.ci[0]: 2 authorities could issue a certificate that this describes: ";
    assert!(two.text().contains(expected) && two.text().contains("Partner CA"), "{}", two.all());
    assert!(!two.text().contains("groups.ci[1]"), "{}", two.all());
    fs::write(builder.path().join("client-ca.pem"), "").expect("written");
    let broken = lint();
    assert!(broken.code == Some(1) && broken.stderr.contains("listeners[0].tls.client_ca"), "{}", broken.all());
}

#[test]
fn a_policy_that_cannot_be_used_is_an_error_and_not_a_warning() {
    let (_directory, at) = files(&[("policy.yaml", "rules: [{name: r}]\n")]);
    let finished = portcullis(&["policy", "lint", "--policy", &at("policy.yaml")]);
    assert!(finished.code == Some(1) && finished.stderr.contains("rules[0]"), "{}", finished.all());
    let both = portcullis(&["policy", "lint", "--policy", &at("policy.yaml"), "--config", "x"]);
    assert_eq!(both.code, Some(2), "{}", both.all());
}
