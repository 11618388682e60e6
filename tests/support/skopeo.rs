//! skopeo against the gateway, and images small enough for tests.

use super::pki::Identity;
use super::process::{self, Finished};
use super::upstream::sha256;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A directory with `ca.crt`, `client.cert` and `client.key`, as docker's and podman's certs.d want it.
///
/// The certificate holds the intermediates, too.
pub fn certificates(directory: &Path, server_ca: &Path, identity: &Identity) {
    fs::create_dir_all(directory).expect("the test directory is writable");
    for (from, to) in [(server_ca, "ca.crt"), (&identity.chain, "client.cert"), (&identity.key, "client.key")] {
        fs::copy(from, directory.join(to)).expect("the test directory is writable");
    }
}

/// Runs skopeo without touching the user's configuration.
pub fn skopeo(home: &Path, arguments: &[&str]) -> Finished {
    process::run_with("skopeo", arguments, b"", Duration::from_secs(60), |command| {
        command
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", home)
            .env("REGISTRY_AUTH_FILE", home.join("auth.json"))
            .env_remove("HTTPS_PROXY");
    })
}

/// Writes an OCI image layout of one layer that holds `content`, tagged `latest`, and returns the layer's digest.
pub fn image(directory: &Path, content: &[u8]) -> String {
    image_of(directory, &[content.to_vec()]).remove(0)
}

/// Like [`image`], with a layer for each content.
pub fn image_of(directory: &Path, contents: &[Vec<u8>]) -> Vec<String> {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("the test directory is writable");
    let store = |bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(blobs.join(&digest), bytes).expect("the test directory is writable");
        format!("sha256:{digest}")
    };
    let layers: Vec<Vec<u8>> = contents.iter().map(|content| tar("content", content)).collect();
    let digests: Vec<String> = layers.iter().map(|layer| store(layer)).collect();
    let described = digests.iter().zip(&layers).map(|(digest, layer)| {
        json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest, "size": layer.len(),
        })
    });
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": digests },
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": store(config.as_bytes()), "size": config.len(),
        },
        "layers": described.collect::<Vec<_>>(),
    })
    .to_string();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": store(manifest.as_bytes()), "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": "latest" },
        }],
    });
    let put = |name: &str, text: String| {
        fs::write(directory.join(name), text).expect("the test directory is writable");
    };
    put("index.json", index.to_string());
    put("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string());
    digests
}

/// A tar archive of one file.
pub fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}
