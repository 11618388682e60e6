use std::io::Write;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Instant;

use super::*;
use crate::telemetry::record::samples;

const PATIENCE: Duration = Duration::from_secs(10);

fn metrics() -> Metrics {
    Metrics::new("1.2.3", "boringssl").expect("the families are consistent")
}

fn numbered(number: u64) -> AccessRecord {
    AccessRecord { generation: number, ..samples::record() }
}

/// The numbers of the records in a file, in its order.
fn numbers(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).expect("the log is readable");
    assert!(text.is_empty() || text.ends_with('\n'), "no line is left half-written");
    let line = |line| serde_json::from_str::<serde_json::Value>(line).expect("every line is JSON");
    text.lines().map(|text| line(text)["generation"].as_u64().expect("a number")).collect()
}

#[test]
fn records_are_written_in_order_and_by_many_threads_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let metrics = metrics();
    let log = AccessLog::start(LogTarget::File(path.clone()), 10_000, &metrics).expect("starts");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1_000).for_each(|number| log.write(numbered(number))));
        }
    });
    assert!(log.flush(PATIENCE));
    let mut written = numbers(&path);
    assert_eq!(written.len(), 4_000);
    written.sort_unstable();
    assert_eq!(written, (0..4_000).map(|number| number / 4).collect::<Vec<_>>());
    assert_eq!(metrics.access_drops().queue_full.get(), 0);
}

#[test]
fn an_existing_log_is_appended_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    for number in 0..2 {
        let log = AccessLog::start(LogTarget::File(path.clone()), 8, &metrics()).expect("starts");
        log.write(numbered(number));
        assert!(log.flush(PATIENCE));
    }
    assert_eq!(numbers(&path), [0, 1]);
}

#[test]
fn a_rotated_file_is_left_and_a_new_one_begun() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, rotated) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let log = AccessLog::start(LogTarget::File(path.clone()), 8, &metrics()).expect("starts");
    log.write(numbered(1));
    assert!(log.flush(PATIENCE));
    std::fs::rename(&path, &rotated).expect("rotates");
    log.write(numbered(2));
    assert!(log.flush(PATIENCE));
    log.reopen().expect("reopens");
    log.write(numbered(3));
    assert!(log.flush(PATIENCE));
    assert_eq!(numbers(&rotated), [1, 2]);
    assert_eq!(numbers(&path), [3]);
}

#[test]
fn a_file_that_cannot_be_opened_is_named_and_the_old_one_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let (logs, moved) = (directory.path().join("logs"), directory.path().join("moved"));
    let path = logs.join("access.log");
    let error = AccessLog::start(LogTarget::File(path.clone()), 8, &metrics()).expect_err("there is no such directory");
    assert!(error.to_string().contains("logs/access.log"), "{error}");

    std::fs::create_dir(&logs).expect("a directory");
    let log = AccessLog::start(LogTarget::File(path), 8, &metrics()).expect("starts");
    std::fs::rename(&logs, &moved).expect("moves");
    log.reopen().expect_err("there is no such directory");
    log.write(numbered(1));
    assert!(log.flush(PATIENCE));
    assert_eq!(numbers(&moved.join("access.log")), [1]);
}

#[test]
fn the_log_is_not_for_everybody() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let _log = AccessLog::start(LogTarget::File(path.clone()), 8, &metrics()).expect("starts");
    let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}");
}

/// A sink that says when it stands still, and does so until its permission is dropped.
struct Stalled {
    stands: SyncSender<()>,
    permission: Receiver<()>,
}

impl Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // There is room for one word; nobody waits for more.
        let _ = self.stands.try_send(());
        // Fails as soon as the test lets go of its end.
        self.permission.recv().map_or(Ok(bytes.len()), |()| Ok(0))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stalled_disk_drops_records_and_never_blocks() {
    let metrics = metrics();
    let (held, permission) = mpsc::sync_channel(0);
    let (stands, still) = mpsc::sync_channel(1);
    let sink = Stalled { stands, permission };
    let log = AccessLog::with_sink(Box::new(sink), LogTarget::Stdout, 16, &metrics).expect("starts");
    log.write(numbered(0));
    still.recv_timeout(PATIENCE).expect("the writer writes the first record");
    let begun = Instant::now();
    (0..1_000).for_each(|number| log.write(numbered(number)));
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(metrics.access_drops().queue_full.get(), 1_000 - 16, "what exceeds the queue");
    assert!(!log.flush(Duration::from_millis(50)), "nothing was written");
    drop(held);
    assert!(log.flush(PATIENCE));
}

/// A disk with so much room left, and what was written to it.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (room, written) = &mut *self.0.lock().expect("no test panicked");
        let taken = bytes.len().min(*room);
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        *room -= taken;
        written.extend(bytes.iter().take(taken));
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_costs_the_records_it_has_no_room_for_and_no_other() {
    let (metrics, disk) = (metrics(), Disk::default());
    let log = AccessLog::with_sink(Box::new(disk.clone()), LogTarget::Stdout, 16, &metrics).expect("starts");
    for room in [10, 1 << 20] {
        disk.0.lock().expect("no test panicked").0 = room;
        log.write(numbered(room as u64));
        assert!(log.flush(PATIENCE));
    }
    assert_eq!(metrics.access_drops().write_failed.get(), 1);
    let written = disk.0.lock().expect("no test panicked").1.clone();
    let text = String::from_utf8(written).expect("JSON is UTF-8");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "the half-written line is ended: {text}");
    assert_eq!(lines[0].len(), 10);
    assert_eq!(serde_json::from_str::<serde_json::Value>(lines[1]).expect("JSON")["generation"], 1 << 20);
}

#[test]
fn a_disabled_log_is_always_done() {
    let log = AccessLog::disabled();
    log.write(samples::record());
    assert!(log.flush(Duration::ZERO));
    log.reopen().expect("nothing to do");
}
