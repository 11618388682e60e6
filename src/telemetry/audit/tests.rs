//! Tests of the log by what stands in its file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::telemetry::record::samples;

const LONG: Duration = Duration::from_secs(20);

struct Place {
    directory: tempfile::TempDir,
    metrics: Arc<Metrics>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory, metrics: Arc::new(Metrics::new("0", "test").expect("families are consistent")) }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("audit.log")
    }

    fn log(&self, on_failure: OnAuditFailure) -> AuditLog {
        let settings = Settings { path: self.file(), on_failure, sync: true, refusals_per_minute: 3, queue: 2 };
        AuditLog::start(&settings, &self.metrics).expect("the directory is writable")
    }

    /// A link to where nothing can be written.
    fn on_a_full_disk(self) -> Self {
        std::os::unix::fs::symlink("/dev/full", self.file()).expect("the directory is writable");
        self
    }

    /// The disk has room again.
    fn with_room(&self, log: &AuditLog) {
        fs::remove_file(self.file()).expect("it is a link");
        log.reopen().expect("the directory is writable");
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(future)
}

fn end(log: AuditLog, file: &Path) -> Vec<serde_json::Value> {
    assert!(log.flush(LONG), "the log is written");
    drop(log);
    let patience = std::time::Instant::now();
    loop {
        let text = fs::read_to_string(file).expect("the log is there");
        let lines = text.lines().filter(|line| !line.is_empty());
        let records: Vec<serde_json::Value> =
            lines.map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
        if records.last().is_some_and(|record| record["event"] == "stopped") {
            return records;
        }
        assert!(patience.elapsed() < LONG, "the writer doesn't leave: {text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn events(records: &[serde_json::Value]) -> Vec<&str> {
    records.iter().filter_map(|record| record["event"].as_str()).collect()
}

fn verify(text: &str) -> Report {
    let mut verifier = Verifier::default();
    for (number, line) in (1..).zip(text.lines()) {
        verifier.line("audit.log", number, line.as_bytes());
    }
    verifier.finish()
}

#[test]
fn a_write_stands_in_the_log_before_it_goes_on() {
    let place = Place::new();
    let log = place.log(OnAuditFailure::RefuseWrites);
    let slot = wait(log.begin(&samples::record())).expect("the disk has room").expect("a slot");
    let text = fs::read_to_string(place.file()).expect("the log is there");
    assert!(text.ends_with('\n') && text.contains(r#""event":"begun""#), "{text}");
    slot.fill(samples::record());
    wait(log.refused(&samples::record(), 403, Outcome::Denied));
    log.admin(AdminAction::Reload, "SIGHUP", Ok("generation 2\n"));
    log.admin(AdminAction::Upgrade, "order", Err("no"));
    let records = end(log, &place.file());
    assert_eq!(events(&records), ["started", "begun", "done", "refused", "admin", "admin", "stopped"]);
    assert_eq!(records[1]["identity"], "CN=ci-7");
    assert_eq!(records[4]["result"], "generation 2");
    assert_eq!(records[5]["ok"], false);
    let text = fs::read_to_string(place.file()).expect("the log is there");
    let report = verify(&text);
    assert!(report.is_whole() && report.findings.is_empty(), "{report:?}");
    assert!(report.chains.values().all(|chain| chain.is_stopped && chain.first == 0));
}

#[test]
fn without_room_writes_are_refused_and_nothing_is_forgotten() {
    let place = Place::new().on_a_full_disk();
    let log = place.log(OnAuditFailure::RefuseWrites);
    assert_eq!(wait(log.begin(&samples::record())).expect_err("there is no room"), Unwritable);
    assert!(!log.refuses_all());
    // Two records find room in memory, the others are counted.
    (0..5).for_each(|_| wait(log.refused(&samples::record(), 403, Outcome::Denied)));
    place.with_room(&log);
    let records = end(log, &place.file());
    let missed: u64 = records.iter().filter(|r| r["event"] == "missed").filter_map(|r| r["count"].as_u64()).sum();
    let kept = events(&records).iter().filter(|event| **event == "refused").count();
    assert_eq!((missed, kept), (3, 2), "{records:#?}");
    assert!(verify(&fs::read_to_string(place.file()).expect("the log is there")).is_whole());
}

#[test]
fn what_becomes_of_requests_is_configured() {
    let place = Place::new().on_a_full_disk();
    let log = place.log(OnAuditFailure::RefuseAll);
    wait(log.begin(&samples::record())).expect_err("there is no room");
    assert!(log.refuses_all());
    place.with_room(&log);
    assert!(log.flush(LONG));
    assert!(!log.refuses_all());
    wait(log.begin(&samples::record())).expect("there is room");

    let place = Place::new().on_a_full_disk();
    let log = place.log(OnAuditFailure::Allow);
    assert!(wait(log.begin(&samples::record())).expect("it goes on").is_none());
    assert!(!log.refuses_all());
    let off = AuditLog::disabled();
    assert!(wait(off.begin(&samples::record())).expect("it goes on").is_none());
    assert!(off.flush(LONG) && off.reopen().is_ok());
}

#[test]
fn the_chain_goes_on_in_the_next_file() {
    let place = Place::new();
    let log = place.log(OnAuditFailure::RefuseWrites);
    wait(log.begin(&samples::record())).expect("the disk has room").expect("a slot").fill(samples::record());
    assert!(log.flush(LONG));
    let first = fs::read_to_string(place.file()).expect("the log is there");
    fs::remove_file(place.file()).expect("it is there");
    log.reopen().expect("the directory is writable");
    wait(log.begin(&samples::record())).expect("the disk has room");
    let records = end(log, &place.file());
    assert_eq!(events(&records), ["begun", "done", "stopped"]);
    let second = fs::read_to_string(place.file()).expect("the log is there");
    assert!(verify(&(first + &second)).is_whole());
    let alone = verify(&second);
    assert!(alone.is_whole() && alone.chains.values().all(|chain| chain.first > 0), "{alone:?}");
}

#[test]
fn a_client_that_is_refused_all_the_time_does_not_fill_the_disk() {
    let place = Place::new();
    let log = place.log(OnAuditFailure::RefuseWrites);
    (0..500).for_each(|_| wait(log.refused(&samples::record(), 403, Outcome::Denied)));
    let records = end(log, &place.file());
    assert_eq!(events(&records), ["started", "refused", "refused", "refused", "repeated", "stopped"]);
    assert_eq!((&records[4]["identity"], &records[4]["count"]), (&"CN=ci-7".into(), &497.into()));
}

#[test]
fn who_is_refused_takes_no_room_from_who_pushes() {
    let place = Place::new().on_a_full_disk();
    let log = place.log(OnAuditFailure::RefuseWrites);
    wait(log.begin(&samples::record())).expect_err("there is no room");
    (0..5).for_each(|_| wait(log.refused(&samples::record(), 403, Outcome::Denied)));
    let Some(handle) = &log.0 else { panic!("there is a log") };
    assert_eq!(handle.refusals.available_permits(), 0, "the refusals wait");
    assert!(handle.writes.available_permits() > 0, "and there is room for pushes");
}

#[test]
fn a_request_that_was_begun_and_never_went_on_is_told() {
    let place = Place::new();
    let log = place.log(OnAuditFailure::RefuseWrites);
    // The client leaves while its record is being written.
    let record = samples::record();
    let begun = log.begin(&record);
    wait(async { drop(tokio::time::timeout(Duration::ZERO, begun).await) });
    let records = end(log, &place.file());
    assert_eq!(events(&records), ["started", "begun", "done", "stopped"]);
    assert_eq!(records[2]["outcome"], "audit_unavailable");
}

#[test]
fn a_file_that_ends_in_the_middle_of_a_line_costs_no_record() {
    let place = Place::new();
    let log = place.log(OnAuditFailure::RefuseWrites);
    end(log, &place.file());
    let mut text = fs::read_to_string(place.file()).expect("the log is there");
    text.truncate(text.len() - 20);
    fs::write(place.file(), &text).expect("writable");
    let log = place.log(OnAuditFailure::RefuseWrites);
    assert!(log.flush(LONG));
    let text = fs::read_to_string(place.file()).expect("the log is there");
    let report = verify(&text);
    assert_eq!(report.chains.len(), 2, "{text}");
    assert_eq!(report.findings.len(), 1, "the broken line is a fault: {report:?}");
    assert!(!report.is_whole());
}

#[test]
fn every_change_to_the_file_shows() {
    let place = Place::new();
    let log = place.log(OnAuditFailure::RefuseWrites);
    for _ in 0..4 {
        wait(log.begin(&samples::record())).expect("the disk has room").expect("a slot").fill(samples::record());
    }
    end(log, &place.file());
    let text = fs::read_to_string(place.file()).expect("the log is there");
    let lines: Vec<&str> = text.lines().collect();
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        verify(&lines.join("\n"))
    };
    for at in 0..lines.len() - 1 {
        let removed = changed(&|lines| drop(lines.remove(at)));
        assert_eq!(removed.is_whole(), at == 0, "without line {at}: {removed:?}");
        assert!(!changed(&|lines| lines.swap(at, at + 1)).is_whole(), "line {at} and the next");
        assert!(!changed(&|lines| lines.insert(at, lines[at].clone())).is_whole(), "line {at} twice");
        assert!(!changed(&|lines| lines[at].truncate(40)).is_whole() || at == 0, "line {at} cut");
        let altered = changed(&|lines| lines[at] = lines[at].replacen("\"event\"", " \"event\"", 1));
        assert!(!altered.is_whole(), "line {at} with one more blank");
    }
    // The beginning of a line that was written again as a whole is no fault.
    let torn = changed(&|lines| lines.insert(3, lines[3].chars().take(20).collect()));
    assert!(torn.is_whole() && torn.findings.len() == 1, "{torn:?}");
    let junk = changed(&|lines| *lines.last_mut().expect("there are lines") = "junk".to_owned());
    assert!(!junk.is_whole(), "the last line is junk");
    let headless = changed(&|lines| lines[0] = lines[0].replace(&"0".repeat(64), &"1".repeat(64)));
    assert!(!headless.is_whole(), "a first record with something before it");
    // Two processes, one into the other's lines.
    let other = Place::new();
    end(other.log(OnAuditFailure::RefuseWrites), &other.file());
    let others = fs::read_to_string(other.file()).expect("the log is there");
    let mixed = changed(&|lines| others.lines().for_each(|line| lines.insert(2, line.to_owned())));
    assert!(!mixed.is_whole(), "the other's lines are in the wrong order");
    let mixed = changed(&|lines| others.lines().rev().for_each(|line| lines.insert(2, line.to_owned())));
    assert!(mixed.is_whole() && mixed.chains.len() == 2, "{mixed:?}");
}
