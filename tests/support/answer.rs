//! What a scripted upstream answers.

use super::pattern::pattern;
use super::tls::Wire;
use std::io;
use std::thread;
use std::time::Duration;

/// What to answer. Built by its methods; `Answer::new(200)` has no body.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
    delay: Duration,
    chunked: bool,
    piece: usize,
    pause: Duration,
    cut_after: Option<u64>,
    raw: Option<Vec<u8>>,
    close: bool,
    trailing: Option<(Duration, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Body {
    Bytes(Vec<u8>),
    /// This many bytes of [`pattern`], from an offset.
    Pattern(u64, u64),
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Bytes(Vec::new()),
            delay: Duration::ZERO,
            chunked: false,
            piece: 256 * 1024,
            pause: Duration::ZERO,
            cut_after: None,
            raw: None,
            close: false,
            trailing: None,
        }
    }

    /// These bytes, and nothing else, whatever HTTP they make.
    pub fn raw(bytes: &[u8]) -> Self {
        Self { raw: Some(bytes.to_vec()), ..Self::new(200) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, bytes: &[u8]) -> Self {
        self.body = Body::Bytes(bytes.to_vec());
        self
    }

    /// `length` bytes of [`pattern`] from `offset`.
    pub fn pattern(mut self, offset: u64, length: u64) -> Self {
        self.body = Body::Pattern(offset, length);
        self
    }

    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// Waits before the head of the answer.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the body in pieces with a pause after each.
    pub fn slowly(mut self, piece: usize, pause: Duration) -> Self {
        self.piece = piece;
        self.pause = pause;
        self
    }

    /// Ends the connection after this many bytes of the body.
    pub fn cut_after(mut self, bytes: u64) -> Self {
        self.cut_after = Some(bytes);
        self
    }

    /// Ends the connection after the answer, without having announced it.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Sends these bytes after the answer, of which they are no part, after a pause.
    pub fn followed_by(mut self, pause: Duration, bytes: &[u8]) -> Self {
        self.trailing = Some((pause, bytes.to_vec()));
        self
    }

    /// Whether the connection can't be used again after this answer.
    pub fn ends_connection(&self) -> bool {
        self.close || self.cut_after.is_some() || self.raw.is_some()
    }

    fn length(&self) -> u64 {
        match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Pattern(_, length) => *length,
        }
    }
}

/// Sends `answer`, to a request with `method`.
pub fn write_answer(wire: &mut dyn Wire, answer: &Answer, method: &str) -> io::Result<()> {
    thread::sleep(answer.delay);
    if let Some(raw) = &answer.raw {
        wire.write_all(raw)?;
        return wire.flush();
    }
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let length_given = answer.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    if answer.chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else if !length_given && answer.status != 204 && answer.status != 304 {
        head.push_str(&format!("Content-Length: {}\r\n", answer.length()));
    }
    head.push_str("\r\n");
    wire.write_all(head.as_bytes())?;
    wire.flush()?;
    if method == "HEAD" {
        return Ok(());
    }
    let mut sent = 0;
    let end = answer.length().min(answer.cut_after.unwrap_or(u64::MAX));
    while sent < end {
        let size = usize::try_from(end - sent).unwrap_or(usize::MAX).min(answer.piece);
        let piece = match &answer.body {
            Body::Bytes(bytes) => {
                let from = usize::try_from(sent).expect("a body in memory fits");
                bytes[from..from + size].to_vec()
            }
            Body::Pattern(offset, _) => pattern(offset + sent, size),
        };
        if answer.chunked {
            wire.write_all(format!("{size:x}\r\n").as_bytes())?;
        }
        wire.write_all(&piece)?;
        if answer.chunked {
            wire.write_all(b"\r\n")?;
        }
        sent += size as u64;
        if !answer.pause.is_zero() {
            wire.flush()?;
            thread::sleep(answer.pause);
        }
    }
    if answer.chunked && answer.cut_after.is_none() {
        wire.write_all(b"0\r\n\r\n")?;
    }
    if let Some((pause, bytes)) = &answer.trailing {
        wire.flush()?;
        thread::sleep(*pause);
        wire.write_all(bytes)?;
    }
    wire.flush()
}
