//! Patterns held against each other: does one name everything that another one does, do two have a name in common?
//!
//! Both answers are only yes when that is certain for every client and every name. Patterns come as a policy has them
//! and have been found well-formed.

use super::glob::Wildcard;

/// Whether every repository name that `pattern` matches is matched by `covering`, whoever asks. A placeholder in a rule
/// that denies matches whatever the same one matches in a rule that allows.
pub(super) fn covers(covering: &str, pattern: &str) -> bool {
    let (covering, pattern): (Vec<_>, Vec<_>) = (covering.split('/').collect(), pattern.split('/').collect());
    // `reached[i]`: whether the first `i` segments of the covering one can take those of the pattern seen so far.
    let mut reached = vec![false; covering.len() + 1];
    start(&mut reached, &covering);
    for segment in pattern {
        let mut next = vec![false; covering.len() + 1];
        for (i, taking) in covering.iter().enumerate() {
            let here = reached.get(i).copied().unwrap_or_default();
            let after = next.get(i).copied().unwrap_or_default();
            let takes = match *taking {
                // It takes this segment and stays open for more; or it took some and is left behind.
                "**" => {
                    if here && let Some(slot) = next.get_mut(i) {
                        *slot = true;
                    }
                    here || after
                }
                taking => here && segment != "**" && segment_covers(taking, segment),
            };
            if takes && let Some(slot) = next.get_mut(i + 1) {
                *slot = true;
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or_default()
}

/// Before any segment: past every `**` that stands at the beginning, since it may take none.
fn start(reached: &mut [bool], covering: &[&str]) {
    let leading = covering.iter().take_while(|segment| **segment == "**").count();
    reached.iter_mut().take(leading + 1).for_each(|slot| *slot = true);
}

/// Whether the repository patterns have a name in common, whatever the values of placeholders are.
pub(super) fn meet(one: &str, other: &str) -> bool {
    let (one, other): (Vec<_>, Vec<_>) = (one.split('/').collect(), other.split('/').collect());
    let is_star = |segment: &&str| *segment == "**";
    patterns_meet(&one, &other, is_star, |a, b| {
        if has_placeholder(a) || has_placeholder(b) {
            // One of them takes all that the other one may stand for, or they stand for the same.
            segment_covers(a, b) || segment_covers(b, a)
        } else {
            texts_meet(a, b)
        }
    })
}

/// Walks two patterns at once, whether something fits both. A star takes one part of the other pattern, or ends.
fn patterns_meet<T>(one: &[T], other: &[T], is_star: impl Fn(&T) -> bool, meets: impl Fn(&T, &T) -> bool) -> bool {
    let columns = other.len() + 1;
    let at = |i: usize, j: usize| i * columns + j;
    let mut table = vec![false; (one.len() + 1) * columns];
    for i in (0..=one.len()).rev() {
        for j in (0..=other.len()).rev() {
            let get = |i: usize, j: usize| table.get(at(i, j)).copied().unwrap_or_default();
            let found = match (one.get(i), other.get(j)) {
                (None, None) => true,
                (Some(a), Some(b)) if is_star(a) || is_star(b) => get(i + 1, j) || get(i, j + 1),
                (Some(a), Some(b)) => meets(a, b) && get(i + 1, j + 1),
                (Some(a), None) => is_star(a) && get(i + 1, j),
                (None, Some(b)) => is_star(b) && get(i, j + 1),
            };
            if let Some(slot) = table.get_mut(at(i, j)) {
                *slot = found;
            }
        }
    }
    table.first().copied().unwrap_or_default()
}

/// Whether every text that `pattern` matches is matched by `covering`; `*` is any run of characters.
pub(super) fn text_covers(covering: &str, pattern: &str) -> bool {
    // A character that no pattern holds can only be taken by a star, and what a star takes in one text it takes in all.
    Wildcard::new(covering).matches(&pattern.replace('*', "\u{1}"))
}

/// Whether some text is matched by both.
pub(super) fn texts_meet(one: &str, other: &str) -> bool {
    let (one, other): (Vec<_>, Vec<_>) = (one.chars().collect(), other.chars().collect());
    patterns_meet(&one, &other, |char| *char == '*', |a, b| a == b)
}

fn has_placeholder(segment: &str) -> bool {
    segment.contains("${")
}

/// Whether a pattern has a placeholder for something that the groups of its rule capture. The others name the
/// certificate's value by its kind, such as `subject.cn`.
pub(super) fn has_captures(pattern: &str) -> bool {
    pattern.split("${").skip(1).any(|rest| !rest.split('}').next().unwrap_or_default().contains('.'))
}

/// Whether a segment that isn't `**` matches whatever the other one does.
fn segment_covers(covering: &str, segment: &str) -> bool {
    match segment.split_once("${") {
        _ if covering == segment => true,
        _ if has_placeholder(covering) => false,
        // A value may be anything.
        Some((prefix, rest)) => {
            let suffix = rest.split_once('}').map_or("", |(_, suffix)| suffix);
            text_covers(covering, &format!("{prefix}*{suffix}"))
        }
        None => text_covers(covering, segment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::RepoName;

    #[test]
    fn what_covers_what() {
        for (covering, pattern, expected) in [
            ("**", "a/b", true),
            ("**", "**", true),
            ("a/**", "a", true),
            ("a/**", "a/b/**", true),
            ("a/**", "a/**", true),
            ("a/**", "ab", false),
            ("a/*", "a/**", false),
            ("a/*", "a/b", true),
            ("a/*", "a/${subject.cn}", true),
            ("a/x-*", "a/x-${subject.cn}", true),
            ("a/x-*", "a/${subject.cn}", false),
            ("${subject.cn}/**", "${subject.cn}/app", true),
            ("${subject.cn}/**", "${subject.ou}/app", false),
            ("${subject.cn}/**", "a/app", false),
            ("a*/**", "ab/c", true),
            ("a*/**", "*/c", false),
            ("**/b", "a/**/b", true),
            ("**/b", "b", true),
            ("**/b", "**", false),
            ("*/**", "**", false),
            ("**/**", "a", true),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b*/**/c", true),
            ("a-*-c", "a-b-c", true),
            ("a-*-c", "a-*", false),
            ("*-*", "a-*", true),
        ] {
            assert_eq!(covers(covering, pattern), expected, "{covering} covers {pattern}");
        }
    }

    #[test]
    fn what_meets_what() {
        for (one, other, expected) in [
            ("a/**", "**/b", true),
            ("a/*", "*/b", true),
            ("a/*", "b/*", false),
            ("a*", "*b", true),
            ("a", "a/b", false),
            ("a/**", "a", true),
            ("archive/**", "${subject.cn}/**", false),
            ("*/archive/**", "${subject.cn}/**", true),
            ("**", "${subject.cn}/**", true),
            ("${subject.cn}/x", "${subject.cn}/*", true),
            ("a-*", "b-*", false),
            ("a*c", "a*b*", true),
            ("ab", "a*bc", false),
        ] {
            assert_eq!(meet(one, other), expected, "{one} meets {other}");
            assert_eq!(meet(other, one), expected, "{other} meets {one}");
        }
    }

    /// Every pattern of up to three of these segments, and every name of up to three components.
    fn all(words: &[&str]) -> Vec<String> {
        let one: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let two = one.iter().flat_map(|a| one.iter().map(move |b| format!("{a}/{b}")));
        let two: Vec<_> = two.collect();
        let three = two.iter().flat_map(|a| one.iter().map(move |b| format!("{a}/{b}")));
        let three: Vec<_> = three.collect();
        [one, two, three].concat()
    }

    #[test]
    fn both_agree_with_the_names_that_are_matched() {
        use crate::policy::glob::{Segment, match_segments};
        let names = all(&["a", "ab", "b"]);
        assert!(names.iter().all(|name| RepoName::parse(name).is_ok()));
        let patterns = all(&["a", "a*", "*", "*b", "**"]);
        let matched = |pattern: &String| -> Vec<bool> {
            let segment = |text| if text == "**" { Segment::Any } else { Segment::One(Wildcard::new(text)) };
            let segments: Vec<_> = pattern.split('/').map(segment).collect();
            names.iter().map(|name| match_segments(&segments, name.split('/'), Wildcard::matches)).collect()
        };
        let matched: Vec<_> = patterns.iter().map(matched).collect();
        for (one, of_one) in patterns.iter().zip(&matched) {
            for (other, of_other) in patterns.iter().zip(&matched) {
                let common = of_one.iter().zip(of_other).any(|(a, b)| *a && *b);
                let held = of_one.iter().zip(of_other).all(|(a, b)| *a || !*b);
                assert!(!covers(one, other) || held, "{one} covers {other}");
                // With names this short every pair that meets does so on one of them.
                if one.split('/').count() + other.split('/').count() <= 3 {
                    assert_eq!(meet(one, other), common, "{one} meets {other}");
                }
            }
        }
    }

    #[test]
    fn captures_are_told_from_values_of_the_certificate() {
        assert!(has_captures("a/${team}/**") && has_captures("${subject.cn}/${team}"));
        assert!(!has_captures("${subject.cn}/**") && !has_captures("${san.uri.path[0]}/x") && !has_captures("a"));
    }
}
