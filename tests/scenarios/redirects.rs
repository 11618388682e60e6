//! Registries that send their clients to a storage: passed on or followed, and only where the configuration permits it.

mod own;
mod real;

use crate::support::gateway::{Builder, Client, Gateway, gateway};
use crate::support::pki::{self, Ca};
use crate::support::registry::free_address;
use crate::support::tls::acceptor;
use crate::support::upstream::{Answer, Recorded, Upstream, pattern, sha256};
use serde_json::json;
use std::time::Duration;

const BLOB: &str = "/v2/team/app/blobs/sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// As S3 signs its addresses.
const SIGNED: &str = "/bucket/docker%2Fblobs/aa/data?X-Amz-Credential=a%2Fb&X-Amz-Signature=0c%2Bd&X-Amz-Expires=1200";

/// Makes `registry` answer every read with a redirect to `location`, as distribution does.
fn redirects_to(registry: &Upstream, status: u16, location: &str) {
    let location = location.to_owned();
    registry.answer(move |_| {
        Answer::new(status)
            .header("Location", &location)
            .header("Docker-Distribution-Api-Version", "registry/2.0")
            .header("Docker-Content-Digest", crate::DIGEST)
            .header("Content-Type", "text/html; charset=utf-8")
            .body(b"<a href=\"\">Temporary Redirect</a>.\n\n")
    });
}

fn following(registry: &Upstream, hosts: &[String]) -> Builder {
    let hosts = json!(hosts);
    gateway().upstream(registry.url()).with_upstream(|u| {
        u["redirects"] = "follow".into();
        u["redirect_hosts"] = hosts;
    })
}

/// A registry whose content lies in a storage beside it.
fn pair() -> (Upstream, Upstream, Gateway) {
    let (registry, storage) = (Upstream::start(), Upstream::start());
    redirects_to(&registry, 307, &format!("{}{SIGNED}", storage.url()));
    let gateway = following(&registry, &[storage.url()]).start();
    (registry, storage, gateway)
}

fn followed(gateway: &Gateway, result: &str) -> Option<f64> {
    gateway.metric("portcullis_upstream_redirects_total", &[("upstream", "registry"), ("result", result)])
}

#[test]
fn a_redirect_to_a_known_host_passes_as_it_is() {
    let registry = Upstream::start();
    let hosts = json!(["https://Storage.example:443/", "http://minio.test:9000"]);
    let mut gateway = gateway().upstream(registry.url()).with_upstream(|u| u["redirect_hosts"] = hosts).start();
    let mut passed = 0.0;
    for host in ["https://storage.example", "https://STORAGE.example:443", "http://minio.test:9000"] {
        for status in [301, 302, 303, 307, 308] {
            let location = format!("{host}{SIGNED}");
            redirects_to(&registry, status, &location);
            for mut client in gateway.both() {
                for method in ["GET", "HEAD"] {
                    let reply = client.request(method, BLOB, &[("range", "bytes=0-9")], b"");
                    assert_eq!((reply.status, reply.header("location")), (status, Some(location.as_str())));
                    passed += 1.0;
                }
            }
        }
    }
    assert_eq!(followed(&gateway, "passed"), Some(passed));
    // What the configuration names is asked anew with each of its generations.
    gateway.change_config(|c| c["upstreams"][0]["redirect_hosts"] = json!(["https://storage.example"]));
    gateway.reload_ok();
    for mut client in gateway.both() {
        client.get(BLOB).assert_refusal(502, "UNAVAILABLE");
    }
    gateway.change_config(|c| c["upstreams"][0]["redirects"] = "follow".into());
    gateway.change_config(|c| c["upstreams"][0]["redirect_hosts"] = json!([]));
    assert!(gateway.reload_refused().contains("redirect_hosts"));
}

