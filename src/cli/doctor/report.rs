//! What was found: one line a check.

use std::fmt::Write as _;

use serde::Serialize;

use crate::pki::printable;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// It works, or may, but not for long or not for everybody.
    Warn,
    /// This keeps clients from working.
    Fail,
}

/// What is looked at, in the order of a client's own steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Check {
    /// The directory of certs.d for the host.
    Directory,
    /// The names of the files in it.
    FileNames,
    /// Who may read and replace them.
    Permissions,
    /// The CAs that vouch for the server.
    Ca,
    /// The client's certificate by itself.
    Certificate,
    /// Its private key.
    Key,
    /// The certificates between it and its root.
    Chain,
    /// Dates against this machine's clock.
    Validity,
    /// Whether the name resolves.
    Dns,
    /// Whether somebody listens.
    Connect,
    /// The handshake up to where certificates matter.
    Tls,
    /// Whether the server's certificate leads to a CA of the client.
    ServerCertificate,
    /// Whether it is for this name.
    ServerName,
    /// Whether the server asks for a certificate.
    CertificateRequest,
    /// Whether it asks for one of this issuer.
    Issuer,
    /// Whether the server took the client's certificate.
    ClientCertificate,
    /// The version that both speak.
    HttpVersion,
    /// The answer to `/v2/`.
    Registry,
    /// This machine's clock against the server's.
    Clock,
}

impl Check {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::FileNames => "file-names",
            Self::Permissions => "permissions",
            Self::Ca => "ca",
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::Chain => "chain",
            Self::Validity => "validity",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::ServerCertificate => "server-certificate",
            Self::ServerName => "server-name",
            Self::CertificateRequest => "certificate-request",
            Self::Issuer => "issuer",
            Self::ClientCertificate => "client-certificate",
            Self::HttpVersion => "http-version",
            Self::Registry => "registry",
            Self::Clock => "clock",
        }
    }
}

#[derive(Debug, Serialize)]
struct Finding {
    check: Check,
    result: Verdict,
    detail: String,
    /// What to do; none where all is well.
    remedy: Option<String>,
}

/// All findings.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    host: String,
    failed: usize,
    warned: usize,
    checks: Vec<Finding>,
}

impl Report {
    pub(super) fn new(host: String) -> Self {
        Self { host, failed: 0, warned: 0, checks: Vec::new() }
    }

    pub(super) fn ok(&mut self, check: Check, detail: impl AsRef<str>) {
        self.add(check, Verdict::Ok, detail.as_ref(), None);
    }

    pub(super) fn warn(&mut self, check: Check, detail: impl AsRef<str>, remedy: impl AsRef<str>) {
        self.warned += 1;
        self.add(check, Verdict::Warn, detail.as_ref(), Some(remedy.as_ref()));
    }

    pub(super) fn fail(&mut self, check: Check, detail: impl AsRef<str>, remedy: impl AsRef<str>) {
        self.failed += 1;
        self.add(check, Verdict::Fail, detail.as_ref(), Some(remedy.as_ref()));
    }

    fn add(&mut self, check: Check, result: Verdict, detail: &str, remedy: Option<&str>) {
        // Names and messages come from files and from whoever answers: they must not control a terminal.
        let (detail, remedy) = (printable(detail), remedy.map(printable));
        self.checks.push(Finding { check, result, detail, remedy });
    }

    /// How many findings are not good.
    pub(super) fn faults(&self) -> usize {
        self.failed + self.warned
    }

    /// Whether nothing failed.
    pub(super) fn is_healthy(&self) -> bool {
        self.failed == 0
    }

    /// A line a finding, and one for the sum.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Finding { check, result, detail, remedy } in &self.checks {
            let result = match result {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            // Writing to a String can't fail, here and below.
            _ = write!(text, "{result:<5} {:<20} {detail}", check.as_str());
            _ = match remedy {
                Some(remedy) => writeln!(text, " -> {remedy}"),
                None => writeln!(text),
            };
        }
        let Self { host, failed, warned, .. } = self;
        _ = match (failed, warned) {
            (0, 0) => writeln!(text, "{host}: nothing is wrong"),
            _ => writeln!(text, "{host}: {failed} failed, {warned} to be looked at"),
        };
        text
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).map_or_else(|e| format!("{{\"error\":\"{e}\"}}\n"), |text| text + "\n")
    }
}
