//! What is known about a request when it ends.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::ser::{Serialize, Serializer};
use ulid::Ulid;

use super::escape::cut;
use super::outcome::{EndReason, HttpVersion, Outcome};
use super::shadow::ShadowRecord;
use crate::identity::PeerIdentity;
use crate::oci::{Action, RouteKind};

/// One request, complete: the source of its metrics and of its line in the access log.
///
/// Fields a client fills are [`Text`], so that a record in the queue has a bounded size. What belongs to the
/// connection is shared by all its records.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// When the request's head was complete.
    pub time: SystemTime,
    /// Names this request in the refusal the client sees and in the gateway's own log.
    pub decision_id: DecisionId,
    /// The generation of the configuration that decided.
    pub generation: u64,
    /// The client and its TLS session.
    pub connection: Arc<ConnectionRecord>,
    /// The HTTP version of this request.
    pub http_version: HttpVersion,
    /// The method as sent.
    pub method: Text,
    /// What the policy was asked about: see [`Route::deciding_target`](crate::oci::Route::deciding_target). A mount that
    /// it refused still stands here.
    pub target: Option<Text>,
    /// The kind of route; `None` if the request was refused before it had one.
    pub route: Option<RouteKind>,
    /// The repository of the route.
    pub repository: Option<Text>,
    /// The tag, digest or upload session of the route.
    pub reference: Option<Text>,
    /// The main action; `None` for `/v2/` and for requests without a route.
    pub action: Option<Action>,
    /// What the policy said; `None` if it was not asked.
    pub decision: Option<Verdict>,
    /// The rule that decided; `None` for the default deny.
    pub rule: Option<Arc<str>>,
    /// What the shadow policy said; `None` if there is none, or no policy was asked.
    pub shadow: Option<ShadowRecord>,
    /// The limit that refused it.
    pub limit: Option<Arc<str>>,
    /// Which of the tags that it pushes existed, as far as the decision asked.
    pub tag_exists: Vec<(Text, bool)>,
    /// The status the client got; `None` if the request ended before one was sent.
    pub status: Option<u16>,
    /// Bytes of body received from the client.
    pub bytes_in: u64,
    /// Bytes of body sent to the client.
    pub bytes_out: u64,
    /// From the complete head to the end.
    pub duration: Duration,
    /// From handing the request to the upstream to the head of its answer.
    pub upstream_first_byte: Option<Duration>,
    /// The upstream's address, or the path of its socket.
    pub upstream: Option<Arc<str>>,
    /// How the request ended.
    pub outcome: Outcome,
    /// Why the connection ended, if that ended the request.
    pub end_reason: Option<EndReason>,
    /// The `X-Request-Id` that went upstream.
    pub request_id: Option<RequestId>,
    /// The trace id of the `traceparent` that went upstream.
    pub trace_id: Option<TraceId>,
    /// The `User-Agent` as sent.
    pub user_agent: Option<Text>,
}

impl AccessRecord {
    /// Takes the record out, for the place where it is finished. What stays behind has lost its texts: copying those
    /// would be a handful of allocations for each request.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let method = std::mem::take(&mut self.method);
        let texts =
            [&mut self.target, &mut self.repository, &mut self.reference, &mut self.user_agent].map(Option::take);
        let request_id = self.request_id.take();
        let mut record = self.clone();
        record.method = method;
        record.request_id = request_id;
        [record.target, record.repository, record.reference, record.user_agent] = texts;
        record
    }
}

/// What all requests of a connection have in common.
#[derive(Clone, Debug)]
pub struct ConnectionRecord {
    /// The client's address.
    pub client: SocketAddr,
    /// The name of the listener.
    pub listener: Arc<str>,
    /// The verified client.
    pub identity: ClientRecord,
    /// Its names, for the line to tell what a decision may have depended on. Bounded by what a client may send as a
    /// certificate; the line is bounded more tightly.
    pub peer: Arc<PeerIdentity>,
    /// Such as `TLSv1.3`.
    pub tls_version: Text,
    /// The cipher suite, as the TLS library names it.
    pub cipher: Text,
    /// The part of their lines that is the same for all its requests, once it was written.
    pub(super) written: OnceLock<Box<[u8]>>,
}

