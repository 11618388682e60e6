//! What a client is called: one string, made of the first kind of name that is beyond doubt.
//!
//! The string goes into logs, refusals, limits and headers for the registry, so no two kinds may ever give the same one:
//! each begins with what no other begins with, and what follows is escaped or of a syntax that can't be mistaken. A
//! common name that reads like a SPIFFE ID stays `CN=…`. What is too long to show whole ends in a hash of the whole.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::{PeerIdentity, SpiffeId, name};

/// Longest string that is given whole, in characters.
const WHOLE: usize = 256;
/// Characters that are kept of a longer one. With the hash after them it is longer than any that is given whole.
const KEPT: usize = 200;

/// A kind of name by which a client can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NameKind {
    /// The SPIFFE ID, as it is: `spiffe://corp.example/ci`.
    Spiffe,
    /// The only common name: `CN=ci-7`.
    SubjectCn,
    /// The only URI, if it is no SPIFFE ID: `URI:https://ci.example.com/7`.
    Uri,
    /// The only DNS name: `DNS:ci-7.example.com`.
    Dns,
    /// The only email address: `email:ci@example.com`.
    Email,
    /// The only IP address: `IP:10.0.0.7`.
    Ip,
    /// The whole subject, if all of it can be read: `subject:CN=ci-7, O=Example`.
    Subject,
    /// SHA-256 of the certificate: `sha256:…`. Every certificate has one, and no two the same.
    Fingerprint,
}

/// The kinds of names by which clients are called, the best first. After the last of them comes the fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameOrder(pub Vec<NameKind>);

impl Default for NameOrder {
    fn default() -> Self {
        use NameKind::{Dns, Email, Fingerprint, Ip, Spiffe, Subject, SubjectCn, Uri};
        Self(vec![Spiffe, SubjectCn, Uri, Dns, Email, Ip, Subject, Fingerprint])
    }
}

/// Which client it is, whatever certificate it shows: a hash of what it is called and of who issued its certificate.
///
/// Two authorities may vouch for one name; they mean two clients, and neither can use up what is the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId([u8; 32]);

impl ClientId {
    pub(super) fn of(identity: &PeerIdentity) -> Self {
        let mut hash = Sha256::new();
        // Of a fixed length, so that no name can pass for a part of it.
        hash.update(identity.path.first().map_or([0; 32], |leaf| *leaf.issuer.as_bytes()));
        hash.update(identity.label());
        Self(hash.finalize().into())
    }

