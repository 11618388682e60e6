//! The names of a client in a record: what a policy sees of the certificate, written and read back.

use std::fmt::Display;
use std::net::IpAddr;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::identity::{Attribute, Description, PeerIdentity, Unusable};

/// Bytes of names that one record tells. Certificates in practice hold some hundreds; one made to fill disks could hold
/// a hundred times this.
const BUDGET: usize = 4096;

/// Writes the names of an identity as an object, without the kinds that it has none of.
///
/// A name stands there whole or not at all: a part of a name would be another name. If some are left out for their
/// length, `cut` is true. Attributes of types without a short name are left out, for no policy can name them.
pub(super) struct Shown<'a>(pub(super) &'a PeerIdentity);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let identity = self.0;
        let mut room = Room { left: BUDGET, cut: false };
        // What is unusable comes first: rules that deny take it for a match. Then what grants are most often made to.
        let unusable = room.take(unusable_kinds(&identity.unusable).into_iter());
        let uris = room.take(identity.uris.iter().cloned());
        let subject = room.take(attributes(&identity.subject));
        let dns = room.take(identity.dns.iter().cloned());
        let emails = room.take(identity.emails.iter().cloned());
        let ips = room.take(identity.ips.iter().map(ToString::to_string));
        let issuer = room.take(attributes(&identity.issuer));
        let lists = [
            ("subject", subject),
            ("issuer", issuer),
            ("dns", dns),
            ("uri", uris),
            ("email", emails),
            ("ip", ips),
            ("unusable", unusable),
        ];
        let present = lists.iter().filter(|(_, names)| !names.is_empty()).count();
        let mut object = serializer.serialize_struct("Names", present + 1 + usize::from(room.cut))?;
        for (key, names) in lists.iter().filter(|(_, names)| !names.is_empty()) {
            object.serialize_field(key, names)?;
        }
        object.serialize_field("spki", &data_encoding::HEXLOWER.encode(&identity.spki))?;
        if room.cut {
            object.serialize_field("cut", &true)?;
        }
        object.end()
    }
}

/// What is left of the budget.
struct Room {
    left: usize,
    cut: bool,
}

impl Room {
    fn take(&mut self, names: impl Iterator<Item = String>) -> Vec<String> {
        let mut kept = Vec::new();
        for name in names {
            match self.left.checked_sub(name.len()) {
                Some(left) => {
                    self.left = left;
                    kept.push(name);
                }
                None => self.cut = true,
            }
        }
        kept
    }
}

fn attributes(attributes: &[Attribute]) -> impl Iterator<Item = String> {
    let short = attributes.iter().filter(|attribute| is_short(&attribute.name));
    short.map(|attribute| pair(&attribute.name, &attribute.value))
}

/// Whether it is a short name, and no object identifier in dotted form.
fn is_short(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
}

fn pair(name: impl Display, value: impl Display) -> String {
    format!("{name}={value}")
}

/// Words such as `dns` and `subject=CN`.
fn unusable_kinds(unusable: &Unusable) -> Vec<String> {
    let Unusable { subject, issuer, dns, uris, emails, ips } = unusable;
    let typed = [("subject", subject), ("issuer", issuer)]
        .into_iter()
        .flat_map(|(part, types)| types.iter().filter(|name| is_short(name)).map(move |name| pair(part, name)));
    let kinds = [("dns", dns), ("uri", uris), ("email", emails), ("ip", ips)];
    typed.chain(kinds.into_iter().filter(|(_, unusable)| **unusable).map(|(kind, _)| kind.to_owned())).collect()
}

/// The names of a record, read back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Names {
    subject: Vec<String>,
    issuer: Vec<String>,
    dns: Vec<String>,
    uri: Vec<String>,
    email: Vec<String>,
    ip: Vec<IpAddr>,
    unusable: Vec<String>,
    spki: String,
    /// Whether names are missing.
    pub(super) cut: bool,
}

impl Names {
    /// What they describe, with the certificate's fingerprint, or what of it no record of ours would say.
    pub(super) fn description(&self, fingerprint: &str) -> Result<Description, &'static str> {
        Ok(Description {
            subject: read_attributes(&self.subject)?,
            issuer: read_attributes(&self.issuer)?,
            dns: self.dns.clone(),
            uris: self.uri.clone(),
            emails: self.email.clone(),
            ips: self.ip.clone(),
            unusable: read_unusable(&self.unusable)?,
            fingerprint: read_hash(fingerprint).ok_or("fingerprint")?,
            spki: read_hash(&self.spki).ok_or("names.spki")?,
            not_after: None,
        })
    }
}

