//! A strict reader of DER (X.690): definite, minimal lengths and one-octet tags, without allocation or recursion.

use thiserror::Error;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// What is wrong with bytes that should be DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DerFault {
    /// The bytes end inside a value.
    #[error("it ends in the middle of a value")]
    Truncated,
    /// A length in a form that DER forbids, or a tag of more than one octet.
    #[error("it is not DER (indefinite or padded length, or long tag)")]
    NotDer,
    /// Another value than the structure has at this place.
    #[error("tag {found:#04x} stands where {expected:#04x} is due")]
    Tag {
        /// The tag of the structure.
        expected: u8,
        /// The tag that was found.
        found: u8,
    },
    /// Bytes after the last value of a structure.
    #[error("surplus bytes follow the last value")]
    Surplus,
    /// A value whose content breaks its type's rules.
    #[error("it holds {0}")]
    Content(&'static str),
}

/// Reads one value after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next value: its tag, its content, and all of its bytes.
    pub(crate) fn any(&mut self) -> Result<(u8, &'a [u8], &'a [u8]), DerFault> {
        let start = self.rest;
        let (&tag, after_tag) = start.split_first().ok_or(DerFault::Truncated)?;
        if tag & 0x1f == 0x1f {
            return Err(DerFault::NotDer);
        }
        let (length, after_length) = read_length(after_tag)?;
        let (content, rest) = after_length.split_at_checked(length).ok_or(DerFault::Truncated)?;
        self.rest = rest;
        let (whole, _) = start.split_at_checked(start.len() - rest.len()).ok_or(DerFault::Truncated)?;
        Ok((tag, content, whole))
    }

    /// The content of the next value, which must have this tag.
    pub(crate) fn read(&mut self, expected: u8) -> Result<&'a [u8], DerFault> {
        self.read_whole(expected).map(|(content, _)| content)
    }

    /// The content and all bytes of the next value, which must have this tag.
    pub(crate) fn read_whole(&mut self, expected: u8) -> Result<(&'a [u8], &'a [u8]), DerFault> {
        match self.any()? {
            (tag, content, whole) if tag == expected => Ok((content, whole)),
            (found, ..) => Err(DerFault::Tag { expected, found }),
        }
    }

    /// The content of the next value if it has this tag; else nothing is read.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, DerFault> {
        if self.peek() == Some(tag) { self.read(tag).map(Some) } else { Ok(None) }
    }

    /// A BOOLEAN that is written only when true, as `DEFAULT FALSE` asks of DER.
    pub(crate) fn default_false(&mut self) -> Result<bool, DerFault> {
        match self.optional(BOOLEAN)? {
            None => Ok(false),
            Some([0xff]) => Ok(true),
            Some(_) => Err(DerFault::Content("a boolean that is neither absent nor true")),
        }
    }

    /// The octets of the next value, a BIT STRING of whole octets.
    pub(crate) fn octets_of_bits(&mut self) -> Result<&'a [u8], DerFault> {
        match self.read(BIT_STRING)?.split_first() {
            Some((0, octets)) => Ok(octets),
            _ => Err(DerFault::Content("a bit string that is not whole octets")),
        }
    }

    pub(crate) fn finish(&self) -> Result<(), DerFault> {
        if self.rest.is_empty() { Ok(()) } else { Err(DerFault::Surplus) }
    }
}

/// The single value that `bytes` must be, as a reader of its content.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Result<Reader<'_>, DerFault> {
    let mut reader = Reader::new(bytes);
    let content = reader.read(tag)?;
    reader.finish()?;
    Ok(Reader::new(content))
}

fn read_length(bytes: &[u8]) -> Result<(usize, &[u8]), DerFault> {
    let (&first, rest) = bytes.split_first().ok_or(DerFault::Truncated)?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    // Four octets hold 4 GiB; more is an attempt to overflow. None is BER's indefinite form.
    if count == 0 || count > 4 {
        return Err(DerFault::NotDer);
    }
    let (octets, rest) = rest.split_at_checked(count).ok_or(DerFault::Truncated)?;
    let length = octets.iter().fold(0_usize, |length, octet| length << 8 | usize::from(*octet));
    let minimal = length >= 0x80 && octets.first() != Some(&0);
    if minimal { Ok((length, rest)) } else { Err(DerFault::NotDer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_turn() {
        let mut reader = Reader::new(&[0x02, 0x01, 0x05, 0x04, 0x02, 0xaa, 0xbb]);
        assert_eq!(reader.read(INTEGER), Ok(&[0x05][..]));
        assert_eq!(reader.optional(INTEGER), Ok(None));
        assert_eq!(reader.read_whole(OCTET_STRING), Ok((&[0xaa, 0xbb][..], &[0x04, 0x02, 0xaa, 0xbb][..])));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn long_lengths_are_read() {
        let mut bytes = vec![0x04, 0x82, 0x01, 0x00];
        bytes.extend([7; 256]);
        assert_eq!(Reader::new(&bytes).read(OCTET_STRING).map(<[u8]>::len), Ok(256));
    }

    #[test]
    fn what_is_not_der_is_refused() {
        for (bytes, fault) in [
            (&[][..], DerFault::Truncated),
            (&[0x30], DerFault::Truncated),
            (&[0x30, 0x01], DerFault::Truncated),
            (&[0x30, 0x82, 0x01], DerFault::Truncated),
            (&[0x30, 0x80, 0x00, 0x00], DerFault::NotDer),
            (&[0x30, 0x81, 0x01, 0x00], DerFault::NotDer),
            (&[0x30, 0x82, 0x00, 0x81], DerFault::NotDer),
            (&[0x30, 0x85, 0x01, 0x00, 0x00, 0x00, 0x00], DerFault::NotDer),
            (&[0x3f, 0x81, 0x01, 0x00], DerFault::NotDer),
            (&[0x31, 0x00], DerFault::Tag { expected: 0x30, found: 0x31 }),
        ] {
            assert_eq!(Reader::new(bytes).read(SEQUENCE), Err(fault), "{bytes:02x?}");
        }
        assert_eq!(only(&[0x30, 0x00, 0x00], SEQUENCE).err(), Some(DerFault::Surplus));
        assert!(Reader::new(&[BOOLEAN, 1, 0]).default_false().is_err());
        assert!(Reader::new(&[BIT_STRING, 2, 1, 0]).octets_of_bits().is_err());
    }
}
