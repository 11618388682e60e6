//! NIST's Public Key Interoperability Test Suite, sections 4.4 (revocation), 4.14 (distribution points) and 4.15 (deltas),
//! with the lists read, verified and asked as the gateway does it. See `tests/pkits/README.md`.

use portcullis::identity::{CertificateFault, LeafRules, PathCertificate, PeerIdentity};
use portcullis::revocation::{Check, CrlFault, Freshness, Issuer, Settings, SignedData, SourceInput, Sources};
use portcullis::tls;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// 2015-01-01: all certificates are valid, and every list is out.
const NOW: i64 = 1_420_070_400;

/// What NIST says of a path.
#[derive(Debug, PartialEq)]
enum Nist {
    Valid,
    Invalid,
}
use Nist::{Invalid, Valid};

/// A test: its number, what NIST says, the path from the leaf up (below the trust anchor), the lists, and our verdict.
type Case = (&'static str, Nist, &'static [&'static str], &'static [&'static str], &'static str);

/// 4.4 Basic certificate revocation tests.
const REVOCATION: &[Case] = &[
    ("4.4.1", Invalid, &["InvalidMissingCRLTest1EE", "NoCRLCACert"], &[], "no_list"),
    (
        "4.4.2",
        Invalid,
        &["InvalidRevokedCATest2EE", "RevokedsubCACert", "GoodCACert"],
        &["GoodCACRL", "RevokedsubCACRL"],
        "revoked",
    ),
    ("4.4.3", Invalid, &["InvalidRevokedEETest3EE", "GoodCACert"], &["GoodCACRL"], "revoked"),
    (
        "4.4.4",
        Invalid,
        &["InvalidBadCRLSignatureTest4EE", "BadCRLSignatureCACert"],
        &["BadCRLSignatureCACRL"],
        // The bit string of the signature is not even whole octets.
        "no_list (malformed)",
    ),
    (
        "4.4.5",
        Invalid,
        &["InvalidBadCRLIssuerNameTest5EE", "BadCRLIssuerNameCACert"],
        &["BadCRLIssuerNameCACRL"],
        "no_list (unknown_issuer)",
    ),
    ("4.4.6", Invalid, &["InvalidWrongCRLTest6EE", "WrongCRLCACert"], &["WrongCRLCACRL"], "no_list"),
    (
        "4.4.7",
        Valid,
        &["ValidTwoCRLsTest7EE", "TwoCRLsCACert"],
        &["TwoCRLsCAGoodCRL", "TwoCRLsCABadCRL"],
        "permitted (unknown_issuer)",
    ),
    (
        "4.4.8",
        Invalid,
        &["InvalidUnknownCRLEntryExtensionTest8EE", "UnknownCRLEntryExtensionCACert"],
        &["UnknownCRLEntryExtensionCACRL"],
        "no_list (unsupported)",
    ),
    (
        "4.4.9",
        Invalid,
        &["InvalidUnknownCRLExtensionTest9EE", "UnknownCRLExtensionCACert"],
        &["UnknownCRLExtensionCACRL"],
        "no_list (unsupported)",
    ),
    (
        "4.4.10",
        Invalid,
        &["InvalidUnknownCRLExtensionTest10EE", "UnknownCRLExtensionCACert"],
        &["UnknownCRLExtensionCACRL"],
        "no_list (unsupported)",
    ),
    (
        "4.4.11",
        Invalid,
        &["InvalidOldCRLnextUpdateTest11EE", "OldCRLnextUpdateCACert"],
        &["OldCRLnextUpdateCACRL"],
        "stale",
    ),
    (
        "4.4.12",
        Invalid,
        &["Invalidpre2000CRLnextUpdateTest12EE", "pre2000CRLnextUpdateCACert"],
        &["pre2000CRLnextUpdateCACRL"],
        "stale",
    ),
    (
        "4.4.13",
        Valid,
        &["ValidGeneralizedTimeCRLnextUpdateTest13EE", "GeneralizedTimeCRLnextUpdateCACert"],
        &["GeneralizedTimeCRLnextUpdateCACRL"],
        "permitted",
    ),
    (
        "4.4.14",
        Valid,
        &["ValidNegativeSerialNumberTest14EE", "NegativeSerialNumberCACert"],
        &["NegativeSerialNumberCACRL"],
        "permitted",
    ),
    (
        "4.4.15",
        Invalid,
        &["InvalidNegativeSerialNumberTest15EE", "NegativeSerialNumberCACert"],
        &["NegativeSerialNumberCACRL"],
        "revoked",
    ),
    (
        "4.4.16",
        Valid,
        &["ValidLongSerialNumberTest16EE", "LongSerialNumberCACert"],
        &["LongSerialNumberCACRL"],
        "permitted",
    ),
    (
        "4.4.17",
        Valid,
        &["ValidLongSerialNumberTest17EE", "LongSerialNumberCACert"],
        &["LongSerialNumberCACRL"],
        "permitted",
    ),
    (
        "4.4.18",
        Invalid,
        &["InvalidLongSerialNumberTest18EE", "LongSerialNumberCACert"],
        &["LongSerialNumberCACRL"],
        "revoked",
    ),
    // Lists signed with another key than certificates are another issuer's here.
    ("4.4.19", Valid, &["ValidSeparateCertificateandCRLKeysTest19EE", SEPARATE_1], SEPARATE_1_LIST, "no_list"),
    ("4.4.20", Invalid, &["InvalidSeparateCertificateandCRLKeysTest20EE", SEPARATE_1], SEPARATE_1_LIST, "no_list"),
    (
        "4.4.21",
        Invalid,
        &["InvalidSeparateCertificateandCRLKeysTest21EE", "SeparateCertificateandCRLKeysCA2CertificateSigningCACert"],
        &["SeparateCertificateandCRLKeysCA2CRL"],
        "no_list",
    ),
];

const SEPARATE_1: &str = "SeparateCertificateandCRLKeysCertificateSigningCACert";
const SEPARATE_1_LIST: &[&str] = &["SeparateCertificateandCRLKeysCRL"];

/// Certificates that only sign lists, of the authorities with separate keys.
const LIST_SIGNERS: [&str; 2] =
    ["SeparateCertificateandCRLKeysCRLSigningCert", "SeparateCertificateandCRLKeysCA2CRLSigningCert"];

const POINT_1: &str = "distributionPoint1CACert";
const POINT_1_LIST: &[&str] = &["distributionPoint1CACRL"];
const POINT_2: &str = "distributionPoint2CACert";
const POINT_2_LIST: &[&str] = &["distributionPoint2CACRL"];
const REASONS_1_LISTS: &[&str] = &["onlySomeReasonsCA1compromiseCRL", "onlySomeReasonsCA1otherreasonsCRL"];
const REASONS_3_LISTS: &[&str] = &["onlySomeReasonsCA3compromiseCRL", "onlySomeReasonsCA3otherreasonsCRL"];
const REASONS_4_LISTS: &[&str] = &["onlySomeReasonsCA4compromiseCRL", "onlySomeReasonsCA4otherreasonsCRL"];
const INDIRECT_1_LIST: &[&str] = &["indirectCRLCA1CRL"];
const INDIRECT_3_LISTS: &[&str] = &["indirectCRLCA3CRL", "indirectCRLCA3cRLIssuerCRL"];
const INDIRECT_5_LIST: &[&str] = &["indirectCRLCA5CRL"];

/// 4.14 Distribution points.
const POINTS: &[Case] = &[
    ("4.14.1", Valid, &["ValiddistributionPointTest1EE", POINT_1], POINT_1_LIST, "permitted"),
    ("4.14.2", Invalid, &["InvaliddistributionPointTest2EE", POINT_1], POINT_1_LIST, "revoked"),
    ("4.14.3", Invalid, &["InvaliddistributionPointTest3EE", POINT_1], POINT_1_LIST, "uncovered"),
    ("4.14.4", Valid, &["ValiddistributionPointTest4EE", POINT_1], POINT_1_LIST, "permitted"),
    ("4.14.5", Valid, &["ValiddistributionPointTest5EE", POINT_2], POINT_2_LIST, "permitted"),
    ("4.14.6", Invalid, &["InvaliddistributionPointTest6EE", POINT_2], POINT_2_LIST, "revoked"),
    ("4.14.7", Valid, &["ValiddistributionPointTest7EE", POINT_2], POINT_2_LIST, "permitted"),
    ("4.14.8", Invalid, &["InvaliddistributionPointTest8EE", POINT_2], POINT_2_LIST, "uncovered"),
    ("4.14.9", Invalid, &["InvaliddistributionPointTest9EE", POINT_2], POINT_2_LIST, "uncovered"),
    (
        "4.14.10",
        Valid,
        &["ValidNoissuingDistributionPointTest10EE", "NoissuingDistributionPointCACert"],
        &["NoissuingDistributionPointCACRL"],
        "permitted",
    ),
    (
        "4.14.11",
        Invalid,
        &["InvalidonlyContainsUserCertsTest11EE", "onlyContainsUserCertsCACert"],
        &["onlyContainsUserCertsCACRL"],
        "uncovered",
    ),
    (
        "4.14.12",
        Invalid,
        &["InvalidonlyContainsCACertsTest12EE", "onlyContainsCACertsCACert"],
        &["onlyContainsCACertsCACRL"],
        "uncovered",
    ),
    (
        "4.14.13",
        Valid,
        &["ValidonlyContainsCACertsTest13EE", "onlyContainsCACertsCACert"],
        &["onlyContainsCACertsCACRL"],
        "permitted",
    ),
    (
        "4.14.14",
        Invalid,
        &["InvalidonlyContainsAttributeCertsTest14EE", "onlyContainsAttributeCertsCACert"],
        &["onlyContainsAttributeCertsCACRL"],
        "no_list (unsupported)",
    ),
    ("4.14.15", Invalid, &["InvalidonlySomeReasonsTest15EE", "onlySomeReasonsCA1Cert"], REASONS_1_LISTS, "revoked"),
    ("4.14.16", Invalid, &["InvalidonlySomeReasonsTest16EE", "onlySomeReasonsCA1Cert"], REASONS_1_LISTS, "revoked"),
    (
        "4.14.17",
        Invalid,
        &["InvalidonlySomeReasonsTest17EE", "onlySomeReasonsCA2Cert"],
        &["onlySomeReasonsCA2CRL1", "onlySomeReasonsCA2CRL2"],
        "uncovered",
    ),
    ("4.14.18", Valid, &["ValidonlySomeReasonsTest18EE", "onlySomeReasonsCA3Cert"], REASONS_3_LISTS, "permitted"),
    ("4.14.19", Valid, &["ValidonlySomeReasonsTest19EE", "onlySomeReasonsCA4Cert"], REASONS_4_LISTS, "permitted"),
    ("4.14.20", Invalid, &["InvalidonlySomeReasonsTest20EE", "onlySomeReasonsCA4Cert"], REASONS_4_LISTS, "revoked"),
    ("4.14.21", Invalid, &["InvalidonlySomeReasonsTest21EE", "onlySomeReasonsCA4Cert"], REASONS_4_LISTS, "revoked"),
    // Indirect lists are refused, and certificates that depend on them with them.
    ("4.14.22", Valid, &["ValidIDPwithindirectCRLTest22EE", "indirectCRLCA1Cert"], INDIRECT_1_LIST, INDIRECT),
    ("4.14.23", Invalid, &["InvalidIDPwithindirectCRLTest23EE", "indirectCRLCA1Cert"], INDIRECT_1_LIST, INDIRECT),
    ("4.14.24", Valid, &["ValidIDPwithindirectCRLTest24EE", "indirectCRLCA2Cert"], INDIRECT_1_LIST, INDIRECT),
    ("4.14.25", Valid, &["ValidIDPwithindirectCRLTest25EE", "indirectCRLCA2Cert"], INDIRECT_1_LIST, INDIRECT),
    ("4.14.26", Invalid, &["InvalidIDPwithindirectCRLTest26EE", "indirectCRLCA2Cert"], INDIRECT_1_LIST, INDIRECT),
    ("4.14.27", Invalid, &["InvalidcRLIssuerTest27EE", "indirectCRLCA2Cert"], &[], "no_list"),
    ("4.14.28", Valid, &["ValidcRLIssuerTest28EE", "indirectCRLCA3Cert"], INDIRECT_3_LISTS, "uncovered (unsupported)"),
    ("4.14.29", Valid, &["ValidcRLIssuerTest29EE", "indirectCRLCA3Cert"], INDIRECT_3_LISTS, "uncovered (unsupported)"),
    ("4.14.30", Valid, &["ValidcRLIssuerTest30EE", "indirectCRLCA4Cert"], &["indirectCRLCA4cRLIssuerCRL"], INDIRECT),
    ("4.14.31", Invalid, &["InvalidcRLIssuerTest31EE", "indirectCRLCA6Cert"], INDIRECT_5_LIST, INDIRECT),
    ("4.14.32", Invalid, &["InvalidcRLIssuerTest32EE", "indirectCRLCA6Cert"], INDIRECT_5_LIST, INDIRECT),
    ("4.14.33", Valid, &["ValidcRLIssuerTest33EE", "indirectCRLCA6Cert"], INDIRECT_5_LIST, INDIRECT),
    ("4.14.34", Invalid, &["InvalidcRLIssuerTest34EE", "indirectCRLCA5Cert"], INDIRECT_5_LIST, INDIRECT),
    ("4.14.35", Invalid, &["InvalidcRLIssuerTest35EE", "indirectCRLCA5Cert"], INDIRECT_5_LIST, INDIRECT),
];

const INDIRECT: &str = "no_list (unsupported)";

const DELTA_1_LISTS: &[&str] = &["deltaCRLCA1CRL", "deltaCRLCA1deltaCRL"];
const DELTA_2_LISTS: &[&str] = &["deltaCRLCA2CRL", "deltaCRLCA2deltaCRL"];

/// 4.15 Delta-CRLs.
const DELTAS: &[Case] = &[
    (
        "4.15.1",
        Invalid,
        &["InvaliddeltaCRLIndicatorNoBaseTest1EE", "deltaCRLIndicatorNoBaseCACert"],
        &["deltaCRLIndicatorNoBaseCACRL"],
        "no_list",
    ),
    ("4.15.2", Valid, &["ValiddeltaCRLTest2EE", "deltaCRLCA1Cert"], DELTA_1_LISTS, "permitted"),
    ("4.15.3", Invalid, &["InvaliddeltaCRLTest3EE", "deltaCRLCA1Cert"], DELTA_1_LISTS, "revoked"),
    ("4.15.4", Invalid, &["InvaliddeltaCRLTest4EE", "deltaCRLCA1Cert"], DELTA_1_LISTS, "revoked"),
    ("4.15.5", Valid, &["ValiddeltaCRLTest5EE", "deltaCRLCA1Cert"], DELTA_1_LISTS, "permitted"),
    ("4.15.6", Invalid, &["InvaliddeltaCRLTest6EE", "deltaCRLCA1Cert"], DELTA_1_LISTS, "revoked"),
    ("4.15.7", Valid, &["ValiddeltaCRLTest7EE", "deltaCRLCA1Cert"], DELTA_1_LISTS, "permitted"),
    ("4.15.8", Valid, &["ValiddeltaCRLTest8EE", "deltaCRLCA2Cert"], DELTA_2_LISTS, "permitted"),
    ("4.15.9", Invalid, &["InvaliddeltaCRLTest9EE", "deltaCRLCA2Cert"], DELTA_2_LISTS, "revoked"),
    (
        "4.15.10",
        Invalid,
        &["InvaliddeltaCRLTest10EE", "deltaCRLCA3Cert"],
        &["deltaCRLCA3CRL", "deltaCRLCA3deltaCRL"],
        "stale",
    ),
];

/// Paths that NIST calls valid and that are refused here: separate keys for lists, and indirect lists.
const UNSUPPORTED: [&str; 8] = ["4.4.19", "4.14.22", "4.14.24", "4.14.25", "4.14.28", "4.14.29", "4.14.30", "4.14.33"];

#[test]
fn nist_revocation() {
    run(REVOCATION, 21);
}

#[test]
fn nist_distribution_points() {
    run(POINTS, 35);
}

#[test]
fn nist_deltas() {
    run(DELTAS, 10);
}

fn run(cases: &[Case], count: usize) {
    assert_eq!(cases.len(), count);
    for (number, nist, path, lists, expected) in cases {
        let found = verdict(path, lists);
        assert_eq!(found, *expected, "{number} {path:?}");
        let permitted = found.starts_with("permitted");
        let as_nist = if *nist == Valid { permitted || UNSUPPORTED.contains(number) } else { !permitted };
        assert!(as_nist, "{number} should be {nist:?} and is {found}");
        // Whatever the lists are, no order of reading them changes the answer.
        let mut backwards = lists.to_vec();
        backwards.reverse();
        assert_eq!(verdict(path, &backwards), found, "{number}, lists backwards");
    }
}

/// The gateway's verdict over a path by these lists and the trust anchor's own; in brackets the faults of the lists.
fn verdict(path: &[&str], lists: &[&str]) -> String {
    let anchor = "TrustAnchorRootCertificate";
    let ders: Vec<_> = path.iter().chain([&anchor]).map(|name| file(name, "crt")).collect();
    let authorities = path.iter().skip(1).chain([&anchor]).chain(&LIST_SIGNERS);
    let issuers: Vec<_> =
        authorities.map(|name| Issuer::from_certificate(&file(name, "crt")).expect("an issuer")).collect();
    let settings = Settings {
        freshness: Freshness::Required,
        check: Check::Chain,
        grace: Duration::ZERO,
        clock_skew: Duration::ZERO,
    };
    let inputs = lists.iter().chain([&"TrustAnchorRootCRL"]).map(|name| SourceInput {
        key: (*name).to_owned(),
        bytes: Ok(file(name, "crl")),
        issuer: None,
    });
    let verify = |data: &SignedData<'_>, spki: &[u8]| tls::verify_signed_data(data, spki);
    let (index, reports) = Sources::new(settings).update(inputs, &issuers, NOW, &verify);
    let verdict = index.check(&asked(&ders), NOW).err().map_or("permitted", |refusal| refusal.as_str());
    let faults: Vec<_> = reports.iter().flat_map(|report| &report.faults).map(CrlFault::as_str).collect();
    if faults.is_empty() { verdict.to_owned() } else { format!("{verdict} ({})", faults.join(", ")) }
}

/// The certificates that revocation is asked about. An authority at the end of a path can be no client, so somebody is put
/// below it and left out again.
fn asked(ders: &[Vec<u8>]) -> Vec<PathCertificate> {
    let client = file("ValidTwoCRLsTest7EE", "crt");
    let path: Vec<_> = ders.iter().map(Vec::as_slice).collect();
    match PeerIdentity::from_path(&path, &LeafRules::default()) {
        Ok(identity) => identity.path,
        Err(CertificateFault::CaAsLeaf { .. }) => {
            let path: Vec<_> = [client.as_slice()].into_iter().chain(path).collect();
            PeerIdentity::from_path(&path, &LeafRules::default()).expect("a path").path.split_off(1)
        }
        Err(fault) => panic!("{fault}"),
    }
}

fn file(name: &str, kind: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pkits").join(name).with_extension(kind);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
