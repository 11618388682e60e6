//! Policies as people write them, asked for requests as clients send them.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::policy::PolicyFile;
use crate::identity::{Attribute, Description, PeerIdentity};
use crate::oci;

use super::*;

mod circumstances;
mod existing;
mod faults;
mod matching;
mod reference;
mod suite;
mod unusable;

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn read(yaml: &str) -> PolicyFile {
    serde_yaml::from_str(yaml).expect("a policy file")
}

fn policy(yaml: &str) -> Policy {
    compile(&read(yaml)).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// An identity from words such as `CN=x`, `issuer.CN=ca`, `dns=…`, `uri=…`, `email=…`, `ip=…`.
fn client(names: &[&str]) -> PeerIdentity {
    let mut description = Description { fingerprint: [0xab; 32], spki: [0xcd; 32], ..Description::default() };
    for name in names {
        let (kind, value) = name.split_once('=').expect("kind=value");
        let value = value.to_owned();
        let attribute = |name: &str| Attribute { name: name.to_owned().into(), value: value.clone() };
        match kind {
            "dns" => description.dns.push(value),
            "uri" => description.uris.push(value),
            "email" => description.emails.push(value),
            "ip" => description.ips.push(value.parse().expect("an address")),
            _ => match kind.strip_prefix("issuer.") {
                Some(kind) => description.issuer.push(attribute(kind)),
                None => description.subject.push(attribute(kind)),
            },
        }
    }
    PeerIdentity::described(description)
}

/// `allow by <rule>` or the refusal's text, for tags that don't exist.
fn ask(policy: &Policy, identity: &PeerIdentity, method: &str, target: &str) -> String {
    ask_with(policy, identity, method, target, |facts| Facts { tags: KnownTags::All(false), ..facts })
}

/// The same for facts that `change` changes.
fn ask_with(
    policy: &Policy,
    identity: &PeerIdentity,
    method: &str,
    target: &str,
    change: impl for<'f> Fn(Facts<'f>) -> Facts<'f>,
) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let route = oci::route(method, path, query).expect("a route");
    let accesses = route.accesses();
    let facts = Facts {
        identity,
        standing: None,
        accesses: accesses.as_ref(),
        now: 1_790_000_000,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        tls: TlsFacts::new("TLSv1.3"),
        tags: KnownTags::Nothing,
    };
    match policy.decide(&change(facts)) {
        Decision::Permit(permit) => format!("allow by {}", permit.rule()),
        Decision::Reject(rejection) => rejection.to_string(),
        Decision::Needs(need) => format!("{need:?}"),
    }
}

fn allowed(policy: &Policy, identity: &PeerIdentity, method: &str, target: &str) -> bool {
    ask(policy, identity, method, target).starts_with("allow by ")
}

const TEAMS: &str = r#"
groups:
  ci:
    - subject: { CN: "ci-*", OU: build }
    - uri: "spiffe://corp.example/ns/*/sa/ci"
  admins:
    - email: "*@ops.example.com"
rules:
  - name: teams-push
    subjects: [ci]
    repositories: ["team/${san.uri.path[1]}/**", shared/base]
    actions: [pull, push]
    effect: allow
  - { name: everybody-reads, subjects: [any], repositories: ["public/**"], actions: [pull], effect: allow }
  - { name: admins, subjects: [admins], repositories: ["**"], actions: [pull, push, delete, catalog], effect: allow }
  - { name: frozen, subjects: [any], repositories: ["shared/base"], actions: [push, delete], effect: deny }
"#;

