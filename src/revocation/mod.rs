//! Who is revoked: certificate revocation lists (RFC 5280 §5), accepted once and asked often.
//!
//! [`Sources`] belongs to the control plane. It takes in the bytes of every source, checks issuer, signature, dates and
//! extensions, and keeps the last good list of each source, issuer and scope, so that a broken file neither forgets a
//! revocation nor blocks another issuer's. What is in force becomes an [`Index`]: immutable, compact, cheap to share.
//! The serving threads only ever call [`Index::check`].
//!
//! Two questions are kept apart. *Revoked* is who stands in any list in force of the issuer, whatever the list is about
//! and however old it is. *Covered* is who stands in none, while fresh lists whose [`Scope`]s hold the certificate would
//! name it for any reason.
//!
//! Signatures are verified by a function that the caller hands in; this module knows neither a TLS library nor files
//! nor a clock.

mod crl;
mod fault;
mod index;
mod issuer;
mod pem;
mod scope;
mod serials;
mod sources;
mod stack;
mod summary;
mod time;
mod values;

use std::time::Duration;

use thiserror::Error;

pub use self::crl::SignedData;
pub use self::fault::CrlFault;
pub use self::index::Index;
pub use self::issuer::Issuer;
pub use self::scope::{Scope, ScopeId};
pub use self::sources::{ListReport, MAX_SOURCE, Seen, SourceInput, SourceReport, Sources, Standing};
pub use self::summary::{CrlSummary, EntrySummary};
pub use self::values::{CrlNumber, Listed, Reason};
use crate::identity::Serial;

/// Verifies the signature of signed data with a key (DER of a `SubjectPublicKeyInfo`); the error is for the operator.
pub type Verify<'v> = dyn Fn(&SignedData<'_>, &[u8]) -> Result<(), String> + 'v;

/// How revocation is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What happens to clients of an issuer without a valid list.
    pub freshness: Freshness,
    /// Which certificates of a path are asked about.
    pub check: Check,
    /// How long a list still counts after its nextUpdate.
    pub grace: Duration,
    /// How far this machine's clock may be off.
    pub clock_skew: Duration,
}

/// What happens to clients of an issuer without a valid list. Revoked is revoked in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// They are refused.
    Required,
    /// They are let in.
    Optional,
}

/// Which certificates of a path are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The leaf and every intermediate. The anchor isn't: only removing it from the bundle revokes it.
    Chain,
    /// The leaf alone.
    Leaf,
}

/// Why a verified path is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A certificate of the path is on its issuer's list.
    #[error("certificate of {subject} with serial {serial} is revoked ({reason})")]
    Revoked {
        /// The certificate's subject in one printable line.
        subject: String,
        /// The certificate's serial number.
        serial: Serial,
        /// Why its issuer revoked it.
        reason: Reason,
    },
    /// The issuer's list has run out.
    #[error("revocation list of {issuer} has run out")]
    Stale {
        /// The issuer's subject in one printable line.
        issuer: String,
    },
    /// The issuer's lists are about other certificates, or not about every reason to revoke one.
    #[error("no revocation list of {issuer} covers the certificate of {subject} (issuing distribution point)")]
    Uncovered {
        /// The issuer's subject in one printable line.
        issuer: String,
        /// The certificate's subject in one printable line.
        subject: String,
    },
    /// The issuer's list is older than one that was in force before.
    #[error("revocation list of {issuer} is older than one that was in force before")]
    RolledBack {
        /// The issuer's subject in one printable line.
        issuer: String,
    },
    /// No list of the issuer was ever accepted.
    #[error("there is no revocation list of {issuer}")]
    NoList {
        /// The issuer's subject in one printable line.
        issuer: String,
    },
    /// The identity comes without a path, so nothing vouches for it.
    #[error("the identity has no verified certificate path")]
    NoPath,
}

impl Refusal {
    /// The kind of refusal as a metric label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Revoked { .. } => "revoked",
            Self::Stale { .. } => "stale",
            Self::Uncovered { .. } => "uncovered",
            Self::RolledBack { .. } => "rolled_back",
            Self::NoList { .. } => "no_list",
            Self::NoPath => "no_path",
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
