//! Repository patterns, with placeholders for values of the client's certificate.

use std::fmt;

use crate::config::policy::Effect;
use crate::identity::PeerIdentity;
use crate::oci::{RepoName, is_path_component};

use super::capture::Unique;
use super::glob::{Components, Segment, Wildcard, begins_with, between, match_segments, same};
use super::names::has_one_reading;
use super::rule::Group;
use super::selector::{ATTRIBUTES, only};
use super::suggest::did_you_mean;

/// Highest `N` of `label[N]` and `path[N]`.
const MAX_INDEX: usize = 31;

/// What placeholders stand for, by the position of their [`Source`]; none where there is no usable value.
pub(super) type Values = Box<[Option<Box<str>>]>;

/// Finds the source of a placeholder by what stands in its braces. The error says what is wrong with it.
pub(super) type Resolve<'r> = dyn FnMut(&str) -> Result<usize, String> + 'r;

/// A pattern for repository names such as `team/${san.uri.path[1]}/**`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepositoryPattern {
    /// The segments before the first that holds a star or a placeholder: what every matching name begins with.
    prefix: Box<str>,
    /// The others.
    rest: Box<[Segment<Part>]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Wildcard),
    Value { prefix: Box<str>, placeholder: Box<str>, source: usize, suffix: Box<str> },
}

impl RepositoryPattern {
    /// Compiles a pattern. The error says what is wrong with it, as a fragment of a sentence.
    pub(super) fn parse(pattern: &str, resolve: &mut Resolve<'_>) -> Result<Self, String> {
        let segments = pattern.split('/').map(|segment| parse_segment(segment, resolve));
        let mut segments = segments.collect::<Result<Vec<_>, _>>()?;
        let shortest: usize = segments.iter().map(shortest_segment).sum();
        if shortest > RepoName::MAX_LENGTH + 1 {
            return Err(format!("can't match any repository name: it is longer than {}", RepoName::MAX_LENGTH));
        }
        let literal = |segment: &Segment<Part>| match segment {
            Segment::One(Part::Text(text)) => text.literal().map(str::to_owned),
            _ => None,
        };
        let fixed: Vec<_> = segments.iter().map_while(literal).collect();
        let rest = segments.split_off(fixed.len());
        Ok(Self { prefix: fixed.join("/").into(), rest: rest.into() })
    }

    /// The whole segments that every matching name begins with; empty if there are none.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether the pattern, with these values, names the repository.
    ///
    /// A value is compared, never parsed as a pattern: whatever a certificate holds cannot widen a rule. A placeholder
    /// without a usable value matches nothing where the rule allows, and any segment where it denies.
    pub(super) fn matches(&self, repository: &RepoName, values: &Values, effect: Effect) -> bool {
        self.matches_with(repository, effect, |source| values.get(source)?.as_deref())
    }

    /// The same for a pattern without placeholders.
    pub(super) fn matches_plainly(&self, repository: &RepoName) -> bool {
        self.matches_with(repository, Effect::Allow, |_| None)
    }

    /// Whether the pattern matches a name of which this is what stands below the pattern's prefix; none if the name is the
    /// prefix.
    #[inline]
    pub(super) fn matches_below(&self, below: Option<&str>, values: &Values, effect: Effect) -> bool {
        self.rest_matches(below, effect, |source| values.get(source)?.as_deref())
    }

