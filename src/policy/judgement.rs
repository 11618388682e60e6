//! How a request comes out, reduced to what can be compared.

use std::sync::Arc;

use crate::oci::Route;

use super::decide::{DEFAULT_DENY, Decision, Facts};
use super::rule::Policy;

/// The outcome of a decision without its reasons. It permits nothing: nobody can go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// How the request comes out.
    pub judged: Judged,
    /// The rule that settled it; none for the default deny, and where nothing is settled.
    pub rule: Option<Arc<str>>,
}

/// How a request comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Judged {
    /// It may proceed.
    Allow,
    /// Its mount is refused; it may proceed as an upload.
    AllowWithoutMount,
    /// It may not proceed.
    Deny,
    /// That depends on a fact that is not known.
    Unknown,
}

impl Judged {
    /// The word for it, as records have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::AllowWithoutMount => "allow_without_mount",
            Self::Deny => "deny",
            Self::Unknown => "unknown",
        }
    }
}

impl Judgement {
    /// What a decision over `asked` comes to, if `forwarded` is the request that it is about.
    #[must_use]
    pub fn of(asked: &Route, forwarded: &Route, decision: &Decision) -> Self {
        match decision {
            Decision::Permit(permit) => {
                let whole = asked.has_mount() == forwarded.has_mount();
                let judged = if whole { Judged::Allow } else { Judged::AllowWithoutMount };
                Self { judged, rule: Some(Arc::clone(permit.rule_name())) }
            }
            Decision::Reject(rejection) => Self { judged: Judged::Deny, rule: rejection.rule.clone() },
            Decision::Needs(_) => Self { judged: Judged::Unknown, rule: None },
        }
    }

    /// The name of the rule that settled it, or `default deny`; empty where nothing is settled.
    #[must_use]
    pub fn rule(&self) -> &str {
        let without = if self.judged == Judged::Unknown { "" } else { DEFAULT_DENY };
        self.rule.as_deref().unwrap_or(without)
    }
}

impl Policy {
    /// How a request would come out. It is decided as [`Policy::decide_route`] decides.
    #[must_use]
    pub fn judge_route(&self, route: &Route, facts: &Facts<'_>) -> Judgement {
        let (forwarded, decision) = self.decide_route(route.clone(), facts);
        Judgement::of(route, &forwarded, &decision)
    }
}
