//! Tags that can't be changed once they exist.

use crate::oci::{Action, RepoName, Tag};

use super::glob::Wildcard;
use super::rule::Question;
use super::template::RepositoryPattern;

/// All of a policy's.
#[derive(Debug, Default)]
pub(super) struct ImmutableTags(Box<[Entry]>);

/// Immutable tags of some repositories.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) repositories: Box<[RepositoryPattern]>,
    pub(super) tags: Box<[Wildcard]>,
    pub(super) except: Box<[Wildcard]>,
}

impl ImmutableTags {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        Self(entries.into())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what is asked would change such a tag.
    ///
    /// A deletion is refused whether the tag exists or not: what isn't there need not be deleted, and nobody can tell for
    /// how long it won't be. One by digest removes every tag that points there, or a layer of what a tag points to.
    pub(super) fn forbid(&self, question: &Question<'_>) -> bool {
        let Some(repository) = question.access.repository.filter(|_| !self.is_empty()) else { return false };
        match (question.access.action, question.tag) {
            (Action::Push | Action::Overwrite, Some(tag)) => question.exists && self.cover(repository, tag),
            (Action::Delete, Some(tag)) => self.cover(repository, tag),
            (Action::Delete, None) => self.of(repository).next().is_some(),
            _ => false,
        }
    }

    fn cover(&self, repository: &RepoName, tag: &Tag) -> bool {
        !is_referrers_tag(tag.as_str()) && self.of(repository).any(|entry| entry.covers(tag.as_str()))
    }

    fn of(&self, repository: &RepoName) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |entry| entry.repositories.iter().any(|pattern| pattern.matches_plainly(repository)))
    }
}

impl Entry {
    fn covers(&self, tag: &str) -> bool {
        let among = |patterns: &[Wildcard]| patterns.iter().any(|pattern| pattern.matches(tag));
        among(&self.tags) && !among(&self.except)
    }
}

/// Whether clients keep the list of some manifest's referrers under this tag where the registry has no API for it: they
/// must be able to bring it up to date (OCI distribution spec, "Referrers Tag Schema": the algorithm, and the first 64
/// digits).
fn is_referrers_tag(tag: &str) -> bool {
    let digits = tag.strip_prefix("sha256-").or_else(|| tag.strip_prefix("sha512-"));
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referrers_tags_are_told_from_others() {
        let digits = "0123456789abcdef".repeat(4);
        assert!(is_referrers_tag(&format!("sha256-{digits}")));
        assert!(is_referrers_tag(&format!("sha512-{digits}")));
        for other in [
            format!("sha256-{digits}0"),
            format!("sha256-{digits}.sig"),
            format!("sha256-{}", &digits.to_uppercase()),
            format!("sha1-{digits}"),
            format!("v1-sha256-{digits}"),
            "sha256-".to_owned(),
        ] {
            assert!(!is_referrers_tag(&other), "{other}");
        }
    }
}
