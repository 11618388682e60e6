//! The query string: mounts, pages, states, and everything that could be read in two ways.

use super::*;

#[test]
fn a_mount_needs_pull_on_its_source() {
    let query = format!("mount={SHA}&from=secret/repo");
    let route = ok("POST", "/v2/mine/blobs/uploads/", Some(&query));
    assert!(route.has_mount());
    assert_eq!(accesses(&route), ["push(mine)", "mount-from(secret/repo)"]);
    assert_eq!(route.target(), format!("/v2/mine/blobs/uploads/?mount=sha256%3A{HEX}&from=secret%2Frepo"));
    let route = route.without_mount();
    assert_eq!(
        (accesses(&route), route.target()),
        (vec!["push(mine)".to_owned()], "/v2/mine/blobs/uploads/".to_owned())
    );
}

#[test]
fn a_mount_spelt_with_escapes_is_the_same_mount() {
    let plain = format!("mount={SHA}&from=secret/repo");
    for query in [
        format!("mount={SHA}&fr%6fm=secret%2Frepo"),
        format!("%6d%6Funt=sha256%3a{HEX}&from=%73ecret/repo"),
        format!("&&from=secret/repo&ns=docker.io&mount={SHA}&"),
    ] {
        let found = ok("POST", "/v2/mine/blobs/uploads/", Some(&query));
        assert_eq!(found, ok("POST", "/v2/mine/blobs/uploads/", Some(&plain)), "{query}");
    }
}

#[test]
fn a_mount_of_unknown_source_is_dropped() {
    for query in [
        format!("mount={SHA}"),
        format!("mount={SHA}&from="),
        "from=secret/repo".to_owned(),
        "mount=&from=a".to_owned(),
    ] {
        let route = ok("POST", "/v2/mine/blobs/uploads/", Some(&query));
        assert!(!route.has_mount(), "{query}");
        assert_eq!(accesses(&route), ["push(mine)"], "{query}");
        assert_eq!(route.target(), "/v2/mine/blobs/uploads/", "{query}");
    }
}

#[test]
fn ambiguous_queries_are_400() {
    for query in [
        format!("mount={SHA}&from=mine&from=secret"),
        format!("mount={SHA}&from=mine&fr%6fm=secret"),
        format!("mount={SHA}&mount={SHA}&from=mine"),
        format!("mount={SHA};from=secret"),
        format!("mount={SHA}&from=mine;from=secret"),
        format!("mount={SHA}&from=mine&from="),
        format!("mount={SHA}&from=secret%2"),
        format!("mount={SHA}&from=secret%zz"),
        format!("mount={SHA}&fro%6=secret"),
        format!("mount={SHA}&from=%ff"),
        format!("mount={SHA}&from=secret%252frepo"),
        format!("mount={SHA}&from=Secret"),
        format!("mount={SHA}&from=../secret"),
        format!("mount={SHA}&from=a%00b"),
        format!("mount={SHA}&from=a+b"),
        format!("mount={SHA}&from=mine#&from=secret"),
        format!("mount={SHA}&from=a b"),
        "mount=sha256:00&from=mine".to_owned(),
        "digest=sha256:00".to_owned(),
        format!("digest={SHA}&digest={SHA}"),
        "digest-algorithm=md5".to_owned(),
        format!("x={}", "a".repeat(20_000)),
    ] {
        assert_eq!(refused("POST", "/v2/mine/blobs/uploads/", Some(&query)).status(), 400, "{query}");
    }
    for query in ["from=a&from=b", "n=1;n=2", "%zz=1"] {
        assert_eq!(refused("GET", "/v2/a/manifests/x", Some(query)).status(), 400, "also where unknown: {query}");
    }
}

#[test]
fn unknown_keys_are_dropped_and_known_ones_rebuilt() {
    // SHA stands for a digest, ENC for the same with its colon escaped.
    let (start, upload, manifest) = ("/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/s1", "/v2/a/manifests/x");
    for (method, path, query, rebuilt) in [
        ("GET", "/v2/", "ns=docker.io", ""),
        ("GET", manifest, "ns=docker.io&n=5&tag=y", ""),
        ("PUT", manifest, "tag=y", ""),
        ("GET", "/v2/a/tags/list", "last=v1&n=007&x=%zz", "?n=7&last=v1"),
        ("GET", "/v2/a/tags/list", "last=", ""),
        ("GET", "/v2/_catalog", "n=10000&last=a/b", "?n=10000&last=a%2Fb"),
        ("POST", start, "digest=SHA", "?digest=ENC"),
        ("POST", start, "digest-algorithm=sha512", "?digest-algorithm=sha512"),
        ("PUT", upload, "digest=SHA&_state=ab-_C%3D", "?_state=ab-_C%3D&digest=ENC"),
        ("PATCH", upload, "digest=SHA&_state=abc=", "?_state=abc%3D"),
        ("GET", upload, "_state=abc&mount=x", "?_state=abc"),
    ] {
        let target = format!("{path}{}", rebuilt.replace("ENC", &format!("sha256%3A{HEX}")));
        assert_eq!(ok(method, path, Some(&query.replace("SHA", SHA))).target(), target, "{method} {path}?{query}");
    }
    let referrers = format!("/v2/a/referrers/{SHA}");
    assert_eq!(
        ok("GET", &referrers, Some("artifactType=application/vnd.example%2Bjson")).target(),
        format!("{referrers}?artifactType=application%2Fvnd.example%2Bjson")
    );
    assert_eq!(refused("GET", &referrers, Some("artifactType=application/vnd.example+json")).status(), 400);
}

#[test]
fn pages_have_a_sensible_size() {
    for n in ["-1", "0", "", "1e3", "%2B5", "10001", "99999999999999999999", "1%20", "٣"] {
        for path in ["/v2/_catalog", "/v2/a/tags/list"] {
            let error = refused("GET", path, Some(&format!("n={n}")));
            let expected = if n.is_ascii() { ErrorCode::PaginationNumberInvalid } else { ErrorCode::NameInvalid };
            assert_eq!(error, expected, "{path}?n={n}");
        }
    }
    assert_eq!(refused("GET", "/v2/_catalog", Some("last=../x")), ErrorCode::NameInvalid);
    assert_eq!(refused("GET", "/v2/a/tags/list", Some("last=a/b")), ErrorCode::TagInvalid);
}

#[test]
fn a_binding_is_read_from_a_session_and_goes_no_further() {
    let binding = |query: &str| match ok("PATCH", "/v2/a/blobs/uploads/1", Some(query)).endpoint() {
        Endpoint::Upload { binding, .. } => binding.as_deref().map(str::to_owned),
        other => panic!("{other:?}"),
    };
    assert_eq!(binding("_state=x"), None);
    assert_eq!(binding("_bind=abc&_state=x").as_deref(), Some("abc"));
    assert_eq!(binding("_state=x&%5fbind=").as_deref(), Some(""));
    let route = ok("PATCH", "/v2/a/blobs/uploads/1", Some("_bind=abc&_state=x"));
    assert_eq!(route.target(), "/v2/a/blobs/uploads/1?_state=x");
    assert!(super::route("PATCH", "/v2/a/blobs/uploads/1", Some("_bind=a&_bind=b")).is_err());
}
