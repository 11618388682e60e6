//! The harness itself, without a gateway: a broken tool must not look like a broken gateway.

use crate::support::dockerd::Dockerd;
use crate::support::gateway::{plain_http, sample};
use crate::support::pki::{self, Ca, Key};
use crate::support::registry::Registry;
use crate::support::skip;
use crate::support::skopeo;
use crate::support::upstream::{Answer, Upstream, pattern, pattern_sha256, sha256};
use crate::support::{client::H1, tls};

#[test]
fn the_ca_makes_what_profiles_say() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Ca::root(directory.path(), "Root");
    let middle = root.intermediate("Middle", &["basicConstraints=critical,CA:TRUE,pathlen:0"]);
    let leaf = middle.issue(&pki::client("ci-7").attribute("OU", "build").serial("0A0B"));
    let text = pki::openssl(&["x509", "-in", leaf.certificate.to_str().expect("UTF-8"), "-noout", "-text"]);
    for part in ["CN = ci-7, OU = build", "URI:spiffe://corp.example/ns/test/sa/ci-7", "(0xa0b)"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let chain = std::fs::read_to_string(&leaf.chain).expect("a chain");
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    for (profile, wanted) in [
        (pki::client("old").expired(), "Jan  1 00:00:00 2021"),
        (pki::client("new").not_yet_valid(), "Jan  1 00:00:00 2090"),
        (pki::Profile::new("v1").version1(), "Version: 1"),
        (pki::client("weak").key(Key::Rsa(1024)), "1024 bit"),
        (pki::client("sha1").sha1(), "ecdsa-with-SHA1"),
        (pki::client("rsa").key(Key::Rsa(2048)), "2048 bit"),
    ] {
        let leaf = root.issue(&profile);
        let text = pki::openssl(&["x509", "-in", leaf.certificate.to_str().expect("UTF-8"), "-noout", "-text"]);
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let twice = root.with_repeated_extension(&pki::client("twice"));
    let text = pki::openssl(&["x509", "-in", twice.certificate.to_str().expect("UTF-8"), "-noout", "-text"]);
    assert_eq!(text.matches("1.3.6.1.4.1.55555.1").count(), 2, "{text}");
    let (ca, leaf_file) = (root.certificate.to_str().expect("UTF-8"), twice.certificate.to_str().expect("UTF-8"));
    assert!(pki::openssl(&["verify", "-CAfile", ca, leaf_file]).contains("OK"), "its signature is right");
    let list = root.crl().revoke(&leaf.certificate).serial("01").number(300).pem();
    assert!(list.contains("BEGIN X509 CRL"));
}

#[test]
fn upstream_and_client_agree_on_every_byte() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Ca::root(directory.path(), "Root");
    let server = root.issue(&pki::server(&["localhost", "gw.test"]));
    let client = root.issue(&pki::client("ci-7"));
    let upstream = Upstream::start_tls(tls::acceptor(&server, Some(&root.certificate)));
    upstream.answer(|request| match request.method.as_str() {
        "GET" => Answer::new(206).pattern(5, 300_000).chunked(),
        _ => Answer::new(201).header("Location", "/v2/"),
    });
    let tls = tls::Tls {
        address: upstream.address(),
        name: Some("gw.test".into()),
        ca: root.certificate.clone(),
        identity: Some(client),
        alpn: tls::ALPN_H1,
        source: None,
        newest: None,
    };
    let mut h1 = H1::connect(&tls).expect("a connection");
    let reply = h1.get("/x");
    assert_eq!((reply.status, sha256(&reply.body)), (206, sha256(&pattern(5, 300_000))));
    let body = pattern(0, 100_000);
    let reply = h1.request("PUT", "/y?z=1", &[("X-Test", "1")], &body).expect("an answer");
    assert_eq!((reply.status, reply.header("location")), (201, Some("/v2/")));
    let seen = upstream.take();
    assert_eq!(seen[1].line(), "PUT /y?z=1");
    assert!(seen[1].head.starts_with(b"PUT /y?z=1 HTTP/1.1\r\nHost: gw.test\r\nX-Test: 1\r\n"));
    assert_eq!((seen[1].body_length, seen[1].body_sha256.clone()), (100_000, pattern_sha256(100_000)));
}

#[test]
fn the_real_registry_takes_an_image_from_skopeo() {
    if !skip::have(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start();
    let home = tempfile::tempdir().expect("a temporary directory");
    let layout = home.path().join("image");
    skopeo::image(&layout, &pattern(0, 10_000));
    skopeo::skopeo(
        home.path(),
        &[
            "copy",
            "--insecure-policy",
            "--dest-tls-verify=false",
            &format!("oci:{}:latest", layout.display()),
            &format!("docker://{}/team/app:v1", registry.address()),
        ],
    )
    .expect_success("skopeo copy");
    let tags = plain_http(registry.address(), "GET", "/v2/team/app/tags/list").json();
    assert_eq!(tags["tags"][0], "v1");
}

#[test]
fn a_private_docker_daemon_shows_its_certificate_to_a_name_that_does_not_resolve() {
    if !skip::have(&["dockerd", "docker", "unshare"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Ca::root(directory.path(), "Root");
    let server = root.issue(&pki::server(&["gw.test"]));
    let client = root.issue(&pki::client("ci-7"));
    let upstream = Upstream::start_tls(tls::acceptor(&server, Some(&root.certificate)));
    upstream.answer(|_| Answer::new(404).header("Content-Type", "application/json").body(b"{}"));
    let daemon = match Dockerd::start(upstream.address(), &root.certificate, &client) {
        Ok(daemon) => daemon,
        Err(reason) => {
            skip::skipped(&reason);
            return;
        }
    };
    daemon.import(&format!("{}/team/app:v1", daemon.registry), b"content");
    assert!(!daemon.docker(&["pull", &format!("{}/team/other:v1", daemon.registry)]).success());
    let seen = upstream.take();
    assert!(seen.iter().any(|request| request.target.starts_with("/v2/")), "{seen:#?}");
}

#[test]
fn samples_are_summed_by_label() {
    let text = "# HELP a b\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\na_total_more 9\n";
    assert_eq!(sample(text, "a_total", &[("x", "1")]), Some(7.0));
    assert_eq!(sample(text, "a_total", &[("x", "2")]), None);
}
