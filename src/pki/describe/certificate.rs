//! Certificates: what they say, and who the gateway would take their owner for.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::super::DAY;
use super::super::x509::Facts;
use super::{Context, Report, date, printable, sha256_hex};
use crate::identity::{PeerIdentity, display_name};
use crate::tls::issue::{PublicKey, verified_path};

pub(super) fn describe(report: &mut Report, place: &str, facts: &Facts, chain: &[&Facts], context: &Context) {
    let role = role(facts);
    report.heading(place, role.heading());
    report.line("subject", &facts.subject);
    report.line("issuer", &display_name(&facts.issuer_der));
    report.line("serial", &facts.serial.to_string());
    report.line("valid", &validity(facts, context.now));
    names(report, facts);
    if let Ok(key) = PublicKey::from_der(&facts.spki_der) {
        report.line("key", &format!("{}, spki {}", key.describe(), sha256_hex(&facts.spki_der)));
    }
    report.line("fingerprint", &sha256_hex(&facts.der));
    dates(report, facts, context.now);
    match role {
        Role::Authority => {}
        Role::Server => server(report, facts),
        Role::Client => client(report, facts, chain, context),
    }
}

#[derive(Clone, Copy)]
enum Role {
    Authority,
    Server,
    Client,
}

impl Role {
    fn heading(self) -> &'static str {
        match self {
            Self::Authority => "certificate of a CA",
            Self::Server => "certificate of a server",
            Self::Client => "certificate",
        }
    }
}

/// A server is what says so and doesn't say client: whatever else a leaf is, it could be shown to the gateway.
fn role(facts: &Facts) -> Role {
    if facts.is_ca {
        return Role::Authority;
    }
    let parsed = X509Certificate::from_der(&facts.der).ok().map(|(_, certificate)| certificate);
    let usage = parsed.as_ref().and_then(|certificate| certificate.extended_key_usage().ok().flatten());
    match usage {
        Some(usage) if usage.value.server_auth && !usage.value.client_auth => Role::Server,
        _ => Role::Client,
    }
}

fn validity(facts: &Facts, now: i64) -> String {
    let left = facts.not_after - now;
    let rest = match left {
        _ if facts.not_before > now => "not yet".to_owned(),
        ..0 => format!("over for {} days", -left / DAY),
        left => format!("{} days left", left / DAY),
    };
    format!("{} to {} ({rest})", date(facts.not_before), date(facts.not_after))
}

fn names(report: &mut Report, facts: &Facts) {
    let dns = facts.dns.iter().map(|name| format!("DNS:{name}"));
    let ips = facts.ips.iter().map(|ip| format!("IP:{ip}"));
    let uris = facts.uris.iter().map(|uri| format!("URI:{uri}"));
    let all: Vec<_> = dns.chain(ips).chain(uris).collect();
    if !all.is_empty() {
        report.line("names", &printable(&all.join(", ")));
    }
}

fn dates(report: &mut Report, facts: &Facts, now: i64) {
    if facts.not_after < now {
        report.fault("it has expired");
    } else if facts.not_before > now {
        report.fault("it is not valid yet: is the clock right?");
    }
}

fn server(report: &mut Report, facts: &Facts) {
    if facts.dns.is_empty() && facts.ips.is_empty() {
        report.fault("it has no SAN, and clients don't look at the CN: none of them will accept it");
    }
}

/// The gateway's own steps: the path, the names, revocation.
fn client(report: &mut Report, facts: &Facts, chain: &[&Facts], context: &Context) {
    let others: Vec<Vec<u8>> =
        chain.iter().filter(|other| other.der != facts.der).map(|other| other.der.clone()).collect();
    let path = match &context.trust {
        Some(trust) => match verified_path(&facts.der, &others, trust) {
            Ok(path) => path,
            Err(cause) => return report.fault(&format!("the gateway refuses it: {cause}")),
        },
        // Without a bundle the certificate is judged by itself; it stands for its issuer, of which nothing is asked.
        None => vec![facts.der.clone(), facts.der.clone()],
    };
    let ders: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
    let identity = match PeerIdentity::from_path(&ders, &context.rules) {
        Ok(identity) => identity,
        Err(fault) => return report.fault(&format!("the gateway refuses it: {fault}")),
    };
    report.line("identity", identity.label());
    for attribute in &identity.subject {
        report.line("", &format!("subject {}={}", attribute.name, attribute.value));
    }
    for (kind, values) in [("dns", &identity.dns), ("uri", &identity.uris), ("email", &identity.emails)] {
        for value in values {
            report.line("", &format!("{kind} {value}"));
        }
    }
    identity.ips.iter().for_each(|ip| report.line("", &format!("ip {ip}")));
    if context.trust.is_none() {
        report.line("path", "not checked: give the gateway's client_ca with --ca");
        return;
    }
    let names: Vec<_> = identity.path.iter().map(|certificate| certificate.subject.as_str()).collect();
    report.line("path", &names.join(" <- "));
    if !context.revocation.is_enabled() {
        report.line("revocation", "not checked: give the gateway's lists with --crl");
        return;
    }
    match context.revocation.check(&identity.path, context.now) {
        Ok(()) => report.line("revocation", "not revoked"),
        Err(refusal) => report.fault(&format!("the gateway refuses it: {refusal}")),
    }
}
