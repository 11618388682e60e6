//! The access log: one line of JSON per request, written by a thread of its own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::layout::access_line;
use super::metrics::Metrics;
use super::queue::{LONGEST_PAUSE, Lines, Queue, Sink};
use super::record::AccessRecord;
use crate::config::LogTarget;

/// Owner and group may read it: it tells who used what.
const FILE_MODE: u32 = 0o640;

/// A handle to the access log. Cheap to clone; the writer finishes when the last one is gone.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Handle>>);

#[derive(Debug)]
struct Handle {
    queue: Queue<Arc<AccessRecord>>,
    target: LogTarget,
    /// A newly opened file the writer is to go on with.
    replacement: Arc<Mutex<Option<File>>>,
}

impl AccessLog {
    /// A log that keeps nothing.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Opens the target and starts the writer. At most `queue` records wait for it; what exceeds that is dropped and
    /// counted in `metrics`.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be opened for appending, naming it, or if no thread can be started.
    pub fn start(target: LogTarget, queue: usize, metrics: &Metrics) -> io::Result<Self> {
        let sink: Sink = match &target {
            LogTarget::Stdout => Box::new(io::stdout()),
            LogTarget::File(path) => Box::new(open(path)?),
        };
        Self::with_sink(sink, target, queue, metrics)
    }

    fn with_sink(sink: Sink, target: LogTarget, queue: usize, metrics: &Metrics) -> io::Result<Self> {
        let replacement = Arc::default();
        let records = Records { replacement: Arc::clone(&replacement) };
        let queue = Queue::start("access-log", queue, sink, metrics.access_drops(), records)?;
        Ok(Self(Some(Arc::new(Handle { queue, target, replacement }))))
    }

    /// Hands a record to the writer. Never blocks: if the queue is full, the record is dropped and counted.
    pub fn write(&self, record: impl Into<Arc<AccessRecord>>) {
        if let Some(handle) = &self.0 {
            handle.queue.offer(record.into());
        }
    }

    /// Opens the file anew, after it was rotated. The writer goes on with it from its next batch on; what it writes
    /// until then is at the end of the old file.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be opened, naming it; the one that is open stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        let Some(handle) = &self.0 else { return Ok(()) };
        if let LogTarget::File(path) = &handle.target {
            let file = open(path)?;
            *handle.replacement.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        }
        Ok(())
    }

    /// Waits until everything handed over before is written, at most for `patience`. Says whether it is.
    ///
    /// Blocks; for the end of the process, after the last request.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        self.0.as_ref().is_none_or(|handle| handle.queue.flush(patience))
    }
}

/// The writer's side.
struct Records {
    replacement: Arc<Mutex<Option<File>>>,
}

impl Lines for Records {
    type Item = Arc<AccessRecord>;
    const LONGEST_PAUSE: Duration = LONGEST_PAUSE;

    fn append(&mut self, batch: &mut Vec<u8>, record: Arc<AccessRecord>) -> bool {
        access_line(batch, &record).is_ok()
    }

    fn renewed(&mut self) -> Option<Sink> {
        let file = self.replacement.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Box::new(file))
    }

    fn failed(&mut self, error: &io::Error) {
        log::error!("the access log can't be written, records are dropped and counted: {error}");
    }

    // Told in the gateway's own log: lines of this one are records.
    fn dropped(&mut self, _: &mut Vec<u8>, count: u64) {
        log::warn!("the access log is written again; {count} record(s) were dropped");
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("access log {}: {error}", path.display())))
}

#[cfg(test)]
mod tests;