fn read_attributes(pairs: &[String]) -> Result<Vec<Attribute>, &'static str> {
    let read = |pair: &String| {
        let (name, value) = pair.split_once('=').ok_or("names: an attribute without a value")?;
        Ok(Attribute { name: name.to_owned().into(), value: value.to_owned() })
    };
    pairs.iter().map(read).collect()
}

fn read_unusable(kinds: &[String]) -> Result<Unusable, &'static str> {
    let mut unusable = Unusable::default();
    for kind in kinds {
        match kind.split_once('=').unwrap_or((kind, "")) {
            ("subject", name) => unusable.subject.push(name.to_owned().into()),
            ("issuer", name) => unusable.issuer.push(name.to_owned().into()),
            ("dns", _) => unusable.dns = true,
            ("uri", _) => unusable.uris = true,
            ("email", _) => unusable.emails = true,
            ("ip", _) => unusable.ips = true,
            _ => return Err("names.unusable"),
        }
    }
    Ok(unusable)
}

fn read_hash(hex: &str) -> Option<[u8; 32]> {
    data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: &str, value: &str) -> Attribute {
        Attribute { name: name.to_owned().into(), value: value.to_owned() }
    }

    fn written(identity: &PeerIdentity) -> serde_json::Value {
        serde_json::to_value(Shown(identity)).expect("names are serializable")
    }

    fn read(value: serde_json::Value) -> Names {
        serde_json::from_value(value).expect("names can be read back")
    }

    /// One of everything.
    fn full() -> Description {
        Description {
            subject: vec![attribute("CN", "a=b, \"c\"\\"), attribute("OU", "x"), attribute("OU", "y")],
            issuer: vec![attribute("CN", "Example CA")],
            dns: vec!["a.example.com".to_owned(), "*.b.example.com".to_owned()],
            uris: vec!["spiffe://example.com/a".to_owned()],
            emails: vec!["a@example.com".to_owned()],
            ips: vec!["192.0.2.1".parse().expect("an address"), "2001:db8::1".parse().expect("an address")],
            unusable: Unusable {
                subject: vec!["UID".into()],
                issuer: vec!["O".into()],
                dns: true,
                uris: true,
                emails: true,
                ips: true,
            },
            fingerprint: [0xab; 32],
            spki: [0x01; 32],
            not_after: None,
        }
    }

    #[test]
    fn names_are_read_back_as_they_were() {
        for description in [full(), Description { dns: vec!["a".to_owned()], ..Description::default() }] {
            let identity = PeerIdentity::described(description.clone());
            let names = read(written(&identity));
            let fingerprint = data_encoding::HEXLOWER.encode(&identity.fingerprint);
            assert_eq!(names.description(&fingerprint), Ok(description));
            assert!(!names.cut);
        }
    }

    #[test]
    fn kinds_without_names_take_no_room() {
        let identity = PeerIdentity::described(Description { dns: vec!["a".to_owned()], ..Description::default() });
        let keys: Vec<_> = written(&identity).as_object().expect("an object").keys().cloned().collect();
        assert_eq!(keys, ["dns", "spki"]);
    }

    #[test]
    fn many_names_are_cut_between_names_and_marked() {
        let long = |i: usize| format!("{i}.{}.example.com", "x".repeat(60));
        let mut description = full();
        description.dns = (0..256).map(long).collect();
        let identity = PeerIdentity::described(description.clone());
        let value = written(&identity);
        assert!(value.to_string().len() < BUDGET + 1024, "{}", value.to_string().len());
        let names = read(value);
        assert!(names.cut);
        let kept = names.description(&"ab".repeat(32)).expect("a description");
        assert!(!kept.dns.is_empty() && kept.dns.iter().all(|name| description.dns.contains(name)), "{:?}", kept.dns);
        assert_eq!((kept.subject, kept.unusable), (description.subject, description.unusable));
    }

    #[test]
    fn attributes_that_no_policy_can_name_are_left_out() {
        let subject = vec![attribute("CN", "a"), attribute("1.2.3.4", "b")];
        let identity = PeerIdentity::described(Description { subject, ..Description::default() });
        assert_eq!(written(&identity)["subject"], serde_json::json!(["CN=a"]));
    }

    #[test]
    fn what_no_record_says_is_refused() {
        let names = read(serde_json::json!({ "spki": "01".repeat(32), "subject": ["CN"] }));
        assert!(names.description(&"ab".repeat(32)).is_err());
        let names = read(serde_json::json!({ "spki": "01".repeat(32), "unusable": ["cn"] }));
        assert_eq!(names.description(&"ab".repeat(32)), Err("names.unusable"));
        assert_eq!(Names::default().description(&"ab".repeat(32)), Err("names.spki"));
    }
}
