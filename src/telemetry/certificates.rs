//! The certificates of the configuration.

use super::label::labels;

labels! {
    /// What a certificate whose expiry is watched is for.
    pub enum CertificateKind {
        /// Presented to clients.
        Server = "server",
        /// An anchor or intermediate clients are verified against.
        ClientCa = "client_ca",
        /// Presented to administrators.
        Admin = "admin",
        /// An anchor or intermediate administrators are verified against.
        AdminCa = "admin_ca",
        /// Presented to an upstream.
        UpstreamClient = "upstream_client",
        /// An anchor an upstream is verified against.
        UpstreamCa = "upstream_ca",
    }
}
