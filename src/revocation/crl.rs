//! Reading one revocation list in place: the header at once, the entries one by one, without allocation.

use super::time::read_time;
use super::{CrlFault, CrlNumber, Listed, Reason, Scope};
use crate::identity::der::{self, DerFault, Reader};
use crate::identity::{Serial, dotted_oid, is_strong_signature};

/// Context tag 0 of crlExtensions and of the RSASSA-PSS hash.
const CONTEXT_0: u8 = 0xa0;

/// Most extensions that a list or an entry may hold.
const MAX_EXTENSIONS: usize = 32;

/// Bytes and the signature over them.
#[derive(Debug, Clone, Copy)]
pub struct SignedData<'a> {
    /// The signed bytes (DER of the `TBSCertList`).
    pub tbs: &'a [u8],
    /// The signature algorithm (DER of an `AlgorithmIdentifier`).
    pub algorithm_der: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
}

/// A list whose structure and extensions are in order. Nothing is verified yet, the entries are not even read.
#[derive(Debug)]
pub(super) struct Crl<'a> {
    pub(super) signed: SignedData<'a>,
    pub(super) issuer_der: &'a [u8],
    /// Unix seconds.
    pub(super) this_update: i64,
    /// Unix seconds.
    pub(super) next_update: i64,
    pub(super) number: Option<CrlNumber>,
    /// Of a delta: the number of the list that it changes, or of any later one (BaseCRLNumber).
    pub(super) base: Option<CrlNumber>,
    pub(super) scope: Scope,
    revoked: &'a [u8],
    is_v2: bool,
}

impl<'a> Crl<'a> {
    /// Reads a `CertificateList` (RFC 5280 §5.1).
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, CrlFault> {
        let mut list = der::only(bytes, der::SEQUENCE)?;
        let (tbs_content, tbs) = list.read_whole(der::SEQUENCE)?;
        let (algorithm, algorithm_der) = list.read_whole(der::SEQUENCE)?;
        let signature = list.octets_of_bits()?;
        list.finish()?;
        check_algorithm(algorithm)?;

        let mut tbs_reader = Reader::new(tbs_content);
        let is_v2 = match tbs_reader.optional(der::INTEGER)? {
            None => false,
            Some([1]) => true,
            Some(_) => return Err(DerFault::Content("an unknown version").into()),
        };
        if tbs_reader.read_whole(der::SEQUENCE)?.1 != algorithm_der {
            return Err(DerFault::Content("two different signature algorithms").into());
        }
        let (_, issuer_der) = tbs_reader.read_whole(der::SEQUENCE)?;
        let this_update = read_time(&mut tbs_reader)?;
        let next_update = match tbs_reader.peek() {
            Some(der::UTC_TIME | der::GENERALIZED_TIME) => read_time(&mut tbs_reader)?,
            _ => return Err(CrlFault::NoNextUpdate),
        };
        let revoked = tbs_reader.optional(der::SEQUENCE)?.unwrap_or_default();
        let extensions = tbs_reader.optional(CONTEXT_0)?;
        tbs_reader.finish()?;
        let Extensions { number, base, scope } = match extensions {
            None => Extensions::default(),
            Some(extensions) if is_v2 => read_extensions(extensions, issuer_der)?,
            Some(_) => return Err(DerFault::Content("extensions in a list of version 1").into()),
        };
        if base.is_some_and(|base| number.is_none_or(|number| number < base)) {
            return Err(CrlFault::MalformedDelta);
        }
        let scope = scope.unwrap_or_else(Scope::full);
        let signed = SignedData { tbs, algorithm_der, signature };
        Ok(Self { signed, issuer_der, this_update, next_update, number, base, scope, revoked, is_v2 })
    }

    /// The entries, read as they are asked for. After an error there are no more.
    pub(super) fn entries(&self) -> Entries<'a> {
        Entries {
            rest: Reader::new(self.revoked),
            position: 0,
            may_have_extensions: self.is_v2,
            is_delta: self.base.is_some(),
        }
    }
}

/// Reads revoked certificates one by one.
#[derive(Debug, Clone)]
pub(super) struct Entries<'a> {
    rest: Reader<'a>,
    position: usize,
    may_have_extensions: bool,
    is_delta: bool,
}

/// A revoked certificate, or one that a delta takes back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) serial: Serial,
    /// Unix seconds.
    pub(super) since: i64,
    pub(super) listed: Listed,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, CrlFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        self.position += 1;
        let entry = self.read();
        if entry.is_err() {
            self.rest = Reader::new(&[]);
        }
        Some(entry)
    }
}

impl Entries<'_> {
    fn read(&mut self) -> Result<Entry, CrlFault> {
        let mut entry = Reader::new(self.rest.read(der::SEQUENCE)?);
        let serial = Serial::from_der_content(entry.read(der::INTEGER)?)
            .ok_or(CrlFault::MalformedSerial { entry: self.position })?;
        let since = read_time(&mut entry)?;
        let listed = match entry.optional(der::SEQUENCE)? {
            None => Listed::Revoked(Reason::Unspecified),
            Some(extensions) if self.may_have_extensions => read_entry_extensions(extensions)?,
            Some(_) => return Err(DerFault::Content("extensions in a list of version 1").into()),
        };
        entry.finish()?;
        if listed == Listed::Removed && !self.is_delta {
            return Err(CrlFault::RemovedEntry { entry: self.position });
        }
        Ok(Entry { serial, since, listed })
    }
}

