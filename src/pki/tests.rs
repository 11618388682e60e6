use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::store::BACKDATED;
use super::*;
use crate::identity::Serial;
use crate::revocation::Reason;
use crate::tls::issue::{KeyKind, LeafRequest, PrivateKey, PublicKey, Purpose};

fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(elapsed.as_secs()).unwrap()
}

fn plan() -> Plan {
    Plan {
        name: "Test".to_owned(),
        key: KeyKind::EcdsaP256,
        intermediate: true,
        root_days: 3650,
        ca_days: 1825,
        lists: ListOrder::default(),
        passphrase: None,
    }
}

fn new_pki() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pki");
    Store::create(&path, &plan(), now()).unwrap();
    let store = Store::open(&path).unwrap();
    (directory, store)
}

fn client(name: &str) -> Order {
    Order {
        name: name.to_owned(),
        request: LeafRequest {
            purpose: Purpose::Client,
            common_name: name.to_owned(),
            organizational_unit: Some("build".to_owned()),
            dns: Vec::new(),
            ips: Vec::new(),
            uris: vec![format!("spiffe://corp.example/{name}")],
        },
        key: KeySource::New(KeyKind::EcdsaP256),
        seconds: days(90),
        placement: Placement::default(),
        replace: false,
    }
}

fn issue(store: &mut Store, name: &str) -> Serial {
    store.issue(&client(name), &Passphrases::default(), now()).unwrap().serial
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_new_pki_is_there_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pki");
    let impossible = Plan { name: "x".repeat(65), ..plan() };
    assert!(Store::create(&path, &impossible, now()).is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left of the failed one");

    fs::create_dir(&path).unwrap();
    Store::create(&path, &plan(), now()).unwrap();
    for key in ["ca.key", "root.key", "index.jsonl"] {
        assert_eq!(mode(&path.join(key)), 0o600, "{key}");
    }
    assert_eq!(mode(&path), 0o700);
    let before = fs::read(path.join("ca.key")).unwrap();
    assert!(matches!(Store::create(&path, &plan(), now()), Err(PkiError::Exists(_))));
    assert_eq!(fs::read(path.join("ca.key")).unwrap(), before);
    assert!(matches!(Store::open(directory.path()), Err(PkiError::NoPki(_))));
}

#[test]
fn an_event_cut_off_anywhere_leaves_the_state_before_it() {
    let (directory, mut store) = new_pki();
    let journal = directory.path().join("pki/index.jsonl");
    let first = issue(&mut store, "first");
    let before = fs::read(&journal).unwrap().len();
    issue(&mut store, "second");
    drop(store);
    let whole = fs::read(&journal).unwrap();
    for cut in (before..whole.len()).step_by(37).chain([whole.len() - 1]) {
        fs::write(&journal, &whole[..cut]).unwrap();
        assert_eq!(Store::peek(&directory.path().join("pki")).unwrap().entries().len(), 2, "cut at {cut}");
        let mut store = Store::open(&directory.path().join("pki")).unwrap();
        assert!(store.index().find(Signer::Ca, &first).is_some());
        assert!(store.index().current(journal::Kind::Client, "second", now()).is_none());
        // What comes next is not glued to the torn end.
        store.revoke(&Selection::Name("first".to_owned()), Reason::Superseded, now()).unwrap();
        drop(store);
        let index = Store::peek(&directory.path().join("pki")).unwrap();
        assert!(index.find(Signer::Ca, &first).unwrap().revoked.is_some(), "cut at {cut}");
    }
}

#[test]
fn a_changed_journal_is_an_error_with_its_line() {
    let (directory, store) = new_pki();
    drop(store);
    let journal = directory.path().join("pki/index.jsonl");
    let mut lines = fs::read_to_string(&journal).unwrap();
    lines.insert_str(lines.find('\n').unwrap() + 1, "{\"event\":\"revo\n");
    fs::write(&journal, lines).unwrap();
    let error = Store::open(&directory.path().join("pki")).unwrap_err().to_string();
    assert!(error.contains("index.jsonl:2: "), "{error}");
}

#[test]
fn a_certificate_is_known_before_its_files_are_written() {
    let (directory, mut store) = new_pki();
    let blocked = directory.path().join("file");
    fs::write(&blocked, "").unwrap();
    let mut order = client("ci");
    order.placement.out = Some(blocked);
    assert!(store.issue(&order, &Passphrases::default(), now()).unwrap_err().is_host());
    assert!(store.index().current(journal::Kind::Client, "ci", now()).is_some());
}

#[test]
fn a_name_has_one_valid_certificate_unless_asked_for_another() {
    let (directory, mut store) = new_pki();
    issue(&mut store, "ci");
    let home = directory.path().join("pki/clients/ci");
    assert_eq!((mode(&home.join("client.key")), mode(&home.join("client.crt"))), (0o600, 0o644));
    let again = store.issue(&client("ci"), &Passphrases::default(), now());
    assert!(matches!(again, Err(PkiError::Taken { .. })));
    let replacing = Order { replace: true, ..client("ci") };
    store.issue(&replacing, &Passphrases::default(), now()).unwrap();
    let revoked = store.revoke(&Selection::Name("ci".to_owned()), Reason::KeyCompromise, now()).unwrap();
    assert_eq!(revoked.len(), 2, "a name stands for all its valid certificates");
    assert!(matches!(
        store.revoke(&Selection::Name("ci".to_owned()), Reason::KeyCompromise, now()),
        Err(PkiError::Unknown(_))
    ));
    issue(&mut store, "ci");
}

#[test]
fn a_renewal_keeps_names_and_places_and_changes_the_key() {
    let (directory, mut store) = new_pki();
    let mut order = client("ci");
    order.placement.registries = vec!["registry.example.com:5443".parse().unwrap()];
    order.placement.docker = Some(directory.path().join("certs.d"));
    store.issue(&order, &Passphrases::default(), now()).unwrap();
    let cert = directory.path().join("certs.d/registry.example.com:5443/client.cert");
    assert!(
        !directory.path().join("pki/clients/ci/containerd").try_exists().unwrap(),
        "docker's layout alone was asked for"
    );
    let before = fs::read(&cert).unwrap();

    assert!(store.due(days(30), now()).is_empty());
    let due = store.due(days(100), now());
    assert_eq!(due.len(), 1);
    let how = Renewal { seconds: None, revoke: true, same_key: false };
    let made = store.renew(&due[0], how, &Passphrases::default(), now()).unwrap();
    assert_eq!(made.label, "spiffe://corp.example/ci");
    assert_ne!(fs::read(&cert).unwrap(), before);
    let (old, new) = (&store.index().entries()[1], &store.index().entries()[2]);
    assert_eq!(old.revoked.map(|(_, reason)| reason), Some(Reason::Superseded));
    let (old, new) = (Facts::of(old.der.as_ref().unwrap()).unwrap(), Facts::of(new.der.as_ref().unwrap()).unwrap());
    assert_eq!((&old.subject, &old.uris), (&new.subject, &new.uris));
    assert_ne!(old.spki_der, new.spki_der);
    assert!((new.not_after - new.not_before - BACKDATED - days(90)).abs() < 5);
    assert_eq!(store.due(days(100), now()).len(), 1, "only the newest of a name counts");
}

#[test]
fn a_key_that_is_kept_is_that_of_the_certificate_before() {
    let (directory, mut store) = new_pki();
    let mut order = client("ci");
    order.placement.registries = vec!["registry.example.com".parse().unwrap()];
    store.issue(&order, &Passphrases::default(), now()).unwrap();
    let home = directory.path().join("pki/clients/ci");
    let keys =
        || ["client.key", "docker/certs.d/registry.example.com/client.key"].map(|file| fs::read(home.join(file)));
    let before = keys().map(Result::unwrap);
    let how = Renewal { seconds: None, revoke: false, same_key: true };
    let old = store.renewable(&Selection::Name("ci".to_owned()), now()).unwrap();
    let made = store.renew(&old, how, &Passphrases::default(), now()).unwrap();
    assert_eq!(keys().map(Result::unwrap), before);
    let of = |serial| Facts::of(store.index().find(Signer::Ca, serial).unwrap().der.as_ref().unwrap()).unwrap();
    assert_eq!(of(&made.serial).spki_der, of(&old.serial).spki_der);
    assert!(!store.index().find(Signer::Ca, &made.serial).unwrap().foreign_key, "a later renewal may make another");
    // Another key in its place is not certified, and none can't be kept.
    let other = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    fs::write(home.join("client.key"), other.to_pem(None).unwrap()).unwrap();
    let fault = store.renew(&old, how, &Passphrases::default(), now()).unwrap_err();
    assert!(fault.to_string().contains("client.key") && fault.to_string().contains("isn't the key"), "{fault}");
    fs::remove_file(home.join("client.key")).unwrap();
    let fault = store.renew(&old, how, &Passphrases::default(), now()).unwrap_err();
    assert!(fault.to_string().contains("client.key"), "{fault}");
}

#[test]
fn who_brought_a_key_keeps_it_through_renewals() {
    let (directory, mut store) = new_pki();
    let theirs = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let order = Order { key: KeySource::Theirs(theirs.public().unwrap()), ..client("bob") };
    store.issue(&order, &Passphrases::default(), now()).unwrap();
    assert!(!directory.path().join("pki/clients/bob/client.key").try_exists().unwrap());
    let old = store.renewable(&Selection::Name("bob".to_owned()), now()).unwrap();
    let how = Renewal { seconds: Some(days(10)), revoke: false, same_key: false };
    let made = store.renew(&old, how, &Passphrases::default(), now()).unwrap();
    let new = store.index().find(Signer::Ca, &made.serial).unwrap();
    assert!(PublicKey::of_certificate(new.der.as_ref().unwrap()).unwrap().belongs_to(&theirs));
}

#[test]
fn nothing_outlives_its_ca() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pki");
    Store::create(&path, &Plan { ca_days: 10, ..plan() }, now()).unwrap();
    let mut store = Store::open(&path).unwrap();
    let made = store.issue(&client("ci"), &Passphrases::default(), now()).unwrap();
    assert!(made.shortened && made.not_after <= now() + days(10));
    let later = store.issue(&client("late"), &Passphrases::default(), now() + days(11));
    assert!(matches!(later, Err(PkiError::CaExpired)));
}