    /// The hash: the same in each replica, and after a renewal by the same issuer.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What the client is called by this order.
pub(super) fn label(identity: &PeerIdentity, order: &NameOrder) -> String {
    let by_name = order.0.iter().find_map(|kind| kind.of(identity));
    // Only a described identity has nothing; a certificate has a fingerprint.
    let label = by_name.or_else(|| NameKind::Fingerprint.of(identity)).unwrap_or_else(|| "(no usable name)".to_owned());
    bounded(label)
}

impl NameKind {
    /// The name of this kind, if there is exactly one that counts: of several, which one does would be a guess.
    fn of(self, identity: &PeerIdentity) -> Option<String> {
        match self {
            Self::Spiffe => identity.spiffe_id().and_then(|_| only(&identity.uris)).cloned(),
            Self::SubjectCn => identity.common_name().map(|common_name| format!("CN={}", name::escape(common_name))),
            Self::Uri => {
                only(&identity.uris).filter(|uri| SpiffeId::parse(uri).is_none()).map(|uri| format!("URI:{uri}"))
            }
            Self::Dns => only(&identity.dns).map(|dns| format!("DNS:{dns}")),
            Self::Email => only(&identity.emails).map(|email| format!("email:{email}")),
            Self::Ip => only(&identity.ips).map(|ip| format!("IP:{ip}")),
            Self::Subject => {
                let readable = !identity.subject.is_empty() && identity.unusable.subject.is_empty();
                readable.then(|| format!("subject:{}", name::one_line(&identity.subject)))
            }
            Self::Fingerprint => (identity.fingerprint != [0; 32])
                .then(|| format!("sha256:{}", data_encoding::HEXLOWER.encode(&identity.fingerprint))),
        }
    }
}

fn only<T>(names: &[T]) -> Option<&T> {
    match names {
        [name] => Some(name),
        _ => None,
    }
}

fn bounded(label: String) -> String {
    if label.chars().nth(WHOLE).is_none() {
        return label;
    }
    let mut short: String = label.chars().take(KEPT).collect();
    // Writing to a String can't fail.
    let _ = write!(short, "…sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(&label)));
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{TestCertificate, rsa_spki};
    use crate::identity::{Attribute, Description, LeafRules, Unusable};

    fn attribute(name: &'static str, value: &str) -> Attribute {
        Attribute { name: name.into(), value: value.to_owned() }
    }

    /// A client with a name of each kind.
    fn everything() -> Description {
        Description {
            subject: vec![attribute("CN", "ci-7"), attribute("O", "Example")],
            dns: vec!["ci-7.example.com".to_owned()],
            uris: vec!["spiffe://corp.example/ci".to_owned()],
            emails: vec!["ci@example.com".to_owned()],
            ips: vec!["10.0.0.7".parse().expect("an address")],
            fingerprint: [0xab; 32],
            ..Description::default()
        }
    }

    fn by(kinds: &[NameKind], description: Description) -> String {
        PeerIdentity::described(description).named_by(&NameOrder(kinds.to_vec())).label().to_owned()
    }

    #[test]
    fn the_first_kind_of_the_order_that_is_there_names_the_client() {
        use NameKind::{Dns, Email, Fingerprint, Ip, Spiffe, Subject, SubjectCn, Uri};
        let hash = "sha256:".to_owned() + &"ab".repeat(32);
        for (kind, expected) in [
            (Spiffe, "spiffe://corp.example/ci"),
            (SubjectCn, "CN=ci-7"),
            (Uri, &hash),
            (Dns, "DNS:ci-7.example.com"),
            (Email, "email:ci@example.com"),
            (Ip, "IP:10.0.0.7"),
            (Subject, "subject:CN=ci-7, O=Example"),
            (Fingerprint, &hash),
        ] {
            assert_eq!(by(&[kind], everything()), expected, "{kind:?}; the fingerprint is the end of every order");
        }
        assert_eq!(by(&[Uri, Email, Dns], everything()), "email:ci@example.com");
        let page = Description { uris: vec!["https://ci.example.com/7".to_owned()], ..everything() };
        assert_eq!(by(&[Spiffe, Uri], page), "URI:https://ci.example.com/7");
    }

    #[test]
    fn an_ambiguous_name_is_passed_over() {
        use NameKind::{Dns, Email, Ip, Spiffe, Subject, SubjectCn, Uri};
        let mut twice = everything();
        twice.subject.push(attribute("CN", "admin"));
        twice.dns.push("admin.example.com".to_owned());
        twice.uris.push("spiffe://corp.example/admin".to_owned());
        twice.emails.push("admin@example.com".to_owned());
        twice.ips.push("10.0.0.1".parse().expect("an address"));
        let order = [Spiffe, Uri, SubjectCn, Dns, Email, Ip];
        assert!(by(&order, twice.clone()).starts_with("sha256:"));
        assert_eq!(by(&[Spiffe, Subject], twice), "subject:CN=ci-7, O=Example, CN=admin", "the whole is no guess");
        let unusable = Unusable { subject: vec!["OU".into()], ..Unusable::default() };
        let doubtful = Description { unusable, ..everything() };
        assert!(by(&[Subject], doubtful).starts_with("sha256:"), "a part of a subject is not the subject");
    }

    #[test]
    fn no_name_of_one_kind_is_that_of_another() {
        // Each pair: what an authority may write into one kind, and what it would be taken for.
        let common_name = |value: &str| Description { subject: vec![attribute("CN", value)], ..Description::default() };
        let uri = |value: &str| Description { uris: vec![value.to_owned()], ..Description::default() };
        let dns = |value: &str| Description { dns: vec![value.to_owned()], ..Description::default() };
        let email = |value: &str| Description { emails: vec![value.to_owned()], ..Description::default() };
        let ip = |value: &str| Description { ips: vec![value.parse().expect("an address")], ..Description::default() };
        let default = |description| PeerIdentity::described(description).label().to_owned();
        for (one, other) in [
            (common_name("spiffe://corp.example/ci"), uri("spiffe://corp.example/ci")),
            (common_name("DNS:ci-7.example.com"), dns("ci-7.example.com")),
            (email("CN=admin@example.com"), common_name("admin@example.com")),
            (dns("10.0.0.7"), ip("10.0.0.7")),
            (uri("fe80::1"), ip("fe80::1")),
            (uri("DNS:ci"), dns("ci")),
            (uri("email:ci@example.com"), email("ci@example.com")),
            (uri("IP:10.0.0.7"), ip("10.0.0.7")),
        ] {
            assert_ne!(default(one.clone()), default(other.clone()), "{one:?} {other:?}");
        }
        let whole = by(&[NameKind::Subject], common_name("ci"));
        assert_ne!(whole, by(&[NameKind::SubjectCn], common_name("ci")));
        let two = Description { subject: vec![attribute("CN", "ci"), attribute("O", "A")], ..Description::default() };
        assert_ne!(by(&[NameKind::Subject], two), by(&[NameKind::Subject], common_name("ci, O=A")));
    }

    #[test]
    fn long_names_stay_different_and_can_not_be_made_by_short_ones() {
        let name = |end: &str| {
            let subject = vec![attribute("CN", &("a".repeat(400) + end))];
            by(&[NameKind::SubjectCn], Description { subject, ..Description::default() })
        };
        let (one, other) = (name("1"), name("2"));
        assert_ne!(one, other);
        assert_eq!(one.chars().count(), KEPT + "…sha256:".chars().count() + 64);
        assert!(one.chars().count() > WHOLE, "what is given whole is shorter");
    }

    #[test]
    fn two_authorities_mean_two_clients() {
        let client = |tell: u8, serial: u8| {
            let leaf = TestCertificate { serial: vec![serial], ..TestCertificate::client() };
            let authority = TestCertificate { spki: rsa_spki(2048, tell), ..TestCertificate::authority() };
            PeerIdentity::from_path(&[&leaf.der(), &authority.der()], &LeafRules::default()).expect("a client")
        };
        let (one, other, renewed) = (client(1, 7), client(9, 7), client(1, 8));
        assert_eq!(one.label(), other.label(), "both authorities are called the same, and so is what they signed");
        assert_ne!(one.client_id(), other.client_id());
        assert_eq!(one.client_id(), renewed.client_id());
    }
}
