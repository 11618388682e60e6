//! Deltas, with and without the list that they change.

use super::*;

/// A delta from `base` to `number` with these entries: a serial number and a reason code.
pub(super) fn delta(base: u8, number: u8, entries: &[(u8, u8)]) -> TestCrl {
    TestCrl::new(number, &[]).with(|crl| {
        crl.extensions.push(delta_of(base));
        crl.entries = entries.iter().map(|(serial, code)| entry(&[*serial], &[reason(*code)])).collect();
    })
}

pub(super) const REMOVED: u8 = 8;

impl Plane {
    /// Reads a full list and a delta, each from a source of its own.
    fn read_pair(&mut self, base: &TestCrl, delta: &TestCrl) -> (Index, Vec<Standing>) {
        let (index, reports) = self.update(&[("base", Ok(base.der())), ("delta", Ok(delta.der()))]);
        assert!(reports.iter().all(|report| report.faults.is_empty()), "{reports:?}");
        (index, reports.iter().flat_map(|report| &report.lists).map(|list| list.standing).collect())
    }
}

fn verdicts(index: &Index, serials: &[u8]) -> Vec<&'static str> {
    serials.iter().map(|serial| verdict(index, &client(&[*serial]), NOW)).collect()
}

#[test]
fn a_delta_adds_and_takes_back() {
    let base = TestCrl::new(5, &[&[1], &[2]]);
    let changes = delta(4, 7, &[(2, REMOVED), (3, 6), (4, REMOVED), (1, 1)]);
    let (index, standings) = Plane::new().read_pair(&base, &changes);
    assert_eq!(standings, [Standing::InForce; 2]);
    assert_eq!(verdicts(&index, &[1, 2, 3, 4, 5]), ["revoked", "permitted", "revoked", "permitted", "permitted"]);
    let refusal = index.check(&client(&[1]), NOW).unwrap_err();
    assert!(refusal.to_string().ends_with("(keyCompromise)"), "the delta's word goes first: {refusal}");
}

#[test]
fn a_delta_without_its_base_waits_and_is_no_full_list() {
    let changes = || delta(5, 7, &[(3, 1)]);
    let mut plane = Plane::new();
    let (index, reports) = plane.update(&[("delta", Ok(changes().der()))]);
    assert!(reports[0].faults.is_empty() && reports[0].lists[0].standing == Standing::Waiting, "{reports:?}");
    assert_eq!(verdicts(&index, &[3, 8]), ["no_list"; 2]);
    let (index, standings) = plane.read_pair(&TestCrl::new(4, &[&[1]]), &changes());
    assert_eq!((standings, index.entries()), (vec![Standing::InForce, Standing::Waiting], 1), "between them is a gap");
    assert_eq!(verdicts(&index, &[1, 3]), ["revoked", "permitted"]);
    let (index, standings) = plane.read_pair(&TestCrl::new(6, &[&[1]]), &changes());
    assert_eq!(standings, [Standing::InForce; 2], "it was kept, and its base has come");
    assert_eq!(verdicts(&index, &[1, 3]), ["revoked"; 2]);
}

#[test]
fn a_delta_fits_a_base_of_its_scope_only() {
    let base = TestCrl::new(5, &[]).with(|crl| crl.extensions.push(scope(&[USERS.to_vec()])));
    let (index, standings) = Plane::new().read_pair(&base, &delta(5, 6, &[(3, 1)]));
    assert_eq!(standings, [Standing::InForce, Standing::Waiting]);
    assert_eq!(verdicts(&index, &[3]), ["permitted"]);
    let fitting = delta(5, 6, &[(3, 1)]).with(|crl| crl.extensions.push(scope(&[USERS.to_vec()])));
    let (index, standings) = Plane::new().read_pair(&base, &fitting);
    assert_eq!((standings, verdicts(&index, &[3])), (vec![Standing::InForce; 2], vec!["revoked"]));
}

#[test]
fn a_newer_base_makes_deltas_obsolete() {
    let changes = || delta(5, 6, &[(2, 1), (1, REMOVED)]);
    let mut plane = Plane::new();
    plane.read_pair(&TestCrl::new(5, &[&[1]]), &changes());
    let (index, standings) = plane.read_pair(&TestCrl::new(6, &[&[1]]), &changes());
    assert_eq!(standings, [Standing::InForce, Standing::Superseded]);
    assert_eq!((index.entries(), verdicts(&index, &[1, 2])), (1, vec!["revoked", "permitted"]));
    let (_, reports) = plane.update(&[("base", Ok(TestCrl::new(6, &[&[1]]).der()))]);
    assert!(reports[1].lists.is_empty(), "an obsolete delta is forgotten with its file: {reports:?}");
}

/// Nothing that a delta revoked is forgotten while its base is in force, whatever becomes of the delta.
#[test]
fn what_a_delta_revoked_stays_revoked() {
    let base = || TestCrl::new(5, &[&[1]]).der();
    let first = || delta(5, 7, &[(2, 1)]);
    type Now = Option<Result<Vec<u8>, &'static str>>;
    let gone: Vec<(&str, Now)> = vec![
        ("deleted", None),
        ("unreadable", Some(Err("permission denied"))),
        ("empty", Some(Ok(Vec::new()))),
        ("truncated", Some(Ok(first().der()[..60].to_vec()))),
        ("older", Some(Ok(delta(5, 6, &[]).der()))),
        ("forged", Some(Ok(delta(5, 8, &[]).with(|crl| crl.signed_by = vec![0]).der()))),
        ("a later one behind a gap", Some(Ok(delta(8, 9, &[]).der()))),
        ("one of the same number from a later list", Some(Ok(delta(6, 7, &[]).der()))),
    ];
    for (what, now) in gone {
        let mut plane = Plane::new();
        plane.update(&[("base", Ok(base())), ("delta", Ok(first().der()))]);
        let mut inputs = vec![("base", Ok(base()))];
        inputs.extend(now.map(|bytes| ("delta", bytes)));
        for _ in 0..2 {
            let (index, _) = plane.update(&inputs);
            assert_eq!(verdicts(&index, &[1, 2, 3]), ["revoked", "revoked", "permitted"], "{what}");
        }
        let (index, _) = plane.update(&[("base", Ok(base())), ("delta", Ok(delta(5, 9, &[]).der()))]);
        assert_eq!(verdicts(&index, &[1, 2]), ["revoked", "permitted"], "{what}: a newer one from the same base");
    }
}

