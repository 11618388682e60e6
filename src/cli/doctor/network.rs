//! The way to the server: name, connection, handshake, request.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::Target;
use super::http;
use super::material::Identity;
use super::report::{Check, Report};
use crate::identity::{canonical_name, display_name};
use crate::pki::Facts;
use crate::tls::Stream;
use crate::tls::probe::{Broken, ClientSide, Seen, probe, refusal};

/// Both versions, as clients that can choose offer them.
const ALPN_BOTH: &[u8] = b"\x02h2\x08http/1.1";
/// As docker offers with a client certificate.
const ALPN_HTTP1: &[u8] = b"\x08http/1.1";

/// Where to go, and with what.
pub(super) struct Journey<'a> {
    pub(super) target: &'a Target,
    /// In place of what the name resolves to.
    pub(super) at: Option<Target>,
    pub(super) identity: Option<&'a Identity>,
    pub(super) roots: &'a [Vec<u8>],
    /// For each step.
    pub(super) patience: Duration,
    /// Unix seconds.
    pub(super) now: i64,
}

impl Journey<'_> {
    /// Goes as far as there is a way.
    pub(super) async fn go(&self, report: &mut Report) {
        let Some(addresses) = self.resolve(report).await else { return };
        let Some(address) = self.connect(report, &addresses).await else { return };
        let Some((seen, stream)) = self.shake_hands(report, address).await else { return };
        self.judge_server(report, &seen);
        self.judge_request(report, &seen);
        let version = if seen.http2 { "HTTP/2; docker and containerd use HTTP/1.1 here" } else { "HTTP/1.1" };
        report.ok(Check::HttpVersion, version);
        let stream = if seen.http2 { self.again(report, address).await } else { Some(stream) };
        if let Some(stream) = stream {
            self.ask(report, stream, &seen).await;
        }
    }

    async fn resolve(&self, report: &mut Report) -> Option<Vec<SocketAddr>> {
        let to = self.at.as_ref().unwrap_or(self.target);
        if let Some(address) = to.address() {
            return Some(vec![SocketAddr::new(address, to.port())]);
        }
        let host = &to.host;
        let found = within(self.patience, lookup_host((host.as_str(), to.port()))).await;
        match found.map(Iterator::collect::<Vec<_>>) {
            Ok(addresses) if !addresses.is_empty() => {
                let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
                report.ok(Check::Dns, format!("{host} is {}", list.join(", ")));
                Some(addresses)
            }
            outcome => {
                let why = outcome.err().map(|e| format!(": {e}")).unwrap_or_default();
                let remedy = "is the name spelt as in its DNS, and does this machine ask the right server?";
                report.fail(Check::Dns, format!("{host} does not resolve{why}"), remedy);
                None
            }
        }
    }

    /// The first address where somebody listens.
    async fn connect(&self, report: &mut Report, addresses: &[SocketAddr]) -> Option<SocketAddr> {
        let mut deaf = Vec::new();
        let mut connected = None;
        for &address in addresses {
            match within(self.patience, TcpStream::connect(address)).await {
                Ok(_) if connected.is_none() => connected = Some(address),
                Ok(_) => {}
                Err(e) => deaf.push(format!("{address}: {e}")),
            }
        }
        let deaf = deaf.join("; ");
        let Some(address) = connected else {
            let remedy = "is the gateway running, is the port right, and does a firewall let this machine through?";
            report.fail(Check::Connect, deaf, remedy);
            return None;
        };
        if deaf.is_empty() {
            report.ok(Check::Connect, format!("somebody listens on {address}"));
        } else {
            report.warn(
                Check::Connect,
                deaf,
                "clients that take this address first are slow, or fail: correct the DNS",
            );
        }
        if address.ip().is_loopback() && self.at.is_none() {
            let remedy = "run it under a name that resolves to another address";
            let detail = "dockerd takes a registry on this machine for an insecure one and shows it no certificate";
            report.warn(Check::Connect, detail, remedy);
        }
        Some(address)
    }

    fn side(&self, alpn: &'static [u8]) -> ClientSide<'_> {
        ClientSide {
            // Without the dot of an absolute name, as in RFC 6066 §3.
            server_name: self.target.address().is_none().then_some(self.target.host.trim_end_matches('.')),
            roots: self.roots,
            identity: self.identity.map(|identity| (identity.chain.as_slice(), &identity.key)),
            alpn,
        }
    }

    async fn shake_hands(&self, report: &mut Report, address: SocketAddr) -> Option<(Seen, Stream<TcpStream>)> {
        match self.handshake(address, ALPN_BOTH).await {
            Ok((seen, Ok(stream))) => {
                report.ok(Check::Tls, format!("{} with {address}", seen.version));
                Some((seen, stream))
            }
            Ok((seen, Err(broken))) => {
                self.judge_server(report, &seen);
                if seen.asked.is_some() {
                    self.judge_request(report, &seen);
                }
                if broken.alert.is_none() && self.speaks_plain_http(address).await {
                    let remedy =
                        "this is the registry itself, or another port of the gateway: clients need the one with TLS";
                    report.fail(Check::Tls, format!("{address} speaks HTTP without TLS"), remedy);
                } else {
                    self.explain(report, &broken, &seen);
                }
                None
            }
            Err(message) => {
                report.fail(Check::Tls, message, "look at the certificate and the key above");
                None
            }
        }
    }

    async fn handshake(
        &self,
        address: SocketAddr,
        alpn: &'static [u8],
    ) -> Result<(Seen, Result<Stream<TcpStream>, Broken>), String> {
        let side = self.side(alpn);
        let tcp = within(self.patience, TcpStream::connect(address)).await.map_err(|e| e.to_string())?;
        match timeout(self.patience, Box::pin(probe(&side, tcp))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("{address} takes connections, but doesn't answer a TLS handshake")),
        }
    }

    /// The same with the version that docker uses.
    async fn again(&self, report: &mut Report, address: SocketAddr) -> Option<Stream<TcpStream>> {
        match self.handshake(address, ALPN_HTTP1).await {
            Ok((_, Ok(stream))) => return Some(stream),
            Ok((seen, Err(broken))) => self.explain(report, &broken, &seen),
            Err(message) => report.fail(Check::Tls, message, "try again"),
        }
        None
    }

    async fn speaks_plain_http(&self, address: SocketAddr) -> bool {
        let ask = async {
            let mut tcp = TcpStream::connect(address).await?;
            http::ask(&mut tcp, &self.target.to_string()).await
        };
        within(self.patience, ask).await.is_ok()
    }

    fn judge_server(&self, report: &mut Report, seen: &Seen) {
        let Some(leaf) = seen.path.first().and_then(|der| Facts::of(der)) else { return };
        let issuer = display_name(&leaf.issuer_der);
        match &seen.distrust {
            None => report.ok(Check::ServerCertificate, format!("{}, issued by {issuer}, is trusted", leaf.subject)),
            Some(_) if leaf.not_after < self.now || leaf.not_before > self.now => {
                let detail = format!("{} is not valid now", leaf.subject);
                report.fail(
                    Check::ServerCertificate,
                    detail,
                    "set this machine's clock, or tell the operator to renew it",
                );
            }
            Some(cause) => {
                let detail = format!("{}, issued by {issuer}, is not trusted: {cause}", leaf.subject);
                let remedy = "put the certificate of its CA into ca.crt; the gateway should send its intermediates";
                report.fail(Check::ServerCertificate, detail, remedy);
            }
        }
        let names: Vec<_> = leaf.dns.iter().cloned().chain(leaf.ips.iter().map(ToString::to_string)).collect();
        if is_for(&leaf.dns, &leaf.ips, self.target) {
            report.ok(Check::ServerName, format!("it is for {}", self.target.host));
        } else if names.is_empty() {
            let remedy = "have the operator issue one with subject alternative names: the CN doesn't count";
            report.fail(Check::ServerName, "it has no SAN", remedy);
        } else {
            let detail = format!("it is for {}, not for {}", names.join(", "), self.target.host);
            report.fail(Check::ServerName, detail, "name images by one of these, or have this name added to it");
        }
    }

    fn judge_request(&self, report: &mut Report, seen: &Seen) {
        let Some(asked) = &seen.asked else {
            let remedy = "this isn't the gateway, or something before it ends TLS, and the certificate gets no further";
            return report.fail(Check::CertificateRequest, "the server asks for no client certificate", remedy);
        };
        let names: Vec<_> = asked.iter().map(|name| display_name(name)).collect();
        let names = if names.is_empty() { "any CA".to_owned() } else { names.join("; ") };
        report.ok(Check::CertificateRequest, format!("the server asks for a certificate of {names}"));
        let Some(identity) = self.identity else { return };
        let same = |one: &[u8], other: &[u8]| {
            one == other || canonical_name(one).is_ok_and(|one| canonical_name(other).is_ok_and(|other| one == other))
        };
        if asked.is_empty() || identity.issuers.iter().any(|issuer| asked.iter().any(|name| same(issuer, name))) {
            return report.ok(Check::Issuer, "this client's certificate is of such a CA");
        }
        let issuer = identity.issuers.last().map(|name| display_name(name)).unwrap_or_default();
        let detail = format!("this client's certificate leads to {issuer}: docker would not even show it");
        let remedy = format!(
            "get one from {names}; if that CA is above {issuer}, append the certificate of {issuer} to client.cert"
        );
        report.fail(Check::Issuer, detail, remedy);
    }

    async fn ask(&self, report: &mut Report, mut stream: Stream<TcpStream>, seen: &Seen) {
        match within(self.patience, http::ask(&mut stream, &self.target.to_string())).await {
            Ok(answer) => {
                if self.identity.is_some() && seen.asked.is_some() {
                    report.ok(Check::ClientCertificate, "the server took it");
                }
                answer.judge(report, self.identity.is_some());
                answer.clock(report, self.now);
            }
            Err(e) => self.explain(report, &refusal(&e), seen),
        }
    }

    /// Why the server ended it.
    fn explain(&self, report: &mut Report, broken: &Broken, seen: &Seen) {
        let Some(alert) = broken.alert else {
            let remedy = if seen.asked.is_some() && self.identity.is_none() {
                "it asks for a client certificate, and there is none: see above"
            } else {
                "is this the gateway's port? Its log names the reason of a refused handshake"
            };
            return report.fail(Check::Tls, format!("no answer: {}", broken.text), remedy);
        };
        let (check, name, remedy) = meaning(alert, self.identity.is_some());
        report.fail(check, format!("the server says {name} (alert {alert})"), remedy);
    }
}

