//! A request as it reached an upstream, and how it is read.

use super::pattern::hex;
use super::tls::Wire;
use sha2::{Digest, Sha256};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A request as it reached the upstream.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Request line and headers exactly as received, with the empty line.
    pub head: Vec<u8>,
    pub method: String,
    pub target: String,
    /// In the order received, names as received.
    pub headers: Vec<(String, String)>,
    pub body_length: u64,
    pub body_sha256: String,
    /// The first 64 KiB of the body.
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl Recorded {
    /// Splits a head, without judging it.
    pub fn parse(head: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let mut first = lines.next().unwrap_or_default().splitn(3, ' ');
        let method = first.next().unwrap_or_default().to_owned();
        let target = first.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Self { head, method, target, headers, ..Self::default() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.header(name).is_some()
    }

    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// How fast bodies are read, and how much of them has been.
#[derive(Default)]
pub struct Flow {
    /// Slept before each read.
    pub pause: Mutex<Duration>,
    /// Bytes of all bodies so far.
    pub bytes: AtomicU64,
}

/// Reads requests from one connection.
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    fn fill(&mut self, wire: &mut dyn Wire) -> io::Result<()> {
        let mut part = vec![0_u8; 64 * 1024];
        let n = wire.read(&mut part)?;
        if n == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed"));
        }
        self.buffer.extend_from_slice(&part[..n]);
        Ok(())
    }

    fn until(&mut self, wire: &mut dyn Wire, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|w| w == end) {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            self.fill(wire)?;
        }
    }

    /// `None` when the connection ends between requests. Bytes of an unfinished head count as a request.
    pub fn head(&mut self, wire: &mut dyn Wire) -> io::Result<Option<Vec<u8>>> {
        match self.until(wire, b"\r\n\r\n") {
            Ok(head) => Ok(Some(head)),
            Err(_) if self.buffer.is_empty() => Ok(None),
            Err(_) => Ok(Some(std::mem::take(&mut self.buffer))),
        }
    }

    /// Reads the body of `request` into it; `Err` when it breaks off.
    pub fn request_body(&mut self, wire: &mut dyn Wire, flow: &Flow, request: &mut Recorded) -> io::Result<()> {
        let mut hash = Sha256::new();
        let outcome = self.stream_body(wire, flow, request, &mut hash);
        request.body_sha256 = hex(&hash.finalize());
        request.complete = outcome.is_ok();
        outcome
    }

    fn stream_body(
        &mut self,
        wire: &mut dyn Wire,
        flow: &Flow,
        request: &mut Recorded,
        hash: &mut Sha256,
    ) -> io::Result<()> {
        if request.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.until(wire, b"\r\n")?;
                let size = std::str::from_utf8(&line)
                    .ok()
                    .and_then(|l| u64::from_str_radix(l.trim().split(';').next()?, 16).ok())
                    .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "chunk size"))?;
                if size == 0 {
                    while self.until(wire, b"\r\n")?.len() > 2 {}
                    return Ok(());
                }
                self.count(wire, flow, request, hash, size)?;
                self.until(wire, b"\r\n")?;
            }
        }
        let length = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        self.count(wire, flow, request, hash, length)
    }

    fn count(
        &mut self,
        wire: &mut dyn Wire,
        flow: &Flow,
        request: &mut Recorded,
        hash: &mut Sha256,
        length: u64,
    ) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() {
                let pause = *flow.pause.lock().unwrap_or_else(PoisonError::into_inner);
                thread::sleep(pause);
                self.fill(wire)?;
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let part = &self.buffer[..take];
            hash.update(part);
            let room = (64 * 1024_usize).saturating_sub(request.body.len()).min(take);
            request.body.extend_from_slice(&part[..room]);
            request.body_length += take as u64;
            flow.bytes.fetch_add(take as u64, Ordering::SeqCst);
            self.buffer.drain(..take);
            left -= take as u64;
        }
        Ok(())
    }
}
