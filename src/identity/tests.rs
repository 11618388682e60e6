use super::testing::*;
use super::*;

fn identity_with(change: impl FnOnce(&mut TestCertificate)) -> Result<PeerIdentity, CertificateFault> {
    identity_by(&LeafRules::default(), change)
}

fn identity_by(rules: &LeafRules, change: impl FnOnce(&mut TestCertificate)) -> Result<PeerIdentity, CertificateFault> {
    let mut client = TestCertificate::client();
    change(&mut client);
    PeerIdentity::from_path(&[&client.der(), &TestCertificate::authority().der()], rules)
}

/// Why a path is refused that holds an intermediate, changed, between client and anchor.
fn fault_of_intermediate(change: impl FnOnce(&mut TestCertificate)) -> Option<&'static str> {
    let mut intermediate = TestCertificate { spki: rsa_spki(2048, 2), ..TestCertificate::authority() };
    change(&mut intermediate);
    let path = [TestCertificate::client().der(), intermediate.der(), TestCertificate::authority().der()];
    let path: Vec<_> = path.iter().map(Vec::as_slice).collect();
    PeerIdentity::from_path(&path, &LeafRules::default()).err().map(|fault| fault.as_str())
}

fn fault(result: &Result<PeerIdentity, CertificateFault>) -> &'static str {
    result.as_ref().err().map_or("none", CertificateFault::as_str)
}

#[test]
fn a_client_is_read_with_its_path() {
    let identity = identity_with(|client| {
        client.subject =
            name(&[(O, 0x13, b"Example"), (OU, 0x0c, b"build"), (OU, 0x0c, b"linux"), (CN, 0x0c, b"ci-7")]);
        client.extensions.push(alternative_names(&[
            (SAN_DNS, b"CI-7.Build.example.com"),
            (SAN_DNS, b"*.runners.example.com"),
            (SAN_EMAIL, b"Ci.Seven@EXAMPLE.com"),
            (SAN_IP, &[10, 0, 0, 7]),
            (SAN_IP, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 8]),
        ]));
    })
    .unwrap();
    assert_eq!(identity.common_name(), Some("ci-7"));
    assert_eq!(identity.attributes("OU").collect::<Vec<_>>(), ["build", "linux"]);
    assert_eq!(identity.dns, ["ci-7.build.example.com", "*.runners.example.com"]);
    assert_eq!(identity.emails, ["Ci.Seven@example.com"]);
    assert_eq!(identity.ips, ["10.0.0.7".parse::<IpAddr>().unwrap(), "10.0.0.8".parse().unwrap()]);
    assert_eq!(identity.issuer, [Attribute { name: "CN".into(), value: "Test CA".to_owned() }]);
    assert_eq!(identity.label(), "CN=ci-7");
    assert_eq!(identity.spiffe_id(), None);
    assert_eq!(identity.not_after(), NOT_AFTER);

    let [leaf, anchor] = identity.path.as_slice() else { panic!("two certificates") };
    assert_eq!(leaf.subject, "O=Example, OU=build, OU=linux, CN=ci-7");
    assert_eq!((leaf.serial.to_string(), leaf.not_before, leaf.not_after), ("07".to_owned(), NOT_BEFORE, NOT_AFTER));
    assert_eq!(leaf.fingerprint, identity.fingerprint);
    assert_eq!(Some(leaf.issuer), IssuerId::new(&common_name("Test CA"), &rsa_spki(2048, 1)));
    assert!(!leaf.is_anchor && anchor.is_anchor);
}

