//! What later checks need of each certificate of a verified path.

use std::fmt;

use sha2::{Digest, Sha256};

use super::{DistributionPoint, name};

/// One certificate of a verified path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathCertificate {
    /// SHA-256 over the certificate's DER.
    pub fingerprint: [u8; 32],
    /// Who issued it: name and key of the next certificate of the path. The anchor, which nobody asks about, has its own.
    pub issuer: IssuerId,
    /// Its serial number, unique for each issuer.
    pub serial: Serial,
    /// Start of validity, in unix seconds.
    pub not_before: i64,
    /// End of validity (inclusive), in unix seconds.
    pub not_after: i64,
    /// Whether it is an authority's (basicConstraints with cA).
    pub is_ca: bool,
    /// Where its issuer publishes its revocation, if it says so: lists for other places say nothing about it.
    pub distribution_points: Vec<DistributionPoint>,
    /// Whether this is the trust anchor, whose revocation nobody could vouch for.
    pub is_anchor: bool,
    /// The subject in one printable line, for logs and refusals.
    pub subject: String,
}

/// An issuer as revocation tells issuers apart: by name *and* key.
///
/// SHA-256 over the canonical name and the `SubjectPublicKeyInfo` DER. Two authorities of one name but different keys
/// differ, or one could revoke, or vouch for, what the other issued. The name is compared as RFC 5280 §7.1 asks (and
/// as the TLS libraries do when they build a path): case of ASCII letters, string type and surplus spaces don't count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerId([u8; 32]);

impl IssuerId {
    /// The issuer with this name (DER of an RFC 5280 `Name`) and key (DER of a `SubjectPublicKeyInfo`).
    ///
    /// `None` if the name is not well-formed DER.
    #[must_use]
    pub fn new(name_der: &[u8], spki_der: &[u8]) -> Option<Self> {
        let canonical = name::canonical(name_der).ok()?;
        let mut hash = Sha256::new();
        // The length keeps a name's end and a key's beginning from being moved into each other.
        hash.update((canonical.len() as u64).to_be_bytes());
        hash.update(&canonical);
        hash.update(spki_der);
        Some(Self(hash.finalize().into()))
    }

    /// The issuer with this hash, for what was kept outside of the process.
    #[must_use]
    pub fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The hash itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for IssuerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for IssuerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerId({self})")
    }
}

/// A serial number of any legal size: 20 octets (RFC 5280 §4.1.2.2) and one for the sign.
///
/// Zero and negative numbers are against the profile but exist, and must be revocable. Displayed as hexadecimal, as
/// openssl prints serials.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial {
    length: u8,
    octets: [u8; Self::MAX_OCTETS],
}

impl Serial {
    /// Longest content of the DER integer.
    pub const MAX_OCTETS: usize = 21;

    /// Reads the content octets of a DER INTEGER: big endian, two's complement, minimal.
    ///
    /// `None` if empty, too long, or padded: one number must not have two forms.
    #[must_use]
    pub fn from_der_content(content: &[u8]) -> Option<Self> {
        let padded = matches!(content, [0x00, second, ..] if *second < 0x80)
            || matches!(content, [0xff, second, ..] if *second >= 0x80);
        if content.is_empty() || padded {
            return None;
        }
        let mut octets = [0; Self::MAX_OCTETS];
        octets.get_mut(..content.len())?.copy_from_slice(content);
        Some(Self { length: u8::try_from(content.len()).ok()?, octets })
    }

    /// The content octets of the DER INTEGER.
    #[must_use]
    pub fn as_der_content(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Whether the number is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.octets.first().is_some_and(|first| *first >= 0x80)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut magnitude = self.octets;
        let magnitude = magnitude.get_mut(..usize::from(self.length)).unwrap_or_default();
        if self.is_negative() {
            f.write_str("-")?;
            let mut carry = true;
            for octet in magnitude.iter_mut().rev() {
                (*octet, carry) = (!*octet).overflowing_add(u8::from(carry));
            }
        }
        let skip = usize::from(matches!(magnitude, [0x00, _, ..]));
        magnitude.iter().skip(skip).try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}
