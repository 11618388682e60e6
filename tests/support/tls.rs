//! The TLS side of our own test clients and servers, on whichever library the gateway is built with.
//!
//! Independent clients (the `openssl` command, curl, Go programs) are used where what a foreign library shows matters.

use super::pki::Identity;
use pingora::tls::ssl::{
    AlpnError, SslAcceptor, SslConnector, SslFiletype, SslMethod, SslStream, SslVerifyMode, SslVersion,
    select_next_proto,
};
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

/// A connection of any kind, blocking.
pub trait Wire: Read + Write + Send {
    /// Ends the transport in both directions, without any farewell of TLS.
    fn abort(&self);
}

impl Wire for TcpStream {
    fn abort(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl Wire for std::os::unix::net::UnixStream {
    fn abort(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl<S: Wire> Wire for SslStream<S> {
    fn abort(&self) {
        self.get_ref().abort();
    }
}

/// How a client connects. The server's name is always checked against `ca`.
#[derive(Clone, Debug)]
pub struct Tls {
    pub address: SocketAddr,
    /// The name asked for and checked; `None` sends no SNI and checks the chain only.
    pub name: Option<String>,
    pub ca: PathBuf,
    pub identity: Option<Identity>,
    pub alpn: &'static [u8],
    /// The loopback address to come from; `None` leaves it to the kernel.
    pub source: Option<Ipv4Addr>,
    /// The newest version of TLS offered; `None` is what the library has.
    pub newest: Option<SslVersion>,
}

pub const ALPN_H1: &[u8] = b"\x08http/1.1";
pub const ALPN_H2: &[u8] = b"\x02h2";
pub const ALPN_BOTH: &[u8] = b"\x02h2\x08http/1.1";

/// No read or write of a test client waits longer than this, so that a hanging gateway fails a test and not the run.
pub const PATIENCE: Duration = Duration::from_secs(20);

impl Tls {
    pub fn alpn(mut self, alpn: &'static [u8]) -> Self {
        self.alpn = alpn;
        self
    }

    /// Offers TLS 1.2 at most.
    pub fn tls12(mut self) -> Self {
        self.newest = Some(SslVersion::TLS1_2);
        self
    }

    pub fn name(mut self, name: Option<&str>) -> Self {
        self.name = name.map(str::to_owned);
        self
    }

    #[must_use]
    pub fn from(mut self, source: Ipv4Addr) -> Self {
        self.source = Some(source);
        self
    }

    /// A connection without TLS.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tcp(&self) -> std::io::Result<TcpStream> {
        let Some(source) = self.source else { return TcpStream::connect(self.address) };
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect(&self.address.into())?;
        Ok(socket.into())
    }

    fn connector(&self) -> SslConnector {
        let mut builder = SslConnector::builder(SslMethod::tls()).expect("a TLS client context");
        builder.set_ca_file(&self.ca).expect("the CA file of the test is readable");
        builder.set_alpn_protos(self.alpn).expect("a valid ALPN list");
        builder.set_max_proto_version(self.newest).expect("a version the library has");
        if let Some(identity) = &self.identity {
            builder.set_certificate_chain_file(&identity.chain).expect("the client chain is readable");
            builder.set_private_key_file(&identity.key, SslFiletype::PEM).expect("the client key is readable");
        }
        builder.build()
    }

    /// A blocking connection.
    ///
    /// # Errors
    /// The refusal in the library's words. Mind that a TLS 1.3 refusal of our certificate only shows at the first read.
    pub fn connect(&self) -> Result<SslStream<TcpStream>, String> {
        let tcp = self.tcp().map_err(|e| format!("connect: {e}"))?;
        let _ = tcp.set_nodelay(true);
        let _ = tcp.set_read_timeout(Some(PATIENCE));
        let _ = tcp.set_write_timeout(Some(PATIENCE));
        let named = self.name.is_some();
        self.connector()
            .configure()
            .map_err(|e| e.to_string())?
            .use_server_name_indication(named)
            .verify_hostname(named)
            .connect(self.name.as_deref().unwrap_or("unnamed.invalid"), tcp)
            .map_err(|e| e.to_string())
    }

    /// The same for use inside a runtime.
    ///
    /// # Errors
    /// As [`Tls::connect`].
    pub async fn connect_async(&self) -> Result<pingora::tls::tokio_ssl::SslStream<tokio::net::TcpStream>, String> {
        let tcp = self.tcp().and_then(|tcp| {
            tcp.set_nonblocking(true)?;
            tokio::net::TcpStream::from_std(tcp)
        });
        let tcp = tcp.map_err(|e| format!("connect: {e}"))?;
        let _ = tcp.set_nodelay(true);
        let named = self.name.is_some();
        let ssl = self
            .connector()
            .configure()
            .map_err(|e| e.to_string())?
            .use_server_name_indication(named)
            .verify_hostname(named)
            .into_ssl(self.name.as_deref().unwrap_or("unnamed.invalid"))
            .map_err(|e| e.to_string())?;
        let mut stream = pingora::tls::tokio_ssl::SslStream::new(ssl, tcp).map_err(|e| e.to_string())?;
        poll_fn(|cx| Pin::new(&mut stream).poll_connect(cx)).await.map_err(|e| e.to_string())?;
        Ok(stream)
    }
}

/// An acceptor for a test upstream; with `client_ca` it demands a client certificate.
pub fn acceptor(identity: &Identity, client_ca: Option<&Path>) -> SslAcceptor {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("a TLS server context");
    builder.set_certificate_chain_file(&identity.chain).expect("the server chain is readable");
    builder.set_private_key_file(&identity.key, SslFiletype::PEM).expect("the server key is readable");
    builder.set_alpn_select_callback(|_, offered| select_next_proto(ALPN_H1, offered).ok_or(AlpnError::NOACK));
    if let Some(ca) = client_ca {
        builder.set_ca_file(ca).expect("the CA file is readable");
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    builder.build()
}
