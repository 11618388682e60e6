//! One handshake, and the stream that comes out of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pingora::tls::ext::clear_error_stack;
use pingora::tls::tokio_ssl::SslStream;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::lib::error::ErrorStack;
use super::lib::ssl::{self, NameType, Ssl, SslRef};
use super::lib::stack::Stack;
use super::lib::x509::{X509, X509StoreContext};
use super::verify::{ClientCertificates, Refused, Slot, Verified, slot_index};
use super::{Acceptor, backend, unix_now};
use crate::identity::{CertificateFault, PeerIdentity};
use crate::revocation;
use crate::telemetry::HandshakeResult;

/// A connection whose client has proven who it is.
pub struct Accepted<S> {
    /// The decrypted stream.
    pub stream: Stream<S>,
    /// The client.
    pub identity: Arc<PeerIdentity>,
    /// The client's certificates for the upstream, if the acceptor keeps them.
    pub certificates: Option<Arc<ClientCertificates>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// Whether the client chose HTTP/2 by ALPN.
    pub http2: bool,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The suite by its OpenSSL name.
    pub cipher: &'static str,
    /// The server name the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
}

/// Why a handshake gave no connection. The client has been told by an alert where the protocol has one.
#[derive(Debug, Clone)]
pub struct HandshakeFailure {
    /// For the metric.
    pub result: HandshakeResult,
    /// For the log: the cause, and the certificate if it is at fault.
    pub detail: String,
}

/// Performs the server's side of a handshake on `io`.
///
/// Deadlines are the caller's: dropping the future ends the attempt.
///
/// # Errors
///
/// [`HandshakeFailure`], after the alert has been written to `io`; the caller delivers it.
pub async fn accept<S>(acceptor: &Acceptor, io: S) -> Result<Accepted<S>, HandshakeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let internal = |what: &str| HandshakeFailure { result: HandshakeResult::Internal, detail: what.to_owned() };
    let slot = Arc::new(Slot::new(&acceptor.judging));
    let index = slot_index().ok_or_else(|| internal("no memory for the TLS library"))?;
    let mut ssl = Ssl::new(&acceptor.context).map_err(|e| internal(&e.to_string()))?;
    ssl.set_ex_data(index, slot.clone());
    backend::shed_handshake(&mut ssl);
    let mut stream = SslStream::new(ssl, io).map_err(|e| internal(&e.to_string()))?;
    clear_error_stack();
    if let Err(e) = Pin::new(&mut stream).accept().await {
        return Err(failure(&slot, &e));
    }
    let (verified, resumed) = identify(acceptor, &slot, stream.ssl()).map_err(|refused| refused_failure(&refused))?;
    let ssl = stream.ssl();
    Ok(Accepted {
        identity: verified.identity,
        certificates: verified.certificates,
        resumed,
        http2: ssl.selected_alpn_protocol() == Some(b"h2"),
        version: ssl.version_str(),
        cipher: ssl.current_cipher().map_or("", ssl::SslCipherRef::name),
        server_name: ssl.servername(NameType::HOST_NAME).map(|name| name.to_ascii_lowercase().into_boxed_str()),
        stream: Stream(stream),
    })
}

/// The client's identity: from the verify callback after a full handshake, from its earlier one after a resumed.
fn identify(acceptor: &Acceptor, slot: &Slot, ssl: &SslRef) -> Result<(Verified, bool), Refused> {
    let malformed = || Refused::malformed("the session holds no certificate");
    let judged = slot.take();
    if !ssl.session_reused() {
        let verified = judged.unwrap_or_else(|| Err(malformed()))?;
        // Only now has the client proven that the certificate is its own: strangers' must not push others out.
        acceptor.judging.known.insert(&verified);
        return Ok((verified, false));
    }
    // The chain is not verified again in a resumed handshake. The ticket proves that this trust accepted this leaf;
    // what may have changed since is asked again.
    let leaf = ssl.peer_certificate().ok_or_else(malformed)?;
    let der = leaf.to_der().map_err(|_| malformed())?;
    let known = &acceptor.judging.known;
    let verified = match known.resumable(&Sha256::digest(&der).into()) {
        Some(verified) => verified,
        None => {
            let verified = verify_again(acceptor, ssl, &leaf)?;
            known.insert(&verified);
            verified
        }
    };
    let now = unix_now();
    check_validity(&verified.identity, now)?;
    acceptor.judging.revocation.check(&verified.identity.path, now).map_err(Refused::Revocation)?;
    Ok((verified, true))
}

