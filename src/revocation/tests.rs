use super::testing::*;
use super::*;
use crate::identity::PathCertificate;
use crate::identity::testing::{SHA1_RSA, TestCertificate, algorithm, basic_constraints_ca, common_name, extension};
use crate::identity::testing::{key_usage, name, rsa_spki};

mod deltas;
mod faults;
mod memory;
mod model;
mod scopes;

/// A control plane that trusts `authorities`, at a settable time.
struct Plane {
    sources: Sources,
    authorities: Vec<TestCertificate>,
    now: i64,
}

impl Plane {
    fn new() -> Self {
        Self { sources: Sources::new(SETTINGS), authorities: vec![TestCertificate::authority()], now: NOW }
    }

    fn update(&mut self, inputs: &[(&str, Result<Vec<u8>, &str>)]) -> (Index, Vec<SourceReport>) {
        let inputs = inputs
            .iter()
            .map(|(key, bytes)| (key, bytes.clone().map_err(str::to_owned)))
            .map(|(key, bytes)| SourceInput { key: (*key).to_owned(), bytes, issuer: None });
        let issuers: Vec<_> = self.authorities.iter().map(issuer).collect();
        self.sources.update(inputs, &issuers, self.now, &verify)
    }

    /// Reads one source; the kind of its only fault, if there is one.
    fn read(&mut self, bytes: Vec<u8>) -> (Index, Option<&'static str>) {
        let (index, reports) = self.update(&[("ca.crl", Ok(bytes))]);
        let [report] = reports.as_slice() else { panic!("one report: {reports:?}") };
        assert!(report.faults.len() <= 1, "{report:?}");
        (index, report.faults.first().map(CrlFault::as_str))
    }
}

fn client(serial: &[u8]) -> Vec<PathCertificate> {
    path(serial, &[TestCertificate::authority()])
}

fn verdict(index: &Index, path: &[PathCertificate], now: i64) -> &'static str {
    index.check(path, now).err().map_or("permitted", |refusal| refusal.as_str())
}

fn fault_of(crl: &TestCrl) -> &'static str {
    Plane::new().read(crl.der()).1.unwrap_or("none")
}

fn pem(lists: &[TestCrl]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for list in lists {
        text.extend(b"-----BEGIN X509 CRL-----\n");
        for group in list.der().chunks(3) {
            let octets: [u8; 3] = std::array::from_fn(|i| group.get(i).copied().unwrap_or(0));
            let bits = u32::from_be_bytes([0, octets[0], octets[1], octets[2]]);
            for digit in 0..4 {
                let value = (bits >> (18 - 6 * digit) & 0x3f) as usize;
                text.push(if digit <= group.len() { DIGITS[value] } else { b'=' });
            }
        }
        text.extend(b"\n-----END X509 CRL-----\n");
    }
    text
}

#[test]
fn the_revoked_are_refused_and_others_are_not() {
    let (index, fault) = Plane::new().read(TestCrl::new(1, &[&[0x07], &[0x09]]).der());
    assert_eq!(fault, None);
    assert_eq!(index.entries(), 2);
    let refusal = index.check(&client(&[0x07]), NOW).unwrap_err();
    assert_eq!(refusal.to_string(), "certificate of CN=ci-7 with serial 07 is revoked (unspecified)");
    assert_eq!(verdict(&index, &client(&[0x08]), NOW), "permitted");
}

#[test]
fn without_sources_everybody_is_permitted_and_without_a_list_nobody() {
    assert_eq!(verdict(&Index::disabled(), &client(&[7]), NOW), "permitted");
    assert_eq!(Index::disabled().permits_until(&client(&[7])), i64::MAX);
    let mut plane = Plane::new();
    assert_eq!(verdict(&plane.update(&[]).0, &client(&[7]), NOW), "no_list");
    plane.sources.set_settings(Settings { freshness: Freshness::Optional, ..SETTINGS });
    assert_eq!(verdict(&plane.update(&[]).0, &client(&[7]), NOW), "permitted");
    assert_eq!(verdict(&plane.update(&[]).0, &[], NOW), "no_path");
}

#[test]
fn a_list_counts_until_next_update_grace_and_skew() {
    let mut plane = Plane::new();
    plane.sources.set_settings(Settings { grace: Duration::from_hours(1), ..SETTINGS });
    let index = plane.read(TestCrl::new(1, &[&[9]]).der()).0;
    let until = NOW + DAY + 3600 + 60;
    assert_eq!(index.permits_until(&client(&[7])), until);
    assert_eq!(verdict(&index, &client(&[7]), until), "permitted");
    assert_eq!(verdict(&index, &client(&[7]), until + 1), "stale");
    assert_eq!(verdict(&index, &client(&[9]), until + 1), "revoked", "revoked is revoked");
}

