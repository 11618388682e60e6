//! What went in, and how it stands, for people and metrics.

use super::super::stack::List;
use super::super::{CrlFault, CrlNumber, Scope};
use crate::identity::IssuerId;

/// What was read from one source.
#[derive(Debug)]
pub struct SourceInput {
    /// What the source is called in messages and reports: its path.
    pub key: String,
    /// Its bytes (one DER list, or PEM blocks), or why there are none.
    pub bytes: Result<Vec<u8>, String>,
    /// The subject of the issuer whose lists it should hold, as `pki show` prints it, such as `CN=Example CA, O=Example`.
    /// Case and spaces don't count. A list of another issuer is a fault then.
    pub issuer: Option<String>,
}

/// How one source stands after an update.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceReport {
    /// The source's key.
    pub key: String,
    /// Its lists, one for each issuer and scope, and their deltas: the last good ones, whatever the last reading gave.
    pub lists: Vec<ListReport>,
    /// When it was last read without fault, in unix seconds.
    pub last_success: Option<i64>,
    /// What was wrong this time.
    pub faults: Vec<CrlFault>,
}

/// An accepted list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListReport {
    /// Name and key of the issuer.
    pub issuer: IssuerId,
    /// The issuer's subject in one printable line.
    pub issuer_name: String,
    /// What it is about.
    pub scope: Scope,
    /// The CRL number.
    pub number: Option<CrlNumber>,
    /// Of a delta: the lowest number of a list that it changes (BaseCRLNumber). `None` for a full list.
    pub delta_of: Option<CrlNumber>,
    /// Start of validity, in unix seconds.
    pub this_update: i64,
    /// When the next list is due, in unix seconds.
    pub next_update: i64,
    /// How many serial numbers it lists. A delta lists those, too, that are no longer revoked.
    pub entries: usize,
    /// Whether it counts.
    pub standing: Standing,
}

/// Whether an accepted list counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    InForce,
    /// What it revokes does, but it is older than one that was in force before, so it vouches for nobody.
    RolledBack,
    /// A newer one goes before it.
    Superseded,
    /// A delta whose base isn't there yet.
    Waiting,
}

impl Standing {
    /// In words, for people and as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
            Self::Waiting => "waiting",
        }
    }
}

impl ListReport {
    pub(super) fn new(list: &List, standing: Standing) -> Self {
        Self {
            issuer: list.series.issuer,
            issuer_name: list.issuer_name.clone(),
            scope: list.scope.clone(),
            number: list.age.number,
            delta_of: list.base,
            this_update: list.age.this_update,
            next_update: list.next_update,
            entries: list.serials.len(),
            standing,
        }
    }
}
