//! What a list says, for people: read as the index reads it, but neither verified nor taken.

use super::crl::Crl;
use super::{CrlFault, CrlNumber, Listed, Scope};
use crate::identity::{Serial, display_name};

/// A list whose structure and extensions are in order.
#[derive(Debug)]
pub struct CrlSummary<'a> {
    crl: Crl<'a>,
    /// How many entries it holds.
    pub entries: usize,
}

/// An entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntrySummary {
    /// The serial number.
    pub serial: Serial,
    /// What is said of it.
    pub listed: Listed,
    /// Since when, in unix seconds.
    pub since: i64,
}

impl<'a> CrlSummary<'a> {
    /// Reads a list (DER) with all its entries.
    ///
    /// # Errors
    ///
    /// Why revocation would refuse it, whoever signed it.
    pub fn read(der: &'a [u8]) -> Result<Self, CrlFault> {
        let crl = Crl::parse(der)?;
        let mut entries = 0;
        for entry in crl.entries() {
            entry?;
            entries += 1;
        }
        Ok(Self { crl, entries })
    }

    /// The issuer's name in one printable line.
    #[must_use]
    pub fn issuer(&self) -> String {
        display_name(self.crl.issuer_der)
    }

    /// What it is about.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.crl.scope
    }

    /// The CRL number.
    #[must_use]
    pub fn number(&self) -> Option<CrlNumber> {
        self.crl.number
    }

    /// Of a delta: the lowest number of a list that it changes.
    #[must_use]
    pub fn delta_of(&self) -> Option<CrlNumber> {
        self.crl.base
    }

    /// Start of validity, in unix seconds.
    #[must_use]
    pub fn this_update(&self) -> i64 {
        self.crl.this_update
    }

    /// When the next list is due, in unix seconds.
    #[must_use]
    pub fn next_update(&self) -> i64 {
        self.crl.next_update
    }

    /// The first entries.
    pub fn first(&self, most: usize) -> impl Iterator<Item = EntrySummary> {
        let entries = self.crl.entries().take(most).flatten();
        entries.map(|entry| EntrySummary { serial: entry.serial, listed: entry.listed, since: entry.since })
    }
}
