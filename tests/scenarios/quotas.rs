//! Limits of the policy: how much a client, or a group, may ask for, and what it is told.

use crate::DIGEST;
use crate::support::dockerd::Dockerd;
use crate::support::gateway::{Gateway, gateway};
use crate::support::pki::{self, Ca};
use crate::support::process;
use crate::support::registry::Registry;
use crate::support::reply::Reply;
use crate::support::skip;
use crate::support::skopeo::{certificates, image, skopeo};
use crate::support::upstream::{Answer, Upstream};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MANIFEST: &str = "/v2/team/app/manifests/v1";
const UPLOAD: &str = "/v2/team/app/blobs/uploads/3f2a";

/// Everybody may do everything; the limits come after it.
const POLICY: &str = "\
groups:
  build:
    - subject: { CN: 'build-*' }
rules:
  - { name: all, subjects: [any], repositories: ['**'], actions: [pull, push, overwrite, delete], effect: allow }
  - { name: list, subjects: [any], actions: [catalog], effect: allow }
limits:
";

fn start(limits: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).file("policy.yaml", &format!("{POLICY}{limits}")).start();
    (upstream, gateway)
}

/// Checks a refusal by a limit: what clients understand, and when they may come again.
#[track_caller]
fn assert_limited(reply: &Reply, limit: &str) -> u64 {
    reply.assert_refusal(429, "TOOMANYREQUESTS");
    assert!(reply.message().contains(&format!("(limit {limit})")), "{reply:?}");
    let seconds = reply.header("retry-after").and_then(|value| value.parse().ok());
    let seconds: u64 = seconds.unwrap_or_else(|| panic!("no Retry-After: {reply:?}"));
    assert!(seconds >= 1, "{reply:?}");
    seconds
}

#[test]
fn more_requests_than_a_limit_allows_are_refused_and_others_served() {
    let (upstream, gateway) = start("  - { name: few, subjects: [any], requests: { count: 2, window: 1h } }\n");
    for version in 0..2 {
        let identity = gateway.client(&format!("client-{version}"));
        let mut client = gateway.both_as(&identity).into_iter().nth(version).expect("two versions");
        assert_eq!(client.get(MANIFEST).status, 200);
        assert_eq!(client.get("/v2/").status, 200);
        upstream.take();
        let wait = assert_limited(&client.get(MANIFEST), "few");
        assert!((1..=1800).contains(&wait), "one comes back in half an hour: {wait}");
        let head = client.request("HEAD", MANIFEST, &[], b"");
        assert_eq!((head.status, head.body.len()), (429, 0), "{head:?}");
        assert!(head.header("retry-after").is_some(), "{head:?}");
        let put = client.request("PUT", MANIFEST, &[("content-type", "application/json")], &[b' '; 100_000]);
        assert_limited(&put, "few");
        upstream.assert_untouched("a refused request");
        // The connection goes on.
        assert_limited(&client.get(MANIFEST), "few");
    }
    assert_eq!(gateway.h1().get(MANIFEST).status, 200, "another client has its own");
    let record = gateway.wait_for_record(|record| record["outcome"] == "limited");
    assert_eq!(
        (&record["limit"], &record["status"], &record["decision"]),
        (&"few".into(), &429.into(), &"allow".into())
    );
    let kind = [("limit", "few"), ("kind", "requests")];
    assert_eq!(gateway.metric("portcullis_limit_refusals_total", &kind), Some(8.0));
    gateway.wait_for_metric("portcullis_requests_total", &[("outcome", "limited")], |count| count >= 8.0);
}

#[test]
fn what_the_policy_refuses_counts_nothing() {
    let (_upstream, gateway) = start("  - { name: few, subjects: [any], requests: { count: 1, window: 1h } }\n");
    gateway.write(
        "policy.yaml",
        format!("{POLICY}  - {{ name: few, subjects: [any], requests: {{ count: 1, window: 1h }} }}\n")
            .replace("actions: [pull, push, overwrite, delete]", "actions: [pull]"),
    );
    gateway.reload_ok();
    for mut client in gateway.both() {
        for _ in 0..3 {
            assert_eq!(client.request("DELETE", MANIFEST, &[], b"").status, 403, "{}", client.version());
        }
    }
    assert_eq!(gateway.h1().get(MANIFEST).status, 200);
    assert_limited(&gateway.h2().get(MANIFEST), "few");
}

