//! Lists about a part of what their issuer issued.

use super::*;
use crate::identity::der;
use crate::identity::testing::{sequence, tlv};

/// A list of these fields of scope.
fn scoped(number: u8, fields: &[Vec<u8>], serials: &[&[u8]]) -> Vec<u8> {
    TestCrl::new(number, serials).with(|crl| crl.extensions.push(scope(fields))).der()
}

/// The verdict over a client with these distribution points, by these lists.
fn judged(points: &[&[Vec<u8>]], lists: &[Vec<u8>]) -> &'static str {
    let mut client = TestCertificate::client();
    client.extensions.push(distribution_points(points));
    let path = path_of(&client, &[TestCertificate::authority()]);
    let (index, reports) = Plane::new().update_all(lists);
    let faults: Vec<_> = reports.iter().flat_map(|report| &report.faults).collect();
    assert!(faults.is_empty(), "{faults:?}");
    let verdict = verdict(&index, &path, NOW);
    assert_eq!(index.permits_until(&path) >= NOW, verdict == "permitted" || verdict == "revoked");
    verdict
}

impl Plane {
    fn update_all(&mut self, lists: &[Vec<u8>]) -> (Index, Vec<SourceReport>) {
        let names: Vec<_> = (0..lists.len()).map(|number| format!("{number}.crl")).collect();
        let inputs: Vec<_> = names.iter().zip(lists).map(|(name, list)| (name.as_str(), Ok(list.clone()))).collect();
        self.update(&inputs)
    }
}

#[test]
fn what_a_scope_may_not_be() {
    let with = |fields: &[&[u8]]| {
        let fields: Vec<_> = fields.iter().map(|field| field.to_vec()).collect();
        fault_of(&TestCrl::new(1, &[]).with(|crl| crl.extensions.push(scope(&fields))))
    };
    for (fields, fault) in [
        (&[][..], "none"),
        (&[USERS], "none"),
        (&[AUTHORITIES], "none"),
        (&[USERS, COMPROMISE], "none"),
        (&[&at("http://a")], "none"),
        (&[INDIRECT], "unsupported"),
        (&[&at("http://a"), INDIRECT], "unsupported"),
        (&[ATTRIBUTES], "unsupported"),
        (&[USERS, AUTHORITIES], "malformed"),
        (&[USERS, ATTRIBUTES], "malformed"),
        (&[AUTHORITIES, USERS], "malformed"),
        (&[&[0x81, 0x01, 0x00]], "malformed"),
        (&[&[0x81, 0x01, 0x01]], "malformed"),
        (&[&[0x83, 0x01, 0x00]], "malformed"),
        (&[&[0x83, 0x02, 0x07, 0x80]], "malformed"),
        (&[&[0x83, 0x02, 0x05, 0x61]], "malformed"),
        (&[&[0x86, 0x01, 0xff]], "malformed"),
        (&[&tlv(0xa0, &[])], "malformed"),
        (&[&tlv(0xa0, &tlv(0xa0, &[]))], "malformed"),
    ] {
        assert_eq!(with(fields), fault, "{fields:02x?}");
    }
}

#[test]
fn a_list_of_clients_says_nothing_about_authorities() {
    let root =
        || TestCertificate { subject: common_name("Root"), spki: rsa_spki(2048, 3), ..TestCertificate::authority() };
    let intermediate = TestCertificate { serial: vec![0x55], ..TestCertificate::authority() };
    let path = path(&[7], &[intermediate, root()]);
    let of_root =
        |field: &[u8]| TestCrl::of(&root(), 1, &[]).with(|crl| crl.extensions.push(scope(&[field.to_vec()]))).der();
    let ours = |field: &[u8]| scoped(1, &[field.to_vec()], &[]);
    let check = |lists: &[Vec<u8>]| {
        let mut plane = Plane::new();
        plane.authorities.push(root());
        plane.update_all(lists).0.check(&path, NOW)
    };
    assert_eq!(check(&[ours(USERS), of_root(AUTHORITIES)]), Ok(()));
    assert_eq!(
        check(&[ours(USERS), of_root(USERS)]).unwrap_err().to_string(),
        "no revocation list of CN=Root covers the certificate of CN=Test CA (issuing distribution point)"
    );
    let refused = check(&[ours(AUTHORITIES), of_root(AUTHORITIES)]);
    assert_eq!(refused.unwrap_err().as_str(), "uncovered", "the leaf is none of an authority's");
}

