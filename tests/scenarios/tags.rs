//! Tags: which may be overwritten, which can't be changed, and the look whether they exist.

use crate::DIGEST;
use crate::support::gateway::{Builder, Gateway, gateway};
use crate::support::upstream::{Answer, Recorded, Upstream};
use serde_json::json;

const V1: &str = "/v2/app/manifests/v1";

/// Everybody may push, and overwrite `latest` alone.
const POLICY: &str = "
rules:
  - { name: push, subjects: [any], repositories: ['**'], actions: [pull, push, delete], effect: allow }
  - { name: move, subjects: [any], repositories: ['**'], actions: [overwrite], tags: [latest], effect: allow }
";

fn builder(policy: &str, upstream: &Upstream) -> Builder {
    gateway().policy(policy).upstream(upstream.url())
}

/// An upstream that has these tags, and takes every push.
fn upstream_with(tags: &'static [&'static str]) -> Upstream {
    let upstream = Upstream::start();
    upstream.answer(move |request| answer(request, tags));
    upstream
}

fn answer(request: &Recorded, tags: &[&str]) -> Answer {
    let tag = request.target.rsplit('/').next().unwrap_or_default();
    match request.method.as_str() {
        "HEAD" if tags.contains(&tag) => Answer::new(200),
        "HEAD" => Answer::new(404),
        "PUT" => Answer::new(201),
        _ => Answer::new(202),
    }
}

fn start(policy: &str, tags: &'static [&'static str]) -> (Upstream, Gateway) {
    let upstream = upstream_with(tags);
    let gateway = builder(policy, &upstream).start();
    (upstream, gateway)
}

fn lines(upstream: &Upstream) -> Vec<String> {
    upstream.take().iter().map(Recorded::line).collect()
}

#[test]
fn a_push_that_may_only_create_a_tag_is_preceded_by_a_look() {
    let (upstream, gateway) = start(POLICY, &[]);
    for mut client in gateway.both() {
        let reply = client.request("PUT", V1, &[], b"{}");
        assert_eq!(reply.status, 201, "{}: {reply:?}", client.version());
        let [look, push] = upstream.take().try_into().expect("a look and a push");
        assert_eq!((look.line(), push.line()), (format!("HEAD {V1}"), format!("PUT {V1}")));
        assert_eq!(push.body, b"{}");
        // Registries say of a tag that it is unknown if its manifest is of a kind that isn't asked for.
        let accept = look.header("accept").expect("what is asked for");
        for kind in ["oci.image.manifest.v1", "oci.image.index.v1", "manifest.v2", "manifest.list.v2", "manifest.v1"] {
            assert!(accept.contains(kind), "{kind}: {accept}");
        }
        assert_eq!(look.header("x-forwarded-for"), Some("127.0.0.1"));
    }
    let record = gateway.wait_for_record(|r| r["method"] == "PUT");
    assert_eq!((&record["tag_exists"], &record["rule"]), (&json!({"v1": false}), &"push".into()));
    assert!(record["not_after"].as_str().is_some_and(|time| time.ends_with('Z')), "{record}");
}

#[test]
fn a_push_to_a_tag_that_exists_is_refused_without_the_right_to_overwrite() {
    let (upstream, gateway) = start(POLICY, &["v1"]);
    for mut client in gateway.both() {
        let reply = client.request("PUT", V1, &[], b"{}");
        reply.assert_refusal(403, "DENIED");
        assert!(reply.message().contains("push to app:v1, which exists, is not allowed"), "{}", reply.message());
        assert_eq!(lines(&upstream), [format!("HEAD {V1}")], "{}", client.version());
        // The connection goes on, and another tag is free.
        assert_eq!(client.request("PUT", "/v2/app/manifests/v2", &[], b"{}").status, 201);
        upstream.take();
    }
    let record = gateway.wait_for_record(|r| r["status"] == 403);
    assert_eq!(
        (&record["tag_exists"], &record["decision"], &record["outcome"], &record["rule"]),
        (&json!({"v1": true}), &"deny".into(), &"denied".into(), &json!(null))
    );
}