#[test]
fn decisions_name_their_rule() {
    let policy = policy(TEAMS);
    let ci = client(&["uri=spiffe://corp.example/ns/red/sa/ci"]);
    let admin = client(&["CN=root", "email=root@ops.example.com"]);
    let robot = client(&["CN=ci-7", "OU=build"]);
    let nobody = client(&["CN=nobody"]);
    for (identity, method, target, expected) in [
        (&ci, "GET", "/v2/", "allow by ping"),
        (&nobody, "GET", "/v2/", "allow by ping"),
        (&ci, "PUT", "/v2/team/red/app/manifests/v1", "allow by teams-push"),
        (&ci, "POST", "/v2/team/red/blobs/uploads/", "allow by teams-push"),
        (&ci, "GET", "/v2/shared/base/manifests/v1", "allow by teams-push"),
        (&nobody, "GET", "/v2/public/x/tags/list", "allow by everybody-reads"),
        (&admin, "GET", "/v2/_catalog", "allow by admins"),
        (&admin, "DELETE", "/v2/team/red/app/manifests/v1", "allow by admins"),
        (&robot, "GET", "/v2/shared/base/tags/list", "allow by teams-push"),
        (
            &robot,
            "PUT",
            "/v2/team-a/app/manifests/v1",
            "push to team-a/app:v1 is not allowed for CN=ci-7 (rule: default deny)",
        ),
        (
            &ci,
            "GET",
            "/v2/team/blue/app/tags/list",
            "pull from team/blue/app is not allowed for spiffe://corp.example/ns/red/sa/ci (rule: default deny)",
        ),
        (&nobody, "GET", "/v2/_catalog", "listing the catalog is not allowed for CN=nobody (rule: default deny)"),
        (
            &admin,
            "PUT",
            "/v2/shared/base/manifests/v1",
            "push to shared/base:v1 is not allowed for CN=root (rule: frozen)",
        ),
        (
            &nobody,
            "DELETE",
            "/v2/public/x/manifests/v1",
            "delete in public/x:v1 is not allowed for CN=nobody (rule: default deny)",
        ),
    ] {
        assert_eq!(ask(&policy, identity, method, target), expected, "{method} {target}");
    }
}

#[test]
fn an_empty_policy_denies() {
    let empty = policy("{}");
    let anybody = client(&["CN=a"]);
    assert!(allowed(&empty, &anybody, "HEAD", "/v2/"));
    for (method, target) in [("GET", "/v2/a/tags/list"), ("GET", "/v2/_catalog"), ("POST", "/v2/a/blobs/uploads/")] {
        assert!(!allowed(&empty, &anybody, method, target), "{method} {target}");
    }
}

#[test]
fn a_refusal_tells_its_decision_id() {
    let route = oci::route("GET", "/v2/a/tags/list", None).expect("a route");
    let (identity, accesses) = (client(&["CN=x"]), route.accesses());
    let facts = Facts {
        identity: &identity,
        standing: None,
        accesses: &accesses,
        now: 0,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        tls: TlsFacts::new("TLSv1.2"),
        tags: KnownTags::Nothing,
    };
    let Decision::Reject(rejection) = policy("{}").decide(&facts) else { panic!("not refused") };
    let expected = "pull from a is not allowed for CN=x (rule: default deny; decision 01J)";
    assert_eq!(rejection.message("01J"), expected);
    assert_eq!((rejection.rule(), rejection.rule.clone()), ("default deny", None));
}

#[test]
fn a_mount_needs_both_repositories() {
    let policy = policy(TEAMS);
    let ci = client(&["uri=spiffe://corp.example/ns/red/sa/ci"]);
    let mount = |from: &str| format!("/v2/team/red/app/blobs/uploads/?mount={SHA}&from={from}");
    assert_eq!(ask(&policy, &ci, "POST", &mount("public/base")), "allow by teams-push");
    let refusal = ask(&policy, &ci, "POST", &mount("team/blue/app"));
    assert!(refusal.starts_with("mount from team/blue/app is not allowed"), "{refusal}");
    let refusal = ask(&policy, &ci, "POST", &format!("/v2/public/x/blobs/uploads/?mount={SHA}&from=public/base"));
    assert!(refusal.starts_with("push to public/x is not allowed"), "{refusal}");
}

#[test]
fn deny_wins_wherever_it_stands() {
    for order in [["allow", "deny"], ["deny", "allow"]] {
        let rules = order.map(|effect| {
            format!(
                "- {{name: {effect}, subjects: [any], repositories: ['a/**'], actions: [pull], effect: {effect}}}\n"
            )
        });
        let policy = policy(&format!("rules:\n{}", rules.concat()));
        let answer = ask(&policy, &client(&["CN=x"]), "GET", "/v2/a/b/tags/list");
        assert!(answer.ends_with("(rule: deny)"), "{answer}");
    }
}

