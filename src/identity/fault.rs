//! Why a verified path is no identity.

use thiserror::Error;

/// Why a certificate path that the TLS library verified is refused all the same.
///
/// The text is for the operator and says what to do where that isn't plain; the client learns the TLS alert only.
/// `subject` is the certificate's subject in one printable line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CertificateFault {
    /// Not a certificate of RFC 5280's structure, or beyond a bound.
    #[error("malformed certificate: {0}")]
    Malformed(String),
    /// RFC 5280 §4.2: at most one extension of a kind. Two readers could pick different ones.
    #[error("certificate of {subject} holds extension {oid} twice")]
    DuplicateExtension {
        /// The certificate's subject.
        subject: String,
        /// The extension, in dotted form.
        oid: String,
    },
    /// A version 1 certificate, which can't say what it may be used for.
    #[error(
        "certificate of {subject} is X.509 version 1 (openssl x509 -req makes these without -extfile; \
         issue it with extensions, or set allow_v1)"
    )]
    Version1 {
        /// The certificate's subject.
        subject: String,
    },
    /// Key usage or extended key usage don't allow TLS client authentication.
    #[error("certificate of {subject} is not for TLS clients: {usage}")]
    WrongUsage {
        /// The certificate's subject.
        subject: String,
        /// What is missing.
        usage: &'static str,
    },
    /// An authority's certificate used as a client's.
    #[error("certificate of {subject} is a CA's and can't identify a client")]
    CaAsLeaf {
        /// The certificate's subject.
        subject: String,
    },
    /// The leaf is itself a trust anchor, so nobody vouches for it and nobody could revoke it.
    #[error("certificate of {subject} is a trust anchor itself; client_ca should hold the authority that issued it")]
    AnchorAsLeaf {
        /// The certificate's subject.
        subject: String,
    },
    /// Signed by an algorithm that no longer protects (MD5, SHA-1, …) or that isn't known.
    #[error("certificate of {subject} is signed with {algorithm}; SHA-256 or better is needed")]
    WeakSignature {
        /// The certificate's subject.
        subject: String,
        /// The algorithm's name or its object identifier.
        algorithm: String,
    },
    /// A key that is too short, or on a curve other than P-256, P-384, P-521, Ed25519 and Ed448.
    #[error("certificate of {subject} has a weak key: {key}")]
    WeakKey {
        /// The certificate's subject.
        subject: String,
        /// The key in words, such as `RSA of 1024 bits`.
        key: String,
    },
    /// Neither subject nor SAN holds a name that could identify the client: there is none, none is readable, or all
    /// contradict each other, as two common names do.
    #[error("certificate with serial {serial} holds no usable name (several common names, for instance, are none)")]
    NoUsableName {
        /// The certificate's serial number.
        serial: super::Serial,
    },
}

impl CertificateFault {
    /// The kind of fault as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::DuplicateExtension { .. } => "duplicate_extension",
            Self::Version1 { .. } => "version_1",
            Self::WrongUsage { .. } => "wrong_usage",
            Self::CaAsLeaf { .. } => "ca_as_leaf",
            Self::AnchorAsLeaf { .. } => "anchor_as_leaf",
            Self::WeakSignature { .. } => "weak_signature",
            Self::WeakKey { .. } => "weak_key",
            Self::NoUsableName { .. } => "no_usable_name",
        }
    }
}
