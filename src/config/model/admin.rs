//! The listener for administration, and who may use it.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Administration.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// A loopback address and port, or unix:/path/to/socket; null is off. Who can connect may see identities and order a
    /// reload, so an address that other machines can reach is refused unless there is tls, and with it token_file or
    /// tls.client_ca. Changes need an upgrade or a restart.
    pub address: Option<String>,

    /// A file that holds a token of at least 32 characters and nothing else; a line ending after it is left out. Requests
    /// must then carry it: as "Authorization: Bearer …", or as a browser's password, with any user name. Null asks for none.
    #[schemars(example = &"admin-token")]
    pub token_file: Option<PathBuf>,

    /// Speak TLS. Null is plain HTTP, which loopback and a socket can do with.
    pub tls: Option<AdminTls>,
}

impl Default for Admin {
    fn default() -> Self {
        let address = Some(SocketAddr::from(([127, 0, 0, 1], 9091)).to_string());
        Self { address, token_file: None, tls: None }
    }
}

/// What the admin listener shows and asks for.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// PEM file: the certificate first, then intermediates.
    #[schemars(example = &"admin.crt")]
    pub certificate: PathBuf,

    /// PEM file with the private key.
    #[schemars(example = &"admin.key")]
    pub key: PathBuf,

    /// PEM bundle of the roots that administrators' certificates must lead to; revocation lists apply to them as to
    /// clients. Null asks for no certificate.
    #[serde(default)]
    #[schemars(example = &"admin-ca.pem")]
    pub client_ca: Option<PathBuf>,

    /// What administrators may be called, each as records name it (see clients.identity), such as CN=alice; empty lets in
    /// everybody whom client_ca vouches for, which then must not be a client_ca of a listener.
    #[serde(default)]
    #[schemars(extend("examples" = [["CN=alice", "spiffe://corp.example/ops"]]))]
    pub client_names: Vec<String>,
}
