//! The files themselves: what is wrong with them can be seen without a server.

use std::path::Path;

use super::places::{Pair, cause};
use super::report::{Check, Report};
use crate::config::{ByteSize, FileError, read_bounded};
use crate::identity::{LeafRules, PeerIdentity, display_name};
use crate::pki::{DAY, Facts, blocks, date, is_certificate, is_exposed, is_signed_by};
use crate::tls::issue::{KeyFault, PrivateKey, PublicKey};

/// More than any chain or key.
const MOST: ByteSize = ByteSize::from_mib(1);

/// From how many days before the end on there is a warning.
const SOON: i64 = 14;

/// What a client would show.
pub(super) struct Identity {
    /// Leaf first, in DER.
    pub(super) chain: Vec<Vec<u8>>,
    pub(super) key: PrivateKey,
    /// The issuers (names in DER) of all of them.
    pub(super) issuers: Vec<Vec<u8>>,
}

/// A certificate and its key; none if they can't be used.
pub(super) fn identity(report: &mut Report, pair: &Pair, now: i64) -> Option<Identity> {
    let chain = certificates(report, Check::Certificate, &pair.certificate);
    let key = private_key(report, &pair.key);
    let chain = chain?;
    let leaf = chain.first()?;
    let place = pair.certificate.display();
    match PeerIdentity::from_leaf(&leaf.der, &LeafRules::default()) {
        Ok(identity) => {
            let issuer = display_name(&leaf.issuer_der);
            report.ok(Check::Certificate, format!("{place}: {}, issued by {issuer}", identity.label()));
        }
        Err(fault) => {
            let remedy = "have a new one issued for a TLS client; `portcullis pki show` tells what is in it";
            report.fail(Check::Certificate, format!("{place}: the gateway refuses it: {fault}"), remedy);
        }
    }
    let (key, fits) = (key?, |facts: &Facts| PublicKey::of_certificate(&facts.der).ok());
    if !fits(leaf).is_some_and(|public| public.belongs_to(&key)) {
        let elsewhere = chain.iter().any(|facts| fits(facts).is_some_and(|public| public.belongs_to(&key)));
        let remedy = if elsewhere {
            "the client's own certificate must come first in the file, then the one that signed it"
        } else {
            "copy both files again from where they were made; renewing makes a new key, too"
        };
        report.fail(Check::Key, format!("{} does not belong to {place}", pair.key.display()), remedy);
        return None;
    }
    report.ok(Check::Key, format!("{}: {}, belongs to {place}", pair.key.display(), key.describe()));
    order(report, &pair.certificate, &chain);
    validity(report, &pair.certificate, &chain, now);
    Some(Identity {
        issuers: chain.iter().map(|facts| facts.issuer_der.clone()).collect(),
        chain: chain.into_iter().map(|facts| facts.der).collect(),
        key,
    })
}

/// CAs that vouch for the server, in DER.
pub(super) fn authorities(report: &mut Report, path: &Path, now: i64) -> Vec<Vec<u8>> {
    let Some(found) = certificates(report, Check::Ca, path) else { return Vec::new() };
    let place = path.display();
    for facts in &found {
        let subject = &facts.subject;
        if !facts.is_ca
            && PeerIdentity::from_leaf(&facts.der, &LeafRules { require_eku: true, ..LeafRules::default() }).is_ok()
        {
            let remedy = format!("a file .crt holds CAs; rename it to {}", path.with_extension("cert").display());
            report.fail(Check::Ca, format!("{place} holds the certificate of a client, {subject}"), remedy);
        } else if facts.not_after < now {
            let remedy = "get the CA's new certificate";
            report.fail(Check::Ca, format!("{place}: {subject} ended on {}", date(facts.not_after)), remedy);
        } else {
            report.ok(Check::Ca, format!("{place}: {subject}"));
        }
    }
    found.into_iter().map(|facts| facts.der).collect()
}

fn read(report: &mut Report, check: Check, path: &Path) -> Option<Vec<u8>> {
    match read_bounded(path, MOST) {
        Ok(bytes) if bytes.is_empty() => {
            report.fail(check, format!("{} is empty", path.display()), "copy it again");
            None
        }
        Ok(bytes) => Some(bytes),
        Err(e) => {
            let (check, remedy) = if matches!(e, FileError::Denied) {
                (Check::Permissions, "make it readable, or run this as the user that docker runs as (root)")
            } else {
                (check, "put the file there, or correct the link")
            };
            report.fail(check, cause(path, &e), remedy);
            None
        }
    }
}

