//! An HTTP/1.1 client.

use super::Outcome;
use super::body::{ACCEPT, Answer, Framing, HOST, path_of, pieces};
use super::client::Tls;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};

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

    /// Ends the connection with a goodbye: without one, OpenSSL takes no session of it for another connection.
    ///
    /// # Errors
    /// When the connection breaks before.
    pub async fn leave(mut self) -> Outcome<()> {
        Ok(self.stream.shutdown().await?)
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