#[test]
fn intermediates_are_asked_about_and_anchors_are_not() {
    let root =
        TestCertificate { subject: common_name("Root"), spki: rsa_spki(2048, 3), ..TestCertificate::authority() };
    let intermediate = TestCertificate { serial: vec![0x55], ..TestCertificate::authority() };
    let path = path(&[7], &[intermediate, root]);
    let mut plane = Plane::new();
    plane.authorities.push(TestCertificate {
        subject: common_name("Root"),
        spki: rsa_spki(2048, 3),
        ..TestCertificate::authority()
    });
    let of_root = |serials: &[&[u8]]| TestCrl::of(&plane.authorities[1], 1, serials).der();
    let (revoking, empty) = (of_root(&[&[0x55], &[0x01]]), of_root(&[]));
    let ours = TestCrl::new(1, &[]).der();
    let (index, _) = plane.update(&[("ca", Ok(ours.clone())), ("root", Ok(empty))]);
    assert_eq!(verdict(&index, &path, NOW), "permitted");
    let (index, _) = plane.update(&[("ca", Ok(ours.clone())), ("root", Ok(revoking.clone()))]);
    assert_eq!(verdict(&index, &path, NOW), "revoked");
    plane.sources.set_settings(Settings { check: Check::Leaf, ..SETTINGS });
    let (index, _) = plane.update(&[("ca", Ok(ours)), ("root", Ok(revoking))]);
    assert_eq!(verdict(&index, &path, NOW), "permitted");
}

#[test]
fn issuers_of_one_name_are_told_apart_by_key() {
    let twin = || TestCertificate { spki: rsa_spki(2048, 9), ..TestCertificate::authority() };
    let mut plane = Plane::new();
    plane.authorities.push(twin());
    let lists = pem(&[TestCrl::new(1, &[&[1]]), TestCrl::of(&twin(), 1, &[&[2]])]);
    let (index, fault) = plane.read(lists);
    assert_eq!(fault, None);
    assert_eq!(verdict(&index, &client(&[1]), NOW), "revoked");
    assert_eq!(verdict(&index, &client(&[2]), NOW), "permitted");
    assert_eq!(verdict(&index, &path(&[1], &[twin()]), NOW), "permitted");
    assert_eq!(verdict(&index, &path(&[2], &[twin()]), NOW), "revoked");
}

#[test]
fn an_issuer_may_spell_its_name_otherwise() {
    let list = TestCrl::new(1, &[&[7]]).with(|crl| crl.issuer = name(&[(&[0x55, 0x04, 0x03], 0x13, b"TEST  ca")]));
    assert_eq!(verdict(&Plane::new().read(list.der()).0, &client(&[7]), NOW), "revoked");
}

#[test]
fn version_1_lists_and_lists_without_entries_are_taken() {
    let v1 = TestCrl::new(1, &[&[7]]).with(|crl| (crl.version, crl.extensions) = (None, Vec::new()));
    assert_eq!(fault_of(&v1), "none");
    assert_eq!(fault_of(&TestCrl::new(1, &[])), "none");
    let empty_sequence = TestCrl::new(1, &[]);
    assert_eq!(verdict(&Plane::new().read(empty_sequence.der()).0, &client(&[7]), NOW), "permitted");
}

