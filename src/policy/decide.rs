//! The decision.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::policy::Effect;
use crate::identity::PeerIdentity;
use crate::oci::{Access, Action, Route, Tag};

use super::rule::{Policy, Question, Rule};
use super::standing::Standing;

/// What a permit for a request without accesses names as its rule.
pub(super) const PING_RULE: &str = "ping";
/// What a refusal names when no rule matched.
pub(super) const DEFAULT_DENY: &str = "default deny";

/// Everything that a decision may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client, by its verified certificate.
    pub identity: &'a PeerIdentity,
    /// What was worked out about the client before, by [`Policy::standing`]. It spares time, and never changes a
    /// decision: what another policy made is not looked at.
    pub standing: Option<&'a Standing>,
    /// The rights that the request needs; see [`crate::oci::Route::accesses`].
    pub accesses: &'a [Access<'a>],
    /// The time of the request, in unix seconds.
    pub now: u64,
    /// The address that the client connects from.
    pub client: IpAddr,
    /// How the connection is secured.
    pub tls: TlsFacts<'a>,
    /// Whether the tag to be pushed exists upstream; `None` while nobody has looked.
    pub tag_exists: Option<bool>,
}

/// What a decision may know of the TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFacts<'a> {
    /// The protocol version, such as `TLSv1.3`.
    pub version: &'a str,
}

impl<'a> TlsFacts<'a> {
    /// The facts of a session of this protocol version.
    #[must_use]
    pub fn new(version: &'a str) -> Self {
        Self { version }
    }
}

/// The answer to a request.
#[must_use = "a request may only proceed with the permit"]
#[derive(Debug)]
pub enum Decision {
    /// It may proceed.
    Permit(Permit),
    /// It may not.
    Reject(Rejection),
    /// The answer depends on something that is not known yet: learn it and decide again.
    Needs(Need),
}

/// Proof that the policy allowed a request. Only [`Policy::decide`] makes one, and what forwards requests asks for it.
#[derive(Debug)]
pub struct Permit {
    rule: Arc<str>,
}

impl Permit {
    /// The rule that allowed the request's main access; `ping` where nothing had to be allowed.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// The same, to keep beyond the permit without copying.
    #[must_use]
    pub fn rule_name(&self) -> &Arc<str> {
        &self.rule
    }
}

/// A refusal, with what the client and the operator need to understand it.
///
/// Displayed as `push to team-a/app is not allowed for CN=ci-7 (rule: default deny)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The first access that was refused.
    pub action: Action,
    /// Its repository; `None` for the catalog.
    pub repository: Option<String>,
    /// The tag that made the difference, if the access has tags.
    pub tag: Option<String>,
    /// The client, as [`PeerIdentity::label`] has it.
    pub client: String,
    /// The rule that denied; `None` when no rule allowed.
    pub rule: Option<Arc<str>>,
}

impl Rejection {
    /// The deciding rule's name, or `default deny`.
    #[must_use]
    pub fn rule(&self) -> &str {
        self.rule.as_deref().unwrap_or(DEFAULT_DENY)
    }

    /// The text for the client, with the id under which the access record tells more.
    #[must_use]
    pub fn message(&self, decision_id: &str) -> String {
        format!("{} (rule: {}; decision {decision_id})", self.sentence(), self.rule())
    }

    fn sentence(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let repository = self.repository.as_deref().unwrap_or_default();
        let wanted = match self.action {
            Action::Pull => format!("pull from {repository}"),
            Action::Push => format!("push to {repository}{tag}"),
            Action::Delete => format!("delete in {repository}{tag}"),
            Action::Catalog => "listing the catalog".to_owned(),
        };
        format!("{wanted} is not allowed for {}", self.client)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rule: {})", self.sentence(), self.rule())
    }
}

/// What a decision still depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Whether a tag exists in the repository: a push that overwrites may be judged otherwise than one that creates.
    TagExists {
        /// Where to look.
        repository: String,
        /// What for.
        tag: String,
    },
}

impl Policy {
    /// Decides over a request, and says which request may be sent on.
    ///
    /// That is `route` itself, with one exception. A refused mount is no refusal of the push: the client uploads the
    /// layer instead (OCI distribution spec, "Mounting a blob from another repository"), so the route comes back without
    /// it, decided anew. The accesses are the route's, whatever `facts` holds.
    pub fn decide_route(&self, route: Route, facts: &Facts<'_>) -> (Route, Decision) {
        let decide = |route: &Route| self.decide(&Facts { accesses: route.accesses().as_ref(), ..*facts });
        match decide(&route) {
            Decision::Reject(_) if route.has_mount() => {
                let route = route.without_mount();
                let decision = decide(&route);
                (route, decision)
            }
            decision => (route, decision),
        }
    }

    /// Decides whether the client may perform every access that its request implies.
    ///
    /// A request may imply several: a mount pushes to one repository and pulls from another, a manifest may set many
    /// tags. Each must be allowed by some rule and denied by none. An empty policy denies. The decision names the rule
    /// that made it, the first of the file if several could have, or says that none matched. Allowing allocates
    /// nothing if the client's standing is among the facts.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        let mut deciding: Option<&Arc<str>> = None;
        let made;
        let standing = match facts.standing.filter(|standing| self.knows(standing)) {
            Some(standing) => standing,
            None => {
                made = self.standing(facts.identity);
                &made
            }
        };
        for access in facts.accesses {
            match self.judge(facts.identity, standing, access) {
                Ok(rule) => deciding = deciding.or(Some(&rule.name)),
                Err(Refused { tag, rule }) => {
                    return Decision::Reject(Rejection {
                        action: access.action,
                        repository: access.repository.map(ToString::to_string),
                        tag: tag.map(ToString::to_string),
                        client: facts.identity.label().to_owned(),
                        rule: rule.map(|rule| Arc::clone(&rule.name)),
                    });
                }
            }
        }
        Decision::Permit(Permit { rule: Arc::clone(deciding.unwrap_or(&self.ping)) })
    }

    /// The rule that allows the access, for its first tag if it has several.
    fn judge<'p, 'a>(
        &'p self,
        identity: &'a PeerIdentity,
        standing: &'a Standing,
        access: &'a Access<'a>,
    ) -> Result<&'p Rule, Refused<'p, 'a>> {
        let judge_one =
            |tag| self.judge_one(&Question { identity, standing, access, tag }).map_err(|rule| Refused { tag, rule });
        let Some((first, others)) = access.tags.split_first() else { return judge_one(None) };
        let rule = judge_one(Some(first))?;
        for tag in others {
            judge_one(Some(tag))?;
        }
        Ok(rule)
    }

    /// The rule that allows. The error is the rule that denies, or none when no rule matches.
    pub(super) fn judge_one(&self, question: &Question<'_>) -> Result<&Rule, Option<&Rule>> {
        match self.first_match(Effect::Deny, question) {
            Some(rule) => Err(Some(rule)),
            None => self.first_match(Effect::Allow, question).ok_or(None),
        }
    }
}

struct Refused<'p, 'a> {
    tag: Option<&'a Tag>,
    rule: Option<&'p Rule>,
}
