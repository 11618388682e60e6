//! Random policies, clients and requests, of few words, so that they often have to do with each other.

use super::*;

/// A few of several texts, at least `least`.
fn some(rng: &mut Rng, of: &[&str], least: usize, most: usize) -> Vec<String> {
    (0..rng.usize(least..=most)).map(|_| one(rng, of)).collect()
}

pub(super) fn one(rng: &mut Rng, of: &[&str]) -> String {
    rng.choice(of).copied().expect("a text").to_owned()
}

fn maybe<T>(rng: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    rng.u8(0..3).eq(&0).then(|| make(rng))
}

pub(super) fn random_identity(rng: &mut Rng) -> PeerIdentity {
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
    let named = client(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let not_after = maybe(rng, |rng| (T + rng.u64(0..200_000)).cast_signed());
    let PeerIdentity { subject, issuer, dns, uris, emails, ips, fingerprint, spki, .. } = named;
    let unusable = Description::default().unusable;
    PeerIdentity::described(Description {
        subject,
        issuer,
        dns,
        uris,
        emails,
        ips,
        unusable,
        fingerprint,
        spki,
        not_after,
    })
}

/// A selector that captures `{team}`, by one name or two.
fn capturing_selector(rng: &mut Rng) -> SelectorFile {
    let mut selector = SelectorFile::default();
    while selector == SelectorFile::default() {
        selector = SelectorFile {
            subject: maybe(rng, |rng| BTreeMap::from([(one(rng, &["CN", "OU"]), one(rng, &["{team}", "a{team}"]))])),
            dns: maybe(rng, |rng| one(rng, &["{team}.x.example", "*.{team}.example"])),
            uri: maybe(rng, |rng| one(rng, &["spiffe://t/{team}/b", "spiffe://t/{team}", "spiffe://t/a/{team}"])),
            ..SelectorFile::default()
        };
    }
    selector
}

/// 2026-01-31T08:00:00Z, a Saturday, around which everything happens.
pub(super) const T: u64 = 1_769_846_400;
/// An hour before.
pub(super) const EARLIER: &str = "2026-01-31T07:00:00Z";
/// Half an hour after.
pub(super) const LATER: &str = "2026-01-31T10:30:00+02:00";

fn random_when(rng: &mut Rng) -> WhenFile {
    const DAYS: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];
    let window = |rng: &mut Rng| HoursFile {
        days: Some(DAYS.into_iter().filter(|_| rng.bool()).chain([Day::Sat]).collect()),
        from: maybe(rng, |rng| one(rng, &["06:00", "08:30", "22:15"])),
        until: maybe(rng, |rng| one(rng, &["07:59", "08:01", "24:00"])),
        zone: maybe(rng, |rng| one(rng, &["UTC", "+05:30", "-03:00"])),
    };
    let span = |rng: &mut Rng, most: u64| HumanDuration::from_secs(rng.u64(1..most));
    let mut when = WhenFile::default();
    while when == WhenFile::default() {
        when = WhenFile {
            client: maybe(rng, |rng| some(rng, &["10.0.0.0/8", "192.0.2.7"], 1, 2)),
            from: maybe(rng, |_| EARLIER.to_owned()),
            until: maybe(rng, |_| LATER.to_owned()),
            hours: maybe(rng, |rng| (0..rng.usize(1..=2)).map(|_| window(rng)).collect()),
            certificate_lifetime: maybe(rng, |rng| LifetimeFile {
                at_least: Some(span(rng, 100_000)),
                at_most: maybe(rng, |rng| HumanDuration::from_secs(100_000 + rng.u64(1..100_000))),
            }),
            min_tls_version: maybe(rng, |rng| if rng.bool() { TlsVersion::Tls12 } else { TlsVersion::Tls13 }),
        };
    }
    when
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
    const CAPTURED: &[&str] = &["${team}/**", "a/${team}", "x-${team}/*", "${team}"];
    const ACTIONS: [ActionName; 5] =
        [ActionName::Pull, ActionName::Push, ActionName::Overwrite, ActionName::MountFrom, ActionName::Delete];
    let only_catalog = rng.u8(0..10) == 0;
    let mut actions: Vec<_> = ACTIONS.into_iter().filter(|_| rng.bool()).collect();
    if actions.is_empty() {
        actions.push(ActionName::Pull);
    }
    let can_be_tagged = !actions.contains(&ActionName::Pull) && !actions.contains(&ActionName::MountFrom);
    if only_catalog {
        actions = vec![ActionName::Catalog];
    } else if rng.u8(0..5) == 0 {
        actions.push(ActionName::Catalog);
    }
    let can_be_tagged = can_be_tagged && !actions.contains(&ActionName::Catalog);
    let captures = rng.u8(0..4) == 0;
    let subjects = match captures {
        true => some(rng, &["c0", "c1"], 1, 2),
        false if rng.u8(0..3) > 0 => vec!["any".to_owned()],
        false => some(rng, &["g0", "g1", "g2", "c0"], 1, 2),
    };
    RuleFile {
        name,
        subjects,
        repositories: (!only_catalog).then(|| some(rng, if captures { CAPTURED } else { PATTERNS }, 1, 3)),
        actions,
        effect: if rng.u8(0..3) == 0 { Effect::Deny } else { Effect::Allow },
        tags: (can_be_tagged && rng.bool()).then(|| some(rng, &["v*", "*", "latest", "*-rc*"], 1, 2)),
        when: if rng.u8(0..6) == 0 { Some(random_when(rng)) } else { None },
    }
}

fn random_immutable(rng: &mut Rng) -> ImmutableTagsFile {
    ImmutableTagsFile {
        repositories: some(rng, &["**", "a/**", "*/b", "ab"], 1, 2),
        tags: some(rng, &["v*", "latest", "*"], 1, 2),
        except: some(rng, &["*-rc*", "dev"], 0, 1),
    }
}

pub(super) fn random_policy(rng: &mut Rng) -> PolicyFile {
    let group = |rng: &mut Rng| (0..rng.usize(1..=2)).map(|_| random_selector(rng)).collect::<Vec<_>>();
    let capturing = |rng: &mut Rng| (0..rng.usize(1..=2)).map(|_| capturing_selector(rng)).collect::<Vec<_>>();
    let mut groups: BTreeMap<_, _> = ["g0", "g1", "g2"].into_iter().map(|name| (name.to_owned(), group(rng))).collect();
    groups.extend(["c0", "c1"].into_iter().map(|name| (name.to_owned(), capturing(rng))));
    // Many rules with the same beginning are kept in another way than few.
    let most = if rng.u8(0..25) == 0 { 250 } else { 8 };
    let rules = (0..rng.usize(0..=most)).map(|i| random_rule(rng, format!("r{i}"))).collect();
    let immutable_tags = (0..rng.usize(0..=1)).map(|_| random_immutable(rng)).collect();
    PolicyFile { groups, rules, immutable_tags, ..PolicyFile::default() }
}

pub(super) fn random_route(rng: &mut Rng) -> Route {
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