#[test]
fn the_first_matching_rule_of_the_file_is_named() {
    let policy = policy(
        "rules:\n\
         - {name: other, subjects: [any], repositories: [b], actions: [pull], effect: allow}\n\
         - {name: wide, subjects: [any], repositories: ['**'], actions: [pull], effect: allow}\n\
         - {name: exact, subjects: [any], repositories: [a, a/b, 'a/*'], actions: [pull], effect: allow}\n\
         - {name: last, subjects: [any], repositories: ['*/b'], actions: [push], effect: allow}\n",
    );
    let anybody = client(&["CN=x"]);
    assert_eq!(ask(&policy, &anybody, "GET", "/v2/a/b/tags/list"), "allow by wide");
    assert_eq!(ask(&policy, &anybody, "GET", "/v2/b/tags/list"), "allow by other");
    assert_eq!(ask(&policy, &anybody, "POST", "/v2/a/b/blobs/uploads/"), "allow by last");
    assert_eq!(policy.rules().map(Rule::name).collect::<Vec<_>>(), ["other", "wide", "exact", "last"]);
}

const TAGS: &str = "
rules:
  - name: releases
    subjects: [any]
    repositories: [app]
    actions: [push, delete]
    tags: ['v*', latest]
    effect: allow
  - { name: no-lts, subjects: [any], repositories: ['**'], actions: [push, delete], tags: ['*-lts'], effect: deny }
  - { name: open, subjects: [any], repositories: [open], actions: [push, delete], effect: allow }
";

#[test]
fn tags_limit_each_tag_that_is_pushed() {
    let policy = policy(TAGS);
    let anybody = client(&["CN=x"]);
    let by_digest = format!("/v2/app/manifests/{SHA}");
    for (target, rule) in [
        ("/v2/app/manifests/v1".to_owned(), "allow by releases"),
        ("/v2/app/manifests/dev".to_owned(), "(rule: default deny)"),
        ("/v2/app/manifests/v1-lts".to_owned(), "(rule: no-lts)"),
        (by_digest.clone(), "allow by releases"),
        (format!("{by_digest}?tag=v1&tag=latest"), "allow by releases"),
        (format!("{by_digest}?tag=v1&tag=dev"), "(rule: default deny)"),
        (format!("{by_digest}?tag=dev&tag=v1"), "(rule: default deny)"),
        (format!("{by_digest}?tag=v1&tag=v1-lts"), "(rule: no-lts)"),
    ] {
        let answer = ask(&policy, &anybody, "PUT", &target);
        assert!(answer.ends_with(rule), "{target}: {answer}");
    }
    assert!(allowed(&policy, &anybody, "POST", "/v2/app/blobs/uploads/"), "blobs have no tag");
    assert!(ask(&policy, &anybody, "PUT", &format!("{by_digest}?tag=v1&tag=dev")).starts_with("push to app:dev is"));
}

#[test]
fn a_delete_by_digest_needs_the_right_without_tag_limits() {
    let denying = policy(TAGS);
    let anybody = client(&["CN=x"]);
    for (target, rule) in [
        ("/v2/app/manifests/v1".to_owned(), "allow by releases"),
        ("/v2/open/manifests/v1".to_owned(), "allow by open"),
        (format!("/v2/app/manifests/{SHA}"), "(rule: no-lts)"),
        (format!("/v2/open/manifests/{SHA}"), "(rule: no-lts)"),
        (format!("/v2/open/blobs/{SHA}"), "(rule: no-lts)"),
    ] {
        let answer = ask(&denying, &anybody, "DELETE", &target);
        assert!(answer.ends_with(rule), "{target}: {answer}");
    }
    let without_denial = TAGS.lines().filter(|line| !line.contains("no-lts")).collect::<Vec<_>>().join("\n");
    let policy = policy(&without_denial);
    assert!(!allowed(&policy, &anybody, "DELETE", &format!("/v2/app/manifests/{SHA}")));
    assert!(allowed(&policy, &anybody, "DELETE", &format!("/v2/open/manifests/{SHA}")));
}
