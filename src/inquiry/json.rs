//! The answer for programs.

use serde_json::{Value, json};

use super::{Answer, Reached, Recorded};
use crate::config::policy::Effect;
use crate::identity::PeerIdentity;
use crate::policy::{Decision, Explanation, Judged, Need, RuleTrace, Step};

/// The answer as an object.
#[must_use]
pub fn render(answer: &Answer<'_>) -> String {
    let (decision, rule, message) = match &answer.reached {
        Reached::Handshake(fault) => ("handshake", fault.as_str().to_owned(), fault.to_string()),
        Reached::Routing(error) => ("invalid", error.code.as_str().to_owned(), error.message.to_string()),
        Reached::Unasked => ("unasked", String::new(), String::new()),
        Reached::Policy(explanation) => decided(&explanation.decision),
    };
    let (steps, dropped) = match &answer.reached {
        Reached::Policy(explanation) => traces(explanation),
        _ => (json!([]), json!([])),
    };
    let mut value = json!({
        "allowed": answer.is_allowed(),
        "client": answer.identity.as_ref().map(PeerIdentity::label),
        "method": answer.request.method,
        "target": answer.request.target,
        "decision": decision,
        "rule": rule,
        "message": message,
        "steps": steps,
        "dropped_mount": dropped,
    });
    if let (Some(recorded), Some(object)) = (&answer.recorded, value.as_object_mut()) {
        object.insert("differs".to_owned(), recorded.differs.into());
        object.insert("certain".to_owned(), (!recorded.cut).into());
        object.insert("recorded".to_owned(), told(recorded));
    }
    format!("{value:#}\n")
}

fn told(recorded: &Recorded) -> Value {
    json!({
        "decision_id": recorded.decision_id,
        "time": recorded.time,
        "generation": recorded.generation,
        "decision": recorded.judged.map(Judged::as_str),
        "rule": recorded.rule,
        "outcome": recorded.outcome,
        "status": recorded.status,
    })
}

fn decided(decision: &Decision) -> (&'static str, String, String) {
    match decision {
        Decision::Permit(permit) => ("allow", permit.rule().to_owned(), String::new()),
        Decision::Reject(rejection) => ("deny", rejection.rule().to_owned(), rejection.to_string()),
        Decision::Needs(Need::TagExists { repository, tag }) => {
            ("depends", String::new(), format!("depends on whether {repository}:{tag} exists"))
        }
    }
}

fn traces(explanation: &Explanation<'_>) -> (Value, Value) {
    let all = |steps: &[Step<'_>]| Value::from(steps.iter().map(step).collect::<Vec<_>>());
    (all(&explanation.steps), all(&explanation.dropped_mount))
}

fn step(step: &Step<'_>) -> Value {
    json!({
        "action": step.action.as_str(),
        "repository": step.repository,
        "tag": step.tag,
        "only_if_exists": step.only_if_exists,
        "allowed": step.allowed,
        "rule": step.rule(),
        "rules": step.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

fn rule(trace: &RuleTrace<'_>) -> Value {
    let effect = match trace.rule.effect() {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    };
    let finding = trace
        .findings
        .iter()
        .map(|finding| json!({ "aspect": finding.aspect.as_str(), "holds": finding.holds, "reason": finding.reason }));
    json!({
        "name": trace.rule.name(),
        "effect": effect,
        "matches": trace.matches(),
        "findings": finding.collect::<Vec<_>>(),
    })
}
