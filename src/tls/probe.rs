//! The client's side of a handshake, for `doctor`: it looks at all that a server shows and asks, and goes on with a
//! certificate that it wouldn't trust, to learn what comes then.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pingora::tls::ext::clear_error_stack;
use pingora::tls::tokio_ssl::SslStream;
use tokio::io::{AsyncRead, AsyncWrite};

use super::backend;
use super::handshake::Stream;
use super::issue::PrivateKey;
use super::lib::error::{Error as LibraryError, ErrorStack};
use super::lib::ex_data::Index as ExIndex;
use super::lib::ssl::{Error, Ssl, SslContext, SslMethod, SslVerifyMode, SslVersion};
use super::lib::x509::{X509, X509Ref, X509StoreContextRef};

/// What a client brings to a handshake.
pub(crate) struct ClientSide<'a> {
    /// The server's name for SNI; none for an address.
    pub(crate) server_name: Option<&'a str>,
    /// Trusted besides the system's CAs, each in DER. As in Go programs, any of them is an anchor.
    pub(crate) roots: &'a [Vec<u8>],
    /// The client's certificates, leaf first, each in DER, and its key.
    pub(crate) identity: Option<(&'a [Vec<u8>], &'a PrivateKey)>,
    /// ALPN protocols in wire format.
    pub(crate) alpn: &'static [u8],
}

/// What a handshake showed, as far as it came.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The path that the library built from the server's certificates, leaf first, each in DER.
    pub(crate) path: Vec<Vec<u8>>,
    /// Why that path is not trusted.
    pub(crate) distrust: Option<String>,
    /// The names (DER) of the CAs whose certificates the server asks the client for; `None` if it asks for none.
    pub(crate) asked: Option<Vec<Vec<u8>>>,
    /// Such as `TLSv1.3`.
    pub(crate) version: &'static str,
    /// Whether the server chose HTTP/2.
    pub(crate) http2: bool,
}

/// Why a connection ended.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The number of the alert that the server sent (RFC 8446 §6), if it was one.
    pub(crate) alert: Option<u8>,
    /// The library's words.
    pub(crate) text: String,
}

/// Performs the client's side of a handshake on `io`.
///
/// Mind that a server of TLS 1.3 refuses the client's certificate only after this: see [`refusal`].
///
/// # Errors
///
/// What the client brings can't be used by the library.
pub(crate) async fn probe<S>(side: &ClientSide<'_>, io: S) -> Result<(Seen, Result<Stream<S>, Broken>), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let notes = Arc::new(Notes::default());
    let ssl = client(side, &notes).map_err(|e| e.to_string())?;
    let mut stream = SslStream::new(ssl, io).map_err(|e| e.to_string())?;
    clear_error_stack();
    let outcome = Pin::new(&mut stream).connect().await;
    let mut seen = notes.take();
    seen.version = stream.ssl().version_str();
    seen.http2 = stream.ssl().selected_alpn_protocol() == Some(b"h2");
    Ok((seen, outcome.map(|()| Stream::of(stream)).map_err(|e| Broken::of(&e))))
}

/// What an error of a read or write on the stream means.
pub(crate) fn refusal(error: &std::io::Error) -> Broken {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    inner.map_or_else(|| Broken { alert: None, text: error.to_string() }, Broken::of)
}

impl Broken {
    fn of(error: &Error) -> Self {
        /// Both libraries number the alerts they receive from here on.
        const ALERTS: i32 = 1000;
        let errors = error.ssl_error().map(ErrorStack::errors).unwrap_or_default();
        let alert = errors.iter().find_map(|e| u8::try_from(e.reason_code() - ALERTS).ok());
        let reasons: Vec<_> = errors.iter().filter_map(LibraryError::reason).map(str::to_ascii_lowercase).collect();
        let text = match (reasons.is_empty(), error.io_error()) {
            (false, _) => reasons.join("; ").replace('_', " "),
            (true, Some(io)) => io.to_string(),
            (true, None) => "the server closed the connection".to_owned(),
        };
        Self { alert, text }
    }
}

fn client(side: &ClientSide<'_>, notes: &Arc<Notes>) -> Result<Ssl, ErrorStack> {
    let mut builder = SslContext::builder(SslMethod::tls())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_alpn_protos(side.alpn)?;
    // A system without CAs of its own is no reason not to look.
    if builder.set_default_verify_paths().is_err() {
        clear_error_stack();
    }
    for root in side.roots {
        builder.cert_store_mut().add_cert(X509::from_der(root)?)?;
    }
    let noted = notes.clone();
    builder.set_verify_callback(SslVerifyMode::PEER, move |ok, context| {
        noted.verified(ok, context);
        true
    });
    if let Some((chain, key)) = side.identity {
        for (position, der) in chain.iter().enumerate() {
            let certificate = X509::from_der(der)?;
            if position == 0 {
                builder.set_certificate(&certificate)?;
            } else {
                builder.add_extra_chain_cert(certificate)?;
            }
        }
        builder.set_private_key(key.library_key())?;
    }
    backend::watch_certificate_request(&mut builder);
    let mut ssl = Ssl::new(&builder.build())?;
    backend::take_any_root(&mut ssl)?;
    if let Some(index) = notes_index() {
        ssl.set_ex_data(index, notes.clone());
    }
    if let Some(name) = side.server_name {
        ssl.set_hostname(name)?;
    }
    Ok(ssl)
}

/// Where the callbacks of one handshake put what they see.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Seen>);

impl Notes {
    /// Called for each certificate and each error of the server's path.
    fn verified(&self, ok: bool, context: &X509StoreContextRef) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path: Vec<Vec<u8>> =
            context.chain().into_iter().flatten().map(X509Ref::to_der).filter_map(Result::ok).collect();
        if path.len() >= seen.path.len() {
            seen.path = path;
        }
        if !ok && seen.distrust.is_none() {
            let (_, text) = backend::verify_outcome(context);
            seen.distrust = Some(format!("{text} (at depth {})", context.error_depth()));
        }
    }

    /// The server has asked for a certificate, of one of these CAs.
    pub(super) fn asked(&self, names: Vec<Vec<u8>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).asked = Some(names);
    }

    fn take(&self) -> Seen {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The index of the notes among the extra data of a connection. `None` only when the library has no memory left.
pub(super) fn notes_index() -> Option<ExIndex<Ssl, Arc<Notes>>> {
    static INDEX: OnceLock<Option<ExIndex<Ssl, Arc<Notes>>>> = OnceLock::new();
    *INDEX.get_or_init(|| Ssl::new_ex_index().ok())
}
