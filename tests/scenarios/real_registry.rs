//! Real clients and a real registry: docker, skopeo and curl, and the attacks that work on a bare registry.

use crate::support::client::H1;
use crate::support::dockerd::Dockerd;
use crate::support::gateway::{ALLOW_ALL, Gateway, NAME, gateway, plain_http};
use crate::support::pki::{self, Identity};
use crate::support::process::{self, Finished};
use crate::support::registry::Registry;
use crate::support::skip;
use crate::support::skopeo::{certificates, image, skopeo};
use crate::support::upstream::{hex, pattern, pattern_sha256, sha256};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;

const TEAMS: &str = "
rules:
  - { name: own, subjects: [any], repositories: ['team/**'], actions: [pull, push, overwrite], effect: allow }
  - { name: base, subjects: [any], repositories: ['lib/**'], actions: [pull], effect: allow }
";

fn start(policy: &str) -> (Registry, Gateway) {
    let registry = Registry::start();
    let gateway = gateway().policy(policy).upstream(registry.url()).bound_uploads().start();
    (registry, gateway)
}

/// Puts a blob into the registry behind the gateway's back; its digest.
fn seed(registry: &Registry, repository: &str, content: &[u8]) -> String {
    let url = format!("http://{}/v2/{repository}/blobs/uploads/", registry.address());
    let started = curl(&["-si", "-X", "POST", &url], b"").expect_success("seeding").text();
    let location = started
        .lines()
        .find_map(|line| line.to_lowercase().starts_with("location: ").then(|| line[10..].trim().to_owned()))
        .expect("the registry names the upload");
    let digest = format!("sha256:{}", sha256(content));
    let put = format!("{location}&digest={digest}");
    curl(&["-sf", "-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", "@-", &put], content)
        .expect_success("seeding");
    digest
}

fn curl(arguments: &[&str], input: &[u8]) -> Finished {
    process::run("curl", arguments, input, Duration::from_secs(60))
}

/// curl with the default client's certificate; `target` starts with `/`.
fn curl_gateway(gateway: &Gateway, more: &[&str], target: &str, input: &[u8]) -> Finished {
    let port = gateway.address().port();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (ca, identity) = (text(&gateway.server_ca.certificate), gateway.identity());
    let (chain, key) = (text(&identity.chain), text(&identity.key));
    let resolve = format!("{NAME}:{port}:127.0.0.1");
    let url = format!("https://{NAME}:{port}{target}");
    let mut arguments = vec![
        "-sS",
        "--noproxy",
        "*",
        "--path-as-is",
        "--resolve",
        &resolve,
        "--cacert",
        &ca,
        "--cert",
        &chain,
        "--key",
        &key,
    ];
    arguments.extend(more);
    arguments.push(&url);
    curl(&arguments, input)
}

#[test]
fn curl_pushes_and_pulls_over_both_versions() {
    if !skip::have(&["docker-registry", "curl"]) {
        return;
    }
    let (_registry, gateway) = start(ALLOW_ALL);
    for (version, content) in [("--http1.1", pattern(0, 3 << 20)), ("--http2", pattern(8, 3 << 20))] {
        let started = curl_gateway(&gateway, &["-i", version, "-X", "POST"], "/v2/team/app/blobs/uploads/", b"");
        let text = started.expect_success("starting an upload").text();
        assert!(text.starts_with("HTTP/") && text.contains(" 202"), "{text}");
        let location = text
            .lines()
            .find_map(|line| line.to_lowercase().starts_with("location: ").then(|| line[10..].trim().to_owned()))
            .expect("a location");
        assert!(location.starts_with("/v2/team/app/blobs/uploads/"), "{location}");
        let digest = sha256(&content);
        let patch =
            ["-i", version, "-X", "PATCH", "-H", "Content-Type: application/octet-stream", "--data-binary", "@-"];
        let patched = curl_gateway(&gateway, &patch, &location, &content).expect_success("sending").text();
        assert!(patched.contains(" 202"), "{patched}");
        let location = patched
            .lines()
            .find_map(|line| line.to_lowercase().starts_with("location: ").then(|| line[10..].trim().to_owned()))
            .expect("a location");
        let put = format!("{location}&digest=sha256:{digest}");
        let done = curl_gateway(&gateway, &["-i", version, "-X", "PUT"], &put, b"").expect_success("ending").text();
        assert!(done.contains(" 201 "), "{done}");
        let blob = format!("/v2/team/app/blobs/sha256:{digest}");
        let pulled = curl_gateway(&gateway, &["-f", version], &blob, b"").expect_success("pulling");
        assert_eq!(sha256(&pulled.stdout), digest);
        let range = curl_gateway(&gateway, &["-f", version, "-r", "10-19"], &blob, b"").expect_success("a range");
        assert_eq!(range.stdout, content[10..20]);
    }
}

