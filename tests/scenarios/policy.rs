//! Who may do what: the policy as clients meet it.

use crate::DIGEST;
use crate::support::gateway::{Gateway, gateway};
use crate::support::pki::{self, openssl};
use crate::support::upstream::Upstream;

const PULL: &str = "/v2/team-a/app/manifests/v1";

fn start(policy: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let gateway = gateway().policy(policy).upstream(upstream.url()).start();
    (upstream, gateway)
}

/// A policy with one group, whose members may pull everything.
fn members(selector: &str) -> String {
    format!(
        "groups:\n  members:\n    - {selector}\nrules:\n  - name: members-pull\n    subjects: [members]\n    \
         repositories: ['**']\n    actions: [pull]\n    effect: allow\n"
    )
}

#[test]
fn without_a_rule_everything_but_the_ping_is_refused() {
    let (upstream, gateway) = start("rules: []\n");
    for mut client in gateway.both() {
        assert_eq!(client.get("/v2/").status, 200, "{}", client.version());
        assert_eq!(upstream.only().line(), "GET /v2/");
        let requests = [
            ("GET", PULL.to_owned()),
            ("PUT", PULL.to_owned()),
            ("DELETE", PULL.to_owned()),
            ("GET", format!("/v2/team-a/app/blobs/{DIGEST}")),
            ("GET", format!("/v2/team-a/app/referrers/{DIGEST}")),
            ("GET", "/v2/team-a/app/tags/list".to_owned()),
            ("POST", "/v2/team-a/app/blobs/uploads/".to_owned()),
            ("PATCH", "/v2/team-a/app/blobs/uploads/3f2a?_state=x".to_owned()),
            ("GET", "/v2/_catalog".to_owned()),
        ];
        for (method, target) in requests {
            let reply = client.request(method, &target, &[], b"");
            reply.assert_refusal(403, "DENIED");
            assert!(reply.message().contains("default deny"), "{}", reply.message());
        }
        upstream.assert_untouched("refused by default");
    }
}

#[test]
fn a_refusal_says_what_for_whom_by_which_rule_and_names_its_decision() {
    let policy = "
rules:
  - { name: all-pull, subjects: [any], repositories: ['**'], actions: [pull], effect: allow }
  - { name: freeze, subjects: [any], repositories: ['team-a/**'], actions: [push], effect: deny }
  - { name: all-push, subjects: [any], repositories: ['**'], actions: [push, overwrite], effect: allow }
";
    let (upstream, gateway) = start(policy);
    for mut client in gateway.both() {
        assert_eq!(client.get(PULL).status, 200);
        assert_eq!(client.request("PUT", "/v2/team-b/app/manifests/v1", &[], b"{}").status, 200);
        upstream.take();
        let reply = client.request("PUT", PULL, &[], b"{}");
        reply.assert_refusal(403, "DENIED");
        for part in ["push", "team-a/app", "ci-7", "freeze"] {
            assert!(reply.message().contains(part), "{part}: {}", reply.message());
        }
        upstream.assert_untouched("refused by a deny rule");
        let record = gateway.wait_for_record(|r| {
            let id = r["decision_id"].as_str().unwrap_or("-");
            reply.message().contains(id)
        });
        assert_eq!(
            (&record["decision"], &record["rule"], &record["status"], &record["outcome"]),
            (&"deny".into(), &"freeze".into(), &403.into(), &"denied".into())
        );
    }
}

#[test]
fn get_and_head_of_a_forbidden_repository_are_refused_alike() {
    let (upstream, gateway) = start("rules: []\n");
    for mut client in gateway.both() {
        let reply = client.request("HEAD", PULL, &[], b"");
        assert_eq!((reply.status, reply.body.len()), (403, 0), "{}", client.version());
        assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
        // The connection goes on.
        assert_eq!(client.get("/v2/").status, 200, "{}", client.version());
    }
    assert_eq!(upstream.take().len(), 2);
}

#[test]
fn a_refused_upload_is_answered_and_the_connection_goes_on() {
    let (upstream, gateway) = start("rules: []\n");
    let layer = vec![7_u8; 1 << 20];
    for mut client in gateway.both() {
        let target = "/v2/team-a/app/blobs/uploads/3f2a?_state=x";
        client.request("PATCH", target, &[], &layer).assert_refusal(403, "DENIED");
        assert_eq!(client.get("/v2/").status, 200, "{}", client.version());
    }
    assert_eq!(upstream.take().len(), 2);
}

#[test]
fn groups_select_by_every_kind_of_name() {
    let probe = gateway();
    let profile = pki::client("ci-7")
        .attribute("OU", "build")
        .san("DNS:runner-3.ci.example.com")
        .san("email:ci@example.com")
        .san("IP:10.1.2.3");
    let certificate = probe.client_ca.issue(&profile);
    let file = certificate.certificate.to_str().expect("test paths are UTF-8");
    let fingerprint = openssl(&["x509", "-in", file, "-noout", "-fingerprint", "-sha256"]);
    let fingerprint = fingerprint.trim().split('=').nth(1).expect("openssl prints name=value").to_owned();
    let cases = [
        ("{ subject: { CN: 'ci-*', OU: build } }", true),
        ("{ subject: { CN: 'ci-*', OU: test } }", false),
        ("{ subject: { CN: 'CI-7' } }", false),
        ("{ dns: '*.ci.example.com' }", true),
        ("{ dns: '*.example.com' }", false),
        ("{ uri: 'spiffe://corp.example/ns/*/sa/ci-7' }", true),
        ("{ uri: 'spiffe://corp.example/**' }", true),
        ("{ uri: 'spiffe://corp.example/*' }", false),
        ("{ uri: 'spiffe://other.example/**' }", false),
        ("{ issuer: { CN: 'Test Client CA' } }", true),
        ("{ issuer: { CN: 'Test Server CA' } }", false),
        ("{ email: '*@example.com' }", true),
        ("{ email: '*@evil.example' }", false),
        ("{ ip: 10.0.0.0/8 }", true),
        ("{ ip: 192.168.0.0/16 }", false),
        ("{ subject: { CN: 'ci-7' }, dns: '*.ci.example.org' }", false),
    ];
    let upstream = Upstream::start();
    let gateway = probe.upstream(upstream.url()).start();
    let check = |selector: &str, member: bool| {
        gateway.write("policy.yaml", members(selector));
        gateway.reload_ok();
        let reply = gateway.h1_as(&certificate).get(PULL);
        assert_eq!(reply.status, if member { 200 } else { 403 }, "{selector}: {}", reply.text());
    };
    for (selector, member) in cases {
        check(selector, member);
    }
    check(&format!("{{ fingerprint: 'sha256:{}' }}", fingerprint.to_lowercase()), true);
    check(&format!("{{ fingerprint: 'sha256:{}' }}", fingerprint.replace(':', "").to_lowercase()), true);
    check(&format!("{{ fingerprint: 'sha256:{}' }}", "ab".repeat(32)), false);
}