#[test]
fn list_numbers_grow_even_when_the_clock_does_not() {
    let (_directory, mut store) = new_pki();
    let mut last = store.index().last_list(Signer::Ca).unwrap().number;
    for now in [now(), now() - days(400), now() + days(1)] {
        store.write_lists(ListOrder::default(), None, now).unwrap();
        let number = store.index().last_list(Signer::Ca).unwrap().number;
        assert!(number > last, "{number} after {last}");
        last = number;
    }
}

#[test]
fn the_root_is_asked_only_when_it_is_needed() {
    let (directory, mut store) = new_pki();
    let signers = |lists: &Lists| lists.signed.iter().map(|(signer, ..)| *signer).collect::<Vec<_>>();
    let away = directory.path().join("root.key");
    fs::rename(store.path("root.key"), &away).unwrap();
    let lists = store.write_lists(ListOrder::default(), None, now()).unwrap();
    assert_eq!((signers(&lists), lists.warnings.len()), (vec![Signer::Ca], 0));
    let lists = store.write_lists(ListOrder::default(), None, now() + days(151)).unwrap();
    assert_eq!(lists.warnings.len(), 1, "the root's list runs out");
    let forced = store.write_lists(ListOrder { root: true, ..ListOrder::default() }, None, now());
    assert!(matches!(forced, Err(PkiError::RootAway(_))));

    // Revoking the CA itself is the root's affair.
    let ca = store.index().entries()[0].serial;
    store.revoke(&Selection::Serial(ca), Reason::CaCompromise, now()).unwrap();
    let lists = store.write_lists(ListOrder::default(), None, now()).unwrap();
    assert!(lists.warnings[0].contains("lacks a revocation"), "{:?}", lists.warnings);
    fs::rename(&away, store.path("root.key")).unwrap();
    let lists = store.write_lists(ListOrder::default(), None, now()).unwrap();
    assert_eq!(signers(&lists), [Signer::Root, Signer::Ca]);
    assert_eq!(lists.signed[0].3, 1);
}

