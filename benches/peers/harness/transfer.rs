//! Large bodies in both directions.

use super::body::Framing;
use super::client::Protocol;
use super::contestant::Running;
use super::meter::Sample;
use super::upstream::UPLOADS;
use super::{Bench, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::task::JoinSet;

impl Bench {
    /// Fetches `count` blobs on `parallel` connections.
    ///
    /// # Errors
    /// When one doesn't come whole.
    pub async fn download(
        &self,
        running: &Running,
        protocol: Protocol,
        path: &str,
        (parallel, count): (u32, u32),
    ) -> Outcome<Sample> {
        let left = Arc::new(AtomicU32::new(count));
        let mut connections = Vec::new();
        for _ in 0..parallel.min(count) {
            connections.push(self.client.open(running.address, protocol).await?);
        }
        let meter = self.meter(running);
        let mut tasks: JoinSet<Outcome<u64>> = JoinSet::new();
        for mut connection in connections {
            let (left, path) = (left.clone(), path.to_owned());
            tasks.spawn(async move {
                let mut bytes = 0;
                while take(&left) {
                    bytes += connection.get(&path).await?.bytes;
                }
                Ok(bytes)
            });
        }
        let mut bytes = 0;
        while let Some(done) = tasks.join_next().await {
            bytes += done??;
        }
        if bytes != self.options.blob_bytes() * u64::from(count) {
            return Err(format!("{bytes} bytes came for {count} blobs").into());
        }
        Ok(meter.stop(bytes as f64 / 1e9))
    }

    /// Sends blobs into an upload session, one after the other.
    ///
    /// # Errors
    /// When one isn't accepted.
    pub async fn upload(&self, running: &Running, protocol: Protocol, framing: Framing, count: u32) -> Outcome<Sample> {
        let mut connection = self.client.open(running.address, protocol).await?;
        let session = connection.open_upload(UPLOADS).await?;
        let meter = self.meter(running);
        for _ in 0..count {
            connection.upload("PATCH", &session, self.options.blob_bytes(), framing).await?;
        }
        Ok(meter.stop(self.options.blob_bytes() as f64 * f64::from(count) / 1e9))
    }
}

/// Takes one of what is left to do.
pub fn take(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}