#[test]
fn a_spiffe_id_is_the_only_uri_and_the_label() {
    let uris = |uris: &[&[u8]]| {
        let names: Vec<_> = uris.iter().map(|uri| (SAN_URI, *uri)).collect();
        identity_with(|client| client.extensions.push(alternative_names(&names))).unwrap()
    };
    let identity = uris(&[b"spiffe://corp.example/ns/build/sa/ci"]);
    assert_eq!(identity.spiffe_id().map(|id| id.path()), Some("/ns/build/sa/ci"));
    assert_eq!(identity.label(), "spiffe://corp.example/ns/build/sa/ci");
    for several in [
        &[&b"spiffe://corp.example/ci"[..], b"spiffe://corp.example/admin"][..],
        &[b"spiffe://corp.example/admin", b"https://ci.example/7"],
    ] {
        let identity = uris(several);
        assert_eq!(identity.spiffe_id(), None, "an SVID has one URI");
        assert_eq!(identity.label(), "CN=ci-7", "nobody is called by an identity that nothing is granted to");
    }
    let identity = uris(&[b"spiffe://corp.example/ns/../admin"]);
    assert!(identity.uris.is_empty(), "a SPIFFE ID with dot segments is no name");
}

#[test]
fn several_common_names_make_the_common_name_unusable_and_nothing_else() {
    let two = name(&[(CN, 0x0c, b"ci-7"), (CN, 0x0c, b"admin"), (O, 0x0c, b"Example")]);
    let identity = identity_with(|client| client.subject = two).unwrap();
    assert_eq!(identity.common_name(), None);
    assert_eq!(identity.label(), "subject:CN=ci-7, CN=admin, O=Example");
}

#[test]
fn a_doubtful_value_makes_all_of_its_kind_unusable() {
    let too_long = "a".repeat(2000);
    for doubtful in [
        (0x0c, &b"admin\0.evil"[..]),
        (0x0c, b"admin\r\nX-Role: root"),
        (0x0c, "admin\u{202e}".as_bytes()),
        (0x0c, "ad\u{200b}min".as_bytes()),
        (0x0c, b"\xff\xfe"),
        (0x0c, b""),
        (0x14, b"adm\xedn"),
        (0x1e, b"\xd8\x00\x00a"),
        (0x0c, too_long.as_bytes()),
    ] {
        let subject = name(&[(CN, 0x0c, b"ci-7"), (CN, doubtful.0, doubtful.1), (O, 0x0c, b"Example")]);
        let identity = identity_with(|client| client.subject = subject).unwrap();
        assert_eq!(identity.attributes("CN").count(), 0, "{doubtful:02x?}");
        assert_eq!(identity.attributes("O").collect::<Vec<_>>(), ["Example"]);
        let expected = Unusable { subject: vec!["CN".into()], ..Unusable::default() };
        assert_eq!(identity.unusable, expected, "{doubtful:02x?}");
        assert!(!identity.path[0].subject.contains(name::is_deceptive), "{doubtful:02x?}");
    }
    for doubtful in [
        (SAN_DNS, &b"evil\0.example.com"[..]),
        (SAN_DNS, b"exa mple.com"),
        (SAN_DNS, b"a..example.com"),
        (SAN_DNS, b"*"),
        (SAN_DNS, b"ci.*.example.com"),
        (SAN_DNS, b"\xc3\xa4.example.com"),
        (SAN_EMAIL, b"no-domain"),
        (SAN_EMAIL, b"\"a b\"@example.com"),
        (SAN_EMAIL, b"a@b@example.com"),
        (SAN_URI, b"no-scheme"),
        (SAN_URI, b"https://example.com/a b"),
        (SAN_URI, b"https://example.com/\xc3\xa4"),
        (SAN_URI, b"SPIFFE://corp.example/ci"),
        (SAN_IP, &[10, 0, 0]),
    ] {
        let good: [(u8, &[u8]); 4] = [
            (SAN_DNS, b"ci.example.com"),
            (SAN_EMAIL, b"ci@example.com"),
            (SAN_URI, b"https://ci.example.com"),
            (SAN_IP, &[10, 0, 0, 7]),
        ];
        let names: Vec<_> = good.into_iter().chain([doubtful]).collect();
        let identity = identity_with(|client| client.extensions.push(alternative_names(&names))).unwrap();
        let counts = [identity.dns.len(), identity.emails.len(), identity.uris.len(), identity.ips.len()];
        let expected = good.map(|(tag, _)| usize::from(tag != doubtful.0));
        assert_eq!(counts, expected, "{doubtful:02x?}");
        let Unusable { dns, emails, uris, ips, .. } = identity.unusable;
        assert_eq!([dns, emails, uris, ips], good.map(|(tag, _)| tag == doubtful.0), "{doubtful:02x?}");
    }
}

