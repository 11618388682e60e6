//! Patterns: `*` inside a text, and `**` over segments of one. Both match without allocating and without exponential
//! backtracking.

use super::capture;
use std::fmt;

/// A text in which `*` stands for any run of characters, also none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wildcard {
    /// What stands before the first `*`; the whole text if there is none.
    prefix: Box<str>,
    /// What stands between and after the stars; `None` for a text without stars.
    after: Option<After>,
    /// The name of what the only star stands for.
    capture: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct After {
    middle: Box<[Box<str>]>,
    suffix: Box<str>,
}

impl Wildcard {
    pub(super) fn new(pattern: &str) -> Self {
        let Some((prefix, rest)) = pattern.split_once('*') else {
            return Self { prefix: pattern.into(), after: None, capture: None };
        };
        let (middle, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
        let middle = middle.split('*').filter(|piece| !piece.is_empty()).map(Box::from).collect();
        Self { prefix: prefix.into(), after: Some(After { middle, suffix: suffix.into() }), capture: None }
    }

    /// A text in which a name in braces, as in `team-{team}`, stands for any run of characters, kept under that name.
    ///
    /// The error says what is wrong with the braces.
    pub(super) fn capturing(pattern: &str) -> Result<Self, String> {
        Ok(match capture::split(pattern)? {
            Some((before, name, after)) => {
                Self { capture: Some(name.into()), ..Self::new(&format!("{before}*{after}")) }
            }
            None => Self::new(pattern),
        })
    }

    /// The name under which it keeps a part of what it matches.
    pub(super) fn capture(&self) -> Option<&str> {
        self.capture.as_deref()
    }

    /// That part of a text that it matches.
    pub(super) fn captured<'t>(&self, text: &'t str) -> Option<&'t str> {
        let suffix = self.after.as_ref().filter(|_| self.capture.is_some()).map(|after| &*after.suffix)?;
        between(text, &self.prefix, suffix)
    }

    /// The whole text, if it holds no `*`.
    pub(super) fn literal(&self) -> Option<&str> {
        self.after.is_none().then_some(&*self.prefix)
    }

    /// Bytes that every matching text has at least.
    pub(super) fn shortest(&self) -> usize {
        let after = self
            .after
            .iter()
            .map(|after| after.middle.iter().map(|piece| piece.len()).sum::<usize>() + after.suffix.len());
        self.prefix.len() + after.sum::<usize>()
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let Some(after) = &self.after else { return same(&self.prefix, text) };
        let Some(inner) = between(text, &self.prefix, &after.suffix) else { return false };
        // The leftmost place is always good enough: it leaves the most text to the pieces that follow.
        let taken = after.middle.iter().try_fold(inner, |rest, piece| rest.split_once(&**piece).map(|(_, tail)| tail));
        taken.is_some()
    }
}

// Comparisons of short texts: the C library's takes longer to be called than these take to be compared.

/// Whether the texts are equal.
#[inline]
pub(super) fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && begins_with(one, other)
}

/// Whether a text begins with a prefix.
#[inline]
pub(super) fn begins_with(text: &str, prefix: &str) -> bool {
    text.len() >= prefix.len() && prefix.bytes().zip(text.bytes()).all(|(expected, found)| expected == found)
}

/// What a text has between a prefix and a suffix, if it has both and they don't overlap.
#[inline]
pub(super) fn between<'t>(text: &'t str, prefix: &str, suffix: &str) -> Option<&'t str> {
    let end = text.len().checked_sub(suffix.len())?;
    let inner = text.get(prefix.len()..end)?;
    (begins_with(text, prefix) && begins_with(text.get(end..)?, suffix)).then_some(inner)
}

/// The pattern as it was written, but for stars that stood side by side.
impl fmt::Display for Wildcard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)?;
        let Some(After { middle, suffix }) = &self.after else { return Ok(()) };
        if let Some(name) = &self.capture {
            return write!(f, "{{{name}}}{suffix}");
        }
        middle.iter().try_for_each(|piece| write!(f, "*{piece}"))?;
        write!(f, "*{suffix}")
    }
}

/// One position of a pattern over segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment<T> {
    /// `**`: any number of segments, also none.
    Any,
    /// Exactly one segment.
    One(T),
}

impl<T: fmt::Display> fmt::Display for Segment<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("**"),
            Self::One(part) => part.fmt(f),
        }
    }
}

/// Writes the segments of a pattern as they were written.
pub(super) fn write_segments<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    segments: &[Segment<T>],
    separator: char,
) -> fmt::Result {
    segments.iter().enumerate().try_for_each(|(i, segment)| {
        if i > 0 {
            write!(f, "{separator}")?;
        }
        write!(f, "{segment}")
    })
}

/// The segments of a repository name. They are short, and a plain loop finds their ends sooner than a search that is made
/// for long texts.
#[derive(Debug, Clone)]
pub(super) struct Components<'t>(Option<&'t str>);