#[test]
fn what_a_list_may_not_be() {
    let crl = || TestCrl::new(1, &[&[7]]);
    let with_extension =
        |oid: &[u8], critical| crl().with(|crl| crl.extensions.push(extension(oid, critical, &[5, 0])));
    let with_entry = |extensions: &[Vec<u8>]| crl().with(|crl| crl.entries.push(entry(&[8], extensions)));
    let entry_extension = |oid: &[u8]| with_entry(&[extension(oid, true, &[5, 0])]);
    for (list, fault) in [
        (crl().with(|crl| crl.signed_by = rsa_spki(2048, 9)), "bad_signature"),
        (crl().with(|crl| crl.algorithm = algorithm(SHA1_RSA)), "bad_signature"),
        (crl().with(|crl| crl.issuer = common_name("Other CA")), "unknown_issuer"),
        (crl().with(|crl| crl.this_update = "250101000200Z".to_owned()), "not_yet_valid"),
        (crl().with(|crl| crl.next_update = None), "malformed"),
        (crl().with(|crl| crl.next_update = Some("250132000000Z".to_owned())), "malformed"),
        (crl().with(|crl| crl.version = Some(2)), "malformed"),
        (crl().with(|crl| crl.version = None), "malformed"),
        (crl().with(|crl| crl.extensions = vec![crl_number(&[0x80])]), "malformed"),
        (crl().with(|crl| crl.extensions = vec![crl_number(&[1]), crl_number(&[1])]), "malformed"),
        (with_extension(&[0x55, 0x1d, 0x1b], true), "malformed"),
        (with_extension(&[0x55, 0x1d, 0x1c], true), "malformed"),
        (with_extension(&[0x55, 0x1d, 0x1c], false), "malformed"),
        (with_extension(&[0x2a, 0x03], true), "unsupported"),
        (with_extension(&[0x2a, 0x03], false), "none"),
        (entry_extension(&[0x2a, 0x03]), "unsupported"),
        (entry_extension(&[0x55, 0x1d, 0x1d]), "unsupported"),
        (with_entry(&[reason(8)]), "malformed"),
        (with_entry(&[reason(1), reason(1)]), "malformed"),
        (with_entry(&[reason(42)]), "none"),
    ] {
        assert_eq!(fault_of(&list), fault, "{:02x?}", list.extensions);
    }
}

#[test]
fn an_authority_without_crl_sign_signs_no_lists() {
    let mut plane = Plane::new();
    plane.authorities[0].extensions = vec![basic_constraints_ca(), key_usage(0x04)];
    assert_eq!(plane.read(TestCrl::new(1, &[&[7]]).der()).1, Some("unknown_issuer"));
    plane.authorities[0].extensions = vec![basic_constraints_ca()];
    assert_eq!(plane.read(TestCrl::new(1, &[&[7]]).der()).1, None);
}

#[test]
fn a_broken_block_does_not_hold_up_another_issuers_revocation() {
    let mut plane = Plane::new();
    let other = || TestCertificate {
        subject: common_name("Other CA"),
        spki: rsa_spki(2048, 4),
        ..TestCertificate::authority()
    };
    plane.authorities.push(other());
    plane.read(pem(&[TestCrl::new(1, &[&[7]]), TestCrl::of(&other(), 1, &[])]));
    let bad = TestCrl::new(2, &[]).with(|crl| crl.signed_by = vec![0]);
    let (index, fault) = plane.read(pem(&[bad, TestCrl::of(&other(), 2, &[&[8]])]));
    assert_eq!(fault, Some("bad_signature"));
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked");
    assert_eq!(verdict(&index, &path(&[8], &[other()]), NOW), "revoked");
}

#[test]
fn of_two_sources_the_newer_list_counts() {
    let mut plane = Plane::new();
    let (old, new) = (TestCrl::new(4, &[&[6], &[7]]).der(), TestCrl::new(5, &[&[7]]).der());
    let (index, reports) = plane.update(&[("a", Ok(new.clone())), ("b", Ok(old.clone()))]);
    assert_eq!(verdict(&index, &client(&[6]), NOW), "permitted", "released by the newer list");
    assert_eq!(
        reports.iter().map(|report| report.lists[0].standing).collect::<Vec<_>>(),
        [Standing::InForce, Standing::Superseded]
    );
    assert!(reports.iter().all(|report| report.faults.is_empty()));
    let (_, reports) = plane.update(&[("a", Ok(new))]);
    assert_eq!(reports.len(), 2);
    assert!(reports[1].lists.is_empty(), "a gone source with an older list has nothing more to say");
    assert_eq!(plane.update(&[("a", Ok(old))]).1.len(), 1);
}

#[test]
fn lists_of_the_same_age_are_united() {
    let lists = [TestCrl::new(4, &[&[6]]).der(), TestCrl::new(4, &[&[7]]).der()];
    let (index, _) = Plane::new().update(&[("a", Ok(lists[0].clone())), ("b", Ok(lists[1].clone()))]);
    assert_eq!(verdict(&index, &client(&[6]), NOW), "revoked");
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked");
    let (index, _) = Plane::new().update(&[("a", Ok(lists[0].clone())), ("b", Ok(lists[0].clone()))]);
    assert_eq!(index.entries(), 1, "the same list twice is one list");
}

