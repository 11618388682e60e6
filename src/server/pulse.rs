//! Whether the threads that matter still turn: each leaves a sign from its own runtime, which a stuck one can't.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// In place of a time: this thread has ended as it should.
const RETIRED: u64 = u64::MAX;

/// The signs of life of some threads.
#[derive(Debug)]
pub(super) struct Pulses {
    start: Instant,
    /// When each thread turned last, in milliseconds since the start.
    beats: Box<[AtomicU64]>,
}

/// One thread's.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    all: Arc<Pulses>,
    index: usize,
}

impl Pulses {
    pub(super) fn new(threads: usize) -> Arc<Self> {
        Arc::new(Pulses { start: Instant::now(), beats: (0..threads).map(|_| AtomicU64::new(0)).collect() })
    }

    pub(super) fn pulse(self: &Arc<Self>, index: usize) -> Pulse {
        Pulse { all: self.clone(), index }
    }

    /// Whether every thread has turned within this time, or has ended as it should.
    pub(super) fn all_alive(&self, within: Duration) -> bool {
        let earliest = self.now().saturating_sub(milliseconds(within));
        self.beats.iter().all(|beat| beat.load(Ordering::Relaxed) >= earliest)
    }

    fn now(&self) -> u64 {
        milliseconds(self.start.elapsed())
    }
}

impl Pulse {
    /// Leaves a sign of life at this interval, for as long as the runtime turns.
    pub(super) async fn keep(self, every: Duration) {
        let mut interval = tokio::time::interval(every);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.set(self.all.now());
        }
    }

    /// The thread ends, and nobody should wait for it.
    pub(super) fn retire(&self) {
        self.set(RETIRED);
    }

    fn set(&self, value: u64) {
        if let Some(beat) = self.all.beats.get(self.index) {
            beat.store(value, Ordering::Relaxed);
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A thread with a runtime that beats until the sender goes, and stands still for as long as it is told to.
    fn thread(pulse: Pulse) -> (mpsc::SyncSender<mpsc::Receiver<()>>, std::thread::JoinHandle<()>) {
        let (stall, stalls) = mpsc::sync_channel::<mpsc::Receiver<()>>(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let retiring = pulse.clone();
            runtime.block_on(async move {
                let beating = tokio::spawn(pulse.keep(Duration::from_millis(5)));
                loop {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    match stalls.try_recv() {
                        // What a stuck thread does: it blocks its runtime.
                        Ok(until) => drop(until.recv()),
                        Err(mpsc::TryRecvError::Empty) => {}
                        Err(mpsc::TryRecvError::Disconnected) => break beating.abort(),
                    }
                }
            });
            retiring.retire();
        });
        (stall, thread)
    }

    fn wait(pulses: &Pulses, alive: bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while pulses.all_alive(Duration::from_millis(500)) != alive {
            assert!(Instant::now() < end, "should become {alive}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn one_stuck_thread_is_noticed_and_its_recovery_and_an_ended_one_is_no_fault() {
        let pulses = Pulses::new(2);
        let (one, other) = (thread(pulses.pulse(0)), thread(pulses.pulse(1)));
        std::thread::sleep(Duration::from_millis(50));
        wait(&pulses, true);
        let (release, until) = mpsc::sync_channel(1);
        one.0.send(until).expect("the thread runs");
        wait(&pulses, false);
        drop(release);
        wait(&pulses, true);
        drop(other.0);
        other.1.join().expect("ends");
        std::thread::sleep(Duration::from_millis(600));
        wait(&pulses, true);
        drop(one.0);
        one.1.join().expect("ends");
        assert!(pulses.all_alive(Duration::ZERO), "all have retired");
    }
}
