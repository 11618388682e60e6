//! What it costs to ask whether a certificate is revoked: with a list of a thousand entries and with one of a million, a
//! different serial number each time, as clients have it.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that can't be set up has nothing to measure, and one that prints nothing nothing to say"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::identity::{LeafRules, PeerIdentity, Serial};
use portcullis::revocation::{Check, Freshness, Index, Issuer, Settings, SignedData, SourceInput, Sources};

const CA: &[u8] = include_bytes!("../tests/fuzz/fixtures/ca.der");
const CLIENT: &[u8] = include_bytes!("../tests/fuzz/fixtures/client-8.der");
/// 2025-01-01, between the dates of the list.
const NOW: i64 = 1_735_689_600;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const OID: u8 = 6;
const UTC_TIME: u8 = 0x17;

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut whole = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..0x80) => whole.push(short),
        _ => {
            let octets: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|octet| *octet == 0).collect();
            whole.push(0x80 | u8::try_from(octets.len()).expect("at most eight"));
            whole.extend(octets);
        }
    }
    whole.extend_from_slice(content);
    whole
}

/// Random serial numbers of 16 octets, the same at every run.
fn serials(count: usize) -> Vec<[u8; 16]> {
    let mut random = fastrand::Rng::with_seed(7);
    let serial = |_| {
        let mut serial = random.u128(..).to_be_bytes();
        serial[0] = serial[0] & 0x7f | 0x40;
        serial
    };
    (0..count).map(serial).collect()
}

/// A list with these entries. Nobody looks at its signature.
fn list(issuer: &Issuer, serials: &[[u8; 16]]) -> Vec<u8> {
    const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let algorithm = tlv(SEQUENCE, &tlv(OID, ECDSA_WITH_SHA256));
    let revoked = tlv(UTC_TIME, b"240601000000Z");
    let entries = serials.iter().flat_map(|serial| tlv(SEQUENCE, &[tlv(INTEGER, serial), revoked.clone()].concat()));
    let fields = [
        tlv(INTEGER, &[1]),
        algorithm.clone(),
        issuer.name_der.clone(),
        tlv(UTC_TIME, b"241231000000Z"),
        tlv(UTC_TIME, b"350101000000Z"),
        tlv(SEQUENCE, &entries.collect::<Vec<u8>>()),
    ];
    let signed = tlv(SEQUENCE, &fields.concat());
    tlv(SEQUENCE, &[signed, algorithm, tlv(BIT_STRING, &[0, 1, 2, 3])].concat())
}

fn index(issuer: &Issuer, list: Vec<u8>) -> Index {
    let settings = Settings {
        freshness: Freshness::Required,
        check: Check::Chain,
        grace: Duration::ZERO,
        clock_skew: Duration::ZERO,
    };
    let input = SourceInput { key: "list".to_owned(), bytes: Ok(list), issuer: None };
    let unverified = |_: &SignedData<'_>, _: &[u8]| Ok(());
    Sources::new(settings).update([input], std::slice::from_ref(issuer), NOW, &unverified).0
}

fn check(criterion: &mut Criterion) {
    let issuer = Issuer::from_certificate(CA).expect("a CA certificate");
    let identity = PeerIdentity::from_path(&[CLIENT, CA], &LeafRules::default()).expect("a path");
    for entries in [1_000, 1_000_000] {
        let revoked = serials(entries);
        let index = index(&issuer, list(&issuer, &revoked));
        // Nearly the same as what is revoked, and not revoked.
        let others: Vec<Serial> = serials(1_000_000)
            .into_iter()
            .map(|mut serial| {
                serial[3] ^= 0x55;
                Serial::from_der_content(&serial).expect("a serial number")
            })
            .collect();
        println!(
            "{entries} entries: {:.1} bytes each, all overhead counted",
            index.heap_size() as f64 / index.entries() as f64
        );
        let mut path = identity.path.clone();
        let mut next = others.iter().cycle();
        criterion.bench_function(&format!("revocation/check/{entries}"), |bencher| {
            bencher.iter(|| {
                if let (Some(leaf), Some(serial)) = (path.first_mut(), next.next()) {
                    leaf.serial = *serial;
                }
                index.check(black_box(&path), NOW).is_ok()
            });
        });
    }
    let der = list(&issuer, &serials(100_000));
    let mut group = criterion.benchmark_group("revocation/build");
    group.sample_size(10);
    group.bench_function("100000", |bencher| bencher.iter(|| index(&issuer, der.clone())));
    group.finish();
}

criterion_group!(benches, check);
criterion_main!(benches);
