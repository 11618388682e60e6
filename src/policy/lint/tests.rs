use super::*;
use crate::config::policy::WhenFile;

fn lints(yaml: &str, authorities: &[&str]) -> Vec<(&'static str, String)> {
    let file: PolicyFile = serde_yaml::from_str(yaml).expect("a policy file");
    super::super::compile(&file).unwrap_or_else(|faults| panic!("{faults:?}\n{yaml}"));
    let authorities: Vec<_> = authorities.iter().map(|name| (*name).to_owned()).collect();
    lint(&file, &authorities).into_iter().map(|lint| (lint.kind.as_str(), lint.fault.path)).collect()
}

const GROUPS: &str = "groups:\n  a: [{subject: {OU: a}}]\n  b: [{subject: {OU: b}}]\nrules:\n";

/// The lints of rules for groups `a` and `b`, each `subjects repositories actions effect [tags]`.
fn of_rules(rules: &[&str]) -> Vec<String> {
    let mut yaml = GROUPS.to_owned();
    for (i, rule) in rules.iter().enumerate() {
        let words: Vec<_> = rule.split(' ').collect();
        let [subjects, repositories, actions, effect, tags @ ..] = words.as_slice() else { panic!("{rule}") };
        let tags = tags.first().map(|tags| format!(", tags: [\"{tags}\"]")).unwrap_or_default();
        let repositories =
            if *repositories == "-" { String::new() } else { format!(", repositories: [\"{repositories}\"]") };
        yaml.push_str(&format!(
            "  - {{name: r{i}, subjects: [{subjects}]{repositories}, actions: [{actions}], effect: {effect}{tags}}}\n"
        ));
    }
    let found = lints(&yaml, &[]);
    found.into_iter().filter(|(kind, _)| *kind != "unused_group").map(|(kind, at)| format!("{kind} {at}")).collect()
}

#[test]
fn a_rule_behind_one_that_covers_it_never_decides() {
    for (first, second, expected) in [
        ("a team/** pull,push allow", "a team/x pull allow", true),
        ("a,b team/** pull allow", "a team/x/** pull allow", true),
        ("any team/** pull allow", "a team/x pull allow", true),
        ("a team/** push allow", "a team/** push allow v*", true),
        ("a team/** push allow v*", "a team/** push allow v1.*", true),
        ("a ${subject.cn}/** pull allow", "a ${subject.cn}/x pull allow", true),
        // What is less, or else.
        ("a team/** pull allow", "a team/x pull,push allow", false),
        ("a team/** pull allow", "a,b team/x pull allow", false),
        ("a team/** pull allow", "any team/x pull allow", false),
        ("a team/** pull allow", "a teams/x pull allow", false),
        ("a team/** push allow v*", "a team/** push allow", false),
        ("a team/** push allow v1*", "a team/** push allow v*", false),
        ("a team/x pull allow", "a team/** pull allow", false),
    ] {
        let found = of_rules(&[first, second]);
        assert_eq!(found.contains(&"unreachable rules[1]".to_owned()), expected, "{first} / {second}: {found:?}");
    }
    assert!(of_rules(&["a x pull allow", "a x pull deny"]).iter().all(|lint| !lint.starts_with("unreachable")));
}

#[test]
fn a_rule_that_another_denies_altogether_allows_nothing() {
    for (allow, deny, expected) in [
        ("a team/x pull allow", "any team/** pull deny", true),
        ("a team/x push allow", "a team/** push deny", true),
        ("a team/${subject.cn} pull allow", "a team/* pull deny", true),
        ("a ${subject.cn}/x pull allow", "a ${subject.cn}/** pull deny", true),
        ("a team/x delete allow v1", "a team/** delete deny v*", true),
        // Blobs are pushed all the same.
        ("a team/x push allow v1", "a team/** push deny v*", false),
        ("a team/x pull,push allow", "a team/** push deny", false),
        ("a team/x pull allow", "b team/** pull deny", false),
        ("a,b team/x pull allow", "b team/** pull deny", false),
        ("a team/** pull allow", "a team/x pull deny", false),
    ] {
        for rules in [[allow, deny], [deny, allow]] {
            let at = rules.iter().position(|rule| *rule == allow).expect("one of them");
            let found = of_rules(&rules);
            assert_eq!(found.contains(&format!("denied rules[{at}]")), expected, "{rules:?}: {found:?}");
        }
    }
}

