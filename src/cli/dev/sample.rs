//! A tiny image to push: an OCI image layout with one file in one layer, so that no other registry is needed.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::DevError;
use super::files::{self, Access};
use super::site::Site;

/// The tag of the image in the layout's index.
pub(super) const TAG: &str = "1";

const TEXT: &str = "Hello from behind the gate.\n";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of the sample's manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// SHA-256 of the sample's parts in hex, as they name files and blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub layer: String,
    pub config: String,
    pub manifest: String,
}

impl Sample {
    /// Writes the layout to `sample/` of the site. Its digests are the same on every machine of one architecture.
    pub(super) fn write(site: &Site) -> Result<Self, DevError> {
        let layout = site.dir.join("sample");
        let blobs = layout.join("blobs").join("sha256");
        files::make_directory(&blobs)?;
        let store = |content: &[u8]| {
            let hex = hex(&Sha256::digest(content));
            files::write(&blobs.join(&hex), content, Access::Public).map(|()| hex)
        };

        let layer = archive("hello.txt", TEXT);
        let layer_hex = store(&layer)?;
        let config = configuration(&layer_hex).to_string();
        let config_hex = store(config.as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config_hex, config.len()),
            "layers": [descriptor(LAYER, &layer_hex, layer.len())],
        })
        .to_string();
        let manifest_hex = store(manifest.as_bytes())?;

        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": format!("sha256:{manifest_hex}"),
                "size": manifest.len(),
                "annotations": { "org.opencontainers.image.ref.name": TAG },
            }],
        })
        .to_string();
        files::write(&layout.join("index.json"), index.as_bytes(), Access::Public)?;
        files::write(&layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#, Access::Public)?;
        Ok(Self { layer: layer_hex, config: config_hex, manifest: manifest_hex })
    }
}

fn descriptor(media_type: &str, hex: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": size })
}

fn configuration(layer_hex: &str) -> Value {
    // The names of OCI are Go's, not Rust's.
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_hex}")] },
    })
}

/// A tar archive (POSIX ustar) of one file that everybody may read, dated 1970.
fn archive(name: &str, content: &str) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut header = Vec::with_capacity(BLOCK);
    let mut field = |text: &str, width: usize| {
        header.extend_from_slice(text.as_bytes());
        header.resize(header.len() + width.saturating_sub(text.len()), 0);
    };
    field(name, 100);
    field("0000644", 8);
    field("0000000", 8);
    field("0000000", 8);
    field(&format!("{:011o}", content.len()), 12);
    field("00000000000", 12);
    // The checksum counts itself as eight spaces.
    field("        ", 8);
    field("0", 1);
    field("", 100);
    field("ustar", 6);
    field("00", 2);
    header.resize(BLOCK, 0);
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header.splice(148..156, format!("{sum:06o}\0 ").bytes());

    let mut archive = header;
    archive.extend_from_slice(content.as_bytes());
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String can't fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}
