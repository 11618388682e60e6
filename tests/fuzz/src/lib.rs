//! What must hold for any input. The fuzz targets and the project's own tests call the same functions; a broken property
//! is a panic.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use portcullis::config::policy::{GroupsFile, PolicyFile};
use portcullis::config::{self, Diagnostics};
use portcullis::identity::{Attribute, Description, LeafRules, PathCertificate, PeerIdentity};
use portcullis::oci::{self, Action, Route};
use portcullis::policy::{self, Decision, Facts, KnownTags, Policy, TlsFacts};
use portcullis::revocation::{
    Check, CrlSummary, Freshness, Issuer, Refusal, Seen, Settings, SignedData, SourceInput, Sources,
};

/// `METHOD target`, as in a request line.
pub fn route(input: &[u8]) {
    let Some((method, target)) = std::str::from_utf8(input).ok().and_then(|line| line.split_once(' ')) else { return };
    let Some(route) = parsed(method, target) else { return };
    let rebuilt = route.target();
    assert_eq!(parsed(method, &rebuilt).as_ref(), Some(&route), "{target:?} became {rebuilt:?}");
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\';
    assert!(rebuilt.starts_with("/v2/") && rebuilt.bytes().all(plain), "{rebuilt:?}");

    let accesses = route.accesses();
    let accesses = accesses.as_ref();
    let pings = route.kind() == oci::RouteKind::Ping;
    assert_eq!(accesses.is_empty(), pings, "{target:?} needs no right");
    assert_eq!(accesses.len() == 2, route.has_mount(), "{target:?}");
    for access in accesses {
        assert_eq!(access.repository.is_none(), access.action == Action::Catalog, "{target:?}");
        assert!(access.repository.is_none_or(|name| oci::RepoName::parse(name.as_str()).is_ok()), "{target:?}");
        assert!(access.tags.iter().all(|tag| oci::Tag::parse(tag.as_str()).is_ok()), "{target:?}");
    }
    assert_eq!(matches!(decide(&no_rules(), &anybody(), &route), Decision::Permit(_)), pings);
}

/// A `portcullis.yaml`.
pub fn configuration(input: &[u8]) {
    if let Err(findings) = config::parse(Path::new("fuzz.yaml"), input) {
        check_findings(&findings);
    }
}

/// A `policy.yaml`.
pub fn policy(input: &[u8]) {
    if let Err(findings) = config::parse_yaml(Path::new("fuzz.yaml"), input, Ok::<GroupsFile, _>) {
        check_findings(&findings);
    }
    let made = config::parse_yaml(Path::new("fuzz.yaml"), input, |file: PolicyFile| policy::compile(&file));
    let policy = match made {
        Ok(document) => document.value,
        Err(findings) => return check_findings(&findings),
    };
    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for identity in [anybody(), somebody()] {
        for (method, target) in [
            ("GET", "/v2/".to_owned()),
            ("GET", "/v2/_catalog".to_owned()),
            ("GET", "/v2/team-a/app/manifests/v1".to_owned()),
            ("PUT", "/v2/shared/base/manifests/v1".to_owned()),
            ("DELETE", format!("/v2/archive/manifests/{DIGEST}")),
            ("POST", format!("/v2/team-a/x/blobs/uploads/?mount={DIGEST}&from=team-b/x")),
        ] {
            let route = parsed(method, &target).expect("a route");
            let decision = decide(&policy, &identity, &route);
            if let Decision::Permit(permit) = &decision {
                let known = policy.rules().any(|rule| rule.name() == permit.rule());
                assert!(known || method == "GET" && target == "/v2/", "permitted by {:?}", permit.rule());
            }
            let explanation = policy.explain(route, &facts(&identity));
            assert_eq!(format!("{:?}", explanation.decision), format!("{decision:?}"), "{method} {target}");
        }
    }
}

/// Certificates in DER, one after the other, leaf first.
pub fn certificate(input: &[u8]) {
    let path = split_der(input);
    let leaf = path.first().copied().unwrap_or_default();
    let lenient = LeafRules { allow_v1: true, min_rsa_bits: 0, ..LeafRules::default() };
    for rules in [LeafRules::default(), lenient] {
        let found = [PeerIdentity::from_path(&path, &rules), PeerIdentity::from_leaf(leaf, &rules)];
        for identity in found {
            match identity {
                Ok(identity) => check_identity(&identity),
                Err(fault) => check_line(&fault.to_string()),
            }
        }
    }
}

/// When the lists of the corpus are in force: 2025-01-01, in unix seconds.
const NOW: i64 = 1_735_689_600;

/// The authority of the corpus, two clients of it, and its list number 5, which revokes the first.
const CA: &[u8] = include_bytes!("../fixtures/ca.der");
const REVOKED: &[u8] = include_bytes!("../fixtures/client-7.der");
const GOOD: &[u8] = include_bytes!("../fixtures/client-8.der");
const LIST: &[u8] = include_bytes!("../fixtures/good.crl");

/// A source of revocation lists: one in DER, or blocks of PEM.
pub fn crl(input: &[u8]) {
    if let Ok(list) = CrlSummary::read(input) {
        check_line(&list.issuer());
        check_line(&list.scope().to_string());
        assert!(list.entries <= input.len() && list.first(3).count() <= list.entries);
    }
    check_lists(input);
    check_last_good(input);
}

