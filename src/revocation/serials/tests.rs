use std::collections::BTreeSet;

use super::*;
use crate::identity::testing::{sequence, tlv};
use crate::revocation::crl::Crl;
use crate::revocation::testing::{Numbers, TestCrl, entry, reason};

/// A set of these serial numbers, made from a list as in production.
fn set_of(serials: &[Vec<u8>]) -> SerialSet {
    let entries = serials.iter().map(|serial| entry(serial, &[])).collect();
    let der = TestCrl::new(1, &[]).with(|crl| crl.entries = entries).der();
    SerialSet::collect(&Crl::parse(&der).unwrap().entries()).unwrap()
}

fn contains(set: &SerialSet, content: &[u8]) -> bool {
    set.find(&Serial::from_der_content(content).unwrap()).is_some()
}

/// DER content of a number without sign.
fn unsigned(octets: &[u8]) -> Vec<u8> {
    let significant: Vec<_> = octets.iter().copied().skip_while(|octet| *octet == 0).collect();
    let sign = (significant.first().is_none_or(|first| *first >= 0x80)).then_some(0);
    sign.into_iter().chain(significant).collect()
}

#[test]
fn lengths_and_signs_are_kept_apart() {
    let all: Vec<Vec<u8>> = vec![
        vec![0x00],
        vec![0x01],
        vec![0xff],
        vec![0x80],
        vec![0x00, 0x80],
        vec![0x00, 0xff],
        unsigned(&[0xff; 8]),
        unsigned(&[0x01; 9]),
        vec![0xff, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07],
        unsigned(&[0xff; 16]),
        unsigned(&[0x01; 17]),
        unsigned(&[0xff; 20]),
        [&[0x80][..], &[0; 19]].concat(),
        [&[0xff, 0x00][..], &[0; 19]].concat(),
    ];
    let set = set_of(&all);
    assert_eq!(set.len(), all.len());
    for serial in &all {
        assert!(contains(&set, serial), "{serial:02x?}");
        let others: Vec<_> = all.iter().filter(|other| *other != serial).cloned().collect();
        assert!(!contains(&set_of(&others), serial), "{serial:02x?}");
    }
    assert!(!contains(&set_of(&[]), &[0x00]));
}

#[test]
fn answers_are_those_of_a_plain_map() {
    let mut numbers = Numbers(1);
    let shapes: [fn(&mut Numbers) -> Vec<u8>; 6] = [
        |n| unsigned(&n.octets::<16>()),
        |n| unsigned(&(n.next() % 5_000).to_be_bytes()),
        |n| unsigned(&[[0xab; 12], [0; 12].map(|_| (n.next() % 3) as u8)].concat()),
        |n| unsigned(&(0x7fff_ffff_ffff_0000 + n.next() % 4_000).to_be_bytes()),
        |n| unsigned(&n.octets::<20>()),
        |n| {
            let length = 1 + (n.next() % 21) as usize;
            let octets = n.octets::<21>()[..length].to_vec();
            if Serial::from_der_content(&octets).is_some() { octets } else { unsigned(&octets) }
        },
    ];
    let short_enough = |serial: &Vec<u8>| Serial::from_der_content(serial).is_some();
    for (shape, make) in shapes.iter().enumerate() {
        for count in [1, 2, 7, 8, 9, 100, 3_000] {
            let listed: Vec<_> = (0..count).map(|_| make(&mut numbers)).filter(short_enough).collect();
            let set = set_of(&listed);
            let plain: BTreeSet<_> = listed.iter().cloned().collect();
            assert_eq!(set.len(), plain.len(), "shape {shape}, {count} entries");
            let asked = (0..count).map(|_| make(&mut numbers)).filter(short_enough);
            for serial in listed.iter().cloned().chain(asked) {
                assert_eq!(contains(&set, &serial), plain.contains(&serial), "shape {shape}: {serial:02x?}");
            }
        }
    }
}

#[test]
fn serial_numbers_of_one_hash_are_all_found() {
    let mut numbers = Numbers(6);
    let words: Vec<_> = (0..50).map(|_| numbers.next() | 1 << 63).collect();
    // The second word makes up for what the first did to the hash.
    let pair = |first: u64| [first.to_be_bytes(), (mix(0, first) ^ 0x1234).to_be_bytes()].concat();
    let serials: Vec<_> = words.iter().map(|first| unsigned(&pair(*first))).collect();
    assert!(words.iter().all(|first| hash(&pair(*first)) == hash(&pair(words[0]))));
    for count in [1, 2, 49] {
        let set = set_of(&serials[..count]);
        for (position, serial) in serials.iter().enumerate() {
            assert_eq!(contains(&set, serial), position < count, "{position} of {count}");
        }
    }
}

#[test]
fn a_16_octet_serial_number_costs_less_than_24_octets() {
    let mut numbers = Numbers(2);
    let serials: Vec<_> = (0..50_000).map(|_| unsigned(&numbers.octets::<16>())).collect();
    let set = set_of(&serials);
    assert!(set.heap_size() + size_of::<SerialSet>() <= 24 * set.len(), "{} octets", set.heap_size());
}

#[test]
fn the_content_hash_is_that_of_the_set() {
    let hash = |serials: &[&[u8]]| set_of(&serials.iter().map(|s| s.to_vec()).collect::<Vec<_>>()).content_hash();
    let set = hash(&[&[1], &[2], &[0x00, 0x80]]);
    assert_eq!(set, hash(&[&[0x00, 0x80], &[2], &[1], &[2]]), "order and repetition don't count");
    assert_ne!(set, hash(&[&[1], &[2], &[0x80]]));
    assert_ne!(set, hash(&[&[1], &[2]]));
}

#[test]
fn reasons_are_kept() {
    let entries = vec![entry(&[1], &[reason(1)]), entry(&[2], &[reason(6)]), entry(&[3], &[])];
    let der = TestCrl::new(1, &[]).with(|crl| crl.entries = entries).der();
    let set = SerialSet::collect(&Crl::parse(&der).unwrap().entries()).unwrap();
    let reason_of = |serial: u8| set.find(&Serial::from_der_content(&[serial]).unwrap());
    assert_eq!(reason_of(1), Some(Listed::Revoked(Reason::KeyCompromise)));
    assert_eq!(reason_of(2), Some(Listed::Revoked(Reason::CertificateHold)));
    assert_eq!(reason_of(3), Some(Listed::Revoked(Reason::Unspecified)));
    assert_eq!(reason_of(4), None);
}

#[test]
fn a_broken_entry_spoils_the_set() {
    let good = entry(&[1], &[]);
    for broken in [
        entry(&[], &[]),
        entry(&[0, 1], &[]),
        entry(&[1; 22], &[]),
        sequence(&[tlv(0x02, &[1])]),
        sequence(&[tlv(0x02, &[1]), tlv(0x17, b"240601000000Z"), tlv(0x30, &[]), tlv(0x05, &[])]),
        tlv(0x31, &[]),
    ] {
        let der = TestCrl::new(1, &[]).with(|crl| crl.entries = vec![good.clone(), broken.clone()]).der();
        let crl = Crl::parse(&der).unwrap();
        assert!(SerialSet::collect(&crl.entries()).is_err(), "{broken:02x?}");
        assert_eq!(crl.entries().count(), 2, "nothing is read after a fault");
    }
}
