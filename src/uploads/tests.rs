use super::*;
use crate::identity::LeafRules;
use crate::identity::testing::{
    SAN_DNS, SAN_EMAIL, SAN_IP, SAN_URI, TestCertificate, alternative_names, common_name, rsa_spki,
};

const SESSION: Session<'static> = Session { upstream: "registry", repository: "team/app", id: "3f2a" };

fn identity(change: impl FnOnce(&mut TestCertificate, &mut TestCertificate)) -> PeerIdentity {
    let (mut client, mut authority) = (TestCertificate::client(), TestCertificate::authority());
    change(&mut client, &mut authority);
    PeerIdentity::from_path(&[&client.der(), &authority.der()], &LeafRules::default()).expect("a valid path")
}

fn ci() -> PeerIdentity {
    identity(|_, _| {})
}

fn binder() -> Binder {
    Binder::new(&[7; 32])
}

#[test]
fn a_tag_is_right_for_its_client_and_session_only() {
    let binder = binder();
    let tag = binder.tag(&SESSION, &ci()).expect("a tag");
    assert_eq!(tag.len(), 24);
    assert!(binder.is_right(&SESSION, &ci(), &tag));
    for session in [
        Session { upstream: "other", ..SESSION },
        Session { repository: "team/other", ..SESSION },
        Session { repository: "team/app3", id: "f2a", ..SESSION },
        Session { id: "3f2b", ..SESSION },
    ] {
        assert!(!binder.is_right(&session, &ci(), &tag), "{session:?}");
    }
    let other = identity(|client, _| client.subject = common_name("ci-8"));
    assert!(!binder.is_right(&SESSION, &other, &tag));
    assert!(!Binder::new(&[8; 32]).is_right(&SESSION, &ci(), &tag));
}

#[test]
fn only_the_whole_tag_is_right() {
    let binder = binder();
    let tag = binder.tag(&SESSION, &ci()).expect("a tag");
    let short = tag.get(..20).expect("ASCII");
    for wrong in ["", short, &format!("{tag}AAAA"), &format!("{tag}="), &format!(" {tag}"), &tag.to_lowercase(), "é"] {
        assert!(!binder.is_right(&SESSION, &ci(), wrong), "{wrong:?}");
    }
}

#[test]
fn a_renewed_certificate_is_the_same_client() {
    let names: [(u8, &[u8]); 4] =
        [(SAN_DNS, b"a.example"), (SAN_DNS, b"b.example"), (SAN_EMAIL, b"a@b.example"), (SAN_IP, &[10, 0, 0, 7])];
    let before = identity(|client, _| client.extensions.push(alternative_names(&names)));
    let after = identity(|client, _| {
        let mut names = names;
        names.reverse();
        client.extensions.push(alternative_names(&names));
        client.serial = vec![0x55];
        client.spki = rsa_spki(2048, 9);
        client.not_after = "350101000000Z";
    });
    let tag = binder().tag(&SESSION, &before).expect("a tag");
    assert!(binder().is_right(&SESSION, &after, &tag));
}

#[test]
fn another_name_or_issuer_is_another_client() {
    let tag = binder().tag(&SESSION, &ci()).expect("a tag");
    let with = |name: (u8, &'static [u8])| identity(|client, _| client.extensions.push(alternative_names(&[name])));
    let others = [
        identity(|_, authority| authority.spki = rsa_spki(2048, 3)),
        identity(|client, authority| {
            client.issuer = common_name("Other CA");
            authority.subject = common_name("Other CA");
        }),
        with((SAN_DNS, b"ci-7")),
        with((SAN_URI, b"spiffe://corp.example/ci-7")),
        with((SAN_EMAIL, b"ci@example.com")),
        with((SAN_IP, &[10, 0, 0, 7])),
    ];
    for other in &others {
        assert!(!binder().is_right(&SESSION, other, &tag), "{other:?}");
    }
    // The same text as another kind of name is another name.
    let tags = others.iter().map(|other| binder().tag(&SESSION, other));
    assert_eq!(tags.collect::<std::collections::HashSet<_>>().len(), others.len());
}

#[test]
fn unreadable_names_are_told_apart_by_the_key() {
    let with = |name: &'static [u8], tell: u8| {
        identity(|client, _| {
            client.extensions.push(alternative_names(&[(SAN_URI, name)]));
            client.spki = rsa_spki(2048, tell);
        })
    };
    let tag = binder().tag(&SESSION, &with(b"spiffe://a/\0b", 7)).expect("a tag");
    assert!(binder().is_right(&SESSION, &with(b"spiffe://a/\0b", 7), &tag));
    assert!(!binder().is_right(&SESSION, &with(b"spiffe://a/\0c", 8), &tag));
    assert!(!binder().is_right(&SESSION, &ci(), &tag));
}

#[test]
fn a_described_identity_has_no_tag_and_a_binder_does_not_print_its_key() {
    assert_eq!(binder().tag(&SESSION, &PeerIdentity::described(crate::identity::Description::default())), None);
    assert_eq!(format!("{:?}", binder()), "Binder([redacted])");
}
