//! A real registry whose driver redirects.

use crate::support::gateway::{ALLOW_ALL, gateway};
use crate::support::registry::Registry;
use crate::support::skip;
use crate::support::skopeo::{certificates, image, skopeo};
use crate::support::upstream::{Answer, Upstream, pattern};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Serves the files below a directory, as a storage does.
fn file_server(root: &Arc<Mutex<PathBuf>>) -> Upstream {
    let storage = Upstream::start();
    let root = Arc::clone(root);
    storage.answer(move |request| {
        let root = root.lock().expect("no test panics in here").clone();
        match fs::read(root.join(request.target.trim_start_matches('/'))) {
            Ok(content) if request.method == "HEAD" => {
                Answer::new(200).header("Content-Length", &content.len().to_string())
            }
            Ok(content) => Answer::new(200).header("Content-Type", "application/octet-stream").body(&content),
            Err(_) => Answer::new(404).body(b"NoSuchKey"),
        }
    });
    storage
}

#[test]
fn skopeo_pulls_from_a_registry_that_redirects() {
    if !skip::have(&["docker-registry", "skopeo"]) {
        return;
    }
    let root = Arc::new(Mutex::new(PathBuf::new()));
    let storage = file_server(&root);
    let middleware = format!(
        "middleware:\n  storage:\n    - name: redirect\n      options: {{ baseurl: \"{}/\" }}\n",
        storage.url()
    );
    let registry = Registry::start_with(&middleware);
    *root.lock().expect("no test panics in here") = registry.storage();
    for mode in ["pass", "follow"] {
        let gateway = gateway()
            .policy(ALLOW_ALL)
            .upstream(registry.url())
            .with_upstream(|u| {
                u["redirects"] = mode.into();
                u["redirect_hosts"] = json!([storage.url()]);
                u["verify_digests"] = true.into();
            })
            .bound_uploads()
            .start();
        let home = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| home.path().join(name);
        certificates(&path("certs"), &gateway.server_ca.certificate, gateway.identity());
        let layer = image(&path("image"), &pattern(if mode == "pass" { 0 } else { 8 }, 2 << 20));
        let remote = format!("docker://localhost:{}/team/{mode}:v1", gateway.address().port());
        let layout = |name: &str| format!("oci:{}:latest", path(name).display());
        copy(home.path(), "--dest-cert-dir", &layout("image"), &remote);
        storage.take();
        copy(home.path(), "--src-cert-dir", &remote, &layout("back"));
        let blob =
            |name: &str| fs::read(path(name).join("blobs/sha256").join(layer.trim_start_matches("sha256:"))).ok();
        assert!(blob("back").is_some() && blob("back") == blob("image"), "{mode}: the layer came back as it was");
        let agents: Vec<String> =
            storage.take().iter().filter_map(|asked| asked.header("user-agent").map(str::to_owned)).collect();
        let own = agents.iter().filter(|agent| agent.starts_with("portcullis/")).count();
        assert!(agents.len() >= 2, "{mode}: layer and configuration came from the storage: {agents:?}");
        assert_eq!(own, if mode == "follow" { agents.len() } else { 0 }, "{mode}: {agents:?}");
        let verified = gateway.metric("portcullis_digest_checks_total", &[("result", "verified")]);
        assert!(verified.is_some_and(|n| n >= if mode == "follow" { 3.0 } else { 1.0 }), "{mode}: {verified:?}");
    }
}

fn copy(home: &Path, side: &str, from: &str, to: &str) {
    let certs = home.join("certs").to_string_lossy().into_owned();
    skopeo(home, &["copy", "--insecure-policy", "--preserve-digests", side, &certs, from, to]).expect_success(from);
}
