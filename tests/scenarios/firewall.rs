//! What a client with few rights can make a registry do: what it may, and nothing else.
//!
//! Registries are generous readers, so each of their habits is a way around a gateway that reads differently. Which test
//! holds which way shut:
//!
//! | way | test |
//! |---|---|
//! | every endpoint with its methods, and no other | `routing::what_is_served_…`, `routing::what_is_refused_…` |
//! | the name is greedy: `a/blobs/uploads/manifests/x` | `a_name_that_looks_like_an_upload_is_a_repository_of_its_own` |
//! | spellings: `%2f`, `%73`, `..`, `//`, `/./`, case, `;`, a slash at the end, 256 characters | `attacks`, `routing`, `real_registry::a_secret_repository_…`, `corpus::routes` |
//! | prefixes: `team-evil/x` for `team/*` | `policy::globs_stop_at_segments`, `upstreams::repositories_choose_…` |
//! | `mount` and `from` in query and form, repeated, encoded, without source, across upstreams | `attacks`, `routing::bodies_…`, `real_registry::a_secret_layer_…`, `upstreams::a_mount_never_crosses_upstreams` |
//! | a refused mount becomes an upload | `routing::a_refused_mount_becomes_a_plain_upload` |
//! | queries: unknown, repeated, `n=-1`, `;` | `routing::what_is_served_…`, `routing::what_is_refused_…`, `attacks` |
//! | methods: lower case, unknown, overridden by header or query | `attacks`, `headers::a_client_cannot_speak_…` |
//! | every tag of a push by digest | `policy::tag_limits_hold_for_every_tag_of_a_push` |
//! | deleting by digest what tags protect | `a_delete_by_digest_is_a_delete_of_every_tag` |
//! | a tag limit on pulls, which pulls by digest would evade | the policy doesn't compile (`policy` unit tests) |
//! | the catalog: hidden names, cursors, pages, other paths | `catalog`, `real_registry::the_real_catalog_…` |
//! | upload sessions of others: GET, HEAD, PATCH, PUT, DELETE | `upload_sessions`, `a_real_session_is_its_clients_alone_on_every_replica` |
//! | redirects to anywhere | `redirects::a_redirect_to_any_other_host_…` |
//! | wrong content | `digests` |
//! | framing: CL.TE, TE.CL, TE.TE, CL.CL, chunks, line endings, trailers, pipelines | `http_strictness`, `nothing_smuggled_reaches_a_real_registry` |
//! | HTTP/2: fields, pseudo-fields, lengths, CONNECT | `http2_strictness` |
//! | forwarding, identity and override headers, `Connection` | `headers`, `attacks`, `real_registry::the_registrys_answers_never_point_elsewhere` |
//! | Host, SNI, absolute form | `http_strictness::a_host_that_…`, `http_strictness::odd_targets_are_refused`, `attacks` |
//! | Upgrade, CONNECT | `http_strictness::no_tunnel_is_opened`, `http2_strictness::an_extended_connect_…` |
//! | text in names of a certificate that reads as another's | `policy::several_common_names_…`, `policy::text_in_a_common_name_…` |
//! | GET and HEAD refused alike | `policy::get_and_head_…`, `routing::get_and_head_are_refused_alike` |

mod attacks;

use crate::support::gateway::{Builder, Client, Gateway, gateway, plain_http};
use crate::support::process;
use crate::support::registry::Registry;
use crate::support::skip;
use crate::support::upstream::{Answer, Recorded, Upstream, sha256};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use attacks::{ATTACKS, OCI, UPLOADS};

/// A client that pulls and pushes below `team`, pulls below `lib`, and may nothing else.
const FEW: &str = "
rules:
  - { name: own, subjects: [any], repositories: ['team/**'], actions: [pull, push, overwrite], effect: allow }
  - { name: base, subjects: [any], repositories: ['lib/**'], actions: [pull], effect: allow }
";

/// Whether the client's rights cover what reached the upstream.
fn is_covered(request: &Recorded) -> bool {
    let text = String::from_utf8_lossy(&[request.head.as_slice(), &request.body].concat()).to_lowercase();
    let reads = matches!(request.method.as_str(), "GET" | "HEAD");
    let writes = matches!(request.method.as_str(), "POST" | "PUT" | "PATCH");
    let target = request.target.as_str();
    let inside = target == "/v2/" && reads
        || target.starts_with("/v2/team/") && (reads || writes)
        || target.starts_with("/v2/lib/") && reads;
    let plain = !["secret", "%2f", "%2e", "..", "//", ";", "mount", "override", "delete"]
        .iter()
        .any(|word| text.contains(word) || target.contains(word));
    inside && plain
}

