//! Who may publish a snapshot, and who may only read the one in force.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Snapshot;

/// Replaces the snapshot in force. There is one, and it can't be cloned: only the control plane holds it.
#[derive(Debug)]
pub struct Publisher(Arc<ArcSwap<Snapshot>>);

/// Reads the snapshot in force.
#[derive(Debug, Clone)]
pub struct Reader(Arc<ArcSwap<Snapshot>>);

/// A publisher and its reader, with the first snapshot in force.
#[must_use]
pub fn store(first: Arc<Snapshot>) -> (Publisher, Reader) {
    let cell = Arc::new(ArcSwap::new(first));
    (Publisher(cell.clone()), Reader(cell))
}

impl Publisher {
    /// Puts `snapshot` in force. Requests that loaded the one before go on with it.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        self.0.store(snapshot);
    }
}

impl Reader {
    /// The snapshot in force now. To be loaded once per request, so that one request sees one configuration.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}
