use super::*;
use crate::config::Secret;
use crate::identity::Serial;
use crate::revocation::{self, Reason};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;
const MONTH: Validity = Validity { from: NOW, until: NOW + 30 * DAY };

fn client(common_name: &str) -> LeafRequest {
    LeafRequest {
        purpose: Purpose::Client,
        common_name: common_name.to_owned(),
        organizational_unit: Some("developers".to_owned()),
        dns: Vec::new(),
        ips: Vec::new(),
        uris: vec![format!("spiffe://dev.test/{common_name}")],
    }
}

#[test]
fn a_leaf_is_signed_by_its_ca_and_has_what_was_asked_for() {
    let authority = Authority::create("Test CA", MONTH).unwrap();
    let request = LeafRequest {
        purpose: Purpose::Server,
        dns: vec!["localhost".to_owned()],
        ips: vec![IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap()],
        ..client("gateway")
    };
    let issued = authority.issue(&request, MONTH).unwrap();

    let der = X509::from_pem(&issued.certificate_pem).unwrap().to_der().unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert_eq!(leaf.version(), x509_parser::x509::X509Version::V3);
    assert_eq!(leaf.subject().to_string(), "OU=developers, CN=gateway");
    assert_eq!(leaf.issuer().to_string(), "CN=Test CA");
    assert_eq!(leaf.validity().not_after.timestamp(), MONTH.until);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);
    assert!(leaf.key_usage().unwrap().unwrap().value.digital_signature());
    assert!(!leaf.is_ca());
    assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 4);
    assert!(authority.covers(&issued, &request, NOW));
}

#[test]
fn a_certificate_is_kept_only_while_it_serves_the_request() {
    let authority = Authority::create("Test CA", MONTH).unwrap();
    let request = client("developer");
    let issued = authority.issue(&request, MONTH).unwrap();
    assert!(authority.covers(&issued, &request, MONTH.until - DAY));
    assert!(!authority.covers(&issued, &request, MONTH.until + DAY), "expires too soon");

    let more = LeafRequest { ips: vec![IpAddr::from([192, 0, 2, 1])], ..request.clone() };
    assert!(!authority.covers(&issued, &more, NOW), "lacks an address");

    let same_name = Authority::create("Test CA", MONTH).unwrap();
    assert!(!same_name.covers(&issued, &request, NOW), "another CA of the same name");

    let other = authority.issue(&request, MONTH).unwrap();
    let mixed = Issued { certificate_pem: issued.certificate_pem, key_pem: other.key_pem };
    assert!(!authority.covers(&mixed, &request, NOW), "another certificate's key");
}

#[test]
fn a_ca_survives_its_files() {
    let authority = Authority::create("Test CA", MONTH).unwrap();
    let pem = authority.to_pem().unwrap();
    let again = Authority::from_pem(&pem.certificate_pem, &pem.key_pem).unwrap();
    assert!(again.outlives(MONTH.until - DAY) && !again.outlives(MONTH.until));
    let request = client("developer");
    assert!(authority.covers(&again.issue(&request, MONTH).unwrap(), &request, NOW));

    let other = Authority::create("Test CA", MONTH).unwrap().to_pem().unwrap();
    assert!(Authority::from_pem(&pem.certificate_pem, &other.key_pem).is_err());
    assert!(Authority::from_pem(b"", &pem.key_pem).is_err());
}

fn serial_of(pem: &[u8]) -> Serial {
    let der = X509::from_pem(pem).unwrap().to_der().unwrap();
    Serial::from_der_content(x509_parser::parse_x509_certificate(&der).unwrap().1.raw_serial()).unwrap()
}

#[test]
fn a_crl_names_the_revoked_and_verifies() {
    for key in [KeyKind::EcdsaP256, KeyKind::Rsa3072] {
        let key = PrivateKey::generate(key).unwrap();
        let authority = Authority::root("Test CA", key, Depth::Leaves, MONTH).unwrap();
        let root = authority.certificate.to_der().unwrap();
        let issuer = revocation::Issuer::from_certificate(&root).unwrap();
        let gone = serial_of(&authority.issue(&client("gone"), MONTH).unwrap().certificate_pem);
        let entry = |reason| Revoked { serial: gone, since: NOW - DAY, reason };

        for revoked in [vec![], vec![entry(Reason::Unspecified)], vec![entry(Reason::KeyCompromise)]] {
            let request = CrlRequest { number: 0x8000, validity: MONTH, revoked: &revoked };
            let der = authority.sign_crl(&request).unwrap();
            let (rest, list) = x509_parser::parse_x509_crl(&der).unwrap();
            assert!(rest.is_empty());
            assert_eq!(list.issuer().to_string(), "CN=Test CA");
            assert_eq!(list.last_update().timestamp(), MONTH.from);
            assert_eq!(list.next_update().unwrap().timestamp(), MONTH.until);
            assert_eq!(list.crl_number().unwrap().to_string(), 0x8000.to_string());
            let found: Vec<_> = list.iter_revoked_certificates().collect();
            assert_eq!(found.len(), revoked.len());
            for (found, asked) in found.iter().zip(&revoked) {
                assert_eq!(found.raw_serial(), asked.serial.as_der_content());
                assert_eq!(found.revocation_date.timestamp(), asked.since);
                assert_eq!(found.reason_code().map(|(_, code)| code.0), (asked.reason.code() > 0).then_some(1));
            }
            // As the gateway takes it.
            let settings = revocation::Settings {
                freshness: revocation::Freshness::Required,
                check: revocation::Check::Chain,
                grace: std::time::Duration::ZERO,
                clock_skew: std::time::Duration::ZERO,
            };
            let input = revocation::SourceInput { key: "list".to_owned(), bytes: Ok(crl_pem(&der)), issuer: None };
            let verify = &crate::tls::verify_signed_data;
            let (index, reports) =
                revocation::Sources::new(settings).update(vec![input], std::slice::from_ref(&issuer), NOW, verify);
            assert_eq!(reports[0].faults, []);
            assert_eq!(index.entries(), revoked.len());
        }
    }
}

