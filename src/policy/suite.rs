//! Requests with the answers that a policy should give: what `portcullis policy test` runs.
//!
//! [`compile`] turns a case file into a [`Suite`] or into the list of all its mistakes; a [`Suite`] runs against the
//! policy that it was compiled for. Certificates are read by the caller.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::config::policy::cases::{CaseFile, CasesFile, ExpectFile, Texts};
use crate::config::{Fault, TlsVersion};
use crate::identity::PeerIdentity;
use crate::oci::{self, ErrorCode, Route, RouteError};

use super::decide::{DEFAULT_DENY, Decision, Facts, IMMUTABLE_RULE, KnownTags, PING_RULE, TlsFacts};
use super::describe::describe;
use super::rule::{Policy, Rule};
use super::suggest::did_you_mean;
use super::times;

/// The address that a client connects from where nothing is said: none at all.
pub const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A request as a line: method and target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method as it is sent.
    pub method: String,
    /// Path and query as they are sent.
    pub target: String,
}

impl Request {
    /// A request from its method and its URL, of which scheme and host are left out: policies don't look at them.
    ///
    /// # Errors
    /// What is wrong with them, as a fragment of a sentence. Whether the registry's API has such a request is asked
    /// later.
    pub fn new(method: &str, url: &str) -> Result<Self, String> {
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(format!("\"{}\" is no method: GET, HEAD, POST, PUT, PATCH or DELETE", method.escape_debug()));
        }
        let target = match url.split_once("://") {
            Some(("http" | "https", rest)) => rest.find('/').and_then(|start| rest.get(start..)).unwrap_or("/"),
            _ => url,
        };
        if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            let target = target.escape_debug();
            return Err(format!("\"{target}\" is no URL or path: /v2/<repository>/manifests/<tag>, for instance"));
        }
        Ok(Self { method: method.to_owned(), target: target.to_owned() })
    }

    /// What the request asks of a registry.
    ///
    /// # Errors
    /// Why the gateway refuses it whatever the policy says.
    pub fn route(&self) -> Result<Route, RouteError> {
        let (path, query) =
            self.target.split_once('?').map_or((&*self.target, None), |(path, query)| (path, Some(query)));
        oci::route(&self.method, path, query)
    }
}

/// A checked case file.
#[derive(Debug)]
pub struct Suite {
    cases: Vec<Case>,
}

#[derive(Debug)]
struct Case {
    name: String,
    client: PeerIdentity,
    address: IpAddr,
    /// In unix seconds; none is now.
    at: Option<u64>,
    tls: TlsVersion,
    exists: Option<bool>,
    requests: Vec<Request>,
    expected: Expected,
}

/// What a case expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// How the request comes out.
    pub verdict: Verdict,
    /// By which rule; none if that doesn't matter.
    pub rule: Option<String>,
}

/// How a request comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The policy lets it through.
    Allow,
    /// The policy refuses it.
    Deny,
    /// It is no request of the registry's API; the policy isn't asked.
    Invalid,
}

impl Verdict {
    /// The word for it, as case files have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Invalid => "invalid",
        }
    }
}

/// One request of a case, and what became of it.
#[derive(Debug)]
pub struct Outcome<'s> {
    /// Where the request stands in the case file: `cases[3].requests[0]`.
    pub key: String,
    /// The case's name.
    pub case: &'s str,
    /// The request.
    pub request: &'s Request,
    /// What the case expects.
    pub expected: &'s Expected,
    /// What the policy said.
    pub verdict: Verdict,
    /// The rule that said it, `default deny`, or the error's code for a request that is invalid.
    pub rule: String,
    /// The refusal's text, and which answer it is where that depends on whether a tag exists.
    pub message: String,
}

impl Outcome<'_> {
    /// Whether it is what the case expects.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        self.expected.is_met_by(self.verdict, &self.rule)
    }
}

impl Expected {
    fn is_met_by(&self, verdict: Verdict, rule: &str) -> bool {
        verdict == self.verdict && self.rule.as_deref().is_none_or(|expected| expected == rule)
    }
}

