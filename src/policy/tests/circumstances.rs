//! Rules that apply under circumstances only.

use super::*;
use crate::policy::suite::facts as facts_of;

/// 2026-01-31T08:00:00Z, a Saturday.
const SATURDAY: u64 = 1_769_846_400;
const HOUR: u64 = 3600;

fn with(when: &str) -> Policy {
    policy(&format!(
        "rules:\n- {{name: r, subjects: [any], repositories: ['**'], actions: [pull], effect: allow, when: {when}}}\n"
    ))
}

fn denying(when: &str) -> Policy {
    policy(&format!(
        "rules:\n- {{name: all, subjects: [any], repositories: ['**'], actions: [pull], effect: allow}}\n\
         - {{name: r, subjects: [any], repositories: ['**'], actions: [pull], effect: deny, when: {when}}}\n"
    ))
}

fn expiring(at: Option<u64>) -> PeerIdentity {
    let subject = vec![Attribute { name: "CN".into(), value: "x".to_owned() }];
    let not_after = at.map(|at| i64::try_from(at).expect("a time"));
    PeerIdentity::described(Description { subject, not_after, ..Description::default() })
}

fn pulls(policy: &Policy, identity: &PeerIdentity, change: impl for<'f> Fn(Facts<'f>) -> Facts<'f>) -> bool {
    ask_with(policy, identity, "GET", "/v2/a/tags/list", |facts| change(Facts { now: SATURDAY, ..facts }))
        .starts_with("allow by ")
}

fn at(policy: &Policy, now: u64) -> bool {
    pulls(policy, &expiring(None), |facts| Facts { now, ..facts })
}

#[test]
fn networks_are_of_the_address_that_the_client_connects_from() {
    let policy = with("{client: [10.0.0.0/8, 192.0.2.7, '2001:db8::/32']}");
    // The address in the certificate is another one.
    let identity = client(&["CN=x", "ip=10.0.0.1"]);
    for (address, expected) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
        ("::1", false),
    ] {
        let address: IpAddr = address.parse().expect("an address");
        assert_eq!(pulls(&policy, &identity, |facts| Facts { client: address, ..facts }), expected, "{address}");
    }
}

#[test]
fn from_is_inside_and_until_is_not() {
    let policy = with("{from: '2026-01-31T08:00:00Z', until: '2026-01-31T12:00:00+02:00'}");
    for (now, expected) in
        [(SATURDAY - 1, false), (SATURDAY, true), (SATURDAY + 2 * HOUR - 1, true), (SATURDAY + 2 * HOUR, false)]
    {
        assert_eq!(at(&policy, now), expected, "{now}");
    }
    assert!(at(&with("{until: '2027-01-01T00:00:00Z'}"), SATURDAY));
    assert!(!at(&with("{from: '2027-01-01T00:00:00Z'}"), SATURDAY));
}

#[test]
fn windows_have_days_and_zones() {
    let friday = SATURDAY - 24 * HOUR;
    for (window, now, expected) in [
        ("{days: [sat], from: '08:00', until: '09:00'}", SATURDAY, true),
        ("{days: [sat], from: '08:00', until: '09:00'}", SATURDAY + HOUR, false),
        ("{days: [sat], from: '08:00', until: '09:00'}", SATURDAY - 1, false),
        ("{days: [mon, tue, wed, thu, fri]}", SATURDAY, false),
        ("{days: [mon, tue, wed, thu, fri]}", friday, true),
        ("{from: '08:00'}", SATURDAY + 15 * HOUR, true),
        ("{until: '08:00'}", SATURDAY, false),
        // Eight in London is half past one in the afternoon in Delhi.
        ("{from: '13:30', until: '13:31', zone: '+05:30'}", SATURDAY, true),
        ("{days: [fri], from: '23:00', zone: '-09:00'}", SATURDAY, true),
        ("{days: [sat], from: '23:00', zone: '-09:00'}", SATURDAY, false),
        // Over midnight: the night of Friday ends on Saturday, and has no part of Friday's morning.
        ("{days: [fri], from: '22:00', until: '08:30'}", SATURDAY, true),
        ("{days: [fri], from: '22:00', until: '08:30'}", friday, false),
        ("{days: [sat], from: '22:00', until: '08:30'}", SATURDAY, false),
        ("{days: [sun], from: '22:00', until: '06:00'}", SATURDAY + 44 * HOUR, true),
    ] {
        assert_eq!(at(&with(&format!("{{hours: [{window}]}}")), now), expected, "{window} at {now}");
    }
    let several = with("{hours: [{days: [mon]}, {from: '07:00', until: '08:01'}]}");
    assert!(at(&several, SATURDAY) && !at(&several, SATURDAY + HOUR));
}