#[test]
fn nothing_reaches_the_upstream_that_the_rights_do_not_cover() {
    let upstream = Upstream::start();
    let gateway = gateway().policy(FEW).upstream(upstream.url()).bound_uploads().start();
    let (secret, manifest) = (crate::DIGEST.replace("aa", "ab"), crate::DIGEST.to_owned());
    for attack in ATTACKS {
        for mut client in gateway.both() {
            let shown = attack.send(&mut client, &secret, &manifest);
            for request in upstream.take() {
                let what = format!("{} {} {}", client.version(), attack.method, attack.target);
                assert!(is_covered(&request), "{what}: {shown}: {request:#?}");
            }
        }
    }
    // The same client's own work is let through.
    for mut client in gateway.both() {
        for (method, target) in [
            ("GET", "/v2/team/app/tags/list"),
            ("PUT", "/v2/team/app/manifests/v1"),
            ("POST", UPLOADS),
            ("GET", "/v2/lib/base/manifests/v1"),
        ] {
            client.request(method, target, &[], b"");
            assert!(is_covered(&upstream.only()), "{method} {target}");
        }
    }
}

#[test]
fn a_name_that_looks_like_an_upload_is_a_repository_of_its_own() {
    let upstream = Upstream::start();
    let policy = "
rules:
  - { name: exactly, subjects: [any], repositories: ['team/app'], actions: [pull, push, overwrite], effect: allow }
";
    let gateway = gateway().policy(policy).upstream(upstream.url()).bound_uploads().start();
    for mut client in gateway.both() {
        for tail in
            ["blobs/uploads/manifests/v1", "manifests/manifests/v1", "blobs/uploads/blobs/uploads/", "tags/tags/list"]
        {
            let method = if tail.ends_with("uploads/") { "POST" } else { "GET" };
            let reply = client.request(method, &format!("/v2/team/app/{tail}"), &[], b"");
            reply.assert_refusal(403, "DENIED");
            let inner = tail.rsplit_once('/').map_or(tail, |(inner, _)| inner);
            assert!(reply.message().contains("team/app/"), "{inner}: {}", reply.message());
        }
    }
    upstream.assert_untouched("a repository below the one that is allowed");
}

#[test]
fn a_delete_by_digest_is_a_delete_of_every_tag() {
    let upstream = Upstream::start();
    let policy = "
rules:
  - { name: tidy, subjects: [any], repositories: ['team/**'], actions: [delete], tags: ['dev-*'], effect: allow }
";
    let gateway = gateway().policy(policy).upstream(upstream.url()).start();
    for mut client in gateway.both() {
        assert_eq!(client.request("DELETE", "/v2/team/app/manifests/dev-1", &[], b"").status, 200);
        assert_eq!(upstream.only().line(), "DELETE /v2/team/app/manifests/dev-1");
        for reference in ["v1", crate::DIGEST] {
            let reply = client.request("DELETE", &format!("/v2/team/app/manifests/{reference}"), &[], b"");
            reply.assert_refusal(403, "DENIED");
        }
    }
    upstream.assert_untouched("deletes of what isn't a dev tag");
}

fn curl(arguments: &[&str], input: &[u8]) -> String {
    process::run("curl", arguments, input, Duration::from_secs(60)).expect_success("curl").text()
}

/// Puts a blob into the registry behind the gateway's back; its digest.
fn seed(registry: &Registry, repository: &str, content: &[u8]) -> String {
    let url = format!("http://{}/v2/{repository}/blobs/uploads/", registry.address());
    let started = curl(&["-si", "-X", "POST", &url], b"");
    let location =
        started.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a location").trim().to_owned();
    let digest = format!("sha256:{}", sha256(content));
    let put = format!("{location}&digest={digest}");
    curl(&["-sf", "-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", "@-", &put], content);
    digest
}

/// Gives `repository` a manifest `v1` with this layer; its digest.
fn tag(registry: &Registry, repository: &str, layer: &str) -> String {
    let config = seed(registry, repository, b"{}");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 7 }],
    })
    .to_string();
    let url = format!("http://{}/v2/{repository}/manifests/v1", registry.address());
    let kind = format!("Content-Type: {OCI}");
    curl(&["-sf", "-X", "PUT", "-H", &kind, "--data-binary", "@-", &url], manifest.as_bytes());
    format!("sha256:{}", sha256(manifest.as_bytes()))
}

/// Everything that the registry has stored: each repository's manifests, tags and layers, and all content. Uploads that
/// were only begun are nobody's.
fn state(registry: &Registry) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![registry.storage()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the storage is readable").flatten() {
            let path = entry.path();
            let is_folder = entry.file_type().expect("the storage is readable").is_dir();
            if is_folder && path.file_name() != Some("_uploads".as_ref()) {
                folders.push(path);
            } else if !is_folder {
                let content = fs::read(&path).unwrap_or_default();
                files.insert(path.to_string_lossy().into_owned(), content);
            }
        }
    }
    files
}

