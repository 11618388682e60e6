//! Where the content of a registry lies.

use std::fmt;
use std::path::PathBuf;

use super::RedirectMode;

/// Redirects of a registry to the storage behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirects {
    /// What becomes of them.
    pub mode: RedirectMode,
    /// All that they may lead to; at least one if they are followed.
    pub hosts: Vec<StorageHost>,
    /// PEM bundle to verify the hosts with; none is the system's.
    pub ca: Option<PathBuf>,
}

/// A host that serves a registry's content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StorageHost {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Host name in lower case, or an address (IPv6 without brackets).
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl StorageHost {
    /// The port of a URL without one.
    #[must_use]
    pub const fn default_port(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }

    /// What a URL and a `Host` header name it by: without the port that goes without saying.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == Self::default_port(self.tls) { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for StorageHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}