    fn matches_with<'v>(
        &self,
        repository: &RepoName,
        effect: Effect,
        value: impl Fn(usize) -> Option<&'v str>,
    ) -> bool {
        // Most rules of a policy differ here already.
        if !begins_with(repository.as_str(), &self.prefix) {
            return false;
        }
        let Some(below) = repository.as_str().get(self.prefix.len()..) else { return false };
        let below = match below.strip_prefix('/') {
            _ if self.prefix.is_empty() => Some(below),
            Some(below) => Some(below),
            None if below.is_empty() => None,
            None => return false,
        };
        self.rest_matches(below, effect, value)
    }

    #[inline]
    fn rest_matches<'v>(&self, below: Option<&str>, effect: Effect, value: impl Fn(usize) -> Option<&'v str>) -> bool {
        match (&*self.rest, below) {
            ([Segment::Any], _) => true,
            (rest, None) => rest.iter().all(|segment| *segment == Segment::Any),
            ([], Some(_)) => false,
            (rest, Some(below)) => match_segments(rest, Components::of(below), |part, segment| match part {
                Part::Text(text) => text.matches(segment),
                Part::Value { prefix, source, suffix, .. } => {
                    let middle = between(segment, prefix, suffix);
                    middle.is_some_and(|middle| match value(*source) {
                        Some(value) => same(middle, value),
                        None => effect == Effect::Deny,
                    })
                }
            }),
        }
    }

    /// The placeholders of the pattern as they are written, each with its value if there is a usable one.
    pub(super) fn values<'v>(&'v self, values: &'v Values) -> impl Iterator<Item = (&'v str, Option<&'v str>)> {
        self.rest.iter().filter_map(|segment| match segment {
            Segment::One(Part::Value { placeholder, source, .. }) => {
                Some((&**placeholder, values.get(*source).and_then(Option::as_deref)))
            }
            _ => None,
        })
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)?;
        self.rest.iter().enumerate().try_for_each(|(i, segment)| {
            let slash = if i > 0 || !self.prefix.is_empty() { "/" } else { "" };
            write!(f, "{slash}{segment}")
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Value { prefix, placeholder, suffix, .. } => write!(f, "{prefix}{placeholder}{suffix}"),
        }
    }
}

fn parse_segment(text: &str, resolve: &mut Resolve<'_>) -> Result<Segment<Part>, String> {
    if text == "**" {
        return Ok(Segment::Any);
    }
    let Some((prefix, rest)) = text.split_once("${") else {
        check_segment(text)?;
        return Ok(Segment::One(Part::Text(Wildcard::new(text))));
    };
    let (name, suffix) =
        rest.split_once('}').ok_or_else(|| format!("placeholder in \"{text}\" has no closing brace"))?;
    let source = resolve(name)?;
    // Two values in one segment, or a value beside a star, can be cut in several ways: the client `ci` would match
    // what belongs to `ci-2`.
    if prefix.contains('*') || suffix.contains('*') || suffix.contains("${") {
        return Err(format!(
            "\"{text}\" has a * or a second placeholder beside a placeholder: put them in segments of their own"
        ));
    }
    check_segment(&format!("{prefix}a{suffix}"))?;
    let placeholder = format!("${{{name}}}").into();
    Ok(Segment::One(Part::Value { prefix: prefix.into(), placeholder, source, suffix: suffix.into() }))
}

/// Refuses a segment that no component of a repository name can match. Letters in place of the stars always do if
/// anything does.
fn check_segment(text: &str) -> Result<(), String> {
    let cause = if text.is_empty() {
        "it has an empty segment".to_owned()
    } else if text.contains("**") {
        format!("in \"{text}\" the ** is only a part of a segment (use * there)")
    } else if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        format!("\"{text}\" holds upper case, which no repository name does")
    } else if is_path_component(&text.replace('*', "a")) {
        return Ok(());
    } else {
        format!(
            "\"{text}\" is no component of a repository name \
             (lower-case letters and digits, separated by '.', '_', '__' or dashes)"
        )
    };
    Err(format!("can't match any repository name: {cause}"))
}

/// The least that a segment adds to a name's length, with its slash.
fn shortest_segment(segment: &Segment<Part>) -> usize {
    match segment {
        Segment::Any => 0,
        Segment::One(Part::Text(text)) => text.shortest().max(1) + 1,
        Segment::One(Part::Value { prefix, suffix, .. }) => prefix.len() + suffix.len() + 2,
    }
}

/// Where a placeholder gets its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// From a name of the certificate.
    Certificate(Placeholder),
    /// From what the selectors of these groups, by position, have captured under a name.
    Capture { name: Box<str>, groups: Box<[usize]> },
}

