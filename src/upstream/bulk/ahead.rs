//! What is read ahead, in buffers that a thread's downloads share.

use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use crate::tcp::read_some;

/// Bytes that are read at once. Half of it costs a tenth more, twice as much gains nothing for a download alone.
pub(super) const AT_ONCE: usize = 30 * 64 * 1024;

/// Buffers that a thread has in use at most. The downloads beyond are read as the framework asks.
const BUFFERS: usize = 8;

/// A download for which a buffer lasted longer than this makes do without one for some reads, or a few slow clients would have
/// them all.
pub(super) const PROMPT: Duration = Duration::from_millis(100);
pub(super) const READS_WITHOUT: u8 = 16;

/// What was read and not yet handed on.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// None while there is nothing.
    buffer: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    /// When the last buffer was filled.
    filled: Option<Instant>,
    /// Reads that have to do without a buffer.
    without: u8,
}

/// The buffers of a thread.
#[derive(Debug)]
struct Buffers {
    free: Vec<Box<[u8]>>,
    in_use: usize,
}

/// Free buffers that a thread holds on to.
const SPARE: usize = 1;

thread_local! {
    static THREAD: RefCell<Buffers> = const { RefCell::new(Buffers { free: Vec::new(), in_use: 0 }) };
}

impl Buffers {
    fn take(&mut self) -> Option<Box<[u8]>> {
        if self.in_use >= BUFFERS {
            return None;
        }
        self.in_use += 1;
        Some(self.free.pop().unwrap_or_else(|| vec![0; AT_ONCE].into()))
    }

    fn give_back(&mut self, buffer: Box<[u8]>) {
        self.in_use = self.in_use.saturating_sub(1);
        if self.free.len() < SPARE {
            self.free.push(buffer);
        }
    }
}

impl Ahead {
    /// Reads as much as a buffer holds; how much, or none if there is no buffer to be had.
    pub(super) fn fill(&mut self, tcp: &TcpStream) -> Option<io::Result<usize>> {
        if self.without > 0 {
            self.without -= 1;
            return None;
        }
        let mut buffer = THREAD.with_borrow_mut(Buffers::take)?;
        let outcome = read_some(tcp, &mut buffer);
        self.buffer = Some(buffer);
        self.filled = Some(Instant::now());
        (self.start, self.end) = (0, outcome.as_ref().copied().unwrap_or(0));
        self.tidy();
        Some(outcome)
    }

    /// Moves as much as fits.
    pub(super) fn take(&mut self, into: &mut ReadBuf<'_>) {
        let held = self.buffer.as_ref().and_then(|buffer| buffer.get(self.start..self.end)).unwrap_or_default();
        let taken = held.get(..into.remaining()).unwrap_or(held);
        into.put_slice(taken);
        self.start += taken.len();
        self.tidy();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// Gives an empty buffer back.
    fn tidy(&mut self) {
        if self.start >= self.end
            && let Some(buffer) = self.buffer.take()
        {
            if self.filled.is_some_and(|filled| filled.elapsed() > PROMPT) {
                self.without = READS_WITHOUT;
            }
            THREAD.with_borrow_mut(|buffers| buffers.give_back(buffer));
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.end = 0;
        self.tidy();
    }
}

#[cfg(test)]
pub(super) fn in_use() -> usize {
    THREAD.with_borrow(|buffers| buffers.in_use)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_so_many_buffers_and_no_more() {
        THREAD.with_borrow_mut(|buffers| {
            let taken: Vec<_> = std::iter::from_fn(|| buffers.take()).collect();
            assert_eq!(taken.len(), BUFFERS);
            taken.into_iter().for_each(|buffer| buffers.give_back(buffer));
            assert_eq!((buffers.in_use, buffers.free.len()), (0, SPARE));
        });
    }
}
