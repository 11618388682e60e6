//! The evaluator against a slow and obvious one, over random policies, clients and requests.
//!
//! The reference works on the file as it is written, by recursion and without indexes, and shares no code with the
//! evaluator.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::*;
use crate::config::policy::{
    ActionName, Day, Effect, HoursFile, ImmutableTagsFile, LifetimeFile, RuleFile, SelectorFile, WhenFile,
};
use crate::config::{HumanDuration, TlsVersion};
use crate::oci::{Access, Action, Route, Tag};
use crate::policy::suite::facts;

mod samples;

use samples::{EARLIER, LATER, T, one, random_identity, random_policy, random_route};

/// What the reference answers: the deciding rule, or the tag on whose existence it depends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Allowed(String),
    Refused(Option<String>),
    Depends(String),
}

fn reference(policy: &PolicyFile, facts: &Facts<'_>) -> Answer {
    let mut deciding = None;
    let mut depending = None;
    for access in facts.accesses {
        let tags: Vec<_> = match access.tags {
            [] => vec![None],
            tags => tags.iter().map(Some).collect(),
        };
        for tag in tags {
            let possible = match tag {
                Some(tag) if access.action == Action::Push => match facts.tags.exists(tag) {
                    Some(exists) => vec![exists],
                    None => vec![false, true],
                },
                _ => vec![false],
            };
            let answers: Vec<_> =
                possible.into_iter().map(|exists| one_right(policy, facts, access, tag, exists)).collect();
            if answers.iter().all(Result::is_err) {
                return Answer::Refused(answers[0].clone().expect_err("refused"));
            } else if answers.iter().all(Result::is_ok) {
                deciding.get_or_insert_with(|| answers[0].clone().expect("allowed"));
            } else {
                depending.get_or_insert_with(|| tag.expect("only tags exist").to_string());
            }
        }
    }
    match depending {
        Some(tag) => Answer::Depends(tag),
        None => Answer::Allowed(deciding.unwrap_or_else(|| "ping".to_owned())),
    }
}

fn one_right(
    policy: &PolicyFile,
    facts: &Facts<'_>,
    access: &Access<'_>,
    tag: Option<&Tag>,
    exists: bool,
) -> Result<String, Option<String>> {
    let matching: Vec<_> =
        policy.rules.iter().filter(|rule| matches(policy, rule, facts, access, tag, exists)).collect();
    if let Some(rule) = matching.iter().find(|rule| rule.effect == Effect::Deny) {
        return Err(Some(rule.name.clone()));
    }
    let Some(rule) = matching.first() else { return Err(None) };
    if is_immutable(policy, access, tag, exists) {
        Err(Some("immutable tags".to_owned()))
    } else {
        Ok(rule.name.clone())
    }
}

fn is_immutable(policy: &PolicyFile, access: &Access<'_>, tag: Option<&Tag>, exists: bool) -> bool {
    let Some(name) = access.repository else { return false };
    let segments: Vec<_> = name.as_str().split('/').collect();
    policy.immutable_tags.iter().any(|entry| {
        let here = entry
            .repositories
            .iter()
            .any(|pattern| over_segments(&pattern.split('/').collect::<Vec<_>>(), &segments, &glob));
        let covered = tag.is_none_or(|tag| {
            let among = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, tag.as_str()));
            among(&entry.tags) && !among(&entry.except)
        });
        let changes = match access.action {
            Action::Push => exists,
            Action::Delete => true,
            _ => false,
        };
        here && covered && changes
    })
}

fn matches(
    policy: &PolicyFile,
    rule: &RuleFile,
    facts: &Facts<'_>,
    access: &Access<'_>,
    tag: Option<&Tag>,
    exists: bool,
) -> bool {
    let deny = rule.effect == Effect::Deny;
    let identity = facts.identity;
    let wanted = match (access.action, deny) {
        (Action::Push, false) if exists => vec![ActionName::Overwrite],
        (Action::Push, true) if exists => vec![ActionName::Push, ActionName::Overwrite],
        (Action::Push, _) => vec![ActionName::Push],
        (Action::MountFrom, _) => vec![ActionName::Pull, ActionName::MountFrom],
        (Action::Pull, _) => vec![ActionName::Pull],
        (Action::Delete, _) => vec![ActionName::Delete],
        (Action::Catalog, _) => vec![ActionName::Catalog],
        (Action::Overwrite, _) => unreachable!("no route asks for it"),
    };
    let member = |group: &String| {
        group == "any" || policy.groups[group].iter().any(|selector| describes(selector, identity, deny))
    };
    let tagged = match (&rule.tags, tag) {
        (None, _) => true,
        (Some(patterns), Some(tag)) => patterns.iter().any(|pattern| glob(pattern, tag.as_str())),
        (Some(_), None) => deny == (access.action == Action::Delete),
    };
    let value = |name: &str| match name.contains('.') {
        true => value(name, identity),
        false => captured(policy, rule, name, identity, deny),
    };
    let repository = access.repository.is_none_or(|name| {
        let segments: Vec<_> = name.as_str().split('/').collect();
        let patterns = rule.repositories.iter().flatten();
        patterns.map(|pattern| pattern.split('/').collect::<Vec<_>>()).any(|pattern| {
            over_segments(&pattern, &segments, &|part, segment| one_segment(part, segment, &value, deny))
        })
    });
    wanted.iter().any(|action| rule.actions.contains(action))
        && tagged
        && repository
        && rule.subjects.iter().any(member)
        && rule.when.as_ref().is_none_or(|when| given(when, facts, deny))
}