#[test]
fn skopeo_copies_both_ways() {
    if !skip::have(&["docker-registry", "skopeo"]) {
        return;
    }
    let (_registry, gateway) = start(TEAMS);
    let home = tempfile::tempdir().expect("a temporary directory");
    let certs = home.path().join("certs");
    certificates(&certs, &gateway.server_ca.certificate, gateway.identity());
    let certs = certs.to_string_lossy().into_owned();
    let layer = image(&home.path().join("image"), &pattern(0, 2 << 20));
    let layout = format!("oci:{}:latest", home.path().join("image").display());
    let remote = format!("docker://localhost:{}/team/app:v1", gateway.address().port());
    let copy = ["copy", "--insecure-policy", "--preserve-digests", "--dest-cert-dir", &certs, &layout, &remote];
    skopeo(home.path(), &copy).expect_success("pushing");
    let back = format!("oci:{}:latest", home.path().join("back").display());
    let copy = ["copy", "--insecure-policy", "--preserve-digests", "--src-cert-dir", &certs, &remote, &back];
    skopeo(home.path(), &copy).expect_success("pulling");
    let blob = home.path().join("back/blobs/sha256").join(layer.trim_start_matches("sha256:"));
    assert!(blob.metadata().is_ok(), "the layer came back");
    let listed = skopeo(home.path(), &["list-tags", "--cert-dir", &certs, remote.trim_end_matches(":v1")]);
    assert!(listed.expect_success("listing").text().contains("\"v1\""));
    // A push that isn't allowed shows the reason.
    let forbidden = format!("docker://localhost:{}/lib/base:v1", gateway.address().port());
    let copy = ["copy", "--insecure-policy", "--dest-cert-dir", &certs, &layout, &forbidden];
    let refused = skopeo(home.path(), &copy);
    assert!(!refused.success());
    assert!(refused.all().contains("lib/base") && refused.all().contains("default deny"), "{}", refused.all());
    // Copying between repositories mounts; a mount that is refused costs nothing but bytes.
    let second = format!("docker://localhost:{}/team/copy:v1", gateway.address().port());
    let copy = ["copy", "--insecure-policy", "--src-cert-dir", &certs, "--dest-cert-dir", &certs, &remote, &second];
    skopeo(home.path(), &copy).expect_success("copying inside the registry");
}

fn dockerd(gateway: &Gateway, identity: &Identity) -> Option<Dockerd> {
    match Dockerd::start(gateway.address(), &gateway.server_ca.certificate, identity) {
        Ok(daemon) => Some(daemon),
        Err(reason) => {
            skip::skipped(&format!("no docker daemon: {reason}"));
            None
        }
    }
}