#[test]
fn deltas_lead_on_from_one_another() {
    let base = || TestCrl::new(5, &[&[1]]);
    let first = || delta(5, 7, &[(2, 6), (3, 6)]);
    let next = || delta(7, 9, &[(2, REMOVED), (4, 1)]);
    let expected = ["revoked", "permitted", "revoked", "revoked"];
    let mut plane = Plane::new();
    plane.read_pair(&base(), &first());
    for _ in 0..2 {
        let (index, standings) = plane.read_pair(&base(), &next());
        assert_eq!(standings, [Standing::InForce; 3], "the first is needed still");
        assert_eq!(verdicts(&index, &[1, 2, 3, 4]), expected);
    }
    let both = [("base", Ok(base().der())), ("delta", Ok(pem(&[first(), next()])))];
    for mut plane in [Plane::new(), plane] {
        let (index, reports) = plane.update(&both);
        assert!(reports.iter().all(|report| report.faults.is_empty()), "beside a newer one it is no rollback");
        assert_eq!(verdicts(&index, &[1, 2, 3, 4]), expected, "in one file");
    }
}

#[test]
fn waiting_deltas_that_are_gone_are_bounded() {
    let mut plane = Plane::new();
    let base = || ("base", Ok(TestCrl::new(1, &[]).der()));
    for number in (10..60).step_by(2) {
        plane.update(&[base(), ("delta", Ok(delta(number, number + 1, &[]).der()))]);
    }
    let (_, reports) = plane.update(&[base()]);
    assert_eq!(reports[1].lists.len(), 8);
    assert_eq!(reports[1].lists.last().unwrap().number.unwrap().to_string(), "59");
}

/// RFC 5280 §5.2.4: a list with a delta applied has the delta's dates. A delta that runs out leaves its base as it was.
#[test]
fn a_delta_prolongs_its_base_and_never_shortens_it() {
    let until = |time: &str, crl: TestCrl| crl.with(|crl| crl.next_update = Some(time.to_owned()));
    let base = || TestCrl::new(5, &[]);
    let (index, _) = Plane::new().read_pair(&base(), &until("250103000000Z", delta(5, 6, &[])));
    assert_eq!(index.permits_until(&client(&[7])), NOW + 2 * DAY + 60);
    let (index, _) = Plane::new().read_pair(&base(), &until("250101010000Z", delta(5, 6, &[(2, 1)])));
    assert_eq!(index.permits_until(&client(&[7])), NOW + DAY + 60);
    assert_eq!(verdict(&index, &client(&[2]), NOW + DAY), "revoked");
    let expired = || until("241231120000Z", base());
    let (index, _) = Plane::new().read_pair(&expired(), &delta(5, 6, &[]));
    assert_eq!(verdicts(&index, &[7]), ["permitted"]);
    let (index, _) = Plane::new().read_pair(&expired(), &delta(6, 7, &[]));
    assert_eq!(verdicts(&index, &[7]), ["stale"], "it doesn't fit");
}

#[test]
fn what_a_delta_may_not_be() {
    let without_number = TestCrl::new(1, &[]).with(|crl| crl.extensions = vec![delta_of(1)]);
    assert_eq!(fault_of(&without_number), "malformed");
    assert_eq!(fault_of(&delta(6, 5, &[])), "malformed");
    assert_eq!(fault_of(&delta(5, 5, &[])), "none", "some authorities write one with each full list");
    assert_eq!(fault_of(&TestCrl::new(1, &[]).with(|crl| crl.entries = vec![entry(&[8], &[reason(8)])])), "malformed");
    assert_eq!(fault_of(&delta(5, 6, &[]).with(|crl| crl.signed_by = vec![0])), "bad_signature");
}

/// A serial number twice in one list: whatever their order, the entry that revokes counts.
#[test]
fn an_entry_that_revokes_goes_before_one_that_takes_back() {
    for code in [0, 1, 6, 9, 10] {
        for entries in [[(1, code), (1, REMOVED)], [(1, REMOVED), (1, code)]] {
            let (index, _) = Plane::new().read_pair(&TestCrl::new(5, &[&[1]]), &delta(5, 6, &entries));
            assert_eq!(verdicts(&index, &[1]), ["revoked"], "{entries:?}");
        }
    }
}

#[test]
fn the_content_hash_follows_deltas() {
    let hash = |changes: &TestCrl| Plane::new().read_pair(&TestCrl::new(5, &[&[1]]), changes).0.content_hash();
    let plain = Plane::new().read(TestCrl::new(5, &[&[1]]).der()).0.content_hash();
    assert_eq!(hash(&delta(5, 6, &[])), plain, "an empty delta changes nothing");
    assert_ne!(hash(&delta(5, 6, &[(2, 1)])), plain);
    assert_ne!(hash(&delta(5, 6, &[(1, REMOVED)])), plain);
}