impl ConnectionRecord {
    /// What all requests of a connection have in common.
    #[must_use]
    pub fn new(
        client: SocketAddr,
        listener: Arc<str>,
        identity: ClientRecord,
        peer: Arc<PeerIdentity>,
        [tls_version, cipher]: [Text; 2],
    ) -> Self {
        Self { client, listener, identity, peer, tls_version, cipher, written: OnceLock::new() }
    }
}

/// The client certificate, as records name it.
#[derive(Clone, Debug)]
pub struct ClientRecord {
    /// The identity's label. Its length is bounded by what a client may send as a certificate.
    pub label: Arc<str>,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: Text,
    /// The serial number, hexadecimal.
    pub serial: Text,
    /// When the first certificate of the path runs out, in unix seconds.
    pub not_after: i64,
}

/// What the policy said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every access was allowed.
    Allow,
    /// At least one access was not.
    Deny,
}

impl Verdict {
    /// `allow` or `deny`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A short text of foreign origin, cut to [`Text::MAX`] bytes (targets to [`Text::MAX_TARGET`]) so that records have a
/// bounded size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(Box<str>);

impl Text {
    /// The longest text kept, in bytes: the length of the longest repository name, and more than a digest needs.
    pub const MAX: usize = 256;

    /// The longest target kept, in bytes: a mount between the longest repository names, or a dozen tags.
    pub const MAX_TARGET: usize = 2048;

    /// Takes as much of the text as fits; a text that was cut ends in `…`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(cut(text, Self::MAX).into())
    }

    /// Like [`Text::new`] for a target.
    #[must_use]
    pub fn target(text: String) -> Self {
        if text.len() <= Self::MAX_TARGET { Self(text.into()) } else { Self(cut(&text, Self::MAX_TARGET).into()) }
    }

