//! From method, path and query to a [`Route`].

use std::borrow::Cow;

use super::error::{ErrorCode, RouteError};
use super::kind::{Method, RouteKind};
use super::name::{Algorithm, Digest, MediaType, Reference, RepoName, SessionId, Tag, UploadState};
use super::query::Query;
use super::route::{Endpoint, Mount, Page, Route};

/// Longest path, in bytes: the longest name, the longest tail and room to spare.
const MAX_PATH: usize = 1024;
/// Most entries a page may ask for. Larger pages gain nothing and registries build them in memory.
const MAX_PAGE: u32 = 10_000;

/// Reads a request. `path` and `query` are the raw bytes of the request line; `query` is without its `?`.
///
/// The path is matched from the right, since a repository name is greedy and may itself contain `blobs`, `uploads` or
/// `manifests`: `/v2/a/blobs/uploads/manifests/latest` is a manifest of `a/blobs/uploads`.
///
/// # Errors
/// 400 for what is malformed, 404 for a path that is no endpoint, 405 with an `Allow` header for a method that the
/// endpoint does not take. The method is judged before the query, so that GET and HEAD of one target are refused alike:
/// containerd repeats a failed HEAD as GET to read why.
pub fn route(method: &str, path: &str, query: Option<&str>) -> Result<Route, RouteError> {
    let path = canonical(path)?;
    let (kind, name, last) = split(&path)?;
    if !kind.allow().split(", ").any(|allowed| allowed == method) {
        return Err(RouteError { allow: Some(kind.allow()), ..unsupported() });
    }
    let method = Method::parse(method).ok_or_else(unsupported)?;
    let query = Query::parse(query.unwrap_or_default())?;
    let endpoint = match kind {
        RouteKind::Ping => Endpoint::Ping,
        RouteKind::Catalog => Endpoint::Catalog { page: page(&query, RepoName::parse)? },
        RouteKind::Tags => Endpoint::Tags { repository: RepoName::parse(name)?, page: page(&query, Tag::parse)? },
        RouteKind::Manifest => manifest(method, name, last, &query)?,
        RouteKind::Blob => Endpoint::Blob { repository: RepoName::parse(name)?, digest: Digest::parse(last)? },
        RouteKind::UploadStart => upload_start(name, &query)?,
        RouteKind::Upload => upload(method, name, last, &query)?,
        RouteKind::Referrers => Endpoint::Referrers {
            repository: RepoName::parse(name)?,
            digest: Digest::parse(last)?,
            artifact_type: query.artifact_type.as_deref().map(MediaType::parse).transpose()?,
        },
    };
    Ok(Route { method, endpoint })
}