#[test]
fn a_redirect_to_any_other_host_is_neither_passed_nor_followed() {
    let trap = Upstream::start();
    let port = trap.address().port();
    let places = [
        format!("http://127.0.0.1:{port}/latest/meta-data/"),
        format!("http://127.0.0.1:{port}"),
        "https://evil.example/".to_owned(),
        "http://storage.example/b".to_owned(),
        "https://storage.example:8443/b".to_owned(),
        "https://storage.example.evil.example/b".to_owned(),
        "https://evil-storage.example/b".to_owned(),
        "https://storage.example./b".to_owned(),
        "https://storage.example@evil.example/b".to_owned(),
        "https://evil.example#@storage.example/b".to_owned(),
        "https://evil.example?@storage.example/b".to_owned(),
        "https://evil.example\\@storage.example/b".to_owned(),
        "//evil.example/b".to_owned(),
        "/\\evil.example/b".to_owned(),
        "https:evil.example/b".to_owned(),
        "https:///evil.example/b".to_owned(),
        "ftp://storage.example/b".to_owned(),
        "file:///etc/passwd".to_owned(),
        "javascript:alert(1)".to_owned(),
        "https://storage.example/b\r\nLocation: https://evil.example/".to_owned(),
    ];
    for mode in ["pass", "follow"] {
        let registry = Upstream::start();
        let gateway = following(&registry, &["https://storage.example".to_owned()])
            .with_upstream(|u| u["redirects"] = mode.into())
            .start();
        let mut refused = 0.0;
        for place in &places {
            for (status, target) in [(307, BLOB), (302, "/v2/team/app/manifests/v1"), (308, "/v2/team/app/tags/list")] {
                redirects_to(&registry, status, place);
                for mut client in gateway.both() {
                    let what = format!("{mode} {} {status} {place}", client.version());
                    let reply = client.get(target);
                    reply.assert_refusal(502, "UNAVAILABLE");
                    let shown = format!("{:?}{}", reply.headers, reply.text());
                    assert!(
                        !["evil", "127.0.0.1", "location"].iter().any(|word| shown.contains(word)),
                        "{what}: {shown}"
                    );
                    refused += 1.0;
                }
            }
        }
        assert_eq!(followed(&gateway, "refused"), Some(refused), "{mode}");
        let reply = gateway.h1().request("HEAD", BLOB, &[], b"").expect("an answer");
        assert_eq!((reply.status, reply.header("location")), (502, None));
        gateway.wait_for_record(|record| record["outcome"] == "redirect_refused" && record["method"] == "HEAD");
    }
    trap.assert_untouched("a host that nobody configured");
    assert_eq!(trap.accepted(), 0);
}

#[test]
fn the_registrys_own_redirects_stay_as_they_were() {
    let registry = Upstream::start();
    let gateway = gateway().upstream(registry.url()).start();
    let own = registry.url();
    for (sent, wanted) in [
        ("/v2/team/app/tags/list", "/v2/team/app/tags/list"),
        ("https://gw.test/v2/team/app/tags/list?n=1", "/v2/team/app/tags/list?n=1"),
        (&format!("{own}/v2/"), "/v2/"),
        ("list", "list"),
    ] {
        redirects_to(&registry, 301, sent);
        for mut client in gateway.both() {
            let reply = client.get("/v2/team/app/tags/list");
            assert_eq!((reply.status, reply.header("location")), (301, Some(wanted)), "{sent}");
        }
    }
    registry.answer(|_| Answer::new(304).header("ETag", "\"x\""));
    for mut client in gateway.both() {
        assert_eq!(client.request("GET", BLOB, &[("if-none-match", "\"x\"")], b"").status, 304);
    }
}

fn names(request: &Recorded) -> Vec<String> {
    let mut names: Vec<String> = request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    names
}

