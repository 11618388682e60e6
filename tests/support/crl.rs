//! Revocation lists for tests.

use super::pki::{Ca, fresh, openssl, text};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A CRL under construction.
#[derive(Clone)]
pub struct Crl<'a> {
    ca: &'a Ca,
    revoked: Vec<String>,
    /// By position in `revoked`.
    reasons: Vec<(usize, String)>,
    number: Option<u64>,
    last_update: String,
    next_update: String,
    extensions: Vec<String>,
}

impl<'a> Crl<'a> {
    /// An empty list, long valid, with number 1.
    pub fn new(ca: &'a Ca) -> Self {
        Self {
            ca,
            revoked: Vec::new(),
            reasons: Vec::new(),
            number: Some(1),
            last_update: "20260101000000Z".into(),
            next_update: "20890101000000Z".into(),
            extensions: vec!["authorityKeyIdentifier=keyid:always".into()],
        }
    }

    /// Revokes the certificate in a file.
    pub fn revoke(mut self, certificate: &Path) -> Self {
        let answer = openssl(&["x509", "-in", &text(certificate), "-noout", "-serial"]);
        let serial = answer.trim().trim_start_matches("serial=");
        self.revoked.push(serial.into());
        self
    }

    /// Revokes the certificate in a file for a reason, as openssl's database calls it; `removeFromCRL` takes it from the
    /// list that a delta builds on.
    pub fn revoke_for(mut self, certificate: &Path, reason: &str) -> Self {
        self = self.revoke(certificate);
        self.reasons.push((self.revoked.len() - 1, reason.into()));
        self
    }

    /// Revokes a serial (hex).
    pub fn serial(mut self, hex: &str) -> Self {
        self.revoked.push(hex.into());
        self
    }

    pub fn number(mut self, number: u64) -> Self {
        self.number = Some(number);
        self
    }

    pub fn next_update(mut self, time: &str) -> Self {
        self.next_update = time.into();
        self
    }

    pub fn last_update(mut self, time: &str) -> Self {
        self.last_update = time.into();
        self
    }

    /// Adds an extension, in openssl's syntax.
    pub fn extension(mut self, line: &str) -> Self {
        self.extensions.push(line.into());
        self
    }

    /// Narrows the list to what has this distribution point.
    pub fn only_at(self, uri: &str) -> Self {
        self.extension(&format!("issuingDistributionPoint=critical,@idp\n[idp]\nfullname=URI:{uri}"))
    }

    /// Makes it a delta to the list with a number below 128 (RFC 5280 §5.2.4).
    pub fn delta_to(self, base: u8) -> Self {
        assert!(base < 128, "one octet of an INTEGER");
        self.extension(&format!("2.5.29.27=critical,DER:02:01:{base:02X}"))
    }

    /// Signs the list and returns its PEM.
    pub fn pem(self) -> String {
        let base = fresh(&self.ca.directory, "crl");
        let mut database = String::new();
        for (position, serial) in self.revoked.iter().enumerate() {
            let reason = self.reasons.iter().find(|(of, _)| *of == position);
            let reason = reason.map_or(String::new(), |(_, reason)| format!(",{reason}"));
            let _ = writeln!(database, "R\t890101000000Z\t260101000000Z{reason}\t{serial}\tunknown\t/CN=x");
        }
        let index = base.with_extension("index");
        fs::write(&index, database).expect("the test directory is writable");
        let mut config = format!(
            "[ca]\ndefault_ca=c\n[c]\ndatabase={}\ndefault_md=sha256\nunique_subject=no\ncrl_extensions=e\n",
            text(&index)
        );
        if let Some(number) = self.number {
            let file = base.with_extension("number");
            let hex = format!("{number:X}");
            let even = if hex.len() % 2 == 0 { hex } else { format!("0{hex}") };
            fs::write(&file, even).expect("the test directory is writable");
            let _ = writeln!(config, "crlnumber={}", text(&file));
        }
        let _ = writeln!(config, "[e]\n{}", self.extensions.join("\n"));
        let file = base.with_extension("cnf");
        fs::write(&file, config).expect("the test directory is writable");
        let out = base.with_extension("pem");
        openssl(&[
            "ca",
            "-gencrl",
            "-config",
            &text(&file),
            "-cert",
            &text(&self.ca.certificate),
            "-keyfile",
            &text(&self.ca.key),
            "-crl_lastupdate",
            &self.last_update,
            "-crl_nextupdate",
            &self.next_update,
            "-out",
            &text(&out),
        ]);
        fs::read_to_string(out).expect("openssl wrote the list")
    }
}
