use super::*;

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

#[test]
fn a_crl_names_the_revoked_and_verifies() {
    let authority = Authority::create("Test CA", MONTH).unwrap();
    let root = authority.certificate.to_der().unwrap();
    let (_, root) = x509_parser::parse_x509_certificate(&root).unwrap();
    let gone = authority.issue(&client("gone"), MONTH).unwrap();

    for revoked in [&[][..], &[gone.certificate_pem.as_slice()][..]] {
        let der = authority.sign_crl(&CrlRequest { number: 0x8000, validity: MONTH, revoked }).unwrap();
        let (rest, list) = x509_parser::parse_x509_crl(&der).unwrap();
        assert!(rest.is_empty());
        assert_eq!(list.issuer().to_string(), "CN=Test CA");
        assert_eq!(list.last_update().timestamp(), MONTH.from);
        assert_eq!(list.next_update().unwrap().timestamp(), MONTH.until);
        assert_eq!(list.crl_number().unwrap().to_string(), 0x8000.to_string());
        assert_eq!(list.iter_revoked_certificates().count(), revoked.len());

        let key = PKey::public_key_from_der(root.public_key().raw).unwrap();
        let mut verifier = super::super::lib::sign::Verifier::new(MessageDigest::sha256(), &key).unwrap();
        assert!(verifier.verify_oneshot(&list.signature_value.data, list.tbs_cert_list.as_ref()).unwrap());
    }
}

#[test]
fn an_impossible_name_is_an_error() {
    let error = Authority::create(&"x".repeat(65), MONTH).err().unwrap();
    assert!(error.to_string().starts_with("failed to make a CA: "), "{error}");
}