fn given(when: &WhenFile, facts: &Facts<'_>, deny: bool) -> bool {
    let address = facts.client.to_string();
    let client = when.client.as_ref().is_none_or(|networks| {
        networks.iter().any(|network| match network.as_str() {
            "10.0.0.0/8" => address.starts_with("10."),
            single => address == single,
        })
    });
    let second = |text: &str| match text {
        EARLIER => T - 3600,
        LATER => T + 1800,
        other => panic!("{other}"),
    };
    let hours = when.hours.as_ref().is_none_or(|windows| windows.iter().any(|window| in_window(window, facts.now)));
    let left = facts.identity.expires().map(|end| (end - facts.now.cast_signed()).max(0).cast_unsigned());
    let lifetime = when.certificate_lifetime.as_ref().is_none_or(|wanted| match left {
        Some(left) => {
            wanted.at_least.is_none_or(|span| left >= span.0.as_secs())
                && wanted.at_most.is_none_or(|span| left <= span.0.as_secs())
        }
        None => deny,
    });
    let tls = when.min_tls_version.is_none_or(|least| least == TlsVersion::Tls12 || facts.tls.version == "TLSv1.3");
    client
        && when.from.as_ref().is_none_or(|from| second(from) <= facts.now)
        && when.until.as_ref().is_none_or(|until| facts.now < second(until))
        && hours
        && lifetime
        && tls
}

/// Goes through the windows that begin on some day, minute by minute of the zone's clock.
fn in_window(window: &HoursFile, now: u64) -> bool {
    const FROM_EPOCH: [Day; 7] = [Day::Thu, Day::Fri, Day::Sat, Day::Sun, Day::Mon, Day::Tue, Day::Wed];
    let clock = |text: &Option<String>, otherwise: u64| match text.as_deref() {
        Some(text) => {
            let (hours, minutes) = text.split_once(':').expect("a time of the day");
            hours.parse::<u64>().expect("hours") * 60 + minutes.parse::<u64>().expect("minutes")
        }
        None => otherwise,
    };
    let minute = match window.zone.as_deref() {
        Some("+05:30") => now / 60 + 330,
        Some("-03:00") => now / 60 - 180,
        _ => now / 60,
    };
    let (from, until) = (clock(&window.from, 0), clock(&window.until, 1440));
    let length = if from < until { until - from } else { 1440 - from + until };
    let today = minute / 1440;
    [today - 1, today].into_iter().any(|day| {
        let weekday = FROM_EPOCH[usize::try_from(day % 7).expect("small")];
        let begins = day * 1440 + from;
        window.days.as_ref().is_none_or(|days| days.contains(&weekday)) && (begins..begins + length).contains(&minute)
    })
}

/// What all selectors that describe the client have captured, if it is one and the same.
fn captured(policy: &PolicyFile, rule: &RuleFile, name: &str, identity: &PeerIdentity, deny: bool) -> Option<String> {
    let mut found = Vec::new();
    let selectors = rule.subjects.iter().flat_map(|group| &policy.groups[group]);
    for selector in selectors.filter(|selector| describes(selector, identity, deny)) {
        let subject = selector.subject.iter().flatten();
        for (kind, pattern) in subject {
            for value in identity.attributes(kind).filter(|value| glob(&starred(pattern), value)) {
                found.extend(part_of(pattern, value, name));
            }
        }
        for pattern in selector.dns.iter() {
            for dns in identity.dns.iter().filter(|dns| deny || !dns.contains('*')) {
                let cut = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
                found.extend(part_of_segments(&cut(pattern), &cut(dns), name));
            }
        }
        for pattern in selector.uri.iter() {
            for uri in &identity.uris {
                let cut = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
                found.extend(part_of_segments(&cut(pattern), &cut(uri), name));
            }
        }
    }
    found.dedup();
    let plain = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    match found.as_slice() {
        [one] => Some(one.clone()).filter(plain),
        _ => None,
    }
}

fn part_of(pattern: &str, text: &str, name: &str) -> Option<String> {
    let (before, after) = pattern.split_once(&format!("{{{name}}}"))?;
    Some(text.strip_prefix(before)?.strip_suffix(after)?.to_owned())
}

