//! The layout of a line in the access log. Every key is always there, so that the lines form a table.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::escape::JsonLine;
use super::names::Shown as ShownNames;
use super::record::{AccessRecord, ConnectionRecord, RequestId, Text, TraceId, Verdict};
use crate::oci::{Action, RouteKind};

/// Appends the line of a record. What all records of a connection have in common is written out once for all of them.
///
/// # Errors
///
/// Fails if the record can't be serialized; the buffer then is as it was.
pub fn access_line(buffer: &mut Vec<u8>, record: &AccessRecord) -> serde_json::Result<()> {
    let connection = &*record.connection;
    let mut line = JsonLine::begin(buffer);
    First(record).write(&mut line)?;
    match connection.written.get() {
        Some(written) => line.append_written(written),
        None => {
            let before = line.len();
            Shared(connection).write(&mut line)?;
            // Whoever was faster has written the same.
            let _ = connection.written.set(line.written_since(before).into());
        }
    }
    Last(record).write(&mut line)?;
    line.end()
}

impl Serialize for AccessRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("AccessRecord", First::COUNT + Shared::COUNT + Last::COUNT)?;
        First(self).write(&mut line)?;
        Shared(&self.connection).write(&mut line)?;
        Last(self).write(&mut line)?;
        line.end()
    }
}

/// Some of a record's fields.
trait Fields {
    const COUNT: usize;

    fn write<L: SerializeStruct>(&self, line: &mut L) -> Result<(), L::Error>;
}

/// What stands before the connection.
struct First<'a>(&'a AccessRecord);

impl Fields for First<'_> {
    const COUNT: usize = 3;

    fn write<L: SerializeStruct>(&self, line: &mut L) -> Result<(), L::Error> {
        let record = self.0;
        line.serialize_field("time", &Shown(humantime::format_rfc3339_millis(record.time)))?;
        line.serialize_field("decision_id", &Shown(record.decision_id))?;
        line.serialize_field("generation", &record.generation)
    }
}

/// The connection.
struct Shared<'a>(&'a ConnectionRecord);

impl Fields for Shared<'_> {
    const COUNT: usize = 9;

    fn write<L: SerializeStruct>(&self, line: &mut L) -> Result<(), L::Error> {
        let connection = self.0;
        let client = &connection.identity;
        line.serialize_field("listener", &*connection.listener)?;
        line.serialize_field("client", &Shown(connection.client))?;
        line.serialize_field("identity", &*client.label)?;
        line.serialize_field("fingerprint", &client.fingerprint)?;
        line.serialize_field("serial", &client.serial)?;
        line.serialize_field("names", &ShownNames(&connection.peer))?;
        line.serialize_field("not_after", &rfc3339(client.not_after).map(Shown))?;
        line.serialize_field("tls_version", &connection.tls_version)?;
        line.serialize_field("cipher", &connection.cipher)
    }
}

/// The request and its answer.
struct Last<'a>(&'a AccessRecord);

impl Fields for Last<'_> {
    const COUNT: usize = 24;

    fn write<L: SerializeStruct>(&self, line: &mut L) -> Result<(), L::Error> {
        let record = self.0;
        line.serialize_field("http_version", &record.http_version)?;
        line.serialize_field("method", &record.method)?;
        line.serialize_field("target", &record.target)?;
        line.serialize_field("route", &record.route.map(RouteKind::as_str))?;
        line.serialize_field("repository", &record.repository)?;
        line.serialize_field("reference", &record.reference)?;
        line.serialize_field("action", &record.action.map(Action::as_str))?;
        line.serialize_field("decision", &record.decision.map(Verdict::as_str))?;
        line.serialize_field("rule", &record.rule.as_deref())?;
        let shadow = record.shadow.as_ref();
        line.serialize_field("shadow_decision", &shadow.map(|shadow| shadow.judged.as_str()))?;
        line.serialize_field("shadow_rule", &shadow.and_then(|shadow| shadow.rule.as_deref()))?;
        line.serialize_field("limit", &record.limit.as_deref())?;
        line.serialize_field("tag_exists", &TagExists(&record.tag_exists))?;
        line.serialize_field("status", &record.status)?;
        line.serialize_field("bytes_in", &record.bytes_in)?;
        line.serialize_field("bytes_out", &record.bytes_out)?;
        line.serialize_field("duration_ms", &millis(record.duration))?;
        line.serialize_field("upstream_ms", &record.upstream_first_byte.map(millis))?;
        line.serialize_field("upstream", &record.upstream.as_deref())?;
        line.serialize_field("outcome", &record.outcome)?;
        line.serialize_field("end_reason", &record.end_reason)?;
        match &record.request_id {
            Some(RequestId::Decision) => line.serialize_field("request_id", &Shown(record.decision_id))?,
            Some(RequestId::Client(id)) => line.serialize_field("request_id", id)?,
            None => line.serialize_field("request_id", &None::<&str>)?,
        }
        line.serialize_field("trace_id", &record.trace_id.as_ref().map(TraceId::as_str))?;
        line.serialize_field("user_agent", &record.user_agent)
    }
}

/// A time of a certificate; none beyond the years that can be written.
fn rfc3339(seconds: i64) -> Option<humantime::Rfc3339Timestamp> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds < 253_402_300_800)?;
    Some(humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)))
}

/// Tags as keys, and whether they existed.
struct TagExists<'a>(&'a [(Text, bool)]);

impl Serialize for TagExists<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(tag, exists)| (tag.as_str(), exists)))
    }
}

/// Milliseconds, with microseconds as the fraction.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Serializes by `Display`, without a string in between.
struct Shown<T>(T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
