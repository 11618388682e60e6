//! What the upstream learns about a client, and from whom; what the client learns about the upstream.

use crate::open_gateway;
use crate::support::gateway::gateway;
use crate::support::upstream::{Answer, Recorded, Upstream};

const TARGET: &str = "/v2/team/app/manifests/v1";

/// Headers by which a client could speak for the gateway; no value of them may pass.
const STOLEN: &[&str] = &[
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-User",
    "X-Forwarded-Client-Cert",
    "Forwarded",
    "Via",
    "X-Real-IP",
    "True-Client-IP",
    "X-Client-IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-Host",
    "X-Host",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-Client-Cert",
    "X-Client-CN",
    "X-SSL-Client-Cert",
    "X-SSL-Client-S-DN",
    "X-SSL-Client-Verify",
    "SSL-Client-Cert",
    "Client-Cert",
    "Client-Cert-Chain",
    "X-Remote-User",
    "Remote-User",
    "Proxy-Authorization",
    "Proxy-Connection",
];

fn values_of(request: &Recorded) -> String {
    String::from_utf8_lossy(&request.head).into_owned()
}

#[test]
fn a_client_cannot_speak_for_the_gateway() {
    let (upstream, gateway) = open_gateway();
    for mut client in gateway.both() {
        for name in STOLEN {
            for spelling in [name.to_lowercase(), name.replace('-', "_").to_lowercase()] {
                if client.version() == "HTTP/2" && spelling == "proxy-connection" {
                    continue; // malformed there, and the client library refuses to send it
                }
                let reply = client.request("GET", TARGET, &[(&spelling, "evil.example")], b"");
                let what = format!("{} {spelling}", client.version());
                assert_eq!(reply.status, 200, "{what}: {reply:?}");
                let seen = values_of(&upstream.only());
                assert!(!seen.contains("evil.example"), "{what}: {seen}");
            }
        }
    }
}

#[test]
fn underscored_headers_never_pass() {
    let (upstream, gateway) = open_gateway();
    for mut client in gateway.both() {
        client.request("GET", TARGET, &[("x_any_thing", "1"), ("accept", "a/b")], b"");
        let seen = upstream.only();
        assert!(seen.headers.iter().all(|(name, _)| !name.contains('_')), "{seen:?}");
        assert_eq!(seen.header("accept"), Some("a/b"));
    }
}

#[test]
fn the_gateways_own_headers_are_set_once_and_last() {
    let (upstream, gateway) = open_gateway();
    for mut client in gateway.both() {
        let headers = [("x-forwarded-for", "6.6.6.6"), ("x-request-id", "chosen\u{7e}by-client")];
        client.request("GET", TARGET, &headers, b"");
        let seen = upstream.only();
        for (name, value) in [
            ("host", "gw.test"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "gw.test"),
        ] {
            let all: Vec<_> = seen.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).collect();
            assert_eq!(all.len(), 1, "{} {name}: {seen:?}", client.version());
            assert_eq!(seen.header(name), Some(value), "{}", client.version());
        }
        assert!(seen.header("x-request-id").is_some_and(|id| id.len() >= 16), "{seen:?}");
        let trace = seen.header("traceparent").expect("a traceparent is made");
        let parts: Vec<_> = trace.split('-').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len(), parts[3].len()), ("00", 32, 16, 2), "{trace}");
    }
}

#[test]
fn a_valid_traceparent_is_kept_and_another_replaced() {
    let (upstream, gateway) = open_gateway();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let valid = format!("00-{trace}-00f067aa0ba902b7-01");
    for mut client in gateway.both() {
        client.request("GET", TARGET, &[("traceparent", &valid)], b"");
        let seen = upstream.only();
        assert!(seen.header("traceparent").is_some_and(|t| t.contains(trace)), "{seen:?}");
        let zeros = "00-00000000000000000000000000000000-0000000000000000-01";
        for broken in ["nonsense", zeros, "00-XYZ-00f067aa0ba902b7-01"] {
            client.request("GET", TARGET, &[("traceparent", broken)], b"");
            let seen = upstream.only();
            assert_ne!(seen.header("traceparent"), Some(broken), "{seen:?}");
        }
    }
}