#[test]
fn docker_pushes_and_pulls_and_shows_why_not() {
    if !skip::have(&["docker-registry", "dockerd", "docker"]) {
        return;
    }
    let registry = Registry::start();
    let builder = gateway().policy(TEAMS).upstream(registry.url()).bound_uploads();
    let list = builder.client_ca.crl().pem();
    let gateway = builder.crl(&list).start();
    let Some(daemon) = dockerd(&gateway, gateway.identity()) else { return };
    let name = format!("{}/team/app:v1", daemon.registry);
    daemon.import(&name, &pattern(0, 3 << 20));
    daemon.docker(&["push", &name]).expect_success("docker push");
    daemon.docker(&["rmi", &name]).expect_success("docker rmi");
    daemon.docker(&["pull", &name]).expect_success("docker pull");
    // A second repository: docker tries to mount what it has pushed already.
    let second = format!("{}/team/second:v1", daemon.registry);
    daemon.docker(&["tag", &name, &second]).expect_success("docker tag");
    daemon.docker(&["push", &second]).expect_success("docker push of a mounted layer");

    let forbidden = format!("{}/lib/base:v1", daemon.registry);
    daemon.docker(&["tag", &name, &forbidden]).expect_success("docker tag");
    let refused = daemon.docker(&["push", &forbidden]);
    assert!(!refused.success(), "{}", refused.all());
    assert!(refused.all().contains("denied: push to lib/base is not allowed"), "{}", refused.all());
    let refused = daemon.docker(&["pull", &format!("{}/secret/app:v1", daemon.registry)]);
    assert!(!refused.success(), "{}", refused.all());
    assert!(refused.all().contains("pull from secret/app is not allowed"), "{}", refused.all());

    let revoked = gateway.client_ca.crl().number(2).revoke(&gateway.identity().certificate).pem();
    gateway.write("ca.crl", revoked);
    gateway.reload_ok();
    let refused = daemon.docker(&["pull", &name]);
    assert!(!refused.success(), "{}", refused.all());
    assert!(refused.all().contains("revoked certificate"), "{}", refused.all());
}

#[test]
fn docker_shows_that_a_certificate_has_expired() {
    if !skip::have(&["dockerd", "docker"]) {
        return;
    }
    let upstream = crate::support::upstream::Upstream::start();
    let gateway = gateway().upstream(upstream.url()).start();
    let expired = gateway.client_ca.issue(&pki::client("ci-7").expired());
    let Some(daemon) = dockerd(&gateway, &expired) else { return };
    let refused = daemon.docker(&["pull", &format!("{}/team/app:v1", daemon.registry)]);
    assert!(!refused.success(), "{}", refused.all());
    assert!(refused.all().contains("tls: expired certificate"), "{}", refused.all());
    upstream.assert_untouched("an expired certificate");
}

/// The blob's bytes through `repository`, if the registry has it there.
fn holds(registry: &Registry, repository: &str, digest: &str) -> bool {
    plain_http(registry.address(), "HEAD", &format!("/v2/{repository}/blobs/{digest}")).status == 200
}

#[test]
fn a_secret_layer_cannot_be_mounted_into_ones_own_repository() {
    if !skip::have(&["docker-registry", "curl"]) {
        return;
    }
    let (registry, gateway) = start(TEAMS);
    let secret = seed(&registry, "secret/repo", b"the secret layer");
    let uploads = "/v2/team/own/blobs/uploads/";
    let form = format!("mount={secret}&from=secret/repo");
    let form_type = "Content-Type: application/x-www-form-urlencoded";
    let attempts: Vec<(Vec<&str>, String)> = vec![
        (vec!["-X", "POST"], format!("{uploads}?{form}")),
        (vec!["-X", "POST", "-H", form_type, "-d", &form], uploads.to_owned()),
        (vec!["-X", "POST", "-F", "from=secret/repo", "-F", &form[..form.find('&').unwrap_or(0)]], uploads.to_owned()),
        (vec!["-X", "POST", "-d", &form], format!("{uploads}?mount={secret}&from=lib/base")),
        (vec!["-X", "POST"], format!("{uploads}?mount={secret}&from=lib/base&from=secret/repo")),
        (vec!["-X", "POST"], format!("{uploads}?mount={secret}&fr%6fm=secret/repo")),
        (vec!["-X", "POST"], format!("{uploads}?mount={secret}&from=lib/base;from=secret/repo")),
        (vec!["-X", "POST"], format!("{uploads}?mount={secret}")),
        (vec!["-X", "POST"], format!("/v2/team%2f..%2fteam/own/blobs/uploads/?{form}")),
        (vec!["-X", "POST", "-H", "X-HTTP-Method-Override: PUT"], format!("{uploads}?{form}")),
    ];
    for (arguments, target) in &attempts {
        for version in ["--http1.1", "--http2"] {
            let mut arguments = arguments.clone();
            arguments.extend(["-i", version]);
            let shown = curl_gateway(&gateway, &arguments, target, b"").all();
            assert!(!shown.contains(" 201 "), "{arguments:?} {target}: {shown}");
            assert!(!holds(&registry, "team/own", &secret), "{arguments:?} {target}: mounted");
        }
    }
    // The right to the source makes the same request work.
    let base = seed(&registry, "lib/base", b"a public layer");
    let target = format!("{uploads}?mount={base}&from=lib/base");
    let shown = curl_gateway(&gateway, &["-i", "-X", "POST"], &target, b"").all();
    assert!(shown.contains(" 201 ") && holds(&registry, "team/own", &base), "{shown}");
}

