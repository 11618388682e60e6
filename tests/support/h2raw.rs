//! An HTTP/2 client that writes whatever frames it is told to.

use super::tls::{ALPN_H2, PATIENCE, Tls};
use pingora::tls::ssl::SslStream;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A connection that speaks HTTP/2 frame by frame, for what no library would send.
pub struct RawH2 {
    stream: SslStream<TcpStream>,
}

/// A frame as received.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl RawH2 {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const PRIORITY: u8 = 2;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;

    /// # Errors
    /// See [`Tls::connect`].
    pub fn connect(tls: &Tls) -> Result<Self, String> {
        Self::connect_with(tls, &[])
    }

    /// Connects with these settings (RFC 9113 §6.5.1).
    ///
    /// # Errors
    /// See [`Tls::connect`].
    pub fn connect_with(tls: &Tls, settings: &[(u16, u32)]) -> Result<Self, String> {
        let mut stream = tls.clone().alpn(ALPN_H2).connect()?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").map_err(|e| e.to_string())?;
        let mut raw = Self { stream };
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        raw.frame(Self::SETTINGS, 0, 0, &payload);
        Ok(raw)
    }

    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        // The gateway may have ended the connection already; what it sent is what counts.
        let _ = self.send(&Self::encode(kind, flags, stream, payload));
    }

    /// Sends frames made by [`RawH2::encode`] and [`RawH2::encode_headers`].
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The transport below.
    pub fn tcp(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    pub fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("test frames are small").to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// A HEADERS frame with `fields` as literals, exactly as given.
    pub fn headers(&mut self, stream: u32, fields: &[(&[u8], &[u8])], last: bool) {
        let _ = self.send(&Self::encode_headers(stream, fields, last));
    }

    pub fn encode_headers(stream: u32, fields: &[(&[u8], &[u8])], last: bool) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0); // literal, not indexed, new name
            for text in [name, value] {
                block.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).expect("short texts"));
                block.extend_from_slice(text);
            }
        }
        let end = if last { Self::END_STREAM } else { 0 };
        Self::encode(Self::HEADERS, Self::END_HEADERS | end, stream, &block)
    }

    /// Reads until the gateway says goodbye, and returns the error code of its GOAWAY (RFC 9113 §7); `None` when the
    /// connection ends without one or nothing comes within `limit`.
    pub fn goaway(&mut self, limit: Duration) -> Option<u32> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            let frame = self.next(limit)?;
            if let (Self::GOAWAY, [_, _, _, _, code @ ..]) = (frame.kind, &frame.payload[..]) {
                return code.first_chunk().map(|code| u32::from_be_bytes(*code));
            }
        }
        None
    }

    /// The next frame, `None` when the connection has ended or nothing comes within `limit`.
    pub fn next(&mut self, limit: Duration) -> Option<Frame> {
        let _ = self.stream.get_ref().set_read_timeout(Some(limit));
        let mut head = [0_u8; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Waits for what the gateway makes of `stream`: `"reset"`, `"goaway"`, `"closed"`, or the status.
    pub fn verdict(&mut self, stream: u32) -> String {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let Some(frame) = self.next(PATIENCE) else {
                return "closed".to_owned();
            };
            match frame.kind {
                Self::RST_STREAM if frame.stream == stream => return "reset".to_owned(),
                Self::GOAWAY => return "goaway".to_owned(),
                Self::HEADERS if frame.stream == stream => return status(&frame.payload),
                Self::SETTINGS if frame.flags == 0 => self.frame(Self::SETTINGS, 1, 0, &[]),
                _ => {}
            }
        }
        "nothing".to_owned()
    }
}

/// The status of an answer: the first field, either from the static table or a literal with index 8.
fn status(block: &[u8]) -> String {
    const STATIC: [&str; 7] = ["200", "204", "206", "304", "400", "404", "500"];
    // A table-size update may come first.
    let block = if block.first().is_some_and(|b| b & 0xe0 == 0x20) { &block[1..] } else { block };
    match block {
        [first @ 0x88..=0x8e, ..] => STATIC[usize::from(first - 0x88)].to_owned(),
        [0x08 | 0x48, 3, digits @ ..] => String::from_utf8_lossy(&digits[..3]).into_owned(),
        [0x08 | 0x48, length, digits @ ..] if length & 0x80 != 0 => huffman_digits(digits),
        _ => format!("{block:02x?}"),
    }
}

/// Three digits in HPACK's Huffman code: 0, 1 and 2 have five bits, 3 to 9 six.
fn huffman_digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1)).collect();
    let mut at = 0;
    let mut text = String::new();
    while text.len() < 3 && at + 5 <= bits.len() {
        let five = bits[at..at + 5].iter().fold(0, |n, bit| n * 2 + bit);
        if five < 3 {
            text.push(char::from(b'0' + five));
            at += 5;
        } else {
            let Some(last) = bits.get(at + 5) else { break };
            text.push(char::from(b'3' + (five * 2 + last - 0x19)));
            at += 6;
        }
    }
    text
}