#[test]
fn the_storage_learns_nothing_of_the_client_and_the_client_nothing_of_the_storage() {
    let (registry, storage) = (Upstream::start(), Upstream::start());
    redirects_to(&registry, 307, &format!("{}{SIGNED}", storage.url()));
    let content = pattern(0, 300_000);
    let served = content.clone();
    storage.answer(move |_| {
        Answer::new(200)
            .header("Content-Type", "application/octet-stream")
            .header("ETag", "\"md5\"")
            .header("Accept-Ranges", "bytes")
            .header("Server", "AmazonS3")
            .header("x-amz-request-id", "1")
            .header("Set-Cookie", "a=b")
            .header("Docker-Content-Digest", "sha256:of-the-storage")
            .header("Location", "https://evil.example/")
            .header("Connection", "close")
            .body(&served)
            .close()
    });
    let gateway = following(&registry, &[storage.url()])
        .configure(|c| c["headers"]["client_cert"] = true.into())
        .file("password", "s3cret\n")
        .with_upstream(|u| {
            u["authorization"] = "replace".into();
            u["credentials"] = json!({ "username": "reader", "password_file": "password" });
        })
        .start();
    let host = storage.address().to_string();
    for mut client in gateway.both() {
        let headers = [
            ("authorization", "Basic Y2xpZW50"),
            ("cookie", "a=b"),
            ("user-agent", "docker/20.10"),
            ("accept", "a/b"),
            ("accept-encoding", "gzip"),
            ("x-request-id", "client-1"),
            ("docker-anything", "1"),
        ];
        for _ in 0..2 {
            let reply = client.request("GET", BLOB, &headers, b"");
            assert!(reply.status == 200 && reply.body == content, "{} {:?}", client.version(), reply.headers);
            for (name, value) in [
                ("content-type", Some("application/octet-stream")),
                ("content-length", Some("300000")),
                ("etag", Some("\"md5\"")),
                ("accept-ranges", Some("bytes")),
                ("docker-content-digest", Some(crate::DIGEST)),
                ("docker-distribution-api-version", Some("registry/2.0")),
                ("server", None),
                ("x-amz-request-id", None),
                ("set-cookie", None),
                ("location", None),
            ] {
                assert_eq!(reply.header(name), value, "{} {name}: {:?}", client.version(), reply.headers);
            }
            let asked = registry.only();
            assert_eq!((asked.line(), asked.header("authorization").is_some()), (format!("GET {BLOB}"), true));
            let seen = storage.only();
            assert_eq!((seen.line(), seen.header("host")), (format!("GET {SIGNED}"), Some(host.as_str())));
            assert_eq!(names(&seen), ["accept-encoding", "host", "user-agent"], "{seen:?}");
            assert!(seen.header("user-agent").is_some_and(|agent| agent.starts_with("portcullis/")), "{seen:?}");
            assert_eq!(seen.header("accept-encoding"), Some("identity"));
        }
    }
    assert_eq!(followed(&gateway, "followed"), Some(4.0));
    let record = gateway.wait_for_record(|record| record["bytes_out"] == 300_000);
    assert_eq!((record["status"].as_u64(), record["outcome"].as_str()), (Some(200), Some("proxied")), "{record}");
    assert_eq!(record["upstream"].as_str(), Some(host.as_str()), "{record}");
}

#[test]
fn parts_and_heads_are_followed_too() {
    let (_registry, storage, gateway) = pair();
    storage.answer(|request| match (request.method.as_str(), request.header("range")) {
        ("HEAD", _) => Answer::new(200).header("Content-Length", "1000").header("Server", "s"),
        (_, Some("bytes=10-19")) => {
            Answer::new(206).header("Content-Range", "bytes 10-19/1000").body(&pattern(10, 10)).chunked()
        }
        (_, Some(_)) => Answer::new(416).header("Content-Range", "bytes */1000").body(b"<Error/>"),
        (_, None) => Answer::new(200).body(&pattern(0, 1000)).chunked(),
    });
    for mut client in gateway.both() {
        let head = client.request("HEAD", BLOB, &[], b"");
        assert_eq!((head.status, head.header("content-length"), head.header("server")), (200, Some("1000"), None));
        let part = client.request("GET", BLOB, &[("range", "bytes=10-19"), ("if-range", "\"md5\"")], b"");
        assert_eq!((part.status, part.body.as_slice()), (206, &*pattern(10, 10)));
        assert_eq!(part.header("content-range"), Some("bytes 10-19/1000"));
        assert!(storage.requests().last().is_some_and(|asked| asked.header("if-range") == Some("\"md5\"")));
        assert_eq!(client.request("GET", BLOB, &[("range", "bytes=2000-")], b"").status, 416);
        assert_eq!(client.get(BLOB).body, pattern(0, 1000));
    }
    // The storage's connections are kept.
    assert!(storage.accepted() <= 4, "{}", storage.accepted());
}