#[test]
fn a_certificate_without_a_usable_name_is_refused() {
    let empty = identity_with(|client| client.subject = name(&[]));
    assert_eq!(fault(&empty), "no_usable_name");
    let only_doubtful = identity_with(|client| client.subject = common_name("a\0b"));
    assert_eq!(fault(&only_doubtful), "no_usable_name");
    let contradicting = |more: &[(&[u8], u8, &[u8])], uris: &[&[u8]]| {
        let attributes = [&[(CN, 0x0c, &b"a"[..]), (CN, 0x0c, b"b")], more].concat();
        let names: Vec<_> = uris.iter().map(|uri| (SAN_URI, *uri)).collect();
        identity_with(|client| {
            client.subject = name(&attributes);
            client.extensions.push(alternative_names(&names));
        })
    };
    let (one, other, page) =
        (&b"spiffe://corp.example/a"[..], &b"spiffe://corp.example/b"[..], &b"https://a.example"[..]);
    for (more, uris, expected) in [
        (&[][..], &[][..], "no_usable_name"),
        (&[], &[one, other], "no_usable_name"),
        (&[(OU, 0x0c, &b"build"[..])], &[], "none"),
        (&[], &[one], "none"),
        (&[], &[one, page], "none"),
    ] {
        assert_eq!(fault(&contradicting(more, uris)), expected, "{more:?} {uris:?}");
    }
    let by_address = identity_with(|client| {
        client.subject = name(&[]);
        client.extensions.push(alternative_names(&[(SAN_IP, &[10, 0, 0, 7])]));
    });
    assert_eq!(by_address.unwrap().label(), "IP:10.0.0.7");
}

#[test]
fn labels_and_subjects_cannot_pretend_to_more_attributes() {
    let identity = identity_with(|client| client.subject = common_name("ci-7, O=Admins")).unwrap();
    assert_eq!(identity.label(), "CN=ci-7\\, O\\=Admins");
    assert_eq!(identity.path[0].subject, "CN=ci-7\\, O\\=Admins");
    let identity = identity_with(|client| client.subject = common_name(&"ä".repeat(400))).unwrap();
    assert_eq!(identity.label().chars().count(), 272);
}

#[test]
fn usages_other_than_a_tls_client_are_refused() {
    let usage = |extensions: &[Vec<u8>]| fault(&identity_with(|client| client.extensions = extensions.to_vec()));
    assert_eq!(usage(&[]), "none", "absent usages restrict nothing");
    assert_eq!(usage(&[key_usage(0x80)]), "none");
    assert_eq!(usage(&[key_usage(0x08)]), "none");
    assert_eq!(usage(&[key_usage(0x20)]), "wrong_usage");
    assert_eq!(usage(&[extended_key_usage(&[1, 2])]), "none");
    assert_eq!(usage(&[extended_key_usage(&[1])]), "wrong_usage");
    assert_eq!(usage(&[extended_key_usage(&[0])]), "wrong_usage", "any is not clientAuth");
    assert_eq!(usage(&[basic_constraints_ca()]), "ca_as_leaf");
    let rules = LeafRules { require_eku: true, ..LeafRules::default() };
    assert_eq!(fault(&identity_by(&rules, |client| client.extensions = vec![key_usage(0x80)])), "wrong_usage");
    assert_eq!(fault(&identity_by(&rules, |_| {})), "none");
}

#[test]
fn version_1_needs_permission() {
    let v1 = |client: &mut TestCertificate| {
        client.version = 1;
        client.extensions.clear();
    };
    assert_eq!(fault(&identity_with(v1)), "version_1");
    assert_eq!(fault(&identity_by(&LeafRules { allow_v1: true, ..LeafRules::default() }, v1)), "none");
    let with_extensions =
        identity_by(&LeafRules { allow_v1: true, ..LeafRules::default() }, |client| client.version = 1);
    assert_eq!(fault(&with_extensions), "malformed");
}