#[test]
fn placeholders_bind_repositories_to_the_identity() {
    let policy = "
rules:
  - name: own-space
    subjects: [any]
    repositories: ['team/${san.uri.path[3]}/**', 'by-name/${subject.cn}']
    actions: [pull, push, overwrite]
    effect: allow
";
    let (_upstream, gateway) = start(policy);
    let mine = gateway.client("ci-7");
    let theirs = gateway.client("ci-8");
    // A name with a slash must not reach into other repositories.
    let injecting =
        gateway.client_ca.issue(&pki::bare_client("ci-7/../secret").san("URI:spiffe://corp.example/a/b/c/..%2fx"));
    let status = |identity, repository: &str| {
        let target = format!("/v2/{repository}/manifests/v1");
        let [h1, h2] = gateway.both_as(identity).map(|mut client| client.get(&target).status);
        assert_eq!(h1, h2, "{repository}");
        h1
    };
    assert_eq!(status(&mine, "team/ci-7/app"), 200);
    assert_eq!(status(&mine, "team/ci-7/app/deep"), 200);
    assert_eq!(status(&mine, "by-name/ci-7"), 200);
    assert_eq!(status(&mine, "team/ci-8/app"), 403);
    assert_eq!(status(&mine, "team/ci-77/app"), 403);
    assert_eq!(status(&theirs, "team/ci-7/app"), 403);
    for repository in ["team/secret/app", "by-name/ci-7", "by-name/ci-7/secret", "secret"] {
        assert_eq!(status(&injecting, repository), 403, "{repository}");
    }
}

#[test]
fn tag_limits_hold_for_every_tag_of_a_push() {
    let policy = "
rules:
  - { name: release, subjects: [any], repositories: ['**'], actions: [push, overwrite], tags: ['v*'], effect: allow }
";
    let (upstream, gateway) = start(policy);
    let put = |target: &str| {
        let [h1, h2] = gateway.both().map(|mut client| client.request("PUT", target, &[], b"{}").status);
        assert_eq!(h1, h2, "{target}");
        h1
    };
    assert_eq!(put("/v2/app/manifests/v1"), 200);
    assert_eq!(put("/v2/app/manifests/latest"), 403);
    assert_eq!(put(&format!("/v2/app/manifests/{DIGEST}?tag=v1&tag=v2")), 200);
    upstream.take();
    assert_eq!(put(&format!("/v2/app/manifests/{DIGEST}?tag=v1&tag=latest")), 403);
    upstream.assert_untouched("a push with one tag that isn't allowed");
}

#[test]
fn globs_stop_at_segments() {
    let policy = "
rules:
  - { name: one, subjects: [any], repositories: ['team-a/*', 'exact', 'part-*/x'], actions: [pull], effect: allow }
";
    let (_upstream, gateway) = start(policy);
    let mut client = gateway.h1();
    for (repository, status) in [
        ("team-a/app", 200),
        ("team-a/app/deep", 403),
        ("team-a", 403),
        ("team-a-evil/app", 403),
        ("exact", 200),
        ("exact/more", 403),
        ("not/exact", 403),
        ("part-1/x", 200),
        ("part-1/2/x", 403),
    ] {
        let reply = client.get(&format!("/v2/{repository}/tags/list"));
        assert_eq!(reply.status, status, "{repository}: {}", reply.text());
    }
}

#[test]
fn several_common_names_are_no_common_name() {
    let (upstream, gateway) = start(&members("{ subject: { CN: 'admin' } }"));
    let two = gateway.client_ca.issue(&pki::client("ci-7").attribute("CN", "admin"));
    gateway.h1_as(&two).get(PULL).assert_refusal(403, "DENIED");
    upstream.assert_untouched("a certificate with two common names");
}

#[test]
fn text_in_a_common_name_is_not_read_as_another_attribute() {
    let (upstream, gateway) = start(&members("{ subject: { CN: ci, O: admins } }"));
    for name in ["ci,O=admins", "ci/O=admins", "ci+O=admins", "ci\\, O=admins"] {
        let identity = gateway.client_ca.issue(&pki::client("x").attribute("OU", "y"));
        let posing = gateway.client_ca.issue(&pki::bare_client(&name.replace('\\', "\\\\")).san("DNS:x.example"));
        gateway.h1_as(&identity).get(PULL).assert_refusal(403, "DENIED");
        gateway.h1_as(&posing).get(PULL).assert_refusal(403, "DENIED");
    }
    upstream.assert_untouched("a name made to look like another's");
}