/// RFC 8446 §6.2, and what mostly is behind it.
fn meaning(alert: u8, identified: bool) -> (Check, &'static str, &'static str) {
    use Check::{ClientCertificate, Tls};
    match alert {
        116 | 40 if !identified => (
            ClientCertificate,
            "certificate_required",
            "show a client certificate: correct what is wrong with the files above",
        ),
        116 => (
            ClientCertificate,
            "certificate_required",
            "the certificate was not shown; was its issuer asked for? See above",
        ),
        42 => (
            ClientCertificate,
            "bad_certificate",
            "the gateway refuses this certificate: weak, of version 1, without a name, or not valid yet; its log says which",
        ),
        43 => {
            (ClientCertificate, "unsupported_certificate", "it is not for TLS clients: have one issued with clientAuth")
        }
        44 => (ClientCertificate, "certificate_revoked", "it was revoked: ask the CA for a new one"),
        45 => (
            ClientCertificate,
            "certificate_expired",
            "renew it (portcullis pki renew), or set the clock that is wrong",
        ),
        46 => (
            ClientCertificate,
            "certificate_unknown",
            "whether it is revoked can't be known: the operator should look at the revocation lists",
        ),
        48 => (
            ClientCertificate,
            "unknown_ca",
            "the gateway doesn't trust its issuer, or an intermediate is missing from client.cert",
        ),
        49 => (ClientCertificate, "access_denied", "the server refuses this client: ask its operator"),
        47 => (
            ClientCertificate,
            "illegal_parameter",
            "the certificate's key usage doesn't allow signatures: issue it anew",
        ),
        50 | 51 => (
            ClientCertificate,
            "decrypt_error",
            "the proof of the key is wrong: certificate and key don't belong together",
        ),
        70 => (Tls, "protocol_version", "the server speaks no TLS version from 1.2 on"),
        112 => (Tls, "unrecognized_name", "the server has no certificate for this name: is it spelt right?"),
        40 => {
            (Tls, "handshake_failure", "there is no cipher or signature in common, or it misses the client certificate")
        }
        _ => (Tls, "no to this handshake", "its log names the reason"),
    }
}

