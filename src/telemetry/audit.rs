//! The audit log: what clients change, what they are refused, and what is done to the gateway, as a stream of its own.
//!
//! Nothing is changed in a registry before the record of it is written: a request that writes waits for that, and goes on
//! to the upstream only then. While the file can't be written, such requests are refused (or all are, or none, as the
//! configuration has it). What can't be held back, and finds no room, is counted, and the count stands in the log later.
//!
//! The records of a process are numbered and chained: each holds the hash of the line before. See [`Verifier`].

mod line;
mod repetitions;
mod verify;
mod writer;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use self::line::{Admin, Started};
pub use self::line::{AdminAction, Event};
pub use self::verify::{Report, Verifier};
use self::writer::Writer;
use super::metrics::{AuditCounters, Metrics};
use super::outcome::Outcome;
use super::record::AccessRecord;
use crate::config::{AuditLog as Settings, OnAuditFailure};

/// Owner and group may read it: it tells who did what.
const FILE_MODE: u32 = 0o640;

/// How long a request waits for its record to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// A handle to the audit log. Cheap to clone; the writer finishes when the last one is gone.
#[derive(Clone, Debug)]
pub struct AuditLog(Option<Arc<Handle>>);

#[derive(Debug)]
struct Handle {
    queue: mpsc::UnboundedSender<Entry>,
    /// Bounds the beginnings that wait in the queue. The end of a request that was begun always finds room.
    writes: Arc<Semaphore>,
    /// Bounds the refusals that wait. Apart, so that whoever may do nothing can't keep others from pushing.
    refusals: Arc<Semaphore>,
    shared: Arc<Shared>,
    on_failure: OnAuditFailure,
    path: PathBuf,
}

/// What the writer and the serving threads tell each other.
#[derive(Debug)]
struct Shared {
    /// Whether the last attempt to write failed.
    failing: AtomicBool,
    /// Records for which there was no room.
    missed: AtomicU64,
    /// A newly opened file the writer is to go on with.
    replacement: Mutex<Option<Opened>>,
    counters: AuditCounters,
}

impl Shared {
    fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
        self.counters.missed.inc();
    }
}

/// Something to be written.
#[derive(Debug)]
enum Entry {
    Request { event: Event, record: Box<AccessRecord>, written: Option<oneshot::Sender<bool>>, room: Option<Room> },
    Admin { time: SystemTime, admin: Admin },
    Flush(blocking::SyncSender<()>),
}

/// A place in the queue, given back when what took it is written.
type Room = OwnedSemaphorePermit;

/// The audit log can't be written, and the request must not go on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritable;

/// The place of the record that will tell how a request ended whose beginning is recorded. If it is dropped instead, the
/// request never went on, and that is what the log tells.
#[derive(Debug)]
pub struct Slot {
    queue: mpsc::UnboundedSender<Entry>,
    begun: Option<Box<AccessRecord>>,
}

impl Slot {
    /// Hands the record over. Never blocks, and never fails while the process runs.
    pub fn fill(mut self, record: AccessRecord) {
        self.begun = None;
        self.send(Box::new(record));
    }

    fn send(&self, record: Box<AccessRecord>) {
        // The writer outlives every handle.
        let _ = self.queue.send(Entry::Request { event: Event::Done, record, written: None, room: None });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(mut record) = self.begun.take() {
            record.outcome = Outcome::AuditUnavailable;
            self.send(record);
        }
    }
}

