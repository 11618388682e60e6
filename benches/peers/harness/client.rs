//! The clients: TLS as the comparison fixes it (1.3, AES-128-GCM, X25519, an ECDSA certificate), HTTP/1.1 and HTTP/2 on top.

use super::Outcome;
use super::pki::Pki;
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use pingora::tls::ext::ssl_set_groups_list;
use pingora::tls::ssl::{SslConnector, SslFiletype, SslMethod, SslSession, SslSessionCacheMode, SslVersion};
use pingora::tls::tokio_ssl::SslStream;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::net::TcpStream;

/// The name in the server's certificate.
pub const HOST: &str = "registry.test";
/// A DATA frame or chunk of an upload: what Go's clients send, among them docker and containerd.
const PIECE: usize = 16 << 10;

/// The registry hides manifests of kinds that a client doesn't name.
const ACCEPT: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*";

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

/// An answer whose body was read to its end.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// Path and query.
    pub location: Option<String>,
    pub bytes: u64,
}

/// How the body of an upload says where it ends. In HTTP/2, [`Framing::Chunked`] is a body without a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
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

    /// A connection for HTTP/2, with windows as large as Go's clients offer them.
    ///
    /// # Errors
    /// As [`Client::connect`], and what h2 says.
    pub async fn http2(&self, address: SocketAddr) -> Outcome<Http2> {
        let stream = self.connect(address, Protocol::Http2).await?;
        // A frame's head and payload are written at once, as Go's clients do.
        let stream = BufWriter::with_capacity(64 << 10, stream);
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(1 << 30)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await?;
        tokio::spawn(async move {
            // Its requests tell of its end.
            let _ = connection.await;
        });
        Ok(Http2 { sender })
    }
}

/// A connection for one request after the other.
pub struct Http1<S = Tls> {
    stream: BufWriter<S>,
    buffer: BytesMut,
}

impl Http1 {
    /// Whether its session is an earlier one's.
    pub fn is_resumed(&self) -> bool {
        self.stream.get_ref().ssl().session_reused()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1<S> {
    /// HTTP over any stream.
    pub fn over(stream: S) -> Self {
        Self { stream: BufWriter::with_capacity(64 << 10, stream), buffer: BytesMut::new() }
    }

    /// # Errors
    /// When the connection breaks, or the answer makes no sense.
    pub async fn get(&mut self, path: &str) -> Outcome<Answer> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: bench\r\nAccept: {ACCEPT}\r\n\r\n"))
            .await?;
        self.answer().await
    }

    /// Opens an upload session and returns its path.
    ///
    /// # Errors
    /// As [`Http1::get`], and when there is none.
    pub async fn open_upload(&mut self, path: &str) -> Outcome<String> {
        self.send(&format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n")).await?;
        self.answer().await?.session()
    }

    /// Sends a body of this many bytes.
    ///
    /// # Errors
    /// As [`Http1::get`].
    pub async fn upload(&mut self, method: &str, path: &str, length: u64, framing: Framing) -> Outcome<Answer> {
        let framed = match framing {
            Framing::Length => format!("Content-Length: {length}"),
            Framing::Chunked => "Transfer-Encoding: chunked".to_owned(),
        };
        let kind = "Content-Type: application/octet-stream";
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{kind}\r\n{framed}\r\n\r\n")).await?;
        for piece in pieces(length) {
            if framing == Framing::Chunked {
                self.stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            }
            self.stream.write_all(piece).await?;
            if framing == Framing::Chunked {
                self.stream.write_all(b"\r\n").await?;
            }
        }
        if framing == Framing::Chunked {
            self.stream.write_all(b"0\r\n\r\n").await?;
        }
        self.stream.flush().await?;
        self.answer().await
    }

    /// Puts something small.
    ///
    /// # Errors
    /// As [`Http1::get`].
    pub async fn put(&mut self, path: &str, kind: &str, body: &[u8]) -> Outcome<Answer> {
        let length = body.len();
        let head =
            format!("PUT {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.write_all(body).await?;
        self.stream.flush().await?;
        self.answer().await
    }

    async fn send(&mut self, head: &str) -> Outcome<()> {
        self.stream.write_all(head.as_bytes()).await?;
        Ok(self.stream.flush().await?)
    }

    async fn answer(&mut self) -> Outcome<Answer> {
        let (mut answer, length) = loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(head) = response.parse(&self.buffer)? {
                let header = |name: &str| {
                    let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
                    found.map(|header| String::from_utf8_lossy(header.value).into_owned())
                };
                let status = response.code.unwrap_or_default();
                let length = header("content-length").map_or(Ok(0), |length| length.parse::<u64>())?;
                if header("transfer-encoding").is_some() {
                    return Err("an answer in chunks, while the upstream sent none".into());
                }
                let location = header("location").map(|location| path_of(&location));
                let _ = self.buffer.split_to(head);
                if status == 100 {
                    continue;
                }
                break (Answer { status, location, bytes: 0 }, length);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the connection ended before an answer came".into());
            }
        };
        while answer.bytes < length {
            if self.buffer.is_empty() {
                self.buffer.reserve(64 << 10);
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Err(format!("the body ended after {} of {length} bytes", answer.bytes).into());
                }
            }
            answer.bytes += self.buffer.len() as u64;
            self.buffer.clear();
        }
        answer.checked()
    }
}

/// A connection for many requests at once.
#[derive(Clone)]
pub struct Http2 {
    sender: SendRequest<Bytes>,
}

impl Http2 {
    /// # Errors
    /// When the stream or the connection breaks.
    pub async fn get(&self, path: &str) -> Outcome<Answer> {
        self.request("GET", path, 0, Framing::Length).await
    }

