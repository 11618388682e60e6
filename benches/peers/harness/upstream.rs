//! A light upstream that looks like a registry: a manifest, one big blob, and upload sessions that swallow what comes.
//!
//! It runs on a thread of the harness. Its time isn't counted: only that of the contestants' processes is.

use super::Outcome;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A manifest of usual size.
pub const MANIFEST: &str = "/v2/app/manifests/latest";
/// A blob of which every request gets as many bytes as the run says.
pub const BLOB: &str = "/v2/app/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Where an upload session is opened.
pub const UPLOADS: &str = "/v2/app/blobs/uploads/";

const MANIFEST_BYTES: usize = 1536;
/// What is read and written at once: large, so that the upstream wakes the contestants seldom.
const BUFFER: usize = 256 << 10;
const SESSION: &str = "Location: /v2/app/blobs/uploads/7f1d9c52-3c0e-4b8a-9a5e-0d6f2b7c4e11?_state=c3RhdGU\r\n\
                       Docker-Upload-UUID: 7f1d9c52-3c0e-4b8a-9a5e-0d6f2b7c4e11\r\nRange: 0-0\r\n";

/// What registries say besides.
const USUAL: &str = "Docker-Distribution-Api-Version: registry/2.0\r\n\
                     Docker-Content-Digest: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n\
                     Etag: \"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\r\n\
                     X-Content-Type-Options: nosniff\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n";

/// The upstream; dropping it ends its thread.
pub struct Upstream {
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Upstream {
    /// Starts it on a free port; its blob has `blob` bytes.
    ///
    /// # Errors
    /// When no runtime or socket is to be had.
    pub fn start(blob: u64) -> Outcome<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new().name("upstream".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    _ = accept(listener, blob) => {}
                }
            });
        })?;
        Ok(Self { address, _stop: stop })
    }
}

async fn accept(listener: std::net::TcpListener, blob: u64) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // A contestant that closes its connection is no fault.
            let _ = serve(stream, blob).await;
        });
    }
}

async fn serve(stream: TcpStream, blob: u64) -> io::Result<()> {
    let mut wire = Wire { stream, buffer: Vec::new(), at: 0 };
    loop {
        let Some(head) = wire.head().await? else { return Ok(()) };
        if head.expects {
            wire.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        match head.body {
            Body::Length(length) => wire.skip(length).await?,
            Body::Chunked => wire.skip_chunks().await?,
        }
        wire.answer(&head, blob).await?;
    }
}

struct Head {
    method: String,
    path: String,
    body: Body,
    expects: bool,
}

enum Body {
    Length(u64),
    Chunked,
}

/// A connection and what was read from it and not used yet: `buffer[at..]`.
struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    at: usize,
}

impl Wire {
    fn unread(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.at == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.drain(..self.at);
        }
        self.at = 0;
        self.buffer.reserve(BUFFER);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next head; `None` at the end of the connection.
    async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(self.unread()).map_err(io::Error::other)? {
                httparse::Status::Complete(length) => {
                    let head = head_of(&request);
                    self.at += length;
                    return Ok(Some(head));
                }
                httparse::Status::Partial => {
                    let clean = self.unread().is_empty();
                    match self.fill().await {
                        Err(_) if clean => return Ok(None),
                        other => other?,
                    }
                }
            }
        }
    }

    async fn skip(&mut self, mut length: u64) -> io::Result<()> {
        loop {
            let here = usize::try_from(length).unwrap_or(usize::MAX).min(self.unread().len());
            self.at += here;
            length -= here as u64;
            if length == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    async fn skip_chunks(&mut self) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(());
            }
            self.skip(size + 2).await?;
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            let unread = self.unread();
            if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(unread.get(..end).unwrap_or_default()).trim_end().to_owned();
                self.at += end + 1;
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    async fn answer(&mut self, head: &Head, blob: u64) -> io::Result<()> {
        let (status, headers, mut length) = match (head.method.as_str(), head.path.as_str()) {
            ("GET" | "HEAD", MANIFEST) => {
                ("200 OK", "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n", MANIFEST_BYTES as u64)
            }
            ("GET" | "HEAD", BLOB) => ("200 OK", "Content-Type: application/octet-stream\r\n", blob),
            ("POST" | "PATCH", _) => ("202 Accepted", SESSION, 0),
            ("PUT", _) => ("201 Created", "", 0),
            _ => ("200 OK", "Content-Type: application/json\r\n", 2),
        };
        static CONTENT: [u8; BUFFER] = [b'm'; BUFFER];
        let mut first = format!("HTTP/1.1 {status}\r\n{headers}{USUAL}Content-Length: {length}\r\n\r\n").into_bytes();
        if head.method == "HEAD" {
            length = 0;
        }
        let small = usize::try_from(length).unwrap_or(usize::MAX).min(8192);
        first.extend_from_slice(CONTENT.get(..small).unwrap_or_default());
        self.stream.write_all(&first).await?;
        length -= small as u64;
        while length > 0 {
            let next = usize::try_from(length).unwrap_or(usize::MAX).min(BUFFER);
            self.stream.write_all(CONTENT.get(..next).unwrap_or_default()).await?;
            length -= next as u64;
        }
        Ok(())
    }
}

fn head_of(request: &httparse::Request<'_, '_>) -> Head {
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let body = match header("transfer-encoding") {
        Some(_) => Body::Chunked,
        None => Body::Length(header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)),
    };
    Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: request.path.unwrap_or_default().to_owned(),
        body,
        expects: header("expect").is_some(),
    }
}