#[test]
fn what_may_be_done_either_way_needs_no_look() {
    let (upstream, gateway) = start(POLICY, &["latest"]);
    for mut client in gateway.both() {
        assert_eq!(client.request("PUT", "/v2/app/manifests/latest", &[], b"{}").status, 201);
        assert_eq!(upstream.only().line(), "PUT /v2/app/manifests/latest");
        let by_digest = format!("/v2/app/manifests/{DIGEST}");
        assert_eq!(client.request("PUT", &by_digest, &[], b"{}").status, 201);
        assert_eq!(upstream.only().line(), format!("PUT {by_digest}"));
    }
}

#[test]
fn who_may_not_push_at_all_learns_nothing_of_tags() {
    let policy = "rules: [{ name: read, subjects: [any], repositories: ['**'], actions: [pull], effect: allow }]";
    let (upstream, gateway) = start(policy, &["v1"]);
    for mut client in gateway.both() {
        let exists = client.request("PUT", V1, &[], b"{}");
        let new = client.request("PUT", "/v2/app/manifests/v2", &[], b"{}");
        exists.assert_refusal(403, "DENIED");
        let told = |text: &str, tag: &str| text.replace(tag, "TAG").split(" (rule").next().map(str::to_owned);
        assert_eq!(told(&exists.message(), "v1"), told(&new.message(), "v2"));
    }
    upstream.assert_untouched("no look for those who may not push");
}

#[test]
fn each_tag_of_a_push_by_digest_is_looked_at() {
    let (upstream, gateway) = start(POLICY, &["old", "latest"]);
    let push = |tags: &str| format!("/v2/app/manifests/{DIGEST}?{tags}");
    for mut client in gateway.both() {
        assert_eq!(client.request("PUT", &push("tag=b&tag=latest&tag=a"), &[], b"{}").status, 201);
        let expected = ["HEAD /v2/app/manifests/b", "HEAD /v2/app/manifests/a"].map(str::to_owned);
        let mut seen = lines(&upstream);
        assert!(seen.pop().is_some_and(|line| line.starts_with("PUT ")), "{}", client.version());
        assert_eq!(seen, expected, "{}", client.version());
        client.request("PUT", &push("tag=new&tag=old"), &[], b"{}").assert_refusal(403, "DENIED");
        assert!(lines(&upstream).iter().all(|line| line.starts_with("HEAD ")), "{}", client.version());
    }
}

#[test]
fn without_a_clear_answer_nothing_is_pushed() {
    let upstream = Upstream::start();
    let quick = |config: &mut serde_json::Value| config["timeouts"] = json!({ "first_byte": "500ms" });
    let gateway = builder(POLICY, &upstream).with_upstream(quick).start();
    let silent = std::time::Duration::from_secs(3);
    let answers = [
        ("an error", Answer::new(500)),
        ("another one", Answer::new(403)),
        ("a redirect", Answer::new(307).header("Location", "http://storage.example/x")),
        ("too many", Answer::new(429)),
        ("no HTTP", Answer::raw(b"nonsense\r\n\r\n")),
        ("nothing", Answer::raw(b"")),
    ];
    for (what, answer) in answers {
        upstream.answer(move |request| if request.method == "HEAD" { answer.clone() } else { Answer::new(201) });
        for mut client in gateway.both() {
            let reply = client.request("PUT", V1, &[], b"{}");
            assert_eq!((reply.status, reply.code().as_str()), (503, "UNAVAILABLE"), "{what}: {reply:?}");
            assert!(reply.message().contains("whether the tag exists"), "{what}: {}", reply.message());
            assert!(lines(&upstream).iter().all(|line| line.starts_with("HEAD ")), "{what} {}", client.version());
        }
    }
    upstream.answer(
        move |request| if request.method == "HEAD" { Answer::new(404).delay(silent) } else { Answer::new(201) },
    );
    gateway.h1().request("PUT", V1, &[], b"{}").expect("an answer").assert_refusal(503, "UNAVAILABLE");
    // A registry that asks for credentials is heard.
    upstream.answer(|_| Answer::new(401).header("WWW-Authenticate", "Bearer realm=\"https://auth.example\""));
    for mut client in gateway.both() {
        let reply = client.request("PUT", V1, &[], b"{}");
        reply.assert_refusal(401, "UNAUTHORIZED");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"https://auth.example\""));
    }
}

