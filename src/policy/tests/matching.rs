//! What patterns, placeholders and descriptions of clients match, and what must not slip in.

use super::*;

/// Whether a group with this one selector takes the client in, for a rule that allows.
fn selects(selector: &str, identity: &PeerIdentity) -> bool {
    let yaml = format!(
        "groups: {{g: [{selector}]}}\nrules:\n\
         - {{name: r, subjects: [g], repositories: ['**'], actions: [pull], effect: allow}}\n"
    );
    allowed(&policy(&yaml), identity, "GET", "/v2/a/tags/list")
}

/// The same for a rule that denies beside one that allows everybody.
fn denies(selector: &str, identity: &PeerIdentity) -> bool {
    let yaml = format!(
        "groups: {{g: [{selector}]}}\nrules:\n\
         - {{name: all, subjects: [any], repositories: ['**'], actions: [pull], effect: allow}}\n\
         - {{name: not, subjects: [g], repositories: ['**'], actions: [pull], effect: deny}}\n"
    );
    !allowed(&policy(&yaml), identity, "GET", "/v2/a/tags/list")
}

/// Whether a rule that allows everybody these repositories covers one.
fn covers(pattern: &str, identity: &PeerIdentity, repository: &str) -> bool {
    let yaml =
        format!("rules: [{{name: r, subjects: [any], repositories: ['{pattern}'], actions: [pull], effect: allow}}]");
    allowed(&policy(&yaml), identity, "GET", &format!("/v2/{repository}/tags/list"))
}

#[test]
fn repository_patterns_respect_segments() {
    let anybody = client(&["CN=x"]);
    for (pattern, repository, expected) in [
        ("team-a/**", "team-a/app", true),
        ("team-a/**", "team-a/x/y/z", true),
        ("team-a/**", "team-a", true),
        ("team-a/**", "team-a-evil/app", false),
        ("team-a/**", "x/team-a/app", false),
        ("team-a/*", "team-a/app", true),
        ("team-a/*", "team-a/x/y", false),
        ("team-a/*", "team-a", false),
        ("team-*/app", "team-b/app", true),
        ("team-*/app", "team-b/x/app", false),
        ("*", "a", true),
        ("*", "a/b", false),
        ("**", "a/b", true),
        ("**/base", "base", true),
        ("a/**/base", "a/b/c/base", true),
        ("a/b", "a/b", true),
        ("a/b", "a/b/c", false),
        ("a/b", "a", false),
    ] {
        assert_eq!(covers(pattern, &anybody, repository), expected, "{pattern} for {repository}");
    }
}

#[test]
fn placeholders_are_filled_from_the_certificate() {
    let identity = client(&[
        "CN=alice",
        "O=corp",
        "OU=build",
        "UID=u7",
        "dns=ci-7.red.example.com",
        "uri=spiffe://corp.example/ns/red/sa/ci",
        "email=bob@example.com",
    ]);
    for (pattern, repository) in [
        ("home/${subject.cn}/**", "home/alice/x"),
        ("${subject.o}/${subject.ou}", "corp/build"),
        ("u/${subject.uid}", "u/u7"),
        ("h/${san.dns}", "h/ci-7.red.example.com"),
        ("h/${san.dns.label[1]}", "h/red"),
        ("d/${san.uri.host}", "d/corp.example"),
        ("team/${san.uri.path[1]}/**", "team/red/app"),
        ("m/${san.email.local}", "m/bob"),
        ("m/${san.email.domain}", "m/example.com"),
        ("m/x-${san.email.local}-y", "m/x-bob-y"),
    ] {
        assert!(covers(pattern, &identity, repository), "{pattern} for {repository}");
        assert!(!covers(pattern, &identity, "home/mallory/x"), "{pattern}");
        assert!(!covers(pattern, &client(&["DC=x"]), repository), "{pattern} without a value");
    }
    assert!(!covers("home/${subject.cn}", &identity, "home/alice2"));
    assert!(!covers("h/${san.dns.label[9]}", &identity, "h/red"));
}

#[test]
fn values_never_widen_a_rule() {
    for name in
        ["*", "**", "a*", "", "a/b", "..", ".", "Alice", "alice ", "a%2fb", "é", "${subject.o}", "a--", "-a", "a\0"]
    {
        let identity = client(&[&format!("CN={name}")]);
        for repository in ["home/alice/x", "home/a/b", "home/a/x", "home/x"] {
            assert!(!covers("home/${subject.cn}/**", &identity, repository), "{name:?} for {repository}");
        }
    }
    for uri in [
        "spiffe://corp.example/ns/a*/sa",
        "https://corp.example/ns/red?x",
        "https://corp.example/ns/red#x",
        "https://corp.example/ns/%72ed",
        "urn:x/ns/red",
        "https://corp.example//red",
        "https://corp.example/../red",
        "https://corp.example/ns/red/../..",
    ] {
        let identity = client(&[&format!("uri={uri}")]);
        assert!(!covers("team/${san.uri.path[1]}/x", &identity, "team/red/x"), "{uri}");
    }
}

#[test]
fn a_value_of_several_is_no_value() {
    for names in
        [["CN=a", "CN=b"], ["OU=a", "OU=b"], ["dns=a", "dns=b"], ["email=a@x", "email=b@x"], ["uri=x://a", "uri=x://b"]]
    {
        for pattern in ["${subject.cn}", "${subject.ou}", "${san.dns}", "${san.email.local}", "${san.uri.host}"] {
            assert!(!covers(pattern, &client(&names), "a"), "{pattern} with {names:?}");
            assert!(!covers(pattern, &client(&names), "b"), "{pattern} with {names:?}");
        }
    }
}