#[test]
fn weak_signatures_are_refused_below_the_anchor_only() {
    assert_eq!(fault(&identity_with(|client| client.algorithm = algorithm(SHA1_RSA))), "weak_signature");
    assert_eq!(fault_of_intermediate(|ca| ca.algorithm = algorithm(SHA1_RSA)), Some("weak_signature"));
    let anchor = TestCertificate { algorithm: algorithm(SHA1_RSA), ..TestCertificate::authority() };
    let path = [TestCertificate::client().der(), anchor.der()];
    assert!(PeerIdentity::from_path(&[&path[0], &path[1]], &LeafRules::default()).is_ok());
}

#[test]
fn the_hash_of_pss_counts() {
    let pss = |hash: Option<&[u8]>| {
        let hash = hash.map(|oid| tlv(0xa0, &sequence(&[tlv(der::OID, oid)]))).unwrap_or_default();
        sequence(&[tlv(der::OID, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a]), sequence(&[hash])])
    };
    let sha256 = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
    assert_eq!(fault(&identity_with(|client| client.algorithm = pss(Some(&sha256)))), "none");
    assert_eq!(fault(&identity_with(|client| client.algorithm = pss(None))), "weak_signature", "SHA-1 by default");
    assert_eq!(
        fault(&identity_with(|client| client.algorithm = pss(Some(&[0x2b, 0x0e, 0x03, 0x02, 0x1a])))),
        "weak_signature"
    );
}

#[test]
fn weak_keys_are_refused_anywhere() {
    assert_eq!(fault(&identity_with(|client| client.spki = rsa_spki(1024, 7))), "weak_key");
    assert_eq!(fault_of_intermediate(|ca| ca.spki = rsa_spki(1024, 2)), Some("weak_key"));
    let anchor = TestCertificate { spki: rsa_spki(1024, 1), ..TestCertificate::authority() };
    let path = [TestCertificate::client().der(), anchor.der()];
    assert_eq!(fault(&PeerIdentity::from_path(&[&path[0], &path[1]], &LeafRules::default())), "weak_key");
    let p256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    assert_eq!(fault(&identity_with(|client| client.spki = ec_spki(&p256))), "none");
    let secp256k1 = [0x2b, 0x81, 0x04, 0x00, 0x0a];
    assert_eq!(fault(&identity_with(|client| client.spki = ec_spki(&secp256k1))), "weak_key");
}

#[test]
fn intermediates_must_allow_clients() {
    assert_eq!(fault_of_intermediate(|_| {}), None);
    assert_eq!(fault_of_intermediate(|ca| ca.extensions.push(extended_key_usage(&[2]))), None);
    assert_eq!(fault_of_intermediate(|ca| ca.extensions.push(extended_key_usage(&[0]))), None);
    assert_eq!(fault_of_intermediate(|ca| ca.extensions.push(extended_key_usage(&[1]))), Some("wrong_usage"));
    let v1 = |ca: &mut TestCertificate| (ca.version, ca.extensions) = (1, Vec::new());
    assert_eq!(fault_of_intermediate(v1), Some("version_1"));
}

#[test]
fn malformed_certificates_are_refused() {
    let duplicate = |client: &mut TestCertificate| client.extensions.push(key_usage(0x80));
    assert_eq!(fault(&identity_with(duplicate)), "duplicate_extension");
    assert_eq!(fault_of_intermediate(|ca| ca.extensions.push(key_usage(0x06))), Some("duplicate_extension"));
    for serial in [vec![], vec![0, 1], vec![0xff, 0xff], vec![1; 22]] {
        assert_eq!(fault(&identity_with(|client| client.serial = serial.clone())), "malformed", "{serial:?}");
    }
    let garbled = extension(&[0x55, 0x1d, 0x11], false, &[0x30, 0x02, 0x82, 0x05]);
    assert_eq!(fault(&identity_with(|client| client.extensions.push(garbled))), "malformed");
    let names: Vec<_> = (0..300).map(|_| (SAN_DNS, &b"a.example"[..])).collect();
    assert_eq!(fault(&identity_with(|client| client.extensions.push(alternative_names(&names)))), "malformed");
    let huge = "a".repeat(70_000);
    assert_eq!(fault(&identity_with(|client| client.subject = common_name(&huge))), "malformed");
}