/// A registry with a secret, a library and the team's own, and a gateway before it.
fn real(builder: impl FnOnce(Builder) -> Builder) -> (Registry, Gateway, String, String) {
    let registry = Registry::start();
    let secret = seed(&registry, "secret/repo", b"the secret layer");
    tag(&registry, "secret/repo", &secret);
    let public = seed(&registry, "lib/base", b"a layer of the library");
    let manifest = tag(&registry, "lib/base", &public);
    let own = seed(&registry, "team/app", b"a layer of the team");
    tag(&registry, "team/app", &own);
    let gateway = builder(gateway().policy(FEW).upstream(registry.url()).bound_uploads()).start();
    (registry, gateway, secret, manifest)
}

#[test]
fn no_attack_changes_a_real_registry_or_gets_a_secret_out_of_it() {
    if !skip::have(&["docker-registry", "curl"]) {
        return;
    }
    let (registry, gateway, secret, manifest) = real(|builder| builder);
    let before = state(&registry);
    let layers =
        |repository: &str| before.keys().filter(|path| path.contains(&format!("{repository}/_layers"))).count();
    assert_eq!((layers("secret/repo"), layers("team/own")), (2, 0), "{:?}", before.keys());
    for attack in ATTACKS {
        for mut client in gateway.both() {
            let shown = attack.send(&mut client, &secret, &manifest);
            let what = format!("{} {} {}", client.version(), attack.method, attack.target);
            assert!(!shown.contains("the secret layer") && !shown.contains("secret/repo\""), "{what}: {shown}");
        }
        let changed = state(&registry) != before;
        assert!(!changed, "{} {}: {:?}", attack.method, attack.target, state(&registry).keys());
    }
}

#[test]
fn the_attacks_would_work_on_the_registry_alone() {
    if !skip::have(&["docker-registry", "curl"]) {
        return;
    }
    let registry = Registry::start();
    let secret = seed(&registry, "secret/repo", b"the secret layer");
    let url = |target: &str| format!("http://{}{target}", registry.address());
    let form = format!("mount={secret}&from=secret/repo");
    let mounted = curl(&["-si", "-X", "POST", "-d", &form, &url(UPLOADS)], b"");
    assert!(mounted.contains(" 201 "), "{mounted}");
    let read = curl(&["-s", "--path-as-is", &url(&format!("/v2/secret%2frepo/blobs/{secret}"))], b"");
    assert_eq!(read, "the secret layer");
    let deleted = curl(&["-si", "-X", "DELETE", &url(&format!("/v2/secret/repo/blobs/{secret}"))], b"");
    assert!(deleted.contains(" 202 "), "{deleted}");
}

#[test]
fn nothing_smuggled_reaches_a_real_registry() {
    if !skip::have(&["docker-registry", "curl"]) {
        return;
    }
    let (registry, gateway, secret, manifest) = real(|builder| builder);
    let before = state(&registry);
    let delete = format!("DELETE /v2/lib/base/manifests/{manifest} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    let steal = format!(
        "POST {UPLOADS}?mount={secret}&from=secret/repo HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 0\r\n\r\n"
    );
    for smuggled in [delete, steal] {
        let (length, chunk) = (smuggled.len(), format!("{:x}", smuggled.len()));
        let post = format!("POST {UPLOADS} HTTP/1.1\r\nHost: gw.test\r\n");
        let get = "GET /v2/team/app/tags/list HTTP/1.1\r\nHost: gw.test\r\n";
        for bytes in [
            format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{smuggled}"),
            format!(
                "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{chunk}\r\n{smuggled}\r\n0\r\n\r\n"
            ),
            format!("{post}Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n\r\n{smuggled}"),
            format!("{post}Transfer-Encoding : chunked\r\nContent-Length: {length}\r\n\r\n{smuggled}"),
            format!("{post}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{smuggled}"),
            format!("{post}Content-Length: 0\nX: y\r\n\r\n{smuggled}"),
            format!("{post}X: y\r\n\tContent-Length: {length}\r\n\r\n{smuggled}"),
            format!("{get}Content-Length: {length}\r\n\r\n{smuggled}"),
            format!("{get}Transfer-Encoding: chunked\r\n\r\n{chunk}\r\n{smuggled}\r\n0\r\n\r\n"),
            format!(
                "{get}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{smuggled}"
            ),
            format!("{get}\r\n{smuggled}"),
            smuggled.replacen(" /v2/", " https://gw.test/v2/", 1),
            smuggled.replacen(" /v2/", " http://evil.example/v2/", 1),
            smuggled.replacen(" HTTP/1.1", " HTTP/1.0", 1),
        ] {
            let mut client = gateway.h1();
            let _ = client.send(bytes.as_bytes());
            // As many answers as there are; none may be one that the smuggled request earns.
            for _ in 0..3 {
                let Ok(reply) = client.answer() else { break };
                assert!(!matches!(reply.status, 201 | 204), "{bytes:?}: {reply:?}");
            }
            assert!(state(&registry) == before, "{bytes:?}");
        }
    }
}

