//! Every row of the registry API: what reaches the upstream, and what never does. Over both versions of HTTP.

use crate::support::gateway::{Gateway, gateway};
use crate::support::upstream::{Answer, Upstream};
use crate::{DIGEST, open_gateway};

/// Method, target as sent, target as the upstream must see it; `=` stands for the same.
const SERVED: &[(&str, &str, &str)] = &[
    ("GET", "/v2/", "="),
    ("HEAD", "/v2/", "="),
    ("GET", "/v2", "/v2/"),
    ("GET", "/v2/team/app/tags/list", "="),
    ("GET", "/v2/team/app/tags/list?n=5&last=v1", "="),
    ("GET", "/v2/team/app/tags/list?last=v1&n=5", "/v2/team/app/tags/list?n=5&last=v1"),
    ("GET", "/v2/team/app/manifests/v1.0", "="),
    ("HEAD", "/v2/team/app/manifests/v1.0", "="),
    ("PUT", "/v2/team/app/manifests/v1.0", "="),
    ("DELETE", "/v2/team/app/manifests/v1.0", "="),
    ("GET", "/v2/team/app/manifests/{d}", "="),
    ("GET", "/v2/team/app/manifests/{e}", "/v2/team/app/manifests/{d}"),
    ("DELETE", "/v2/team/app/manifests/{d}", "="),
    ("PUT", "/v2/team/app/manifests/{d}?tag=a&tag=b", "="),
    ("GET", "/v2/team/app/blobs/{d}", "="),
    ("HEAD", "/v2/team/app/blobs/{d}", "="),
    ("GET", "/v2/team/app/blobs/{e}", "/v2/team/app/blobs/{d}"),
    ("DELETE", "/v2/team/app/blobs/{d}", "="),
    ("POST", "/v2/team/app/blobs/uploads/", "="),
    ("POST", "/v2/team/app/blobs/uploads/?digest={q}", "="),
    (
        "POST",
        "/v2/team/app/blobs/uploads/?mount={d}&from=lib/base",
        "/v2/team/app/blobs/uploads/?mount={q}&from=lib%2Fbase",
    ),
    ("POST", "/v2/team/app/blobs/uploads/?mount={d}", "/v2/team/app/blobs/uploads/"),
    ("POST", "/v2/team/app/blobs/uploads/?mount={d}&from=", "/v2/team/app/blobs/uploads/"),
    ("POST", "/v2/team/app/blobs/uploads/?from=lib/base", "/v2/team/app/blobs/uploads/"),
    ("GET", "/v2/team/app/blobs/uploads/3f2a-77_b.=", "="),
    ("HEAD", "/v2/team/app/blobs/uploads/3f2a", "="),
    ("PATCH", "/v2/team/app/blobs/uploads/3f2a?_state=Ab_-9", "="),
    ("PUT", "/v2/team/app/blobs/uploads/3f2a?_state=Ab_-9&digest={q}", "="),
    ("DELETE", "/v2/team/app/blobs/uploads/3f2a?_state=Ab_-9", "="),
    ("GET", "/v2/team/app/referrers/{d}", "="),
    ("GET", "/v2/team/app/referrers/{d}?artifactType=application%2Fvnd.x%2Bjson", "="),
    // The name is greedy, so the path is read from the right.
    ("GET", "/v2/a/blobs/uploads/manifests/latest", "="),
    ("GET", "/v2/a/manifests/tags/list", "="),
    ("GET", "/v2/a/manifests/manifests/latest", "="),
    // containerd names the mirrored host; whatever is unknown is dropped.
    ("GET", "/v2/team/app/manifests/v1?ns=docker.io&x=%00", "/v2/team/app/manifests/v1"),
    ("GET", "/v2/team/app/blobs/{d}?digest={d}", "/v2/team/app/blobs/{d}"),
];