impl AuditLog {
    /// A log that keeps nothing, and never stands in anybody's way.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Opens the file and starts the writer.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be opened for appending, naming it, or if no thread can be started.
    pub fn start(settings: &Settings, metrics: &Metrics) -> io::Result<Self> {
        let file = open(&settings.path)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "`room` bounds what enters, but for the ends of requests that were let in by a record, and orders"
        )]
        let (queue, entries) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            failing: AtomicBool::new(false),
            missed: AtomicU64::new(0),
            replacement: Mutex::default(),
            counters: metrics.audit(),
        });
        let writer = Writer::new(file, settings, Arc::clone(&shared), &Started::now());
        std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || writer.run(entries))?;
        let [writes, refusals] = [(); 2].map(|()| Arc::new(Semaphore::new(settings.queue)));
        let (on_failure, path) = (settings.on_failure, settings.path.clone());
        Ok(Self(Some(Arc::new(Handle { queue, writes, refusals, shared, on_failure, path }))))
    }

    /// Records that a request is about to change something, and waits until that is written. The slot is for how it ends;
    /// `None` if the configuration lets requests go on without a record.
    ///
    /// # Errors
    ///
    /// [`Unwritable`] if the record can't be written, or not in time.
    pub async fn begin(&self, record: &AccessRecord) -> Result<Option<Slot>, Unwritable> {
        let Some(handle) = &self.0 else { return Ok(None) };
        let without = || match handle.on_failure {
            OnAuditFailure::Allow => {
                handle.shared.miss();
                Ok(None)
            }
            OnAuditFailure::RefuseWrites | OnAuditFailure::RefuseAll => Err(Unwritable),
        };
        if handle.shared.is_failing() {
            return without();
        }
        let write = async {
            let room = Some(handle.writes.clone().acquire_owned().await.ok()?);
            let (written, wait) = oneshot::channel();
            let record = Box::new(record.clone());
            // Also of a client that leaves while it waits, and of a record that is written too late.
            let slot = Slot { queue: handle.queue.clone(), begun: Some(record.clone()) };
            handle.queue.send(Entry::Request { event: Event::Begun, record, written: Some(written), room }).ok()?;
            wait.await.ok().filter(|written| *written)?;
            Some(slot)
        };
        match tokio::time::timeout(PATIENCE, write).await {
            Ok(Some(slot)) => Ok(Some(slot)),
            Ok(None) | Err(_) => without(),
        }
    }

    /// Records that a request is refused with this status. Waits while there is no room, and not for long: a refusal has to
    /// be answered.
    pub async fn refused(&self, record: &AccessRecord, status: u16, outcome: Outcome) {
        let Some(handle) = &self.0 else { return };
        let patience = if handle.shared.is_failing() { Duration::ZERO } else { PATIENCE };
        match tokio::time::timeout(patience, handle.refusals.clone().acquire_owned()).await {
            Ok(Ok(room)) => {
                let record = AccessRecord { status: Some(status), outcome, ..record.clone() };
                let (event, record) = (Event::Refused, Box::new(record));
                // The writer outlives every handle.
                let _ = handle.queue.send(Entry::Request { event, record, written: None, room: Some(room) });
            }
            Ok(Err(_)) | Err(_) => handle.shared.miss(),
        }
    }

    /// Whether requests that change nothing have to be refused, too.
    #[must_use]
    pub fn refuses_all(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|handle| handle.on_failure == OnAuditFailure::RefuseAll && handle.shared.is_failing())
    }

    /// Records what was done to the gateway, and how that ended. Never blocks.
    pub fn admin(&self, action: AdminAction, origin: &str, outcome: Result<&str, &str>) {
        if let Some(handle) = &self.0 {
            let admin = Admin::new(action, origin, outcome);
            // The writer outlives every handle.
            let _ = handle.queue.send(Entry::Admin { time: SystemTime::now(), admin });
        }
    }

    /// Opens the file anew, after it was rotated. The writer goes on with it from its next record on.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be opened, naming it; the one that is open stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        let Some(handle) = &self.0 else { return Ok(()) };
        let file = open(&handle.path)?;
        *handle.shared.replacement.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// Waits until everything handed over before is written, at most for `patience`. Says whether it is.
    ///
    /// Blocks; for the end of the process, after the last request.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(handle) = &self.0 else { return true };
        let (done, wait) = blocking::sync_channel(1);
        handle.queue.send(Entry::Flush(done)).is_ok() && wait.recv_timeout(patience).is_ok()
    }
}

/// The file, open at its end.
#[derive(Debug)]
struct Opened {
    file: File,
    /// Whether the file ends in the beginning of a line, for instance because a disk was full and the process killed.
    is_torn: bool,
}

fn open(path: &Path) -> io::Result<Opened> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("audit log {}: {error}", path.display()));
    let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path).map_err(named)?;
    let length = file.metadata().map_err(named)?.len();
    let mut last = [b'\n'];
    if length > 0 {
        File::open(path).and_then(|file| file.read_exact_at(&mut last, length - 1)).map_err(named)?;
    }
    Ok(Opened { file, is_torn: last != [b'\n'] })
}

#[cfg(test)]
mod tests;
