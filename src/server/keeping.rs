//! Has the state directory written, one job at a time, without anybody waiting for it.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::snapshot::ToKeep;
use crate::telemetry::Metrics;

/// The job under way, and the one after it. Of several that wait only the newest is worth doing.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    running: Option<JoinHandle<()>>,
    next: Option<(ToKeep, Arc<Metrics>)>,
}

impl Keeping {
    /// Orders a job. Must be called within a runtime.
    pub(super) fn order(&mut self, job: ToKeep, metrics: &Arc<Metrics>) {
        self.next = Some((job, metrics.clone()));
        self.start();
    }

    /// Resolves when a job has ended, after the next has begun; never if none runs.
    pub(super) async fn done(&mut self) {
        match &mut self.running {
            Some(running) => {
                if let Err(e) = running.await {
                    log::error!("the state directory could not be written: {e}");
                }
            }
            None => std::future::pending().await,
        }
        self.running = None;
        self.start();
    }

    fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        let Some((job, metrics)) = self.next.take() else { return };
        self.running = Some(tokio::task::spawn_blocking(move || {
            let faults = job.write();
            metrics.state_failed(!faults.is_empty());
            faults.iter().for_each(|fault| log::error!("state_directory: {fault}"));
        }));
    }
}