    /// Opens an upload session and returns its path.
    ///
    /// # Errors
    /// As [`Http2::get`], and when there is none.
    pub async fn open_upload(&self, path: &str) -> Outcome<String> {
        self.request("POST", path, 0, Framing::Length).await?.session()
    }

    /// Sends a body of this many bytes in DATA frames, as fast as the contestant's windows let it.
    ///
    /// # Errors
    /// As [`Http2::get`].
    pub async fn upload(&self, method: &str, path: &str, length: u64, framing: Framing) -> Outcome<Answer> {
        self.request(method, path, length, framing).await
    }

    async fn request(&self, method: &str, path: &str, length: u64, framing: Framing) -> Outcome<Answer> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("https://{HOST}{path}"))
            .header("user-agent", "bench")
            .header("accept", ACCEPT);
        let request = match framing {
            _ if length == 0 => request,
            Framing::Length => {
                request.header("content-type", "application/octet-stream").header("content-length", length)
            }
            Framing::Chunked => request.header("content-type", "application/octet-stream"),
        };
        let mut ready = self.sender.clone().ready().await?;
        let (response, mut body) = ready.send_request(request.body(())?, length == 0)?;
        let mut left = length;
        while left > 0 {
            body.reserve_capacity(PIECE);
            let Some(capacity) = poll_fn(|cx| body.poll_capacity(cx)).await else { break };
            let next = piece(left.min(capacity? as u64));
            left -= next.len() as u64;
            body.send_data(Bytes::from_static(next), left == 0)?;
        }
        let response = response.await?;
        let location = response.headers().get("location").and_then(|value| value.to_str().ok()).map(path_of);
        let mut answer = Answer { status: response.status().as_u16(), location, bytes: 0 };
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let length = data?.len();
            body.flow_control().release_capacity(length)?;
            answer.bytes += length as u64;
        }
        if left > 0 {
            return Err(format!("answered {} with {left} bytes to send", answer.status).into());
        }
        answer.checked()
    }
}

impl Answer {
    fn checked(self) -> Outcome<Self> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(format!("answered {}", self.status).into()) }
    }

    fn session(self) -> Outcome<String> {
        self.location.ok_or_else(|| "no upload session was opened".into())
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

/// A body of so many bytes, piece by piece; the same bytes every time.
pub fn pieces(length: u64) -> impl Iterator<Item = &'static [u8]> {
    let mut left = length;
    std::iter::from_fn(move || {
        let next = (left > 0).then(|| piece(left))?;
        left -= next.len() as u64;
        Some(next)
    })
}

/// The next piece of a body that has so many bytes to go.
fn piece(left: u64) -> &'static [u8] {
    static NOISE: [u8; PIECE] = [b'n'; PIECE];
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
    NOISE.get(..length).unwrap_or_default()
}

fn path_of(location: &str) -> String {
    match location.split_once("://").and_then(|(_, rest)| rest.split_once('/')) {
        Some((_, path)) => format!("/{path}"),
        None => location.to_owned(),
    }
}
