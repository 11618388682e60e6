//! The side that clients see.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{ByteSize, HumanDuration};

/// Where clients connect.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Names the listener in logs and access records; null is listener-1, listener-2 and so on.
    #[serde(default)]
    #[schemars(example = &"main")]
    pub name: Option<String>,

    /// IP addresses and ports; IPv6 in quotes, as in `"[::]:443"`. Changes need an upgrade or a restart.
    #[schemars(length(min = 1), extend("examples" = [["0.0.0.0:443", "[::]:443"]]))]
    pub addresses: Vec<String>,

    /// The upstream for requests that no upstream claims by host or repository; may be null if there is only one.
    #[serde(default)]
    #[schemars(example = &"registry")]
    pub upstream: Option<String>,

    /// Believe load balancers that tell by the PROXY protocol (versions 1 and 2) whose connections they pass on; null is
    /// never.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,

    /// Certificates shown and asked for.
    pub tls: ListenerTls,
}

/// Load balancers in front of a listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Addresses and networks of the load balancers. Connections from there must begin with a header, and the address in
    /// it is the client's in limits, logs, access records and X-Forwarded-For. All others are ordinary clients, and a
    /// header that one of them sends is refused.
    #[schemars(length(min = 1), extend("examples" = [["10.0.0.0/24", "2001:db8::7"]]))]
    pub trusted_sources: Vec<String>,
}

/// Certificates shown and asked for.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// Server certificates, chosen by the name the client asks for (SNI). The first serves clients that send no name or
    /// an unknown one. An RSA and an ECDSA certificate may share a name.
    #[schemars(length(min = 1))]
    pub certificates: Vec<ServerCertificate>,

    /// PEM bundle of the roots that client certificates must lead to, and of intermediates that clients may leave out.
    #[schemars(example = &"client-ca.pem")]
    pub client_ca: PathBuf,

    /// The oldest TLS version accepted.
    #[serde(default)]
    pub min_version: TlsVersion,

    /// OpenSSL cipher list for TLS 1.2; null is Mozilla's intermediate set. TLS 1.3 has no weak suites to leave out.
    #[serde(default)]
    #[schemars(example = &"ECDHE+AESGCM:ECDHE+CHACHA20")]
    pub ciphers: Option<String>,

    /// How many intermediates a client's path may have at most.
    #[serde(default = "verify_depth")]
    #[schemars(range(max = 16))]
    pub verify_depth: u32,

    /// How much certificate data a client may send at most.
    #[serde(default = "max_client_chain")]
    pub max_client_chain: ByteSize,

    /// Refuse client certificates without an extended key usage. One that is there must allow clientAuth in any case.
    #[serde(default)]
    pub require_eku: bool,

    /// Accept X.509 version 1 client certificates, which can't carry usages or alternative names. "openssl x509 -req"
    /// makes them unless told -extfile.
    #[serde(default)]
    pub allow_v1: bool,

    /// Issue session tickets. They end when the trust bundle changes or a certificate is revoked.
    #[serde(default = "enabled")]
    pub session_tickets: bool,

    /// How long a ticket key is used for new tickets; it is made in memory, and its tickets are accepted once as long
    /// again.
    #[serde(default = "ticket_key_lifetime")]
    pub ticket_key_lifetime: HumanDuration,
}

/// A server certificate with its key.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerCertificate {
    /// PEM file: the certificate first, then intermediates.
    #[schemars(example = &"server.crt")]
    pub certificate: PathBuf,

    /// PEM file with the private key.
    #[schemars(example = &"server.key")]
    pub key: PathBuf,

    /// The names it is chosen for, such as registry.example.com or *.example.com; empty takes the DNS names of the
    /// certificate.
    #[serde(default)]
    pub names: Vec<String>,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

const fn enabled() -> bool {
    true
}

const fn verify_depth() -> u32 {
    4
}

const fn max_client_chain() -> ByteSize {
    ByteSize::from_kib(32)
}

const fn ticket_key_lifetime() -> HumanDuration {
    HumanDuration::from_secs(12 * 60 * 60)
}
