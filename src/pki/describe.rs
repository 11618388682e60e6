//! `show`: what a file holds, and what the gateway would make of it.

use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::x509::{Block, Facts, blocks, is_certificate};
use crate::config::Secret;
use crate::identity::{LeafRules, display_name};
use crate::revocation::{self, Index};
use crate::tls::TrustBundle;
use crate::tls::issue::{KeyFault, PrivateKey, PublicKey};

mod certificate;
mod list;

/// A file to be described.
#[derive(Debug)]
pub(crate) struct Input {
    /// What it is called in the report.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Whether others than its owner can read it.
    pub(crate) exposed: bool,
}

/// What the gateway would know.
#[derive(Debug)]
pub(crate) struct Context {
    /// Its `client_ca`.
    pub(crate) trust: Option<Arc<TrustBundle>>,
    /// Its lists.
    pub(crate) revocation: Index,
    /// Its settings.
    pub(crate) rules: LeafRules,
    /// Opens keys.
    pub(crate) passphrase: Option<Secret<String>>,
    /// Unix seconds.
    pub(crate) now: i64,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// For people.
    pub(crate) text: String,
    /// How many things are wrong.
    pub(crate) faults: usize,
}

impl Context {
    /// Takes in the gateway's lists. What is wrong with them is found when they are shown themselves.
    pub(crate) fn take_lists(&mut self, lists: Vec<(String, Vec<u8>)>) {
        let Some(trust) = &self.trust else { return };
        let input = |(key, bytes)| revocation::SourceInput { key, bytes: Ok(bytes), issuer: None };
        if !lists.is_empty() {
            let mut sources = revocation::Sources::new(list::settings());
            let inputs = lists.into_iter().map(input);
            self.revocation = sources.update(inputs, trust.issuers(), self.now, &crate::tls::verify_signed_data).0;
        }
    }
}

/// Describes files. Keys are compared with the certificates and requests of all of them.
pub(crate) fn describe(inputs: &[Input], context: &Context) -> Report {
    let files: Vec<(&Input, Vec<Item>)> = inputs.iter().map(|input| (input, items(input))).collect();
    let all: Vec<&Item> = files.iter().flat_map(|(_, items)| items).collect();
    let mut report = Report::default();
    for (input, items) in &files {
        if items.is_empty() {
            report.heading(&input.name, "nothing that can be read");
            report.fault("it holds no certificate, list, key or request in PEM or DER form (is it half-written?)");
        }
        let chain: Vec<&Facts> = items.iter().filter_map(Item::certificate).collect();
        for (number, item) in (1..).zip(items) {
            let place = if items.len() > 1 {
                format!("{} ({number} of {})", input.name, items.len())
            } else {
                input.name.clone()
            };
            match item {
                Item::Certificate(facts) => certificate::describe(&mut report, &place, facts, &chain, context),
                Item::List(der) => list::describe(&mut report, &place, der, context),
                Item::Key(block) => key(&mut report, &place, input, block, &all, context),
                Item::Request(der) => request(&mut report, &place, der),
                Item::Broken(label) => {
                    report.heading(&place, &format!("a broken {label}"));
                    report.fault("it can't be read (a half-written or truncated file?)");
                }
                Item::Other(label) => report.heading(&place, &format!("{label}: nothing the gateway uses")),
            }
        }
    }
    report
}

impl Report {
    fn heading(&mut self, place: &str, what: &str) {
        // Writing to a String can't fail, here and below.
        _ = writeln!(self.text, "{place}: {what}");
    }

    fn line(&mut self, key: &str, value: &str) {
        _ = writeln!(self.text, "  {key:<12} {value}");
    }

    fn fault(&mut self, what: &str) {
        self.faults += 1;
        self.line("FAULT", what);
    }
}

/// One thing of a file.
enum Item {
    Certificate(Box<Facts>),
    List(Vec<u8>),
    Key(Block),
    Request(Vec<u8>),
    Broken(String),
    Other(String),
}

impl Item {
    fn certificate(&self) -> Option<&Facts> {
        match self {
            Self::Certificate(facts) => Some(facts),
            _ => None,
        }
    }

