//! Sets of actions, and by which of them rules settle an access.

use std::fmt;

use crate::oci::Action;

/// A set of actions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Actions(u8);

impl Actions {
    pub(super) fn of(actions: impl IntoIterator<Item = Action>) -> Self {
        Self(actions.into_iter().fold(0, |bits, action| bits | bit(action)))
    }

    pub(super) const fn contains(self, action: Action) -> bool {
        self.0 & bit(action) != 0
    }

    pub(super) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |action| self.contains(*action))
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().enumerate().try_for_each(|(i, action)| write!(f, "{}{action}", if i > 0 { ", " } else { "" }))
    }
}

const fn bit(action: Action) -> u8 {
    1 << action as u8
}

const fn one(action: Action) -> Actions {
    Actions(bit(action))
}

const fn two(action: Action, other: Action) -> Actions {
    Actions(bit(action) | bit(other))
}

/// The actions by which rules can settle an access: one of them suffices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// For a rule that allows.
    pub(super) allow: Actions,
    /// For a rule that denies. Who may not push may not overwrite, and who may not read what is mounted, or not mount it,
    /// may not have it mounted.
    pub(super) deny: Actions,
}

impl Wanted {
    /// For an action as an access has it; `exists` is whether the tag that it is about does.
    pub(super) fn by(action: Action, exists: bool) -> Self {
        match action {
            Action::Push if exists => Self::by(Action::Overwrite, exists),
            Action::Overwrite => Self { allow: one(action), deny: two(Action::Push, action) },
            Action::MountFrom => {
                let either = two(Action::Pull, action);
                Self { allow: either, deny: either }
            }
            Action::Pull | Action::Push | Action::Delete | Action::Catalog => {
                Self { allow: one(action), deny: one(action) }
            }
        }
    }
}