fn part_of_segments(pattern: &[String], text: &[String], name: &str) -> Option<String> {
    let starred: Vec<_> = pattern.iter().map(|part| starred(part)).collect();
    let all = starred.len() == text.len() && starred.iter().zip(text).all(|(part, text)| glob(part, text));
    pattern.iter().zip(text).filter(|_| all).find_map(|(part, text)| part_of(part, text, name))
}

/// The captures of the samples, as stars.
fn starred(pattern: &str) -> String {
    pattern.replace("{team}", "*")
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_at_checked(1) {
        None => text.is_empty(),
        Some(("*", rest)) => (0..=text.len()).any(|cut| text.get(cut..).is_some_and(|tail| glob(rest, tail))),
        Some((letter, rest)) => text.strip_prefix(letter).is_some_and(|tail| glob(rest, tail)),
    }
}

fn over_segments(pattern: &[&str], text: &[&str], one: &dyn Fn(&str, &str) -> bool) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        (["**", rest @ ..], text) => (0..=text.len()).any(|cut| over_segments(rest, &text[cut..], one)),
        ([part, rest @ ..], [segment, tail @ ..]) => one(part, segment) && over_segments(rest, tail, one),
        _ => false,
    }
}

fn one_segment(part: &str, segment: &str, value: &dyn Fn(&str) -> Option<String>, deny: bool) -> bool {
    let Some((before, rest)) = part.split_once("${") else { return glob(part, segment) };
    let (placeholder, after) = rest.split_once('}').expect("closed");
    match value(placeholder) {
        Some(value) => segment == format!("{before}{value}{after}"),
        None => deny && glob(&format!("{before}*{after}"), segment),
    }
}

/// Cuts a part out of a name.
type Part = fn(&str) -> Option<&str>;

/// The certificate's value, if it has one name of the kind, and the value is a component of a repository name.
fn value(placeholder: &str, identity: &PeerIdentity) -> Option<String> {
    let names = |kind: &str| identity.attributes(kind).map(str::to_owned).collect::<Vec<_>>();
    let (names, part): (Vec<String>, Part) = match placeholder {
        "subject.cn" => (names("CN"), |name| Some(name)),
        "subject.ou" => (names("OU"), |name| Some(name)),
        "san.dns.label[0]" => (identity.dns.clone(), |dns| dns.split('.').next()),
        "san.uri.path[0]" => (identity.uris.clone(), |uri| uri.split('/').nth(3)),
        "san.email.local" => (identity.emails.clone(), |email| email.split('@').next()),
        other => panic!("{other}"),
    };
    let [name] = names.as_slice() else { return None };
    let plain = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    part(name).filter(plain).map(str::to_owned)
}

fn describes(selector: &SelectorFile, identity: &PeerIdentity, deny: bool) -> bool {
    let attributes = |name: &[Attribute], wanted: &Option<BTreeMap<String, String>>| {
        wanted.iter().flatten().all(|(kind, pattern)| {
            let values: Vec<_> = name.iter().filter(|found| found.name == *kind).map(|found| &found.value).collect();
            let ambiguous = kind == "CN" && values.len() > 1;
            (deny || !ambiguous) && values.iter().any(|value| glob(&starred(pattern), value))
        })
    };
    let labels = |pattern: &str, name: &str| {
        let pattern = starred(pattern);
        let (pattern, name): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), name.split('.').collect());
        over_segments(&pattern, &name, &|part, label| glob(part, label))
    };
    let dns = |pattern: &String| identity.dns.iter().any(|name| (deny || !name.contains('*')) && labels(pattern, name));
    let uri = |pattern: &String| {
        let pattern = starred(pattern);
        let pattern: Vec<_> = pattern.split('/').collect();
        (deny || identity.uris.len() == 1)
            && identity.uris.iter().any(|uri| over_segments(&pattern, &uri.split('/').collect::<Vec<_>>(), &glob))
    };
    let email = |pattern: &String| {
        let (local, domain) = pattern.split_once('@').expect("an address");
        let mut parts = identity.emails.iter().map(|email| email.split_once('@').expect("an address"));
        parts.any(|(left, right)| glob(local, left) && labels(domain, right))
    };
    let ip = |wanted: &String| identity.ips.iter().any(|ip| ip.to_string() == *wanted);
    attributes(&identity.subject, &selector.subject)
        && attributes(&identity.issuer, &selector.issuer)
        && selector.dns.as_ref().is_none_or(dns)
        && selector.uri.as_ref().is_none_or(uri)
        && selector.email.as_ref().is_none_or(email)
        && selector.ip.as_ref().is_none_or(ip)
}

