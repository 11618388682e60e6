//! The access log: one line of JSON per request, written by a thread of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::escape::json_line;
use super::metrics::{AccessDrops, Metrics};
use super::record::AccessRecord;
use crate::config::LogTarget;

/// How long the writer sleeps before it looks for more records. While it sleeps, handing it one costs no system call.
const BATCH_INTERVAL: Duration = Duration::from_millis(10);

/// A batch is written when it has grown to this size, whatever still waits.
const BATCH_BYTES: usize = 256 * 1024;

/// Owner and group may read it: it tells who used what.
const FILE_MODE: u32 = 0o640;

/// A handle to the access log. Cheap to clone; the writer finishes when the last one is gone.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Handle>>);

#[derive(Debug)]
struct Handle {
    queue: SyncSender<Message>,
    target: LogTarget,
    /// A newly opened file the writer is to go on with.
    replacement: Arc<Mutex<Option<File>>>,
    drops: AccessDrops,
}

#[expect(clippy::large_enum_variant, reason = "nearly every message is a record, and a box for each would cost more")]
enum Message {
    Record(AccessRecord),
    Flush(SyncSender<()>),
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
        let sink: Box<dyn Write + Send> = match &target {
            LogTarget::Stdout => Box::new(io::stdout()),
            LogTarget::File(path) => Box::new(open(path)?),
        };
        Self::with_sink(sink, target, queue, metrics)
    }

    fn with_sink(sink: Box<dyn Write + Send>, target: LogTarget, queue: usize, metrics: &Metrics) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(queue.max(1));
        let replacement = Arc::default();
        let writer = Writer {
            sink,
            replacement: Arc::clone(&replacement),
            drops: metrics.access_drops(),
            batch: Vec::new(),
            records: 0,
            failing: false,
        };
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self(Some(Arc::new(Handle { queue: sender, target, replacement, drops: metrics.access_drops() }))))
    }

    /// Hands a record to the writer. Never blocks: if the queue is full, the record is dropped and counted.
    pub fn write(&self, record: AccessRecord) {
        let Some(handle) = &self.0 else { return };
        if handle.queue.try_send(Message::Record(record)).is_err() {
            handle.drops.queue_full.inc();
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
        let Some(handle) = &self.0 else { return true };
        let deadline = Instant::now() + patience;
        let (done, waiting) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(refused) = handle.queue.try_send(message) {
            message = match refused {
                TrySendError::Full(message) if Instant::now() < deadline => message,
                TrySendError::Full(_) | TrySendError::Disconnected(_) => return false,
            };
            thread::sleep(BATCH_INTERVAL);
        }
        waiting.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }
}

/// The thread's side of the queue.
struct Writer {
    sink: Box<dyn Write + Send>,
    replacement: Arc<Mutex<Option<File>>>,
    drops: AccessDrops,
    batch: Vec<u8>,
    /// How many records the batch holds.
    records: u64,
    /// Whether the last batch could not be written, and may have left half a line.
    failing: bool,
}

impl Writer {
    /// Writes until every handle is gone.
    fn run(mut self, queue: &Receiver<Message>) {
        while let Ok(first) = queue.recv() {
            self.take(first);
            loop {
                match queue.try_recv() {
                    Ok(message) => self.take(message),
                    Err(TryRecvError::Empty) if self.records > 0 => {
                        self.write_batch();
                        thread::sleep(BATCH_INTERVAL);
                    }
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
        }
        self.write_batch();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Record(record) => {
                if json_line(&mut self.batch, &record).is_ok() {
                    self.records += 1;
                } else {
                    self.drops.write_failed.inc();
                }
                if self.batch.len() >= BATCH_BYTES {
                    self.write_batch();
                }
            }
            Message::Flush(done) => {
                self.write_batch();
                // Whoever asked may have lost patience.
                let _ = done.try_send(());
            }
        }
    }

    fn write_batch(&mut self) {
        if self.records == 0 {
            return;
        }
        if let Some(file) = self.replacement.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.sink = Box::new(file);
            self.failing = false;
        }
        let written = self.write_lines();
        if let Err(error) = &written {
            self.drops.write_failed.inc_by(self.records);
            if !self.failing {
                log::error!("the access log can't be written, records are dropped and counted: {error}");
            }
        } else if self.failing {
            log::warn!("the access log is written again");
        }
        self.failing = written.is_err();
        self.batch.clear();
        self.records = 0;
    }

    fn write_lines(&mut self) -> io::Result<()> {
        if self.failing {
            // Ends the line the failed write may have begun; empty lines are skipped by readers of JSON lines.
            self.sink.write_all(b"\n")?;
        }
        self.sink.write_all(&self.batch)?;
        self.sink.flush()
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
