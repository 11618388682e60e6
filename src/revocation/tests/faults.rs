//! Sources gone bad, and lists that look odd but are good.

use super::*;

/// Every way a source can go bad while its last good list is valid: nothing is forgotten, nobody is locked out.
#[test]
fn a_bad_source_leaves_the_last_good_list_in_force() {
    let good = TestCrl::new(5, &[&[7]]);
    let with_extension =
        |extension: &[u8]| TestCrl::new(6, &[]).with(|crl| crl.extensions.push(extension.to_vec())).der();
    let mut bad: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"not a list".to_vec(),
        TestCrl::new(4, &[]).der(),
        TestCrl::new(6, &[]).with(|crl| crl.signed_by = rsa_spki(2048, 9)).der(),
        TestCrl::new(6, &[]).with(|crl| crl.issuer = common_name("Other CA")).der(),
        TestCrl::new(6, &[]).with(|crl| crl.next_update = Some("241231120000Z".to_owned())).der(),
        TestCrl::new(6, &[]).with(|crl| crl.this_update = "250101120000Z".to_owned()).der(),
        TestCrl::new(6, &[]).with(|crl| crl.entries.push(entry(&[0, 1], &[]))).der(),
        vec![0; MAX_SOURCE + 1],
        with_extension(&scope(&[INDIRECT.to_vec()])),
        with_extension(&scope(&[ATTRIBUTES.to_vec()])),
        with_extension(&scope(&[USERS.to_vec(), AUTHORITIES.to_vec()])),
        with_extension(&extension(&[0x2a, 0x03], true, &[5, 0])),
        TestCrl::new(6, &[])
            .with(|crl| crl.entries = vec![entry(&[8], &[extension(&[0x2a, 0x03], true, &[5, 0])])])
            .der(),
        TestCrl::new(6, &[]).with(|crl| crl.entries = vec![entry(&[8], &[reason(8)])]).der(),
        TestCrl::new(6, &[]).with(|crl| crl.entries = vec![entry(&[1; 22], &[])]).der(),
    ];
    let mut numbers = Numbers(3);
    for first in [0x30, 0x2d, 0x00] {
        bad.extend((0..20).map(|_| [&[first][..], &numbers.octets::<300>()].concat()));
    }
    let next = TestCrl::new(6, &[]).der();
    bad.extend((0..next.len()).map(|length| next[..length].to_vec()));
    let as_pem = pem(&[TestCrl::new(6, &[])]);
    bad.extend((0..as_pem.len() - 1).map(|length| as_pem[..length].to_vec()));
    let mut plane = Plane::new();
    plane.read(good.der());
    for bytes in bad {
        let start = bytes.iter().take(40).copied().collect::<Vec<_>>();
        let (index, fault) = plane.read(bytes);
        assert!(fault.is_some(), "{start:02x?}");
        assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked", "{start:02x?}");
        assert_eq!(verdict(&index, &client(&[8]), NOW), "permitted", "{start:02x?}");
    }
    let (index, reports) = plane.update(&[("ca.crl", Err("permission denied"))]);
    assert_eq!(reports[0].faults, [CrlFault::Unreadable("permission denied".to_owned())]);
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked");
    let (index, reports) = plane.update(&[]);
    assert_eq!(reports[0].faults, [CrlFault::Missing]);
    assert_eq!((reports[0].last_success, reports[0].lists.len()), (Some(NOW), 1));
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked");
    assert_eq!(plane.read(next).1, None, "a good file is taken again");
}

/// What is in a list's place but is none leaves the last good list in force as well, and is no fault by itself.
#[test]
fn a_delta_in_a_lists_place_is_not_taken_for_it() {
    let mut plane = Plane::new();
    plane.read(TestCrl::new(5, &[&[7]]).der());
    let (index, fault) = plane.read(deltas::delta(9, 10, &[]).der());
    assert_eq!(fault, None);
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked");
    assert_eq!(verdict(&index, &client(&[8]), NOW), "permitted");
}

#[test]
fn odd_serial_numbers_can_be_revoked() {
    let longest = [&[0x7f][..], &[0xee; 19]].concat();
    let longest_unsigned = [&[0x00, 0xff][..], &[0xee; 19]].concat();
    let odd: [&[u8]; 6] = [&[0x00], &[0xff], &[0x80, 0x00], &longest, &longest_unsigned, &[0x00, 0x80]];
    for revoked in odd {
        let twice = TestCrl::new(1, &[revoked, revoked]);
        let (index, fault) = Plane::new().read(twice.der());
        assert_eq!((fault, index.entries()), (None, 1), "{revoked:02x?}: an entry that stands twice is one");
        for serial in odd {
            let expected = if serial == revoked { "revoked" } else { "permitted" };
            assert_eq!(verdict(&index, &client(serial), NOW), expected, "{serial:02x?} by {revoked:02x?}");
        }
    }
}

/// All of RFC 5280 §5.3.1, the unused code and codes that nobody has defined: whatever the reason, it is revoked.
#[test]
fn every_reason_revokes() {
    let names = [
        "unspecified",
        "keyCompromise",
        "cACompromise",
        "affiliationChanged",
        "superseded",
        "cessationOfOperation",
        "certificateHold",
        "unspecified",
        "",
        "privilegeWithdrawn",
        "aACompromise",
        "unspecified",
        "unspecified",
    ];
    for (code, name) in (0..).zip(names).filter(|(_, name)| !name.is_empty()) {
        let list = TestCrl::new(1, &[]).with(|crl| crl.entries = vec![entry(&[7], &[reason(code)])]);
        let (index, fault) = Plane::new().read(list.der());
        assert_eq!(fault, None, "{code}");
        let refusal = index.check(&client(&[7]), NOW).unwrap_err();
        assert_eq!(refusal.to_string(), format!("certificate of CN=ci-7 with serial 07 is revoked ({name})"));
    }
}