#[test]
fn serials_have_128_random_bits() {
    let serials: Vec<u128> = (0..64)
        .map(|_| {
            u128::from_be_bytes(
                profile::serial().unwrap().to_bn().unwrap().to_vec_padded(16).unwrap().try_into().unwrap(),
            )
        })
        .collect();
    let (all, none) = serials.iter().fold((u128::MAX, 0), |(all, none), serial| (all & serial, none | serial));
    assert_eq!((all, none), (0, u128::MAX), "each bit is set in some and clear in others");
}

#[test]
fn an_intermediate_signs_for_its_root() {
    for kind in [KeyKind::EcdsaP256, KeyKind::Rsa3072] {
        let key = || PrivateKey::generate(kind).unwrap();
        let now = crate::tls::unix_now();
        let validity = Validity { from: now - DAY, until: now + DAY };
        let root = Authority::root("Root", key(), Depth::Authorities, validity).unwrap();
        let middle = root.subordinate("Middle", key(), validity).unwrap();
        let leaf = middle.sign_leaf(&client("ci"), &key().public().unwrap(), validity).unwrap();

        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join("ca.pem");
        std::fs::write(&bundle, [middle.certificate_pem().unwrap(), root.certificate_pem().unwrap()].concat()).unwrap();
        let trust = crate::tls::TrustBundle::load(&bundle).unwrap();
        let path = verified_path(&leaf, &[], &trust).unwrap();
        assert_eq!(path.len(), 3);
        let path: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let identity = crate::identity::PeerIdentity::from_path(&path, &crate::identity::LeafRules::default()).unwrap();
        assert_eq!(identity.label(), "spiffe://dev.test/ci");

        std::fs::write(&bundle, root.certificate_pem().unwrap()).unwrap();
        let trust = crate::tls::TrustBundle::load(&bundle).unwrap();
        assert!(verified_path(&leaf, &[], &trust).is_err(), "nobody sent the intermediate");
        assert!(verified_path(&leaf, &[middle.certificate_der().unwrap()], &trust).is_ok());
    }
}

#[test]
fn a_key_with_a_passphrase_opens_with_it_alone() {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let passphrase = |text: &str| Secret::new(text.to_owned());
    let pem = key.to_pem(Some(&passphrase("correct horse"))).unwrap();
    assert!(pem.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
    let again = PrivateKey::from_pem(&pem, Some(&passphrase("correct horse"))).ok().unwrap();
    assert!(key.public().unwrap().belongs_to(&again));
    assert_eq!(PrivateKey::from_pem(&pem, Some(&passphrase("wrong"))).err(), Some(KeyFault::WrongPassphrase));
    assert_eq!(PrivateKey::from_pem(&pem, None).err(), Some(KeyFault::NeedsPassphrase));
    assert_eq!(PrivateKey::from_pem(b"-----BEGIN", None).err(), Some(KeyFault::NotAKey));
    let plain = key.to_pem(None).unwrap();
    assert!(PrivateKey::from_pem(&plain, Some(&passphrase("not needed"))).is_ok());
}

#[test]
fn a_pkcs12_holds_key_certificate_and_chain() {
    let authority = Authority::create("Test CA", MONTH).unwrap();
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let leaf = authority.sign_leaf(&client("ci"), &key.public().unwrap(), MONTH).unwrap();
    let passphrase = Secret::new("open".to_owned());
    let der = pkcs12(&leaf, &authority.certificate_pem().unwrap(), &key, "ci", &passphrase).unwrap();
    let parsed = super::super::lib::pkcs12::Pkcs12::from_der(&der).unwrap();
    assert!(parsed.parse2("shut").is_err());
    let parsed = parsed.parse2("open").unwrap();
    assert_eq!(parsed.cert.unwrap().to_der().unwrap(), leaf);
    assert!(parsed.pkey.unwrap().public_eq(key.library_key()));
    assert_eq!(parsed.ca.unwrap().len(), 1);

    let other = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    assert!(pkcs12(&leaf, b"", &other, "ci", &passphrase).is_err(), "another certificate's key");
}

#[test]
fn an_impossible_name_is_an_error() {
    let error = Authority::create(&"x".repeat(65), MONTH).err().unwrap();
    assert!(error.to_string().starts_with("failed to make a CA: "), "{error}");
}
