//! The settings in force: resolved, valid, with absolute paths and every default filled in.
//!
//! Only [`load`](super::load::load) makes them. What the keys mean stands with the file model, which
//! `conf/portcullis.yaml` prints; here stands what the rest of the program may rely on.

mod admin;
mod limits;
mod redirects;
mod revocation;
mod shared;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use crate::identity::NameOrder;

pub use super::model::{
    ChainCheck, Freshness, LogFormat, LogLevel, OnAuditFailure, OnFailure, RedirectMode, TlsVersion,
};
use super::secret::Secret;
pub use admin::{Admin, AdminAddress, AdminTls, AdminToken};
pub use limits::{ConnectionLimits, FrameLimits, Limits, RateLimits, RequestLimits};
pub use redirects::{Redirects, StorageHost};
pub use revocation::{CrlPlace, CrlSource, CrlUrl, Revocation};
pub use shared::SharedRedis;

/// Everything the configuration file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// At least one; names are unique.
    pub listeners: Vec<Listener>,
    /// At least one; names, hosts and repository prefixes are unique.
    pub upstreams: Vec<Upstream>,
    /// The policy file.
    pub policy: PathBuf,
    /// The policy that is evaluated beside it.
    pub shadow_policy: Option<PathBuf>,
    /// What clients are told who would write something, while nothing may be written.
    pub read_only: Option<String>,
    /// Revocation lists and how they are judged.
    pub revocation: Revocation,
    /// What clients are called by.
    pub client_names: NameOrder,
    /// How long before its end a client's certificate is spoken of; zero is never.
    pub client_expiry_warning: Duration,
    /// How uploads that are under way are tied to their clients.
    pub uploads: UploadBinding,
    /// Bounds on what a client may take.
    pub limits: Limits,
    /// The Redis in which replicas count together; none is each for itself.
    pub shared_limits: Option<SharedRedis>,
    /// Headers made for the upstream.
    pub headers: Headers,
    /// When changed files are read again.
    pub reload: Reload,
    /// The listener for probes and metrics; none is off.
    pub health: Option<SocketAddr>,
    /// The listener for administration; none is off.
    pub admin: Option<Admin>,
    /// Where access records go; none is off.
    pub access_log: Option<AccessLog>,
    /// Where the audit log is; none is off.
    pub audit_log: Option<AuditLog>,
    /// The program's own log.
    pub log: Log,
    /// Serving threads, at least one.
    pub threads: usize,
    /// How long running requests may go on after the order to stop.
    pub drain_grace: Duration,
    /// A directory for what must outlive a restart.
    pub state_directory: Option<PathBuf>,
    /// The configuration file itself.
    pub file: PathBuf,
    /// See [`Settings::effective`].
    pub(super) effective: serde_json::Value,
}

impl Settings {
    /// The configuration with every default filled in, under the keys of the file. It holds no secret: those live in
    /// files of their own, which it only names.
    #[must_use]
    pub fn effective(&self) -> &serde_json::Value {
        &self.effective
    }

    /// Every file and directory that the settings name and whose change calls for a reload, the configuration file
    /// first. A path may stand here twice.
    #[must_use]
    pub fn inputs(&self) -> Vec<&Path> {
        let mut paths: Vec<&Path> = vec![&self.file, &self.policy];
        paths.extend(self.shadow_policy.as_deref());
        for listener in &self.listeners {
            paths.push(&listener.tls.client_ca);
            let pairs = listener.tls.certificates.iter().map(|own| &own.pair);
            paths.extend(pairs.flat_map(KeyPair::paths));
        }
        for upstream in &self.upstreams {
            if let Some(tls) = &upstream.tls {
                paths.extend(tls.ca.as_deref());
                paths.extend(tls.client.iter().flat_map(KeyPair::paths));
            }
            paths.extend(upstream.redirects.ca.as_deref());
            if let Authorization::Replace(credentials) = &upstream.authorization {
                paths.push(&credentials.password_file);
            }
        }
        paths.extend(self.revocation.sources.iter().filter_map(CrlSource::path));
        if let UploadBinding::SharedKey { file, .. } = &self.uploads {
            paths.push(file);
        }
        paths.extend(self.shared_limits.iter().filter_map(|redis| redis.password_file.as_deref()));
        paths.extend(self.admin.iter().flat_map(Admin::inputs));
        paths
    }
}

/// Where clients connect, and what they are shown and asked for there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique; for logs and access records.
    pub name: String,
    /// At least one; none is listed twice in the whole configuration, port 0 aside.
    pub addresses: Vec<SocketAddr>,
    /// The name of the upstream that serves what neither host nor repository sends elsewhere. It exists.
    pub upstream: String,
    /// The networks of load balancers whose connections begin with a header of the PROXY protocol; empty if there are
    /// none.
    pub proxy_sources: Vec<IpNet>,
    /// The TLS side.
    pub tls: ListenerTls,
}

