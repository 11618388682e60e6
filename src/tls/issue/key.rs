//! Keys: made, read and written, with a passphrase or without.

use super::super::lib::ec::{EcGroup, EcKey};
use super::super::lib::error::ErrorStack;
use super::super::lib::hash::MessageDigest;
use super::super::lib::nid::Nid;
use super::super::lib::pkcs5::pbkdf2_hmac;
use super::super::lib::pkey::{Id, PKey, PKeyRef, Private, Public};
use super::super::lib::rsa::Rsa;
use super::super::lib::symm::{Cipher, encrypt};
use super::super::lib::x509::{X509, X509Req};
use super::IssueError;
use super::der::{OCTET_STRING, element, sequence, unsigned};
use crate::config::Secret;

/// A kind of key that is made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256: small and fast, known to every client since 2010.
    EcdsaP256,
    /// RSA of 3072 bits, for what can't do ECDSA.
    Rsa3072,
}

/// A private key. It has no `Debug`, for it must not print.
#[derive(Clone)]
pub struct PrivateKey(PKey<Private>);

/// A public key that somebody has shown to own, or that stands in a certificate.
#[derive(Clone)]
pub struct PublicKey(PKey<Public>);

/// Why a file is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// It is encrypted.
    #[error("it is protected by a passphrase, and none was given")]
    NeedsPassphrase,
    /// The passphrase is another.
    #[error("the passphrase is wrong, or the key is protected in a way that this program can't read")]
    WrongPassphrase,
    /// Something else, or half of one.
    #[error("it holds no private key that can be used")]
    NotAKey,
}

/// How a key signs.
pub(super) struct Scheme {
    pub(super) digest: MessageDigest,
    /// The content of the `AlgorithmIdentifier`.
    pub(super) algorithm: &'static [u8],
}

/// 1.2.840.113549.1.1.11, with the NULL that RFC 4055 §5 demands.
const RSA_SHA256: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";
/// 1.2.840.10045.4.3.2 to .4 (RFC 5758 §3.2): no parameters.
const ECDSA_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const ECDSA_SHA384: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";
const ECDSA_SHA512: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04";

impl PrivateKey {
    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// When the library has no entropy.
    pub fn generate(kind: KeyKind) -> Result<Self, IssueError> {
        let key = match kind {
            KeyKind::EcdsaP256 => EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)
                .and_then(|group| EcKey::generate(&group))
                .and_then(PKey::from_ec_key),
            KeyKind::Rsa3072 => Rsa::generate(3072).and_then(PKey::from_rsa),
        };
        key.map(Self).map_err(IssueError::during("make a key"))
    }

    /// Reads a PEM key: PKCS #8, or the older forms of OpenSSL.
    ///
    /// # Errors
    ///
    /// See [`KeyFault`].
    pub fn from_pem(pem: &[u8], passphrase: Option<&Secret<String>>) -> Result<Self, KeyFault> {
        let encrypted = pem.windows(b"ENCRYPTED".len()).any(|window| window == b"ENCRYPTED");
        let passphrase = passphrase.filter(|_| encrypted).map(|secret| secret.expose().as_bytes());
        // The callback also keeps the library from asking on the terminal, where nobody may be.
        let key = PKey::private_key_from_pem_callback(pem, |buffer| {
            let target = passphrase.and_then(|text| Some((text, buffer.get_mut(..text.len())?)));
            Ok(target.map_or(0, |(text, target)| {
                target.copy_from_slice(text);
                text.len()
            }))
        });
        key.map(Self).map_err(|_| match (encrypted, passphrase) {
            (true, Some(_)) => KeyFault::WrongPassphrase,
            (true, None) => KeyFault::NeedsPassphrase,
            (false, _) => KeyFault::NotAKey,
        })
    }

    /// Reads a DER key, not encrypted: PKCS #8, or the older forms of OpenSSL.
    ///
    /// # Errors
    ///
    /// [`KeyFault::NotAKey`]
    pub fn from_der(der: &[u8]) -> Result<Self, KeyFault> {
        PKey::private_key_from_der(der).map(Self).map_err(|_| KeyFault::NotAKey)
    }

    /// The key as PEM of PKCS #8, encrypted if there is a passphrase.
    ///
    /// # Errors
    ///
    /// When the library has no memory or no entropy.
    pub fn to_pem(&self, passphrase: Option<&Secret<String>>) -> Result<Vec<u8>, IssueError> {
        let step = "encode a key";
        let pem = self.0.private_key_to_pem_pkcs8().map_err(IssueError::during(step))?;
        let Some(passphrase) = passphrase else { return Ok(pem) };
        let der = der_of_pem(&pem).ok_or_else(|| IssueError::new(step, "the library wrote no PEM"))?;
        let encrypted = protect(&der, passphrase.expose().as_bytes()).map_err(IssueError::during(step))?;
        Ok(super::pem_block("ENCRYPTED PRIVATE KEY", &encrypted))
    }

    /// The public half.
    ///
    /// # Errors
    ///
    /// When the library has no memory.
    pub fn public(&self) -> Result<PublicKey, IssueError> {
        let der = self.0.public_key_to_der();
        der.and_then(|der| PKey::public_key_from_der(&der)).map(PublicKey).map_err(IssueError::during("read a key"))
    }

    /// The key in words, such as `ECDSA P-256`.
    #[must_use]
    pub fn describe(&self) -> String {
        describe(self.0.id(), self.0.bits())
    }

    pub(in crate::tls) fn library_key(&self) -> &PKeyRef<Private> {
        &self.0
    }

    /// How this key signs certificates and lists: with the digest that is as strong as the key.
    pub(super) fn scheme(&self) -> Result<Scheme, IssueError> {
        let scheme = |digest, algorithm| Ok(Scheme { digest, algorithm });
        match (self.0.id(), self.0.bits()) {
            (Id::RSA, bits) if bits >= 2048 => scheme(MessageDigest::sha256(), RSA_SHA256),
            (Id::EC, 256) => scheme(MessageDigest::sha256(), ECDSA_SHA256),
            (Id::EC, 384) => scheme(MessageDigest::sha384(), ECDSA_SHA384),
            (Id::EC, 521) => scheme(MessageDigest::sha512(), ECDSA_SHA512),
            (id, bits) => Err(IssueError::new(
                "sign with the CA's key",
                format!("{} is not supported; RSA from 2048 bits, P-256, P-384 and P-521 are", describe(id, bits)),
            )),
        }
    }
}