#[test]
fn pulls_are_counted_by_get_and_shown_as_docker_hub_shows_them() {
    let (upstream, gateway) = start("  - { name: pulls, subjects: [any], manifest_pulls: { count: 3, window: 6h } }\n");
    // What a registry behind says of the gateway's own limit there is not for the client.
    upstream
        .answer(|_| Answer::new(200).header("RateLimit-Limit", "9000;w=60").header("RateLimit-Remaining", "7;w=60"));
    let shown = |reply: &Reply| {
        assert_eq!(reply.header("ratelimit-limit"), Some("3;w=21600"), "{reply:?}");
        let remaining = reply.header("ratelimit-remaining").unwrap_or_default();
        remaining.strip_suffix(";w=21600").and_then(|count| count.parse().ok()).unwrap_or(u64::MAX)
    };
    for version in 0..2 {
        let identity = gateway.client(&format!("client-{version}"));
        let mut client = gateway.both_as(&identity).into_iter().nth(version).expect("two versions");
        let mut ask = |method: &str, target: &str| client.request(method, target, &[], b"");
        assert_eq!(shown(&ask("HEAD", MANIFEST)), 3, "HEAD takes nothing");
        assert_eq!(shown(&ask("GET", MANIFEST)), 2);
        assert_eq!(shown(&ask("GET", &format!("/v2/team/app/manifests/{DIGEST}"))), 1);
        assert_eq!(shown(&ask("HEAD", MANIFEST)), 1);
        assert_eq!(shown(&ask("GET", MANIFEST)), 0);
        let blob = ask("GET", &format!("/v2/team/app/blobs/{DIGEST}"));
        assert_eq!((blob.status, blob.header("ratelimit-limit")), (200, None), "a blob is no pull");
        upstream.take();
        let refused = ask("GET", MANIFEST);
        let wait = assert_limited(&refused, "pulls");
        assert!((1..=7200).contains(&wait), "a third of the window: {wait}");
        assert_eq!(shown(&refused), 0);
        assert!(refused.message().contains("no more than 3 manifests in 6h"), "{refused:?}");
        upstream.assert_untouched("a refused pull");
        let head = ask("HEAD", MANIFEST);
        assert_eq!((head.status, shown(&head)), (200, 0), "HEAD is never refused for it");
    }
}

#[test]
fn a_group_has_a_limit_together() {
    let limit = "  - { name: builds, subjects: [build], per: group, requests: { count: 2, window: 1h } }\n";
    let (_upstream, gateway) = start(limit);
    let (one, two) = (gateway.client("build-1"), gateway.client("build-2"));
    assert_eq!(gateway.h1_as(&one).get(MANIFEST).status, 200);
    assert_eq!(gateway.h2_as(&two).get(MANIFEST).status, 200);
    for mut client in gateway.both_as(&one).into_iter().chain(gateway.both_as(&two)) {
        assert_limited(&client.get(MANIFEST), "builds");
    }
    for mut client in gateway.both() {
        assert_eq!(client.get(MANIFEST).status, 200, "not of the group");
    }
}