impl Source {
    /// The value for this client, if there is exactly one and it is a component of a repository name.
    pub(super) fn value(&self, groups: &[Group], identity: &PeerIdentity, effect: Effect) -> Option<Box<str>> {
        let value = match self {
            Self::Certificate(placeholder) => placeholder.value(identity)?,
            Self::Capture { name, groups: positions } => {
                let mut unique = Unique::default();
                let groups = positions.iter().filter_map(|position| groups.get(*position));
                for selector in groups.flat_map(|group| &group.selectors).filter(|s| s.matches(identity, effect)) {
                    selector.capture(name, identity, effect, &mut unique);
                }
                unique.value()?
            }
        };
        is_path_component(value).then(|| value.into())
    }
}

/// A value of the client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Placeholder {
    Subject(&'static str),
    Dns,
    DnsLabel(usize),
    UriHost,
    UriPath(usize),
    EmailLocal,
    EmailDomain,
}

/// Placeholders as they are written, for suggestions.
const SPELLINGS: [&str; 15] = [
    "subject.cn",
    "subject.o",
    "subject.ou",
    "subject.l",
    "subject.st",
    "subject.c",
    "subject.dc",
    "subject.uid",
    "subject.serialnumber",
    "san.dns",
    "san.dns.label[0]",
    "san.uri.host",
    "san.uri.path[0]",
    "san.email.local",
    "san.email.domain",
];

/// Says that no placeholder is called so, nor any of the captures that are known.
pub(super) fn unknown<'k>(name: &str, captures: impl IntoIterator<Item = &'k str>) -> String {
    format!("unknown placeholder \"${{{name}}}\"{}", did_you_mean(name, SPELLINGS.into_iter().chain(captures)))
}

impl Placeholder {
    /// Reads what stands in the braces.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        let unknown = || unknown(name, []);
        let never = |instead: &str| {
            Err(format!("placeholder \"${{{name}}}\" can't be a component of a repository name: use {instead}"))
        };
        match name {
            "san.dns" => return Ok(Self::Dns),
            "san.uri.host" => return Ok(Self::UriHost),
            "san.email.local" => return Ok(Self::EmailLocal),
            "san.email.domain" => return Ok(Self::EmailDomain),
            "san.uri" => return never("${san.uri.host} or ${san.uri.path[N]}"),
            "san.email" | "subject.emailaddress" => return never("${san.email.local} or ${san.email.domain}"),
            _ => {}
        }
        if let Some(short) = name.strip_prefix("subject.") {
            let lower = short.bytes().all(|byte| byte.is_ascii_lowercase());
            let known = ATTRIBUTES.into_iter().find(|attribute| lower && attribute.eq_ignore_ascii_case(short));
            return known.map(Self::Subject).ok_or_else(unknown);
        }
        let (list, index) = name.strip_suffix(']').and_then(|indexed| indexed.split_once('[')).ok_or_else(unknown)?;
        let digits = index.bytes().all(|byte| byte.is_ascii_digit());
        let index =
            index.parse().ok().filter(|index| digits && *index <= MAX_INDEX).ok_or_else(|| {
                format!("index of placeholder \"${{{name}}}\" must be a number from 0 to {MAX_INDEX}")
            })?;
        match list {
            "san.dns.label" => Ok(Self::DnsLabel(index)),
            "san.uri.path" => Ok(Self::UriPath(index)),
            _ => Err(unknown()),
        }
    }

    /// The identity's value, if there is exactly one.
    fn value(self, identity: &PeerIdentity) -> Option<&str> {
        match self {
            Self::Subject(attribute) => only(identity.attributes(attribute)),
            Self::Dns => only(&identity.dns),
            Self::DnsLabel(index) => only(&identity.dns)?.split('.').nth(index),
            Self::UriHost => Some(split_uri(only(&identity.uris)?)?.0),
            Self::UriPath(index) => split_uri(only(&identity.uris)?)?.1.split('/').nth(index),
            Self::EmailLocal => Some(only(&identity.emails)?.rsplit_once('@')?.0),
            Self::EmailDomain => Some(only(&identity.emails)?.rsplit_once('@')?.1),
        }
    }
}

/// Host and path (without its first slash) of a URI with an authority. A host with user or port is returned with them
/// and is then no component of a repository name.
fn split_uri(uri: &str) -> Option<(&str, &str)> {
    let (_, rest) = uri.split_once("://").filter(|_| has_one_reading(uri))?;
    Some(rest.split_once('/').unwrap_or((rest, "")))
}
