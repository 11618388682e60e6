//! Values of lists and entries.

use std::fmt;

use crate::identity::Serial;

/// Why a certificate was revoked (RFC 5280 §5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Not said, or an unknown code.
    Unspecified,
    /// The key is known or suspected to be in other hands.
    KeyCompromise,
    /// The authority's key is.
    CaCompromise,
    /// Names or other data changed.
    AffiliationChanged,
    /// Replaced by another certificate.
    Superseded,
    /// No longer needed.
    CessationOfOperation,
    /// On hold; it may come back in a later list.
    CertificateHold,
    /// A privilege in it was withdrawn.
    PrivilegeWithdrawn,
    /// The attribute authority's key is known or suspected to be in other hands.
    AaCompromise,
}

impl Reason {
    /// The reason's name in RFC 5280.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::CertificateHold => "certificateHold",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "aACompromise",
        }
    }

    /// The code of RFC 5280.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::CertificateHold => 6,
            Self::PrivilegeWithdrawn => 9,
            Self::AaCompromise => 10,
        }
    }

    /// The reason of this code. An unknown code doesn't make a certificate less revoked.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::KeyCompromise,
            2 => Self::CaCompromise,
            3 => Self::AffiliationChanged,
            4 => Self::Superseded,
            5 => Self::CessationOfOperation,
            6 => Self::CertificateHold,
            9 => Self::PrivilegeWithdrawn,
            10 => Self::AaCompromise,
            _ => Self::Unspecified,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an entry of a list says about its serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// It is revoked.
    Revoked(Reason),
    /// It is no longer: the list is a delta, and takes an entry of its base back (removeFromCRL).
    Removed,
}

/// A CRL number: up to 20 octets (RFC 5280 §5.2.3), so that date-like and random-like numbers compare too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CrlNumber([u8; Serial::MAX_OCTETS]);

impl CrlNumber {
    /// The number as 20 octets and one for the sign, big endian.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Serial::MAX_OCTETS] {
        &self.0
    }

    /// The number of these octets, as [`CrlNumber::as_bytes`] gives them.
    #[must_use]
    pub fn from_bytes(octets: [u8; Serial::MAX_OCTETS]) -> Self {
        Self(octets)
    }

    /// Reads the content octets of a DER INTEGER; `None` if negative, too long or padded.
    pub(super) fn from_der_content(content: &[u8]) -> Option<Self> {
        let number = Serial::from_der_content(content).filter(|number| !number.is_negative())?;
        let octets = number.as_der_content();
        let mut padded = [0; Serial::MAX_OCTETS];
        padded.get_mut(Serial::MAX_OCTETS - octets.len()..)?.copy_from_slice(octets);
        Some(Self(padded))
    }
}

impl fmt::Display for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_last_chunk::<16>() {
            Some((high, low)) if high.iter().all(|octet| *octet == 0) => write!(f, "{}", u128::from_be_bytes(*low)),
            _ => {
                f.write_str("0x")?;
                self.0.iter().skip_while(|octet| **octet == 0).try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}
