//! Revocation lists, and client certificates that near their end.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{ByteSize, HumanDuration};

/// Certificate revocation lists.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Revocation {
    /// Where lists are read. Without any, revocation isn't checked.
    pub crls: Vec<CrlSource>,

    /// What becomes of the clients of an issuer that has no valid list.
    pub freshness: Freshness,

    /// Which certificates of a client's path are asked about. The anchor never is.
    pub check: ChainCheck,

    /// How long a list goes on being valid after its nextUpdate.
    pub grace: HumanDuration,

    /// How far a list's thisUpdate may lie in the future, for clocks that differ.
    pub clock_skew: HumanDuration,

    /// Warn of a list that runs out within this time, or within the last quarter of its life if that is shorter. 0s is
    /// never.
    pub expiry_warning: HumanDuration,
}

impl Default for Revocation {
    fn default() -> Self {
        Self {
            crls: Vec::new(),
            freshness: Freshness::Required,
            check: ChainCheck::Chain,
            grace: HumanDuration::from_secs(0),
            clock_skew: HumanDuration::from_secs(60),
            expiry_warning: HumanDuration::from_secs(24 * 3600),
        }
    }
}

/// A place with revocation lists: a file, a directory or a URL.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "x-alternatives" = ["file", "directory", "url"]))]
pub struct CrlSource {
    /// A file, PEM (several lists may follow each other) or DER.
    #[schemars(example = &"ca.crl")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,

    /// A directory; each file in it is a source of its own.
    #[schemars(example = &"crls/")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,

    /// An http or https URL, whose content is as that of a file. Redirects are not followed. Lists are signed, so plain
    /// http does; the URL shows in logs and metrics.
    #[schemars(example = &"http://pki.example.com/ca.crl")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// For a URL: how often it is asked; 5m by default. It is asked earlier when its list is about to run out or an
    /// attempt has failed.
    #[schemars(example = &"5m")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<HumanDuration>,

    /// For a URL: how long one attempt may take, from the look-up of the name to the last byte; 30s by default.
    #[schemars(example = &"30s")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,

    /// For a URL: bytes that are read at most; 64MiB by default. A list of a million entries has about 40MB.
    #[schemars(example = &"64MiB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<ByteSize>,

    /// For an https URL: PEM bundle to verify the server's certificate with; the system's by default.
    #[schemars(example = &"pki-ca.pem")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,

    /// For any source: the subject of the only CA whose lists are taken from it, as /revocation and "portcullis pki show"
    /// print it.
    #[schemars(example = &"CN=Example CA")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

/// What becomes of the clients of an issuer that has no valid list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Freshness {
    /// They are refused.
    Required,
    /// They are accepted, and a metric tells.
    Optional,
}

/// Which certificates of a client's path are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChainCheck {
    /// The client's certificate and every intermediate.
    Chain,
    /// Only the client's certificate.
    Leaf,
}