#[test]
fn a_secret_repository_cannot_be_reached_by_another_spelling() {
    if !skip::have(&["docker-registry", "curl"]) {
        return;
    }
    let (registry, gateway) = start(TEAMS);
    let secret = seed(&registry, "secret/repo", b"the secret layer");
    let paths = [
        format!("/v2/secret/repo/blobs/{secret}"),
        format!("/v2/secret%2frepo/blobs/{secret}"),
        format!("/v2/%73ecret/repo/blobs/{secret}"),
        format!("/v2/team/../secret/repo/blobs/{secret}"),
        format!("/v2/team/%2e%2e/secret/repo/blobs/{secret}"),
        format!("/v2/team/..%2fsecret/repo/blobs/{secret}"),
        format!("//v2/secret/repo/blobs/{secret}"),
        format!("/v2//secret/repo/blobs/{secret}"),
        format!("/v2/./secret/repo/blobs/{secret}"),
        format!("/v2/team/..;/secret/repo/blobs/{secret}"),
        format!("/v2/secret/repo/blobs/{secret}/"),
        format!("/v2/SECRET/repo/blobs/{secret}"),
        format!("/v2/secret/repo/blobs/{}", secret.replace(':', "%3A")),
        format!("/v2/team/app/blobs/{secret}/../../../../secret/repo/blobs/{secret}"),
    ];
    for path in &paths {
        for version in ["--http1.1", "--http2"] {
            let shown = curl_gateway(&gateway, &["-i", "-L", "--max-redirs", "3", version], path, b"").all();
            assert!(!shown.contains("the secret layer"), "{path}: {shown}");
            assert!(shown.contains(" 400") || shown.contains(" 403"), "{path}: {shown}");
        }
    }
}

#[test]
fn the_registrys_answers_never_point_elsewhere() {
    if !skip::have(&["docker-registry", "curl"]) {
        return;
    }
    let (_registry, gateway) = start(ALLOW_ALL);
    for header in [
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: http",
        "Forwarded: host=evil.example;proto=http",
        "X-Forwarded-Port: 1",
        "X-Original-URL: /v2/evil/",
    ] {
        for version in ["--http1.1", "--http2"] {
            let arguments = ["-i", version, "-X", "POST", "-H", header];
            let shown = curl_gateway(&gateway, &arguments, "/v2/team/app/blobs/uploads/", b"").all();
            let location = shown.lines().find(|line| line.to_lowercase().starts_with("location:")).unwrap_or("none");
            assert!(location.to_lowercase().starts_with("location: /v2/team/app/"), "{header}: {shown}");
        }
    }
}

/// Sends `size` bytes as one PATCH, in pieces.
fn push(client: &mut H1, location: &str, size: u64) -> String {
    let length = size.to_string();
    let headers = [("Content-Length", length.as_str()), ("Content-Type", "application/octet-stream")];
    client.send_request("PATCH", location, &headers, b"").expect("sent");
    for at in (0..size).step_by(1 << 20) {
        client.send(&pattern(at, 1 << 20)).expect("sent");
    }
    let reply = client.answer().expect("an answer");
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.header("location").expect("a location").to_owned()
}

