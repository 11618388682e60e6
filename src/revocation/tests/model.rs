//! The index against plain sets, over lists of random scopes, numbers and entries.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Serial numbers of the tests: few, so that lists meet.
const SERIALS: u8 = 12;

/// The scopes that lists have here, by the kinds of certificates and the reasons they cover.
const SCOPES: u8 = 7;

/// What a list of a scope covers: reasons 0 and 1 stand for the compromises and for all others.
fn covers(scope: u8, client: Kind) -> &'static [usize] {
    match (scope, client) {
        (0 | 6, _) | (1, Kind::User | Kind::UserAtPoint) | (2, Kind::Authority) | (5, Kind::UserAtPoint) => &[0, 1],
        (3, _) => &[0],
        (4, _) => &[1],
        _ => &[],
    }
}

fn fields(scope: u8) -> Vec<Vec<u8>> {
    match scope {
        1 => vec![USERS.to_vec()],
        2 => vec![AUTHORITIES.to_vec()],
        3 => vec![COMPROMISE.to_vec()],
        4 => vec![OTHER_REASONS.to_vec()],
        5 => vec![at("http://crl.example.com/5.crl")],
        6 => vec![at_directory(&common_name("Test CA"))],
        _ => Vec::new(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    UserAtPoint,
    Authority,
}

/// A list as plain values. A delta says `false` of what it takes back.
#[derive(Debug, Clone)]
struct Plain {
    scope: u8,
    number: u8,
    base: Option<u8>,
    expired: bool,
    entries: BTreeMap<u8, bool>,
}

impl Plain {
    fn random(numbers: &mut Numbers, is_delta: bool) -> Self {
        let number = 2 + numbers.below(6);
        let mut entries = BTreeMap::new();
        for serial in 1..=SERIALS {
            match numbers.below(6) {
                0 => drop(entries.insert(serial, true)),
                1 if is_delta => drop(entries.insert(serial, false)),
                _ => {}
            }
        }
        let base = is_delta.then(|| 1 + numbers.below(number));
        Self { scope: numbers.below(SCOPES), number, base, expired: numbers.below(6) == 0, entries }
    }

    fn der(&self) -> Vec<u8> {
        let list = TestCrl::new(self.number, &[]).with(|crl| {
            crl.extensions.extend(self.base.map(delta_of));
            let fields = fields(self.scope);
            crl.extensions.extend((!fields.is_empty()).then(|| scope(&fields)));
            crl.next_update = Some(if self.expired { "241231120000Z" } else { "250102000000Z" }.to_owned());
            let code = |revoked: &bool| if *revoked { 1 } else { 8 };
            crl.entries = self.entries.iter().map(|(s, revoked)| entry(&[*s], &[reason(code(revoked))])).collect();
        });
        list.der()
    }
}

/// What the lists of one scope say together.
#[derive(Debug, Default)]
struct Said {
    revoked: BTreeSet<u8>,
    is_fresh: bool,
}

/// RFC 5280 §5.2.4 and §6.3 in the plainest form.
fn said(lists: &[Plain], scope: u8) -> Option<Said> {
    let bases = || lists.iter().filter(|list| list.scope == scope && list.base.is_none());
    let rank = |list: &Plain| (!list.expired, list.number);
    let best = bases().map(rank).max()?;
    let mut said = Said { is_fresh: best.0, ..Said::default() };
    for base in bases().filter(|list| rank(list) == best) {
        said.revoked.extend(base.entries.keys());
    }
    let mut number = best.1;
    loop {
        let fits = |list: &&Plain| list.scope == scope && list.base.is_some_and(|base| base <= number);
        let newest = lists.iter().filter(fits).map(|list| list.number).filter(|next| *next > number).max();
        let Some(next) = newest else { return Some(said) };
        let applied: Vec<_> = lists.iter().filter(fits).filter(|list| list.number == next).collect();
        for taken_back in applied.iter().flat_map(|delta| &delta.entries).filter(|(_, revoked)| !**revoked) {
            said.revoked.remove(taken_back.0);
        }
        said.revoked.extend(applied.iter().flat_map(|d| &d.entries).filter(|(_, revoked)| **revoked).map(|(s, _)| s));
        said.is_fresh |= applied.iter().any(|delta| !delta.expired);
        number = next;
    }
}

/// What should be said of a certificate.
fn expected(lists: &[Plain], serial: u8, kind: Kind) -> &'static str {
    let said: Vec<_> = (0..SCOPES).filter_map(|scope| Some((scope, said(lists, scope)?))).collect();
    if said.iter().any(|(_, said)| said.revoked.contains(&serial)) {
        return "revoked";
    }
    let covered = |fresh: bool| {
        let lists = said.iter().filter(|(_, said)| said.is_fresh || !fresh);
        lists.flat_map(|(scope, _)| covers(*scope, kind)).collect::<BTreeSet<_>>().len() == 2
    };
    match () {
        () if said.is_empty() => "no_list",
        () if covered(true) => "permitted",
        () if covered(false) => "stale",
        () => "uncovered",
    }
}

/// The part of a path that is asked about: a certificate of `CN=Test CA` with this serial number.
fn asked(serial: u8, kind: Kind) -> Vec<PathCertificate> {
    let authority = TestCertificate::authority();
    let subject = TestCertificate { serial: vec![serial], ..TestCertificate::client() };
    match kind {
        Kind::User => path_of(&subject, &[authority]),
        Kind::UserAtPoint => {
            let mut subject = subject;
            subject.extensions.push(distribution_points(&[&fields(5)]));
            path_of(&subject, &[authority])
        }
        Kind::Authority => {
            let subject =
                TestCertificate { extensions: vec![basic_constraints_ca()], spki: rsa_spki(2048, 5), ..subject };
            path_of(&TestCertificate::client(), &[subject, authority]).split_off(1)
        }
    }
}

#[test]
fn the_index_says_what_plain_sets_say() {
    let asked: Vec<_> = [Kind::User, Kind::UserAtPoint, Kind::Authority]
        .into_iter()
        .flat_map(|kind| (1..=SERIALS).map(move |serial| (serial, kind, asked(serial, kind))))
        .collect();
    let mut numbers = Numbers(4);
    let mut met = BTreeSet::new();
    for world in 0..400 {
        let bases = 1 + numbers.below(6);
        let mut lists: Vec<_> = (0..bases).map(|_| Plain::random(&mut numbers, false)).collect();
        lists.extend((0..numbers.below(8)).map(|_| Plain::random(&mut numbers, true)));
        if world % 3 > 0 {
            // Fewer scopes, so that more lists are of the same.
            lists.iter_mut().for_each(|list| list.scope %= 2);
        }
        let names: Vec<_> = (0..lists.len()).map(|number| format!("{number}.crl")).collect();
        let inputs: Vec<_> = names.iter().zip(&lists).map(|(name, list)| (name.as_str(), Ok(list.der()))).collect();
        let mut plane = Plane::new();
        for round in 0..2 {
            let (index, reports) = plane.update(&inputs);
            assert!(reports.iter().all(|report| report.faults.is_empty()), "world {world}: {reports:?}");
            for (serial, kind, path) in &asked {
                let (found, expected) = (verdict(&index, path, NOW), expected(&lists, *serial, *kind));
                assert_eq!(found, expected, "world {world}, round {round}: {serial} {kind:?} in {lists:#?}");
                met.insert(found);
                if found == "permitted" {
                    assert!(index.permits_until(path) >= NOW);
                } else if found != "revoked" {
                    assert!(index.permits_until(path) < NOW);
                }
            }
        }
    }
    assert_eq!(
        met,
        BTreeSet::from(["no_list", "permitted", "revoked", "stale", "uncovered"]).into_iter().skip(1).collect()
    );
}

/// One file, rewritten again and again, rightly and wrongly: what counts is the newest list that was ever good.
#[test]
fn the_newest_good_list_counts_whatever_comes_after_it() {
    let mut numbers = Numbers(5);
    for history in 0..60 {
        let mut plane = Plane::new();
        let mut newest: Option<(u8, BTreeSet<u8>)> = None;
        for step in 0..30 {
            let number = 1 + numbers.below(20);
            let serials: BTreeSet<u8> = (1..=SERIALS).filter(|_| numbers.below(3) == 0).collect();
            let contents: Vec<_> = serials.iter().map(|serial| [*serial]).collect();
            let list = TestCrl::new(number, &contents.iter().map(<[u8; 1]>::as_slice).collect::<Vec<_>>());
            let bytes = match numbers.below(8) {
                0 => Ok(list.with(|crl| crl.signed_by = vec![0]).der()),
                1 => Err("permission denied"),
                2 => {
                    let mut der = list.der();
                    der.truncate(usize::from(numbers.below(200)));
                    Ok(der)
                }
                3 => {
                    let mut der = list.der();
                    let at = usize::from(numbers.below(100));
                    der[at] ^= 1 << numbers.below(8);
                    // A list that is still in order would be another one, rightly signed by this test's rules.
                    Ok(if CrlSummary::read(&der).is_ok() { Vec::new() } else { der })
                }
                _ => {
                    if newest.as_ref().is_none_or(|(newest, _)| *newest <= number) {
                        newest = Some((number, serials));
                    }
                    Ok(list.der())
                }
            };
            let (index, _) = plane.update(&[("ca.crl", bytes)]);
            for serial in 1..=SERIALS {
                let expected = match &newest {
                    None => "no_list",
                    Some((_, serials)) if serials.contains(&serial) => "revoked",
                    Some(_) => "permitted",
                };
                assert_eq!(verdict(&index, &client(&[serial]), NOW), expected, "history {history}, step {step}");
            }
        }
    }
}
