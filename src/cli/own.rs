//! Asking a gateway on this machine, by the listeners that it has for that.

use std::io::{self, Read, Write};

use crate::config::Secret;

/// The longest answer that is read, in bytes: a report on a broken configuration.
pub(super) const LONGEST: u64 = 64 * 1024;

/// One request without a body (`GET /readyz`, for instance), and the status and the text of its answer.
///
/// # Errors
///
/// What the transport reports, and `InvalidData` for what is no answer in HTTP.
pub(super) fn exchange(stream: impl Read + Write, line: &str) -> io::Result<(u16, String)> {
    ask(stream, &request(line, None))
}

/// A request without a body, with the token that administration may ask for.
pub(super) fn request(line: &str, token: Option<&Secret<String>>) -> Secret<String> {
    let token = token.map(|token| format!("Authorization: Bearer {}\r\n", token.expose())).unwrap_or_default();
    Secret::new(format!("{line} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Length: 0\r\nConnection: close\r\n\r\n"))
}

/// Sends a request; the status and the text of its answer.
///
/// # Errors
///
/// As [`exchange`].
pub(super) fn ask(mut stream: impl Read + Write, request: &Secret<String>) -> io::Result<(u16, String)> {
    stream.write_all(request.expose().as_bytes())?;
    let mut text = String::new();
    stream.take(LONGEST).read_to_string(&mut text)?;
    answer(&text)
}

/// The status and the text of an answer.
///
/// # Errors
///
/// `InvalidData` for what is no answer in HTTP.
pub(super) fn answer(text: &str) -> io::Result<(u16, String)> {
    let parts = text.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "that is no answer of a gateway"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written, and what is to be read.
    struct Wire(Vec<u8>, &'static [u8]);

    impl Read for Wire {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1.read(into)
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_answer_has_a_status_and_a_text() {
        let ask = |answer: &'static str| exchange(Wire(Vec::new(), answer.as_bytes()), "GET /readyz");
        let (status, text) = ask("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n").expect("an answer");
        assert_eq!((status, text.as_str()), (200, "done\n"));
        assert_eq!(ask("HTTP/1.1 500 Internal Server Error\r\n\r\nwhy").expect("an answer"), (500, "why".to_owned()));
        for garbage in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 2\r\n\r\n"] {
            ask(garbage).expect_err(garbage);
        }
    }
}
