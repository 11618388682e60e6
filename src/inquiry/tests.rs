use super::*;
use crate::config::policy::PolicyFile;
use crate::policy::compile;

fn policy(yaml: &str) -> Policy {
    let file: PolicyFile = serde_yaml::from_str(yaml).expect("a policy file");
    compile(&file).expect("a policy without faults")
}

/// A record of a build machine's push, changed as said.
fn record(change: impl FnOnce(&mut serde_json::Value)) -> Past {
    let mut value = serde_json::json!({
        "time": "2026-11-22T10:00:00.000Z",
        "decision_id": "01HF7YAT3V0000000000000007",
        "generation": 3,
        "client": "192.0.2.1:40000",
        "identity": "CN=ci-7",
        "fingerprint": "ab".repeat(32),
        "names": { "subject": ["CN=ci-7"], "spki": "cd".repeat(32) },
        "tls_version": "TLSv1.3",
        "method": "PUT",
        "target": "/v2/team-a/app/manifests/v1",
        "reference": "v1",
        "decision": "allow",
        "rule": "old",
        "status": 201,
        "outcome": "proxied",
    });
    change(&mut value);
    Past::read(&value.to_string()).expect("a record")
}

const ALLOWS: &str =
    "rules: [{name: new, subjects: [any], repositories: [team-a/app], actions: [push, overwrite], effect: allow}]";

#[test]
fn a_record_is_held_against_what_the_policy_says_today() {
    let (allows, denies) = (policy(ALLOWS), policy("rules: []"));
    for (policy, decision, rule, differs, sentence) in [
        (&allows, "allow", "old".into(), false, "allowed by old; today it comes out alike"),
        (&denies, "allow", "old".into(), true, "allowed by old; today it comes out otherwise"),
        (&allows, "deny", serde_json::Value::Null, true, "refused by default deny; today it comes out otherwise"),
        (&denies, "deny", "frozen".into(), false, "refused by frozen; today it comes out alike"),
    ] {
        let past = record(|value| {
            value["decision"] = decision.into();
            value["rule"] = rule;
        });
        let answer = Answer::replay(policy, &past).expect("a whole record");
        let page = text(&answer);
        assert!(page.contains(&format!("then      {sentence}\n")), "{page}");
        assert!(
            page.contains("record    01HF7YAT3V0000000000000007, 2026-11-22T10:00:00.000Z, generation 3"),
            "{page}"
        );
        let told: serde_json::Value = serde_json::from_str(&json(&answer)).expect("JSON");
        assert_eq!((&told["differs"], &told["certain"]), (&differs.into(), &true.into()), "{told:#}");
        assert_eq!(told["recorded"]["decision"], decision);
    }
}

#[test]
fn what_was_looked_up_is_told_and_what_was_not_stays_open() {
    let creates = policy("rules: [{name: new, subjects: [any], repositories: ['**'], actions: [push], effect: allow}]");
    let answered = |exists: serde_json::Value| {
        let past = record(|value| {
            value["decision"] = "allow".into();
            value["tag_exists"] = exists;
        });
        let answer = Answer::replay(&creates, &past).expect("a whole record");
        let told: serde_json::Value = serde_json::from_str(&json(&answer)).expect("JSON");
        (told["decision"].clone(), told["differs"].clone())
    };
    assert_eq!(answered(serde_json::json!({"v1": false})), ("allow".into(), false.into()));
    assert_eq!(answered(serde_json::json!({"v1": true})), ("deny".into(), true.into()));
    assert_eq!(answered(serde_json::json!({})), ("depends".into(), serde_json::Value::Null));
}

#[test]
fn an_answer_from_a_cut_record_says_that_it_is_not_certain() {
    let past = record(|value| value["names"]["cut"] = true.into());
    let allows = policy(ALLOWS);
    let answer = Answer::replay(&allows, &past).expect("enough of a record");
    assert!(text(&answer).contains("caution   the record was cut"), "{}", text(&answer));
    let told: serde_json::Value = serde_json::from_str(&json(&answer)).expect("JSON");
    assert_eq!(told["certain"], false);
}

#[test]
fn a_request_that_no_policy_was_asked_about_is_told_as_such() {
    let past = record(|value| {
        value["decision"] = serde_json::Value::Null;
        value["rule"] = serde_json::Value::Null;
        value["target"] = serde_json::Value::Null;
        value["outcome"] = "malformed".into();
        value["status"] = 400.into();
    });
    let allows = policy(ALLOWS);
    let answer = Answer::replay(&allows, &past).expect("nothing to decide");
    assert!(!answer.is_allowed());
    let page = text(&answer);
    assert!(page.contains("outcome malformed, status 400") && page.contains("the policy was not asked\n"), "{page}");
    // What stands before the policy may refuse by a name of its own.
    let past = record(|value| {
        value["decision"] = "deny".into();
        value["rule"] = "read-only".into();
        value["target"] = serde_json::Value::Null;
    });
    let page = text(&Answer::replay(&allows, &past).expect("nothing to decide"));
    assert!(page.contains("the policy was not asked; refused by read-only\n"), "{page}");
}

#[test]
fn a_mount_that_is_refused_only_now_makes_a_difference() {
    let push = policy("rules: [{name: p, subjects: [any], repositories: [a], actions: [push], effect: allow}]");
    let mount = format!("/v2/a/blobs/uploads/?mount=sha256%3A{}&from=b", "a".repeat(64));
    let past = record(|value| {
        value["method"] = "POST".into();
        value["target"] = mount.into();
        value["reference"] = format!("sha256:{}", "a".repeat(64)).into();
        value["rule"] = "p".into();
    });
    let answer = Answer::replay(&push, &past).expect("a whole record");
    assert!(answer.is_allowed(), "the upload is");
    assert!(text(&answer).contains("today it comes out otherwise"), "{}", text(&answer));
}
