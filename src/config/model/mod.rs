//! The file as its author writes it.
//!
//! The doc comments of these fields are the reference: they become the JSON Schema's descriptions and the comments of
//! `conf/portcullis.yaml`. What is optional has its safe default here. Nothing outside `config` sees these types;
//! the [`Settings`](super::Settings) made from them are valid.

mod admin;
mod audit;
mod clients;
mod limits;
mod listener;
mod read_only;
mod revocation;
mod shared;
mod uploads;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::HumanDuration;

pub use admin::{Admin, AdminTls};
pub use audit::{AuditLog, OnAuditFailure};
pub use clients::{ClientName, Clients};
pub use limits::{H2Frames, Limits};
pub use listener::{Listener, ListenerTls, ProxyProtocol, ServerCertificate, TlsVersion};
pub use read_only::ReadOnly;
pub use revocation::{ChainCheck, CrlSource, Freshness, Revocation};
pub use shared::{OnFailure, Redis, SharedLimits};
pub use uploads::Uploads;
pub use upstream::{Authorization, Credentials, HealthCheck, RedirectMode, Upstream, UpstreamTimeouts, UpstreamTls};

/// The configuration of portcullis. Sizes are written 64KiB, 4MiB, 1GiB; times 500ms, 30s, 5m, 12h; relative paths start
/// at the directory of this file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients connect. At least one.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Listener>,

    /// The registries behind the gateway. At least one.
    #[schemars(length(min = 1))]
    pub upstreams: Vec<Upstream>,

    /// The policy file: who may do what to which repository. What no rule allows is refused.
    #[schemars(example = &"policy.yaml")]
    pub policy: PathBuf,

    /// A policy that is evaluated beside the one in force and enforces nothing. How it would have decided stands in the
    /// access records, and differences are counted: a changed policy shows what it would do before it is taken into use. A
    /// mistake in it is reported and holds up nothing else; the last good one is evaluated on.
    #[serde(default)]
    #[schemars(example = &"policy-next.yaml")]
    pub shadow_policy: Option<PathBuf>,
    /// Times in which nothing may be written.
    #[serde(default)]
    pub read_only: ReadOnly,

    /// Certificate revocation lists.
    #[serde(default)]
    pub revocation: Revocation,

    /// Clients: what they are called, and their certificates as far as they are watched.
    #[serde(default)]
    pub clients: Clients,

    /// Uploads that are under way.
    #[serde(default)]
    pub uploads: Uploads,

    /// Bounds on what one client, or all of them together, may take.
    #[serde(default)]
    pub limits: Limits,

    /// Where replicas count together what the policy's limits bound, and hold the locks of tags that are being pushed.
    #[serde(default)]
    pub shared_limits: SharedLimits,

    /// Headers the gateway makes for the registry. Whatever a client sends under these names is removed first.
    #[serde(default)]
    pub headers: Headers,

    /// When changed files are read again. A file with a mistake leaves everything as it was.
    #[serde(default)]
    pub reload: Reload,

    /// Probes and metrics: /livez, /readyz, /metrics over plain HTTP, without any identity in them. /readyz waits for the first
    /// lists of revocation.crls.
    #[serde(default)]
    pub health: Health,

    /// Administration: /config, /explain, /-/reload and more over plain HTTP, for people and scripts on this machine.
    #[serde(default)]
    pub admin: Admin,

    /// One JSON record per request, also of those that were refused or cut off.
    #[serde(default)]
    pub access_log: AccessLog,

    /// What clients change, what they are refused, and what is done to the gateway, in a file of its own, chained so that
    /// a gap shows (`portcullis audit verify`).
    #[serde(default)]
    pub audit_log: AuditLog,

    /// The program's own log, on standard error.
    #[serde(default)]
    pub log: Log,

    /// Serving threads; 0 is one per core. Changes need an upgrade or a restart.
    #[serde(default)]
    #[schemars(range(max = 1024))]
    pub threads: u32,

    /// Stopping.
    #[serde(default)]
    pub drain: Drain,

    /// A directory for what must outlive a restart: the last good revocation lists, and the highest CRL numbers seen. It
    /// is made if it is missing (mode 0700), and belongs to one gateway. Null keeps nothing: after a restart, lists behind
    /// URLs must be fetched before their clients are let in. Changes need a restart.
    #[serde(default)]
    #[schemars(example = &"/var/lib/portcullis")]
    pub state_directory: Option<PathBuf>,
}

/// Headers the gateway makes for the registry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Send the verified certificate as Client-Cert and its chain as Client-Cert-Chain (RFC 9440).
    pub client_cert: bool,

    /// Send what the client is called (see clients.identity) under this name. What is not a letter, a digit, a space or
    /// one of -._~:/@=+!$&'()* is percent-encoded. Null sends nothing.
    #[schemars(example = &"X-Client-Identity")]
    pub identity: Option<String>,
}

/// When changed files are read again.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reload {
    /// Watch every file named here. SIGHUP and POST /-/reload work in any case.
    pub watch: bool,

    /// Read them when nothing has changed for this long, so that a set of files is read whole.
    pub quiet: HumanDuration,

    /// Read them at most this long after the first change.
    pub max_delay: HumanDuration,
}

impl Default for Reload {
    fn default() -> Self {
        Self { watch: true, quiet: HumanDuration::from_millis(10), max_delay: HumanDuration::from_millis(200) }
    }
}

/// Probes and metrics.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// IP address and port; null is off. Changes need an upgrade or a restart.
    pub address: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self { address: Some(SocketAddr::from(([0, 0, 0, 0], 9090)).to_string()) }
    }
}

/// One JSON record per request.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLog {
    /// A file, "-" for standard output, or null for none.
    pub path: Option<PathBuf>,

    /// Records that may wait to be written. More are dropped and counted: a slow disk never holds up a request.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue: u32,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { path: Some("-".into()), queue: 8192 }
    }
}

/// The program's own log.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The least important level that is written.
    pub level: LogLevel,

    /// How lines look.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

/// The least important level that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs somebody's attention.
    Error,
    /// What may need it later.
    Warn,
    /// Starts, stops and reloads.
    Info,
    /// Refused handshakes and requests one by one.
    Debug,
    /// Everything.
    Trace,
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Stopping.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// How long running requests may go on after SIGTERM. The program leaves as soon as the last has ended.
    pub grace: HumanDuration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { grace: HumanDuration::from_secs(60) }
    }
}
