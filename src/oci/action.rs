//! What a request needs to be allowed to do.

use std::fmt;

use super::name::{RepoName, Tag};

/// Something that an identity can be allowed to do. The version check (`/v2/`) is none: it reveals nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read manifests, blobs, tag lists and referrers.
    Pull,
    /// Upload blobs and manifests, and create tags.
    Push,
    /// Let a tag that exists name another manifest.
    Overwrite,
    /// Link blobs of a repository into another one, without reading them.
    MountFrom,
    /// Delete manifests, tags and blobs.
    Delete,
    /// List the registry's repositories.
    Catalog,
}

impl Action {
    /// All actions, in the order of the policy's documentation.
    pub const ALL: [Self; 6] = [Self::Pull, Self::Push, Self::Overwrite, Self::MountFrom, Self::Delete, Self::Catalog];

    /// Whether it changes what the registry holds.
    #[must_use]
    pub fn is_write(self) -> bool {
        // No wildcard: whoever adds an action says here whether it is recorded and held back.
        match self {
            Self::Push | Self::Overwrite | Self::Delete => true,
            Self::Pull | Self::MountFrom | Self::Catalog => false,
        }
    }

    /// The word that policies, logs and refusals use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Overwrite => "overwrite",
            Self::MountFrom => "mount-from",
            Self::Delete => "delete",
            Self::Catalog => "catalog",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One right that a request needs. A request may proceed only when all its accesses are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access<'r> {
    /// What is to be done. [`Action::Push`] for every tag that is written, whether it exists or not: a request doesn't tell.
    /// [`Action::MountFrom`] for the source of a mount, for which the right to pull is as good.
    pub action: Action,
    /// Where. `None` for [`Action::Catalog`] and only there.
    pub repository: Option<&'r RepoName>,
    /// Tags that are written or removed; a rule about tags must hold for each of them.
    ///
    /// Empty for content without a tag. For a push that is harmless (a blob, or a manifest that nothing names yet), but
    /// a delete by digest removes *every* tag that points there, so it must not pass on a right limited to some tags.
    pub tags: &'r [Tag],
}

/// The accesses of one request: none, one, or two for a cross-repository mount. Lives on the stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accesses<'r>(Few<'r>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Few<'r> {
    None,
    One([Access<'r>; 1]),
    Two([Access<'r>; 2]),
}

impl<'r> Accesses<'r> {
    pub(super) fn none() -> Self {
        Self(Few::None)
    }

    pub(super) fn one(access: Access<'r>) -> Self {
        Self(Few::One([access]))
    }

    pub(super) fn two(first: Access<'r>, second: Access<'r>) -> Self {
        Self(Few::Two([first, second]))
    }
}

impl<'r> AsRef<[Access<'r>]> for Accesses<'r> {
    fn as_ref(&self) -> &[Access<'r>] {
        match &self.0 {
            Few::None => &[],
            Few::One(accesses) => accesses,
            Few::Two(accesses) => accesses,
        }
    }
}

impl<'r> std::ops::Deref for Accesses<'r> {
    type Target = [Access<'r>];

    fn deref(&self) -> &Self::Target {
        self.as_ref()
    }
}