#[test]
fn a_chain_has_three_links_and_stays_among_known_hosts() {
    let (registry, first, second) = (Upstream::start(), Upstream::start(), Upstream::start());
    let stranger = Upstream::start();
    redirects_to(&registry, 307, &format!("{}/1", first.url()));
    let gateway = following(&registry, &[first.url(), second.url()]).start();
    let hop = |from: &Upstream, location: String| {
        from.answer(move |request| match request.target.as_str() {
            "/4" => Answer::new(200).body(b"content"),
            _ => Answer::new(302).header("Location", &location),
        });
    };
    hop(&first, format!("{}/3", second.url()));
    hop(&second, "/4".to_owned());
    for mut client in gateway.both() {
        let reply = client.get(BLOB);
        assert_eq!((reply.status, reply.text().as_str()), (200, "content"), "{} {reply:?}", client.version());
        assert_eq!(reply.header("docker-content-digest"), Some(crate::DIGEST));
    }
    let lines: Vec<String> = second.take().iter().map(Recorded::line).collect();
    assert_eq!(lines, ["GET /3", "GET /4", "GET /3", "GET /4"]);
    // A fourth is one too many; so is any that leads away, or back to the registry.
    for location in [
        "/again".to_owned(),
        format!("{}/1", stranger.url()),
        format!("{}/v2/secret/app/manifests/v1", registry.url()),
        "relative".to_owned(),
        "//stranger.example/4".to_owned(),
    ] {
        hop(&second, location.clone());
        registry.take();
        for mut client in gateway.both() {
            client.get(BLOB).assert_refusal(502, "UNAVAILABLE");
        }
        assert!(registry.take().iter().all(|asked| asked.target == BLOB), "{location}");
    }
    stranger.assert_untouched("a host that nobody configured");
}

#[test]
fn a_storage_that_fails_gives_an_error_and_never_its_own_words() {
    let (_registry, storage, gateway) = pair();
    for (status, body) in [(403, "AccessDenied secret"), (404, "NoSuchKey secret"), (500, "secret"), (201, "secret")] {
        storage.answer(move |_| Answer::new(status).body(body.as_bytes()));
        for mut client in gateway.both() {
            let reply = client.get(BLOB);
            reply.assert_refusal(502, "UNAVAILABLE");
            assert!(!reply.text().contains("secret"), "{reply:?}");
        }
    }
    assert!(gateway.metric("portcullis_upstream_errors_total", &[("kind", "storage")]).is_some_and(|n| n >= 8.0));
    storage.answer(|_| Answer::new(302));
    assert_eq!(gateway.h2().get(BLOB).status, 502, "a redirect to nowhere");
    storage.answer(|_| Answer::new(200).body(&pattern(0, 300_000)).cut_after(150_000));
    gateway.h2().request("GET", BLOB, &[], b"").expect_err("a body that broke off");

    // Nobody listens, or nobody answers.
    let registry = Upstream::start();
    let dead = format!("http://{}", free_address());
    redirects_to(&registry, 307, &format!("{dead}/x"));
    let gateway = following(&registry, &[dead]).start();
    for mut client in gateway.both() {
        client.get(BLOB).assert_refusal(502, "UNAVAILABLE");
    }
    redirects_to(&registry, 307, "http://storage.invalid/x");
    let gateway = following(&registry, &["http://storage.invalid".to_owned()]).start();
    for mut client in gateway.both() {
        client.get(BLOB).assert_refusal(503, "UNAVAILABLE");
    }
    let slow = Upstream::start();
    slow.answer(|_| Answer::new(200).delay(Duration::from_secs(3)));
    redirects_to(&registry, 307, &format!("{}/x", slow.url()));
    let gateway =
        following(&registry, &[slow.url()]).with_upstream(|u| u["timeouts"] = json!({ "first_byte": "300ms" })).start();
    for mut client in gateway.both() {
        client.get(BLOB).assert_refusal(504, "UNAVAILABLE");
    }
}