fn answer(decision: Decision) -> Answer {
    match decision {
        Decision::Permit(permit) => Answer::Allowed(permit.rule().to_owned()),
        Decision::Reject(rejection) => Answer::Refused(rejection.rule.map(|rule| rule.to_string())),
        Decision::Needs(Need::TagExists { tag, .. }) => Answer::Depends(tag.to_string()),
    }
}

/// What the trace says: the rule of the first step that is refused whatever exists, else the first tag of which the answer
/// depends, else the first step's rule.
fn traced(explanation: &Explanation<'_>) -> Answer {
    let steps = || explanation.steps.iter();
    let refused = steps().find(|step| !step.allowed && step.only_if_exists.is_none());
    let depending = steps().find(|step| step.only_if_exists.is_some());
    match (refused, depending) {
        (Some(step), _) if step.rule() == "default deny" => Answer::Refused(None),
        (Some(step), _) => Answer::Refused(Some(step.rule().to_owned())),
        (None, Some(step)) => Answer::Depends(step.tag.clone().expect("only tags exist")),
        (None, None) => Answer::Allowed(steps().next().map_or("ping", |step| step.rule()).to_owned()),
    }
}

#[test]
fn decisions_are_those_of_an_obvious_evaluator_and_the_trace_names_their_rule() {
    let mut rng = Rng::with_seed(7);
    let mut seen = BTreeMap::new();
    for _ in 0..1000 {
        let file = random_policy(&mut rng);
        let policy = compile(&file).unwrap_or_else(|faults| panic!("{faults:?}\n{file:#?}"));
        let elsewhere = compile(&file).expect("as before").standing(&client(&["CN=a", "OU=a"]));
        for _ in 0..20 {
            let (identity, route) = (random_identity(&mut rng), random_route(&mut rng));
            let mut known = Vec::new();
            for tag in ["v1", "latest", "v1-rc2", "dev"] {
                if rng.bool() {
                    known.push((Tag::parse(tag).expect("a tag"), rng.bool()));
                }
            }
            let accesses = route.accesses();
            let address = one(&mut rng, &["10.1.2.3", "192.0.2.7", "2001:db8::1"]).parse().expect("an address");
            let facts = Facts {
                accesses: accesses.as_ref(),
                now: T - 90_000 + rng.u64(0..180_000),
                tls: TlsFacts::new(if rng.bool() { "TLSv1.2" } else { "TLSv1.3" }),
                tags: if rng.bool() { KnownTags::Each(&known) } else { KnownTags::Nothing },
                ..facts(&identity, address, 0)
            };
            let told = || format!("{facts:#?}\n{route:#?}\n{file:#?}");
            let expected = reference(&file, &facts);
            assert_eq!(answer(policy.decide(&facts)), expected, "{}", told());
            let standing = policy.standing(&identity);
            let kept = Facts { standing: Some(&standing), ..facts };
            assert_eq!(answer(policy.decide(&kept)), expected, "{}", told());
            let foreign = Facts { standing: Some(&elsewhere), ..facts };
            assert_eq!(answer(policy.decide(&foreign)), expected, "{}", told());
            let kind = match &expected {
                Answer::Allowed(_) => "allowed",
                Answer::Refused(Some(rule)) if rule == "immutable tags" => "immutable",
                Answer::Refused(Some(_)) => "denied",
                Answer::Refused(None) => "no rule",
                Answer::Depends(_) => "depends",
            };
            *seen.entry(kind).or_insert(0) += 1;
            check_trace(&policy, &file, &facts, &route, &told);
        }
    }
    assert!(seen.len() == 5 && seen.values().all(|count| *count > 100), "the samples are one-sided: {seen:?}");
}

fn check_trace(policy: &Policy, file: &PolicyFile, facts: &Facts<'_>, route: &Route, told: &dyn Fn() -> String) {
    let (sent, decision) = policy.decide_route(route.clone(), facts);
    let explanation = policy.explain(route.clone(), facts);
    assert_eq!(explanation.route, sent);
    assert_eq!(explanation.dropped_mount.is_empty(), sent == *route);
    let decided = answer(decision);
    assert_eq!(traced(&explanation), decided, "{}", told());
    let accesses = sent.accesses();
    for step in &explanation.steps {
        let exists = step.action == Action::Overwrite;
        let action = if exists { Action::Push } else { step.action };
        let access = accesses.iter().find(|access| access.action == action).expect("the step's access");
        let tag = access.tags.iter().find(|tag| Some(tag.as_str()) == step.tag.as_deref());
        for (trace, rule) in step.rules.iter().zip(&file.rules) {
            let expected = matches(file, rule, facts, access, tag, exists);
            assert_eq!(trace.matches(), expected, "{} {trace:#?}\n{}", rule.name, told());
        }
    }
    let least: usize = accesses.iter().map(|access| access.tags.len().max(1)).sum();
    assert!(explanation.steps.len() >= least, "a step for each access and tag");
}
