//! The configuration: from a file to [`Settings`] that the rest of the program can rely on.
//!
//! ```text
//! file ── load: bounded read ── yaml: lines, duplicate and unknown keys, types ── model (serde)
//!      └─ resolve: defaults, references, ranges, absolute paths ── Settings
//! ```
//!
//! Every mistake of a file is reported at once, each with file, line, key and what to do. The types of the file
//! model stay in here; what leaves is valid.

mod fault;
mod groups;
mod load;
mod model;
pub mod policy;
mod reference;
mod resolve;
mod schema;
mod secret;
mod settings;
mod table;
mod units;
mod yaml;

pub use fault::{Diagnostic, Diagnostics, Fault, Severity};
pub use groups::{PolicyRead, read_policy};
pub use load::{FileError, MAX_YAML, list_directory, load, parse, read_bounded, read_yaml, read_yaml_with};
pub use reference::reference;
pub use schema::FileKind;
pub use secret::Secret;
pub use settings::{
    AccessLog, Admin, AdminAddress, AdminTls, AdminToken, AuditLog, Authorization, ChainCheck, ConnectionLimits,
    Credentials, CrlPlace, CrlSource, CrlUrl, Endpoint, FrameLimits, Freshness, Headers, HealthCheck, KeyPair, Limits,
    Listener, ListenerTls, Log, LogFormat, LogLevel, LogTarget, OnAuditFailure, OnFailure, RateLimits, RedirectMode,
    Redirects, Reload, RequestLimits, Revocation, ServerCertificate, Settings, SharedRedis, StorageHost, TlsVersion,
    UploadBinding, Upstream, UpstreamLimits, UpstreamTimeouts, UpstreamTls,
};
pub(crate) use table::FIXED;
pub use table::table;
pub use units::{ByteSize, HumanDuration};
pub use yaml::{Document, parse as parse_yaml};
