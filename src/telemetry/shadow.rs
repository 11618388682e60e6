//! What a shadow policy would have done, beside what was done.

use std::sync::Arc;

use super::label::labels;
use crate::policy::{Judged, Judgement};

labels! {
    /// How the shadow policy's decision stands to the one in force.
    pub enum ShadowResult {
        /// Both come out alike.
        Same = "same",
        /// It would let through what was refused.
        WouldAllow = "would_allow",
        /// It would refuse what was let through.
        WouldDeny = "would_deny",
        /// It would make a mount that was refused.
        WouldAllowMount = "would_allow_mount",
        /// It would refuse a mount that was made.
        WouldRefuseMount = "would_refuse_mount",
        /// It needs to know what was not looked up.
        Unknown = "unknown",
    }
}

impl ShadowResult {
    /// The result of a request that came out as `real`, and would have as `shadow`.
    #[must_use]
    pub fn of(real: Judged, shadow: Judged) -> Self {
        match (real, shadow) {
            (Judged::Unknown, _) | (_, Judged::Unknown) => Self::Unknown,
            (real, shadow) if real == shadow => Self::Same,
            (Judged::Deny, _) => Self::WouldAllow,
            (_, Judged::Deny) => Self::WouldDeny,
            (Judged::AllowWithoutMount, _) => Self::WouldAllowMount,
            (Judged::Allow, _) => Self::WouldRefuseMount,
        }
    }
}

/// What the shadow policy says to a request.
#[derive(Clone, Debug)]
pub struct ShadowRecord {
    /// How the request would have come out.
    pub judged: Judged,
    /// The rule that would have decided; `None` for the default deny.
    pub rule: Option<Arc<str>>,
    /// What that is beside the decision in force.
    pub result: ShadowResult,
}

impl ShadowRecord {
    /// What there is to record of `shadow`, beside how the request came out.
    #[must_use]
    pub fn new(shadow: Judgement, real: Judged) -> Self {
        Self { result: ShadowResult::of(real, shadow.judged), judged: shadow.judged, rule: shadow.rule }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_has_its_word() {
        use Judged::{Allow, AllowWithoutMount, Deny, Unknown};
        for (real, shadow, expected) in [
            (Allow, Allow, "same"),
            (AllowWithoutMount, AllowWithoutMount, "same"),
            (Deny, Deny, "same"),
            (Allow, Deny, "would_deny"),
            (AllowWithoutMount, Deny, "would_deny"),
            (Deny, Allow, "would_allow"),
            (Deny, AllowWithoutMount, "would_allow"),
            (Allow, AllowWithoutMount, "would_refuse_mount"),
            (AllowWithoutMount, Allow, "would_allow_mount"),
            (Allow, Unknown, "unknown"),
            (Deny, Unknown, "unknown"),
            (Unknown, Unknown, "unknown"),
        ] {
            assert_eq!(ShadowResult::of(real, shadow).as_str(), expected, "{real:?} {shadow:?}");
        }
    }
}