#[test]
fn an_entry_leaves_the_list_a_month_after_its_certificate_ended() {
    let (_directory, mut store) = new_pki();
    issue(&mut store, "ci");
    store.revoke(&Selection::Name("ci".to_owned()), Reason::Unspecified, now()).unwrap();
    for (after, entries) in [(0, 1), (100, 1), (121, 0)] {
        let lists = store.write_lists(ListOrder::default(), None, now() + days(after)).unwrap();
        assert_eq!(lists.signed.last().unwrap().3, entries, "after {after} days");
    }
}

#[test]
fn a_key_others_can_read_is_noticed() {
    let (_directory, store) = new_pki();
    assert!(store.exposed_keys().is_empty());
    fs::set_permissions(store.path("ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(store.exposed_keys(), [store.path("ca.key")]);
}

#[test]
fn openssls_database_is_read() {
    let text = "V\t271122000000Z\t\t01\tunknown\t/C=DE/CN=one\n\
                R\t271122000000Z\t261101120000Z,keyCompromise\tED75E005\tunknown\t/CN=two\n\
                R\t20501122000000Z\t261101120000Z\t03\tunknown\t/CN=three\n\
                E\t201122000000Z\t\t04\tunknown\t/O=four\n";
    let events = foreign::database(Path::new("index.txt"), text.as_bytes(), 0).unwrap();
    assert_eq!(events.len(), 6);
    let mut index = index::Index::default();
    events.into_iter().for_each(|event| index.apply(event).unwrap());
    let two = index.find(Signer::Ca, &parse_serial("ed75e005").unwrap()).unwrap();
    assert_eq!((two.name.as_str(), two.revoked), ("two", Some((1_793_534_400, Reason::KeyCompromise))));
    assert_eq!(
        index.entries().iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
        ["one", "two", "three", "/O=four"]
    );
    for broken in ["X\t271122000000Z\t\t01\tunknown\t/CN=x", "V\tnever\t\t01\tunknown\t/CN=x", "V\t271122000000Z"] {
        assert!(foreign::database(Path::new("index.txt"), broken.as_bytes(), 0).is_err(), "{broken}");
    }
}

#[test]
fn an_import_must_know_what_was_revoked() {
    let (directory, store) = new_pki();
    let import = Import {
        certificate: store.path("ca.crt"),
        key: store.path("ca.key"),
        chain: Some(store.path("root.crt")),
        crl: None,
        index: None,
        nothing_revoked: false,
        lists: ListOrder::default(),
        passphrase: None,
    };
    let target = directory.path().join("imported");
    assert!(matches!(Store::import(&target, &import, now()), Err(PkiError::HistoryMissing)));
    let nothing = Import { nothing_revoked: true, ..import.clone() };
    let headless = Import { chain: None, ..nothing.clone() };
    assert!(Store::import(&target, &headless, now()).unwrap_err().to_string().contains("--chain"));
    let leafless = Import { chain: Some(store.path("ca.crt")), ..nothing.clone() };
    assert!(Store::import(&target, &leafless, now()).unwrap_err().to_string().contains("lacks the certificate"));
    let mixed = Import { key: store.path("root.key"), ..nothing.clone() };
    assert!(Store::import(&target, &mixed, now()).unwrap_err().to_string().contains("does not belong"));
    assert!(!target.try_exists().unwrap());
    Store::import(&target, &nothing, now()).unwrap();
    issue(&mut Store::open(&target).unwrap(), "ci");
}

#[test]
fn names_end_in_paths_and_certificates_only_if_they_are_plain() {
    for good in ["ci-7", "alice@example.com", "node_3.eu"] {
        assert!(good.parse::<ClientName>().is_ok(), "{good}");
    }
    for bad in ["", ".", "..", "../x", "a/b", "-x", "a b", "a\0", "ü", &"x".repeat(65)] {
        assert!(bad.parse::<ClientName>().is_err(), "{bad:?}");
    }
    for good in ["registry.example.com", "registry:5000", "10.0.0.1:443", "[2001:db8::1]:5000", "localhost"] {
        assert!(good.parse::<RegistryHost>().is_ok(), "{good}");
    }
    for bad in ["", "https://a", "a/b", "..", "a:", "a:0", "a:70000", "a:b", "2001:db8::1", "[x]:1", "a..b", ":1"] {
        assert!(bad.parse::<RegistryHost>().is_err(), "{bad:?}");
    }
    for good in ["a.example", "*.a.example", "192.0.2.1", "::1", "localhost"] {
        assert!(good.parse::<ServerName>().is_ok(), "{good}");
    }
    for bad in ["", "*", "a.*.b", "192.0.2.1:443", "999.0.2.1", "a b", "http://a"] {
        assert!(bad.parse::<ServerName>().is_err(), "{bad:?}");
    }
    assert!("spiffe://corp.example/ci".parse::<SpiffeUri>().is_ok());
    for bad in ["spiffe://corp.example", "spiffe://Corp/x", "https://corp.example/ci", "spiffe://corp.example/a//b"] {
        assert!(bad.parse::<SpiffeUri>().is_err(), "{bad:?}");
    }
    assert!(" build".parse::<OrganizationalUnit>().is_err() && "a\nb".parse::<OrganizationalUnit>().is_err());
    for (text, wanted) in [("0A:0b", "0a0b"), ("0xED75", "ed75"), ("1", "01"), ("0000", "00")] {
        assert_eq!(parse_serial(text).unwrap().to_string(), wanted);
    }
    assert!(parse_serial("").is_err() && parse_serial("xyz").is_err() && parse_serial(&"ab".repeat(22)).is_err());
    assert_eq!(parse_reason("KEYCOMPROMISE"), Ok(Reason::KeyCompromise));
    assert!(parse_reason("bored").is_err());
}

#[test]
fn passphrases_are_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pass");
    for (content, good) in
        [("secret\n", true), ("secret\r\n", true), ("abc", false), ("", false), ("two\nlines\n", false)]
    {
        fs::write(&path, content).unwrap();
        assert_eq!(read_passphrase(&path).is_ok(), good, "{content:?}");
    }
}

mod show;