impl Suite {
    /// Asks the policy about every request, in the order of the file. `now` is in unix seconds.
    #[must_use]
    pub fn run(&self, policy: &Policy, now: u64) -> Vec<Outcome<'_>> {
        let mut outcomes = Vec::new();
        for (i, case) in self.cases.iter().enumerate() {
            for (k, request) in case.requests.iter().enumerate() {
                let (verdict, rule, message) = match request.route() {
                    Ok(route) => case.ask(policy, &route, now),
                    Err(RouteError { code, message, .. }) => {
                        (Verdict::Invalid, code.as_str().to_owned(), message.into_owned())
                    }
                };
                let key = format!("cases[{i}].requests[{k}]");
                let Case { name, expected, .. } = case;
                outcomes.push(Outcome { key, case: name, request, expected, verdict, rule, message });
            }
        }
        outcomes
    }
}

impl Case {
    /// The policy's answer. Where it depends on whether a tag exists and the case doesn't say, it is the one that isn't
    /// expected, if there is one.
    fn ask(&self, policy: &Policy, route: &Route, now: u64) -> (Verdict, String, String) {
        let Self { address, at, tls, exists, .. } = *self;
        let facts = Circumstances { address, at: at.unwrap_or(now), tls, exists }.facts(&self.client);
        let asked = |facts: &Facts<'_>| judged(policy.decide_route(route.clone(), facts).1);
        if self.exists.is_some() || !matches!(policy.decide_route(route.clone(), &facts).1, Decision::Needs(_)) {
            return asked(&facts);
        }
        let answer = |exists, what| {
            let (verdict, rule, message) = asked(&Facts { tags: KnownTags::All(exists), ..facts });
            let message = if message.is_empty() { "allowed".to_owned() } else { message };
            (verdict, rule, format!("for a tag that {what}: {message}"))
        };
        let (new, existing) = (answer(false, "doesn't exist"), answer(true, "exists"));
        if self.expected.is_met_by(new.0, &new.1) { existing } else { new }
    }
}

fn judged(decision: Decision) -> (Verdict, String, String) {
    match decision {
        Decision::Permit(permit) => (Verdict::Allow, permit.rule().to_owned(), String::new()),
        Decision::Reject(rejection) => (Verdict::Deny, rejection.rule().to_owned(), rejection.to_string()),
        // What isn't looked up isn't allowed, here as in the gateway.
        Decision::Needs(_) => (Verdict::Deny, DEFAULT_DENY.to_owned(), "the decision needs the upstream".to_owned()),
    }
}

/// Under which a request is made, as far as policies look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// Where the client connects from.
    pub address: IpAddr,
    /// The time, in unix seconds.
    pub at: u64,
    /// The TLS version of the connection.
    pub tls: TlsVersion,
    /// Whether the tags that are pushed exist; none is either.
    pub exists: Option<bool>,
}

impl Circumstances {
    /// The facts of a request by this client.
    #[must_use]
    pub fn facts(self, identity: &PeerIdentity) -> Facts<'_> {
        let version = match self.tls {
            TlsVersion::Tls12 => "TLSv1.2",
            TlsVersion::Tls13 => "TLSv1.3",
        };
        Facts {
            tls: TlsFacts::new(version),
            tags: self.exists.map_or(KnownTags::Nothing, KnownTags::All),
            ..facts(identity, self.address, self.at)
        }
    }
}

/// The facts of a request by a client that isn't connected.
#[must_use]
pub fn facts(identity: &PeerIdentity, client: IpAddr, now: u64) -> Facts<'_> {
    Facts {
        identity,
        standing: None,
        accesses: &[],
        now,
        client,
        tls: TlsFacts::new("TLSv1.3"),
        tags: KnownTags::Nothing,
    }
}

