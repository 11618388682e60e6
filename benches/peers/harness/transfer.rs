//! Large bodies in both directions.

use super::client::Framing;
use super::contestant::Running;
use super::scenario::{Meter, Sample};
use super::upstream::UPLOADS;
use super::{Bench, Outcome};

impl Bench {
    /// Sends blobs into an upload session, one after the other.
    ///
    /// # Errors
    /// When one isn't accepted.
    pub async fn upload(&self, running: &Running, framing: Framing, count: u32) -> Outcome<Sample> {
        let mut connection = self.client.http1(running.address).await?;
        let session = connection.open_upload(UPLOADS).await?;
        let meter = Meter::start(running);
        for _ in 0..count {
            connection.upload("PATCH", &session, self.options.blob_bytes(), framing).await?;
        }
        Ok(meter.stop(self.gigabytes(count)))
    }

    /// The same over HTTP/2.
    ///
    /// # Errors
    /// As [`Bench::upload`].
    pub async fn upload_http2(&self, running: &Running, framing: Framing, count: u32) -> Outcome<Sample> {
        let connection = self.client.http2(running.address).await?;
        let session = connection.open_upload(UPLOADS).await?;
        let meter = Meter::start(running);
        for _ in 0..count {
            connection.upload("PATCH", &session, self.options.blob_bytes(), framing).await?;
        }
        Ok(meter.stop(self.gigabytes(count)))
    }

    fn gigabytes(&self, blobs: u32) -> f64 {
        self.options.blob_bytes() as f64 * f64::from(blobs) / 1e9
    }
}
