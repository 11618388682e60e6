//! A client's certificate from a file, unverified.

use std::path::Path;

use x509_parser::pem::Pem;

use crate::config::{ByteSize, read_bounded};
use crate::identity::{CertificateFault, LeafRules, PeerIdentity};

/// More than any chain; what is larger is some other file.
const LIMIT: ByteSize = ByteSize::from_mib(1);

/// Why a file gives no identity.
pub(super) enum Problem {
    /// The file is none with a certificate. The path is not in the text.
    File(String),
    /// The gateway refuses this certificate in the handshake.
    Refused(CertificateFault),
}

/// Reads the first certificate of a file, PEM or DER. What else is in the file is passed over.
pub(super) fn read(path: &Path, rules: &LeafRules) -> Result<PeerIdentity, Problem> {
    let bytes = read_bounded(path, LIMIT).map_err(|error| Problem::File(error.to_string()))?;
    let leaf = if bytes.first() == Some(&0x30) { bytes } else { first_of_pem(&bytes).map_err(Problem::File)? };
    PeerIdentity::from_leaf(&leaf, rules).map_err(Problem::Refused)
}

fn first_of_pem(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut others = Vec::new();
    for block in Pem::iter_from_buffer(bytes) {
        let block = block.map_err(|error| format!("a PEM block can't be read ({error})"))?;
        match block.label.as_str() {
            "CERTIFICATE" | "X509 CERTIFICATE" => return Ok(block.contents),
            other => others.push(other.escape_default().to_string()),
        }
    }
    if others.is_empty() {
        return Err("this holds no certificate, neither PEM nor DER".to_owned());
    }
    Err(format!("this holds no certificate but: {}", others.join(", ")))
}