/// Whether a certificate is for this host (RFC 9525): an exact name, or `*` for the whole first label.
fn is_for(dns: &[String], ips: &[IpAddr], target: &Target) -> bool {
    if let Some(address) = target.address() {
        return ips.contains(&address);
    }
    let host = target.host.trim_end_matches('.');
    dns.iter().map(|name| name.to_ascii_lowercase()).any(|name| match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => name == host,
    })
}

/// What takes longer has failed.
async fn within<T>(patience: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(patience, step).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_clients_do() {
        let target = |text: &str| Target::of(&text.parse().expect(text));
        let ips: [IpAddr; 1] = [[10, 0, 0, 1].into()];
        for (name, host, fits) in [
            ("registry.example.com", "registry.example.com", true),
            ("Registry.Example.com", "registry.example.com:5000", true),
            ("*.example.com", "registry.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.b.example.com", false),
            ("example.com", "registry.example.com", false),
            ("r*.example.com", "registry.example.com", false),
            ("10.0.0.2", "10.0.0.2", false),
            ("registry.example.com", "10.0.0.1:443", true),
            ("registry.example.com", "[::1]:443", false),
        ] {
            assert_eq!(is_for(&[name.to_owned()], &ips, &target(host)), fits, "{name} {host}");
        }
    }

    #[test]
    fn alerts_about_certificates_are_the_clients_and_the_rest_is_not() {
        for alert in [42, 43, 44, 45, 46, 48, 116] {
            assert_eq!(meaning(alert, true).0, Check::ClientCertificate, "{alert}");
        }
        for alert in [40, 70, 80, 112] {
            assert_eq!(meaning(alert, true).0, Check::Tls, "{alert}");
        }
        assert_eq!(meaning(40, false).0, Check::ClientCertificate, "TLS 1.2 has no word for a missing certificate");
    }
}
