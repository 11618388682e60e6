//! Every mistake of a policy file, with its key and what to do.

use crate::config::Fault;
use crate::config::policy::PolicyFile;
use crate::policy::compile;

use super::read;

fn faults(yaml: &str) -> Vec<String> {
    compile(&read(yaml)).expect_err("faults").iter().map(Fault::to_string).collect()
}

#[track_caller]
fn assert_fault(yaml: &str, path: &str, part: &str) {
    let found = faults(yaml);
    let [fault] = found.as_slice() else { panic!("not one fault: {found:#?}") };
    assert!(fault.starts_with(&format!("{path}: ")) && fault.contains(part), "{fault}");
}

fn rule_with(change: &str) -> String {
    let (key, _) = change.split_once(':').expect("key: value");
    let lines = ["name: r", "subjects: [any]", "repositories: [a]", "actions: [push]", "effect: allow"];
    let kept = lines.iter().filter(|line| !line.starts_with(&format!("{key}:")));
    let fields = kept.copied().chain([change]).filter(|line| !line.ends_with("absent")).collect::<Vec<_>>().join(", ");
    format!("groups: {{admins: [{{subject: {{CN: a}}}}]}}\nrules: [{{{fields}}}]")
}

#[test]
fn mistakes_in_rules_are_explained() {
    for (change, path, part) in [
        ("subjects: [amdins]", "subjects[0]", "unknown group \"amdins\" (did you mean \"admins\"?)"),
        ("subjects: []", "subjects", "is empty"),
        ("subjects: [any, admins]", "subjects", "any already means"),
        ("actions: []", "actions", "is empty"),
        ("repositories: absent", "repositories", "at least one repository pattern"),
        ("repositories: []", "repositories", "at least one repository pattern"),
        ("repositories: [a, Team/x]", "repositories[1]", "upper case"),
        ("repositories: [a//b]", "repositories[0]", "empty segment"),
        ("repositories: [a/]", "repositories[0]", "empty segment"),
        ("repositories: ['']", "repositories[0]", "empty segment"),
        ("repositories: ['a/b**']", "repositories[0]", "part of a segment"),
        ("repositories: ['a:b']", "repositories[0]", "no component"),
        ("repositories: ['a..b']", "repositories[0]", "no component"),
        ("repositories: ['-*']", "repositories[0]", "no component"),
        ("repositories: ['a/${subject.cm}']", "repositories[0]", "did you mean \"subject.cn\"?"),
        ("repositories: ['a/${subject.CN}']", "repositories[0]", "did you mean \"subject.cn\"?"),
        ("repositories: ['a/${nonsense}']", "repositories[0]", "unknown placeholder"),
        ("repositories: ['a/${san.uri.path[99]}']", "repositories[0]", "from 0 to 31"),
        ("repositories: ['a/${san.uri.path[-1]}']", "repositories[0]", "from 0 to 31"),
        ("repositories: ['a/${san.uri}']", "repositories[0]", "san.uri.path[N]"),
        ("repositories: ['a/${san.email}']", "repositories[0]", "san.email.local"),
        ("repositories: ['a/${subject.cn']", "repositories[0]", "closing brace"),
        ("repositories: ['a/${subject.cn}*']", "repositories[0]", "segments of their own"),
        ("repositories: ['a/${subject.o}-${subject.cn}']", "repositories[0]", "segments of their own"),
        ("repositories: ['a/${subject.cn}_']", "repositories[0]", "no component"),
        ("repositories: ['a/$subject.cn']", "repositories[0]", "no component"),
        ("actions: [catalog]", "repositories", "belongs to no repository"),
        ("name: ''", "name", "printable"),
        ("name: \"a\\nb\"", "name", "printable"),
        ("name: ping", "name", "another name"),
        ("name: default deny", "name", "another name"),
    ] {
        assert_fault(&rule_with(change), &format!("rules[0].{path}"), part);
    }
    let long = format!("repositories: ['{}/**']", "a".repeat(256));
    assert_fault(&rule_with(&long), "rules[0].repositories[0]", "longer than 255");
}