#[test]
fn every_cut_of_a_certificate_is_refused() {
    let client = TestCertificate::client().der();
    let authority = TestCertificate::authority().der();
    for length in 0..client.len() {
        let result = PeerIdentity::from_path(&[&client[..length], &authority], &LeafRules::default());
        assert_eq!(fault(&result), "malformed", "{length}");
    }
    let longer = [client.as_slice(), &[0]].concat();
    assert_eq!(fault(&PeerIdentity::from_path(&[&longer, &authority], &LeafRules::default())), "malformed");
}

#[test]
fn paths_have_an_anchor_and_an_end() {
    let rules = LeafRules::default();
    let (client, authority) = (TestCertificate::client().der(), TestCertificate::authority().der());
    assert_eq!(fault(&PeerIdentity::from_path(&[], &rules)), "malformed");
    assert_eq!(fault(&PeerIdentity::from_path(&[&client], &rules)), "anchor_as_leaf");
    let mut maze = vec![client.as_slice()];
    maze.extend(std::iter::repeat_n(authority.as_slice(), 16));
    assert_eq!(fault(&PeerIdentity::from_path(&maze, &rules)), "malformed");
}

#[test]
fn the_first_certificate_to_run_out_ends_the_path() {
    let client = TestCertificate::client().der();
    let authority = TestCertificate { not_after: "300101000000Z", ..TestCertificate::authority() }.der();
    let identity = PeerIdentity::from_path(&[&client, &authority], &LeafRules::default()).unwrap();
    assert_eq!(identity.not_after(), 1_893_456_000);
}

#[test]
fn issuers_differ_by_key_and_not_by_spelling() {
    let key = rsa_spki(2048, 1);
    let id = |name: &[u8], key: &[u8]| IssuerId::new(name, key).unwrap();
    let ours = id(&common_name("Test CA"), &key);
    assert_ne!(ours, id(&common_name("Test CA"), &rsa_spki(2048, 2)));
    assert_ne!(ours, id(&common_name("Test CB"), &key));
    assert_ne!(ours, id(&name(&[(O, 0x0c, b"Test CA")]), &key));
    assert_eq!(ours, id(&name(&[(CN, 0x13, b" test  ca ")]), &key));
    assert_eq!(ours, id(&name(&[(CN, 0x1e, b"\0T\0e\0s\0t\0 \0C\0A")]), &key));
    let (a, b) = ((CN, 0x0c, &b"a"[..]), (O, 0x0c, &b"b"[..]));
    assert_ne!(id(&name(&[a, b]), &key), id(&name(&[b, a]), &key), "the order of attributes counts");
    assert!(IssuerId::new(&[0x30, 0x01], &key).is_none());
}

#[test]
fn serials_are_printed_as_openssl_does() {
    for (content, text) in [
        (&[0x00][..], "00"),
        (&[0x07], "07"),
        (&[0x00, 0x80], "80"),
        (&[0x01, 0x00], "0100"),
        (&[0xff], "-01"),
        (&[0x80], "-80"),
        (&[0xff, 0x00], "-0100"),
    ] {
        assert_eq!(Serial::from_der_content(content).unwrap().to_string(), text);
    }
    let longest = [&[0x00][..], &[0xff; 20]].concat();
    assert_eq!(Serial::from_der_content(&longest).unwrap().to_string(), "ff".repeat(20));
}

#[test]
fn object_identifiers_are_dotted() {
    assert_eq!(name::dotted(CN), "2.5.4.3");
    assert_eq!(name::dotted(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]), "1.2.840.113549.1.1.11");
    assert_eq!(name::dotted(&[0x88, 0x37]), "2.999");
    assert_eq!(name::dotted(&[]), "oid-");
    assert_eq!(name::dotted(&[0x2a, 0x86]), "oid-2a86");
    assert_eq!(name::dotted(&[0xff; 20]), format!("oid-{}", "ff".repeat(20)));
}
