//! Circuit breaking: how many requests an upstream is asked at a time, and how many may wait for their turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::UpstreamLimits;
use crate::telemetry::{UpstreamFault, UpstreamMetrics};

#[derive(Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
    limit: usize,
    patience: Duration,
    metrics: Arc<UpstreamMetrics>,
}

/// A place among the requests in flight, free again on drop.
#[derive(Debug)]
pub struct Admission {
    place: Option<OwnedSemaphorePermit>,
    gate: Arc<Gate>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.place = None;
        self.gate.note_places();
    }
}

/// Takes one off the count of the waiting, even when the waiter's client leaves.
struct Waiting<'a>(&'a Gate);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let before = self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.set_pending(before.saturating_sub(1));
    }
}

impl Gate {
    pub(super) fn new(limits: &UpstreamLimits, patience: Duration, metrics: Arc<UpstreamMetrics>) -> Self {
        let limit = limits.max_connections.min(Semaphore::MAX_PERMITS);
        Gate {
            places: Arc::new(Semaphore::new(limit)),
            limit,
            metrics,
            waiting: AtomicUsize::new(0),
            most_waiting: limits.max_pending,
            patience,
        }
    }

    pub(super) async fn admit(gate: &Arc<Self>) -> Result<Admission, UpstreamFault> {
        if let Ok(place) = gate.places.clone().try_acquire_owned() {
            return Ok(gate.admitted(place));
        }
        let before = gate.waiting.fetch_add(1, Ordering::AcqRel);
        gate.metrics.set_pending(before + 1);
        let _waiting = Waiting(gate);
        if before >= gate.most_waiting {
            return Err(UpstreamFault::Busy);
        }
        let place = tokio::time::timeout(gate.patience, gate.places.clone().acquire_owned()).await;
        match place {
            Ok(Ok(place)) => Ok(gate.admitted(place)),
            Ok(Err(_)) | Err(_) => Err(UpstreamFault::Busy),
        }
    }

    fn admitted(self: &Arc<Self>, place: OwnedSemaphorePermit) -> Admission {
        self.note_places();
        Admission { place: Some(place), gate: self.clone() }
    }

    fn note_places(&self) {
        self.metrics.set_connections(self.limit.saturating_sub(self.places.available_permits()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn gate(max_connections: usize, max_pending: usize) -> Arc<Gate> {
        let metrics = Arc::new(Metrics::new("0", "test").expect("families").upstream("registry"));
        let limits = UpstreamLimits { max_connections, max_pending };
        Arc::new(Gate::new(&limits, Duration::from_millis(50), metrics))
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_its_holder_leaves() {
        let gate = gate(1, 1);
        let first = Gate::admit(&gate).await.expect("free");
        let second = tokio::spawn({
            let gate = gate.clone();
            async move { Gate::admit(&gate).await.is_ok() }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(Gate::admit(&gate).await.err(), Some(UpstreamFault::Busy), "one may wait, not two");
        drop(first);
        assert!(second.await.expect("no panic"));
        assert_eq!(gate.waiting.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn waiting_ends() {
        let gate = gate(1, 1);
        let _held = Gate::admit(&gate).await.expect("free");
        assert_eq!(Gate::admit(&gate).await.err(), Some(UpstreamFault::Busy));
    }
}
