//! The listener for administration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::KeyPair;
use crate::config::secret::Secret;

/// The admin listener, and what it demands. What other machines can reach demands TLS, and a token or a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it is.
    pub address: AdminAddress,
    /// What each request must carry; none is nothing.
    pub token: Option<AdminToken>,
    /// None is plain HTTP.
    pub tls: Option<AdminTls>,
}

/// Where the admin listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// An address; other machines may reach it.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// A token for administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// At least 32 characters of visible ASCII.
    pub secret: Secret<String>,
    /// The file it is in.
    pub file: PathBuf,
}

/// What the admin listener shows and asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    /// Its own certificate.
    pub pair: KeyPair,
    /// Who may vouch for administrators; none asks for no certificate.
    pub client_ca: Option<PathBuf>,
    /// What administrators may be called; empty is anything.
    pub client_names: Vec<String>,
}

impl AdminAddress {
    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            // ::ffff:127.0.0.1 is loopback, too.
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl Admin {
    /// The files whose change calls for a reload.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &Path> {
        let tls = self.tls.iter().flat_map(|tls| tls.pair.paths().into_iter().chain(tls.client_ca.as_deref()));
        self.token.iter().map(|token| token.file.as_path()).chain(tls)
    }
}
