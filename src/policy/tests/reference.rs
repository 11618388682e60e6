//! The evaluator against a slow and obvious one, over random policies, clients and requests.
//!
//! The reference works on the file as it is written, by recursion and without indexes, and shares no code with the
//! evaluator.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::*;
use crate::config::policy::{ActionName, Effect, RuleFile, SelectorFile};
use crate::oci::{Access, Action, Route, Tag};
use crate::policy::suite::{NO_ADDRESS, facts};

/// What the reference answers: the deciding rule, which allows (`Ok`) or denies.
type Answer = Result<String, Option<String>>;

fn reference(policy: &PolicyFile, identity: &PeerIdentity, accesses: &[Access<'_>]) -> Answer {
    let mut deciding = None;
    for access in accesses {
        let tags: Vec<_> = match access.tags {
            [] => vec![None],
            tags => tags.iter().map(|tag| Some(tag.as_str())).collect(),
        };
        for tag in tags {
            let matching: Vec<_> =
                policy.rules.iter().filter(|rule| matches(policy, rule, identity, access, tag)).collect();
            if let Some(rule) = matching.iter().find(|rule| rule.effect == Effect::Deny) {
                return Err(Some(rule.name.clone()));
            }
            let Some(rule) = matching.first() else { return Err(None) };
            deciding.get_or_insert_with(|| rule.name.clone());
        }
    }
    Ok(deciding.unwrap_or_else(|| "ping".to_owned()))
}

fn matches(
    policy: &PolicyFile,
    rule: &RuleFile,
    identity: &PeerIdentity,
    access: &Access<'_>,
    tag: Option<&str>,
) -> bool {
    let deny = rule.effect == Effect::Deny;
    let action = match access.action {
        Action::Pull => ActionName::Pull,
        Action::Push => ActionName::Push,
        Action::Delete => ActionName::Delete,
        Action::Catalog => ActionName::Catalog,
    };
    let member = |group: &String| {
        group == "any" || policy.groups[group].iter().any(|selector| describes(selector, identity, deny))
    };
    let tagged = match (&rule.tags, tag) {
        (None, _) => true,
        (Some(patterns), Some(tag)) => patterns.iter().any(|pattern| glob(pattern, tag)),
        (Some(_), None) => deny == (access.action == Action::Delete),
    };
    let repository = access.repository.is_none_or(|name| {
        let segments: Vec<_> = name.as_str().split('/').collect();
        let patterns = rule.repositories.iter().flatten();
        patterns.map(|pattern| pattern.split('/').collect::<Vec<_>>()).any(|pattern| {
            over_segments(&pattern, &segments, &|part, segment| one_segment(part, segment, identity, deny))
        })
    });
    rule.actions.contains(&action) && tagged && repository && rule.subjects.iter().any(member)
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

fn one_segment(part: &str, segment: &str, identity: &PeerIdentity, deny: bool) -> bool {
    let Some((before, rest)) = part.split_once("${") else { return glob(part, segment) };
    let (placeholder, after) = rest.split_once('}').expect("closed");
    match value(placeholder, identity) {
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
            (deny || !ambiguous) && values.iter().any(|value| glob(pattern, value))
        })
    };
    let labels = |pattern: &str, name: &str| {
        let (pattern, name): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), name.split('.').collect());
        over_segments(&pattern, &name, &|part, label| glob(part, label))
    };
    let dns = |pattern: &String| identity.dns.iter().any(|name| labels(pattern, name));
    let uri = |pattern: &String| {
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

/// A few of several texts, at least `least`.
fn some(rng: &mut Rng, of: &[&str], least: usize, most: usize) -> Vec<String> {
    (0..rng.usize(least..=most)).map(|_| one(rng, of)).collect()
}

fn one(rng: &mut Rng, of: &[&str]) -> String {
    rng.choice(of).copied().expect("a text").to_owned()
}

fn maybe<T>(rng: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    rng.u8(0..3).eq(&0).then(|| make(rng))
}

fn random_identity(rng: &mut Rng) -> PeerIdentity {
    const NAMES: &[&str] = &[
        "CN=a",
        "CN=b",
        "CN=ab",
        "CN=A b",
        "OU=a",
        "OU=b",
        "OU=x",
        "issuer.CN=ca",
        "issuer.CN=other",
        "dns=a.x.example",
        "dns=b.x.example",
        "dns=*.x.example",
        "uri=spiffe://t/a/b",
        "uri=spiffe://t/b",
        "uri=spiffe://t/a/A",
        "email=a@x.example",
        "email=A.b@y.example",
        "ip=10.0.0.1",
        "ip=10.0.0.2",
    ];
    let names = some(rng, NAMES, 1, 5);
    client(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn random_selector(rng: &mut Rng) -> SelectorFile {
    let name = |rng: &mut Rng| {
        let kind = one(rng, &["CN", "OU"]);
        BTreeMap::from([(kind, one(rng, &["a", "b", "*", "a*", "*b"]))])
    };
    let mut selector = SelectorFile {
        subject: maybe(rng, name),
        issuer: maybe(rng, |rng| BTreeMap::from([("CN".to_owned(), one(rng, &["ca", "c*", "other"]))])),
        dns: maybe(rng, |rng| one(rng, &["a.x.example", "b.x.example", "b*.x.example"])),
        uri: maybe(rng, |rng| one(rng, &["spiffe://t/a/b", "spiffe://t/*", "spiffe://t/**", "spiffe://t/a/*"])),
        email: maybe(rng, |rng| one(rng, &["a@x.example", "*@x.example", "*b@*.example"])),
        ip: maybe(rng, |rng| one(rng, &["10.0.0.1", "10.0.0.2"])),
        ..SelectorFile::default()
    };
    if selector == SelectorFile::default() {
        selector.subject = Some(name(rng));
    }
    selector
}

fn random_rule(rng: &mut Rng, name: String) -> RuleFile {
    const PATTERNS: &[&str] = &[
        "**",
        "a",
        "a/**",
        "a/*",
        "*/b",
        "a*/**",
        "**/b",
        "a/**/b",
        "b/a",
        "${subject.cn}/**",
        "x-${subject.ou}",
        "a/${san.dns.label[0]}",
        "${san.uri.path[0]}/*",
        "${san.email.local}/**",
        "**/${san.uri.path[0]}/b",
    ];
    const PULL_PUSH_DELETE: [ActionName; 3] = [ActionName::Pull, ActionName::Push, ActionName::Delete];
    let only_catalog = rng.u8(0..10) == 0;
    let mut actions: Vec<_> = PULL_PUSH_DELETE.into_iter().filter(|_| rng.bool()).collect();
    if actions.is_empty() {
        actions.push(ActionName::Pull);
    }
    let can_be_tagged = !actions.contains(&ActionName::Pull);
    if only_catalog {
        actions = vec![ActionName::Catalog];
    } else if rng.u8(0..5) == 0 {
        actions.push(ActionName::Catalog);
    }
    let can_be_tagged = can_be_tagged && !actions.contains(&ActionName::Catalog);
    let subjects = if rng.bool() { vec!["any".to_owned()] } else { some(rng, &["g0", "g1", "g2"], 1, 2) };
    RuleFile {
        name,
        subjects,
        repositories: (!only_catalog).then(|| some(rng, PATTERNS, 1, 3)),
        actions,
        effect: if rng.u8(0..3) == 0 { Effect::Deny } else { Effect::Allow },
        tags: (can_be_tagged && rng.bool()).then(|| some(rng, &["v*", "*", "latest", "*-rc*"], 1, 2)),
    }
}

fn random_policy(rng: &mut Rng) -> PolicyFile {
    let group = |rng: &mut Rng| (0..rng.usize(1..=2)).map(|_| random_selector(rng)).collect::<Vec<_>>();
    let groups = ["g0", "g1", "g2"].into_iter().map(|name| (name.to_owned(), group(rng))).collect();
    // Many rules with the same beginning are kept in another way than few.
    let most = if rng.u8(0..25) == 0 { 250 } else { 8 };
    let rules = (0..rng.usize(0..=most)).map(|i| random_rule(rng, format!("r{i}"))).collect();
    PolicyFile { groups, rules, ..PolicyFile::default() }
}

fn random_route(rng: &mut Rng) -> Route {
    let mut name = || some(rng, &["a", "b", "ab", "x-a", "c"], 1, 4).join("/");
    let (name, from) = (name(), name());
    let tag = one(rng, &["v1", "latest", "v1-rc2", "dev"]);
    let requests = [
        ("GET", "/v2/".to_owned()),
        ("GET", "/v2/_catalog".to_owned()),
        ("GET", format!("/v2/{name}/tags/list")),
        ("GET", format!("/v2/{name}/manifests/{tag}")),
        ("PUT", format!("/v2/{name}/manifests/{tag}")),
        ("PUT", format!("/v2/{name}/manifests/{SHA}?tag={tag}&tag=latest")),
        ("DELETE", format!("/v2/{name}/manifests/{tag}")),
        ("DELETE", format!("/v2/{name}/manifests/{SHA}")),
        ("DELETE", format!("/v2/{name}/blobs/{SHA}")),
        ("POST", format!("/v2/{name}/blobs/uploads/")),
        ("POST", format!("/v2/{name}/blobs/uploads/?mount={SHA}&from={from}")),
    ];
    let (method, target) = rng.choice(requests).expect("a request");
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    oci::route(method, path, query).expect("a route")
}

fn answer(decision: Decision) -> Answer {
    match decision {
        Decision::Permit(permit) => Ok(permit.rule().to_owned()),
        Decision::Reject(rejection) => Err(rejection.rule.map(|rule| rule.to_string())),
        Decision::Needs(need) => panic!("{need:?}"),
    }
}

/// What the trace says: the first step's rule when all are allowed, else that of the first that is not.
fn traced(explanation: &Explanation<'_>) -> Answer {
    match explanation.steps.iter().find(|step| !step.allowed) {
        Some(step) => Err(step.by.map(|rule| rule.name().to_owned())),
        None => Ok(explanation.steps.first().map_or("ping", |step| step.rule()).to_owned()),
    }
}

#[test]
fn decisions_are_those_of_an_obvious_evaluator_and_the_trace_names_their_rule() {
    let mut rng = Rng::with_seed(7);
    let mut seen = BTreeMap::new();
    for _ in 0..1500 {
        let file = random_policy(&mut rng);
        let policy = compile(&file).unwrap_or_else(|faults| panic!("{faults:?}\n{file:#?}"));
        let elsewhere = compile(&file).expect("as before").standing(&client(&["CN=a", "OU=a"]));
        for _ in 0..20 {
            let (identity, route) = (random_identity(&mut rng), random_route(&mut rng));
            let told = || format!("{identity:#?}\n{route:#?}\n{file:#?}");
            let accesses = route.accesses();
            let expected = reference(&file, &identity, accesses.as_ref());
            let facts = Facts { accesses: accesses.as_ref(), ..facts(&identity, NO_ADDRESS, 0) };
            let decided = answer(policy.decide(&facts));
            assert_eq!(decided, expected, "{}", told());
            let standing = policy.standing(&identity);
            let kept = Facts { standing: Some(&standing), ..facts };
            assert_eq!(answer(policy.decide(&kept)), expected, "{}", told());
            let foreign = Facts { standing: Some(&elsewhere), ..facts };
            assert_eq!(answer(policy.decide(&foreign)), expected, "{}", told());
            let kind = match &decided {
                Ok(_) => "allowed",
                Err(Some(_)) => "denied",
                Err(None) => "no rule",
            };
            *seen.entry(kind).or_insert(0) += 1;
            check_trace(&policy, &file, &identity, &route, &told);
        }
    }
    assert!(seen.len() == 3 && seen.values().all(|count| *count > 2000), "the samples are one-sided: {seen:?}");
}

fn check_trace(policy: &Policy, file: &PolicyFile, identity: &PeerIdentity, route: &Route, told: &dyn Fn() -> String) {
    let facts = facts(identity, NO_ADDRESS, 0);
    let (sent, decision) = policy.decide_route(route.clone(), &facts);
    let explanation = policy.explain(route.clone(), &facts);
    assert_eq!(explanation.route, sent);
    assert_eq!(explanation.dropped_mount.is_empty(), sent == *route);
    let decided = answer(decision);
    assert_eq!(traced(&explanation), decided, "{}", told());
    assert_eq!(answer(explanation.decision), decided);
    let accesses = sent.accesses();
    let mut steps = explanation.steps.iter();
    for access in accesses.as_ref() {
        for tag in access.tags.iter().map(Some).chain(access.tags.is_empty().then_some(None)) {
            let step = steps.next().expect("a step for each access and tag");
            for (trace, rule) in step.rules.iter().zip(&file.rules) {
                let expected = matches(file, rule, identity, access, tag.map(Tag::as_str));
                assert_eq!(trace.matches(), expected, "{} {trace:#?}\n{}", rule.name, told());
            }
        }
    }
    assert!(steps.next().is_none());
}
