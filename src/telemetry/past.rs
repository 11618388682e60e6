//! Access records read back: who asked what, and how it was decided.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Deserializer};

use super::names::Names;
use super::record::Verdict;
use crate::identity::{Description, PeerIdentity};
use crate::oci::{self, Route, Tag};
use crate::policy::suite::facts;
use crate::policy::{Facts, Judged, KnownTags, TlsFacts, parse_time};

/// A request of the past, as its line in the access log tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct Past {
    /// The id that the client was told.
    pub decision_id: String,
    /// When the request came, as RFC 3339.
    pub time: String,
    /// The configuration that decided.
    pub generation: u64,
    client: SocketAddr,
    /// What records and refusals call the client.
    pub identity: String,
    fingerprint: String,
    tls_version: String,
    /// The method as it was sent.
    pub method: String,
    /// Path and query as far as they were decided about; absent if the policy was not asked, and in records of versions
    /// that did not tell it.
    pub target: Option<String>,
    names: Option<Names>,
    reference: Option<String>,
    /// What the policy said, if it was asked.
    pub decision: Option<Verdict>,
    /// The rule that decided; none for the default deny.
    pub rule: Option<String>,
    /// Absent in records of versions that did not tell it.
    not_after: Option<String>,
    #[serde(default, deserialize_with = "tags")]
    tag_exists: Vec<(Tag, bool)>,
    /// The status that the client got.
    pub status: Option<u16>,
    /// How the request ended.
    pub outcome: String,
}

/// Reads which tags existed. What is no tag was pushed by nobody.
fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(Tag, bool)>, D::Error> {
    let tags = BTreeMap::<String, bool>::deserialize(deserializer)?;
    Ok(tags.into_iter().filter_map(|(tag, exists)| Some((Tag::parse(&tag).ok()?, exists))).collect())
}

/// Why a line tells of no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no access record.
    #[error("this is no access record: {0}")]
    Foreign(String),
    /// It does not hold what the decision depended on.
    #[error("the record doesn't tell {0}, so the request can't be decided again")]
    Untold(&'static str),
}

impl Past {
    /// Reads a line of the access log.
    ///
    /// # Errors
    /// [`Unreadable::Foreign`], if it is none.
    pub fn read(line: &str) -> Result<Self, Unreadable> {
        serde_json::from_str(line).map_err(|error| Unreadable::Foreign(error.to_string()))
    }

