//! The decision.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::identity::PeerIdentity;
use crate::oci::{Access, Action, Route, Tag};

use super::rule::{Policy, Question, Rule};
use super::standing::Standing;

/// What a permit for a request without accesses names as its rule.
pub(super) const PING_RULE: &str = "ping";
/// What a refusal names when no rule matched.
pub(super) const DEFAULT_DENY: &str = "default deny";
/// What a refusal names when it protects a tag that can't be changed.
pub(super) const IMMUTABLE_RULE: &str = "immutable tags";
/// What a refusal names while the gateway lets nothing be written. That isn't the policy's, but no rule must be called so.
pub const READ_ONLY_RULE: &str = "read-only";

/// Names that no rule may have: they stand for what decides beside the rules.
pub(super) const RESERVED: [&str; 4] = [PING_RULE, DEFAULT_DENY, IMMUTABLE_RULE, READ_ONLY_RULE];

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
    /// Which of the tags to be pushed exist.
    pub tags: KnownTags<'a>,
}

/// What is known of the tags to be pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KnownTags<'a> {
    /// Nobody has looked.
    #[default]
    Nothing,
    /// All of them exist, or none.
    All(bool),
    /// These have been looked up.
    Each(&'a [(Tag, bool)]),
}

impl KnownTags<'_> {
    /// Whether a tag exists, as far as that is known.
    #[must_use]
    pub fn exists(self, tag: &Tag) -> Option<bool> {
        match self {
            Self::Nothing => None,
            Self::All(exists) => Some(exists),
            Self::Each(tags) => tags.iter().find(|(known, _)| known == tag).map(|(_, exists)| *exists),
        }
    }
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
    /// The first access that was refused: [`Action::Overwrite`] for a push to a tag that exists.
    pub action: Action,
    /// Its repository; `None` for the catalog.
    pub repository: Option<String>,
    /// The tag that made the difference, if the access has tags.
    pub tag: Option<String>,
    /// The client, as [`PeerIdentity::label`] has it.
    pub client: String,
    /// The rule that denied, or what did beside the rules; `None` when no rule allowed.
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
            Action::Overwrite => format!("push to {repository}{tag}, which exists,"),
            Action::MountFrom => format!("mount from {repository}"),
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
        tag: Tag,
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
    /// A request may imply several: a mount pushes to one repository and reads from another, a manifest may set many
    /// tags. Each must be allowed by some rule and denied by none. An empty policy denies. The decision names the rule
    /// that made it, the first of the file if several could have, or says that none matched. Whether a tag exists is
    /// asked for only where the request stands or falls with it. Allowing allocates nothing if the client's standing is
    /// among the facts.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        let made;
        let standing = match facts.standing.filter(|standing| self.knows(standing)) {
            Some(standing) => standing,
            None => {
                made = self.standing(facts.identity);
                &made
            }
        };
        let (mut deciding, mut needed) = (None, None);
        for access in facts.accesses {
            for tag in tags_of(access) {
                match self.judge(facts, standing, access, tag) {
                    Judgement::Allowed(rule) => deciding = deciding.or(Some(&rule.name)),
                    Judgement::Refused(action, by) => {
                        return Decision::Reject(Rejection {
                            action,
                            repository: access.repository.map(|name| name.as_str().to_owned()),
                            tag: tag.map(|tag| tag.as_str().to_owned()),
                            client: facts.identity.label().to_owned(),
                            rule: self.name_of(by),
                        });
                    }
                    // What is refused in any case is refused without a look.
                    Judgement::Depends => needed = needed.or(access.repository.zip(tag)),
                }
            }
        }
        match needed {
            Some((repository, tag)) => {
                Decision::Needs(Need::TagExists { repository: repository.to_string(), tag: tag.clone() })
            }
            None => Decision::Permit(Permit { rule: Arc::clone(deciding.unwrap_or(&self.ping)) }),
        }
    }

    fn judge<'p>(
        &'p self,
        facts: &Facts<'_>,
        standing: &Standing,
        access: &Access<'_>,
        tag: Option<&Tag>,
    ) -> Judgement<'p> {
        let answer = |exists| {
            let question = Question::new(facts, standing, access, tag, exists);
            match self.answer(&question) {
                Ok(rule) => Judgement::Allowed(rule),
                Err(by) => Judgement::Refused(question.action(), by),
            }
        };
        let pushed = tag.filter(|_| access.action == Action::Push);
        match pushed.map(|tag| facts.tags.exists(tag)) {
            None => answer(false),
            Some(Some(exists)) => answer(exists),
            Some(None) if !self.looks_at_tags() => answer(false),
            Some(None) => match (answer(false), answer(true)) {
                (new @ Judgement::Allowed(_), Judgement::Allowed(_))
                | (new @ Judgement::Refused(..), Judgement::Refused(..)) => new,
                _ => Judgement::Depends,
            },
        }
    }

    /// The rule that allows, or what refuses.
    pub(super) fn answer<'p>(&'p self, question: &Question<'_>) -> Result<&'p Rule, By<'p>> {
        match self.first_matches(question) {
            (Some(rule), _) => Err(By::Rule(rule)),
            (None, None) => Err(By::Nothing),
            (None, Some(_)) if self.immutable.forbid(question) => Err(By::Immutable),
            (None, Some(rule)) => Ok(rule),
        }
    }

    fn name_of(&self, by: By<'_>) -> Option<Arc<str>> {
        match by {
            By::Nothing => None,
            By::Rule(rule) => Some(Arc::clone(&rule.name)),
            By::Immutable => Some(Arc::clone(&self.immutable_rule)),
        }
    }
}

/// Each tag that an access is about; once none for an access without tags.
pub(super) fn tags_of<'a>(access: &Access<'a>) -> impl Iterator<Item = Option<&'a Tag>> + use<'a> {
    access.tags.iter().map(Some).chain(access.tags.is_empty().then_some(None))
}

/// What becomes of one access, as far as one tag is concerned.
enum Judgement<'p> {
    Allowed(&'p Rule),
    Refused(Action, By<'p>),
    /// On whether the tag exists.
    Depends,
}

/// What settles a right that a request needs.
#[derive(Debug, Clone, Copy)]
pub enum By<'p> {
    /// Nothing: no rule matched, which refuses.
    Nothing,
    /// A rule.
    Rule(&'p Rule),
    /// That the tag can't be changed.
    Immutable,
}

impl<'p> By<'p> {
    /// The rule's name, or what stands for it in refusals and records.
    #[must_use]
    pub fn name(self) -> &'p str {
        match self {
            Self::Nothing => DEFAULT_DENY,
            Self::Rule(rule) => rule.name(),
            Self::Immutable => IMMUTABLE_RULE,
        }
    }

    /// The rule, if it is one.
    #[must_use]
    pub fn rule(self) -> Option<&'p Rule> {
        match self {
            Self::Rule(rule) => Some(rule),
            Self::Nothing | Self::Immutable => None,
        }
    }
}
