//! Clients: what they are called, and certificates that near their end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::HumanDuration;

/// Clients.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Clients {
    /// What clients are called in logs, refusals and limits and by the header of headers.identity: the first of these
    /// names that the certificate has exactly one of. spiffe, uri, dns, email and ip are alternative names, subject_cn is the
    /// common name, subject the whole subject, and the fingerprint, of the whole certificate, ends every order. Connections
    /// that are open keep the name they have.
    #[schemars(length(min = 1))]
    pub identity: Vec<ClientName>,

    /// Name a client whose certificate runs out within this time in the log, once a day, and at /revocation. 0s is never.
    pub expiry_warning: HumanDuration,
}

impl Default for Clients {
    fn default() -> Self {
        use ClientName::{Dns, Email, Fingerprint, Ip, Spiffe, Subject, SubjectCn, Uri};
        Self {
            identity: vec![Spiffe, SubjectCn, Uri, Dns, Email, Ip, Subject, Fingerprint],
            expiry_warning: HumanDuration::from_secs(14 * 24 * 3600),
        }
    }
}

/// A kind of name in a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientName {
    /// The SPIFFE ID.
    Spiffe,
    /// The common name, as CN=ci-7.
    SubjectCn,
    /// A URI that is no SPIFFE ID, as URI:urn:ci:7.
    Uri,
    /// A DNS name, as DNS:ci-7.example.com.
    Dns,
    /// An email address, as email:ci@example.com.
    Email,
    /// An IP address, as IP:10.0.0.7.
    Ip,
    /// The whole subject, as subject:CN=ci-7, O=Example.
    Subject,
    /// SHA-256 of the certificate, as sha256: and 64 hexadecimal digits.
    Fingerprint,
}