#[test]
fn opposite_rules_that_meet_are_named_at_the_denial() {
    for (allow, deny, expected) in [
        ("a team/** pull,push allow", "any team/x/** push deny", true),
        ("a team/** pull,push allow", "a,b */x push deny", true),
        ("a - catalog allow", "a x catalog,pull deny", false),
        ("a,b - catalog allow", "a x catalog,pull deny", true),
        ("a team/** push allow", "a team/** push deny v*", true),
        ("a team/** push allow x*", "a team/** push deny v*", false),
        ("a team/** pull allow", "b team/x pull deny", false),
        ("a team/** pull allow", "a team/x push deny", false),
        ("a team/** pull allow", "a teams/** pull deny", false),
        // Some client may be called archive, and perhaps none is.
        ("a ${subject.cn}/** push allow", "any archive/** push deny", false),
    ] {
        let found = of_rules(&[allow, deny]);
        assert_eq!(found.contains(&"overlap rules[1]".to_owned()), expected, "{allow} / {deny}: {found:?}");
    }
    assert!(!Kind::Overlap.is_warning());
}

#[test]
fn what_everyone_may_do_is_named_if_it_is_much() {
    for (rule, expected) in [
        ("any team/x push allow", true),
        ("any team/x delete allow", true),
        ("any ** pull allow", true),
        ("any shared/** pull allow", false),
        ("any - catalog allow", false),
        ("a ** pull,push,delete allow", false),
        ("any ** push deny", false),
        // Each has a place of its own.
        ("any home/${subject.cn}/** push allow", false),
        ("any ${subject.ou}/** pull,push allow", false),
    ] {
        let found = of_rules(&[rule]);
        assert_eq!(found.contains(&"grant_to_everyone rules[0].subjects".to_owned()), expected, "{rule}: {found:?}");
    }
}

#[test]
fn the_policies_that_come_with_the_gateway_draw_no_warning() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = ["conf/policy.yaml", "conf/packaging/debian/policy.yaml", "src/cli/dev/policy.yaml"]
        .into_iter()
        .map(|file| root.join(file))
        .collect();
    for entry in std::fs::read_dir(root.join("conf/policies")).expect("the examples") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(std::ffi::OsStr::to_str).expect("a name");
        if name.ends_with(".yaml") && !name.ends_with("-test.yaml") {
            files.push(path);
        }
    }
    assert!(files.len() > 5, "{files:?}");
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file: PolicyFile = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let warnings: Vec<_> = lint(&file, &[]).into_iter().filter(|lint| lint.kind.is_warning()).collect();
        assert!(warnings.is_empty(), "{}: {warnings:#?}", path.display());
    }
    // A pattern beside one with a placeholder is open to everyone, and alone is named.
    let file: PolicyFile = serde_yaml::from_str(
        "rules: [{name: r, subjects: [any], repositories: ['${subject.cn}/**', 'x/**'], actions: [push], effect: allow}]",
    )
    .expect("a policy file");
    let [found] = &lint(&file, &[])[..] else { panic!("one finding") };
    assert!(found.fault.message.ends_with("push in x/**"), "{}", found.fault);
}

#[test]
fn groups_that_nobody_names_are_named() {
    let yaml = "groups: {a: [{dns: x}], b: [{dns: y}]}\nrules: [{name: r, subjects: [a], repositories: [x], \
                actions: [pull], effect: allow}]";
    assert_eq!(lints(yaml, &[]), [("unused_group", "groups.b".to_owned())]);
}

#[test]
fn descriptions_that_several_authorities_can_fulfil_are_named() {
    let yaml = "groups:\n  open: [{dns: x}, {dns: y, issuer: {CN: One}}, {uri: 'spiffe://a/b'}]\n  key: [{dns: x, spki: \
                'sha256:0000000000000000000000000000000000000000000000000000000000000000'}]\n  denied: [{dns: x}]\n\
                rules:\n  - {name: r, subjects: [open, key], repositories: [x], actions: [pull], effect: allow}\n  \
                - {name: d, subjects: [denied], repositories: [y], actions: [pull], effect: deny}";
    let two = lints(yaml, &["CN=One", "CN=Two"]);
    assert_eq!(
        two,
        [("shared_identity", "groups.open[0]".to_owned()), ("shared_identity", "groups.open[2]".to_owned())]
    );
    assert_eq!(lints(yaml, &["CN=One"]), []);
    assert_eq!(lints(yaml, &[]), []);
}