/// The code of removeFromCRL, which takes an entry of the base back.
const REMOVE_FROM_CRL: u8 = 8;

/// Object identifiers of the extensions of lists and entries.
mod oid {
    pub(super) const ISSUER_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x12];
    pub(super) const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
    pub(super) const REASON_CODE: &[u8] = &[0x55, 0x1d, 0x15];
    pub(super) const INVALIDITY_DATE: &[u8] = &[0x55, 0x1d, 0x18];
    pub(super) const DELTA_INDICATOR: &[u8] = &[0x55, 0x1d, 0x1b];
    pub(super) const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];
    pub(super) const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 0x1d];
    pub(super) const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];
}

struct Extension<'a> {
    oid: &'a [u8],
    critical: bool,
    value: &'a [u8],
}

fn read_extension<'a>(extensions: &mut Reader<'a>) -> Result<Extension<'a>, DerFault> {
    let mut extension = Reader::new(extensions.read(der::SEQUENCE)?);
    let oid = extension.read(der::OID)?;
    let critical = extension.default_false()?;
    let value = extension.read(der::OCTET_STRING)?;
    extension.finish()?;
    Ok(Extension { oid, critical, value })
}

/// What the extensions of a list say.
#[derive(Default)]
struct Extensions {
    number: Option<CrlNumber>,
    base: Option<CrlNumber>,
    scope: Option<Scope>,
}

/// Reads crlExtensions (the content of its context tag).
fn read_extensions(explicit: &[u8], issuer_der: &[u8]) -> Result<Extensions, CrlFault> {
    let mut extensions = der::only(explicit, der::SEQUENCE)?;
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut found = Extensions::default();
    while !extensions.is_empty() {
        let extension = read_extension(&mut extensions)?;
        if seen.contains(&extension.oid) {
            return Err(CrlFault::DuplicateExtension(dotted_oid(extension.oid)));
        }
        if seen.len() == MAX_EXTENSIONS {
            return Err(DerFault::Content("too many extensions").into());
        }
        seen.push(extension.oid);
        match extension.oid {
            oid::CRL_NUMBER => found.number = Some(read_number(extension.value)?),
            oid::DELTA_INDICATOR => found.base = Some(read_number(extension.value)?),
            oid::ISSUING_DISTRIBUTION_POINT => found.scope = Some(Scope::read(extension.value, issuer_der)?),
            // The issuer is found by trying the keys of its name, which says more than a key identifier.
            oid::AUTHORITY_KEY_IDENTIFIER | oid::ISSUER_ALTERNATIVE_NAME => {}
            other if extension.critical => return Err(CrlFault::UnknownCritical(dotted_oid(other))),
            _ => {}
        }
    }
    Ok(found)
}

fn read_number(value: &[u8]) -> Result<CrlNumber, CrlFault> {
    let mut value = Reader::new(value);
    let content = value.read(der::INTEGER)?;
    value.finish()?;
    CrlNumber::from_der_content(content).ok_or(CrlFault::MalformedNumber)
}

/// Reads crlEntryExtensions.
fn read_entry_extensions(extensions: &[u8]) -> Result<Listed, CrlFault> {
    let mut extensions = Reader::new(extensions);
    let mut listed = None;
    while !extensions.is_empty() {
        let extension = read_extension(&mut extensions)?;
        match extension.oid {
            oid::REASON_CODE => {
                let mut value = Reader::new(extension.value);
                let &[code] = value.read(der::ENUMERATED)? else {
                    return Err(DerFault::Content("a malformed reason code").into());
                };
                value.finish()?;
                let says =
                    if code == REMOVE_FROM_CRL { Listed::Removed } else { Listed::Revoked(Reason::from_code(code)) };
                if listed.replace(says).is_some() {
                    return Err(CrlFault::DuplicateExtension(dotted_oid(extension.oid)));
                }
            }
            oid::CERTIFICATE_ISSUER => return Err(CrlFault::Indirect),
            oid::INVALIDITY_DATE => {}
            other if extension.critical => return Err(CrlFault::UnknownCritical(dotted_oid(other))),
            _ => {}
        }
    }
    Ok(listed.unwrap_or(Listed::Revoked(Reason::Unspecified)))
}

fn check_algorithm(identifier: &[u8]) -> Result<(), CrlFault> {
    let mut identifier = Reader::new(identifier);
    let algorithm = identifier.read(der::OID)?;
    let parameters = if identifier.is_empty() { &[][..] } else { identifier.any()?.1 };
    identifier.finish()?;
    if is_strong_signature(algorithm, parameters) {
        Ok(())
    } else {
        Err(CrlFault::WeakSignature(dotted_oid(algorithm)))
    }
}
