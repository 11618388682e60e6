//! Why a revocation list, or the source that should hold it, is refused.

use thiserror::Error;

use super::CrlNumber;
use crate::identity::DerFault;

/// Why a list was not taken. The last good one of its issuer stays in force.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CrlFault {
    /// The source can't be read; the text is the cause.
    #[error("it can't be read: {0}")]
    Unreadable(String),
    /// A source that was there before was not handed in any more.
    #[error("it is no longer there")]
    Missing,
    /// Nothing in it: what a half-written file looks like.
    #[error("it is empty (which is what a half-written file looks like)")]
    Empty,
    /// More bytes than a source may have.
    #[error("it has {0} bytes, more than is read")]
    TooLarge(usize),
    /// Neither DER nor PEM blocks of a list; the text says what is wrong.
    #[error("it is not a PEM or DER revocation list: {0}")]
    NotPem(&'static str),
    /// Not the structure of RFC 5280 §5.1.
    #[error("it is malformed: {0}")]
    Malformed(#[from] DerFault),
    /// A time that is none.
    #[error("it holds a malformed time")]
    MalformedTime,
    /// A CRL number that is negative or longer than 20 octets.
    #[error("its number is negative or longer than 20 octets")]
    MalformedNumber,
    /// A serial number that no certificate can have.
    #[error("entry {entry} has a serial number that is empty, padded, or longer than 20 octets")]
    MalformedSerial {
        /// Position of the entry, counted from 1.
        entry: usize,
    },
    /// An extension that stands twice.
    #[error("it holds extension {0} twice")]
    DuplicateExtension(String),
    /// Signed by an algorithm that no longer protects.
    #[error("it is signed with a weak or unknown algorithm ({0}); SHA-256 or better is needed")]
    WeakSignature(String),
    /// No nextUpdate, so nobody could tell when it runs out (RFC 5280 §5.1.2.5 demands one).
    #[error("it has no nextUpdate")]
    NoNextUpdate,
    /// A delta that doesn't say which list it changes, or not in which order.
    #[error("it is a delta without a number, or with one below that of the list it changes")]
    MalformedDelta,
    /// A scope of which two parts exclude each other, or that has room for nothing.
    #[error("its issuing distribution point contradicts itself")]
    ContradictoryScope,
    /// About attribute certificates, which nobody shows here.
    #[error("it is about attribute certificates only")]
    AttributeCertificates,
    /// An indirect list: its entries may be about certificates of other issuers.
    #[error("it is an indirect list, which may speak for other issuers; a list by the issuer itself is needed")]
    Indirect,
    /// removeFromCRL in a full list, where it has no meaning.
    #[error("entry {entry} is removeFromCRL, which only a delta may hold")]
    RemovedEntry {
        /// Position of the entry, counted from 1.
        entry: usize,
    },
    /// A critical extension that this gateway doesn't know, so the list may mean something else than it seems.
    #[error("it holds the critical extension {0}, which isn't supported")]
    UnknownCritical(String),
    /// Another issuer's list than this source should hold.
    #[error("it is a list of {found}, and this source should hold those of {expected}")]
    OtherIssuer {
        /// The subject of the list's issuer in one printable line.
        found: String,
        /// The issuer that the configuration names.
        expected: String,
    },
    /// Nobody in the trust bundles has the issuer's name.
    #[error("its issuer {0} is in no client_ca bundle")]
    UnknownIssuer(String),
    /// The issuer's certificate doesn't let it sign lists.
    #[error("its issuer {0} may not sign revocation lists (key usage lacks cRLSign)")]
    NotCrlSigner(String),
    /// The signature is not by any issuer of that name.
    #[error("its signature is not that of {issuer}: {cause}")]
    BadSignature {
        /// The issuer's subject in one printable line.
        issuer: String,
        /// What the verification said.
        cause: String,
    },
    /// thisUpdate lies in the future.
    #[error("it is not valid yet (thisUpdate is {0} s ahead)")]
    NotYetValid(i64),
    /// It has run out while the list in force has not.
    #[error("it ran out {0} s ago, and the list in force has not")]
    Expired(i64),
    /// Older than the list that this source gave before: a rollback would forget revocations.
    #[error("it is older (number {}) than the list in force (number {})", number(.found.as_ref()), number(.held.as_ref()))]
    Older {
        /// The number of the refused list.
        found: Option<CrlNumber>,
        /// The number of the list in force.
        held: Option<CrlNumber>,
    },
    /// Older than a list that was in force once but isn't at hand any more: what that one revoked may be missing in it.
    #[error(
        "it is older (number {}) than a list that was in force before (number {}): what it revokes counts, but it vouches \
         for nobody (a rollback; or the authority began its numbers anew, then the memory of the old ones must be removed)",
        number(.found.as_ref()), number(.seen.as_ref())
    )]
    RolledBack {
        /// The number of the list.
        found: Option<CrlNumber>,
        /// The number of the newest list that was in force.
        seen: Option<CrlNumber>,
    },
}

impl CrlFault {
    /// The kind of fault as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::Missing => "missing",
            Self::Empty => "empty",
            Self::TooLarge(_) => "too_large",
            Self::NotPem(_)
            | Self::Malformed(_)
            | Self::MalformedTime
            | Self::MalformedNumber
            | Self::MalformedSerial { .. }
            | Self::DuplicateExtension(_)
            | Self::NoNextUpdate
            | Self::MalformedDelta
            | Self::ContradictoryScope
            | Self::RemovedEntry { .. } => "malformed",
            Self::AttributeCertificates | Self::Indirect | Self::UnknownCritical(_) => "unsupported",
            Self::OtherIssuer { .. } | Self::UnknownIssuer(_) | Self::NotCrlSigner(_) => "unknown_issuer",
            Self::WeakSignature(_) | Self::BadSignature { .. } => "bad_signature",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::Expired(_) => "expired",
            Self::Older { .. } | Self::RolledBack { .. } => "older",
        }
    }
}

fn number(number: Option<&CrlNumber>) -> String {
    number.map_or_else(|| "none".to_owned(), CrlNumber::to_string)
}