#[test]
fn a_denial_with_a_placeholder_fails_closed() {
    let policy = policy(
        "rules:\n\
         - {name: all, subjects: [any], repositories: ['**'], actions: [pull], effect: allow}\n\
         - {name: not, subjects: [any], repositories: ['private/x-${subject.cn}/**'], actions: [pull], effect: deny}\n",
    );
    let pull = |identity: &PeerIdentity, repository: &str| {
        allowed(&policy, identity, "GET", &format!("/v2/{repository}/tags/list"))
    };
    assert!(!pull(&client(&["CN=a"]), "private/x-a/r"));
    assert!(pull(&client(&["CN=b"]), "private/x-a/r"));
    assert!(!pull(&client(&["CN=b", "CN=c"]), "private/x-a/r"), "an ambiguous name does not slip past");
    assert!(!pull(&client(&["DC=b"]), "private/x-a/r"));
    assert!(pull(&client(&["DC=b"]), "private/y-a/r"));
}

#[test]
fn names_are_compared_by_type_and_exactly() {
    let cn = client(&["CN=ci-7.example.com", "OU=build", "OU=test", "issuer.CN=Corp Client CA"]);
    for (selector, expected) in [
        ("{subject: {CN: ci-7.example.com}}", true),
        ("{subject: {CN: CI-7.example.com}}", false),
        ("{subject: {CN: 'ci-*'}}", true),
        ("{subject: {CN: 'ci-*', OU: test}}", true),
        ("{subject: {CN: 'ci-*', OU: prod}}", false),
        ("{subject: {O: '*'}}", false),
        ("{dns: ci-7.example.com}", false),
        ("{subject: {CN: '*'}, issuer: {CN: Corp Client CA}}", true),
        ("{subject: {CN: '*'}, issuer: {CN: Other CA}}", false),
        ("{issuer: {CN: ci-7.example.com}}", false),
        ("{subject: {CN: 'OU=build'}}", false),
    ] {
        assert_eq!(selects(selector, &cn), expected, "{selector}");
    }
}

#[test]
fn subject_alternative_names_follow_their_grammar() {
    let names = client(&[
        "dns=ci-7.ci.example.com",
        "dns=*.wild.example.com",
        "uri=spiffe://corp.example/ns/red/sa/ci",
        "email=Bob@example.com",
        "ip=10.1.2.3",
        "ip=2001:db8::1",
    ]);
    for (selector, expected) in [
        ("{dns: '*.ci.example.com'}", true),
        ("{dns: 'CI-*.ci.EXAMPLE.com'}", true),
        ("{dns: '*.example.com'}", false),
        ("{dns: '*.*.example.com'}", true),
        ("{dns: '*.wild.example.com'}", false),
        ("{dns: evil.ci.example.com}", false),
        ("{uri: 'spiffe://corp.example/ns/*/sa/ci'}", true),
        ("{uri: 'spiffe://corp.example/ns/red/**'}", true),
        ("{uri: 'spiffe://corp.example/**'}", true),
        ("{uri: 'spiffe://corp.example/ns/*'}", false),
        ("{uri: 'spiffe://corp.example.evil/**'}", false),
        ("{uri: 'https://corp.example/ns/*/sa/ci'}", false),
        ("{email: '*@example.com'}", true),
        ("{email: Bob@Example.COM}", true),
        ("{email: bob@example.com}", false),
        ("{email: '*@*.example.com'}", false),
        ("{ip: 10.0.0.0/8}", true),
        ("{ip: 10.1.2.3}", true),
        ("{ip: 192.168.0.0/16}", false),
        ("{ip: '2001:db8::/32'}", true),
    ] {
        assert_eq!(selects(selector, &names), expected, "{selector}");
    }
}

#[test]
fn certificates_and_keys_can_be_named() {
    let (identity, ab, cd) = (client(&["CN=x"]), "ab".repeat(32), "CD:".repeat(32));
    for (selector, expected) in [
        (format!("{{fingerprint: 'sha256:{ab}'}}"), true),
        (format!("{{spki: 'sha256:{}'}}", cd.trim_end_matches(':')), true),
        (format!("{{spki: 'sha256:{ab}'}}"), false),
    ] {
        assert_eq!(selects(&selector, &identity), expected, "{selector}");
    }
}

#[test]
fn ambiguous_certificates_are_not_allowed_and_not_spared() {
    let uris = ["uri=spiffe://corp.example/a", "uri=spiffe://corp.example/b"];
    for (names, selector) in [
        (["CN=ci-7", "CN=admin"], "{subject: {CN: admin}}"),
        (["UID=1", "UID=2"], "{subject: {UID: '2'}}"),
        (["serialNumber=1", "serialNumber=2"], "{subject: {serialNumber: '2'}}"),
        (uris, "{uri: 'spiffe://corp.example/b'}"),
        (uris, "{uri: 'spiffe://corp.example/**'}"),
        (["uri=https://x/a/../b", "CN=x"], "{uri: 'https://x/a/**'}"),
        (["uri=https://x/a/b?c/d", "CN=x"], "{uri: 'https://x/a/**'}"),
        (["dns=*.example.com", "CN=x"], "{dns: '*.example.com'}"),
    ] {
        assert!(!selects(selector, &client(&names)), "{selector} must not allow {names:?}");
        assert!(denies(selector, &client(&names)), "{selector} must deny {names:?}");
    }
}

#[test]
fn homoglyphs_and_smuggled_attributes_are_other_names() {
    for name in
        ["CN=admin\u{200b}", "CN=\u{430}dmin", "CN=admin,O=x", "CN=Admin", "CN= admin", "O=admin", "CN=x/CN=admin"]
    {
        assert!(!selects("{subject: {CN: admin}}", &client(&[name])), "{name:?}");
    }
}