impl<'t> Components<'t> {
    pub(super) fn of(name: &'t str) -> Self {
        Self(Some(name))
    }
}

impl<'t> Iterator for Components<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let name = self.0?;
        let end = name.bytes().position(|byte| byte == b'/');
        let (component, rest) = end.and_then(|end| name.split_at_checked(end)).unwrap_or((name, ""));
        self.0 = rest.strip_prefix('/');
        Some(component)
    }
}

/// Whether the segments of a text follow the pattern; `one` compares a single segment.
#[inline]
pub(super) fn match_segments<'t, T>(
    pattern: &[Segment<T>],
    text: impl Iterator<Item = &'t str> + Clone,
    one: impl Fn(&T, &str) -> bool,
) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Up to the first `**` each segment has its place.
    while let Some((Segment::One(part), after)) = pattern.split_first() {
        if !text.next().is_some_and(|segment| one(part, segment)) {
            return false;
        }
        pattern = after;
    }
    match pattern {
        [] => text.next().is_none(),
        [Segment::Any] => true,
        _ => match_anywhere(pattern, text, one),
    }
}

/// The same for a pattern with `**` anywhere.
///
/// Only the last `**` is ever lengthened, which is sufficient and bounds the work by pattern times text.
fn match_anywhere<'t, T>(
    pattern: &[Segment<T>],
    text: impl Iterator<Item = &'t str> + Clone,
    one: impl Fn(&T, &str) -> bool,
) -> bool {
    let mut position = 0;
    let mut rest = text;
    let mut last_any = None;
    loop {
        let mut next = rest.clone();
        match (pattern.get(position), next.next()) {
            (None, None) => return true,
            (Some(Segment::Any), _) => {
                position += 1;
                last_any = Some((position, rest.clone()));
            }
            (Some(Segment::One(part)), Some(segment)) if one(part, segment) => {
                position += 1;
                rest = next;
            }
            _ => {
                let Some((after, taken)) = &mut last_any else { return false };
                if taken.next().is_none() {
                    return false;
                }
                position = *after;
                rest = taken.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, text, expected) in [
            ("ci-7", "ci-7", true),
            ("ci-7", "ci-77", false),
            ("ci-*", "ci-", true),
            ("ci-*", "ci-7", true),
            ("ci-*", "xci-7", false),
            ("*", "", true),
            ("*", "anything at all", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*b*", "abc", true),
            ("*b*b*", "abc", false),
            ("a**b", "ab", true),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "ab", false),
        ] {
            let compiled = Wildcard::new(pattern);
            assert_eq!(compiled.matches(text), expected, "{pattern} against {text}");
            assert_eq!(compiled.to_string(), pattern.replace("**", "*"));
        }
    }

    #[test]
    fn components_are_what_stands_between_slashes() {
        for name in ["", "a", "a/b", "a/b/c-d", "/", "a/", "//b", "é/ü"] {
            assert_eq!(Components::of(name).collect::<Vec<_>>(), name.split('/').collect::<Vec<_>>(), "{name}");
        }
    }

    #[test]
    fn what_is_between_prefix_and_suffix_overlaps_neither() {
        for (text, prefix, suffix, expected) in [
            ("ab-c-de", "ab-", "-de", Some("c")),
            ("ab-de", "ab-", "de", Some("")),
            ("ab-de", "ab-", "-de", None),
            ("abc", "", "", Some("abc")),
            ("abc", "b", "", None),
            ("abc", "", "b", None),
            ("a", "ab", "", None),
            ("é", "", "\u{a9}", None),
        ] {
            assert_eq!(between(text, prefix, suffix), expected, "{text} between {prefix} and {suffix}");
        }
    }

    fn segments(pattern: &str) -> Vec<Segment<&str>> {
        pattern.split('/').map(|part| if part == "**" { Segment::Any } else { Segment::One(part) }).collect()
    }

    #[test]
    fn two_stars_are_any_number_of_segments() {
        for (pattern, text, expected) in [
            ("a/**", "a", true),
            ("a/**", "a/b/c", true),
            ("a/**", "ab", false),
            ("**/c", "c", true),
            ("**/c", "a/b/c", true),
            ("**/c", "a/b/c/d", false),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b/c/b/c", true),
            ("**/a/**/b/**", "x/a/y/b", true),
            ("**/a/**/b/**", "x/b/y/a", false),
            ("**", "a/b", true),
        ] {
            let found = match_segments(&segments(pattern), text.split('/'), |part, segment| *part == segment);
            assert_eq!(found, expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn many_stars_cost_no_more_than_pattern_times_text() {
        let pattern = "**/a/".repeat(60);
        let pattern = segments(&pattern);
        let text = "a/".repeat(2000);
        assert!(!match_segments(&pattern, text.split('/'), |part, segment| *part == segment && !segment.is_empty()));
    }
}
