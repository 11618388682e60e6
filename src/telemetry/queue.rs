//! Lines for a log, handed over without waiting and written by a thread of its own.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use super::metrics::Drops;

/// How long the writer sleeps at least before it looks for more. While it sleeps, handing it something costs no system
/// call.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// And at most, of a log that nobody waits for, if the queue holds enough: see [`longest_pause`].
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(40);

/// How many items a pause is to gather: fewer would be woken for too often, and more would leave the processor's cache
/// before they are written.
const GATHERED: u32 = 64;

/// A batch is written when it has grown to this size, whatever still waits.
const BATCH_BYTES: usize = 256 * 1024;

/// Where the lines go.
pub(super) type Sink = Box<dyn Write + Send>;

/// What is particular to one log.
pub(super) trait Lines: Send + 'static {
    /// What is handed over.
    type Item: Send + 'static;

    /// How long the writer may sleep while little comes.
    const LONGEST_PAUSE: Duration = SHORTEST_PAUSE;

    /// Appends the item as one whole line. `false`, and nothing appended, if there is no text for it.
    fn append(&mut self, batch: &mut Vec<u8>, item: Self::Item) -> bool;

    /// A sink to go on with from the next batch on, if there is a newer one.
    fn renewed(&mut self) -> Option<Sink> {
        None
    }

    /// A batch was lost, and the one before it was not.
    fn failed(&mut self, error: &io::Error);

    /// So many items were dropped, for whatever cause, and everything that was handed over since is written. Appends a
    /// line about it, if this is the place for one.
    fn dropped(&mut self, batch: &mut Vec<u8>, count: u64);
}

/// The end of the queue into which items go. The writer finishes when it is gone.
#[derive(Debug)]
pub(super) struct Queue<T> {
    sender: SyncSender<Message<T>>,
    drops: Drops,
}

#[derive(Debug)]
enum Message<T> {
    Item(T),
    Flush(SyncSender<()>),
}

impl<T: Send + 'static> Queue<T> {
    /// Starts the writer, as a thread of this name. At most `bound` items wait for it; what exceeds that is dropped
    /// and counted.
    ///
    /// # Errors
    ///
    /// Fails if no thread can be started.
    pub(super) fn start<L: Lines<Item = T>>(
        name: &str,
        bound: usize,
        sink: Sink,
        drops: Drops,
        lines: L,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(bound.max(1));
        let writer = Writer {
            longest_pause: longest_pause(bound).min(L::LONGEST_PAUSE),
            lines,
            sink,
            told: drops.total(),
            drops: drops.clone(),
            batch: Vec::new(),
            items: 0,
            gathered: 0,
            failing: false,
        };
        thread::Builder::new().name(name.to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self { sender, drops })
    }

    /// Hands an item to the writer. Never blocks: if the queue is full, the item is dropped and counted.
    pub(super) fn offer(&self, item: T) {
        if self.sender.try_send(Message::Item(item)).is_err() {
            self.drops.queue_full.inc();
        }
    }

    /// Waits until everything handed over before is written, at most for `patience`. Says whether the writer has come
    /// to it. Blocks.
    #[must_use]
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let (done, waiting) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(refused) = self.sender.try_send(message) {
            message = match refused {
                TrySendError::Full(message) if Instant::now() < deadline => message,
                TrySendError::Full(_) | TrySendError::Disconnected(_) => return false,
            };
            thread::sleep(SHORTEST_PAUSE);
        }
        waiting.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }
}