/// Method, target, status and code of the refusal.
const REFUSED: &[(&str, &str, u16, &str)] = &[
    ("get", "/v2/", 405, "UNSUPPORTED"),
    ("delete", "/v2/team/app/manifests/v1", 405, "UNSUPPORTED"),
    ("Put", "/v2/team/app/manifests/v1", 405, "UNSUPPORTED"),
    ("OPTIONS", "/v2/", 405, "UNSUPPORTED"),
    ("TRACE", "/v2/team/app/manifests/v1", 405, "UNSUPPORTED"),
    ("PROPFIND", "/v2/team/app/manifests/v1", 405, "UNSUPPORTED"),
    ("POST", "/v2/", 405, "UNSUPPORTED"),
    ("DELETE", "/v2/_catalog", 405, "UNSUPPORTED"),
    ("PUT", "/v2/team/app/tags/list", 405, "UNSUPPORTED"),
    ("POST", "/v2/team/app/manifests/v1", 405, "UNSUPPORTED"),
    ("PATCH", "/v2/team/app/manifests/v1", 405, "UNSUPPORTED"),
    ("PUT", "/v2/team/app/blobs/{d}", 405, "UNSUPPORTED"),
    ("PUT", "/v2/team/app/blobs/uploads/", 405, "UNSUPPORTED"),
    ("GET", "/v2/team/app/blobs/uploads/", 405, "UNSUPPORTED"),
    ("POST", "/v2/team/app/blobs/uploads/3f2a", 405, "UNSUPPORTED"),
    ("POST", "/v2/team/app/referrers/{d}", 405, "UNSUPPORTED"),
    ("GET", "/", 404, "NAME_UNKNOWN"),
    ("GET", "/metrics", 404, "NAME_UNKNOWN"),
    ("GET", "/debug/pprof", 404, "NAME_UNKNOWN"),
    ("GET", "/v1/search", 404, "NAME_UNKNOWN"),
    ("GET", "/v2/team/app", 404, "NAME_UNKNOWN"),
    ("GET", "/v2/team/app/uploads/3f2a", 404, "NAME_UNKNOWN"),
    ("GET", "/v2/secret%2frepo/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/secret%2Frepo/manifests/latest", 400, "NAME_INVALID"),
    ("GET", "/v2/%73ecret/repo/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/%2573ecret/tags/list", 400, "NAME_INVALID"),
    ("GET", "/%76%32/team/app/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a%3Ab/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a/../secret/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a/%2e%2e/secret/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/a%2f..%2fsecret/tags/list", 400, "NAME_INVALID"),
    ("POST", "/v2/a/../secret/blobs/uploads/", 400, "NAME_INVALID"),
    ("GET", "/v2/./a/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2//secret/tags/list", 400, "NAME_INVALID"),
    ("GET", "//v2/secret/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/team/app/tags/list/", 400, "NAME_INVALID"),
    ("GET", "/v2/team/app/manifests/v1/", 400, "NAME_INVALID"),
    ("GET", "/v2/SECRET/repo/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/-team/app/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/te..am/app/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/te;am/app/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/{long}/tags/list", 400, "NAME_INVALID"),
    ("GET", "/v2/team/app/manifests/.v1", 400, "TAG_INVALID"),
    ("PUT", "/v2/team/app/manifests/{d}?tag=ok&tag=-bad", 400, "TAG_INVALID"),
    ("GET", "/v2/team/app/manifests/sha256:abc", 400, "DIGEST_INVALID"),
    ("GET", "/v2/team/app/blobs/sha1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 400, "DIGEST_INVALID"),
    ("GET", "/v2/team/app/blobs/{upper}", 400, "DIGEST_INVALID"),
    ("POST", "/v2/team/app/blobs/uploads/?mount=x&from=lib/base", 400, "DIGEST_INVALID"),
    ("POST", "/v2/team/app/blobs/uploads/?mount={d}&from=..%2Fsecret", 400, "NAME_INVALID"),
    ("POST", "/v2/team/app/blobs/uploads/?mount={d}&from=a/b&from=secret/repo", 400, "NAME_INVALID"),
    ("POST", "/v2/team/app/blobs/uploads/?mount={d}&from=a/b&fr%6fm=secret/repo", 400, "NAME_INVALID"),
    ("POST", "/v2/team/app/blobs/uploads/?mount={d};from=secret/repo", 400, "NAME_INVALID"),
    ("GET", "/v2/team/app/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
    ("GET", "/v2/team/app/tags/list?n=0x10", 400, "PAGINATION_NUMBER_INVALID"),
    ("GET", "/v2/team/app/tags/list?n=1&n=2", 400, "NAME_INVALID"),
    ("GET", "/v2/_catalog?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
    ("GET", "/v2/team/app/tags/list?last=%zz", 400, "NAME_INVALID"),
];

fn expand(target: &str) -> String {
    let colon = DIGEST.replace(':', "%3A");
    target
        .replace("{d}", DIGEST)
        .replace("{q}", &colon)
        .replace("{e}", &colon)
        .replace("{upper}", &DIGEST.replace("aa", "AA"))
        .replace("{long}", &"a/".repeat(128))
        .replace(&"a/".repeat(128), &format!("{}a", "a/".repeat(128)))
}

#[test]
fn what_is_served_reaches_the_upstream_rebuilt() {
    let (upstream, gateway) = open_gateway();
    for mut client in gateway.both() {
        for (method, sent, wanted) in SERVED {
            let sent = expand(sent);
            let wanted = if *wanted == "=" { sent.clone() } else { expand(wanted) };
            let reply = client.request(method, &sent, &[], b"");
            assert_eq!(reply.status, 200, "{} {method} {sent}: {reply:?}", client.version());
            assert_eq!(upstream.only().line(), format!("{method} {wanted}"), "{}", client.version());
        }
    }
}

#[test]
fn what_is_refused_never_reaches_the_upstream() {
    let (upstream, gateway) = open_gateway();
    for index in 0..2 {
        for (method, target, status, code) in REFUSED {
            // A connection for each, since a malformed request may cost it.
            let [h1, h2] = gateway.both();
            let mut client = if index == 0 { h1 } else { h2 };
            let target = expand(target);
            let reply = client.request(method, &target, &[], b"");
            let what = format!("{} {method} {target}", client.version());
            assert_eq!((reply.status, reply.code().as_str()), (*status, *code), "{what}: {reply:?}");
            reply.assert_refusal(*status, code);
            assert_eq!(reply.header("allow").is_some(), *status == 405, "{what}: {reply:?}");
            upstream.assert_untouched(&what);
        }
    }
}

#[test]
fn get_and_head_are_refused_alike() {
    let (upstream, gateway) = open_gateway();
    let targets = REFUSED
        .iter()
        .filter(|(method, _, status, _)| *method == "GET" && *status != 405)
        .filter(|(_, target, ..)| !target.contains("tags/list") && !target.contains("_catalog"));
    for (_, target, status, _) in targets {
        for mut client in gateway.both() {
            let target = expand(target);
            let reply = client.request("HEAD", &target, &[], b"");
            assert_eq!(reply.status, *status, "{} HEAD {target}", client.version());
            assert!(reply.body.is_empty(), "{} HEAD {target}: {reply:?}", client.version());
        }
    }
    upstream.assert_untouched("HEAD of what is refused");
}

#[test]
fn a_refused_mount_becomes_a_plain_upload() {
    let upstream = Upstream::start();
    upstream.answer(|_| Answer::new(202).header("Location", "/v2/team/app/blobs/uploads/3f2a?_state=x"));
    let policy = "
rules:
  - { name: own, subjects: [any], repositories: ['team/**'], actions: [pull, push, overwrite], effect: allow }
  - { name: base, subjects: [any], repositories: ['lib/**'], actions: [pull], effect: allow }
";
    let gateway = gateway().policy(policy).upstream(upstream.url()).start();
    for mut client in gateway.both() {
        let target = format!("/v2/team/app/blobs/uploads/?mount={DIGEST}&from=secret/repo");
        assert_eq!(client.request("POST", &target, &[], b"").status, 202);
        assert_eq!(upstream.only().line(), "POST /v2/team/app/blobs/uploads/");

        let target = format!("/v2/team/app/blobs/uploads/?mount={DIGEST}&from=lib/base");
        assert_eq!(client.request("POST", &target, &[], b"").status, 202);
        let mount = format!("mount={}&from=lib%2Fbase", DIGEST.replace(':', "%3A"));
        assert_eq!(upstream.only().line(), format!("POST /v2/team/app/blobs/uploads/?{mount}"));

        let target = format!("/v2/lib/base/blobs/uploads/?mount={DIGEST}&from=team/app");
        client.request("POST", &target, &[], b"").assert_refusal(403, "DENIED");
        upstream.assert_untouched("a mount into a repository that may not be pushed to");
    }
}

#[test]
fn bodies_that_registries_read_parameters_from_are_refused_on_uploads() {
    let (upstream, gateway) = open_gateway();
    let form = format!("mount={DIGEST}&from=secret/repo");
    let multipart =
        format!("--x\r\nContent-Disposition: form-data; name=\"from\"\r\n\r\nsecret/repo\r\n--x--\r\n{form}");
    let types = [
        "application/x-www-form-urlencoded",
        "APPLICATION/X-WWW-Form-URLencoded; charset=utf-8",
        " application/x-www-form-urlencoded;",
        "multipart/form-data; boundary=x",
        "Multipart/Form-Data; boundary=x",
        "multipart/mixed; boundary=x",
    ];
    let uploads = [
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("PUT", "/v2/team/app/blobs/uploads/3f2a?_state=x"),
        ("PATCH", "/v2/team/app/blobs/uploads/3f2a?_state=x"),
    ];
    for kind in types {
        for (method, target) in uploads {
            for mut client in gateway.both() {
                let body = if kind.to_lowercase().contains("multipart") { &multipart } else { &form };
                let reply = client.request(method, target, &[("content-type", kind.trim())], body.as_bytes());
                let what = format!("{} {method} {target} {kind}", client.version());
                assert!((400..500).contains(&reply.status), "{what}: {reply:?}");
                assert!(!reply.code().is_empty(), "{what}: {reply:?}");
                upstream.assert_untouched(&what);
            }
        }
    }
}

#[test]
fn two_content_types_on_an_upload_are_refused() {
    let (upstream, gateway) = open_gateway();
    for mut client in gateway.both() {
        let headers =
            [("content-type", "application/octet-stream"), ("content-type", "application/x-www-form-urlencoded")];
        let reply = client.request("POST", "/v2/team/app/blobs/uploads/", &headers, b"mount=a&from=b");
        assert!((400..500).contains(&reply.status), "{}: {reply:?}", client.version());
    }
    upstream.assert_untouched("an upload with two content types");
}

#[test]
fn the_catalog_is_asked_with_known_parameters_only() {
    let upstream = Upstream::start();
    upstream.answer(|_| {
        Answer::new(200).header("Content-Type", "application/json").body(br#"{"repositories":["team/app"]}"#)
    });
    let gateway = gateway().upstream(upstream.url()).start();
    for mut client in gateway.both() {
        let reply = client.get("/v2/_catalog?last=lib/base&evil=1&n=100");
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.json()["repositories"], serde_json::json!(["team/app"]));
        for request in upstream.take() {
            assert!(request.line().starts_with("GET /v2/_catalog"), "{request:?}");
            assert!(!request.target.contains("evil"), "{request:?}");
        }
    }
}

#[test]
fn the_catalog_needs_its_own_right() {
    let upstream = Upstream::start();
    let policy = "rules: [{ name: own, subjects: [any], repositories: ['**'], actions: [pull, push, overwrite, delete], effect: allow }]";
    let gateway: Gateway = gateway().policy(policy).upstream(upstream.url()).start();
    for mut client in gateway.both() {
        client.get("/v2/_catalog").assert_refusal(403, "DENIED");
    }
    upstream.assert_untouched("the catalog without the right to it");
}