    /// The public key in it, if there is one.
    fn public_key(&self) -> Option<PublicKey> {
        match self {
            Self::Certificate(facts) => PublicKey::from_der(&facts.spki_der).ok(),
            Self::Request(der) => PublicKey::of_request(der).ok(),
            _ => None,
        }
    }
}

fn items(input: &Input) -> Vec<Item> {
    if input.bytes.first() == Some(&0x30) {
        return from_der(&input.bytes).into_iter().collect();
    }
    blocks(&input.bytes).into_iter().map(from_pem).collect()
}

fn from_pem(block: Block) -> Item {
    if is_certificate(&block) {
        return Facts::of(&block.der)
            .map_or(Item::Broken("certificate".to_owned()), |facts| Item::Certificate(facts.into()));
    }
    match block.label.as_str() {
        "X509 CRL" => Item::List(block.der),
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Item::Request(block.der),
        label if label.ends_with("PRIVATE KEY") => Item::Key(block),
        _ => Item::Other(block.label),
    }
}

fn from_der(der: &[u8]) -> Option<Item> {
    if let Some(facts) = Facts::of(der) {
        return Some(Item::Certificate(facts.into()));
    }
    if x509_parser::parse_x509_crl(der).is_ok() {
        return Some(Item::List(der.to_vec()));
    }
    if X509CertificationRequest::from_der(der).is_ok() {
        return Some(Item::Request(der.to_vec()));
    }
    let key = || Block { label: "PRIVATE KEY".to_owned(), text: String::new(), der: der.to_vec() };
    PrivateKey::from_der(der).is_ok().then(|| Item::Key(key()))
}

fn key(report: &mut Report, place: &str, input: &Input, block: &Block, all: &[&Item], context: &Context) {
    report.heading(place, "private key");
    if input.exposed {
        report.fault("others than its owner can read it: chmod 600");
    }
    let opened = if block.text.is_empty() {
        PrivateKey::from_der(&block.der)
    } else {
        PrivateKey::from_pem(block.text.as_bytes(), context.passphrase.as_ref())
    };
    if block.text.contains("ENCRYPTED") {
        report.line("protected", "by a passphrase; the gateway and docker need a plain key");
    }
    let key = match opened {
        Ok(key) => key,
        Err(KeyFault::NeedsPassphrase) => return,
        Err(fault) => return report.fault(&fault.to_string()),
    };
    report.line("key", &key.describe());
    if key.public().is_ok_and(|public| !public.is_strong()) {
        report.fault("the gateway refuses such keys: RSA from 2048 bits, P-256, P-384, P-521 or Ed25519 are needed");
    }
    let others: Vec<PublicKey> = all.iter().filter_map(|item| item.public_key()).collect();
    if others.iter().any(|public| public.belongs_to(&key)) {
        report.line("belongs to", "a certificate or request shown here");
    } else if !others.is_empty() {
        report.fault("it belongs to none of the certificates and requests shown here");
    }
}

fn request(report: &mut Report, place: &str, der: &[u8]) {
    report.heading(place, "certificate request");
    let Ok((_, parsed)) = X509CertificationRequest::from_der(der) else {
        return report.fault("it can't be read (a half-written or truncated file?)");
    };
    report.line("subject", &display_name(parsed.certification_request_info.subject.as_raw()));
    for extension in parsed.requested_extensions().into_iter().flatten() {
        if let x509_parser::extensions::ParsedExtension::SubjectAlternativeName(san) = extension {
            let names: Vec<_> = san.general_names.iter().map(ToString::to_string).collect();
            report.line("names", &printable(&names.join(", ")));
        }
    }
    match PublicKey::of_request(der) {
        Ok(key) => {
            report.line("key", &key.describe());
            report.line("signature", "by the key in it");
            if !key.is_strong() {
                report.fault(
                    "the gateway refuses such keys: RSA from 2048 bits, P-256, P-384, P-521 or Ed25519 are needed",
                );
            }
        }
        Err(e) => report.fault(&e.to_string()),
    }
    report.line("note", "the CA decides the names: --csr takes only the key from it");
}

/// Unix seconds as people and logs write them.
pub(crate) fn date(unix: i64) -> String {
    let since = u64::try_from(unix).unwrap_or_default();
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(since)).to_string()
}

/// Text from a certificate, which must not control a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn sha256_hex(bytes: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)))
}