/// Were everything rightly signed: what is said can be printed, and the same source says the same again.
fn check_lists(input: &[u8]) {
    let (mut sources, issuer) = sources();
    let mut update = || sources.update([source(input)], &issuer, NOW, &|_: &SignedData<'_>, _: &[u8]| Ok(()));
    let ((index, reports), (again, same)) = (update(), update());
    assert_eq!((index.content_hash(), index.entries()), (again.content_hash(), again.entries()));
    for (report, same) in reports.iter().zip(&same) {
        assert_eq!((&report.lists, &report.faults), (&same.lists, &same.faults));
        report.faults.iter().for_each(|fault| check_line(&fault.to_string()));
        for list in &report.lists {
            check_line(&format!("{} {} {:?}", list.issuer_name, list.scope, list.number.map(|n| n.to_string())));
        }
    }
    assert!(index.entries() <= input.len());
    for seen in sources.seen() {
        assert_eq!(seen.to_string().parse::<Seen>().as_ref(), Ok(&seen));
    }
    for client in [REVOKED, GOOD] {
        let path = path(client);
        let (verdict, until) = (index.check(&path, NOW), index.permits_until(&path));
        match verdict {
            Ok(()) => assert!(until >= NOW),
            Err(Refusal::Revoked { .. }) => {}
            Err(refusal) => {
                assert!(until < NOW);
                check_line(&refusal.to_string());
            }
        }
    }
}

/// Whatever takes the place of a good list without being its issuer's: nothing is forgotten, nobody is locked out.
fn check_last_good(input: &[u8]) {
    let (mut sources, issuer) = sources();
    let signed = split_der(LIST.get(3..).unwrap_or_default()).first().copied().unwrap_or_default();
    let verify = |data: &SignedData<'_>, _: &[u8]| if data.tbs == signed { Ok(()) } else { Err("forged".to_owned()) };
    for bytes in [LIST, input] {
        let (index, _) = sources.update([source(bytes)], &issuer, NOW, &verify);
        assert!(matches!(index.check(&path(REVOKED), NOW), Err(Refusal::Revoked { .. })));
        assert_eq!(index.check(&path(GOOD), NOW), Ok(()));
    }
}

fn sources() -> (Sources, [Issuer; 1]) {
    let (grace, clock_skew) = (Duration::ZERO, Duration::ZERO);
    let settings = Settings { freshness: Freshness::Required, check: Check::Chain, grace, clock_skew };
    (Sources::new(settings), [Issuer::from_certificate(CA).expect("an authority")])
}

fn source(bytes: &[u8]) -> SourceInput {
    SourceInput { key: "ca.crl".to_owned(), bytes: Ok(bytes.to_vec()), issuer: None }
}

fn path(client: &[u8]) -> Vec<PathCertificate> {
    PeerIdentity::from_path(&[client, CA], &LeafRules::default()).expect("a client").path
}

fn check_identity(identity: &PeerIdentity) {
    let label = identity.label();
    check_line(label);
    assert!(!label.is_empty() && label.chars().count() <= 272, "{label:?}");
    for Attribute { value, .. } in identity.subject.iter().chain(&identity.issuer) {
        check_line(value);
    }
    for name in identity.dns.iter().chain(&identity.uris).chain(&identity.emails) {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
    }
    assert!(identity.dns.iter().all(|name| !name.bytes().any(|byte| byte.is_ascii_uppercase())));
    let anchors: Vec<_> = identity.path.iter().map(|certificate| certificate.is_anchor).collect();
    assert!(anchors.iter().rev().enumerate().all(|(i, anchor)| *anchor == (i == 0)), "{anchors:?}");
    // Whatever names a certificate holds, nothing but a rule lets it in.
    let route = parsed("GET", "/v2/team-a/app/manifests/v1").expect("a route");
    assert!(matches!(decide(&no_rules(), identity, &route), Decision::Reject(_)));
}

/// Bounded, one a line, each with its file.
fn check_findings(findings: &Diagnostics) {
    assert!(findings.has_errors());
    for finding in findings {
        let line = finding.to_string();
        check_line(&line);
        assert!(line.starts_with("fuzz.yaml:") && line.len() < 10_000, "{line:?}");
    }
}

fn check_line(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// The values of a sequence of DER values; what is none counts as one more.
fn split_der(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut values = Vec::new();
    while !bytes.is_empty() && values.len() < 6 {
        let length = match bytes {
            [_, short @ 0..=0x7f, ..] => 2 + usize::from(*short),
            [_, 0x81, length, ..] => 3 + usize::from(*length),
            [_, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => bytes.len(),
        };
        let (value, rest) = bytes.split_at(length.min(bytes.len()));
        values.push(value);
        bytes = rest;
    }
    values
}

fn parsed(method: &str, target: &str) -> Option<Route> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    oci::route(method, path, query).ok()
}

fn decide(policy: &Policy, identity: &PeerIdentity, route: &Route) -> Decision {
    policy.decide_route(route.clone(), &facts(identity)).1
}

fn facts(identity: &PeerIdentity) -> Facts<'_> {
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Facts {
        identity,
        standing: None,
        accesses: &[],
        now: 0,
        client,
        tls: TlsFacts::new("TLSv1.3"),
        tags: KnownTags::Nothing,
    }
}

fn no_rules() -> Policy {
    policy::compile(&PolicyFile::default()).expect("an empty policy is valid")
}

fn anybody() -> PeerIdentity {
    PeerIdentity::described(Description { dns: vec!["a.example".to_owned()], ..Description::default() })
}

fn somebody() -> PeerIdentity {
    let attribute = |name: &'static str, value: &str| Attribute { name: name.into(), value: value.to_owned() };
    PeerIdentity::described(Description {
        subject: vec![attribute("CN", "ci-7"), attribute("OU", "build"), attribute("OU", "team-a")],
        issuer: vec![attribute("CN", "Example Client CA")],
        dns: vec!["ci-7.ci.example.com".to_owned()],
        uris: vec!["spiffe://example.com/team-a/build".to_owned()],
        emails: vec!["ci@example.com".to_owned()],
        ips: vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7))],
        ..Description::default()
    })
}