#[test]
fn uploads_have_places_while_their_requests_run() {
    let (upstream, gateway) = start("  - { name: writers, subjects: [any], concurrent_uploads: 2 }\n");
    upstream.answer(|_| Answer::new(202).header("Location", UPLOAD));
    let mut first = gateway.h1();
    first
        .send(b"PATCH /v2/team/app/blobs/uploads/3f2a HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 4\r\n\r\nab")
        .expect("sent");
    let mut h2 = gateway.h2();
    let mut second = h2.open("PATCH", UPLOAD, &[("content-length", "4")], false).expect("opened");
    second.send(b"ab".as_slice().into(), false).expect("sent");
    let start = std::time::Instant::now();
    while upstream.body_bytes() < 4 {
        assert!(start.elapsed() < Duration::from_secs(20), "both are under way");
        std::thread::sleep(Duration::from_millis(10));
    }
    for mut client in gateway.both() {
        let refused = client.request("POST", "/v2/team/app/blobs/uploads/", &[], b"");
        assert_limited(&refused, "writers");
        assert!(refused.message().contains("no more than 2 uploads at a time"), "{refused:?}");
        assert_limited(&client.request("PUT", &format!("{UPLOAD}?digest={DIGEST}"), &[], b"xyz"), "writers");
        assert_eq!(client.get(MANIFEST).status, 202, "a pull needs no place");
        assert_eq!(client.request("GET", UPLOAD, &[], b"").status, 202, "nor does a look at an upload");
    }
    let other = gateway.client("other");
    assert_eq!(gateway.h1_as(&other).request("PATCH", UPLOAD, &[], b"x").expect("an answer").status, 202);
    first.send(b"cd").expect("sent");
    assert_eq!(first.answer().expect("an answer").status, 202);
    // The place is free when the request has ended, which the client may learn a little earlier.
    gateway.wait_for_record(|record| {
        record["method"] == "PATCH" && record["http_version"] == "HTTP/1.1" && record["bytes_in"] == 4
    });
    assert_eq!(gateway.h1().request("PATCH", UPLOAD, &[], b"x").expect("an answer").status, 202);
    drop(second);
    drop(h2);
    gateway.wait_for_record(|record| record["http_version"] == "HTTP/2" && record["method"] == "PATCH");
    let mut again = gateway.h2();
    assert_eq!(again.request("PATCH", UPLOAD, &[], b"x").expect("an answer").status, 202, "one that was cut off, too");
    let kind = [("limit", "writers"), ("kind", "concurrent_uploads")];
    assert_eq!(gateway.metric("portcullis_limit_refusals_total", &kind), Some(4.0));
}

#[test]
fn a_transfer_is_never_cut_and_the_next_request_waits() {
    let (upstream, gateway) = start("  - { name: volume, subjects: [any], bytes: { size: 1MiB, window: 1h } }\n");
    upstream.answer(|request| match request.method.as_str() {
        "GET" => Answer::new(200).pattern(0, 3 << 20),
        _ => Answer::new(202).header("Location", UPLOAD),
    });
    let blob = format!("/v2/team/app/blobs/{DIGEST}");
    for (version, upload) in [(0, false), (1, false), (0, true), (1, true)] {
        let identity = gateway.client(&format!("client-{version}-{upload}"));
        let mut client = gateway.both_as(&identity).into_iter().nth(version).expect("two versions");
        let whole = if upload {
            client.request("PATCH", UPLOAD, &[], &vec![7; 3 << 20]).status == 202
        } else {
            client.get(&blob).body.len() == 3 << 20
        };
        assert!(whole, "{} {upload}", client.version());
        let label = format!("spiffe://corp.example/ns/test/sa/client-{version}-{upload}");
        gateway.wait_for_record(|record| record["identity"] == label.as_str());
        upstream.take();
        let refused = client.get(&blob);
        let wait = assert_limited(&refused, "volume");
        assert!(wait > 3600, "what was used beyond the limit is paid off first: {wait}");
        assert!(refused.message().contains("no more than 1MiB in 1h"), "{refused:?}");
        upstream.assert_untouched("a refused request");
    }
}

#[test]
fn a_hundred_streams_at_once_get_no_more_than_there_is() {
    let (upstream, gateway) = start("  - { name: volume, subjects: [any], bytes: { size: 16MiB, window: 1h } }\n");
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    upstream.answer(move |_| {
        while !gate.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Answer::new(200).pattern(0, 1000)
    });
    let blob = format!("/v2/team/app/blobs/{DIGEST}");
    let mut client = gateway.h2();
    let streams: Vec<_> = (0..100).map(|_| client.open("GET", &blob, &[], true).expect("opened")).collect();
    let kind = [("limit", "volume"), ("kind", "bytes")];
    gateway.wait_for_metric("portcullis_limit_refusals_total", &kind, |count| count >= 83.0);
    open.store(true, Ordering::SeqCst);
    let replies: Vec<Reply> = streams.into_iter().map(|stream| stream.reply().expect("an answer")).collect();
    let served: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert!((16..=17).contains(&served.len()), "a megabyte is set aside for each: {}", served.len());
    assert!(served.iter().all(|reply| reply.body.len() == 1000), "and none is cut");
}