    /// Whether names of the client are missing in the record, so that deciding again may come out otherwise for that
    /// alone.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.names.as_ref().is_some_and(|names| names.cut)
    }

    /// The address that the client connected from.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.client.ip()
    }

    /// How the request came out; `None` if the policy was not asked.
    #[must_use]
    pub fn judged(&self) -> Option<Judged> {
        // Refused by something that stands before the policy. Versions that told no target told no names either.
        if self.target.is_none() && self.names.is_some() {
            return None;
        }
        let asked_mount = self.target.as_deref().is_some_and(|target| target.contains("?mount="));
        Some(match self.decision? {
            Verdict::Deny => Judged::Deny,
            // An upload that went on without its mount has no digest to be named by.
            Verdict::Allow if asked_mount && self.reference.is_none() => Judged::AllowWithoutMount,
            Verdict::Allow => Judged::Allow,
        })
    }

    /// The client. Its path is not known.
    ///
    /// # Errors
    /// [`Unreadable::Untold`], with what is missing.
    pub fn client(&self) -> Result<PeerIdentity, Unreadable> {
        let names = self.names.as_ref().ok_or(Unreadable::Untold("the client's names"))?;
        let description = names.description(&self.fingerprint).map_err(Unreadable::Untold)?;
        let not_after = self.not_after.as_deref().and_then(|text| parse_time(text).ok());
        let not_after = not_after.and_then(|time| i64::try_from(time).ok());
        Ok(PeerIdentity::described(Description { not_after, ..description }))
    }

    /// What was asked for.
    ///
    /// # Errors
    /// [`Unreadable::Untold`], with what is missing.
    pub fn route(&self) -> Result<Route, Unreadable> {
        let target = self.target.as_deref().ok_or(Unreadable::Untold("the request's target"))?;
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        // A target that was cut ends in a character that no target has.
        oci::route(&self.method, path, query).map_err(|_| Unreadable::Untold("the whole target"))
    }

    /// Everything that a decision about this client depends on, but for the rights that it is about.
    ///
    /// # Errors
    /// [`Unreadable::Untold`], with what is missing.
    pub fn facts<'a>(&'a self, client: &'a PeerIdentity) -> Result<Facts<'a>, Unreadable> {
        let time = humantime::parse_rfc3339(&self.time).map_err(|_| Unreadable::Untold("the time"))?;
        let now = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Facts {
            tls: TlsFacts::new(&self.tls_version),
            tags: KnownTags::Each(&self.tag_exists),
            ..facts(client, self.address(), now)
        })
    }

    /// The SHA-256 of the client's certificate.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether `other` is by a client with the same certificate, told in the same words.
    #[must_use]
    pub fn has_client_of(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.names == other.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::escape::json_line;
    use crate::telemetry::record::samples;
    use crate::telemetry::{AccessRecord, Text};

    fn line(record: &AccessRecord) -> String {
        let mut buffer = Vec::new();
        json_line(&mut buffer, record).expect("records are serializable");
        String::from_utf8(buffer).expect("JSON is UTF-8")
    }

    /// A record of this request, as the proxy makes it.
    fn asked(method: &str, target: &str) -> AccessRecord {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let route = oci::route(method, path, query).expect("a route");
        AccessRecord { method: method.into(), target: Some(Text::target(route.deciding_target())), ..samples::record() }
    }

    #[test]
    fn a_request_is_read_back_with_all_that_its_decision_depended_on() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (method, target, kept) in [
            ("GET", "/v2/".to_owned(), "/v2/".to_owned()),
            ("GET", "/v2/_catalog?n=5&last=a".to_owned(), "/v2/_catalog".to_owned()),
            ("HEAD", "/v2/a/b/manifests/v1".to_owned(), "/v2/a/b/manifests/v1".to_owned()),
            (
                "PUT",
                format!("/v2/a/manifests/{digest}?tag=v1&tag=v2&ns=x"),
                format!("/v2/a/manifests/{digest}?tag=v1&tag=v2"),
            ),
            (
                "POST",
                format!("/v2/a/blobs/uploads/?mount={digest}&from=b/c"),
                format!("/v2/a/blobs/uploads/?mount=sha256%3A{}&from=b%2Fc", "a".repeat(64)),
            ),
            ("PUT", format!("/v2/a/blobs/uploads/u?_state=x&digest={digest}"), "/v2/a/blobs/uploads/u".to_owned()),
        ] {
            let record = asked(method, &target);
            let past = Past::read(&line(&record)).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(past.target.as_deref(), Some(kept.as_str()));
            let route = past.route().unwrap_or_else(|e| panic!("{target}: {e}"));
            let client = past.client().unwrap_or_else(|e| panic!("{target}: {e}"));
            let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
            let original = oci::route(method, path, query).expect("a route");
            assert_eq!(route.accesses(), original.accesses(), "{target}");
            assert_eq!(client, *record.connection.peer);
            let facts = past.facts(&client).unwrap_or_else(|e| panic!("{target}: {e}"));
            assert_eq!((facts.now, facts.client), (1_700_000_000, record.connection.client.ip()));
            assert_eq!(facts.tls, TlsFacts::new("TLSv1.3"));
            assert_eq!((past.decision, past.rule.as_deref()), (Some(Verdict::Allow), Some("teams-pull")));
        }
    }

    #[test]
    fn a_target_that_was_cut_is_not_taken_for_a_shorter_one() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let tags: Vec<_> = (0..64).map(|i| format!("tag={}{i}", "t".repeat(100))).collect();
        let record = asked("PUT", &format!("/v2/a/manifests/{digest}?{}", tags.join("&")));
        assert!(record.target.as_ref().is_some_and(|target| target.as_str().len() <= Text::MAX_TARGET));
        let past = Past::read(&line(&record)).expect("a record");
        assert_eq!(past.route().expect_err("cut"), Unreadable::Untold("the whole target"));
    }

    #[test]
    fn a_refused_mount_is_told_from_one_that_was_made() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let record = asked("POST", &format!("/v2/a/blobs/uploads/?mount={digest}&from=b"));
        let made = AccessRecord { reference: Some(digest.as_str().into()), ..record.clone() };
        let judged = |record: &AccessRecord| Past::read(&line(record)).expect("a record").judged();
        assert_eq!(judged(&made), Some(Judged::Allow));
        let refused = AccessRecord { reference: None, ..record };
        assert_eq!(judged(&refused), Some(Judged::AllowWithoutMount));
        assert_eq!(judged(&AccessRecord { decision: Some(Verdict::Deny), ..refused.clone() }), Some(Judged::Deny));
        assert_eq!(judged(&AccessRecord { decision: None, ..refused.clone() }), None);
        let before_the_policy = AccessRecord { decision: Some(Verdict::Deny), target: None, ..refused };
        assert_eq!(judged(&before_the_policy), None);
    }

    #[test]
    fn lines_of_other_origin_are_named() {
        for text in ["", "{}", "[]", "{\"time\":1}", "not JSON"] {
            assert!(matches!(Past::read(text), Err(Unreadable::Foreign(_))), "{text}");
        }
        let mut value: serde_json::Value = serde_json::from_str(&line(&samples::record())).expect("JSON");
        let object = value.as_object_mut().expect("an object");
        // As versions before this wrote them.
        object.remove("names");
        object.remove("target");
        let past = Past::read(&value.to_string()).expect("a record");
        assert_eq!(past.client().expect_err("untold"), Unreadable::Untold("the client's names"));
    }
}