/// Whether every certificate of the path is valid at `now`.
fn check_validity(identity: &PeerIdentity, now: i64) -> Result<(), Refused> {
    let expired = identity.path.iter().position(|certificate| certificate.not_after < now);
    match expired {
        Some(depth) => Err(Refused::Chain {
            code: chain_code::CERT_HAS_EXPIRED,
            text: "certificate has expired since the session began".to_owned(),
            depth: u32::try_from(depth).unwrap_or(u32::MAX),
        }),
        None => Ok(()),
    }
}

/// Builds and judges the path of a resumed client's leaf from the bundle alone. Only leaves for which that works get a
/// ticket that opens.
fn verify_again(acceptor: &Acceptor, ssl: &SslRef, leaf: &X509) -> Result<Verified, Refused> {
    let malformed = |e: ErrorStack| Refused::malformed(&e.to_string());
    let none = Stack::<X509>::new().map_err(malformed)?;
    let mut context = X509StoreContext::new().map_err(malformed)?;
    let store = ssl.ssl_context().cert_store();
    let judged = context.init(store, leaf, &none, |context| {
        if context.verify_cert()? {
            return Ok(acceptor.verifier.judge(context, &acceptor.judging));
        }
        let (code, text) = backend::verify_outcome(context);
        Ok(Err(Refused::Chain { code, text, depth: context.error_depth() }))
    });
    judged.map_err(malformed)?
}

/// X509_V_ERR codes that have the same number in both libraries.
mod chain_code {
    pub(super) const UNABLE_TO_GET_ISSUER_CERT: i32 = 2;
    pub(super) const CERT_SIGNATURE_FAILURE: i32 = 7;
    pub(super) const CERT_NOT_YET_VALID: i32 = 9;
    pub(super) const CERT_HAS_EXPIRED: i32 = 10;
    pub(super) const DEPTH_ZERO_SELF_SIGNED_CERT: i32 = 18;
    pub(super) const UNABLE_TO_VERIFY_LEAF_SIGNATURE: i32 = 21;
    pub(super) const CERT_CHAIN_TOO_LONG: i32 = 22;
    pub(super) const PATH_LENGTH_EXCEEDED: i32 = 25;
    pub(super) const INVALID_PURPOSE: i32 = 26;
    pub(super) const PERMITTED_VIOLATION: i32 = 47;
    pub(super) const UNSUPPORTED_NAME_SYNTAX: i32 = 53;
    pub(super) const EE_KEY_TOO_SMALL: i32 = 66;
    pub(super) const CA_KEY_TOO_SMALL: i32 = 67;
    pub(super) const CA_MD_TOO_WEAK: i32 = 68;
}

fn refused_failure(refused: &Refused) -> HandshakeFailure {
    use chain_code as code;
    let result = match refused {
        Refused::Revocation(revocation::Refusal::Revoked { .. }) => HandshakeResult::Revoked,
        Refused::Revocation(_) => HandshakeResult::RevocationUnknown,
        Refused::Certificate(fault) => certificate_result(fault),
        Refused::Chain { code, .. } => match *code {
            code::CERT_HAS_EXPIRED => HandshakeResult::Expired,
            code::CERT_NOT_YET_VALID => HandshakeResult::NotYetValid,
            code::CERT_SIGNATURE_FAILURE => HandshakeResult::BadSignature,
            code::CERT_CHAIN_TOO_LONG | code::PATH_LENGTH_EXCEEDED | backend::INVALID_CA => HandshakeResult::BadPath,
            code::INVALID_PURPOSE => HandshakeResult::WrongUsage,
            code::PERMITTED_VIOLATION..=code::UNSUPPORTED_NAME_SYNTAX => HandshakeResult::NameConstraints,
            code::EE_KEY_TOO_SMALL | code::CA_KEY_TOO_SMALL => HandshakeResult::WeakKey,
            code::CA_MD_TOO_WEAK => HandshakeResult::WeakSignature,
            code::UNABLE_TO_GET_ISSUER_CERT
            | code::DEPTH_ZERO_SELF_SIGNED_CERT..=code::UNABLE_TO_VERIFY_LEAF_SIGNATURE => HandshakeResult::UnknownCa,
            _ => HandshakeResult::MalformedCertificate,
        },
    };
    HandshakeFailure { result, detail: refused.to_string() }
}

