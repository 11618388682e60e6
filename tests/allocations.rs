//! What must allocate nothing, since every request pays for it: a decision that allows.
//!
//! A test binary of its own, because it comes with an allocator that counts.

use portcullis::config::policy::PolicyFile;
use portcullis::identity::{Attribute, Description, PeerIdentity};
use portcullis::oci::{self, Tag};
use portcullis::policy::{Decision, Facts, KnownTags, compile, suite};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const POLICY: &str = r#"
groups:
  teams: [{ uri: "spiffe://corp.example/team/{team}/*" }, { subject: { OU: "team-{team}" } }]
rules:
  - { name: own, subjects: [teams], repositories: ["team/${team}/**", "${subject.cn}/x"], actions: [pull, push, delete], effect: allow }
  - name: move
    subjects: [teams]
    repositories: ["team/*/**"]
    actions: [overwrite]
    effect: allow
    when:
      client: [10.0.0.0/8, 192.0.2.7]
      hours: [{ days: [mon], from: "08:00" }, { from: "00:00" }]
      until: "2100-01-01T00:00:00Z"
      certificate_lifetime: { at_least: 1h }
      min_tls_version: "1.3"
  - { name: layers, subjects: [any], repositories: ["base/**"], actions: [mount-from], effect: allow }
  - { name: list, subjects: [any], actions: [catalog], effect: allow }
  - { name: not, subjects: [teams], repositories: ["**/frozen"], actions: [push], tags: ["lts-*"], effect: deny }
immutable_tags:
  - { repositories: ["team/**"], tags: ["v*"], except: ["v*-rc*"] }
"#;

#[test]
fn a_decision_that_allows_allocates_nothing() {
    let file: PolicyFile = serde_yaml::from_str(POLICY).expect("a policy file");
    let policy = compile(&file).expect("a policy without faults");
    let now = 1_790_000_000;
    let identity = PeerIdentity::described(Description {
        subject: vec![Attribute { name: "CN".into(), value: "ci-7".to_owned() }],
        uris: vec!["spiffe://corp.example/team/red/build".to_owned()],
        not_after: Some(1_800_000_000),
        ..Description::default()
    });
    let standing = policy.standing(&identity);
    let known = [(Tag::parse("v1").expect("a tag"), false), (Tag::parse("latest").expect("a tag"), true)];
    let address = "10.1.2.3".parse().expect("an address");
    for (method, path, query, rule) in [
        ("GET", "/v2/", None, "ping"),
        ("GET", "/v2/_catalog", None, "list"),
        ("GET", "/v2/team/red/app/manifests/v1", None, "own"),
        ("GET", "/v2/ci-7/x/tags/list", None, "own"),
        ("POST", "/v2/team/red/app/blobs/uploads/", None, "own"),
        ("POST", "/v2/team/red/app/blobs/uploads/", Some(format!("mount={DIGEST}&from=base/debian")), "own"),
        ("PUT", "/v2/team/red/app/manifests/latest", None, "move"),
        ("PUT", "/v2/team/red/app/manifests/v1", None, "own"),
        ("PUT", &format!("/v2/team/red/app/manifests/{DIGEST}"), Some("tag=v1&tag=latest".to_owned()), "own"),
        ("DELETE", "/v2/team/red/app/manifests/latest", None, "own"),
    ] {
        let route = oci::route(method, path, query.as_deref()).expect("a route");
        let accesses = route.accesses();
        let facts = Facts {
            accesses: &accesses,
            standing: Some(&standing),
            tags: KnownTags::Each(&known),
            ..suite::facts(&identity, address, now)
        };
        let mut decided = None;
        let made = allocation_counter::measure(|| decided = Some(policy.decide(&facts)));
        let Some(Decision::Permit(permit)) = decided else { unreachable!("{method} {path}: {decided:?}") };
        assert_eq!(permit.rule(), rule, "{method} {path}");
        assert_eq!(made.count_total, 0, "{method} {path}: {made:?}");
    }
    // The counter counts.
    assert!(allocation_counter::measure(|| drop(policy.standing(&identity))).count_total > 0);
}