    /// Like [`Text::new`] for a header value, which need not be UTF-8.
    #[must_use]
    pub fn lossy(bytes: &[u8]) -> Self {
        // One byte more than fits, so that `new` sees that there was more.
        let head = bytes.get(..=Self::MAX).unwrap_or(bytes);
        Self::new(&String::from_utf8_lossy(head))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The id by which a request can be found in the logs of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestId {
    /// The one of the decision: the client gave none.
    Decision,
    /// What the client gave.
    Client(Text),
}

/// A trace id: 32 hexadecimal digits (W3C Trace Context §3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// The trace id of a `traceparent`; `None` if that is none.
    #[must_use]
    pub fn of(traceparent: &str) -> Option<Self> {
        let digits: [u8; 32] = traceparent.as_bytes().get(3..35)?.try_into().ok()?;
        digits.iter().all(u8::is_ascii_hexdigit).then_some(Self(digits))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // All of them are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Names a decision: a ULID, so that ids sort by time.
///
/// It is a name and no secret: nothing may be granted to whoever knows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DecisionId(Ulid);

impl DecisionId {
    /// Makes a new id for a request that arrived at `now`.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self(Ulid::from_parts(u64::try_from(millis).unwrap_or(u64::MAX), fastrand::u128(..)))
    }

    /// As it is written.
    #[must_use]
    pub fn text(self) -> DecisionText {
        let mut text = [0; ulid::ULID_LEN];
        self.0.array_to_str(&mut text);
        DecisionText(text)
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

/// A decision id as it is written, without memory of its own.
#[derive(Clone, Copy, Debug)]
pub struct DecisionText([u8; ulid::ULID_LEN]);

impl DecisionText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It is ASCII (ULID specification, "Encoding").
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Records for the tests of this module and its neighbours.
#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use crate::identity::{Attribute, Description};

    /// A blob pulled by a CI job.
    pub(in crate::telemetry) fn record() -> AccessRecord {
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        AccessRecord {
            time,
            decision_id: DecisionId(Ulid::from_parts(1_700_000_000_123, 7)),
            generation: 3,
            connection: Arc::new(ConnectionRecord::new(
                SocketAddr::from(([192, 0, 2, 1], 40_000)),
                "main".into(),
                ClientRecord {
                    label: "CN=ci-7".into(),
                    fingerprint: "ab".repeat(32).as_str().into(),
                    serial: "0a".into(),
                    not_after: 1_800_000_000,
                },
                Arc::new(PeerIdentity::described(Description {
                    subject: vec![Attribute { name: "CN".into(), value: "ci-7".to_owned() }],
                    fingerprint: [0xab; 32],
                    spki: [0xcd; 32],
                    not_after: Some(1_800_000_000),
                    ..Description::default()
                })),
                ["TLSv1.3", "TLS_AES_128_GCM_SHA256"].map(Text::from),
            )),
            http_version: HttpVersion::Http11,
            method: "GET".into(),
            target: Some(Text::target("/v2/team-a/app/blobs/sha256:00".to_owned())),
            route: Some(RouteKind::Blob),
            repository: Some("team-a/app".into()),
            reference: Some("sha256:00".into()),
            action: Some(Action::Pull),
            decision: Some(Verdict::Allow),
            rule: Some("teams-pull".into()),
            shadow: None,
            limit: None,
            tag_exists: Vec::new(),
            status: Some(200),
            bytes_in: 0,
            bytes_out: 4096,
            duration: Duration::from_micros(1_500),
            upstream_first_byte: Some(Duration::from_micros(1_200)),
            upstream: Some("127.0.0.1:5000".into()),
            outcome: Outcome::Proxied,
            end_reason: None,
            request_id: None,
            trace_id: None,
            user_agent: Some("docker/29".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::layout::access_line;

    fn line(record: &AccessRecord) -> String {
        let mut buffer = Vec::new();
        access_line(&mut buffer, record).expect("records are serializable");
        String::from_utf8(buffer).expect("JSON is UTF-8")
    }

    #[test]
    fn the_layout_of_a_line() {
        let expected = concat!(
            r#"{"time":"2023-11-14T22:13:20.123Z","decision_id":"01HF7YAT3V0000000000000007","generation":3,"#,
            r#""listener":"main","client":"192.0.2.1:40000","identity":"CN=ci-7","fingerprint":"FINGERPRINT","#,
            r#""serial":"0a","names":{"subject":["CN=ci-7"],"spki":"SPKI"},"not_after":"2027-01-15T08:00:00Z","#,
            r#""tls_version":"TLSv1.3","cipher":"TLS_AES_128_GCM_SHA256","http_version":"HTTP/1.1","method":"GET","#,
            r#""target":"/v2/team-a/app/blobs/sha256:00","route":"blob","repository":"team-a/app","#,
            r#""reference":"sha256:00","action":"pull","decision":"allow","rule":"teams-pull","shadow_decision":null,"#,
            r#""shadow_rule":null,"limit":null,"tag_exists":{},"status":200,"bytes_in":0,"bytes_out":4096,"duration_ms":1.5,"#,
            r#""upstream_ms":1.2,"upstream":"127.0.0.1:5000","outcome":"proxied","end_reason":null,"#,
            r#""request_id":null,"trace_id":null,"user_agent":"docker/29"}"#,
        );
        let expected = expected.replace("FINGERPRINT", &"ab".repeat(32)).replace("SPKI", &"cd".repeat(32));
        assert_eq!(line(&samples::record()).trim_end(), expected);
    }

    #[test]
    fn a_forged_line_in_the_user_agent_stays_a_value() {
        let mut record = samples::record();
        let forged = "curl\"}\n{\"time\":\"now\",\"identity\":\"CN=admin\"}";
        record.user_agent = Some(forged.into());
        let line = line(&record);
        assert_eq!(line.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).expect("the line is JSON");
        assert_eq!(value["user_agent"], forged);
        assert_eq!(value["identity"], "CN=ci-7");
    }

    #[test]
    fn text_is_bounded_whatever_a_client_sends() {
        let long = "ü".repeat(1 << 20);
        assert!(Text::new(&long).as_str().len() <= Text::MAX);
        assert!(Text::new(&long).as_str().ends_with('…'));
        assert!(Text::lossy(long.as_bytes()).as_str().len() <= Text::MAX);
        assert!(Text::lossy(&vec![0xff; 1 << 20]).as_str().len() <= Text::MAX);
        assert_eq!(Text::lossy(b"caf\xe9").as_str(), "caf\u{fffd}");
        let exact = "x".repeat(Text::MAX);
        assert_eq!(Text::lossy(exact.as_bytes()).as_str(), exact);
    }

    #[test]
    fn decision_ids_sort_by_time_and_differ() {
        let id = |seconds| DecisionId::new(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
        assert!(id(1_700_000_000) < id(1_700_000_001));
        assert_ne!(id(1_700_000_000), id(1_700_000_000));
        assert_eq!(id(1_700_000_000).len(), 26);
    }
}
