//! One request for `/v2/`, as a client's first, and what its answer means.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::report::{Check, Report};
use crate::pki::date;

/// More of an answer isn't looked at.
const MOST: usize = 64 * 1024;

/// How far apart clocks may be.
const SKEW: i64 = 60;

/// The head of an answer, and the beginning of its body.
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Asks on a connection that is used for nothing else.
pub(super) async fn ask<S>(stream: &mut S, host: &str) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let version = env!("CARGO_PKG_VERSION");
    let request = format!(
        "GET /v2/ HTTP/1.1\r\nHost: {host}\r\nUser-Agent: portcullis-doctor/{version}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    // A server that refuses the client may have closed already; why it did is still to be read.
    let sent = match stream.write_all(request.as_bytes()).await {
        Ok(()) => stream.flush().await,
        Err(e) => Err(e),
    };
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    // Not every server closes when it is asked to.
    while bytes.len() < MOST && !parse(&bytes).is_some_and(|answer| answer.is_whole()) {
        match stream.read(&mut part).await {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(part.get(..n).unwrap_or_default()),
            // An answer counts, however its connection ends.
            Err(_) if parse(&bytes).is_some() => break,
            Err(e) => return Err(e),
        }
    }
    if bytes.is_empty() {
        sent?;
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
    }
    parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let headers = head
        .headers
        .iter()
        .map(|field| (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).trim().to_owned()));
    Some(Answer { status: head.code?, headers: headers.collect(), body: bytes.get(length..)?.to_vec() })
}

impl Answer {
    /// Whether its body is there to the end, as far as its head says where that is.
    fn is_whole(&self) -> bool {
        if matches!(self.status, 204 | 304) {
            return true;
        }
        match self.header("content-length").and_then(|length| length.parse().ok()) {
            Some(length) => self.body.len() >= length,
            None => self.header("transfer-encoding").is_some() && self.body.ends_with(b"0\r\n\r\n"),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The message in an error body of the OCI distribution specification.
    fn message(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body);
        // The body may be chunked; what counts is the object in it.
        let json = text.get(text.find('{')?..=text.rfind('}')?)?;
        let value: serde_json::Value = serde_json::from_str(json).ok()?;
        value.pointer("/errors/0/message")?.as_str().map(str::to_owned)
    }

    /// What the status says about client and registry.
    pub(super) fn judge(&self, report: &mut Report, identified: bool) {
        let said = self.message().map(|message| format!(": {message}")).unwrap_or_default();
        let status = format!("/v2/ answers {}{said}", self.status);
        let check = Check::Registry;
        match self.status {
            200 => report.ok(check, "/v2/ answers 200: the registry is there, and lets this client in"),
            401 if self.header("www-authenticate").is_some() => {
                report.warn(check, status, "the registry wants a login as well: docker login");
            }
            401 | 403 if identified => {
                let remedy = "the certificate is good, its rights are not: the operator sees the reason in the access record, \
                              or asks `portcullis policy explain`";
                report.fail(check, status, remedy);
            }
            401 | 403 => report.fail(check, status, "show a client certificate: see above"),
            404 => report.fail(check, status, "there is no registry here: are host and port those of the gateway?"),
            301..=308 => {
                let to = self.header("location").unwrap_or("nowhere");
                report.fail(check, format!("{status}, to {to}"), "name images by the host that it points to");
            }
            421 => {
                report.fail(check, status, "the server doesn't answer to this name: name images as its operator does");
            }
            500..=599 => {
                report.fail(check, status, "the gateway is there, the registry behind it is not: tell the operator");
            }
            _ => report.warn(check, status, "this is no answer that a registry gives: are host and port right?"),
        }
    }

    /// Compares the server's clock with ours.
    pub(super) fn clock(&self, report: &mut Report, now: i64) {
        let Some(theirs) = self.header("date").and_then(|text| httpdate::parse_http_date(text).ok()) else { return };
        let theirs = theirs.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let theirs = i64::try_from(theirs).unwrap_or(i64::MAX);
        if (theirs - now).abs() <= SKEW {
            return report.ok(Check::Clock, "this machine's clock agrees with the server's");
        }
        let detail = format!("here it is {}, on the server {}", date(now), date(theirs));
        report.warn(Check::Clock, detail, "set the clock that is wrong (timedatectl): certificates depend on it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_its_message() {
        let answer = parse(
            b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
              2c\r\n{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\"}]}\r\n0\r\n\r\n",
        )
        .expect("an answer");
        assert_eq!((answer.status, answer.message().as_deref()), (403, Some("no")));
        assert!(answer.is_whole());
        let whole = |bytes: &[u8]| parse(bytes).is_some_and(|answer| answer.is_whole());
        assert!(whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"));
        assert!(!whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"));
        assert!(!whole(b"HTTP/1.1 200 OK\r\n\r\n{}"), "until the end of the connection");
        assert!(parse(b"HTTP/1.1 200 OK\r\nA: b\r\n").is_none(), "half a head");
        assert!(parse(b"\x15\x03\x01\x00\x02\x02\x28").is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n}{").is_some_and(|answer| answer.message().is_none()));
    }
}