#[test]
fn what_the_registry_says_of_limits_that_are_not_the_clients_stays_behind() {
    let says = |upstream: &Upstream| {
        upstream.answer(|_| {
            let answer = Answer::new(200).header("RateLimit-Limit", "100;w=21600").header("RateLimit-Reset", "7");
            answer.header("Docker-RateLimit-Source", "203.0.113.7")
        });
    };
    let names = ["ratelimit-limit", "ratelimit-reset", "docker-ratelimit-source"];
    let upstream = Upstream::start();
    says(&upstream);
    let plain = gateway().upstream(upstream.url()).start();
    let with_account = |u: &mut serde_json::Value| {
        u["authorization"] = "replace".into();
        u["credentials"] = serde_json::json!({ "username": "gateway", "password_file": "registry-password" });
    };
    let account = gateway().upstream(upstream.url()).file("registry-password", "s3cret\n").with_upstream(with_account);
    let account = account.start();
    let (limiting, limited) = start("  - { name: writers, subjects: [any], concurrent_uploads: 9 }\n");
    says(&limiting);
    for (gateway, passes) in [(&plain, true), (&account, false), (&limited, false)] {
        for mut client in gateway.both() {
            let reply = client.get(MANIFEST);
            assert_eq!(reply.status, 200, "{reply:?}");
            for name in names {
                assert_eq!(reply.header(name).is_some(), passes, "{name}: {reply:?}");
            }
        }
    }
}

#[test]
fn counts_outlive_a_reload_and_other_numbers_begin_anew() {
    let few = "  - { name: few, subjects: [any], requests: { count: 2, window: 1h } }\n";
    let (_upstream, gateway) = start(few);
    let mut client = gateway.h1();
    assert_eq!(client.get(MANIFEST).status, 200);
    let more = format!("{POLICY}  - {{ name: more, subjects: [build], requests: {{ count: 9, window: 1h }} }}\n{few}");
    gateway.write("policy.yaml", more);
    gateway.reload_ok();
    assert_eq!(client.get(MANIFEST).status, 200);
    assert_limited(&client.get(MANIFEST), "few");
    gateway.write("policy.yaml", format!("{POLICY}{}", few.replace("count: 2", "count: 3")));
    gateway.reload_ok();
    assert_eq!(client.get(MANIFEST).status, 200);
    gateway.write("policy.yaml", POLICY.replace("limits:\n", ""));
    gateway.reload_ok();
    for _ in 0..5 {
        assert_eq!(client.get(MANIFEST).status, 200);
    }
    let metrics = gateway.metrics();
    assert!(!metrics.contains("limit=\"few\""), "a limit that is gone is no longer reported: {metrics}");
}

#[test]
fn mistakes_in_limits_are_named_with_line_and_key() {
    for (limit, said) in [
        ("{ name: few, subjects: [any] }", "policy.yaml:8: limits[0]: limits nothing"),
        ("{ name: few, subjects: [biuld], concurrent_uploads: 1 }", "limits[0].subjects[0]: unknown group \"biuld\""),
        ("{ name: few, subjects: [any], except: [any], concurrent_uploads: 1 }", "limits[0].except[0]: unknown group"),
        ("{ name: 'a b', subjects: [any], concurrent_uploads: 1 }", "limits[0].name: must be"),
        ("{ name: few, subjects: [any], concurrent_uploads: 0 }", "limits[0].concurrent_uploads"),
        ("{ name: few, subjects: [any], requests: { count: 0, window: 1h } }", "limits[0].requests.count"),
        ("{ name: few, subjects: [any], requests: { count: 1, window: 1500ms } }", "limits[0].requests.window"),
        (
            "{ name: few, subjects: [any], manifest_pulls: { count: 1, window: 60d } }",
            "limits[0].manifest_pulls.window",
        ),
        ("{ name: few, subjects: [any], requests: { count: 2000001, window: 1s } }", "limits[0].requests.count"),
        ("{ name: few, subjects: [any], bytes: { size: 0B, window: 1s } }", "limits[0].bytes.size"),
        ("{ name: few, subjects: [any], request: { count: 1, window: 1h } }", "limits[0].request"),
        ("{ name: few, subjects: [any], per: team, concurrent_uploads: 1 }", "limits[0].per"),
    ] {
        let builder = gateway().upstream("http://127.0.0.1:1").file("policy.yaml", &format!("{POLICY}  - {limit}\n"));
        let file = builder.write_config().to_string_lossy().into_owned();
        let binary = env!("CARGO_BIN_EXE_portcullis");
        let checked = process::run(binary, &["check", "--config", &file], b"", Duration::from_secs(20));
        assert_eq!(checked.code, Some(1), "{limit}: {}", checked.all());
        assert!(checked.all().contains("policy.yaml:8") && checked.all().contains(said), "{limit}: {}", checked.all());
    }
}

