//! What `show` says.

use super::*;
use crate::identity::LeafRules;
use crate::revocation::Index;
use crate::tls::TrustBundle;

fn context(trust: Option<&Path>) -> Context {
    Context {
        trust: trust.map(|path| TrustBundle::load(path).unwrap()),
        revocation: Index::disabled(),
        rules: LeafRules::default(),
        passphrase: None,
        now: now(),
    }
}

fn input(path: &Path) -> Input {
    Input { name: "file".to_owned(), bytes: fs::read(path).unwrap(), exposed: false }
}

#[test]
fn what_belongs_together_is_said_and_what_does_not_is_a_fault() {
    let (directory, mut store) = new_pki();
    issue(&mut store, "one");
    issue(&mut store, "two");
    let file = |name: &str| directory.path().join("pki/clients").join(name);
    let pair = [input(&file("one/client.crt")), input(&file("one/client.key"))];
    let report = describe(&pair, &context(None));
    assert_eq!(report.faults, 0, "{}", report.text);
    for part in ["identity     spiffe://corp.example/one", "subject OU=build", "not checked", "belongs to"] {
        assert!(report.text.contains(part), "{part}: {}", report.text);
    }
    let mixed = [input(&file("one/client.crt")), input(&file("two/client.key"))];
    assert!(describe(&mixed, &context(None)).text.contains("FAULT        it belongs to none"));
    let exposed = [Input { exposed: true, ..input(&file("one/client.key")) }];
    assert!(describe(&exposed, &context(None)).text.contains("chmod 600"));
}

#[test]
fn a_certificate_is_judged_as_the_gateway_would() {
    let (directory, mut store) = new_pki();
    issue(&mut store, "ci");
    let certificate = input(&directory.path().join("pki/clients/ci/client.crt"));
    let certificate = std::slice::from_ref(&certificate);
    let bundle = store.path("client-ca.pem");
    let report = describe(certificate, &context(Some(&bundle)));
    assert!(report.faults == 0 && report.text.contains("<- CN=Test Issuing CA <- CN=Test Root CA"), "{}", report.text);

    let judge = |store: &Store| {
        let mut context = context(Some(&bundle));
        context.take_lists(vec![("ca.crl".to_owned(), fs::read(store.path("ca.crl")).unwrap())]);
        describe(certificate, &context)
    };
    assert!(judge(&store).text.contains("not revoked"));
    store.revoke(&Selection::Name("ci".to_owned()), Reason::Superseded, now()).unwrap();
    store.write_lists(ListOrder::default(), None, now()).unwrap();
    let report = judge(&store);
    assert!(report.faults == 1 && report.text.contains("is revoked (superseded)"), "{}", report.text);

    let (_other, other) = new_pki();
    let report = describe(certificate, &context(Some(&other.path("client-ca.pem"))));
    assert!(report.faults == 1 && report.text.contains("the gateway refuses it"), "{}", report.text);
    let later = Context { now: now() + days(91), ..context(None) };
    assert!(describe(certificate, &later).text.contains("FAULT        it has expired"));
}

#[test]
fn a_list_is_judged_as_revocation_would() {
    let (_directory, store) = new_pki();
    let list = input(&store.path("ca.crl"));
    let list = std::slice::from_ref(&list);
    let trusted = describe(list, &context(Some(&store.path("client-ca.pem"))));
    assert_eq!((trusted.faults, trusted.text.matches("the gateway takes it").count()), (0, 2), "{}", trusted.text);
    let (_other, other) = new_pki();
    let foreign = describe(list, &context(Some(&other.path("client-ca.pem"))));
    assert_eq!(foreign.faults, 2, "{}", foreign.text);
    assert_eq!(describe(list, &context(None)).faults, 0);
    let late = Context { now: now() + days(8), ..context(None) };
    assert!(describe(list, &late).text.contains("FAULT        it has run out"));
}

#[test]
fn broken_and_empty_files_are_faults() {
    let (_directory, store) = new_pki();
    let mut bytes = fs::read(store.path("ca.crt")).unwrap();
    bytes.truncate(100);
    for bytes in [bytes, Vec::new(), b"hello".to_vec(), vec![0x30, 0x80, 1, 2, 3]] {
        let broken = Input { name: "file".to_owned(), bytes, exposed: false };
        assert_eq!(describe(&[broken], &context(None)).faults, 1);
    }
    let body = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let broken = Input { name: "file".to_owned(), bytes: body.into(), exposed: false };
    assert_eq!(describe(&[broken], &context(None)).faults, 1);
}

/// Lists of NIST's, shown as the index reads them: what they are about, and what a delta takes back.
#[test]
fn scopes_and_deltas_are_shown_as_they_are_read() {
    let nist = |name: &str| {
        let list = input(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pkits").join(name));
        describe(std::slice::from_ref(&list), &context(None))
    };
    for (name, faults, parts) in [
        (
            "onlySomeReasonsCA4compromiseCRL.crl",
            0,
            &[
                "covers       all certificates of the distribution point C=US,",
                "CN=CRL1, revoked for keyCompromise, cAC",
            ][..],
        ),
        ("distributionPoint2CACRL.crl", 0, &["point CN=CRL1 of distributionPoint2 CA below the issuer"]),
        ("onlyContainsCACertsCACRL.crl", 0, &["covers       certificates of authorities (onlyContainsCACerts)"]),
        (
            "deltaCRLCA1deltaCRL.crl",
            0,
            &[
                "delta        changes the list number 1",
                "03 since 2010-06-01T08:30:00Z (keyCompromise)",
                "04 no longer,",
            ],
        ),
        (
            "indirectCRLCA1CRL.crl",
            1,
            &["entries      1", "FAULT        the gateway does not take it: it is an indirect"],
        ),
    ] {
        let report = nist(name);
        assert_eq!(report.faults, faults, "{}", report.text);
        for part in parts {
            assert!(report.text.contains(part), "{part}: {}", report.text);
        }
    }
    let base = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pkits/deltaCRLCA1deltaCRL.crl")).unwrap();
    let delta = Input { name: "delta".to_owned(), bytes: base, exposed: false };
    let anchor = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pkits/deltaCRLCA1Cert.crt");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pkits/TrustAnchorRootCertificate.crt");
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("ca.pem");
    let block = |path: &Path| {
        let body = data_encoding::BASE64.encode(&fs::read(path).unwrap());
        let lines: Vec<_> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let body = lines.join("\n");
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    };
    fs::write(&bundle, block(&anchor) + &block(&root)).unwrap();
    let report = describe(&[delta], &context(Some(&bundle)));
    assert!(report.text.contains("applies it once it has the list that it changes"), "{}", report.text);
}