/// How long a writer may sleep beside a queue of this `bound`: two hundred thousand items a second find room.
fn longest_pause(bound: usize) -> Duration {
    let filled = Duration::from_micros(5).saturating_mul(u32::try_from(bound).unwrap_or(u32::MAX));
    filled.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// How long to sleep, at most `longest`, if as many items come as came during the last pause.
fn next_pause(last: Duration, items: u64, longest: Duration) -> Duration {
    let items = u32::try_from(items).unwrap_or(u32::MAX).max(1);
    (last * GATHERED / items).clamp(SHORTEST_PAUSE, longest)
}

/// The thread's side of the queue.
struct Writer<L> {
    longest_pause: Duration,
    lines: L,
    sink: Sink,
    drops: Drops,
    /// How many of the dropped items were told about.
    told: u64,
    batch: Vec<u8>,
    /// How many items the batch holds.
    items: u64,
    /// How many have come since the last pause.
    gathered: u64,
    /// Whether the last batch could not be written, and may have left half a line.
    failing: bool,
}

impl<L: Lines> Writer<L> {
    /// Writes until the other end is gone.
    fn run(mut self, queue: &Receiver<Message<L::Item>>) {
        let mut pause = SHORTEST_PAUSE;
        while let Ok(first) = queue.recv() {
            self.take(first);
            loop {
                match queue.try_recv() {
                    Ok(message) => self.take(message),
                    Err(TryRecvError::Empty) if self.items > 0 => {
                        self.write_batch();
                        pause = next_pause(pause, std::mem::take(&mut self.gathered), self.longest_pause);
                        thread::sleep(pause);
                    }
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            self.catch_up();
        }
    }

    fn take(&mut self, message: Message<L::Item>) {
        match message {
            Message::Item(item) => {
                self.gathered += 1;
                if self.lines.append(&mut self.batch, item) {
                    self.items += 1;
                } else {
                    self.drops.write_failed.inc();
                }
                if self.batch.len() >= BATCH_BYTES {
                    self.write_batch();
                }
            }
            Message::Flush(done) => {
                self.catch_up();
                // Whoever asked may have lost patience.
                let _ = done.try_send(());
            }
        }
    }

    /// Writes what is left, and then tells what was dropped: its place is after what had still been taken.
    fn catch_up(&mut self) {
        self.write_batch();
        let total = self.drops.total();
        if total == self.told || self.failing {
            return;
        }
        self.lines.dropped(&mut self.batch, total - self.told);
        let lost = self.drops.write_failed.get();
        self.items = u64::from(!self.batch.is_empty());
        self.write_batch();
        // A notice that was lost itself is told again.
        if self.drops.write_failed.get() == lost {
            self.told = total;
        }
    }

    fn write_batch(&mut self) {
        if self.items == 0 {
            return;
        }
        if let Some(sink) = self.lines.renewed() {
            self.sink = sink;
            self.failing = false;
        }
        let written = self.write_lines();
        if let Err(error) = &written {
            self.drops.write_failed.inc_by(self.items);
            if !self.failing {
                self.lines.failed(error);
            }
        }
        self.failing = written.is_err();
        self.batch.clear();
        self.items = 0;
    }

    fn write_lines(&mut self) -> io::Result<()> {
        if self.failing {
            // Ends the line the failed write may have begun; empty lines mean nothing to readers.
            self.sink.write_all(b"\n")?;
        }
        self.sink.write_all(&self.batch)?;
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_gathers_a_batch_within_its_bounds() {
        let ms = Duration::from_millis;
        let next = |last, items| next_pause(ms(last), items, LONGEST_PAUSE);
        assert_eq!(next(10, 32), ms(20), "3,200 a second");
        assert_eq!(next(20, 64), ms(20), "the same");
        assert_eq!(next(40, 10_000), SHORTEST_PAUSE);
        assert_eq!(next(40, u64::MAX), SHORTEST_PAUSE);
        assert_eq!(next(10, 1), LONGEST_PAUSE);
        assert_eq!(next(10, 0), LONGEST_PAUSE);
    }

    #[test]
    fn beside_a_short_queue_the_pause_is_short() {
        assert_eq!(longest_pause(1), SHORTEST_PAUSE);
        assert_eq!(longest_pause(4096), Duration::from_micros(20_480));
        assert_eq!(longest_pause(usize::MAX), LONGEST_PAUSE);
    }
}
