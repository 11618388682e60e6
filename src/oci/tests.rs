//! Every row of what registries do with requests, and every trick that gives a request two readings.

use super::*;

mod queries;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn ok(method: &str, path: &str, query: Option<&str>) -> Route {
    route(method, path, query).unwrap_or_else(|error| panic!("{method} {path}?{query:?}: {error}"))
}

fn refused(method: &str, path: &str, query: Option<&str>) -> ErrorCode {
    match route(method, path, query) {
        Ok(route) => panic!("{method} {path}?{query:?} became {route:?}"),
        Err(error) => error.code,
    }
}

fn accesses(route: &Route) -> Vec<String> {
    let tags = |access: &Access<'_>| access.tags.iter().flat_map(|tag| [":", tag.as_str()]).collect::<String>();
    let repository = |access: &Access<'_>| access.repository.map(|name| format!("({name})")).unwrap_or_default();
    route.accesses().iter().map(|access| format!("{}{}{}", access.action, repository(access), tags(access))).collect()
}

#[test]
fn every_endpoint_implies_its_accesses() {
    let manifest = format!("/v2/a/b/manifests/{SHA}");
    let blob = format!("/v2/a/b/blobs/{SHA}");
    let referrers = format!("/v2/a/b/referrers/{SHA}");
    let upload = "/v2/a/b/blobs/uploads/1c9a4d8e-0000-4000-8000-000000000000";
    #[rustfmt::skip]
    let table: &[(&str, &str, RouteKind, &[&str])] = &[
        ("GET",    "/v2/",                     RouteKind::Ping,        &[]),
        ("HEAD",   "/v2/",                     RouteKind::Ping,        &[]),
        ("GET",    "/v2",                      RouteKind::Ping,        &[]),
        ("GET",    "/v2/_catalog",             RouteKind::Catalog,     &["catalog"]),
        ("GET",    "/v2/a/b/tags/list",        RouteKind::Tags,        &["pull(a/b)"]),
        ("GET",    "/v2/a/b/manifests/v1",     RouteKind::Manifest,    &["pull(a/b)"]),
        ("HEAD",   "/v2/a/b/manifests/v1",     RouteKind::Manifest,    &["pull(a/b)"]),
        ("PUT",    "/v2/a/b/manifests/v1",     RouteKind::Manifest,    &["push(a/b):v1"]),
        ("DELETE", "/v2/a/b/manifests/v1",     RouteKind::Manifest,    &["delete(a/b):v1"]),
        ("GET",    &manifest,                  RouteKind::Manifest,    &["pull(a/b)"]),
        ("PUT",    &manifest,                  RouteKind::Manifest,    &["push(a/b)"]),
        ("DELETE", &manifest,                  RouteKind::Manifest,    &["delete(a/b)"]),
        ("GET",    &blob,                      RouteKind::Blob,        &["pull(a/b)"]),
        ("HEAD",   &blob,                      RouteKind::Blob,        &["pull(a/b)"]),
        ("DELETE", &blob,                      RouteKind::Blob,        &["delete(a/b)"]),
        ("POST",   "/v2/a/b/blobs/uploads/",   RouteKind::UploadStart, &["push(a/b)"]),
        ("GET",    upload,                     RouteKind::Upload,      &["push(a/b)"]),
        ("HEAD",   upload,                     RouteKind::Upload,      &["push(a/b)"]),
        ("PATCH",  upload,                     RouteKind::Upload,      &["push(a/b)"]),
        ("PUT",    upload,                     RouteKind::Upload,      &["push(a/b)"]),
        ("DELETE", upload,                     RouteKind::Upload,      &["push(a/b)"]),
        ("GET",    &referrers,                 RouteKind::Referrers,   &["pull(a/b)"]),
    ];
    for (method, path, kind, expected) in table {
        let route = ok(method, path, None);
        assert_eq!(route.kind(), *kind, "{method} {path}");
        assert_eq!(accesses(&route), *expected, "{method} {path}");
        assert_eq!(route.method().as_str(), *method);
        assert_eq!(route.action(), route.accesses().first().map(|access| access.action), "{method} {path}");
        let canonical = if *path == "/v2" { "/v2/" } else { path };
        assert_eq!(route.target(), canonical, "{method} {path}");
    }
}

