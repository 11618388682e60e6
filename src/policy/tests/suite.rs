//! Case files: what they say about a policy, and every mistake of theirs.

use super::*;
use crate::config::policy::cases::CasesFile;
use crate::config::{Diagnostics, parse_yaml};
use crate::policy::suite::{self, Outcome, Request, Suite};

fn suite(yaml: &str, policy: &Policy) -> Result<Suite, Diagnostics> {
    let read_certificate = |name: &str| match name {
        "ci.crt" => Ok(client(&["CN=ci-7", "OU=build"])),
        other => Err(format!("\"{other}\" is not there")),
    };
    parse_yaml("cases.yaml".as_ref(), yaml.as_bytes(), |file: CasesFile| {
        suite::compile(&file, policy, &read_certificate)
    })
    .map(|document| document.value)
}

const CASES: &str = "
clients:
  red: {uri: spiffe://corp.example/ns/red/sa/ci}
  robot: {certificate: ci.crt}
  described: {subject: [CN=ci-8, OU=build], dns: [A.Example.com, b.example.com], email: Bob@OPS.Example.com, ip: 10.0.0.1}
cases:
  - {name: own, client: red, requests: [GET /v2/team/red/manifests/v1, 'PUT https://gw.example/v2/team/red/manifests/v1'],
     expect: allow, rule: teams-push, exists: false}
  - {name: again, client: red, requests: PUT /v2/team/red/manifests/v1, expect: deny, exists: true, rule: default deny}
  - {name: mount, client: red, expect: allow, rule: teams-push,
     requests: 'POST /v2/team/red/blobs/uploads/?mount=SHA&from=secret/x'}
  - {name: by certificate, client: robot, requests: GET /v2/shared/base/tags/list, expect: allow, address: 192.0.2.7}
  - {name: admin, client: described, requests: GET /v2/_catalog, expect: allow, rule: admins}
  - {name: frozen, client: described, requests: PUT /v2/shared/base/manifests/v1, expect: deny, rule: frozen}
  - {name: nobody, client: red, requests: GET /v2/team/blue/tags/list, expect: deny, rule: default deny}
  - {name: ping, client: red, requests: GET /v2/, expect: allow, rule: ping}
  - {name: invalid, client: red, requests: [GET /v2/A/tags/list, BREW /v2/a/tags/list], expect: invalid}
  - {name: code, client: red, requests: GET /v2/A/tags/list, expect: invalid, rule: NAME_INVALID}
";

#[test]
fn cases_that_hold() {
    let policy = policy(TEAMS);
    let suite = suite(&CASES.replace("SHA", SHA), &policy).unwrap_or_else(|faults| panic!("{faults}"));
    let outcomes = suite.run(&policy, 0);
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.is_expected()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(outcomes.len(), 12);
}

#[test]
fn cases_that_do_not_hold_say_what_was_found_and_where() {
    let policy = policy(TEAMS);
    let yaml = "
clients: {red: {uri: spiffe://corp.example/ns/red/sa/ci}}
cases:
  - {name: one, client: red, requests: [GET /v2/a/tags/list, GET /v2/public/a/tags/list], expect: allow}
  - {name: other rule, client: red, requests: GET /v2/public/a/tags/list, expect: allow, rule: admins}
  - {name: not invalid, client: red, requests: GET /v2/, expect: invalid}
";
    let suite = suite(yaml, &policy).unwrap_or_else(|faults| panic!("{faults}"));
    let shown = |outcome: &Outcome<'_>| (outcome.is_expected(), outcome.verdict.as_str(), outcome.rule.clone());
    let outcomes = suite.run(&policy, 0);
    let keys: Vec<_> = outcomes.iter().map(|outcome| outcome.key.as_str()).collect();
    assert_eq!(keys, ["cases[0].requests[0]", "cases[0].requests[1]", "cases[1].requests[0]", "cases[2].requests[0]"]);
    assert_eq!(
        outcomes.iter().map(shown).collect::<Vec<_>>(),
        [
            (false, "deny", "default deny".to_owned()),
            (true, "allow", "everybody-reads".to_owned()),
            (false, "allow", "everybody-reads".to_owned()),
            (false, "allow", "ping".to_owned()),
        ]
    );
    let refusal = "pull from a is not allowed for spiffe://corp.example/ns/red/sa/ci (rule: default deny)";
    assert_eq!(outcomes[0].message, refusal);
}

#[test]
fn every_mistake_of_a_case_file_has_its_line_and_key() {
    let yaml = "\
clients:
  red: {uris: spiffe://corp.example/a}
  nameless: {fingerprint: 'sha256:ab'}
  empty: {}
  both: {certificate: ci.crt, dns: a}
  gone: {certificate: gone.crt}
  odd:
    subject: [CN, cn=x, 'O=']
    uri: [spiffe://Upper/a, nothing]
    email: nobody
    ip: 10.0.0.0/8
    dns: ''
cases:
  - {name: a, client: rod, requests: GET /v2/, expect: allow}
  - {name: a, client: both, requests: [], expect: allow}
  - {name: ' ', client: both, requests: [GET, G3T /v2/, GET v2/, 'GET /v2/ä'], expect: deny}
  - {name: b, client: both, requests: GET /v2/, expect: deny, rule: team-push, address: here}
  - {name: c, client: both, requests: GET /v2/, expect: invalid, rule: teams-push}
";
    let findings = suite(yaml, &policy(TEAMS)).expect_err("faults").to_string();
    for expected in [
        "cases.yaml:2: clients.red.uris: unknown key; did you mean \"uri\"?",
        "cases.yaml:3: clients.nameless.fingerprint: ",
        "cases.yaml:4: clients.empty: a client needs a name",
        "cases.yaml:5: clients.both.certificate: says all there is to say",
        "cases.yaml:6: clients.gone.certificate: \"gone.crt\" is not there",
        "cases.yaml:8: clients.odd.subject[0]: \"CN\" must be an attribute",
        "cases.yaml:8: clients.odd.subject[1]: unknown attribute \"cn\" (did you mean \"CN\"?)",
        "cases.yaml:8: clients.odd.subject[2]: ",
        "cases.yaml:9: clients.odd.uri[0]: \"spiffe://Upper/a\" is no SPIFFE ID",
        "cases.yaml:9: clients.odd.uri[1]: \"nothing\" is no URI",
        "cases.yaml:10: clients.odd.email: ",
        "cases.yaml:11: clients.odd.ip: ",
        "cases.yaml:12: clients.odd.dns: must be printable text",
        "cases.yaml:14: cases[0].client: unknown client \"rod\" (did you mean \"red\"?)",
        "cases.yaml:15: cases[1].name: \"a\" is also the name of cases[0]",
        "cases.yaml:15: cases[1].requests: is empty",
        "cases.yaml:16: cases[2].name: ",
        "cases.yaml:16: cases[2].requests[0]: \"GET\" must be a method and a path",
        "cases.yaml:16: cases[2].requests[1]: \"G3T\" is no method",
        "cases.yaml:16: cases[2].requests[2]: \"v2/\" is no URL or path",
        "cases.yaml:16: cases[2].requests[3]: ",
        "cases.yaml:17: cases[3].rule: the policy has no rule \"team-push\" (did you mean \"teams-push\"?)",
        "cases.yaml:17: cases[3].address: ",
        "cases.yaml:18: cases[4].rule: an invalid request meets no rule",
    ] {
        assert!(findings.lines().any(|line| line.starts_with(expected)), "{expected}\nnot in:\n{findings}");
    }
}

#[test]
fn values_of_a_wrong_form_are_named() {
    let yaml = "cases:\n  - {name: a, client: [x], requests: {a: b}, expect: maybe}\n";
    let findings = suite(yaml, &policy(TEAMS)).expect_err("faults").to_string();
    for expected in ["cases[0].client: ", "cases[0].requests: ", "cases[0].expect: expected one of \"allow\""] {
        assert!(findings.lines().any(|line| line.starts_with(&format!("cases.yaml:2: {expected}"))), "{findings}");
    }
    assert!(suite("", &policy(TEAMS)).is_err() && suite("cases: []", &policy(TEAMS)).is_err());
}

#[test]
fn requests_are_methods_with_paths_or_urls() {
    for (method, url, expected) in [
        ("GET", "/v2/", Some("/v2/")),
        ("PUT", "https://gw.example:5000/v2/a/manifests/v1?tag=x", Some("/v2/a/manifests/v1?tag=x")),
        ("GET", "http://gw.example", Some("/")),
        ("GET", "gw.example/v2/", None),
        ("GET", "", None),
        ("GET", "/v2/a b", None),
        ("G\nET", "/v2/", None),
        ("", "/v2/", None),
    ] {
        assert_eq!(Request::new(method, url).ok().map(|request| request.target).as_deref(), expected, "{url}");
    }
}

/// The policy of the Debian package: who may push nowhere but at home doesn't reach what everyone pulls.
#[test]
fn the_packaged_policy_keeps_what_is_shared_from_pushes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/packaging/debian/policy.yaml");
    let policy = policy(&std::fs::read_to_string(path).expect("the packaged policy"));
    let yaml = "
clients:
  team: {subject: [CN=ci-7, OU=team-a]}
  shared: {subject: [CN=x, OU=shared]}
  both: {subject: [CN=x, OU=shared, OU=team-a]}
cases:
  - {name: own, client: team, requests: [PUT /v2/team-a/app/manifests/v1, GET /v2/team-a/app/manifests/v1],
     expect: allow, rule: own-repositories}
  - {name: shared, client: shared, requests: GET /v2/shared/base/manifests/v1, expect: allow, rule: shared-images}
  - {name: only pulled, client: shared, requests: [PUT /v2/shared/base/manifests/v1, POST /v2/shared/x/blobs/uploads/],
     expect: deny, rule: default deny}
  - {name: two units, client: both, requests: [PUT /v2/shared/base/manifests/v1, PUT /v2/team-a/app/manifests/v1],
     expect: deny, rule: default deny}
  - {name: others, client: team, requests: [PUT /v2/shared/base/manifests/v1, GET /v2/team-b/app/manifests/v1],
     expect: deny, rule: default deny}
";
    let suite = suite(yaml, &policy).unwrap_or_else(|faults| panic!("{faults}"));
    let outcomes = suite.run(&policy, 0);
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.is_expected()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
