//! Whether content is what its digest names, found out while it passes.
//!
//! A blob is too large to be read whole before it is delivered, so the client gets its bytes as they come, but for the
//! last piece: that one is held back until the hash of everything has been compared. If it differs, the answer never
//! completes. On HTTP/1.1 the connection ends short of the announced length or of the last chunk, on HTTP/2 the stream
//! is reset; no client takes that for a whole blob. One piece is as much as the framework reads at a time, 64 KiB.
//!
//! Docker goes on after the last byte that it got. Parts can't be checked, so parts of what was found to be wrong are
//! refused until the whole is right again.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType};
use sha2::{Digest as _, Sha256, Sha512};

use super::context::Exchange;
use crate::oci::{Algorithm, Digest, Endpoint, Method, Reference, Route};
use crate::telemetry::{DigestCheck, Outcome};

/// By what registries say which content they answer with.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// Judges the head of an answer, and begins to check its content where that is possible.
///
/// # Errors
///
/// The answer can't be what was asked for. Nothing of it has been sent yet, so the client is told.
pub(super) fn begin(client: &RequestHeader, response: &ResponseHeader, exchange: &mut Exchange) -> pingora::Result<()> {
    exchange.verifier = None;
    let Some(upstream) = exchange.upstream.clone().filter(|upstream| upstream.settings().verify_digests) else {
        return Ok(());
    };
    let Some(route) = &exchange.route else { return Ok(()) };
    match plan(route, client.headers.contains_key(RANGE), response) {
        Ok(Plan::Nothing) => {}
        Ok(Plan::Note(check)) => upstream.metrics().digest(check),
        Ok(Plan::Part(Some(digest))) if upstream.suspects().contains(&digest) => {
            return Err(mismatch(exchange, "a part of what was found to be something else"));
        }
        Ok(Plan::Part(_)) => upstream.metrics().digest(DigestCheck::Range),
        Ok(Plan::Verify(digest)) => exchange.verifier = Some(Verifier::new(digest)),
        Err(found) => return Err(mismatch(exchange, &found)),
    }
    Ok(())
}

/// Lets a part of the answer's body pass, or holds it back.
///
/// # Errors
///
/// The body has ended, and is not what its digest names.
pub(super) fn pass(body: &mut Option<Bytes>, end: bool, exchange: &mut Exchange) -> pingora::Result<()> {
    let Some(verifier) = &mut exchange.verifier else { return Ok(()) };
    let passed = verifier.pass(body.take(), end);
    let ended = exchange.verifier.take_if(|_| end || passed.is_err());
    if let (Some(verifier), Some(upstream)) = (ended, &exchange.upstream) {
        if passed.is_ok() {
            upstream.suspects().remove(&verifier.expected);
            upstream.metrics().digest(DigestCheck::Verified);
        } else {
            upstream.suspects().add(&verifier.expected);
        }
    }
    *body = passed.map_err(|found| mismatch(exchange, &found))?;
    Ok(())
}

fn mismatch(exchange: &mut Exchange, found: &str) -> Box<Error> {
    exchange.set_outcome(Outcome::DigestMismatch);
    let upstream = exchange.upstream.as_ref();
    if let Some(upstream) = upstream {
        upstream.metrics().digest(DigestCheck::Mismatch);
    }
    let asked = exchange.route.as_ref();
    log::log!(
        exchange.level(Outcome::DigestMismatch),
        "decision {}: upstream {} answers {} {} with other content: {found}; the client did not get it whole (was it \
         changed in the storage, or on the way from there?)",
        exchange.decision_id,
        upstream.map_or("", |upstream| upstream.name()),
        asked.and_then(Route::repository).map_or("", |repository| repository.as_str()),
        asked.and_then(Route::reference).unwrap_or_default(),
    );
    Error::explain(ErrorType::Custom("DigestMismatch"), found.to_owned()).into_up()
}

/// What is to be done about an answer.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// It has no content with a digest.
    Nothing,
    /// There is nothing to hash, or it can't be checked.
    Note(DigestCheck),
    /// A part that was asked for, of this.
    Part(Option<Digest>),
    /// Its body must hash to this.
    Verify(Digest),
}

