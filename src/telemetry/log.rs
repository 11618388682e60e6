//! The gateway's own log, on standard error.
//!
//! A reader of standard error that stands still (a container runtime with a full disk, a terminal on hold) must not
//! hold up whoever logs: messages are handed to a thread that writes them, and dropped when too many wait.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, SystemTime};

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serialize;

use super::escape::{Escaped, cut, json_line};
use super::metrics::{Drops, Metrics};
use super::queue::{Lines, Queue, Sink};
use crate::config::{self, LogFormat, LogLevel};

/// The longest message written, in bytes; errors of other crates may quote what a client sent.
const LONGEST_MESSAGE: usize = 8 * 1024;

/// How many messages may wait for the writer. A report on a large configuration fits.
const QUEUE: usize = 4096;

/// How long the end of the process waits for the last messages to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lets the last messages be written before it goes, for some seconds at most.
#[derive(Debug)]
#[must_use = "the last messages are lost if this goes before they are written"]
pub struct Flush(());

impl Drop for Flush {
    fn drop(&mut self) {
        log::logger().flush();
    }
}

/// Sends the messages of the `log` crate, and those of panics, to standard error, one line each, with control
/// characters escaped. Who logs never waits: messages that standard error doesn't take in time are dropped, counted in
/// `metrics`, and told about in the log once it is read again.
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
/// Fails if a logger is installed already, or if no thread can be started.
pub fn init(settings: config::Log, metrics: &Metrics) -> io::Result<Flush> {
    // Not the handle of the standard library: its lock would be held for as long as a write stands still.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let logger = Logger::start(settings, Box::new(stderr), QUEUE, metrics.log_drops())?;
    let level = logger.filter.filter();
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
    log::set_max_level(level);
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => log::error!("{panic}\n{backtrace}"),
            _ => log::error!("{panic}"),
        }
    }));
    Ok(Flush(()))
}

/// What the `log` crate calls, on whatever thread logs.
struct Logger {
    filter: env_logger::Logger,
    format: LogFormat,
    queue: Queue<Vec<u8>>,
}

impl Logger {
    fn start(settings: config::Log, sink: Sink, bound: usize, drops: Drops) -> io::Result<Self> {
        let level = filter(settings.level);
        let mut builder = env_logger::Builder::new();
        match std::env::var("RUST_LOG") {
            Ok(filters) if !filters.is_empty() => builder.parse_filters(&filters),
            _ => builder
                .filter_level(level.min(LevelFilter::Warn))
                .filter_module(env!("CARGO_CRATE_NAME"), level)
                .filter_module("pingora", LevelFilter::Off),
        };
        let format = settings.format;
        let queue = Queue::start("log", bound, sink, drops, Messages { format })?;
        Ok(Self { filter: builder.build(), format, queue })
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.matches(record) {
            self.queue.offer(line(self.format, record));
        }
    }

    fn flush(&self) {
        // Nobody is left to be told.
        let _ = self.queue.flush(PATIENCE);
    }
}

/// The writer's side.
struct Messages {
    format: LogFormat,
}

impl Lines for Messages {
    type Item = Vec<u8>;

    fn append(&mut self, batch: &mut Vec<u8>, mut line: Vec<u8>) -> bool {
        let whole = !line.is_empty();
        batch.append(&mut line);
        whole
    }

    // There is no other place to say it; the metric tells.
    fn failed(&mut self, _: &io::Error) {}

    fn dropped(&mut self, batch: &mut Vec<u8>, count: u64) {
        let text = format_args!("{count} message(s) were dropped: standard error was not read in time");
        let record = Record::builder().level(Level::Warn).target(module_path!()).args(text).build();
        batch.append(&mut line(self.format, &record));
    }
}

fn line(format: LogFormat, record: &Record<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    let now = SystemTime::now();
    let written = match format {
        LogFormat::Text => text(&mut line, record, now),
        LogFormat::Json => json(&mut line, record, now),
    };
    if written.is_err() {
        // Half a line would spoil the next one.
        line.clear();
    }
    line
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
mod tests;