const IMMUTABLE: &str = "
rules:
  - { name: all, subjects: [any], repositories: ['**'], actions: [pull, push, overwrite, delete], effect: allow }
immutable_tags:
  - { repositories: ['app/**'], tags: ['v*', 'sha256-*'], except: ['*-rc*'] }
";

#[test]
fn immutable_tags_can_be_created_and_neither_overwritten_nor_deleted() {
    let referrers: &'static str = Box::leak(DIGEST.replace(':', "-").into_boxed_str());
    let upstream = Upstream::start();
    upstream.answer(move |request| answer(request, &["v1", "v1-rc1", "latest", referrers]));
    let gateway = builder(IMMUTABLE, &upstream).start();
    let manifest = |reference: &str| format!("/v2/app/manifests/{reference}");
    let other = format!("/v2/other/manifests/{DIGEST}");
    for mut client in gateway.both() {
        for (method, target, status, reached) in [
            ("PUT", manifest("v2"), 201, &["HEAD", "PUT"][..]),
            ("PUT", manifest("v1"), 403, &["HEAD"]),
            ("PUT", manifest("v1-rc1"), 201, &["PUT"]),
            ("PUT", manifest("latest"), 201, &["PUT"]),
            ("PUT", manifest(referrers), 201, &["PUT"]),
            ("DELETE", manifest("v1"), 403, &[]),
            ("DELETE", manifest("v3"), 403, &[]),
            ("DELETE", manifest("latest"), 202, &["DELETE"]),
            ("DELETE", manifest(referrers), 202, &["DELETE"]),
            ("DELETE", manifest(DIGEST), 403, &[]),
            ("DELETE", format!("/v2/app/blobs/{DIGEST}"), 403, &[]),
            ("DELETE", other.clone(), 202, &["DELETE"]),
            ("PUT", format!("{}?tag=latest&tag=v1", manifest(DIGEST)), 403, &["HEAD"]),
        ] {
            let what = format!("{} {method} {target}", client.version());
            let body: &[u8] = if method == "PUT" { b"{}" } else { b"" };
            let reply = client.request(method, &target, &[], body);
            assert_eq!(reply.status, status, "{what}: {reply:?}");
            let seen: Vec<_> = upstream.take().into_iter().map(|request| request.method).collect();
            assert_eq!(seen, reached, "{what}");
            if status == 403 {
                reply.assert_refusal(403, "DENIED");
                assert!(reply.message().contains("rule: immutable tags"), "{what}: {}", reply.message());
            }
        }
    }
    let record = gateway.wait_for_record(|r| r["rule"] == "immutable tags");
    assert_eq!((&record["decision"], &record["outcome"]), (&"deny".into(), &"denied".into()));
}

#[test]
fn layers_of_a_repository_can_be_mounted_that_can_not_be_read() {
    let upstream = Upstream::start();
    upstream.answer(|_| Answer::new(202).header("Location", "/v2/mine/blobs/uploads/3f2a?_state=x"));
    let policy = "
rules:
  - { name: own, subjects: [any], repositories: [mine], actions: [pull, push], effect: allow }
  - { name: layers, subjects: [any], repositories: ['base/**'], actions: [mount-from], effect: allow }
  - { name: not, subjects: [any], repositories: [base/secret], actions: [mount-from], effect: deny }
";
    let gateway = builder(policy, &upstream).start();
    let mount = |from: &str| format!("/v2/mine/blobs/uploads/?mount={DIGEST}&from={from}");
    for mut client in gateway.both() {
        assert_eq!(client.request("POST", &mount("base/debian"), &[], b"").status, 202);
        assert!(upstream.only().line().ends_with("&from=base%2Fdebian"), "{}", client.version());
        assert_eq!(client.request("POST", &mount("base/secret"), &[], b"").status, 202);
        assert_eq!(upstream.only().line(), "POST /v2/mine/blobs/uploads/", "{}", client.version());
        for target in [format!("/v2/base/debian/blobs/{DIGEST}"), "/v2/base/debian/tags/list".to_owned()] {
            client.get(&target).assert_refusal(403, "DENIED");
        }
        upstream.assert_untouched("the right to mount is none to read");
    }
}