#[test]
fn other_methods_are_405_and_say_what_is_allowed() {
    let endpoints = [
        ("/v2/".to_owned(), RouteKind::Ping),
        ("/v2/_catalog".to_owned(), RouteKind::Catalog),
        ("/v2/a/tags/list".to_owned(), RouteKind::Tags),
        ("/v2/a/manifests/v1".to_owned(), RouteKind::Manifest),
        (format!("/v2/a/blobs/{SHA}"), RouteKind::Blob),
        ("/v2/a/blobs/uploads/".to_owned(), RouteKind::UploadStart),
        ("/v2/a/blobs/uploads/x".to_owned(), RouteKind::Upload),
        (format!("/v2/a/referrers/{SHA}"), RouteKind::Referrers),
    ];
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "Put", "MOVE", "",
        "GET ",
    ];
    for (path, kind) in &endpoints {
        let allowed: Vec<&str> = kind.allow().split(", ").collect();
        for method in methods {
            match route(method, path, None) {
                Ok(route) => assert!(allowed.contains(&method) && route.kind() == *kind, "{method} {path}"),
                Err(error) => {
                    assert!(!allowed.contains(&method), "{method} {path}: {error}");
                    assert_eq!((error.code.status(), error.allow), (405, Some(kind.allow())), "{method} {path}");
                }
            }
        }
    }
}

#[test]
fn the_path_is_matched_from_the_right() {
    for (path, kind, repository) in [
        ("/v2/a/blobs/uploads/manifests/latest", RouteKind::Manifest, "a/blobs/uploads"),
        ("/v2/blobs/uploads/manifests/latest", RouteKind::Manifest, "blobs/uploads"),
        ("/v2/a/blobs/uploads/tags/list", RouteKind::Tags, "a/blobs/uploads"),
        ("/v2/a/manifests/tags/list", RouteKind::Tags, "a/manifests"),
        ("/v2/a/tags/list/manifests/list", RouteKind::Manifest, "a/tags/list"),
        ("/v2/manifests/manifests/manifests", RouteKind::Manifest, "manifests"),
    ] {
        let route = ok("GET", path, None);
        assert_eq!(route.kind(), kind, "{path}");
        assert_eq!(route.repository().map(RepoName::as_str), Some(repository), "{path}");
    }
    let route = ok("POST", "/v2/a/blobs/uploads/blobs/uploads/", None);
    assert_eq!(route.repository().map(RepoName::as_str), Some("a/blobs/uploads"));
}

#[test]
fn unknown_paths_are_404() {
    for path in [
        "/",
        "/metrics",
        "/debug/pprof",
        "/v1/_ping",
        "/v2/a",
        "/v2/a/b/c",
        "/v2/a/uploads/x",
        "/v2x/a/tags/list",
        "/v2/a/tags/other",
        "/v2/_catalog/x",
        "/V2/a/tags/list",
        "/token",
        "/v2/SECRET/repo",
    ] {
        for method in ["GET", "HEAD", "PUT"] {
            assert_eq!(refused(method, path, None), ErrorCode::NameUnknown, "{path}");
        }
    }
}

#[test]
fn paths_with_a_second_spelling_are_400() {
    let long = format!("/v2/{}/tags/list", "a".repeat(256));
    let endless = format!("/v2/{}/tags/list", "a/".repeat(100_000));
    for path in [
        "/v2/secret%2frepo/tags/list",
        "/v2/secret%2Frepo/manifests/latest",
        "/v2/%73ecret/manifests/latest",
        "/v2/%2573ecret/manifests/latest",
        "/v2/a/%2e%2e/b/tags/list",
        "/v2/a/..%2f..%2fb/tags/list",
        "/v2/a/../b/manifests/latest",
        "/v2/a/./b/manifests/latest",
        "/v2/../metrics",
        "/v2/a/blobs/uploads/..",
        "/v2/a/blobs/uploads/.",
        "/v2//a/manifests/latest",
        "//v2/a/manifests/latest",
        "/v2/a//manifests/latest",
        "/v2/a/blobs//uploads/",
        "/v2/a/blobs/uploads//",
        "/v2/a/manifests/latest/",
        "/v2/a/tags/list/",
        "/v2/_catalog/",
        "/metrics/",
        "/v2//",
        "/v2/a\\b/tags/list",
        "/v2/a;b/tags/list",
        "/v2/a/manifests/latest;x",
        "/v2/SECRET/manifests/latest",
        "/v2/Secret/tags/list",
        "/v2/a+b/tags/list",
        "/v2/a@b/tags/list",
        "/v2/a b/tags/list",
        "/v2/a\u{e9}/tags/list",
        "/v2/a\0b/tags/list",
        "/v2/a\r\nb/tags/list",
        "/v2/_a/tags/list",
        "/v2/-a/tags/list",
        "/v2/a-/tags/list",
        "/v2/a..b/tags/list",
        "/v2/a___b/tags/list",
        "/v2/a._b/tags/list",
        "/v2/tags/list",
        "/v2/manifests/latest",
        "/v2/blobs/uploads/x/tags/lis%74",
        "http://evil.example/v2/a/tags/list",
        "*",
        "",
        &long,
        &endless,
    ] {
        assert_eq!(refused("GET", path, None), ErrorCode::NameInvalid, "{path}");
        assert_eq!(ErrorCode::NameInvalid.status(), 400);
    }
}