#[test]
fn tags_stand_only_where_they_protect() {
    for (tags, actions, path, part) in [
        ("['v*']", "[pull]", "tags", "tags can't limit pull: a pull by digest carries no tag"),
        ("['v*']", "[push, pull]", "tags", "rule of its own"),
        ("[]", "[push]", "tags", "is empty"),
        ("['']", "[push]", "tags[0]", "can't match any tag"),
        ("[a, 'a/b']", "[push]", "tags[1]", "can't match any tag"),
        ("['-x']", "[push]", "tags[0]", "can't match any tag"),
        ("['${subject.cn}']", "[push]", "tags[0]", "can't match any tag"),
    ] {
        let yaml = rule_with(&format!("actions: {actions}, tags: {tags}"));
        assert_fault(&yaml, &format!("rules[0].{path}"), part);
    }
}

#[test]
fn mistakes_in_groups_are_explained() {
    for (group, path, part) in [
        ("g: []", "g", "no member"),
        ("g: [{}]", "g[0]", "every client"),
        ("any: [{dns: a}]", "any", "choose another"),
        ("'a.b': [{dns: a}]", "a.b", "letters, digits"),
        ("g: [{subject: {}}]", "g[0].subject", "is empty"),
        ("g: [{subject: {cn: a}}]", "g[0].subject.cn", "unknown attribute (did you mean \"CN\"?)"),
        ("g: [{issuer: {XX9: a}}]", "g[0].issuer.XX9", "known are CN, O"),
        ("g: [{subject: {CN: ''}}]", "g[0].subject.CN", "is empty"),
        ("g: [{dns: 'a..b'}]", "g[0].dns", "no pattern"),
        ("g: [{dns: '**.example.com'}]", "g[0].dns", "no pattern"),
        ("g: [{dns: 'a/b'}]", "g[0].dns", "no pattern"),
        ("g: [{uri: 'corp.example'}]", "g[0].uri", "scheme"),
        ("g: [{uri: 'spiffe://*/a'}]", "g[0].uri", "written out"),
        ("g: [{uri: 'spiffe://*.example/a'}]", "g[0].uri", "written out"),
        ("g: [{uri: '*://a/b'}]", "g[0].uri", "written out"),
        ("g: [{uri: 'urn:*'}]", "g[0].uri", "written out"),
        ("g: [{uri: 'spiffe://a/b**'}]", "g[0].uri", "whole segment"),
        ("g: [{uri: 'spiffe://a/b/'}]", "g[0].uri", "can't match any SPIFFE ID"),
        ("g: [{uri: 'spiffe://A/b'}]", "g[0].uri", "can't match any SPIFFE ID"),
        ("g: [{email: example.com}]", "g[0].email", "local@domain"),
        ("g: [{email: '@example.com'}]", "g[0].email", "local@domain"),
        ("g: [{ip: 10.0.0.0/33}]", "g[0].ip", "neither"),
        ("g: [{ip: 10.1.0.0/8}]", "g[0].ip", "write 10.0.0.0/8"),
        ("g: [{fingerprint: abcd}]", "g[0].fingerprint", "SHA-256"),
        ("g: [{fingerprint: 'sha256:abcd'}]", "g[0].fingerprint", "SHA-256"),
        ("g: [{spki: 'sha1:abcd'}]", "g[0].spki", "SHA-256"),
    ] {
        assert_fault(&format!("groups: {{{group}}}"), &format!("groups.{path}"), part);
    }
}

#[test]
fn all_mistakes_come_at_once() {
    let found = faults(
        "groups: {g: [{}, {dns: ''}]}\n\
         rules:\n\
         - {name: r, subjects: [h], repositories: [A], actions: [pull], tags: [x], effect: allow}\n\
         - {name: r, subjects: [g], actions: [pull], effect: deny}\n",
    );
    let paths: Vec<&str> = found.iter().filter_map(|fault| fault.split_once(": ")).map(|(path, _)| path).collect();
    let expected = [
        "groups.g[0]",
        "groups.g[1].dns",
        "rules[0].subjects[0]",
        "rules[0].repositories[0]",
        "rules[0].tags",
        "rules[1].repositories",
        "rules[1].name",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn unknown_keys_and_words_are_refused() {
    for yaml in [
        "groups: {g: [{comon_name: x}]}",
        "rules: [{name: r, subjects: [any], repositories: [a], actions: [pull], effect: allow, extra: 1}]",
        "rules: [{name: r, subjects: [any], repositories: [a], actions: [read], effect: allow}]",
        "rules: [{name: r, subjects: [any], repositories: [a], actions: [pull], effect: Allow}]",
        "rules: [{name: r, subjects: [any], repositories: [a], actions: [pull]}]",
        "rule: []",
    ] {
        assert!(serde_yaml::from_str::<PolicyFile>(yaml).is_err(), "{yaml}");
    }
}