/// # Errors
///
/// What the answer says instead.
fn plan(route: &Route, part_asked_for: bool, response: &ResponseHeader) -> Result<Plan, String> {
    let asked = match route.endpoint() {
        Endpoint::Blob { digest, .. } | Endpoint::Manifest { reference: Reference::Digest(digest), .. } => Some(digest),
        Endpoint::Manifest { reference: Reference::Tag(_), .. } => None,
        _ => return Ok(Plan::Nothing),
    };
    if !matches!(route.method(), Method::Get | Method::Head) || !response.status.is_success() {
        return Ok(Plan::Nothing);
    }
    let told = told_digest(response)?;
    // One content has a digest for each algorithm.
    if let (Some(asked), Some(told)) = (asked, &told)
        && asked.algorithm() == told.algorithm()
        && asked != told
    {
        return Err(format!("the answer says that it is {told}"));
    }
    if route.method() == Method::Head {
        return Ok(Plan::Note(DigestCheck::Head));
    }
    if response.status.as_u16() == 206 {
        // RFC 9110 §15.3.7. Whole content that is called a part would pass unchecked.
        let unasked = || "a part (status 206), though the whole was asked for".to_owned();
        return part_asked_for.then(|| Plan::Part(asked.cloned().or(told))).ok_or_else(unasked);
    }
    if is_encoded(response) {
        // Digests are over what was pushed. No encoding was offered (RFC 9110 §12.5.3).
        return Err("encoded content (Content-Encoding), which was not asked for".to_owned());
    }
    let told = told.filter(|_| !is_signed(response));
    let Some(digest) = asked.cloned().or(told) else { return Ok(Plan::Note(DigestCheck::NoDigest)) };
    if is_empty(response) {
        // The framework shows no body where there is none.
        return Verifier::new(digest).pass(None, true).map(|_| Plan::Note(DigestCheck::Verified));
    }
    Ok(Plan::Verify(digest))
}

/// The digest that the answer claims; `None` without one, or with one of an algorithm that nobody knows here.
fn told_digest(response: &ResponseHeader) -> Result<Option<Digest>, String> {
    let mut values = response.headers.get_all(CONTENT_DIGEST).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err("the answer names more than one digest".to_owned());
    }
    Ok(first.and_then(|value| Digest::parse(value.to_str().ok()?).ok()))
}

/// Manifests of schema 1 are wrapped in their signatures, and their digest is that of what is inside. Asked for by digest
/// they are refused: whatever is called so would pass unchecked.
fn is_signed(response: &ResponseHeader) -> bool {
    let kind = response.headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
    kind.is_some_and(|kind| kind.starts_with(b"application/vnd.docker.distribution.manifest.v1+prettyjws"))
}

fn is_encoded(response: &ResponseHeader) -> bool {
    let encodings = response.headers.get_all(CONTENT_ENCODING).iter();
    encodings.into_iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn is_empty(response: &ResponseHeader) -> bool {
    let length = response.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    // RFC 9110 §15.3.5: 204 has no content, whatever it says.
    response.status.as_u16() == 204 || length == Some(0)
}

/// The check of one answer.
#[derive(Debug)]
pub(super) struct Verifier {
    expected: Digest,
    hash: Hash,
    /// The last piece that came.
    held: Bytes,
}

#[derive(Debug)]
enum Hash {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Verifier {
    fn new(expected: Digest) -> Self {
        let hash = match expected.algorithm() {
            Algorithm::Sha256 => Hash::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hash::Sha512(Sha512::new()),
        };
        Verifier { expected, hash, held: Bytes::new() }
    }

    /// Takes a piece, and gives what may go on: the piece before it, and at a good end everything.
    ///
    /// # Errors
    ///
    /// What the whole hashes to instead.
    fn pass(&mut self, part: Option<Bytes>, end: bool) -> Result<Option<Bytes>, String> {
        let part = part.unwrap_or_default();
        self.hash.update(&part);
        if !end {
            // An empty piece would take the place of one that must be held.
            let passed = if part.is_empty() { part } else { std::mem::replace(&mut self.held, part) };
            return Ok(Some(passed).filter(|passed| !passed.is_empty()));
        }
        let found = self.hash.finish();
        if found != self.expected.encoded() {
            return Err(format!("it hashes to {}:{found}", self.expected.algorithm().as_str()));
        }
        let held = std::mem::take(&mut self.held);
        Ok(match (held.is_empty(), part.is_empty()) {
            (true, true) => None,
            (true, false) => Some(part),
            (false, true) => Some(held),
            (false, false) => {
                let mut both = BytesMut::with_capacity(held.len() + part.len());
                both.extend_from_slice(&held);
                both.extend_from_slice(&part);
                Some(both.freeze())
            }
        })
    }
}

impl Hash {
    fn update(&mut self, part: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(part),
            Self::Sha512(hash) => hash.update(part),
        }
    }

    /// The hash in lower-case hexadecimal; begins anew.
    fn finish(&mut self) -> String {
        match self {
            Self::Sha256(hash) => data_encoding::HEXLOWER.encode(&hash.finalize_reset()),
            Self::Sha512(hash) => data_encoding::HEXLOWER.encode(&hash.finalize_reset()),
        }
    }
}

#[cfg(test)]
mod tests;