/// Checks a case file as a whole. `read_certificate` makes an identity of a certificate file's name.
///
/// # Errors
/// All faults of the file, each with its key.
pub fn compile(
    file: &CasesFile,
    policy: &Policy,
    read_certificate: &dyn Fn(&str) -> Result<PeerIdentity, String>,
) -> Result<Suite, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut clients = BTreeMap::new();
    for (name, client) in &file.clients {
        clients.insert(name.as_str(), describe(client, &format!("clients.{name}"), read_certificate, &mut faults));
    }
    if file.cases.is_empty() {
        faults.push(Fault::new("cases", "is empty: nothing would be tested"));
    }
    let mut names = BTreeMap::new();
    let mut cases = Vec::with_capacity(file.cases.len());
    for (i, case) in file.cases.iter().enumerate() {
        let path = format!("cases[{i}]");
        if let Some(first) = names.insert(case.name.as_str(), i) {
            let message = format!("\"{}\" is also the name of cases[{first}]: names must be unique", case.name);
            faults.push(Fault::new(format!("{path}.name"), message));
        }
        cases.extend(compile_case(case, &path, &clients, policy, &mut faults));
    }
    if faults.is_empty() { Ok(Suite { cases }) } else { Err(faults) }
}

fn compile_case(
    case: &CaseFile,
    path: &str,
    clients: &BTreeMap<&str, Option<PeerIdentity>>,
    policy: &Policy,
    faults: &mut Vec<Fault>,
) -> Option<Case> {
    if case.name.trim().is_empty() || case.name.chars().any(char::is_control) {
        faults.push(Fault::new(format!("{path}.name"), "must be some printable text on one line"));
    }
    let client = clients.get(case.client.as_str()).cloned().unwrap_or_else(|| {
        let hint = did_you_mean(&case.client, clients.keys().copied());
        faults.push(Fault::new(format!("{path}.client"), format!("unknown client \"{}\"{hint}", case.client)));
        None
    });
    let address = case.address.as_deref().map_or(Ok(NO_ADDRESS), str::parse);
    if address.is_err() {
        faults.push(Fault::new(format!("{path}.address"), "must be an IP address, such as 192.0.2.7"));
    }
    let at = case.at.as_deref().map(times::instant).transpose();
    let at = at.map_err(|message| faults.push(Fault::new(format!("{path}.at"), message)));
    let requests = compile_requests(&case.requests, path, faults);
    let expected = Expected { verdict: case.expect.into(), rule: case.rule.clone() };
    check_rule(&expected, policy, &format!("{path}.rule"), faults);
    Some(Case {
        name: case.name.clone(),
        client: client?,
        address: address.ok()?,
        at: at.ok()?,
        tls: case.tls.unwrap_or(TlsVersion::Tls13),
        exists: case.exists,
        requests,
        expected,
    })
}

fn compile_requests(lines: &Texts, path: &str, faults: &mut Vec<Fault>) -> Vec<Request> {
    if lines.is_empty() {
        faults.push(Fault::new(format!("{path}.requests"), "is empty: name at least one request"));
    }
    let mut requests = Vec::with_capacity(lines.len());
    for (at, line) in lines.with_paths(&format!("{path}.requests")) {
        let request = match line.split_once(' ') {
            Some((method, url)) => Request::new(method, url.trim()),
            None => Err(format!("\"{line}\" must be a method and a path, such as GET /v2/team/app/manifests/v1")),
        };
        match request {
            Ok(request) => requests.push(request),
            Err(message) => faults.push(Fault::new(at, message)),
        }
    }
    requests
}

/// An expected rule that can't be what decides would make a case fail for ever, or for the wrong reason.
fn check_rule(expected: &Expected, policy: &Policy, path: &str, faults: &mut Vec<Fault>) {
    let Some(name) = expected.rule.as_deref() else { return };
    if expected.verdict == Verdict::Invalid {
        if !ErrorCode::ALL.iter().any(|code| code.as_str() == name) {
            faults
                .push(Fault::new(path, "an invalid request meets no rule: remove this key, or name the error's code"));
        }
    } else if ![PING_RULE, DEFAULT_DENY, IMMUTABLE_RULE].contains(&name)
        && !policy.rules().any(|rule| rule.name() == name)
    {
        let hint = did_you_mean(name, policy.rules().map(Rule::name).chain([DEFAULT_DENY]));
        faults.push(Fault::new(path, format!("the policy has no rule \"{name}\"{hint}")));
    }
}

impl From<ExpectFile> for Verdict {
    fn from(expect: ExpectFile) -> Self {
        match expect {
            ExpectFile::Allow => Self::Allow,
            ExpectFile::Deny => Self::Deny,
            ExpectFile::Invalid => Self::Invalid,
        }
    }
}