#[test]
fn a_layer_of_a_gibibyte_passes_in_constant_memory() {
    const SIZE: u64 = 1 << 30;
    if !skip::have(&["docker-registry"]) {
        return;
    }
    let (_registry, gateway) = start(ALLOW_ALL);
    let digest = std::thread::spawn(|| pattern_sha256(SIZE));
    let mut client = gateway.h1();
    assert_eq!(client.get("/v2/").status, 200);
    gateway.reset_peak();
    let before = gateway.rss_kib();
    let started = client.request("POST", "/v2/team/big/blobs/uploads/", &[], b"").expect("an answer");
    let location = started.header("location").expect("a location").to_owned();
    let location = push(&mut client, &location, SIZE);
    let digest = digest.join().expect("no panic");
    let put = format!("{location}&digest=sha256:{digest}");
    let reply = client.request("PUT", &put, &[], b"").expect("an answer");
    assert_eq!(reply.status, 201, "{reply:?}");
    client.send_request("GET", &format!("/v2/team/big/blobs/sha256:{digest}"), &[], b"").expect("sent");
    let head = client.head().expect("a head");
    let mut hash = Sha256::new();
    let length = client.body(&head, "GET", |part| hash.update(part)).expect("a whole body");
    assert_eq!((length, hex(&hash.finalize())), (SIZE, digest));
    let grown = gateway.peak_kib().saturating_sub(before) / 1024;
    assert!(grown < 64, "memory grew by {grown} MiB");
}

#[test]
fn the_real_catalog_is_filtered_and_a_real_session_is_bound() {
    if !skip::have(&["docker-registry", "curl"]) {
        return;
    }
    let (registry, gateway) =
        start(&format!("{TEAMS}  - {{ name: list, subjects: [any], actions: [catalog], effect: allow }}\n"));
    for repository in ["another/x", "lib/base", "lib-two/x", "secret/one", "team/app", "team/tool", "zebra/x"] {
        let layer = seed(&registry, repository, b"a layer");
        tagged(&registry, repository, &layer);
    }
    let all = plain_http(registry.address(), "GET", "/v2/_catalog").json();
    assert_eq!(all["repositories"].as_array().map(Vec::len), Some(7), "{all}");
    for mut client in gateway.both() {
        let mut found = Vec::new();
        let mut target = "/v2/_catalog?n=2".to_owned();
        loop {
            let reply = client.get(&target);
            assert!(!format!("{:?}", reply.headers).contains("secret"), "{reply:?}");
            found.extend(reply.json()["repositories"].as_array().cloned().unwrap_or_default());
            let Some(link) = reply.header("link") else { break };
            target = link.trim_start_matches('<').split('>').next().unwrap_or_default().to_owned();
        }
        assert_eq!(found, ["lib/base", "team/app", "team/tool"]);
        let started = client.request("POST", "/v2/team/app/blobs/uploads/", &[], b"");
        let location = started.header("location").expect("a location");
        let other = gateway.client("ci-8");
        let stolen = gateway.h1_as(&other).request("PATCH", location, &[], b"x").expect("an answer");
        stolen.assert_refusal(404, "BLOB_UPLOAD_UNKNOWN");
        let digest = sha256(b"layer");
        let put = format!("{location}&digest=sha256:{digest}");
        let octets = [("Content-Type", "application/octet-stream")];
        assert_eq!(client.request("PUT", &put, &octets, b"layer").status, 201);
    }
}

/// Gives `repository` a manifest: the catalog lists what has one.
fn tagged(registry: &Registry, repository: &str, layer: &str) {
    let config = seed(registry, repository, b"{}");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 7 }],
    });
    let url = format!("http://{}/v2/{repository}/manifests/v1", registry.address());
    let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
    let put = ["-sf", "-X", "PUT", "-H", kind, "--data-binary", "@-", &url];
    curl(&put, manifest.to_string().as_bytes()).expect_success("a manifest");
}
