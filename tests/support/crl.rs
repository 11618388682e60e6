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

    /// Signs the list and returns its PEM.
    pub fn pem(self) -> String {
        let base = fresh(&self.ca.directory, "crl");
        let database: String = self.revoked.iter().fold(String::new(), |mut all, serial| {
            let _ = writeln!(all, "R\t890101000000Z\t260101000000Z\t{serial}\tunknown\t/CN=x");
            all
        });
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
