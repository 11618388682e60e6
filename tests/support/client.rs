//! An HTTP/1.1 client that sends exactly the bytes a test gives it.

use super::reply::Reply;
use super::tls::{ALPN_H1, Tls};
use pingora::tls::ssl::SslStream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub struct H1 {
    stream: SslStream<TcpStream>,
    buffer: Vec<u8>,
}

/// How the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

impl H1 {
    /// # Errors
    /// See [`Tls::connect`].
    pub fn connect(tls: &Tls) -> Result<Self, String> {
        let stream = tls.clone().alpn(ALPN_H1).connect()?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends a request head made of the parts as they are, and the body with its `Content-Length`.
    pub fn send_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: gw.test\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let framed = headers
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case("content-length") || n.eq_ignore_ascii_case("transfer-encoding"));
        if !framed && (!body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH")) {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When the connection ends before the answer is complete.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Reply> {
        // The gateway may answer and close before it has read everything; the answer is what counts.
        let sent = self.send_request(method, target, headers, body);
        self.answer_to(method).map_err(|e| sent.err().unwrap_or(e))
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Reply {
        self.request("GET", target, &[], b"").unwrap_or_else(|e| panic!("GET {target}: {e}"))
    }

    /// Reads an answer to anything but HEAD.
    pub fn answer(&mut self) -> io::Result<Reply> {
        self.answer_to("GET")
    }

    /// Reads the answer to `method`, skipping 1xx ones.
    pub fn answer_to(&mut self, method: &str) -> io::Result<Reply> {
        let mut reply = self.head()?;
        let mut body = Vec::new();
        self.body(&reply, method, |part| body.extend_from_slice(part))?;
        reply.body = body;
        Ok(reply)
    }

    /// Reads the head of the next final answer.
    pub fn head(&mut self) -> io::Result<Reply> {
        loop {
            let reply = self.any_head()?;
            if reply.status >= 200 || reply.status == 101 {
                return Ok(reply);
            }
        }
    }

    /// Reads the next head, also an informational one.
    pub fn any_head(&mut self) -> io::Result<Reply> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let text = String::from_utf8_lossy(&head);
        let mut lines = text.trim_end().split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("status line: {text:?}")))?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Reply { status, headers, body: Vec::new() })
    }

    /// Reads the body that belongs to `head`, piece by piece, and returns its length.
    pub fn body(&mut self, head: &Reply, method: &str, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        match framing(head, method) {
            Framing::None => Ok(0),
            Framing::Length(length) => self.exactly(length, &mut each),
            Framing::Chunked => self.chunks(&mut each),
            Framing::UntilClose => {
                let mut total = 0;
                loop {
                    if self.buffer.is_empty() {
                        match self.fill() {
                            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(total),
                            other => other?,
                        }
                    }
                    total += self.buffer.len() as u64;
                    each(&self.buffer);
                    self.buffer.clear();
                }
            }
        }
    }

    fn exactly(&mut self, length: u64, each: &mut impl FnMut(&[u8])) -> io::Result<u64> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() {
                self.fill()?;
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            each(&self.buffer[..take]);
            self.buffer.drain(..take);
            left -= take as u64;
        }
        Ok(length)
    }

    fn chunks(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let line = self.line()?;
            let size = u64::from_str_radix(line.split(';').next().unwrap_or(""), 16)
                .map_err(|e| io::Error::new(ErrorKind::InvalidData, format!("chunk {line:?}: {e}")))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(total);
            }
            total += self.exactly(size, each)?;
            self.line()?;
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            self.fill()?;
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        Ok(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut part = [0_u8; 64 * 1024];
        let n = self.stream.read(&mut part)?;
        if n == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the gateway closed"));
        }
        self.buffer.extend_from_slice(&part[..n]);
        Ok(())
    }

    /// Waits until the gateway ends the connection, whatever it still sends. `false` when it doesn't within `limit`.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        let _ = self.stream.get_ref().set_read_timeout(Some(Duration::from_millis(50)));
        let end = std::time::Instant::now() + limit;
        loop {
            let mut part = [0_u8; 16 * 1024];
            match self.stream.read(&mut part) {
                Ok(0) => return true,
                Err(e) if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return true,
                _ if std::time::Instant::now() > end => return false,
                _ => {}
            }
        }
    }
}

fn framing(head: &Reply, method: &str) -> Framing {
    if method == "HEAD" || head.status == 204 || head.status == 304 {
        return Framing::None;
    }
    if head.header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        return Framing::Chunked;
    }
    head.header("content-length").and_then(|v| v.parse().ok()).map_or(Framing::UntilClose, Framing::Length)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
