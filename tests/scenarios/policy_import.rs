//! `policy import docker-auth`: a list of another program, through to a gateway that decides by it.

use std::fs;

use crate::policy_tools::{files, portcullis};
use crate::support::gateway::gateway;
use crate::support::upstream::Upstream;

const CONFIG: &str = "\
server: { addr: ':5001' }
users: { admin: { password: x } }
acl:
  - match: { account: admin }
    actions: ['*']
    comment: Admins do everything
  - match: { account: ci-7, name: 'team/*' }
    actions: [pull, push]
  - match: { acount: guest }
    actions: [pull]
  - match: { account: '/.+/', name: '${account}/*' }
    actions: ['*']
";

#[test]
fn a_list_becomes_a_policy_and_what_is_lost_is_told_with_its_line() {
    let (_directory, at) = files(&[("auth.yml", CONFIG)]);
    let import =
        |file: &str, more: &[&str]| portcullis(&[&["policy", "import", "docker-auth", &at(file)], more].concat());
    let finished = import("auth.yml", &["--account-is", "cn"]);
    assert_eq!(finished.code, Some(4), "{}", finished.all());
    for part in [
        "auth.yml:2: warning: users: not carried over: clients are known by their certificates",
        "auth.yml:9: acl[2].match.acount: not carried over: unknown key: docker_auth ignores it",
        // The misspelt entry matches everyone and allows them less.
        "auth.yml:11: acl[3]: not carried over: acl[2] comes first where both match and allows less",
        "2 entries were carried over",
    ] {
        assert!(finished.stderr.contains(part), "{part}\nnot in\n{}", finished.stderr);
    }
    let policy = finished.text();
    assert!(policy.contains("\"acl 0 Admins do everything\"") && !policy.contains("guest"), "{policy}");
    // Repaired, it is whole, and a gateway takes it.
    fs::write(at("good.yml"), CONFIG.replace("acount: guest", "account: guest")).expect("written");
    let finished = import("good.yml", &["--account-is", "cn"]).expect_success("import");
    let upstream = Upstream::start();
    let gateway = gateway().policy(&finished.text()).upstream(upstream.url()).start();
    let mut client = gateway.h1();
    for (method, target, status) in [
        ("PUT", "/v2/team/app/manifests/v1", 200),
        ("PUT", "/v2/ci-7/app/manifests/v1", 200),
        ("DELETE", "/v2/ci-7/app/manifests/v1", 200),
        ("DELETE", "/v2/team/app/manifests/v1", 403),
        ("GET", "/v2/ci-8/app/manifests/v1", 403),
        ("GET", "/v2/_catalog", 403),
    ] {
        let reply = client.request(method, target, &[], b"").expect("an answer");
        assert_eq!(reply.status == 403, status == 403, "{method} {target}: {} {}", reply.status, reply.text());
    }
    let admin = gateway.client("admin");
    let reply = gateway.h1_as(&admin).request("DELETE", "/v2/team/app/manifests/v1", &[], b"").expect("an answer");
    assert_ne!(reply.status, 403, "{}", reply.text());
}

#[test]
fn files_and_arguments_at_fault_are_told_apart() {
    let (_directory, at) =
        files(&[("acl.yml", "- match: { account: a }\n  actions: [pull]\n"), ("other.yml", "a: b\n")]);
    let import = |file: &str, account: &str| {
        portcullis(&["policy", "import", "docker-auth", "--account-is", account, &at(file)])
    };
    let alone = import("acl.yml", "spiffe://example.com/user/${account}").expect_success("an ACL alone");
    assert!(alone.text().contains("uri: \"spiffe://example.com/user/a\""), "{}", alone.text());
    assert_eq!(import("acl.yml", "name").code, Some(2));
    assert_eq!(portcullis(&["policy", "import", "docker-auth", &at("acl.yml")]).code, Some(2));
    for file in ["other.yml", "gone.yml"] {
        let finished = import(file, "cn");
        assert!(finished.code == Some(1) && finished.stderr.contains(file), "{file}: {}", finished.all());
    }
}