#[test]
fn a_real_session_is_its_clients_alone_on_every_replica() {
    if !skip::have(&["docker-registry", "curl"]) {
        return;
    }
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";
    let shared = |builder: Builder| {
        builder.file("uploads.key", key).configure(|c| c["uploads"]["key_file"] = "uploads.key".into())
    };
    let (registry, first, ..) = real(shared);
    let client_ca = fs::read_to_string(&first.client_ca.certificate).expect("a certificate");
    let second =
        shared(gateway().policy(FEW).upstream(registry.url()).bound_uploads().file("client-ca.pem", &client_ca));
    let second = second.start();
    let octets = [("content-type", "application/octet-stream")];
    let other = first.client("ci-8");
    for (index, content) in [b"over HTTP/1.1", b"over HTTP/2.0"].into_iter().enumerate() {
        let pick = |clients: [Client; 2]| clients.into_iter().nth(index).expect("one of each version");
        let (mut here, mut there) = (pick(first.both_as(first.identity())), pick(second.both_as(first.identity())));
        let started = here.request("POST", UPLOADS, &[], b"");
        assert_eq!(started.status, 202, "{started:?}");
        let mut location = started.header("location").expect("a location").to_owned();
        let digest = format!("sha256:{}", sha256(content));
        // Somebody else, with the whole address and the same rights, at either replica.
        for gateway in [&first, &second] {
            for method in ["GET", "HEAD", "PATCH", "PUT", "DELETE"] {
                let mut thief = pick(gateway.both_as(&other));
                let target = if method == "PUT" { format!("{location}&digest={digest}") } else { location.clone() };
                let body: &[u8] = if method == "PATCH" { b"poison" } else { b"" };
                let reply = thief.request(method, &target, &octets, body);
                assert_eq!(reply.status, 404, "{} {method}: {reply:?}", thief.version());
            }
        }
        // The client itself goes on where it likes.
        let asked = there.request("GET", &location, &[], b"");
        assert_eq!(asked.status, 204, "{asked:?}");
        let patched = there.request("PATCH", &location, &octets, content);
        assert_eq!(patched.status, 202, "{patched:?}");
        location = patched.header("location").expect("a location").to_owned();
        let done = here.request("PUT", &format!("{location}&digest={digest}"), &[], b"");
        assert_eq!(done.status, 201, "{done:?}");
        assert_eq!(there.get(&format!("/v2/team/own/blobs/{digest}")).body, content);
        // And cancels.
        let started = here.request("POST", UPLOADS, &[], b"");
        let location = started.header("location").expect("a location").to_owned();
        assert_eq!(there.request("DELETE", &location, &[], b"").status, 204);
        assert_eq!(here.request("GET", &location, &[], b"").status, 404);
    }
}

#[test]
fn what_makes_a_real_registry_stumble_does_not_reach_it() {
    if !skip::have(&["docker-registry", "curl"]) {
        return;
    }
    let (registry, gateway, ..) = real(|builder| builder);
    let long = format!("team/{}", "a".repeat(260));
    let direct = plain_http(registry.address(), "GET", &format!("/v2/{long}/tags/list")).status;
    for mut client in gateway.both() {
        client.get(&format!("/v2/{long}/tags/list")).assert_refusal(400, "NAME_INVALID");
        client.get("/v2/team/app/tags/list?n=-1").assert_refusal(400, "PAGINATION_NUMBER_INVALID");
        client.get("/v2/team/app/referrers/sha256:x").assert_refusal(400, "DIGEST_INVALID");
    }
    assert!(direct >= 400, "the registry alone answers {direct}");
}

#[test]
fn what_a_registry_does_not_have_is_its_answer() {
    let upstream = Upstream::start();
    let gateway = gateway().policy(FEW).upstream(upstream.url()).start();
    // Clients fall back to tags where there is no list of referrers.
    upstream.answer(|_| Answer::new(404).body(b"404 page not found\n"));
    for mut client in gateway.both() {
        let reply = client.get(&format!("/v2/team/app/referrers/{}", crate::DIGEST));
        assert_eq!((reply.status, reply.text().as_str()), (404, "404 page not found\n"));
    }
}
