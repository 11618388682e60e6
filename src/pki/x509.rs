//! Reading certificates and PEM, as far as the PKI needs it.

use std::net::IpAddr;
use std::path::Path;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::PkiError;
use crate::identity::der::{self, Reader};
use crate::identity::{Serial, display_name};
use crate::revocation::SignedData;

/// A PEM block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// Such as `CERTIFICATE`.
    pub(crate) label: String,
    /// The block as it stands in the file.
    pub(crate) text: String,
    /// What it holds; empty if that isn't base64.
    pub(crate) der: Vec<u8>,
}

/// The complete PEM blocks of a file. Text around them is passed over, for openssl writes some.
pub(crate) fn blocks(bytes: &[u8]) -> Vec<Block> {
    let text = String::from_utf8_lossy(bytes);
    let mut blocks = Vec::new();
    let mut open: Option<(String, String, String)> = None;
    for line in text.lines().map(str::trim_end) {
        let marker = |kind: &str| line.strip_prefix(kind).and_then(|rest| rest.strip_suffix("-----"));
        if let Some(label) = marker("-----BEGIN ") {
            open = Some((label.to_owned(), format!("{line}\n"), String::new()));
        } else if let Some((label, mut text, body)) = open.take() {
            text.push_str(line);
            text.push('\n');
            if marker("-----END ") == Some(label.as_str()) {
                let der = data_encoding::BASE64.decode(body.as_bytes()).unwrap_or_default();
                blocks.push(Block { label, text, der });
            } else {
                // Headers of keys in OpenSSL's older form have a colon.
                let body = if line.contains(':') { body } else { body + line };
                open = Some((label, text, body));
            }
        }
    }
    blocks
}

/// The certificates of a PEM file, each as DER.
pub(super) fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<Vec<u8>>, PkiError> {
    let found: Vec<_> = blocks(bytes).into_iter().filter(is_certificate).map(|block| block.der).collect();
    if found.is_empty() {
        return Err(PkiError::unusable(path, "it holds no certificate in PEM form"));
    }
    Ok(found)
}

pub(crate) fn is_certificate(block: &Block) -> bool {
    matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE")
}

/// What a certificate says, as far as the PKI needs it.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) der: Vec<u8>,
    pub(crate) serial: Serial,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    pub(crate) subject: String,
    pub(crate) issuer_der: Vec<u8>,
    pub(crate) subject_der: Vec<u8>,
    pub(crate) spki_der: Vec<u8>,
    pub(crate) is_ca: bool,
    pub(crate) common_name: Option<String>,
    pub(crate) organizational_unit: Option<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) uris: Vec<String>,
}

impl Facts {
    /// `None` if `der` is no certificate.
    pub(crate) fn of(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let text = |value: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            value.and_then(|value| value.as_str().ok()).map(str::to_owned)
        };
        let subject = certificate.subject();
        let mut facts = Self {
            der: der.to_vec(),
            serial: Serial::from_der_content(certificate.tbs_certificate.raw_serial())?,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            subject: display_name(subject.as_raw()),
            issuer_der: certificate.issuer().as_raw().to_vec(),
            subject_der: subject.as_raw().to_vec(),
            spki_der: certificate.public_key().raw.to_vec(),
            is_ca: certificate.is_ca(),
            common_name: text(subject.iter_common_name().next()),
            organizational_unit: text(subject.iter_organizational_unit().next()),
            dns: Vec::new(),
            ips: Vec::new(),
            uris: Vec::new(),
        };
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            names.value.general_names.iter().for_each(|name| facts.take(name));
        }
        Some(facts)
    }

    fn take(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(dns) => self.dns.push((*dns).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(octets) => {
                let v4 = <[u8; 4]>::try_from(*octets).ok().map(IpAddr::from);
                let v6 = || <[u8; 16]>::try_from(*octets).ok().map(IpAddr::from);
                self.ips.extend(v4.or_else(v6));
            }
            _ => {}
        }
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }
}

/// Whether the key of `spki_der` signed a certificate or a list (DER).
pub(crate) fn is_signed_by(der: &[u8], spki_der: &[u8]) -> bool {
    signed_data(der).is_some_and(|data| crate::tls::verify_signed_data(&data, spki_der).is_ok())
}

/// The parts of a signed structure (RFC 5280 §4.1.1.3), which certificates, lists and requests share.
fn signed_data(der: &[u8]) -> Option<SignedData<'_>> {
    let mut parts: Reader<'_> = der::only(der, der::SEQUENCE).ok()?;
    let (_, tbs) = parts.read_whole(der::SEQUENCE).ok()?;
    let (_, algorithm_der) = parts.read_whole(der::SEQUENCE).ok()?;
    let signature = parts.octets_of_bits().ok()?;
    Some(SignedData { tbs, algorithm_der, signature })
}

/// Unix seconds of a time as openssl's database has it: `YYMMDDHHMMSSZ` or with four digits of a year.
pub(super) fn unix_time(text: &str) -> Option<i64> {
    let tag = if text.len() == 13 { der::UTC_TIME } else { der::GENERALIZED_TIME };
    let mut bytes = vec![tag, u8::try_from(text.len()).ok()?];
    bytes.extend_from_slice(text.as_bytes());
    let (rest, time) = x509_parser::time::ASN1Time::from_der(&bytes).ok()?;
    rest.is_empty().then(|| time.timestamp())
}