impl PublicKey {
    /// The key of a certificate signing request (PKCS #10, PEM or DER), whose own signature shows that who made it
    /// has the private half. Nothing else of the request is used: the CA decides the names.
    ///
    /// # Errors
    ///
    /// When it is none, or its signature is another key's.
    pub fn of_request(bytes: &[u8]) -> Result<Self, IssueError> {
        let step = "read the certificate request";
        let request = if bytes.first() == Some(&0x30) { X509Req::from_der(bytes) } else { X509Req::from_pem(bytes) };
        let request = request.map_err(|_| IssueError::new(step, "it is no PKCS #10 request in PEM or DER"))?;
        let key = request.public_key().map_err(IssueError::during(step))?;
        match request.verify(&key) {
            Ok(true) => Ok(Self(key)),
            Ok(false) | Err(_) => Err(IssueError::new(step, "its signature is not that of the key in it")),
        }
    }

    /// The key of a certificate (DER).
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IssueError> {
        X509::from_der(der).and_then(|c| c.public_key()).map(Self).map_err(IssueError::during("read a certificate"))
    }

    /// Reads a `SubjectPublicKeyInfo` (DER).
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn from_der(der: &[u8]) -> Result<Self, IssueError> {
        PKey::public_key_from_der(der).map(Self).map_err(IssueError::during("read a public key"))
    }

    /// Whether `private` is the other half.
    #[must_use]
    pub fn belongs_to(&self, private: &PrivateKey) -> bool {
        self.0.public_eq(&private.0)
    }

    /// The key in words, such as `ECDSA P-256`.
    #[must_use]
    pub fn describe(&self) -> String {
        describe(self.0.id(), self.0.bits())
    }

    /// Whether the gateway takes clients with such a key.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        match self.0.id() {
            Id::RSA => self.0.bits() >= 2048,
            Id::EC => matches!(self.0.bits(), 256 | 384 | 521),
            Id::ED25519 => true,
            _ => false,
        }
    }

    pub(in crate::tls) fn library_key(&self) -> &PKeyRef<Public> {
        &self.0
    }
}

fn describe(id: Id, bits: u32) -> String {
    match id {
        Id::RSA => format!("RSA {bits}"),
        Id::EC => format!("ECDSA P-{bits}"),
        Id::ED25519 => "Ed25519".to_owned(),
        _ => format!("a key of another kind ({bits} bits)"),
    }
}

fn der_of_pem(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    data_encoding::BASE64.decode(body.as_bytes()).ok()
}

/// Rounds of PBKDF2 with HMAC-SHA-256, as OWASP advises. The libraries' own writers stop at 2048, which leaves a CA's
/// key to whoever tries a dictionary on a stolen copy.
const ROUNDS: u32 = 600_000;

/// 1.2.840.113549.1.5.13
const PBES2: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";
/// 1.2.840.113549.1.5.12
const PBKDF2: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c";
/// 1.2.840.113549.2.9 and its NULL
const HMAC_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x09\x05\x00";
/// 2.16.840.1.101.3.4.1.42
const AES_256_CBC: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2a";

/// `EncryptedPrivateKeyInfo` (RFC 5958 §3) by PBES2 (RFC 8018 §6.2), which every OpenSSL since 1.1 reads.
fn protect(der: &[u8], passphrase: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let (mut salt, mut iv, mut key) = ([0; 16], [0; 16], [0; 32]);
    super::super::random(&mut salt)?;
    super::super::random(&mut iv)?;
    pbkdf2_hmac(passphrase, &salt, ROUNDS as usize, MessageDigest::sha256(), &mut key)?;
    let encrypted = encrypt(Cipher::aes_256_cbc(), &key, Some(&iv), der)?;
    let prf = sequence(&[HMAC_SHA256]);
    let derivation = sequence(&[&element(OCTET_STRING, &salt), &unsigned(&ROUNDS.to_be_bytes()), &prf]);
    let parameters =
        sequence(&[&sequence(&[PBKDF2, &derivation]), &sequence(&[AES_256_CBC, &element(OCTET_STRING, &iv)])]);
    Ok(sequence(&[&sequence(&[PBES2, &parameters]), &element(OCTET_STRING, &encrypted)]))
}