#[test]
fn what_belongs_to_one_hop_stays_there() {
    let (upstream, gateway) = open_gateway();
    let mut client = gateway.h1();
    let headers = [
        ("Connection", "keep-alive"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("Trailer", "X-Later"),
    ];
    assert_eq!(client.request("GET", TARGET, &headers, b"").expect("an answer").status, 200);
    let seen = upstream.only();
    for name in ["keep-alive", "te", "upgrade", "http2-settings", "trailer"] {
        assert!(!seen.has(name), "{name}: {seen:?}");
    }
}

#[test]
fn a_client_cannot_make_the_gateways_headers_hop_by_hop() {
    let (upstream, gateway) = open_gateway();
    for named in ["X-Forwarded-For", "X-Secret", "Host", "X-Request-Id, X-Forwarded-Proto", "Content-Length"] {
        let headers = [("Connection", named), ("X-Secret", "1")];
        let reply = gateway.h1().request("GET", TARGET, &headers, b"").expect("an answer");
        if reply.status == 400 {
            upstream.assert_untouched(named);
            continue;
        }
        assert_eq!(reply.status, 200, "{named}: {reply:?}");
        let seen = upstream.only();
        assert!(named != "X-Secret" || !seen.has("x-secret"), "{seen:?}");
        for (name, value) in [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https"), ("host", "gw.test")] {
            assert_eq!(seen.header(name), Some(value), "{named}: {seen:?}");
        }
        assert!(seen.has("x-request-id"), "{named}: {seen:?}");
    }
}

#[test]
fn what_registries_need_passes() {
    let (upstream, gateway) = open_gateway();
    for mut client in gateway.both() {
        let headers = [
            ("accept", "application/vnd.oci.image.index.v1+json"),
            ("accept", "application/vnd.docker.distribution.manifest.v2+json"),
            ("user-agent", "docker/20.10"),
            ("range", "bytes=0-9"),
            ("if-none-match", "\"x\""),
        ];
        client.request("GET", TARGET, &headers, b"");
        let seen = upstream.only();
        let text = values_of(&seen);
        for (name, value) in headers {
            assert!(text.contains(value), "{} {name}: {text}", client.version());
        }
        let headers = [("content-type", "application/vnd.oci.image.manifest.v1+json"), ("content-length", "2")];
        client.request("PUT", TARGET, &headers, b"{}");
        let seen = upstream.only();
        assert_eq!(seen.header("content-type"), Some("application/vnd.oci.image.manifest.v1+json"));
        assert_eq!((seen.header("content-length"), seen.body.as_slice()), (Some("2"), &b"{}"[..]));
    }
}

#[test]
fn client_credentials_are_dropped_passed_or_replaced() {
    let cases = [("drop", None), ("pass", Some("Basic Y2xpZW50")), ("replace", Some("Basic cmVhZGVyOnMzY3JldA=="))];
    for (option, wanted) in cases {
        let upstream = Upstream::start();
        let gateway = gateway()
            .upstream(upstream.url())
            .file("password", "s3cret\n")
            .with_upstream(|u| {
                u["authorization"] = option.into();
                if option == "replace" {
                    u["credentials"] = serde_json::json!({ "username": "reader", "password_file": "password" });
                }
            })
            .start();
        for mut client in gateway.both() {
            client.request("GET", TARGET, &[("authorization", "Basic Y2xpZW50")], b"");
            assert_eq!(upstream.only().header("authorization"), wanted, "{option} {}", client.version());
        }
        let log = gateway.log().join("\n");
        assert!(!log.contains("s3cret") && !log.contains("Y2xpZW50"), "{log}");
    }
}

#[test]
fn a_configured_host_replaces_the_clients() {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).with_upstream(|u| u["host"] = "registry.internal".into()).start();
    for mut client in gateway.both() {
        client.get(TARGET);
        let seen = upstream.only();
        assert_eq!(seen.header("host"), Some("registry.internal"), "{}", client.version());
        assert_eq!(seen.header("x-forwarded-host"), Some("gw.test"), "{}", client.version());
    }
}

#[test]
fn the_certificate_is_handed_on_when_asked() {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).configure(|c| c["headers"]["client_cert"] = true.into()).start();
    let pem = std::fs::read_to_string(&gateway.identity().certificate).expect("a certificate");
    let base64: String = pem.lines().filter(|line| !line.contains("-----")).collect();
    for mut client in gateway.both() {
        client.request("GET", TARGET, &[("client-cert", ":ZXZpbA==:")], b"");
        let seen = upstream.only();
        assert_eq!(seen.header("client-cert"), Some(format!(":{base64}:").as_str()), "{}", client.version());
    }
}

#[test]
fn the_registrys_location_is_made_relative_and_a_redirect_is_not_touched() {
    let upstream = Upstream::start();
    let hosts = serde_json::json!(["https://storage.example"]);
    let gateway = gateway().upstream(upstream.url()).with_upstream(|u| u["redirect_hosts"] = hosts).start();
    let own = upstream.url();
    let cases = [
        ("https://gw.test/v2/a/blobs/uploads/1?_state=x%3D", "/v2/a/blobs/uploads/1?_state=x%3D".to_owned()),
        ("http://gw.test/v2/a/blobs/uploads/1?_state=x", "/v2/a/blobs/uploads/1?_state=x".to_owned()),
        (&format!("{own}/v2/a/blobs/uploads/1"), "/v2/a/blobs/uploads/1".to_owned()),
        ("/v2/a/blobs/uploads/1?_state=x", "/v2/a/blobs/uploads/1?_state=x".to_owned()),
        (
            "https://storage.example/b%2Fc?X-Amz-Signature=a%2Bb&X-Amz-Date=1",
            "https://storage.example/b%2Fc?X-Amz-Signature=a%2Bb&X-Amz-Date=1".to_owned(),
        ),
    ];
    for (sent, wanted) in cases {
        let location = sent.to_owned();
        upstream.answer(move |_| Answer::new(307).header("Location", &location));
        for mut client in gateway.both() {
            let reply = client.get(TARGET);
            assert_eq!((reply.status, reply.header("location")), (307, Some(wanted.as_str())), "{sent}");
        }
    }
}

#[test]
fn the_upstreams_hop_by_hop_headers_stay_behind() {
    let (upstream, gateway) = open_gateway();
    upstream.answer(|_| {
        Answer::new(200)
            .header("Connection", "X-Internal")
            .header("X-Internal", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Upgrade", "h2c")
            .header("Docker-Content-Digest", crate::DIGEST)
            .body(b"x")
    });
    for mut client in gateway.both() {
        let reply = client.get(TARGET);
        assert_eq!(reply.header("docker-content-digest"), Some(crate::DIGEST));
        for name in ["x-internal", "upgrade"] {
            assert_eq!(reply.header(name), None, "{} {name}: {reply:?}", client.version());
        }
    }
}
