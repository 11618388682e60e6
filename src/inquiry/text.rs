//! The answer for people.

use std::fmt::{self, Write as _};

use super::{Answer, Reached, Recorded};
use crate::config::policy::Effect;
use crate::identity::PeerIdentity;
use crate::oci::Action;
use crate::policy::suite::NO_ADDRESS;
use crate::policy::{Decision, Explanation, Judged, Need, RuleTrace, Step};

/// The answer as a page.
#[must_use]
pub fn render(answer: &Answer<'_>) -> String {
    let mut page = String::new();
    // Writing to a String can't fail.
    _ = write(&mut page, answer);
    page
}

fn write(page: &mut String, answer: &Answer<'_>) -> fmt::Result {
    if let Some(identity) = &answer.identity {
        client(page, identity)?;
    }
    if answer.address != NO_ADDRESS {
        writeln!(page, "from      {}", answer.address)?;
    }
    writeln!(page, "request   {} {}", answer.request.method, answer.request.target)?;
    if let Some(recorded) = &answer.recorded {
        past(page, recorded)?;
    }
    match &answer.reached {
        Reached::Unasked => {
            let rule = answer.recorded.as_ref().map(|recorded| recorded.rule.as_str()).unwrap_or_default();
            let by = if rule.is_empty() { String::new() } else { format!("; refused by {rule}") };
            writeln!(page, "decision  none: the policy was not asked{by}")
        }
        Reached::Handshake(fault) => writeln!(page, "decision  refused in the TLS handshake: {fault}"),
        Reached::Routing(error) => writeln!(
            page,
            "decision  refused before the policy is asked: {} {}: {}",
            error.code.status(),
            error.code.as_str(),
            error.message
        ),
        Reached::Policy(explanation) => decision(page, explanation),
    }
}

fn past(page: &mut String, recorded: &Recorded) -> fmt::Result {
    let Recorded { decision_id, time, generation, outcome, rule, .. } = recorded;
    let status = recorded.status.map(|status| format!(", status {status}")).unwrap_or_default();
    writeln!(page, "record    {decision_id}, {time}, generation {generation}, outcome {outcome}{status}")?;
    let Some(judged) = recorded.judged else { return Ok(()) };
    let word = match judged {
        Judged::Allow => "allowed",
        Judged::AllowWithoutMount => "allowed without its mount",
        Judged::Deny => "refused",
        Judged::Unknown => "open",
    };
    let today = match recorded.differs {
        Some(true) => "today it comes out otherwise",
        Some(false) => "today it comes out alike",
        None => "today that depends on what the record doesn't tell",
    };
    writeln!(page, "then      {word} by {rule}; {today}")?;
    if recorded.cut {
        writeln!(page, "caution   the record was cut: names of the client are missing in it, so this is not certain")?;
    }
    Ok(())
}

fn client(page: &mut String, identity: &PeerIdentity) -> fmt::Result {
    writeln!(page, "client    {}", identity.label())?;
    let attributes = [("subject", &identity.subject), ("issuer", &identity.issuer)];
    for (name, attributes) in attributes.into_iter().filter(|(_, attributes)| !attributes.is_empty()) {
        let all: Vec<_> = attributes.iter().map(ToString::to_string).collect();
        writeln!(page, "          {name} {}", all.join(", "))?;
    }
    let names = [("dns", &identity.dns), ("uri", &identity.uris), ("email", &identity.emails)];
    for (kind, name) in names.into_iter().flat_map(|(kind, names)| names.iter().map(move |name| (kind, name))) {
        writeln!(page, "          {kind} {name}")?;
    }
    identity.ips.iter().try_for_each(|ip| writeln!(page, "          ip {ip}"))
}

fn decision(page: &mut String, explanation: &Explanation<'_>) -> fmt::Result {
    match &explanation.decision {
        Decision::Permit(permit) => writeln!(page, "decision  allowed by {}", permit.rule())?,
        Decision::Reject(rejection) => writeln!(page, "decision  refused: {rejection}")?,
        Decision::Needs(Need::TagExists { repository, tag }) => {
            writeln!(page, "decision  depends on whether {repository}:{tag} exists (--exists says so)")?;
        }
    }
    if !explanation.dropped_mount.is_empty() {
        writeln!(page, "\nThe mount is refused, and the upload starts without it. What the mount needs:")?;
        steps(page, &explanation.dropped_mount)?;
        writeln!(page, "\nWhat the upload needs:")?;
    }
    steps(page, &explanation.steps)
}

fn steps(page: &mut String, steps: &[Step<'_>]) -> fmt::Result {
    for step in steps {
        let verdict = if step.allowed { "allowed" } else { "refused" };
        let condition = match step.only_if_exists {
            Some(true) => " (if the tag exists)",
            Some(false) => " (if the tag doesn't exist)",
            None => "",
        };
        writeln!(page, "\n{}{condition}: {verdict} by {}", wanted(step), step.rule())?;
        for trace in &step.rules {
            rule(page, trace, step.is_settled_by(trace.rule))?;
        }
    }
    Ok(())
}

fn wanted(step: &Step<'_>) -> String {
    let repository = step.repository.as_deref().unwrap_or_default();
    match (step.action, &step.tag) {
        (Action::Catalog, _) => "catalog".to_owned(),
        (action, Some(tag)) => format!("{action} {repository}:{tag}"),
        (action, None) => format!("{action} {repository}"),
    }
}

fn rule(page: &mut String, trace: &RuleTrace<'_>, settles: bool) -> fmt::Result {
    let effect = match trace.rule.effect() {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    };
    let mark = if settles { "=>" } else { "  " };
    let matches = trace.matches();
    let word = if matches { "matches" } else { "does not match" };
    writeln!(page, "{mark} {} ({effect}) {word}", trace.rule.name())?;
    // Of a rule that matches all aspects are of interest, of another what keeps it from matching.
    for finding in trace.findings.iter().filter(|finding| finding.holds == matches) {
        writeln!(page, "     {}: {}", finding.aspect.as_str(), finding.reason)?;
    }
    Ok(())
}