fn certificates(report: &mut Report, check: Check, path: &Path) -> Option<Vec<Facts>> {
    let bytes = read(report, check, path)?;
    let place = path.display();
    let blocks = blocks(&bytes);
    let mut found = Vec::new();
    for block in blocks.iter().filter(|block| is_certificate(block)) {
        let Some(facts) = Facts::of(&block.der) else {
            report.fail(check, format!("{place} holds a broken certificate"), "copy it again: it is half-written");
            return None;
        };
        found.push(facts);
    }
    if !found.is_empty() {
        return Some(found);
    }
    let remedy = match bytes.first() {
        Some(0x30) => format!("it is in DER form: openssl x509 -inform der -in {place} -out {place}"),
        _ if blocks.iter().any(|block| block.label.ends_with("PRIVATE KEY")) => {
            "it holds a private key: are the two files swapped?".to_owned()
        }
        _ => "copy it again: it is half-written, or another file".to_owned(),
    };
    report.fail(check, format!("{place} holds no certificate in PEM form"), remedy);
    None
}

fn private_key(report: &mut Report, path: &Path) -> Option<PrivateKey> {
    let bytes = read(report, Check::Key, path)?;
    let place = path.display();
    if is_exposed(path) {
        report.warn(
            Check::Permissions,
            format!("others than its owner can read {place}"),
            format!("chmod 600 {place}"),
        );
    } else {
        report.ok(Check::Permissions, format!("only its owner can read {place}"));
    }
    match PrivateKey::from_pem(&bytes, None) {
        Ok(key) => Some(key),
        Err(fault) => {
            let remedy = match fault {
                KeyFault::NeedsPassphrase | KeyFault::WrongPassphrase => {
                    "docker can't ask for it: write the key without (openssl pkey -in OLD -out NEW), mode 0600"
                }
                KeyFault::NotAKey if blocks(&bytes).iter().any(is_certificate) => {
                    "it holds a certificate: are the two files swapped?"
                }
                KeyFault::NotAKey => "copy it again; it must be in PEM form",
            };
            report.fail(Check::Key, format!("{place}: {fault}"), remedy);
            None
        }
    }
}

/// Each certificate is signed by the next.
fn order(report: &mut Report, path: &Path, chain: &[Facts]) {
    let place = path.display();
    for (one, next) in chain.iter().zip(chain.iter().skip(1)) {
        if one.issuer_der != next.subject_der || !is_signed_by(&one.der, &next.spki_der) {
            let detail = format!("{place}: {} did not sign {}, which stands before it", next.subject, one.subject);
            let remedy = "order the file: the client's own certificate, then the one that signed it, and so on";
            return report.fail(Check::Chain, detail, remedy);
        }
    }
    let last = chain.last().map(|facts| display_name(&facts.issuer_der)).unwrap_or_default();
    report.ok(Check::Chain, format!("{place}: {} sent, up to one of {last}", count(chain.len(), "certificate")));
}

fn validity(report: &mut Report, path: &Path, chain: &[Facts], now: i64) {
    let place = path.display();
    for facts in chain {
        let Facts { subject, not_before, not_after, .. } = facts;
        if *not_after < now {
            let detail = format!("{place}: {subject} ended on {}", date(*not_after));
            report.fail(Check::Validity, detail, "renew it (portcullis pki renew), or set this machine's clock");
        } else if *not_before > now {
            let detail = format!("{place}: {subject} begins on {}, and here it is {}", date(*not_before), date(now));
            report.fail(Check::Validity, detail, "set this machine's clock");
        } else if *not_after - now < SOON * DAY {
            let left = count(usize::try_from((*not_after - now) / DAY).unwrap_or_default(), "day");
            report.warn(
                Check::Validity,
                format!("{place}: {subject} ends in {left}"),
                "renew it (portcullis pki renew)",
            );
        } else {
            report.ok(Check::Validity, format!("{place}: {subject} is good until {}", date(*not_after)));
        }
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
