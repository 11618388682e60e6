//! The audit log: what clients change, what they are refused, and what is done to the gateway, as a stream of its own.
//!
//! Nothing is changed in a registry before the record of it is written: a request that writes waits for that, and goes on
//! to the upstream only then. While the file can't be written, such requests are refused (or all are, or none, as the
//! configuration has it). What can't be held back, and finds no room, is counted, and the count stands in the log later.
//!
//! The records of a process are numbered and chained: each holds the hash of the line before. See [`Verifier`].

mod line;
mod verify;
mod writer;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
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
    /// Bounds what waits in the queue, but for the ends of requests whose beginning is recorded.
    room: Arc<Semaphore>,
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
    replacement: Mutex<Option<File>>,
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

/// The place of one record that will come: the end of a request that changes something, or that is refused.
#[derive(Debug)]
pub struct Slot {
    event: Event,
    queue: mpsc::UnboundedSender<Entry>,
    room: Option<Room>,
}

impl Slot {
    /// Hands the record over. Never blocks, and never fails while the process runs.
    pub fn fill(self, record: AccessRecord) {
        let Self { event, queue, room } = self;
        // The writer outlives every handle.
        let _ = queue.send(Entry::Request { event, record: Box::new(record), written: None, room });
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
        let writer = Writer::new(file, settings.sync, Arc::clone(&shared), &Started::now());
        std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || writer.run(entries))?;
        let room = Arc::new(Semaphore::new(settings.queue));
        let (on_failure, path) = (settings.on_failure, settings.path.clone());
        Ok(Self(Some(Arc::new(Handle { queue, room, shared, on_failure, path }))))
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
            let room = Some(handle.room.clone().acquire_owned().await.ok()?);
            let (written, wait) = oneshot::channel();
            let record = Box::new(record.clone());
            handle.queue.send(Entry::Request { event: Event::Begun, record, written: Some(written), room }).ok()?;
            wait.await.ok().filter(|written| *written)
        };
        match tokio::time::timeout(PATIENCE, write).await {
            Ok(Some(_)) => Ok(Some(Slot { event: Event::Done, queue: handle.queue.clone(), room: None })),
            Ok(None) | Err(_) => without(),
        }
    }

    /// A place for the record of a refusal. Waits while there is no room, and not for long: a refusal has to be answered.
    pub async fn refusal(&self) -> Option<Slot> {
        let handle = self.0.as_ref()?;
        let patience = if handle.shared.is_failing() { Duration::ZERO } else { PATIENCE };
        match tokio::time::timeout(patience, handle.room.clone().acquire_owned()).await {
            Ok(Ok(room)) => Some(Slot { event: Event::Refused, queue: handle.queue.clone(), room: Some(room) }),
            Ok(Err(_)) | Err(_) => {
                handle.shared.miss();
                None
            }
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

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("audit log {}: {error}", path.display())))
}

#[cfg(test)]
mod tests;
