//! The gateway's own log, on standard error.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::time::SystemTime;

use log::kv::{self, Key, Value, VisitSource};
use log::{LevelFilter, Record, SetLoggerError};
use serde::Serialize;

use super::escape::{Escaped, cut, json_line};
use crate::config::{self, LogFormat, LogLevel};

/// The longest message written, in bytes; errors of other crates may quote what a client sent.
const LONGEST_MESSAGE: usize = 8 * 1024;

/// Sends the messages of the `log` crate to standard error, one line each, with control characters escaped.
///
/// A line of text is `2026-11-22T06:10:41.123Z INFO  portcullis::edge: message`; a line of JSON has the keys `time`,
/// `level`, `target`, `message` and those of the message's own fields.
///
/// The configured level holds for this crate. Others speak from `warn` on, and pingora not at all: it logs each failed
/// request as an error of its own, which clients can cause at will and which outcomes and access records tell better.
/// The environment variable `RUST_LOG`, if set, replaces all of that.
///
/// # Errors
///
/// Fails if a logger is installed already.
pub fn init(settings: config::Log) -> Result<(), SetLoggerError> {
    let level = filter(settings.level);
    let mut builder = env_logger::Builder::new();
    match std::env::var("RUST_LOG") {
        Ok(filters) if !filters.is_empty() => builder.parse_filters(&filters),
        _ => builder
            .filter_level(level.min(LevelFilter::Warn))
            .filter_module(env!("CARGO_CRATE_NAME"), level)
            .filter_module("pingora", LevelFilter::Off),
    };
    match settings.format {
        LogFormat::Text => builder.format(|line, record| text(line, record, SystemTime::now())),
        LogFormat::Json => builder.format(|line, record| json(line, record, SystemTime::now())),
    };
    builder.try_init()
}

const fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    }
}

fn text(line: &mut impl io::Write, record: &Record<'_>, now: SystemTime) -> io::Result<()> {
    let time = humantime::format_rfc3339_millis(now);
    let message = record.args().to_string();
    let message = cut(&message, LONGEST_MESSAGE);
    write!(line, "{time} {:<5} {}: {}", record.level(), record.target(), Escaped(&message))?;
    for (key, value) in &fields(record) {
        write!(line, " {key}={}", Escaped(value))?;
    }
    writeln!(line)
}

/// The structured fields of a message, which programs read instead of its text.
fn fields(record: &Record<'_>) -> BTreeMap<String, String> {
    struct Collect(BTreeMap<String, String>);
    impl<'kvs> VisitSource<'kvs> for Collect {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
            self.0.insert(key.to_string(), cut(&value.to_string(), LONGEST_MESSAGE).into_owned());
            Ok(())
        }
    }
    let mut collected = Collect(BTreeMap::new());
    // Collecting never fails, and a field too few is no reason to lose the message.
    let _ = record.key_values().visit(&mut collected);
    collected.0
}

fn json(line: &mut impl io::Write, record: &Record<'_>, now: SystemTime) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        level: &'static str,
        target: &'a str,
        message: Cow<'a, str>,
        #[serde(flatten)]
        fields: BTreeMap<String, String>,
    }
    let message = record.args().to_string();
    let entry = Line {
        time: humantime::format_rfc3339_millis(now).to_string(),
        level: record.level().as_str(),
        target: record.target(),
        message: cut(&message, LONGEST_MESSAGE),
        fields: fields(record),
    };
    let mut buffer = Vec::new();
    json_line(&mut buffer, &entry)?;
    line.write_all(&buffer)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use log::Level;

    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>, &Record<'_>)) -> String {
        let mut line = Vec::new();
        let args = format_args!("no route to {}", "a\nb\u{1b}[31m\u{2028}");
        write(&mut line, &Record::builder().level(Level::Warn).target("portcullis::edge").args(args).build());
        String::from_utf8(line).expect("log lines are UTF-8")
    }

    fn noon() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)
    }

    #[test]
    fn a_message_of_several_lines_is_one_line_of_text() {
        let line = written(|line, record| text(line, record, noon()).expect("writes to memory"));
        assert_eq!(line, "2023-11-14T22:13:20.123Z WARN  portcullis::edge: no route to a\\nb\\u{1b}[31m\\u{2028}\n");
    }

    #[test]
    fn a_message_of_several_lines_is_one_line_of_json() {
        let line = written(|line, record| json(line, record, noon()).expect("writes to memory"));
        assert_eq!(line.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).expect("the line is JSON");
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["message"], "no route to a\nb\u{1b}[31m\u{2028}");
    }
}