#[test]
fn nobody_uses_up_what_is_anothers_by_looking_like_him() {
    let upstream = Upstream::start();
    let limits = format!("{POLICY}  - {{ name: few, subjects: [any], requests: {{ count: 1, window: 1h }} }}\n");
    let builder = gateway().upstream(upstream.url()).file("policy.yaml", &limits);
    // A second authority that issues the victim's names, and a common name that reads like the victim's SPIFFE ID.
    let directory = builder.path().join("pki");
    let second = Ca::root(&directory, "Second Client CA");
    let bundle = format!("{}{}", read(&builder.client_ca), read(&second));
    let gateway = builder.file("client-ca.pem", &bundle).start();
    let twin = second.issue(&pki::client("ci-7"));
    let pretender = gateway.client_ca.issue(&pki::bare_client("spiffe://corp.example/ns/test/sa/ci-7"));
    for identity in [&twin, &pretender] {
        assert_eq!(gateway.h1_as(identity).get(MANIFEST).status, 200);
        assert_limited(&gateway.h2_as(identity).get(MANIFEST), "few");
    }
    assert_eq!(gateway.h1().get(MANIFEST).status, 200, "the victim's own is all there");
    // A renewed certificate is the same client.
    let renewed = gateway.client_ca.issue(&pki::client("ci-7"));
    assert_limited(&gateway.h1_as(&renewed).get(MANIFEST), "few");
}

fn read(ca: &Ca) -> String {
    fs::read_to_string(&ca.certificate).expect("a certificate")
}

#[test]
fn skopeo_waits_as_it_is_told_and_comes_again() {
    if !skip::have(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start();
    let policy = format!("{POLICY}  - {{ name: slow, subjects: [any], requests: {{ count: 1, window: 3s }} }}\n");
    let open = POLICY.replace("limits:\n", "");
    let gateway = gateway().upstream(registry.url()).file("policy.yaml", &open).start();
    let home = tempfile::tempdir().expect("a temporary directory");
    let certs = home.path().join("certs");
    certificates(&certs, &gateway.server_ca.certificate, gateway.identity());
    let certs = certs.to_string_lossy().into_owned();
    image(&home.path().join("image"), b"a layer");
    let layout = format!("oci:{}:latest", home.path().join("image").display());
    let remote = format!("docker://localhost:{}/team/app:v1", gateway.address().port());
    let push = ["copy", "--insecure-policy", "--dest-cert-dir", &certs, &layout, &remote];
    skopeo(home.path(), &push).expect_success("pushing");
    gateway.write("policy.yaml", policy);
    gateway.reload_ok();
    let back = format!("oci:{}:latest", home.path().join("back").display());
    let pull = ["copy", "--insecure-policy", "--src-cert-dir", &certs, &remote, &back];
    skopeo(home.path(), &pull).expect_success("pulling slowly");
    let refused = gateway.metric("portcullis_limit_refusals_total", &[("limit", "slow"), ("kind", "requests")]);
    assert!(refused.is_some_and(|count| count >= 1.0), "{refused:?}");
}

#[test]
fn docker_shows_which_limit_it_ran_into() {
    if !skip::have(&["dockerd", "docker"]) {
        return;
    }
    let (upstream, gateway) = start("  - { name: pulls, subjects: [any], manifest_pulls: { count: 1, window: 6h } }\n");
    upstream.answer(|_| {
        Answer::new(200)
            .header("Docker-Content-Digest", DIGEST)
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .body(b"{}")
    });
    assert_eq!(gateway.h1().get(MANIFEST).status, 200);
    let daemon = match Dockerd::start(gateway.address(), &gateway.server_ca.certificate, gateway.identity()) {
        Ok(daemon) => daemon,
        Err(reason) => {
            skip::skipped(&format!("no docker daemon: {reason}"));
            return;
        }
    };
    let refused = daemon.docker(&["pull", &format!("{}/team/app:v1", daemon.registry)]);
    assert!(!refused.success(), "{}", refused.all());
    let said = refused.all();
    assert!(said.contains("toomanyrequests: no more than 1 manifests in 6h (limit pulls)"), "{said}");
}
