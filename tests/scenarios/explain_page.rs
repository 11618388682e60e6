//! `/explain` on the admin listener: the words of `portcullis policy explain`, of the gateway that decides.

use serde_json::Value;

use crate::policy_tools::portcullis;
use crate::support::gateway::{Gateway, gateway, plain_http};
use crate::support::upstream::Upstream;

const POLICY: &str = "
groups:
  ci: [{uri: 'spiffe://corp.example/ns/test/sa/*'}]
rules:
  - {name: own, subjects: [ci], repositories: ['${subject.cn}/**'], actions: [pull, push, overwrite], effect: allow}
  - {name: frozen, subjects: [any], repositories: ['*/archive/**'], actions: [push], effect: deny}
";

fn started() -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let gateway = gateway().policy(POLICY).upstream(upstream.url()).start();
    (upstream, gateway)
}

fn ask(gateway: &Gateway, query: &str) -> (u16, String) {
    let reply = plain_http(gateway.admin(), "GET", &format!("/explain?{query}"));
    (reply.status, reply.text())
}

/// The id of the decision over this request.
fn decide(gateway: &Gateway, target: &str) -> String {
    let seen = gateway.records().len();
    gateway.h1().request("PUT", target, &[], b"").expect("an answer");
    gateway.wait_for_record(|_| gateway.records().len() > seen);
    gateway.records().remove(seen)["decision_id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_fresh_decision_is_explained_by_its_id() {
    let (_upstream, gateway) = started();
    let id = decide(&gateway, "/v2/other/app/manifests/v1");
    let (status, page) = ask(&gateway, &format!("decision={id}"));
    assert_eq!(status, 200, "{page}");
    for part in ["then      refused by default deny; today it comes out alike", "${subject.cn} is ci-7", "generation 1"]
    {
        assert!(page.contains(part), "{part}\nnot in\n{page}");
    }
    // The same words as from the log.
    let at = |name: &str| gateway.path().join(name).to_string_lossy().into_owned();
    let from_log = portcullis(&[
        "policy",
        "explain",
        "--config",
        &at("portcullis.yaml"),
        "--decision",
        &id,
        "--log",
        &at("access.log"),
    ]);
    assert_eq!(from_log.text(), page);
    // By the policy that is in force now.
    gateway.write("policy.yaml", POLICY.replace("'${subject.cn}/**'", "'other/**'"));
    assert!(ask(&gateway, &format!("decision={id}")).1.contains("comes out alike"), "it is not in force yet");
    gateway.reload_ok();
    let (_, json) = ask(&gateway, &format!("decision={id}&format=json"));
    let told: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&told["differs"], &told["rule"]), (&true.into(), &"own".into()), "{told:#}");
}

#[test]
fn a_question_is_answered_as_on_the_command_line() {
    let (_upstream, gateway) = started();
    let policy = gateway.path().join("policy.yaml").to_string_lossy().into_owned();
    let query = "method=PUT&target=/v2/ci-7/archive/x/manifests/v1&subject=CN%3Dci-7&uri=spiffe://corp.example/ns/test/sa/ci-7\
                 &client=192.0.2.7";
    let arguments = [
        "policy",
        "explain",
        "--policy",
        &policy,
        "--subject",
        "CN=ci-7",
        "--uri",
        "spiffe://corp.example/ns/test/sa/ci-7",
        "--client",
        "192.0.2.7",
    ];
    let request = ["PUT", "/v2/ci-7/archive/x/manifests/v1"];
    for (format, more) in [("", &[][..]), ("&format=json", &["--json"])] {
        let told = portcullis(&[&arguments[..], more, &request].concat());
        let (status, page) = ask(&gateway, &format!("{query}{format}"));
        assert_eq!((status, page), (200, told.text()));
    }
}

#[test]
fn what_cannot_be_answered_is_said() {
    let (_upstream, gateway) = started();
    for (query, status, why) in [
        ("decision=01HF7YAT3V0000000000000007", 404, "is none of the last ones"),
        ("", 400, "ask by decision"),
        ("method=GET&target=/v2/", 400, "a client needs a name"),
        ("methud=GET", 400, "there is no key \"methud\""),
    ] {
        let (found, page) = ask(&gateway, query);
        assert_eq!(found, status, "{query}: {page}");
        assert!(page.contains(why), "{query}: {page}");
    }
    assert_eq!(plain_http(gateway.admin(), "POST", "/explain").status, 405);
    assert_eq!(plain_http(gateway.health(), "GET", "/explain").status, 404, "identities are not for this listener");
}

#[test]
fn only_the_last_decisions_are_kept() {
    let (_upstream, gateway) = started();
    let first = decide(&gateway, "/v2/other/app/manifests/v1");
    assert_eq!(ask(&gateway, &format!("decision={first}")).0, 200);
    let mut client = gateway.h1();
    for _ in 0..300 {
        client.request("GET", "/v2/", &[], b"").expect("an answer");
    }
    gateway.wait_for_record(|_| gateway.records().len() > 300);
    assert_eq!(ask(&gateway, &format!("decision={first}")).0, 404);
    let last = gateway.records().pop().expect("a record");
    assert_eq!(ask(&gateway, &format!("decision={}", last["decision_id"].as_str().expect("an id"))).0, 200);
}

#[test]
fn a_policy_of_many_rules_is_not_made_into_a_book() {
    let upstream = Upstream::start();
    let rules: String = (0..500)
        .map(|i| {
            format!(
                "  - {{name: r{i}, subjects: [any], repositories: [a{i}], actions: [push, overwrite], effect: allow}}\n"
            )
        })
        .collect();
    let gateway = gateway().policy(&format!("rules:\n{rules}")).upstream(upstream.url()).start();
    let one = "method=PUT&dns=x&target=/v2/a7/manifests/v1";
    assert_eq!(ask(&gateway, one).0, 200);
    let digest = format!("sha256:{}", "a".repeat(64));
    let tags: Vec<_> = (0..60).map(|i| format!("tag%3Dv{i}")).collect();
    let (status, page) =
        ask(&gateway, &format!("method=PUT&dns=x&target=/v2/a7/manifests/{digest}%3F{}", tags.join("%26")));
    assert!(status == 400 && page.contains("too many rules"), "{status} {page}");
}
