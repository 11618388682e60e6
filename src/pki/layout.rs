//! Where a leaf's files go: its own directory, docker's and containerd's certs.d, a PKCS #12.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::PkiError;
use super::files::{self, Access};
use super::journal::{Kind, Placement};
use super::names::RegistryHost;
use crate::config::Secret;
use crate::tls::issue::{self, PrivateKey};

/// What is to be written.
pub(super) struct Leaf<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    pub(super) der: &'a [u8],
    /// Absent if it was made elsewhere.
    pub(super) key: Option<&'a PrivateKey>,
    /// The certificates between the leaf and the root (PEM); servers and clients send them.
    pub(super) intermediates: &'a [u8],
    /// The root (PEM).
    pub(super) root: &'a [u8],
}

/// Writes everything, and gives the paths that were written.
///
/// Keys come before certificates: where only one of the two could be written, the pair doesn't fit and is refused,
/// instead of an old certificate going on unnoticed.
pub(super) fn write(
    leaf: &Leaf<'_>,
    directory: &Path,
    placement: &Placement,
    passphrase: Option<&Secret<String>>,
) -> Result<Vec<PathBuf>, PkiError> {
    let chain = [issue::certificate_pem(leaf.der), leaf.intermediates.to_vec()].concat();
    let key = leaf.key.map(|key| key.to_pem(None)).transpose()?;
    let server_ca = match &placement.server_ca {
        Some(path) => files::read_file(path)?,
        None => leaf.root.to_vec(),
    };
    let mut out = Written::default();
    let name = leaf.kind.as_str();
    files::make_directory(directory, Access::Private)?;
    out.key(directory.join(format!("{name}.key")), key.as_deref())?;
    out.public(directory.join(format!("{name}.crt")), &chain)?;
    if leaf.kind == Kind::Client {
        out.public(directory.join("ca.crt"), &server_ca)?;
    }
    let docker = placement.docker.clone().unwrap_or_else(|| directory.join("docker/certs.d"));
    let containerd = placement.containerd.clone().unwrap_or_else(|| directory.join("containerd/certs.d"));
    // One of the two directories given means that one alone.
    let (for_docker, for_containerd) = (placement.docker.is_some(), placement.containerd.is_some());
    for registry in &placement.registries {
        for (wanted, base, hosts) in [(for_docker, &docker, false), (for_containerd, &containerd, true)] {
            if !wanted && (for_docker || for_containerd) {
                continue;
            }
            let directory = base.join(registry.to_string());
            files::make_directory(&directory, Access::Public)?;
            out.key(directory.join("client.key"), key.as_deref())?;
            // docker takes every .crt for a CA: a client's certificate has to be called .cert.
            out.public(directory.join("client.cert"), &chain)?;
            out.public(directory.join("ca.crt"), &server_ca)?;
            if hosts {
                out.public(directory.join("hosts.toml"), hosts_toml(registry).as_bytes())?;
            }
        }
    }
    if let (Some(path), Some(key)) = (&placement.pkcs12, leaf.key) {
        let passphrase = passphrase.ok_or(PkiError::NoPassphrase)?;
        let above = [leaf.intermediates, leaf.root].concat();
        let archive = issue::pkcs12(leaf.der, &above, key, leaf.name, passphrase)?;
        files::write(path, &archive, Access::Private)?;
        out.0.push(path.clone());
    }
    Ok(out.0)
}

/// containerd's configuration of one registry. Relative paths in it start at its own directory, so it can be moved.
fn hosts_toml(registry: &RegistryHost) -> String {
    let mut text = format!("server = \"https://{registry}\"\n\n[host.\"https://{registry}\"]\n");
    // Writing to a String can't fail.
    _ = write!(
        text,
        "  capabilities = [\"pull\", \"resolve\", \"push\"]\n  ca = \"ca.crt\"\n  client = [[\"client.cert\", \"client.key\"]]\n"
    );
    text
}

#[derive(Default)]
struct Written(Vec<PathBuf>);

impl Written {
    fn key(&mut self, path: PathBuf, key: Option<&[u8]>) -> Result<(), PkiError> {
        if let Some(key) = key {
            files::write(&path, key, Access::Private)?;
            self.0.push(path);
        }
        Ok(())
    }

    fn public(&mut self, path: PathBuf, content: &[u8]) -> Result<(), PkiError> {
        files::write(&path, content, Access::Public)?;
        self.0.push(path);
        Ok(())
    }
}