#[test]
fn get_and_head_are_refused_alike() {
    for path in ["/v2/A/manifests/x", "/v2/a/manifests/-x", "/v2/a/blobs/sha256:00", "/v2/a/manifests/x/", "/nothing"] {
        for query in [None, Some("tag=a;b"), Some("n=1&n=2")] {
            assert_eq!(route("GET", path, query), route("HEAD", path, query), "{path}");
        }
    }
}

#[test]
fn a_colon_may_be_escaped_in_a_digest_and_nowhere_else() {
    for path in [format!("/v2/a/blobs/sha256%3A{HEX}"), format!("/v2/a/manifests/sha256%3a{HEX}")] {
        let route = ok("GET", &path, None);
        assert_eq!(route.reference(), Some(SHA));
        assert!(route.target().ends_with(&format!("/{SHA}")), "one spelling goes upstream");
    }
    for path in [
        format!("/v2/a%3Ab/blobs/{SHA}"),
        format!("/v2/sha256%3Ab/blobs/{SHA}"),
        "/v2/a/manifests/v%3A1".to_owned(),
        "/v2/a/blobs/uploads/x%3Ay".to_owned(),
        format!("/v2/a/blobs/sha256%3A%65{HEX}"),
        format!("/v2/a/blobs/sha256%253A{HEX}"),
        format!("/v2/a/blobs/sha256%3A{HEX}%3A"),
    ] {
        assert_eq!(refused("GET", &path, None), ErrorCode::NameInvalid, "{path}");
    }
}

#[test]
fn malformed_references_get_the_registrys_code() {
    let upper = SHA.to_uppercase().replace("SHA", "sha");
    let long_tag = format!("/v2/a/manifests/{}", "t".repeat(129));
    for (path, code) in [
        ("/v2/a/manifests/.hidden", ErrorCode::TagInvalid),
        ("/v2/a/manifests/-x", ErrorCode::TagInvalid),
        (long_tag.as_str(), ErrorCode::TagInvalid),
        ("/v2/a/manifests/a=b", ErrorCode::TagInvalid),
        ("/v2/a/manifests/sha256:00", ErrorCode::DigestInvalid),
        ("/v2/a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e", ErrorCode::DigestInvalid),
        ("/v2/a/blobs/uploads", ErrorCode::DigestInvalid),
        ("/v2/a/blobs/latest", ErrorCode::DigestInvalid),
        (&format!("/v2/a/blobs/{upper}"), ErrorCode::DigestInvalid),
        (&format!("/v2/a/blobs/{SHA}0"), ErrorCode::DigestInvalid),
        ("/v2/a/referrers/latest", ErrorCode::DigestInvalid),
        ("/v2/a/blobs/uploads/x:y", ErrorCode::BlobUploadInvalid),
    ] {
        assert_eq!(refused("GET", path, None), code, "{path}");
    }
}

