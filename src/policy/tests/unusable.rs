//! Certificates with a name that can't be read beside one that can: nobody gains a right by one, nor sheds a denial.

use crate::identity::LeafRules;
use crate::identity::testing::{
    CN, OU, SAN_DNS, SAN_EMAIL, SAN_IP, SAN_URI, TestCertificate, alternative_names, common_name, name,
};

use super::*;

type Name = (u8, &'static [u8]);

/// The identity of a verified certificate with these alternative names, for a client whom its common name tells.
fn with_names(names: &[Name]) -> PeerIdentity {
    identity(|client| client.extensions.push(alternative_names(names)))
}

fn identity(change: impl FnOnce(&mut TestCertificate)) -> PeerIdentity {
    let mut client = TestCertificate::client();
    change(&mut client);
    let authority = TestCertificate { subject: client.issuer.clone(), ..TestCertificate::authority() };
    PeerIdentity::from_path(&[&client.der(), &authority.der()], &LeafRules::default()).expect("an identity")
}

/// The rule that decides about a pull of `secret/x`, where all may pull and the group may not.
fn pull_of_denied(selector: &str, identity: &PeerIdentity) -> String {
    let yaml = format!(
        "groups: {{g: [{selector}]}}\nrules:\n\
         - {{name: all, subjects: [any], repositories: ['**'], actions: [pull], effect: allow}}\n\
         - {{name: not, subjects: [g], repositories: ['secret/**'], actions: [pull], effect: deny}}\n"
    );
    ask(&policy(&yaml), identity, "GET", "/v2/secret/x/tags/list")
}

/// Whether the group may pull, where nobody else may.
fn pull_of_allowed(selector: &str, identity: &PeerIdentity) -> bool {
    let yaml = format!(
        "groups: {{g: [{selector}]}}\nrules:\n\
         - {{name: some, subjects: [g], repositories: ['**'], actions: [pull], effect: allow}}\n"
    );
    allowed(&policy(&yaml), identity, "GET", "/v2/secret/x/tags/list")
}

#[track_caller]
fn assert_denied_and_not_allowed(selector: &str, identity: &PeerIdentity) {
    let answer = pull_of_denied(selector, identity);
    assert!(answer.ends_with("(rule: not)"), "{selector}: {answer}");
    assert!(!pull_of_allowed(selector, identity), "{selector}");
}

#[track_caller]
fn assert_spared_and_not_allowed(selector: &str, identity: &PeerIdentity) {
    assert_eq!(pull_of_denied(selector, identity), "allow by all", "{selector}");
    assert!(!pull_of_allowed(selector, identity), "{selector}");
}

const KINDS: [(&str, Name, Name); 4] = [
    ("{dns: '*.contractor.example'}", (SAN_DNS, b"x.contractor.example"), (SAN_DNS, b"a..b")),
    ("{uri: 'spiffe://contractor.example/**'}", (SAN_URI, b"spiffe://contractor.example/x"), (SAN_URI, b"no-scheme")),
    ("{email: '*@contractor.example'}", (SAN_EMAIL, b"x@contractor.example"), (SAN_EMAIL, b"no-domain")),
    ("{ip: 10.0.0.0/8}", (SAN_IP, &[10, 0, 0, 7]), (SAN_IP, &[10, 0, 0])),
];

#[test]
fn an_unreadable_alternative_name_does_not_shake_off_a_denial() {
    for (selector, denied, unreadable) in KINDS {
        assert!(pull_of_denied(selector, &with_names(&[denied])).ends_with("(rule: not)"), "{selector}");
        assert!(pull_of_allowed(selector, &with_names(&[denied])), "{selector}");
        for names in [[denied, unreadable], [unreadable, denied]] {
            assert_denied_and_not_allowed(selector, &with_names(&names));
        }
        // Nobody can tell whose name it was to be.
        assert_denied_and_not_allowed(selector, &with_names(&[unreadable]));
        // Other kinds of names can be read.
        for (other, _, _) in KINDS.into_iter().filter(|(other, _, _)| *other != selector) {
            assert_spared_and_not_allowed(other, &with_names(&[unreadable]));
        }
    }
}

#[test]
fn an_unreadable_attribute_does_not_shake_off_a_denial() {
    for (selector, oid) in [("CN: contractor", CN), ("OU: contractor", OU)] {
        let (denied, unreadable) = ((oid, 0x0c, &b"contractor"[..]), (oid, 0x0c, &b"a\0b"[..]));
        for attributes in [&[denied, unreadable][..], &[unreadable, denied], &[unreadable]] {
            let by_subject = identity(|client| {
                client.subject = name(attributes);
                client.extensions.push(alternative_names(&[(SAN_DNS, b"x.example")]));
            });
            assert_denied_and_not_allowed(&format!("{{subject: {{{selector}}}}}"), &by_subject);
            assert_spared_and_not_allowed(&format!("{{issuer: {{{selector}}}}}"), &by_subject);
            assert_spared_and_not_allowed("{subject: {O: contractor}}", &by_subject);
            let by_issuer = identity(|client| client.issuer = name(attributes));
            assert_denied_and_not_allowed(&format!("{{issuer: {{{selector}}}}}"), &by_issuer);
            assert_spared_and_not_allowed(&format!("{{subject: {{{selector}}}}}"), &by_issuer);
        }
    }
}

#[test]
fn the_other_conditions_of_a_denial_count_as_ever() {
    let client = with_names(&[(SAN_DNS, b"a..b")]);
    assert_denied_and_not_allowed("{dns: x.example, subject: {CN: 'ci-*'}}", &client);
    assert_spared_and_not_allowed("{dns: x.example, subject: {CN: admin}}", &client);
    assert_spared_and_not_allowed("{dns: x.example, uri: 'spiffe://corp.example/a'}", &client);
    let hash = "ab".repeat(32);
    assert_spared_and_not_allowed(&format!("{{dns: x.example, fingerprint: 'sha256:{hash}'}}"), &client);
}

#[test]
fn a_placeholder_without_a_readable_value_denies_every_segment_and_allows_none() {
    let unreadable_cn = identity(|client| {
        client.subject = name(&[(CN, 0x0c, b"ci-7"), (CN, 0x0c, b"a\0b")]);
        client.extensions.push(alternative_names(&[(SAN_DNS, b"x")]));
    });
    for (placeholder, identity) in [
        ("subject.cn", unreadable_cn),
        ("san.dns", with_names(&[(SAN_DNS, b"ci-7"), (SAN_DNS, b"a..b")])),
        ("san.uri.host", with_names(&[(SAN_URI, b"https://ci-7/"), (SAN_URI, b"no-scheme")])),
        ("san.uri.path[0]", with_names(&[(SAN_URI, b"https://x/ci-7"), (SAN_URI, b"no-scheme")])),
        ("san.email.local", with_names(&[(SAN_EMAIL, b"ci-7@example.com"), (SAN_EMAIL, b"no-domain")])),
    ] {
        let rule = |effect: &str| {
            format!(
                "- {{name: {effect}, subjects: [any], repositories: ['home/${{{placeholder}}}/**'], \
                 actions: [pull], effect: {effect}}}\n"
            )
        };
        let all = "- {name: all, subjects: [any], repositories: ['**'], actions: [pull], effect: allow}\n";
        let denying = policy(&format!("rules:\n{all}{}", rule("deny")));
        let allowing = policy(&format!("rules:\n{}", rule("allow")));
        for segment in ["ci-7", "other"] {
            let target = format!("/v2/home/{segment}/x/tags/list");
            assert!(!allowed(&denying, &identity, "GET", &target), "{placeholder} {segment}");
            assert!(!allowed(&allowing, &identity, "GET", &target), "{placeholder} {segment}");
        }
        assert!(allowed(&denying, &identity, "GET", "/v2/other/ci-7/tags/list"), "{placeholder}");
    }
}

#[test]
fn a_readable_certificate_is_judged_by_what_it_says() {
    let client = identity(|client| client.subject = common_name("ci-8"));
    assert_eq!(pull_of_denied("{subject: {CN: contractor}}", &client), "allow by all");
    assert_eq!(pull_of_denied("{dns: '*.contractor.example'}", &client), "allow by all");
}