/// Asks the policy itself: a rule that is called superfluous makes no difference to any decision.
#[test]
fn what_is_reported_is_so() {
    use crate::identity::{Attribute, Description, PeerIdentity};
    use crate::oci;
    use crate::policy::suite::{NO_ADDRESS, facts};

    let client = |ous: &[&str], cns: &[&str]| {
        let named = |name: &'static str, value: &&str| Attribute { name: name.into(), value: (*value).to_owned() };
        let subject = ous.iter().map(|ou| named("OU", ou)).chain(cns.iter().map(|cn| named("CN", cn))).collect();
        PeerIdentity::described(Description { subject, ..Description::default() })
    };
    let clients = [
        client(&["a"], &["t"]),
        client(&["b"], &["t", "u"]),
        client(&["a", "b"], &["u"]),
        client(&["c"], &["Not usable"]),
    ];
    let digest = format!("sha256:{}", "a".repeat(64));
    let mut routes = Vec::new();
    for name in ["t", "t/u", "t/u/v", "u", "u/t"] {
        for (method, rest) in [
            ("GET", "/manifests/v1".to_owned()),
            ("PUT", "/manifests/v1".to_owned()),
            ("PUT", "/manifests/x".to_owned()),
            ("POST", "/blobs/uploads/".to_owned()),
            ("DELETE", "/manifests/v1".to_owned()),
            ("DELETE", format!("/manifests/{digest}")),
        ] {
            routes.push(oci::route(method, &format!("/v2/{name}{rest}"), None).expect("a route"));
        }
    }
    routes.push(oci::route("GET", "/v2/_catalog", None).expect("a route"));
    let decided = |file: &PolicyFile| -> Vec<(super::super::Judged, String)> {
        let policy = super::super::compile(file).unwrap_or_else(|faults| panic!("{faults:?}"));
        let mut all = Vec::new();
        for client in &clients {
            all.extend(routes.iter().map(|route| {
                let judgement = policy.judge_route(route, &facts(client, NO_ADDRESS, 0));
                (judgement.judged, judgement.rule().to_owned())
            }));
        }
        all
    };
    let mut dice = fastrand::Rng::with_seed(20_261_122);
    let (mut unreachable, mut denied) = (0, 0);
    for _ in 0..400 {
        let mut rules = Vec::new();
        for i in 0..4 {
            let pick = |dice: &mut fastrand::Rng, of: &[&str]| of[dice.usize(..of.len())].to_owned();
            let tags = dice.u8(..4) == 0;
            rules.push(RuleFile {
                name: format!("r{i}"),
                subjects: pick(&mut dice, &["a", "b", "a b", "any"]).split(' ').map(str::to_owned).collect(),
                repositories: Some(vec![pick(
                    &mut dice,
                    &["**", "t/**", "t/*", "*/u", "${subject.cn}/**", "t/${subject.cn}", "*"],
                )]),
                actions: if tags {
                    vec![ActionName::Push, ActionName::Delete]
                } else {
                    vec![ActionName::Pull, ActionName::Push, ActionName::Delete]
                }
                .into_iter()
                .filter(|_| dice.bool())
                .chain([ActionName::Delete])
                .collect::<Vec<_>>(),
                effect: if dice.u8(..3) == 0 { Effect::Deny } else { Effect::Allow },
                tags: tags.then(|| vec![pick(&mut dice, &["v*", "v1", "*"])]),
                when: (dice.u8(..5) == 0).then(|| WhenFile {
                    until: Some(pick(&mut dice, &["1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z"])),
                    ..WhenFile::default()
                }),
            });
        }
        let groups = serde_yaml::from_str("a: [{subject: {OU: a}}]\nb: [{subject: {OU: b}}]").expect("groups");
        let file = PolicyFile { groups, rules, ..PolicyFile::default() };
        let before = decided(&file);
        for found in lint(&file, &[]) {
            let position = found.fault.path.strip_prefix("rules[").and_then(|rest| rest.strip_suffix(']'));
            let Some(position) = position.and_then(|digits| digits.parse::<usize>().ok()) else { continue };
            let mut without = file.clone();
            let gone = without.rules.remove(position);
            let after = decided(&without);
            match found.kind {
                Kind::Unreachable => {
                    unreachable += 1;
                    assert_eq!(before, after, "{}: {file:#?}", found.fault);
                }
                Kind::Denied => {
                    denied += 1;
                    assert!(before.iter().all(|(_, rule)| *rule != gone.name), "{}: {file:#?}", found.fault);
                }
                Kind::Overlap | Kind::UnusedGroup | Kind::GrantToEveryone | Kind::SharedIdentity => {}
            }
        }
    }
    assert!(unreachable > 20 && denied > 20, "the dice made too few of them: {unreachable}, {denied}");
}
