//! Questions to a policy and their answers as pages: what `portcullis policy explain` prints and the admin listener
//! serves.
//!
//! A question is a client and a request, described by whoever asks or read back from an access record. The answer comes
//! from [`Policy::explain`]; nothing is decided here.

mod difference;
mod json;
mod question;
mod text;

use std::net::IpAddr;

use crate::identity::{CertificateFault, PeerIdentity};
use crate::oci::RouteError;
use crate::policy::suite::{Circumstances, Request};
use crate::policy::{Decision, Explanation, Judged, Judgement, Policy};
use crate::telemetry::{Past, Unreadable};

pub use difference::Comparison;
pub use json::render as json;
pub use question::{Question, Unanswered};
pub use text::render as text;

/// A question and its answer.
#[derive(Debug)]
pub struct Answer<'p> {
    /// None if the certificate is refused, or not told.
    identity: Option<PeerIdentity>,
    address: IpAddr,
    request: Request,
    reached: Reached<'p>,
    /// What was recorded about the request, if it is one of the past.
    recorded: Option<Recorded>,
}

/// How far the request comes.
#[derive(Debug)]
enum Reached<'p> {
    /// The certificate is refused in the handshake.
    Handshake(CertificateFault),
    /// It is no request of the registry's API.
    Routing(RouteError),
    /// It was refused before the policy was asked, for a reason that the record has a word for.
    Unasked,
    /// The policy is asked.
    Policy(Box<Explanation<'p>>),
}

/// A record, as far as answers tell it.
#[derive(Debug)]
struct Recorded {
    decision_id: String,
    time: String,
    generation: u64,
    outcome: String,
    status: Option<u16>,
    /// None if the policy was not asked.
    judged: Option<Judged>,
    rule: String,
    /// Whether the request comes out otherwise now; none if that depends on what was not looked up then.
    differs: Option<bool>,
    /// Whether names of the client are missing in the record.
    cut: bool,
}

impl<'p> Answer<'p> {
    /// What the policy says to this client's request. A certificate that is refused in the handshake has no identity.
    #[must_use]
    pub fn ask(
        policy: &'p Policy,
        client: Result<PeerIdentity, CertificateFault>,
        request: Request,
        circumstances: Circumstances,
    ) -> Self {
        let address = circumstances.address;
        let identity = match client {
            Ok(identity) => identity,
            Err(fault) => {
                return Self { identity: None, address, request, reached: Reached::Handshake(fault), recorded: None };
            }
        };
        let reached = match request.route() {
            Err(error) => Reached::Routing(error),
            Ok(route) => Reached::Policy(Box::new(policy.explain(route, &circumstances.facts(&identity)))),
        };
        Self { identity: Some(identity), address, request, reached, recorded: None }
    }

    /// What the policy says to a request of the past.
    ///
    /// # Errors
    /// What the record does not tell.
    pub fn replay(policy: &'p Policy, past: &Past) -> Result<Self, Unreadable> {
        let mut recorded = Recorded::of(past);
        let address = past.address();
        let request = Request { method: past.method.clone(), target: past.target.clone().unwrap_or_default() };
        if recorded.judged.is_none() {
            return Ok(Self { identity: None, address, request, reached: Reached::Unasked, recorded: Some(recorded) });
        }
        let (identity, asked) = (past.client()?, past.route()?);
        let explanation = policy.explain(asked.clone(), &past.facts(&identity)?);
        let judgement = Judgement::of(&asked, &explanation.route, &explanation.decision);
        // What today's policy would have had looked up can't be known any more.
        let known = judgement.judged != Judged::Unknown;
        recorded.differs = known.then(|| recorded.judged != Some(judgement.judged));
        let reached = Reached::Policy(Box::new(explanation));
        Ok(Self { identity: Some(identity), address, request, reached, recorded: Some(recorded) })
    }

    /// Whether the request is allowed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(&self.reached, Reached::Policy(explanation) if matches!(explanation.decision, Decision::Permit(_)))
    }
}

impl Recorded {
    fn of(past: &Past) -> Self {
        let rule = past.rule.clone().or_else(|| past.decision.map(|_| "default deny".to_owned()));
        Self {
            decision_id: past.decision_id.clone(),
            time: past.time.clone(),
            generation: past.generation,
            outcome: past.outcome.clone(),
            status: past.status,
            judged: past.judged(),
            rule: rule.unwrap_or_default(),
            differs: Some(false),
            cut: past.is_cut(),
        }
    }
}

#[cfg(test)]
mod tests;
