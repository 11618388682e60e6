//! The side of the registry.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::HumanDuration;

/// A registry behind the gateway.
///
/// A request goes to the upstream that lists its repository's prefix (the longest wins), else to the one that lists its
/// host, else to the listener's.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Names the upstream in this file, logs and metrics.
    #[schemars(example = &"registry")]
    pub name: String,

    /// Equivalent addresses of it, used in turn: `http://host:port`, `https://host[:port]` or `unix:///path`. All of one
    /// scheme.
    #[schemars(length(min = 1), extend("examples" = [["http://127.0.0.1:5000"]]))]
    pub urls: Vec<String>,

    /// The Host header to send; null keeps the client's, from which the registry makes the Location of an upload.
    #[serde(default)]
    #[schemars(example = &"registry.internal:5000")]
    pub host: Option<String>,

    /// For https only. The registry's certificate and name are always verified.
    #[serde(default)]
    pub tls: UpstreamTls,

    /// What becomes of the Authorization header that a client sends.
    #[serde(default)]
    pub authorization: Authorization,

    /// The gateway's own account at the registry; needed by "authorization: replace" and allowed only there.
    #[serde(default)]
    pub credentials: Option<Credentials>,

    /// Whether blobs and manifests are hashed on their way to the client, and cut off before their end if they are not what
    /// their digest names. Costs about 0.6s of a core for each GiB. Parts of blobs (ranges) can't be checked.
    #[serde(default)]
    pub verify_digests: bool,

    /// What becomes of a redirect by which the registry sends its clients to the storage behind it.
    #[serde(default)]
    pub redirects: RedirectMode,

    /// The hosts that it may redirect to, each with its scheme, and with its port if that isn't 443 or 80. A redirect to
    /// any other host is refused.
    #[serde(default)]
    #[schemars(extend("examples" = [["https://bucket.s3.example.com"]]))]
    pub redirect_hosts: Vec<String>,

    /// PEM bundle to verify redirect_hosts with when redirects are followed; null is the system's.
    #[serde(default)]
    #[schemars(example = &"storage-ca.pem")]
    pub redirect_ca: Option<PathBuf>,

    /// Host names whose requests come here.
    #[serde(default)]
    #[schemars(extend("examples" = [["registry.example.com"]]))]
    pub hosts: Vec<String>,

    /// Repository prefixes, of whole segments, whose requests come here: team-a matches team-a and team-a/app, not
    /// team-ab.
    #[serde(default)]
    #[schemars(extend("examples" = [["team-a", "mirror/docker"]]))]
    pub repositories: Vec<String>,

    /// Deadlines toward the registry.
    #[serde(default)]
    pub timeouts: UpstreamTimeouts,

    /// How much the registry is asked at a time. What is beyond gets 503 at once.
    #[serde(default)]
    pub limits: UpstreamLimits,

    /// Asks each address whether it lives, and leaves out those that don't.
    #[serde(default)]
    pub health_check: HealthCheck,
}

/// TLS toward the registry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// PEM bundle to verify the registry's certificate with; null is the system's.
    #[schemars(example = &"registry-ca.pem")]
    pub ca: Option<PathBuf>,

    /// PEM file with the gateway's own client certificate; needs key.
    #[schemars(example = &"gateway.crt")]
    pub certificate: Option<PathBuf>,

    /// PEM file with its private key.
    #[schemars(example = &"gateway.key")]
    pub key: Option<PathBuf>,

    /// The name to ask for and verify; null is the host of the URL, and needed when that is an IP address.
    #[schemars(example = &"registry.internal")]
    pub server_name: Option<String>,
}

/// What becomes of the Authorization header that a client sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Authorization {
    /// It is passed on.
    Pass,
    /// It is removed.
    #[default]
    Drop,
    /// It is removed, and the gateway's own credentials are sent.
    Replace,
}

/// What becomes of a redirect to the registry's storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedirectMode {
    /// The client is sent there, and must be able to reach it.
    #[default]
    Pass,
    /// The gateway fetches what is there.
    Follow,
}

/// The gateway's account at a registry (HTTP Basic).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The user's name.
    #[schemars(example = &"gateway")]
    pub username: String,

    /// A file that holds the password and nothing else; a line ending after it is left out.
    #[schemars(example = &"registry-password")]
    pub password_file: PathBuf,
}

/// Deadlines toward the registry.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTimeouts {
    /// For a connection, TLS included.
    pub connect: HumanDuration,

    /// From the end of a request to the first byte of its response, and longest silence within the response. A registry
    /// may take long to commit a large layer. After an upload it is at least 2s longer than `limits.body_idle_timeout`, so
    /// that a client that pauses is not taken for a silent registry.
    pub first_byte: HumanDuration,

    /// Without a byte of a body in either direction; within a response `first_byte` ends it earlier if it is shorter.
    pub idle: HumanDuration,

    /// How long an unused connection is kept; stay below the registry's own limit.
    pub pool_idle: HumanDuration,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: HumanDuration::from_secs(5),
            first_byte: HumanDuration::from_secs(60),
            idle: HumanDuration::from_secs(300),
            pool_idle: HumanDuration::from_secs(30),
        }
    }
}

/// How much the registry is asked at a time.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamLimits {
    /// Requests in progress.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,

    /// Requests that wait for one of them to end.
    #[schemars(range(max = 1_000_000))]
    pub max_pending: u32,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self { max_connections: 1024, max_pending: 256 }
    }
}

/// An active check of each address.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheck {
    /// Whether it runs.
    pub enabled: bool,

    /// What is asked for. Any answer below 500 is a sign of life.
    pub path: String,

    /// How often.
    pub interval: HumanDuration,

    /// How long an answer may take; no longer than the interval.
    pub timeout: HumanDuration,

    /// Failures in a row that take an address out.
    #[schemars(range(min = 1, max = 1000))]
    pub unhealthy_after: u32,

    /// Successes in a row that bring it back.
    #[schemars(range(min = 1, max = 1000))]
    pub healthy_after: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            enabled: true,
            path: "/v2/".to_owned(),
            interval: HumanDuration::from_secs(5),
            timeout: HumanDuration::from_secs(2),
            unhealthy_after: 3,
            healthy_after: 1,
        }
    }
}
