//! The clients: TLS as the comparison fixes it (1.3, AES-128-GCM, X25519, an ECDSA certificate), HTTP/1.1 and HTTP/2 on top.

use super::Outcome;
use super::body::{Answer, Framing, HOST};
use super::http1::Http1;
use super::http2::Http2;
use super::pki::Pki;
use pingora::tls::ext::ssl_set_groups_list;
use pingora::tls::ssl::{SslConnector, SslFiletype, SslMethod, SslSession, SslSessionCacheMode, SslVersion};
use pingora::tls::tokio_ssl::SslStream;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;

/// What a client's requests go through.
pub type Tls = SslStream<TcpStream>;

/// Tickets that contestants gave, to come back with.
pub type Sessions = Arc<Mutex<Vec<SslSession>>>;

/// What kind of HTTP a client asks for by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Makes connections with the client certificate of a run.
pub struct Client {
    connector: SslConnector,
    sessions: Option<Sessions>,
}

/// A connection of either kind.
pub enum Connection {
    Http1(Http1),
    Http2(Http2),
}

impl Client {
    /// A client that comes back with tickets, if it is to have `sessions`.
    ///
    /// # Errors
    /// When the files can't be used.
    pub fn new(pki: &Pki, sessions: Option<Sessions>) -> Outcome<Self> {
        let mut builder = SslConnector::builder(SslMethod::tls())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_3))?;
        // BoringSSL prefers it by itself where the processor has instructions for AES, and can't be told.
        #[cfg(feature = "openssl")]
        builder.set_ciphersuites("TLS_AES_128_GCM_SHA256")?;
        builder.set_ca_file(pki.file("authority.pem"))?;
        builder.set_certificate_chain_file(pki.file("client.pem"))?;
        builder.set_private_key_file(pki.file("client.key"), SslFiletype::PEM)?;
        if let Some(sessions) = sessions.clone() {
            builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
            builder.set_new_session_callback(move |_, session| {
                sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
            });
        }
        Ok(Self { connector: builder.build(), sessions })
    }

    /// A connection for requests of a kind.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn open(&self, address: SocketAddr, protocol: Protocol) -> Outcome<Connection> {
        Ok(match protocol {
            Protocol::Http1 => Connection::Http1(self.http1(address).await?),
            Protocol::Http2 => Connection::Http2(self.http2(address).await?),
        })
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// The contestant's refusal, another cipher than the one that is compared, or another protocol than the one asked for.
    async fn connect(&self, address: SocketAddr, protocol: Protocol) -> Outcome<Tls> {
        let alpn: &[u8] = match protocol {
            Protocol::Http1 => b"http/1.1",
            Protocol::Http2 => b"h2",
        };
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let mut ssl = self.connector.configure()?.into_ssl(HOST)?;
        ssl_set_groups_list(&mut ssl, "X25519")?;
        let length = u8::try_from(alpn.len())?;
        ssl.set_alpn_protos(&[&[length], alpn].concat())?;
        if let Some(sessions) = &self.sessions
            && let Some(session) = sessions.lock().unwrap_or_else(PoisonError::into_inner).pop()
        {
            // SAFETY: the session comes from a connection of this connector, so both have the same context.
            #[expect(unsafe_code, reason = "there is no other way to resume a session with either library")]
            unsafe {
                ssl.set_session(&session)?;
            }
        }
        let mut stream = SslStream::new(ssl, tcp)?;
        poll_fn(|cx| Pin::new(&mut stream).poll_connect(cx)).await?;
        let cipher = stream.ssl().current_cipher().map_or("none", |cipher| cipher.name());
        if !cipher.contains("AES_128_GCM") && !cipher.contains("AES128-GCM") {
            return Err(format!("{cipher} was chosen, while AES-128-GCM is what is compared").into());
        }
        if stream.ssl().selected_alpn_protocol() != Some(alpn) {
            return Err(format!("{protocol:?} was not chosen").into());
        }
        Ok(stream)
    }

    /// A connection for HTTP/1.1.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn http1(&self, address: SocketAddr) -> Outcome<Http1> {
        Ok(Http1::over(self.connect(address, Protocol::Http1).await?))
    }

    /// A connection for HTTP/2.
    ///
    /// # Errors
    /// As [`Client::connect`], and what h2 says.
    pub async fn http2(&self, address: SocketAddr) -> Outcome<Http2> {
        Http2::over(self.connect(address, Protocol::Http2).await?).await
    }
}

impl Connection {
    /// # Errors
    /// As [`Http1::get`].
    pub async fn get(&mut self, path: &str) -> Outcome<Answer> {
        match self {
            Self::Http1(connection) => connection.get(path).await,
            Self::Http2(connection) => connection.get(path).await,
        }
    }

    /// # Errors
    /// As [`Http1::open_upload`].
    pub async fn open_upload(&mut self, path: &str) -> Outcome<String> {
        match self {
            Self::Http1(connection) => connection.open_upload(path).await,
            Self::Http2(connection) => connection.open_upload(path).await,
        }
    }

    /// # Errors
    /// As [`Http1::upload`].
    pub async fn upload(&mut self, method: &str, path: &str, length: u64, framing: Framing) -> Outcome<Answer> {
        match self {
            Self::Http1(connection) => connection.upload(method, path, length, framing).await,
            Self::Http2(connection) => connection.upload(method, path, length, framing).await,
        }
    }
}