/// Refuses every path that has a second spelling, and decodes the one escape that clients use: `%3A` in a digest.
fn canonical(path: &str) -> Result<Cow<'_, str>, RouteError> {
    if path.len() > MAX_PATH {
        return Err(malformed("path is too long"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:=%".contains(&byte);
    if !path.starts_with('/') || !path.bytes().all(allowed) {
        return Err(malformed("path holds a character that no registry path has"));
    }
    let path = decode_digest_colon(path)?;
    let mut segments = path.as_bytes().split(|byte| *byte == b'/');
    if path.as_bytes().windows(2).any(|pair| pair == b"//") || segments.any(|segment| matches!(segment, b"." | b"..")) {
        return Err(malformed("path holds an empty or a dot segment"));
    }
    Ok(path)
}

/// Replaces `%3A` in the last segment. A percent sign anywhere else would be decoded by the registry after the policy
/// has read the name without decoding it.
fn decode_digest_colon(path: &str) -> Result<Cow<'_, str>, RouteError> {
    let Some((before, after)) = path.split_once('%') else { return Ok(Cow::Borrowed(path)) };
    let digits = after.strip_prefix("3A").or_else(|| after.strip_prefix("3a"));
    let algorithm = before.ends_with("/sha256") || before.ends_with("/sha512");
    match digits {
        Some(digits) if algorithm && !digits.contains(['/', '%']) => Ok(Cow::Owned(format!("{before}:{digits}"))),
        _ => Err(malformed("path is percent-encoded")),
    }
}

/// Tells which endpoint a canonical path names, with the repository name and the last segment still unparsed.
fn split(path: &str) -> Result<(RouteKind, &str, &str), RouteError> {
    let rest = match path {
        "/v2" | "/v2/" => return Ok((RouteKind::Ping, "", "")),
        "/v2/_catalog" => return Ok((RouteKind::Catalog, "", "")),
        "/" => return Err(unknown()),
        _ => path.strip_prefix("/v2/"),
    };
    if let Some(name) = rest.and_then(|rest| rest.strip_suffix("/blobs/uploads/")) {
        return Ok((RouteKind::UploadStart, name, ""));
    }
    if path.ends_with('/') {
        return Err(malformed("path ends with a slash"));
    }
    let (front, last) = rest.and_then(|rest| rest.rsplit_once('/')).ok_or_else(unknown)?;
    let (name, collection) = front.rsplit_once('/').unwrap_or(("", front));
    match collection {
        "manifests" => Ok((RouteKind::Manifest, name, last)),
        "blobs" => Ok((RouteKind::Blob, name, last)),
        "referrers" => Ok((RouteKind::Referrers, name, last)),
        "tags" if last == "list" => Ok((RouteKind::Tags, name, last)),
        "uploads" => match name.strip_suffix("/blobs") {
            Some(name) => Ok((RouteKind::Upload, name, last)),
            None => Err(unknown()),
        },
        _ => Err(unknown()),
    }
}

fn manifest(method: Method, name: &str, last: &str, query: &Query<'_>) -> Result<Endpoint, RouteError> {
    let repository = RepoName::parse(name)?;
    let reference = Reference::parse(last)?;
    let tags = match (&reference, method) {
        (Reference::Digest(_), Method::Put) => {
            query.tags.iter().map(|tag| Tag::parse(tag)).collect::<Result<_, _>>()?
        }
        _ => Vec::new(),
    };
    Ok(Endpoint::Manifest { repository, reference, tags })
}

fn upload_start(name: &str, query: &Query<'_>) -> Result<Endpoint, RouteError> {
    // A mount without `from` lets the registry search all repositories: a source that nobody could authorize.
    let mount = match (query.mount.as_deref(), query.from.as_deref()) {
        (Some(digest), Some(from)) => Some(Mount { digest: Digest::parse(digest)?, from: RepoName::parse(from)? }),
        _ => None,
    };
    Ok(Endpoint::UploadStart {
        repository: RepoName::parse(name)?,
        mount,
        digest: query.digest.as_deref().map(Digest::parse).transpose()?,
        algorithm: query.digest_algorithm.as_deref().map(Algorithm::parse).transpose()?,
    })
}

fn upload(method: Method, name: &str, last: &str, query: &Query<'_>) -> Result<Endpoint, RouteError> {
    let completes = method == Method::Put;
    Ok(Endpoint::Upload {
        repository: RepoName::parse(name)?,
        session: SessionId::parse(last)?,
        state: query.state.as_deref().map(UploadState::parse).transpose()?,
        digest: query.digest.as_deref().filter(|_| completes).map(Digest::parse).transpose()?,
        binding: query.binding.as_deref().map(Into::into),
    })
}

fn page<T>(query: &Query<'_>, parse: impl Fn(&str) -> Result<T, super::NameError>) -> Result<Page<T>, RouteError> {
    let n = query.n.as_deref().map(page_size).transpose()?;
    let last = query.last.as_deref().map(parse).transpose()?;
    Ok(Page { n, last })
}

/// Registry 2.8 answers `n=-1` with entries; here a page has 1 to [`MAX_PAGE`].
fn page_size(text: &str) -> Result<u32, RouteError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|n| digits && (1..=MAX_PAGE).contains(n)).ok_or_else(|| {
        RouteError::new(ErrorCode::PaginationNumberInvalid, format!("n must be a number from 1 to {MAX_PAGE}"))
    })
}

fn malformed(message: &'static str) -> RouteError {
    RouteError::new(ErrorCode::NameInvalid, message)
}

fn unknown() -> RouteError {
    RouteError::new(ErrorCode::NameUnknown, "this gateway has no such endpoint")
}

fn unsupported() -> RouteError {
    RouteError::new(ErrorCode::Unsupported, "this endpoint does not take the request's method")
}