#[test]
fn certificates_have_time_to_go() {
    let day = "{certificate_lifetime: {at_least: 1d}}";
    let short = "{certificate_lifetime: {at_most: 1d}}";
    for (left, long_enough, short_enough) in
        [(0, false, true), (24 * HOUR - 1, false, true), (24 * HOUR, true, true), (24 * HOUR + 1, true, false)]
    {
        let identity = expiring(Some(SATURDAY + left));
        assert_eq!(pulls(&with(day), &identity, |facts| facts), long_enough, "{left}");
        assert_eq!(pulls(&with(short), &identity, |facts| facts), short_enough, "{left}");
        assert_eq!(pulls(&denying(short), &identity, |facts| facts), !short_enough, "{left}");
    }
    // Nobody knows: nothing is allowed by it, and nobody spared.
    for when in [day, short] {
        assert!(!pulls(&with(when), &expiring(None), |facts| facts), "{when}");
        assert!(!pulls(&denying(when), &expiring(None), |facts| facts), "{when}");
    }
}

#[test]
fn tls_has_a_version() {
    for (least, version, expected) in [
        ("1.3", "TLSv1.3", true),
        ("1.3", "TLSv1.2", false),
        ("1.2", "TLSv1.2", true),
        ("1.2", "TLSv1.3", true),
        ("1.2", "unknown", false),
    ] {
        let policy = with(&format!("{{min_tls_version: '{least}'}}"));
        let found = pulls(&policy, &expiring(None), |facts| Facts { tls: TlsFacts::new(version), ..facts });
        assert_eq!(found, expected, "{least} {version}");
    }
}

#[test]
fn all_circumstances_must_be_given_and_the_explanation_tells_which_are_not() {
    let when = "{client: [10.0.0.0/8], until: '2026-01-01T00:00:00Z', hours: [{days: [mon], from: '08:00'}], \
                certificate_lifetime: {at_least: 2d}, min_tls_version: '1.3'}";
    let policy = with(when);
    let route = oci::route("GET", "/v2/a/tags/list", None).expect("a route");
    let identity = expiring(Some(SATURDAY + 24 * HOUR));
    let told = |facts: Facts<'_>| {
        let explanation = policy.explain(route.clone(), &facts);
        let finding = explanation.steps[0].rules[0].findings.iter().find(|f| f.aspect == Aspect::When);
        finding.map(|finding| (finding.holds, finding.reason.clone())).expect("a finding")
    };
    let facts = facts_of(&identity, "10.0.0.1".parse().expect("an address"), SATURDAY);
    let (holds, reason) = told(facts);
    let expected = "not given: it is 2026-01-31T08:00:00Z (until 2026-01-01T00:00:00Z), \
                    it is 2026-01-31T08:00:00Z (in: mon 08:00 to 24:00 UTC), \
                    the certificate has 24h to go (for 48h and more)";
    assert_eq!((holds, reason.as_str()), (false, expected));
    let facts = Facts { now: SATURDAY - 47 * 24 * HOUR, ..facts };
    let (holds, reason) = told(facts);
    assert!(
        holds && reason.starts_with("the client connects from 10.0.0.1 (for: 10.0.0.0/8), it is 2025-12-15T"),
        "{reason}"
    );
}
