//! PKCS #12: certificate, chain and key in one file, as key stores of operating systems, browsers and Java take it.

use super::super::lib::error::ErrorStack;
use super::super::lib::pkcs12::{Pkcs12, Pkcs12Builder};
use super::super::lib::stack::Stack;
use super::super::lib::x509::{X509, X509Ref};
use super::{IssueError, PrivateKey};
use crate::config::Secret;

/// Rounds of the key derivation: what is quick for the one who knows the passphrase and still read everywhere.
const ROUNDS: u32 = 100_000;

/// A PKCS #12 of a leaf (DER), its key and the certificates above it (PEM).
///
/// Key and certificates are encrypted with AES-256 under the passphrase.
///
/// # Errors
///
/// When a certificate can't be read, or the key is another's.
pub fn pkcs12(
    certificate_der: &[u8],
    chain_pem: &[u8],
    key: &PrivateKey,
    name: &str,
    passphrase: &Secret<String>,
) -> Result<Vec<u8>, IssueError> {
    let make = || {
        let certificate = X509::from_der(certificate_der)?;
        let mut chain = Stack::new()?;
        for above in X509::stack_from_pem(chain_pem)? {
            chain.push(above)?;
        }
        let mut builder = Pkcs12::builder();
        builder.key_iter(ROUNDS).mac_iter(ROUNDS).ca(chain);
        build(builder, &certificate, key, name, passphrase.expose())?.to_der()
    };
    make().map_err(IssueError::during("make a PKCS #12"))
}

#[cfg(feature = "boringssl")]
fn build(
    builder: Pkcs12Builder,
    certificate: &X509Ref,
    key: &PrivateKey,
    name: &str,
    passphrase: &str,
) -> Result<Pkcs12, ErrorStack> {
    builder.build(passphrase, name, key.library_key(), certificate)
}

#[cfg(feature = "openssl")]
fn build(
    mut builder: Pkcs12Builder,
    certificate: &X509Ref,
    key: &PrivateKey,
    name: &str,
    passphrase: &str,
) -> Result<Pkcs12, ErrorStack> {
    builder.name(name).pkey(key.library_key()).cert(certificate).build2(passphrase)
}