#[test]
fn a_list_revokes_whatever_it_names() {
    let list = || [scoped(1, &[AUTHORITIES.to_vec()], &[&[7]])];
    let (index, _) = Plane::new().update_all(&list());
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked", "though it is about authorities");
    assert_eq!(verdict(&index, &client(&[8]), NOW), "uncovered");
    let mut plane = Plane::new();
    plane.sources.set_settings(Settings { freshness: Freshness::Optional, ..SETTINGS });
    let (index, _) = plane.update_all(&list());
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked");
    assert_eq!(verdict(&index, &client(&[8]), NOW), "permitted");
}

#[test]
fn all_reasons_must_be_covered() {
    let (some, others) = (|| scoped(1, &[COMPROMISE.to_vec()], &[]), || scoped(1, &[OTHER_REASONS.to_vec()], &[]));
    assert_eq!(judged(&[], &[some()]), "uncovered");
    assert_eq!(judged(&[], &[others()]), "uncovered");
    assert_eq!(judged(&[], &[some(), others()]), "permitted");
    assert_eq!(judged(&[], &[some(), scoped(1, &[OTHER_REASONS.to_vec()], &[&[7]])]), "revoked");
    let short = TestCrl::new(1, &[]).with(|crl| {
        crl.extensions.push(scope(&[OTHER_REASONS.to_vec()]));
        crl.next_update = Some("250101120000Z".to_owned());
    });
    let (index, _) = Plane::new().update_all(&[some(), short.der()]);
    assert_eq!(index.permits_until(&client(&[7])), NOW + DAY / 2 + 60, "until the first of them runs out");
    assert_eq!(verdict(&index, &client(&[7]), NOW + DAY / 2 + 61), "stale");
}

#[test]
fn a_list_of_a_distribution_point_covers_the_certificates_that_have_it() {
    let (a, b) = (|| at("http://a.example/1.crl"), || at("http://b.example/1.crl"));
    let list = |point: Vec<u8>| scoped(1, &[point], &[]);
    assert_eq!(judged(&[&[a()]], &[list(a())]), "permitted");
    assert_eq!(judged(&[&[a()], &[b()]], &[list(b())]), "permitted", "one of its points is enough");
    assert_eq!(judged(&[&[a()]], &[list(b())]), "uncovered");
    assert_eq!(judged(&[], &[list(a())]), "uncovered", "the certificate has no points");
    assert_eq!(judged(&[&[a()]], &[TestCrl::new(1, &[]).der()]), "permitted", "a full list is about everything");
    assert_eq!(judged(&[&[a()]], &[list(b()), list(a())]), "permitted");
    let (some, others) = (vec![0x81, 0x02, 0x05, 0x60], vec![0x81, 0x03, 0x07, 0x1f, 0x80]);
    let points: &[&[Vec<u8>]] = &[&[a(), some], &[b(), others]];
    assert_eq!(judged(points, &[list(a())]), "uncovered", "there it says only some reasons");
    assert_eq!(judged(points, &[list(a()), list(b())]), "permitted");
    assert_eq!(judged(points, &[scoped(1, &[a(), OTHER_REASONS.to_vec()], &[]), list(b())]), "uncovered");
}

#[test]
fn names_of_points_are_compared_as_names_are() {
    let full = |text: &[u8]| {
        at_directory(&name(&[(&[0x55, 0x04, 0x03], 0x0c, b"Test CA"), (&[0x55, 0x04, 0x0b], 0x13, text)]))
    };
    let relative = || tlv(0xa0, &tlv(0xa1, &sequence(&[tlv(der::OID, &[0x55, 0x04, 0x0b]), tlv(0x0c, b"part 1")])));
    assert_eq!(judged(&[&[relative()]], &[scoped(1, &[full(b"PART  1")], &[])]), "permitted");
    assert_eq!(judged(&[&[full(b"Part 1")]], &[scoped(1, &[relative()], &[])]), "permitted");
    assert_eq!(judged(&[&[full(b"Part 2")]], &[scoped(1, &[relative()], &[])]), "uncovered");
    let at_issuer = || at_directory(&common_name("TEST CA"));
    assert_eq!(
        judged(&[], &[scoped(1, &[at_issuer()], &[])]),
        "permitted",
        "the issuer is a point of every certificate"
    );
}

