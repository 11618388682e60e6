//! The case file of `portcullis policy test` as it is written. [`crate::policy::suite`] checks it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::TlsVersion;

/// Requests, and what the policy should answer to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CasesFile {
    /// The policy file. A relative path starts at this file's directory. `--policy` takes its place.
    pub policy: Option<String>,
    /// The clients that the cases are about, by a name for each.
    #[serde(default)]
    pub clients: BTreeMap<String, ClientFile>,
    /// The cases.
    pub cases: Vec<CaseFile>,
}

/// A client, by its certificate or by what would stand in it.
///
/// Several names of one kind are written as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    /// A file with the client's certificate in PEM or DER; the first certificate counts. A relative path starts at this
    /// file's directory. It stands alone: the other keys describe clients without a certificate.
    pub certificate: Option<String>,
    /// Attributes of the subject: `CN=ci-7`. The types are those of a policy's `subject`.
    #[serde(default)]
    pub subject: Texts,
    /// Attributes of the issuer's name, likewise.
    #[serde(default)]
    pub issuer: Texts,
    /// DNS names.
    #[serde(default)]
    pub dns: Texts,
    /// URIs, such as a SPIFFE ID.
    #[serde(default)]
    pub uri: Texts,
    /// Email addresses.
    #[serde(default)]
    pub email: Texts,
    /// IP addresses.
    #[serde(default)]
    pub ip: Texts,
    /// SHA-256 of the certificate: `sha256:` and 64 hexadecimal digits, with or without colons.
    pub fingerprint: Option<String>,
    /// SHA-256 of the certificate's public key, likewise.
    pub spki: Option<String>,
    /// When the certificate runs out: `2026-01-31T08:00:00Z`. For policies that look at it.
    pub not_after: Option<String>,
}

/// One expectation about one client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// A unique name, by which the results call the case.
    pub name: String,
    /// Who asks: a name from `clients`.
    pub client: String,
    /// The address that the client connects from, for policies that look at it.
    pub address: Option<String>,
    /// The time of the requests: `2026-01-31T08:00:00Z`. Left out, it is now.
    pub at: Option<String>,
    /// The TLS version of the connection; 1.3 if left out.
    pub tls: Option<TlsVersion>,
    /// Whether the tags that the requests push exist. Left out, they come out as expected either way.
    pub exists: Option<bool>,
    /// Method and path of each request, such as `GET /v2/team/app/manifests/v1`. All are expected to come out alike. A
    /// URL will do in place of the path; scheme and host are left out, since policies don't look at them.
    pub requests: Texts,
    /// How the requests come out.
    pub expect: ExpectFile,
    /// The rule that settles it, `default deny`, or `ping` for `/v2/` itself. Left out, any rule will do.
    pub rule: Option<String>,
}

/// How a request comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExpectFile {
    /// The policy lets it through.
    Allow,
    /// The policy refuses it.
    Deny,
    /// It is no request of the registry's API, and is refused before the policy is asked.
    Invalid,
}

/// A text, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Texts {
    /// A single one.
    One(String),
    /// Any number of them.
    Many(Vec<String>),
}

impl Texts {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(texts) => texts.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each text with its path: `path` itself for a single one, else `path[0]` and so on.
    pub fn with_paths(&self, path: &str) -> impl Iterator<Item = (String, &str)> {
        let (one, many) = match self {
            Self::One(text) => (Some((path.to_owned(), text.as_str())), [].as_slice()),
            Self::Many(texts) => (None, texts.as_slice()),
        };
        let many = many.iter().enumerate().map(move |(i, text)| (format!("{path}[{i}]"), text.as_str()));
        one.into_iter().chain(many)
    }
}

impl Default for Texts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}
