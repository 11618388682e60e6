//! What requests and answers are made of, in either version of HTTP.

use super::Outcome;

/// The name in the server's certificate.
pub const HOST: &str = "registry.test";
/// A chunk of an upload: what Go's clients send, among them docker and containerd.
const PIECE: usize = 16 << 10;

/// The registry hides manifests of kinds that a client doesn't name.
pub const ACCEPT: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*";

/// An answer whose body was read to its end.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// Path and query.
    pub location: Option<String>,
    pub bytes: u64,
}

/// How the body of an upload says where it ends. In HTTP/2, [`Framing::Chunked`] is a body without a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
}

impl Answer {
    /// # Errors
    /// When it is none of success.
    pub fn checked(self) -> Outcome<Self> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(format!("answered {}", self.status).into()) }
    }

    /// The path of the upload session that it opened.
    ///
    /// # Errors
    /// When it opened none.
    pub fn session(self) -> Outcome<String> {
        self.location.ok_or_else(|| "no upload session was opened".into())
    }
}

/// A body of so many bytes, piece by piece; the same bytes every time.
pub fn pieces(length: u64) -> impl Iterator<Item = &'static [u8]> {
    let mut left = length;
    std::iter::from_fn(move || {
        let next = (left > 0).then(|| piece(left.min(PIECE as u64)))?;
        left -= next.len() as u64;
        Some(next)
    })
}

/// A piece of a body that has so many bytes to go: 512 KiB at most.
pub fn piece(left: u64) -> &'static [u8] {
    static NOISE: [u8; 512 << 10] = [b'n'; 512 << 10];
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(NOISE.len());
    NOISE.get(..length).unwrap_or_default()
}

/// Path and query of what may be a whole URL.
pub fn path_of(location: &str) -> String {
    match location.split_once("://").and_then(|(_, rest)| rest.split_once('/')) {
        Some((_, path)) => format!("/{path}"),
        None => location.to_owned(),
    }
}
