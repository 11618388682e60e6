//! Tags that exist, mounts, and tags that can't be changed.

use super::*;
use crate::policy::suite::{NO_ADDRESS, facts as facts_of};

const BY_DIGEST: &str = "/v2/app/manifests/SHA";

/// `allow by <rule>`, `refused by <rule>` or `look at <tag>`, with what is known of the tags.
fn outcome(policy: &Policy, method: &str, target: &str, tags: KnownTags<'_>) -> String {
    let target = target.replace("SHA", SHA);
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    let route = oci::route(method, path, query).expect("a route");
    let identity = client(&["CN=x"]);
    let accesses = route.accesses();
    let facts = Facts { accesses: &accesses, tags, ..facts_of(&identity, NO_ADDRESS, 0) };
    match policy.decide(&facts) {
        Decision::Permit(permit) => format!("allow by {}", permit.rule()),
        Decision::Reject(rejection) => format!("refused by {}", rejection.rule()),
        Decision::Needs(Need::TagExists { repository, tag }) => format!("look at {repository}:{tag}"),
    }
}

/// What comes out for an unknown tag, a new one, and one that exists.
#[track_caller]
fn assert_outcomes(policy: &Policy, method: &str, target: &str, expected: [&str; 3]) {
    let known = [KnownTags::Nothing, KnownTags::All(false), KnownTags::All(true)];
    assert_eq!(known.map(|tags| outcome(policy, method, target, tags)), expected, "{method} {target}");
}

const OVERWRITE: &str = "
rules:
  - { name: push, subjects: [any], repositories: ['**'], actions: [push], effect: allow }
  - { name: move, subjects: [any], repositories: [app], actions: [overwrite], tags: [latest, 'dev-*'], effect: allow }
  - { name: both, subjects: [any], repositories: [both], actions: [overwrite, push], effect: allow }
  - { name: keep, subjects: [any], repositories: [app], actions: [overwrite], tags: [dev-keep], effect: deny }
  - { name: closed, subjects: [any], repositories: [closed], actions: [push], effect: deny }
  - { name: move-closed, subjects: [any], repositories: [closed], actions: [overwrite], effect: allow }
";

#[test]
fn a_push_to_a_tag_that_exists_needs_the_right_to_overwrite() {
    let policy = policy(OVERWRITE);
    for (target, expected) in [
        ("/v2/app/manifests/v1", ["look at app:v1", "allow by push", "refused by default deny"]),
        ("/v2/app/manifests/latest", ["allow by push", "allow by push", "allow by move"]),
        ("/v2/app/manifests/dev-keep", ["look at app:dev-keep", "allow by push", "refused by keep"]),
        ("/v2/both/manifests/v1", ["allow by push", "allow by push", "allow by both"]),
        // Who may not push may not overwrite.
        ("/v2/closed/manifests/v1", ["refused by closed", "refused by closed", "refused by closed"]),
        (BY_DIGEST, ["allow by push"; 3]),
    ] {
        assert_outcomes(&policy, "PUT", target, expected);
    }
    assert_outcomes(&policy, "POST", "/v2/app/blobs/uploads/", ["allow by push"; 3]);
    assert!(policy.looks_at_tags());
}

#[test]
fn each_tag_of_a_push_by_digest_is_looked_at() {
    let policy = policy(OVERWRITE);
    let target = format!("{BY_DIGEST}?tag=latest&tag=v1&tag=v2");
    let tag = |name: &str| oci::Tag::parse(name).expect("a tag");
    for (known, expected) in [
        (vec![], "look at app:v1"),
        (vec![("v1", false)], "look at app:v2"),
        (vec![("v1", true)], "refused by default deny"),
        (vec![("v2", false)], "look at app:v1"),
        (vec![("v1", false), ("v2", true)], "refused by default deny"),
        (vec![("v2", false), ("v1", false)], "allow by push"),
    ] {
        let known: Vec<_> = known.into_iter().map(|(name, exists)| (tag(name), exists)).collect();
        assert_eq!(outcome(&policy, "PUT", &target, KnownTags::Each(&known)), expected, "{known:?}");
    }
    // What is refused in any case is refused without a look.
    let target = "/v2/closed/manifests/SHA?tag=a&tag=b";
    assert_eq!(outcome(&policy, "PUT", target, KnownTags::Nothing), "refused by closed");
}

#[test]
fn a_refused_overwrite_says_that_the_tag_exists() {
    let answer = ask_with(&policy(OVERWRITE), &client(&["CN=x"]), "PUT", "/v2/app/manifests/v1", |facts| Facts {
        tags: KnownTags::All(true),
        ..facts
    });
    assert_eq!(answer, "push to app:v1, which exists, is not allowed for CN=x (rule: default deny)");
}

#[test]
fn policies_without_the_difference_need_no_look() {
    for (rules, looks) in [
        ("[{actions: [pull, push, overwrite], effect: allow}, {actions: [push], effect: deny}]", false),
        ("[{actions: [delete], effect: deny}, {actions: [push, overwrite], effect: deny}]", false),
        ("[{actions: [push], effect: allow}]", true),
        ("[{actions: [overwrite], effect: deny}]", true),
    ] {
        let rules = rules.replace("{actions", "{name: NAME, subjects: [any], repositories: ['**'], actions");
        let rules = rules.replacen("NAME", "a", 1).replacen("NAME", "b", 1);
        assert_eq!(policy(&format!("rules: {rules}")).looks_at_tags(), looks, "{rules}");
    }
    let immutable = "immutable_tags: [{repositories: ['**'], tags: ['v*']}]";
    assert!(policy(immutable).looks_at_tags());
}

