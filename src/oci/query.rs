//! The query string, read once and strictly.
//!
//! Registries drop pairs with `;`, take the first or the last of repeated keys, and read more keys from form bodies.
//! Each of these gives a request two readings, so a query that could have two is refused, and what isn't known is
//! dropped.

use std::borrow::Cow;

use super::error::{ErrorCode, RouteError};

/// Longest query, in bytes. Many tags on one manifest are the longest that clients send.
const MAX_QUERY: usize = 16 * 1024;
/// Most tags that one manifest push may name. The specification asks registries for 10.
const MAX_TAGS: usize = 64;

/// The key under which the gateway ties an upload session to the client that opened it (see `crate::uploads`). No
/// registry sees it.
pub const BINDING: &str = "_bind";

/// The known keys of a query with their decoded, not yet validated values. Empty values count as absent, except `n`.
///
/// Keys are known over all routes: `from` given twice is ambiguous wherever it stands.
#[derive(Debug, Default)]
pub(super) struct Query<'q> {
    pub(super) n: Option<Cow<'q, str>>,
    pub(super) last: Option<Cow<'q, str>>,
    pub(super) digest: Option<Cow<'q, str>>,
    pub(super) mount: Option<Cow<'q, str>>,
    pub(super) from: Option<Cow<'q, str>>,
    pub(super) state: Option<Cow<'q, str>>,
    pub(super) binding: Option<Cow<'q, str>>,
    pub(super) artifact_type: Option<Cow<'q, str>>,
    pub(super) digest_algorithm: Option<Cow<'q, str>>,
    pub(super) tags: Vec<Cow<'q, str>>,
}

impl<'q> Query<'q> {
    /// Reads the raw query, without its `?`.
    pub(super) fn parse(raw: &'q str) -> Result<Self, RouteError> {
        if raw.len() > MAX_QUERY {
            return Err(malformed("query is too long"));
        }
        // `;` once separated pairs and for some readers still does; `#` never belongs to a request.
        if raw.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b';' | b'#')) {
            return Err(malformed("query holds a character that is not allowed there"));
        }
        let mut query = Self::default();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            query.take(&decode(key)?, value)?;
        }
        query.drop_empty();
        Ok(query)
    }

    fn take(&mut self, key: &str, value: &'q str) -> Result<(), RouteError> {
        let slot = match key {
            "n" => &mut self.n,
            "last" => &mut self.last,
            "digest" => &mut self.digest,
            "mount" => &mut self.mount,
            "from" => &mut self.from,
            "_state" => &mut self.state,
            BINDING => &mut self.binding,
            "artifactType" => &mut self.artifact_type,
            "digest-algorithm" => &mut self.digest_algorithm,
            "tag" if self.tags.len() == MAX_TAGS => {
                return Err(RouteError::new(ErrorCode::TagInvalid, "too many tags in one request"));
            }
            "tag" => {
                self.tags.push(decode(value)?);
                return Ok(());
            }
            _ => return Ok(()),
        };
        if slot.is_some() {
            return Err(malformed("a query parameter is given more than once"));
        }
        *slot = Some(decode(value)?);
        Ok(())
    }

    /// Clients build first pages with `last=`, and registries read an empty `from` as none. `n`, `tag`, digests and
    /// states stay: an empty one is a mistake that the value's own parser names.
    fn drop_empty(&mut self) {
        for slot in [&mut self.last, &mut self.mount, &mut self.from, &mut self.artifact_type] {
            slot.take_if(|value| value.is_empty());
        }
    }
}

/// Appends `key=value` to a target, every byte outside RFC 3986's unreserved characters percent-encoded.
pub(super) fn append(target: &mut String, separator: &mut char, key: &str, value: &str) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    target.push(*separator);
    *separator = '&';
    target.push_str(key);
    target.push('=');
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            target.push(char::from(byte));
        } else {
            target.push('%');
            for nibble in [byte >> 4, byte & 0xf] {
                target.extend(HEX.get(usize::from(nibble)));
            }
        }
    }
}

/// Decodes `%XX` and `+` once, as `application/x-www-form-urlencoded` readers do.
fn decode(text: &str) -> Result<Cow<'_, str>, RouteError> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = bytes.next().and_then(nibble);
                let low = bytes.next().and_then(nibble);
                high.zip(low).map(|(high, low)| high << 4 | low).ok_or_else(bad_encoding)?
            }
            _ => byte,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| bad_encoding())
}

fn nibble(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn bad_encoding() -> RouteError {
    malformed("query is not percent-encoded correctly")
}

fn malformed(message: &'static str) -> RouteError {
    RouteError::new(ErrorCode::NameInvalid, message)
}