/// The TLS side of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one; the first serves clients without SNI or with an unknown one.
    pub certificates: Vec<ServerCertificate>,
    /// PEM bundle with the roots and intermediates that clients are verified against.
    pub client_ca: PathBuf,
    /// The oldest version accepted.
    pub min_version: TlsVersion,
    /// An OpenSSL cipher list for TLS 1.2; none is the default list.
    pub ciphers: Option<String>,
    /// Intermediates a client's path may have at most.
    pub verify_depth: u32,
    /// Bytes of certificates a client may send at most.
    pub max_client_chain: usize,
    /// Whether a client certificate without an extended key usage is refused.
    pub require_eku: bool,
    /// Whether X.509 v1 client certificates are accepted.
    pub allow_v1: bool,
    /// Whether tickets are issued.
    pub session_tickets: bool,
    /// How long a ticket key encrypts new tickets.
    pub ticket_key_lifetime: Duration,
}

/// A server certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCertificate {
    /// The PEM files.
    pub pair: KeyPair,
    /// SNI names in lower case, a leading `*.` stands for one label; empty means the certificate's own DNS names.
    pub names: Vec<String>,
}

/// A certificate chain and its private key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The leaf first, then intermediates.
    pub certificate: PathBuf,
    /// The private key of the leaf.
    pub key: PathBuf,
}

impl KeyPair {
    fn paths(&self) -> [&Path; 2] {
        [&self.certificate, &self.key]
    }
}

/// One registry, at one address or several that are equivalent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Unique.
    pub name: String,
    /// At least one, used in turn.
    pub endpoints: Vec<Endpoint>,
    /// The `Host` to send; none keeps the client's.
    pub host: Option<String>,
    /// Set if and only if the endpoints are spoken to over TLS.
    pub tls: Option<UpstreamTls>,
    /// What becomes of the client's `Authorization`.
    pub authorization: Authorization,
    /// Whether content is checked against its digest.
    pub verify_digests: bool,
    /// Where it may redirect to.
    pub redirects: Redirects,
    /// Host names in lower case, without port, whose requests come here.
    pub hosts: Vec<String>,
    /// Repository prefixes of whole segments whose requests come here, without trailing slash.
    pub repositories: Vec<String>,
    /// Deadlines.
    pub timeouts: UpstreamTimeouts,
    /// Circuit breaking.
    pub limits: UpstreamLimits,
    /// Active checks; none is off.
    pub health_check: Option<HealthCheck>,
}

/// Where a registry listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A host name or address (IPv6 without brackets) and a port.
    Tcp {
        /// Host name in lower case, or an address.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a registry is spoken to over TLS. Its certificate's name is always checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM bundle to verify with; none is the system's.
    pub ca: Option<PathBuf>,
    /// The gateway's own client certificate.
    pub client: Option<KeyPair>,
    /// The name for SNI and the check; none is the endpoint's host, which then is a name and no address.
    pub server_name: Option<String>,
}

/// What becomes of the client's `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// It is passed on.
    Pass,
    /// It is removed.
    Drop,
    /// It is removed and the gateway's own credentials are sent.
    Replace(Credentials),
}

/// The gateway's account at a registry (HTTP Basic).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Without a colon, which Basic can't carry.
    pub username: String,
    /// The content of the password file, without its last line ending.
    pub password: Secret<String>,
    /// Where the password was read.
    pub password_file: PathBuf,
}

/// Deadlines toward a registry; none is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// For the connection, TLS included.
    pub connect: Duration,
    /// From the end of the request to the head of the response.
    pub first_byte: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// How long an unused connection is kept.
    pub pool_idle: Duration,
}

/// Bounds on what one registry is asked at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Requests in flight, at least one.
    pub max_connections: usize,
    /// Requests that wait for one of them to end.
    pub max_pending: usize,
}

/// An active check of each endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Origin-form path; starts with `/`.
    pub path: String,
    /// Between two checks of an endpoint.
    pub interval: Duration,
    /// For one check; no longer than the interval.
    pub timeout: Duration,
    /// Failures in a row that take an endpoint out.
    pub unhealthy_after: u32,
    /// Successes in a row that bring it back.
    pub healthy_after: u32,
}

/// How uploads that are under way are tied to their clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadBinding {
    /// Not at all.
    Off,
    /// By a key that is made at the start and kept.
    OwnKey,
    /// By a key that replicas share.
    SharedKey {
        /// At least 32 octets.
        key: Secret<Vec<u8>>,
        /// Where it was read.
        file: PathBuf,
    },
}

/// Headers made for the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// `Client-Cert` and `Client-Cert-Chain` (RFC 9440).
    pub client_cert: bool,
    /// The name under which the registry is told what the client is called.
    pub identity: Option<HeaderName>,
}

/// When changed files are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Whether files are watched; SIGHUP and the admin listener work either way.
    pub watch: bool,
    /// Without a further change before files are read.
    pub quiet: Duration,
    /// At most this long after the first change; no shorter than `quiet`.
    pub max_delay: Duration,
}

/// Where access records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Stdout or a file.
    pub target: LogTarget,
    /// Records that may wait to be written, at least one; more are dropped and counted.
    pub queue: usize,
}

/// A record of what was changed, refused and ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLog {
    /// The file, appended to.
    pub path: PathBuf,
    /// What becomes of requests while it can't be written.
    pub on_failure: OnAuditFailure,
    /// Whether a record counts as written only when the disk has it.
    pub sync: bool,
    /// Refusals of one client that get a record each within a minute; 0 is no bound.
    pub refusals_per_minute: u32,
    /// Records that may wait to be written, at least one.
    pub queue: usize,
}

/// A place for lines of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// The program's own log, on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important level written.
    pub level: LogLevel,
    /// Lines for people or for programs.
    pub format: LogFormat,
}