#[test]
fn a_mount_needs_a_right_to_its_source_and_no_denial_of_either() {
    let policy = policy(
        "
rules:
  - { name: push, subjects: [any], repositories: [mine], actions: [push], effect: allow }
  - { name: read, subjects: [any], repositories: [open, open-not], actions: [pull], effect: allow }
  - { name: layers, subjects: [any], repositories: ['base/**'], actions: [mount-from], effect: allow }
  - { name: no-mounts, subjects: [any], repositories: [open-not], actions: [mount-from], effect: deny }
  - { name: no-pulls, subjects: [any], repositories: [base/secret], actions: [pull], effect: deny }
",
    );
    let anybody = client(&["CN=x"]);
    let mount =
        |from: &str| ask(&policy, &anybody, "POST", &format!("/v2/mine/blobs/uploads/?mount={SHA}&from={from}"));
    assert_eq!(mount("open"), "allow by push");
    assert_eq!(mount("base/debian"), "allow by push");
    for (from, rule) in [("open-not", "no-mounts"), ("base/secret", "no-pulls"), ("other", "default deny")] {
        assert_eq!(mount(from), format!("mount from {from} is not allowed for CN=x (rule: {rule})"));
    }
    // The right to mount is none to read, and a denial of mounts keeps nobody from reading.
    assert!(!allowed(&policy, &anybody, "GET", "/v2/base/debian/tags/list"));
    assert!(!allowed(&policy, &anybody, "GET", &format!("/v2/base/debian/blobs/{SHA}")));
    assert!(allowed(&policy, &anybody, "GET", "/v2/open-not/tags/list"));
}

const IMMUTABLE: &str = "
rules:
  - { name: all, subjects: [any], repositories: ['**'], actions: [pull, push, overwrite, delete], effect: allow }
  - { name: not, subjects: [any], repositories: [closed], actions: [push, delete], effect: deny }
immutable_tags:
  - { repositories: ['app/**', closed], tags: ['v*', stable], except: ['v*-rc*'] }
  - { repositories: [app/all], tags: ['*'] }
";

#[test]
fn immutable_tags_are_pushed_once_and_stay() {
    let policy = policy(IMMUTABLE);
    let immutable = "refused by immutable tags";
    for (target, expected) in [
        ("/v2/app/manifests/v1", ["look at app:v1", "allow by all", immutable]),
        ("/v2/app/x/y/manifests/stable", ["look at app/x/y:stable", "allow by all", immutable]),
        ("/v2/app/manifests/v1-rc2", ["allow by all"; 3]),
        ("/v2/app/all/manifests/v1-rc2", ["look at app/all:v1-rc2", "allow by all", immutable]),
        ("/v2/app/manifests/latest", ["allow by all"; 3]),
        ("/v2/other/manifests/v1", ["allow by all"; 3]),
        ("/v2/closed/manifests/v1", ["refused by not"; 3]),
        ("/v2/app/manifests/SHA", ["allow by all"; 3]),
        ("/v2/app/manifests/SHA?tag=latest&tag=v2", ["look at app:v2", "allow by all", immutable]),
    ] {
        assert_outcomes(&policy, "PUT", target, expected);
    }
    for (target, expected) in [
        ("/v2/app/manifests/v1", immutable),
        ("/v2/app/manifests/latest", "allow by all"),
        ("/v2/app/manifests/v1-rc1", "allow by all"),
        // It may remove a tag that can't be changed, and which tags it removes nobody sees.
        ("/v2/app/manifests/SHA", immutable),
        ("/v2/app/blobs/SHA", immutable),
        ("/v2/other/manifests/SHA", "allow by all"),
        ("/v2/closed/manifests/v1", "refused by not"),
    ] {
        assert_outcomes(&policy, "DELETE", target, [expected; 3]);
    }
    assert_outcomes(&policy, "GET", "/v2/app/manifests/v1", ["allow by all"; 3]);
}

#[test]
fn lists_of_referrers_can_always_be_brought_up_to_date() {
    let policy = policy(IMMUTABLE);
    let digits = SHA.trim_start_matches("sha256:");
    for (tag, expected) in [
        (format!("sha256-{digits}"), "allow by all"),
        (format!("sha512-{digits}"), "allow by all"),
        (format!("sha256-{digits}.sig"), "refused by immutable tags"),
        (format!("sha256-{}", digits.trim_start_matches('e')), "refused by immutable tags"),
    ] {
        for method in ["PUT", "DELETE"] {
            let target = format!("/v2/app/all/manifests/{tag}");
            assert_eq!(outcome(&policy, method, &target, KnownTags::All(true)), expected, "{method} {target}");
        }
    }
}

#[test]
fn an_explanation_tells_both_sides_where_nobody_has_looked() {
    let policy = policy(OVERWRITE);
    let identity = client(&["CN=x"]);
    let route = || oci::route("PUT", "/v2/app/manifests/v1", None).expect("a route");
    let facts = facts_of(&identity, NO_ADDRESS, 0);
    let told = |facts: &Facts<'_>| {
        let explanation = policy.explain(route(), facts);
        let steps = explanation.steps.iter();
        steps
            .map(|step| format!("{} {:?} {} {}", step.action, step.only_if_exists, step.allowed, step.rule()))
            .collect()
    };
    let both: Vec<String> = told(&facts);
    assert_eq!(both, ["push Some(false) true push", "overwrite Some(true) false default deny"]);
    let existing: Vec<String> = told(&Facts { tags: KnownTags::All(true), ..facts });
    assert_eq!(existing, ["overwrite None false default deny"]);
}