fn certificate_result(fault: &CertificateFault) -> HandshakeResult {
    match fault {
        CertificateFault::DuplicateExtension { .. } => HandshakeResult::DuplicateExtension,
        CertificateFault::Version1 { .. } => HandshakeResult::Version1,
        CertificateFault::WrongUsage { .. } => HandshakeResult::WrongUsage,
        CertificateFault::CaAsLeaf { .. } => HandshakeResult::CaAsLeaf,
        CertificateFault::WeakSignature { .. } => HandshakeResult::WeakSignature,
        CertificateFault::WeakKey { .. } => HandshakeResult::WeakKey,
        CertificateFault::NoUsableName { .. } => HandshakeResult::NoUsableName,
        _ => HandshakeResult::MalformedCertificate,
    }
}

/// Reads the cause out of what the callbacks left behind and the library's error queue.
fn failure(slot: &Slot, error: &ssl::Error) -> HandshakeFailure {
    if let Some(Err(refused)) = slot.take() {
        return refused_failure(&refused);
    }
    if let Some(io) = error.io_error() {
        let excess = io.kind() == io::ErrorKind::QuotaExceeded;
        let result = if excess { HandshakeResult::TooManyBytes } else { HandshakeResult::Disconnected };
        return HandshakeFailure { result, detail: io.to_string() };
    }
    let Some(stack) = error.ssl_error() else {
        // The peer closed the connection without an alert.
        return HandshakeFailure { result: HandshakeResult::Disconnected, detail: "closed by the client".to_owned() };
    };
    // The libraries agree on the reasons, but not on how to write them: one shouts, one speaks.
    let reasons: Vec<String> = stack
        .errors()
        .iter()
        .filter_map(|e| e.reason().map(|reason| reason.to_ascii_lowercase().replace('_', " ")))
        .collect();
    let has = |part: &str| reasons.iter().any(|reason| reason.contains(part));
    let result = if has("peer did not return a certificate") {
        HandshakeResult::NoCertificate
    } else if has("excessive message size") {
        HandshakeResult::CertificateTooLarge
    } else if has("key usage") {
        HandshakeResult::WrongUsage
    } else if has("bad signature") || has("wrong signature type") {
        HandshakeResult::BadSignature
    } else if has("alert") {
        HandshakeResult::ClientAlert
    } else if has("no shared") || has("unsupported protocol") || has("no common") || has("no suitable") {
        HandshakeResult::NothingInCommon
    } else if has("cannot parse leaf cert") || has("asn1") || has("decode error") {
        HandshakeResult::MalformedCertificate
    } else {
        HandshakeResult::Protocol
    };
    HandshakeFailure { result, detail: reasons.join("; ") }
}

/// Whether reading failed because of what the client sent, and not because it went away.
#[must_use]
pub fn is_protocol_fault(error: &io::Error) -> bool {
    let library = error.get_ref().and_then(|inner| inner.downcast_ref::<ssl::Error>());
    let stack = library.and_then(ssl::Error::ssl_error);
    // A connection that ends without a farewell is an error of the protocol to one library and an end to the other.
    let is_end = |stack: &ErrorStack| {
        stack.errors().iter().any(|e| e.reason().is_some_and(|reason| reason.contains("unexpected eof")))
    };
    stack.is_some_and(|stack| !is_end(stack))
}

/// The decrypted side of a connection.
pub struct Stream<S>(SslStream<S>);

impl<S> std::fmt::Debug for Stream<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl<S> Stream<S> {
    pub(super) fn of(stream: SslStream<S>) -> Self {
        Stream(stream)
    }

    /// The transport below.
    pub fn get_ref(&self) -> &S {
        self.0.get_ref()
    }
}

// A stale entry in the thread's error queue would be taken for this connection's, hence the clearing before each call.
impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        clear_error_stack();
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        clear_error_stack();
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        clear_error_stack();
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        clear_error_stack();
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
