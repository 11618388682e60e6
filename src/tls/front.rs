//! The server's side of a handshake that asks for no certificate: for administration with a token. Clients of a registry
//! never meet it.

use std::pin::Pin;

use pingora::tls::ext::clear_error_stack;
use pingora::tls::tokio_ssl::SslStream;
use tokio::io::{AsyncRead, AsyncWrite};

use super::acceptor::{self, HTTP1};
use super::handshake::{HandshakeFailure, Stream};
use super::lib::error::ErrorStack;
use super::lib::ssl::{
    AlpnError, Ssl, SslContext, SslMethod, SslOptions, SslSessionCacheMode, SslVerifyMode, SslVersion,
    select_next_proto,
};
use super::{ServerCertificate, backend};
use crate::telemetry::HandshakeResult;

/// Shows a certificate and asks for none. It speaks HTTP/1.1 alone, and resumes nothing.
pub struct Front(SslContext);

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Front")
    }
}

impl Front {
    /// Builds the TLS context.
    ///
    /// # Errors
    ///
    /// A text for the operator: the library won't serve the certificate.
    pub fn new(certificate: &ServerCertificate) -> Result<Self, String> {
        let refused = |e: ErrorStack| {
            format!("the TLS library won't serve the certificate of {}: {e}", certificate.info().subject)
        };
        Self::build(certificate).map_err(refused)
    }

    fn build(certificate: &ServerCertificate) -> Result<Self, ErrorStack> {
        let mut builder = SslContext::builder(SslMethod::tls())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        builder.set_cipher_list(acceptor::INTERMEDIATE_CIPHERS)?;
        builder.set_sigalgs_list(acceptor::SIGNATURES)?;
        builder.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION | SslOptions::NO_TICKET);
        builder.set_alpn_select_callback(|_, offered| select_next_proto(HTTP1, offered).ok_or(AlpnError::ALERT_FATAL));
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        backend::disable_tickets(&mut builder)?;
        acceptor::serve(&mut builder, certificate)?;
        Ok(Self(builder.build()))
    }

    /// Performs a handshake on `io`. Deadlines are the caller's: dropping the future ends the attempt.
    ///
    /// # Errors
    ///
    /// [`HandshakeFailure`]: the client went away, or what it sent is no handshake that can come about.
    pub async fn accept<S>(&self, io: S) -> Result<Stream<S>, HandshakeFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let failed = |result, detail: String| HandshakeFailure { result, detail };
        let ssl = Ssl::new(&self.0).map_err(|e| failed(HandshakeResult::Internal, e.to_string()))?;
        let mut stream = SslStream::new(ssl, io).map_err(|e| failed(HandshakeResult::Internal, e.to_string()))?;
        clear_error_stack();
        match Pin::new(&mut stream).accept().await {
            Ok(()) => Ok(Stream::of(stream)),
            Err(e) if e.ssl_error().is_some() => Err(failed(HandshakeResult::Protocol, e.to_string())),
            Err(e) => Err(failed(HandshakeResult::Disconnected, e.to_string())),
        }
    }
}
