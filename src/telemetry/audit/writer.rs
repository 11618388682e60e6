//! The thread that writes the audit log.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc as blocking};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};

use super::line::{Event, Links, Missed, Nothing, Repeated, Started};
use super::repetitions::Repetitions;
use super::{AccessRecord, Entry, Opened, Room, Settings, Shared};
use crate::telemetry::record::ConnectionRecord;

/// How long the writer waits before it tries again to write.
const RETRY: Duration = Duration::from_millis(200);

/// A batch is written when it has grown to this size, whatever still waits.
const BATCH_BYTES: usize = 256 * 1024;

/// The thread's side of the log.
pub(super) struct Writer {
    file: File,
    /// Whether a record only counts as written when the disk has it.
    sync: bool,
    shared: Arc<Shared>,
    links: Links,
    /// Whole lines that are not written yet.
    lines: Vec<u8>,
    /// Whether the file ends in the beginning of a line.
    is_torn: bool,
    /// Whether the disk may lack what was written.
    is_unsynced: bool,
    repetitions: Repetitions,
    /// Who waits for these lines.
    waiting: Vec<oneshot::Sender<bool>>,
    flushing: Vec<blocking::SyncSender<()>>,
    /// Given back when the lines are written.
    rooms: Vec<Room>,
    /// How many of the missed records the log tells of.
    told: u64,
}

impl Writer {
    pub(super) fn new(opened: Opened, settings: &Settings, shared: Arc<Shared>, started: &Started) -> Self {
        let now = SystemTime::now();
        let mut writer = Self {
            file: opened.file,
            sync: settings.sync,
            shared,
            links: Links::new(now),
            lines: Vec::new(),
            is_torn: opened.is_torn,
            is_unsynced: false,
            repetitions: Repetitions::new(settings.refusals_per_minute),
            waiting: Vec::new(),
            flushing: Vec::new(),
            rooms: Vec::new(),
            told: 0,
        };
        writer.links.append(&mut writer.lines, Event::Started, now, started);
        writer
    }

    /// Writes until the other end is gone. What can't be written by then is lost.
    pub(super) fn run(mut self, mut entries: mpsc::UnboundedReceiver<Entry>) {
        self.write();
        while let Some(first) = entries.blocking_recv() {
            self.take(first);
            while self.lines.len() < BATCH_BYTES
                && let Ok(entry) = entries.try_recv()
            {
                self.take(entry);
            }
            self.write();
            while (!self.lines.is_empty() || self.is_unsynced) && !entries.is_closed() {
                std::thread::sleep(RETRY);
                self.write();
            }
        }
        self.tell_of_repetitions(true);
        self.links.append(&mut self.lines, Event::Stopped, SystemTime::now(), &Nothing {});
        self.write();
    }

    fn take(&mut self, entry: Entry) {
        let appended = match entry {
            Entry::Request { event, record, written, room } => {
                self.rooms.extend(room);
                self.shared.counters.recorded(event);
                if event == Event::Refused && self.is_repetition(&record) {
                    return;
                }
                let appended = self.links.append(&mut self.lines, event, SystemTime::now(), &*record);
                match written {
                    Some(waiting) if appended => self.waiting.push(waiting),
                    // Nobody is told that it is written.
                    _ => {}
                }
                appended
            }
            Entry::Admin { time, admin } => {
                self.shared.counters.recorded(Event::Admin);
                self.links.append(&mut self.lines, Event::Admin, time, &admin)
            }
            Entry::Flush(done) => {
                self.flushing.push(done);
                true
            }
        };
        if !appended {
            self.shared.miss();
        }
    }

    /// Writes what waits, as far as the file takes it, and tells everybody who has to know.
    fn write(&mut self) {
        if let Some(file) = self.shared.replacement.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.file = file.file;
            self.is_torn = file.is_torn;
        }
        self.tell_of_repetitions(false);
        let mut written = self.write_lines();
        let missed = self.shared.missed.load(Ordering::Relaxed);
        if written.is_ok() && missed > self.told {
            let content = Missed { count: missed - self.told };
            self.told = missed;
            self.links.append(&mut self.lines, Event::Missed, SystemTime::now(), &content);
            written = self.write_lines();
        }
        let was_failing = self.shared.failing.swap(written.is_err(), Ordering::AcqRel);
        self.shared.counters.failed(written.is_err());
        match &written {
            Err(error) if !was_failing => log::error!("the audit log can't be written, and is tried again: {error}"),
            Ok(()) if was_failing => log::warn!("the audit log is written again"),
            _ => {}
        }
        for waiting in self.waiting.drain(..) {
            // Whoever waits may have lost patience.
            let _ = waiting.send(written.is_ok());
        }
        if written.is_ok() {
            self.rooms.clear();
            for done in self.flushing.drain(..) {
                let _ = done.try_send(());
            }
        }
    }

    fn is_repetition(&mut self, record: &AccessRecord) -> bool {
        let ConnectionRecord { peer, identity, .. } = &*record.connection;
        self.repetitions.is_one(peer.client_id(), &identity.label, Instant::now())
    }

    /// Appends how many refusals of each client were left out, when a minute is over or the process leaves.
    fn tell_of_repetitions(&mut self, at_once: bool) {
        for (identity, count) in self.repetitions.due(Instant::now(), at_once) {
            let content = Repeated { identity: &identity, count };
            self.links.append(&mut self.lines, Event::Repeated, SystemTime::now(), &content);
        }
    }

    fn write_lines(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return self.synchronize();
        }
        if self.is_torn {
            // A line that was begun is ended, and written anew as a whole.
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let (count, outcome) = write_as_far_as_possible(&mut self.file, &self.lines);
        let written = self.lines.get(..count).unwrap_or_default();
        let whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.is_torn = whole < count;
        self.lines.drain(..whole);
        self.is_unsynced |= self.sync && count > 0;
        outcome?;
        self.synchronize()
    }

    fn synchronize(&mut self) -> io::Result<()> {
        if self.is_unsynced {
            self.file.sync_data()?;
            self.is_unsynced = false;
        }
        Ok(())
    }
}

/// How much was written before the first error, if there was one.
fn write_as_far_as_possible(file: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut count = 0;
    while let Some(rest) = bytes.get(count..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (count, Err(ErrorKind::WriteZero.into())),
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (count, Err(error)),
        }
    }
    (count, Ok(()))
}