#[test]
fn names_follow_the_grammar() {
    for good in ["a", "a/b", "0", "a.b", "a_b", "a__b", "a-b", "a---b", "a/b/c.d__e-f", &"a".repeat(255)] {
        assert_eq!(RepoName::parse(good).map(|name| name.to_string()), Ok(good.to_owned()));
    }
    for bad in
        ["", "/", "a/", "/a", "a//b", "A", "a_", "_a", "a___b", "a..b", "a.-b", "a-_b", "a-.b", "é", "a b", "a:b"]
    {
        assert_eq!(RepoName::parse(bad), Err(NameError::Repository), "{bad}");
    }
    assert_eq!(RepoName::parse(&"a".repeat(256)), Err(NameError::RepositoryTooLong));
    for good in ["latest", "_", "v1.0-rc_1", "A", &"t".repeat(128)] {
        assert!(Tag::parse(good).is_ok(), "{good}");
    }
    assert!(Digest::parse(&format!("sha512:{}", "0".repeat(128))).is_ok());
    for bad in ["", ":", "sha256:", "sha512:00", HEX, &format!(" {SHA}"), &format!("SHA256:{HEX}")] {
        assert!(Digest::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_push_by_digest_lists_every_tag() {
    let path = format!("/v2/a/manifests/{SHA}");
    let route = ok("PUT", &path, Some("tag=v1&tag=latest"));
    assert_eq!(accesses(&route), ["push(a):v1:latest"]);
    assert_eq!(route.target(), format!("{path}?tag=v1&tag=latest"));
    for query in ["tag=", "tag=-x", "tag=a&tag=b%2Fc", &"tag=a&".repeat(65)] {
        assert_eq!(refused("PUT", &path, Some(query)), ErrorCode::TagInvalid, "{query}");
    }
    let route = ok("GET", &path, Some("tag=v1"));
    assert_eq!((accesses(&route), route.target()), (vec!["pull(a)".to_owned()], path));
}

#[test]
fn bodies_are_expected_only_where_something_is_written() {
    for (method, path, body, upload) in [
        ("GET", "/v2/", false, false),
        ("PUT", "/v2/a/manifests/x", true, false),
        ("DELETE", "/v2/a/manifests/x", false, false),
        ("POST", "/v2/a/blobs/uploads/", true, true),
        ("PATCH", "/v2/a/blobs/uploads/x", true, true),
        ("PUT", "/v2/a/blobs/uploads/x", true, true),
        ("GET", "/v2/a/blobs/uploads/x", false, true),
    ] {
        let route = ok(method, path, None);
        assert_eq!((route.takes_body(), route.is_upload()), (body, upload), "{method} {path}");
    }
}

#[test]
fn what_goes_upstream_reads_the_same_again() {
    let requests = [
        ("POST", "/v2/mine/blobs/uploads/".to_owned(), format!("mount={SHA}&from=a/b&digest={SHA}")),
        ("PUT", "/v2/mine/blobs/uploads/s=.1".to_owned(), format!("_state=abc%3D%3D&digest={SHA}")),
        ("PUT", format!("/v2/a/manifests/{SHA}"), "tag=a&tag=b".to_owned()),
        ("GET", "/v2/_catalog".to_owned(), "n=5&last=a/b".to_owned()),
    ];
    for (method, path, query) in requests {
        let first = ok(method, &path, Some(&query));
        let target = first.target();
        let (path, query) = target.split_once('?').expect("a query");
        assert_eq!(ok(method, path, Some(query)), first, "{target}");
    }
}

#[test]
fn errors_have_the_clients_form_and_escape_text() {
    let text = body(ErrorCode::Denied, "a \"quoted\"\r\nline", Some(serde_json::json!({"rule": "x"})));
    assert!(!text.contains('\n'));
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let expected =
        serde_json::json!({"errors": [{"code": "DENIED", "message": "a \"quoted\"\r\nline", "detail": {"rule": "x"}}]});
    assert_eq!(value, expected);
    assert_eq!(body(ErrorCode::NameInvalid, "m", None), r#"{"errors":[{"code":"NAME_INVALID","message":"m"}]}"#);
}

#[test]
fn statuses_are_those_of_distribution() {
    #[rustfmt::skip]
    let statuses = [
        ("UNAUTHORIZED", 401), ("DENIED", 403), ("TOOMANYREQUESTS", 429), ("UNSUPPORTED", 405), ("UNAVAILABLE", 503),
        ("NAME_INVALID", 400), ("DIGEST_INVALID", 400), ("SIZE_INVALID", 400), ("TAG_INVALID", 400),
        ("MANIFEST_INVALID", 400), ("PAGINATION_NUMBER_INVALID", 400), ("NAME_UNKNOWN", 404), ("MANIFEST_UNKNOWN", 404),
        ("BLOB_UNKNOWN", 404), ("BLOB_UPLOAD_UNKNOWN", 404), ("BLOB_UPLOAD_INVALID", 404), ("RANGE_INVALID", 416),
    ];
    assert_eq!(ErrorCode::ALL.map(|code| (code.as_str(), code.status())), statuses);
}
