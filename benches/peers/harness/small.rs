//! Many small things: handshakes and requests.

use super::client::{Client, Sessions};
use super::contestant::Running;
use super::http2::Http2;
use super::meter::Sample;
use super::transfer::take;
use super::upstream::MANIFEST;
use super::{Bench, Outcome};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use tokio::task::JoinSet;

/// Handshakes at a time.
const AT_ONCE: u32 = 8;

impl Bench {
    /// Connects, asks whether there is a registry, and leaves; with a ticket of an earlier connection if `resumed`.
    ///
    /// # Errors
    /// When a handshake or request fails, or tickets aren't taken.
    pub async fn handshakes(&self, running: &Running, count: u32, resumed: bool) -> Outcome<Sample> {
        let sessions = resumed.then(Sessions::default);
        let client = Arc::new(Client::new(&self.pki, sessions)?);
        // The first ones have no ticket yet.
        visits(&client, running.address, AT_ONCE, None).await?;
        let meter = self.meter(running);
        visits(&client, running.address, count, Some(resumed)).await?;
        Ok(meter.stop(f64::from(count)))
    }

    /// Fetches `path` on connections that stay, one request at a time on each.
    ///
    /// # Errors
    /// When an answer isn't as it should be.
    pub async fn requests(&self, running: &Running, connections: u32, path: &str, count: u32) -> Outcome<Sample> {
        let mut open = Vec::new();
        for _ in 0..connections {
            let mut connection = self.client.http1(running.address).await?;
            connection.get(path).await?;
            open.push(connection);
        }
        let left = Arc::new(AtomicU32::new(count));
        let meter = self.meter(running);
        let mut tasks: JoinSet<Outcome<()>> = JoinSet::new();
        for mut connection in open {
            let (left, path) = (left.clone(), path.to_owned());
            tasks.spawn(async move {
                while take(&left) {
                    connection.get(&path).await?;
                }
                Ok(())
            });
        }
        all(tasks).await?;
        Ok(meter.stop(f64::from(count)))
    }

    /// The same over HTTP/2, with several streams at a time on each connection.
    ///
    /// # Errors
    /// As [`Bench::requests`].
    pub async fn requests_http2(
        &self,
        running: &Running,
        connections: u32,
        streams: u32,
        count: u32,
    ) -> Outcome<Sample> {
        let mut open: Vec<Http2> = Vec::new();
        for _ in 0..connections {
            let connection = self.client.http2(running.address).await?;
            connection.get(MANIFEST).await?;
            open.push(connection);
        }
        let left = Arc::new(AtomicU32::new(count));
        let meter = self.meter(running);
        let mut tasks: JoinSet<Outcome<()>> = JoinSet::new();
        for connection in &open {
            for _ in 0..streams {
                let (left, connection) = (left.clone(), connection.clone());
                tasks.spawn(async move {
                    while take(&left) {
                        connection.get(MANIFEST).await?;
                    }
                    Ok(())
                });
            }
        }
        all(tasks).await?;
        Ok(meter.stop(f64::from(count)))
    }
}

/// Visits of one request each; with `resumed`, each must be that or not be that.
async fn visits(client: &Arc<Client>, address: SocketAddr, count: u32, resumed: Option<bool>) -> Outcome<()> {
    let left = Arc::new(AtomicU32::new(count));
    let mut tasks: JoinSet<Outcome<()>> = JoinSet::new();
    for _ in 0..AT_ONCE.min(count) {
        let (left, client) = (left.clone(), client.clone());
        tasks.spawn(async move {
            while take(&left) {
                let mut connection = client.http1(address).await?;
                connection.get("/v2/").await?;
                if resumed.is_some_and(|resumed| connection.is_resumed() != resumed) {
                    return Err(if connection.is_resumed() { "was resumed" } else { "was not resumed" }.into());
                }
                connection.leave().await?;
            }
            Ok(())
        });
    }
    all(tasks).await
}

/// Waits for all tasks; the first that fails ends the others.
pub async fn all(mut tasks: JoinSet<Outcome<()>>) -> Outcome<()> {
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
