//! What is left behind: metrics, access records, and nothing that should not be.

use crate::DIGEST;
use crate::open_gateway;
use crate::support::gateway::{gateway, plain_http};
use crate::support::pki;
use crate::support::upstream::{Answer, Upstream};
use serde_json::Value;
use std::time::Duration;

/// Name, labels and value of a sample.
type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

const PULL: &str = "/v2/team/app/manifests/v1";

#[test]
fn every_request_leaves_one_record() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|request| match request.method.as_str() {
        "GET" => Answer::new(200).pattern(0, 1234),
        _ => Answer::new(201),
    });
    for (count, mut client) in gateway.both().into_iter().enumerate() {
        client.request("GET", PULL, &[("user-agent", "docker/20.10")], b"");
        client.request("PUT", &format!("/v2/team/app/manifests/{DIGEST}"), &[], b"{\"a\":1}");
        let version = client.version();
        let pull = gateway.wait_for_record(|r| r["http_version"] == version && r["method"] == "GET");
        let wanted: &[(&str, Value)] = &[
            ("listener", "main".into()),
            ("route", "manifest".into()),
            ("repository", "team/app".into()),
            ("reference", "v1".into()),
            ("action", "pull".into()),
            ("decision", "allow".into()),
            ("rule", "everyone".into()),
            ("status", 200.into()),
            ("bytes_in", 0.into()),
            ("bytes_out", 1234.into()),
            ("outcome", "proxied".into()),
            ("user_agent", "docker/20.10".into()),
        ];
        for (key, value) in wanted {
            assert_eq!(&pull[*key], value, "{key}: {pull}");
        }
        for key in ["time", "decision_id", "fingerprint", "serial", "tls_version", "cipher", "request_id", "trace_id"] {
            assert!(pull[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {pull}");
        }
        assert!(pull["identity"].as_str().is_some_and(|text| text.contains("ci-7")), "{pull}");
        assert!(pull["client"].as_str().is_some_and(|text| text.starts_with("127.0.0.1:")), "{pull}");
        assert!(pull["upstream"].as_str().is_some_and(|text| text.contains(&upstream.address().to_string())), "{pull}");
        assert!(pull["duration_ms"].as_f64().is_some_and(|n| n > 0.0), "{pull}");
        let push = gateway.wait_for_record(|r| r["http_version"] == version && r["method"] == "PUT");
        assert_eq!((&push["action"], &push["bytes_in"]), (&"push".into(), &7.into()), "{push}");
        assert_eq!((&push["reference"], &push["status"]), (&DIGEST.into(), &201.into()), "{push}");
        assert_eq!(gateway.records().len(), 2 * (count + 1), "{:#?}", gateway.records());
        let seen = upstream.requests();
        assert!(seen.iter().any(|r| r.header("x-request-id") == pull["request_id"].as_str()), "{pull}");
    }
}

#[test]
fn refusals_of_every_kind_leave_records() {
    let upstream = Upstream::start();
    let gateway = gateway().policy("rules: []\n").upstream(upstream.url()).start();
    for mut client in gateway.both() {
        let version = client.version();
        client.get(PULL);
        client.request("POST", PULL, &[], b"");
        client.get("/v2/a//b/tags/list");
        for (outcome, status) in [("denied", 403), ("unsupported", 405), ("malformed", 400)] {
            let record = gateway.wait_for_record(|r| r["http_version"] == version && r["outcome"] == outcome);
            assert_eq!(record["status"], status, "{record}");
            assert!(record["decision_id"].as_str().is_some_and(|id| id.len() == 26), "{record}");
        }
    }
    let labels = [("route", "manifest"), ("method", "GET"), ("status", "4xx"), ("outcome", "denied")];
    gateway.wait_for_metric("portcullis_requests_total", &labels, |n| n == 2.0);
}

#[test]
fn a_client_that_hangs_up_leaves_a_record() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|_| Answer::new(200).pattern(0, 1 << 30).slowly(64 * 1024, Duration::from_millis(10)));
    let mut h1 = gateway.h1();
    h1.send_request("GET", PULL, &[], b"").expect("sent");
    h1.head().expect("a head");
    drop(h1);
    let record = gateway.wait_for_record(|r| r["outcome"] == "client_aborted" && r["http_version"] == "HTTP/1.1");
    assert!(record["bytes_out"].as_u64().is_some_and(|n| n < 1 << 30), "{record}");
    let mut h2 = gateway.h2();
    let mut exchange = h2.open("GET", PULL, &[], true).expect("a stream");
    exchange.head().expect("a head");
    exchange.reset();
    gateway.wait_for_record(|r| r["outcome"] == "client_aborted" && r["http_version"] == "HTTP/2");
}

#[test]
fn foreign_text_stays_on_its_line() {
    let (_upstream, gateway) = open_gateway();
    let odd = gateway.client_ca.issue(&pki::bare_client("evil\" \\\\ ,\u{202e}name").san("DNS:x.example"));
    let mut client = gateway.h1_as(&odd);
    let agent = "a\"b\\c\td{\"outcome\":\"proxied\"}";
    client.request("GET", PULL, &[("User-Agent", agent)], b"").expect("an answer");
    let record = gateway.wait_for_record(|r| r["route"] == "manifest");
    assert!(record["user_agent"].as_str().is_some_and(|text| text.starts_with("a\"b")), "{record}");
    let text = std::fs::read_to_string(gateway.path().join("access.log")).expect("the log");
    assert_eq!(text.lines().count(), 1, "{text}");
    let bytes = text.trim_end().chars();
    assert!(bytes.clone().all(|c| !c.is_control() && c != '\u{202e}'), "{text:?}");
}