/// Who names another issuer for a point's lists is not covered by what its own issuer publishes under the point's name.
/// A full list of its own issuer is about everything all the same (RFC 5280 §6.3.3, at the end).
#[test]
fn a_point_with_a_crl_issuer_is_not_the_issuers_own() {
    let a = || at("http://a.example/1.crl");
    for crl_issuer in ["Other CA", "Test CA"] {
        let crl_issuer = || tlv(0xa2, &tlv(0xa4, &common_name(crl_issuer)));
        assert_eq!(judged(&[&[a(), crl_issuer()]], &[scoped(1, &[a()], &[])]), "uncovered");
        assert_eq!(judged(&[&[a(), crl_issuer()]], &[TestCrl::new(1, &[]).der()]), "permitted");
        assert_eq!(judged(&[&[a(), crl_issuer()], &[a()]], &[scoped(1, &[a()], &[])]), "permitted");
        assert_eq!(judged(&[&[crl_issuer()]], &[scoped(1, &[a()], &[])]), "uncovered");
    }
}

#[test]
fn scopes_are_united_and_each_has_its_own_numbers() {
    let users = |number, serials: &[&[u8]]| scoped(number, &[USERS.to_vec()], serials);
    let authorities = |number, serials: &[&[u8]]| scoped(number, &[AUTHORITIES.to_vec()], serials);
    let mut plane = Plane::new();
    let (index, reports) = plane.update_all(&[users(9, &[&[7]]), authorities(2, &[&[8]])]);
    assert_eq!((index.entries(), reports.len()), (2, 2));
    assert_eq!(verdict(&index, &client(&[8]), NOW), "revoked");
    assert!(reports.iter().all(|report| report.faults.is_empty() && report.lists[0].standing == Standing::InForce));
    let texts: Vec<_> = reports.iter().map(|report| report.lists[0].scope.to_string()).collect();
    let expected = [
        "certificates of clients and servers (onlyContainsUserCerts)",
        "certificates of authorities (onlyContainsCACerts)",
    ];
    assert_eq!(texts, expected);
    let (index, reports) = plane.update_all(&[users(8, &[]), authorities(3, &[])]);
    assert_eq!(reports[0].faults.iter().map(CrlFault::as_str).collect::<Vec<_>>(), ["older"]);
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked");
    assert_eq!(verdict(&index, &client(&[8]), NOW), "permitted", "released by the newer list of its scope");
}

/// An authority that goes from parts to one list, or moves a distribution point: the old part is let go only when a later
/// list about everything is there.
#[test]
fn a_part_is_forgotten_only_for_a_later_list_about_everything() {
    let list = |fields: &[Vec<u8>], time: &str, serials: &[&[u8]]| {
        let list = TestCrl::new(1, serials).with(|crl| {
            crl.this_update = time.to_owned();
            crl.extensions.extend((!fields.is_empty()).then(|| scope(fields)));
        });
        list.der()
    };
    let mut plane = Plane::new();
    assert_eq!(plane.read(list(&[at("http://a")], "241231010000Z", &[&[7]])).1, None);
    let (index, _) = plane.read(list(&[at("http://b")], "241231020000Z", &[]));
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked", "another part says nothing about it");
    let (index, _) = plane.read(list(&[], "241231003000Z", &[]));
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked", "an earlier full list doesn't know of it");
    let (index, fault) = plane.read(list(&[], "241231030000Z", &[]));
    assert_eq!((fault, verdict(&index, &client(&[7]), NOW)), (None, "permitted"));
    assert_eq!(index.entries(), 0);
}

#[test]
fn a_source_may_say_whose_lists_it_holds() {
    let other = || TestCertificate {
        subject: name(&[(&[0x55, 0x04, 0x03], 0x0c, b"Other CA"), (&[0x55, 0x04, 0x0a], 0x0c, b"Example")]),
        spki: rsa_spki(2048, 4),
        ..TestCertificate::authority()
    };
    let issuers = [issuer(&TestCertificate::authority()), issuer(&other())];
    let mut sources = Sources::new(SETTINGS);
    let mut read = |expected: Option<&str>, list: &TestCrl| {
        let input = SourceInput { key: "a".to_owned(), bytes: Ok(list.der()), issuer: expected.map(str::to_owned) };
        let (index, reports) = sources.update([input], &issuers, NOW, &verify);
        (index.entries(), reports[0].faults.first().map(ToString::to_string))
    };
    let ours = TestCrl::new(1, &[&[7]]);
    assert_eq!(read(Some("cn = test ca"), &ours), (1, None));
    let expected = "it is a list of CN=Test CA, and this source should hold those of CN=Other CA, O=Example";
    let refused = (1, Some(expected.to_owned()));
    assert_eq!(read(Some("CN=Other CA, O=Example"), &ours), refused, "the same bytes are looked at again");
    assert_eq!(read(Some("CN=Other CA,O=Example"), &TestCrl::of(&other(), 1, &[&[8]])), (2, None));
    assert_eq!(read(None, &ours), (2, None));
}