#[test]
fn what_was_fetched_from_the_storage_is_checked_as_well() {
    let (registry, storage) = (Upstream::start(), Upstream::start());
    redirects_to(&registry, 307, &format!("{}/x", storage.url()));
    let content = pattern(0, 300_000);
    let digest = format!("sha256:{}", sha256(&content));
    registry.answer({
        let location = format!("{}/x", storage.url());
        move |_| Answer::new(307).header("Location", &location)
    });
    let target = format!("/v2/team/app/blobs/{digest}");
    let check = |mode: &str| {
        let checked = |u: &mut serde_json::Value| {
            u["verify_digests"] = true.into();
            u["redirects"] = mode.into();
        };
        following(&registry, &[storage.url()]).with_upstream(checked).start()
    };
    let gateway = check("follow");
    let served = content.clone();
    storage.answer(move |_| Answer::new(200).body(&served));
    for mut client in gateway.both() {
        assert!(client.get(&target).body == content);
    }
    let mut lie = content.clone();
    lie[1000] ^= 1;
    storage.answer(move |_| Answer::new(200).body(&lie));
    for client in gateway.both() {
        match client {
            Client::H1(mut client) => assert!(client.request("GET", &target, &[], b"").is_err()),
            Client::H2(mut client) => assert!(client.request("GET", &target, &[], b"").is_err()),
        }
    }
    let checks = |gateway: &Gateway, result| gateway.metric("portcullis_digest_checks_total", &[("result", result)]);
    assert_eq!((checks(&gateway, "verified"), checks(&gateway, "mismatch")), (Some(2.0), Some(2.0)));
    // What the client fetches itself can't be.
    let gateway = check("pass");
    assert_eq!(gateway.h1().get(&target).status, 307);
    assert_eq!(checks(&gateway, "redirect"), Some(1.0));
}

#[test]
fn a_storage_behind_tls_must_be_the_one_that_it_should_be() {
    for (trusted, name, wanted) in [
        ("storage-ca.pem", "localhost", 200),
        ("other-ca.pem", "localhost", 502),
        ("storage-ca.pem", "other.example", 502),
    ] {
        let registry = Upstream::start();
        let builder = gateway();
        let directory = builder.pki();
        let (ca, other) = (Ca::root(&directory, "Storage CA"), Ca::root(&directory, "Other CA"));
        let storage = Upstream::start_tls(acceptor(&ca.issue(&pki::server(&[name])), None));
        redirects_to(&registry, 307, &format!("{}{SIGNED}", storage.url()));
        let gateway = builder
            .file("storage-ca.pem", &ca.pem())
            .file("other-ca.pem", &other.pem())
            .upstream(registry.url())
            .with_upstream(|u| {
                u["redirects"] = "follow".into();
                u["redirect_hosts"] = json!([storage.url()]);
                u["redirect_ca"] = trusted.into();
            })
            .start();
        for mut client in gateway.both() {
            assert_eq!(client.get(BLOB).status, wanted, "{trusted} {name} {}", client.version());
        }
        assert_eq!(storage.take().len(), if wanted == 200 { 2 } else { 0 }, "{trusted} {name}");
    }
}
