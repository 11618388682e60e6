//! Patterns for domain names and URIs.

use std::fmt;

use crate::config::policy::Effect;
use crate::identity::{PeerIdentity, SpiffeId};

use super::capture;
use super::glob::{Segment, Wildcard, match_segments, write_segments};

/// Domain names in which `*` stands for one label or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DomainPattern(Box<[Segment<Wildcard>]>);

impl DomainPattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let starred = capture::starred(text, '.')?;
        let text = text.to_ascii_lowercase();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*');
        let well_formed = |label: &str| !label.is_empty() && label.bytes().all(allowed) && !label.contains("**");
        if starred.len() > 253 || !starred.split('.').all(well_formed) {
            return Err(format!(
                "\"{text}\" is no pattern for a domain name: \
                 labels of letters, digits, '-', '_' and *, separated by dots"
            ));
        }
        let labels = text.split('.').map(|label| Wildcard::capturing(label).map(Segment::One));
        Ok(Self(labels.collect::<Result<_, _>>()?))
    }

    /// The patterns of its labels.
    pub(super) fn labels(&self) -> impl Iterator<Item = &Wildcard> {
        patterns(&self.0)
    }

    /// Calls `each` with every label of a name that matches, and the pattern that stands for it.
    pub(super) fn each_label<'t>(&self, name: &'t str, each: &mut dyn FnMut(&Wildcard, &'t str)) {
        side_by_side(&self.0, name.split('.'), each);
    }

    /// `name` is in lower case. A label that is itself a `*` is no host's name: stars of a rule that allows don't cover
    /// it.
    pub(super) fn matches(&self, name: &str, effect: Effect) -> bool {
        let plain = effect == Effect::Deny || !name.contains('*');
        plain && match_segments(&self.0, name.split('.'), |pattern, label| !label.is_empty() && pattern.matches(label))
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_segments(f, &self.0, '.')
    }
}

/// URIs with `*` for one path segment or a part of it and `**` for any number of segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UriPattern {
    spiffe: bool,
    wild: bool,
    segments: Box<[Segment<Wildcard>]>,
}

impl UriPattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.contains(':') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("\"{}\" is no URI: it needs a scheme, such as spiffe://", text.escape_debug()));
        }
        let (written, text) = (text, &*capture::starred(text, '/')?);
        let authority = text.split('/').take(3).any(|segment| segment.contains('*'));
        if authority || (text.contains('*') && !text.contains("://")) {
            return Err("* is for the path of a URI only: scheme and host must be written out".to_owned());
        }
        let segment = |segment: &str| match segment {
            "**" => Ok(Segment::Any),
            segment => Wildcard::capturing(segment).map(Segment::One),
        };
        let segments = written.split('/').map(segment).collect::<Result<Box<[_]>, _>>()?;
        let behind = segments.iter().skip_while(|segment| **segment != Segment::Any);
        if behind.into_iter().any(|segment| matches!(segment, Segment::One(text) if text.capture().is_some())) {
            return Err("a capture behind a ** could stand for several segments: put it before".to_owned());
        }
        if text.split('/').any(|segment| segment != "**" && segment.contains("**")) {
            return Err("** must be a whole segment of the path (use * for a part of one)".to_owned());
        }
        let spiffe = text.starts_with("spiffe:");
        if spiffe && SpiffeId::parse(&text.replace('*', "a")).is_none() {
            return Err(format!(
                "\"{written}\" can't match any SPIFFE ID \
                 (no port, no empty or dot segments, no percent signs, a lower-case trust domain)"
            ));
        }
        Ok(Self { spiffe, wild: text.contains('*'), segments })
    }

    pub(super) fn matches_any(&self, identity: &PeerIdentity, effect: Effect) -> bool {
        // A certificate with several URIs has no SPIFFE ID (X.509-SVID §2).
        if effect == Effect::Allow && self.spiffe && identity.spiffe_id().is_none() {
            return false;
        }
        identity.uris.iter().any(|uri| self.matches(uri, effect))
    }

    pub(super) fn matches(&self, uri: &str, effect: Effect) -> bool {
        if effect == Effect::Allow && self.wild && !has_one_reading(uri) {
            return false;
        }
        match_segments(&self.segments, uri.split('/'), Wildcard::matches)
    }

    /// The patterns of its segments.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Wildcard> {
        patterns(&self.segments)
    }

    /// Calls `each` with every segment before a `**` of a URI that matches, and the pattern that stands for it.
    pub(super) fn each_segment<'t>(&self, uri: &'t str, each: &mut dyn FnMut(&Wildcard, &'t str)) {
        side_by_side(&self.segments, uri.split('/'), each);
    }
}

impl fmt::Display for UriPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_segments(f, &self.segments, '/')
    }
}

/// Whether a URI holds nothing that readers of URIs resolve, decode or cut off. What does must not hide under a star,
/// nor move another segment to where a placeholder looks.
pub(super) fn has_one_reading(uri: &str) -> bool {
    let mut path = uri.split('/').skip(3);
    !uri.contains(['?', '#', '%', '\\']) && path.all(|segment| !matches!(segment, "" | "." | ".."))
}

fn patterns(segments: &[Segment<Wildcard>]) -> impl Iterator<Item = &Wildcard> {
    segments.iter().filter_map(|segment| match segment {
        Segment::One(text) => Some(text),
        Segment::Any => None,
    })
}

fn side_by_side<'t>(
    pattern: &[Segment<Wildcard>],
    text: impl Iterator<Item = &'t str>,
    each: &mut dyn FnMut(&Wildcard, &'t str),
) {
    for (segment, text) in pattern.iter().zip(text) {
        let Segment::One(part) = segment else { return };
        each(part, text);
    }
}