#[test]
fn long_text_is_cut() {
    let (_upstream, gateway) = open_gateway();
    let agent = "x".repeat(20_000);
    gateway.h1().request("GET", PULL, &[("User-Agent", &agent)], b"").expect("an answer");
    let record = gateway.wait_for_record(|r| r["route"] == "manifest");
    assert!(record["user_agent"].as_str().is_some_and(|text| text.len() < 1_000), "{record}");
}

#[test]
fn metrics_count_what_happened_and_name_nobody() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|_| Answer::new(200).pattern(0, 1000));
    for mut client in gateway.both() {
        client.get(PULL);
        client.get(&format!("/v2/team/app/blobs/{DIGEST}"));
        client.request("PATCH", "/v2/team/app/blobs/uploads/1?_state=x", &[], &[1_u8; 500]);
    }
    let labels = [("route", "blob"), ("method", "GET"), ("status", "2xx"), ("outcome", "proxied")];
    gateway.wait_for_metric("portcullis_requests_total", &labels, |n| n == 2.0);
    let expected: &[Expected<'_>] = &[
        ("portcullis_handshakes_total", &[("result", "established")], 2.0),
        ("portcullis_handshake_seconds_count", &[], 2.0),
        ("portcullis_requests_total", &[("route", "upload"), ("method", "PATCH")], 2.0),
        ("portcullis_request_seconds_count", &[("route", "manifest")], 2.0),
        ("portcullis_request_size_bytes_sum", &[("route", "upload")], 1000.0),
        ("portcullis_response_size_bytes_sum", &[("route", "blob")], 2000.0),
        ("portcullis_request_bytes_total", &[], 1000.0),
        ("portcullis_config_generation", &[], 1.0),
        ("portcullis_reload_failed", &[], 0.0),
        ("portcullis_access_records_dropped_total", &[], 0.0),
        ("portcullis_build_info", &[], 1.0),
    ];
    for (name, labels, value) in expected {
        gateway.wait_for_metric(name, labels, |n| (n - value).abs() < 0.5);
    }
    let text = gateway.metrics();
    for name in [
        "portcullis_connections ",
        "portcullis_connections_total{",
        "portcullis_upstream_connections",
        "portcullis_certificate_expiry_timestamp_seconds{",
        "portcullis_certificate_start_timestamp_seconds{",
        "portcullis_last_reload_timestamp_seconds",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
    for secret in ["ci-7", "team/app", "corp.example"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[test]
fn every_metric_follows_the_grammar_of_names() {
    let (_upstream, gateway) = open_gateway();
    gateway.h1().get(PULL);
    for line in gateway.metrics().lines().filter(|line| line.starts_with("# TYPE ")) {
        let mut words = line.split(' ').skip(2);
        let (name, kind) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if !name.starts_with("portcullis_") {
            continue;
        }
        assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        if kind == "histogram" {
            assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{line}");
        }
    }
}

#[test]
fn the_internal_listeners_keep_to_their_part() {
    let (_upstream, gateway) = open_gateway();
    let health = |path: &str| plain_http(gateway.health(), "GET", path).status;
    assert_eq!((health("/livez"), health("/readyz"), health("/metrics")), (200, 200, 200));
    for path in ["/config", "/", "/v2/", "/debug/pprof", "/-/reload", "/metrics/../config"] {
        assert!((400..500).contains(&health(path)), "{path}");
    }
    let reload = plain_http(gateway.health(), "POST", "/-/reload").status;
    assert!((400..500).contains(&reload), "a reload needs the admin listener: {reload}");
    let by_get = plain_http(gateway.admin(), "GET", "/-/reload").status;
    assert_eq!(by_get, 405, "a link must not reload");
}

#[test]
fn the_configuration_is_shown_without_secrets() {
    let upstream = Upstream::start();
    let gateway = gateway()
        .upstream(upstream.url())
        .file("password", "s3cret\n")
        .with_upstream(|u| {
            u["authorization"] = "replace".into();
            u["credentials"] = serde_json::json!({ "username": "reader", "password_file": "password" });
        })
        .start();
    let shown = plain_http(gateway.admin(), "GET", "/config");
    assert_eq!(shown.status, 200, "{shown:?}");
    assert!(shown.text().contains("handshake_timeout"), "with its defaults: {}", shown.text());
    assert!(!shown.text().contains("s3cret"), "{}", shown.text());
}

#[test]
fn a_moved_access_log_is_reopened() {
    let upstream = Upstream::start();
    let mut gateway = gateway().upstream(upstream.url()).start();
    assert_eq!(gateway.h1().get("/v2/old/tags/list").status, 200);
    gateway.wait_for_record(|r| r["repository"] == "old");
    std::fs::rename(gateway.path().join("access.log"), gateway.path().join("access.log.1")).expect("writable");
    gateway.process().signal("HUP");
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while gateway.path().join("access.log").metadata().is_err() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(gateway.h1().get("/v2/new/tags/list").status, 200);
    gateway.wait_for_record(|r| r["repository"] == "new");
}

#[test]
fn the_gateways_log_is_one_json_object_a_line() {
    let (_upstream, gateway) = open_gateway();
    gateway.h1().get(PULL);
    for line in gateway.log() {
        let entry: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(entry["level"].is_string() && entry["message"].is_string(), "{line}");
    }
}