#[test]
fn without_numbers_the_later_list_counts() {
    let unnumbered = |this_update: &str, serials: &[&[u8]]| {
        TestCrl::new(1, serials)
            .with(|crl| (crl.this_update, crl.extensions) = (this_update.to_owned(), Vec::new()))
            .der()
    };
    let mut plane = Plane::new();
    assert_eq!(plane.read(unnumbered("241231010000Z", &[&[7]])).1, None);
    assert_eq!(plane.read(unnumbered("241231000000Z", &[])).1, Some("older"));
    let (index, fault) = plane.read(unnumbered("241231020000Z", &[]));
    assert_eq!((fault, verdict(&index, &client(&[7]), NOW)), (None, "permitted"));
}

#[test]
fn an_expired_list_is_better_than_none_and_worse_than_a_valid_one() {
    let expired = || TestCrl::new(9, &[&[7]]).with(|crl| crl.next_update = Some("241231120000Z".to_owned())).der();
    let mut plane = Plane::new();
    let (index, fault) = plane.read(expired());
    assert_eq!(fault, None);
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked");
    assert_eq!(verdict(&index, &client(&[8]), NOW), "stale");
    let valid = TestCrl::new(8, &[]).der();
    let (index, _) = Plane::new().update(&[("a", Ok(expired())), ("b", Ok(valid))]);
    assert_eq!(verdict(&index, &client(&[8]), NOW), "permitted");
}

#[test]
fn a_list_that_comes_too_early_is_taken_when_its_time_has_come() {
    let mut plane = Plane::new();
    let early = TestCrl::new(1, &[&[7]]).with(|crl| crl.this_update = "250101060000Z".to_owned()).der();
    assert_eq!(plane.read(early.clone()).1, Some("not_yet_valid"));
    plane.now += DAY / 4;
    assert_eq!(plane.read(early).1, None);
}

#[test]
fn lists_follow_the_trust_bundle() {
    let mut plane = Plane::new();
    let list = TestCrl::new(1, &[&[7]]).der();
    plane.read(list.clone());
    let authority = plane.authorities.pop().unwrap();
    let (index, fault) = plane.read(list.clone());
    assert_eq!((fault, index.entries()), (Some("unknown_issuer"), 0));
    plane.authorities.push(authority);
    let (index, fault) = plane.read(list);
    assert_eq!((fault, index.entries()), (None, 1));
    plane.sources.retain(|key| key != "ca.crl");
    assert_eq!(plane.update(&[]).0.entries(), 0, "no longer configured");
}

#[test]
fn the_content_hash_tells_what_is_revoked() {
    let hash = |crl: TestCrl| Plane::new().read(crl.der()).0.content_hash();
    let one = hash(TestCrl::new(1, &[&[7]]));
    assert_eq!(one, hash(TestCrl::new(2, &[&[7]]).with(|crl| crl.next_update = Some("250109000000Z".to_owned()))));
    assert_ne!(one, hash(TestCrl::new(1, &[&[8]])));
    assert_eq!(hash(TestCrl::new(1, &[])), Index::disabled().content_hash(), "an empty list revokes nothing");
}

#[test]
fn unchanged_bytes_are_not_verified_again() {
    let issuers = [issuer(&TestCertificate::authority())];
    let calls = std::cell::Cell::new(0);
    let counting = |signed: &SignedData<'_>, spki: &[u8]| {
        calls.set(calls.get() + 1);
        verify(signed, spki)
    };
    let mut sources = Sources::new(SETTINGS);
    for _ in 0..3 {
        let input = SourceInput { key: "ca.crl".to_owned(), bytes: Ok(TestCrl::new(1, &[&[7]]).der()), issuer: None };
        let (index, _) = sources.update(vec![input], &issuers, NOW, &counting);
        assert_eq!(index.entries(), 1);
    }
    assert_eq!(calls.get(), 1);
}

#[test]
fn numbers_are_compared_and_printed_at_any_length() {
    let number = |content: &[u8]| CrlNumber::from_der_content(content).unwrap();
    assert!(number(&[0x00, 0x80]) > number(&[0x7f]));
    assert!(number(&[0x01, 0x00]) > number(&[0x00, 0xff]));
    assert_eq!(number(&[0x10, 0x00]).to_string(), "4096");
    assert_eq!(number(&[0x01; 20]).to_string(), format!("0x{}", "01".repeat(20)));
    assert!(CrlNumber::from_der_content(&[0xff]).is_none());
    assert!(CrlNumber::from_der_content(&[]).is_none());
}
