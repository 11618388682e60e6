//! The gateway for minutes, with pushes and pulls of all kinds: does its memory grow?

use super::body::Framing;
use super::client::{Client, Protocol};
use super::report::Report;
use super::small::all;
use super::upstream::{BLOB, MANIFEST, UPLOADS, Upstream};
use super::{Bench, Outcome};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const THREADS: usize = 2;
/// Clients at a time, half of them over HTTP/2.
const CLIENTS: u32 = 16;
const BLOB_BYTES: u64 = 8 << 20;
/// Pulls and pushes on a connection before the client opens another one.
const ROUNDS: u32 = 10;
/// Samples of the resident memory in a run.
const SAMPLES: u32 = 120;
/// The first part of a run, in which the gateway may still get warm.
const WARM: f64 = 0.25;
/// What it may grow by in the rest of the run, in KiB, and still count as not growing: what one sample differs from the next.
const TOLERATED_KIB: f64 = 2048.0;

impl Bench {
    /// Lets clients push and pull for so long, and judges the memory by the slope over all but the first quarter.
    ///
    /// # Errors
    /// When a push or pull fails.
    pub async fn soak(&self, length: Duration, report: &mut Report) -> Outcome<()> {
        let upstream = Upstream::start(BLOB_BYTES)?;
        let gateway = self.start_gateway(upstream.address, THREADS)?;
        let (begun, moved) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let end = begun + length;
        let mut tasks: JoinSet<Outcome<()>> = JoinSet::new();
        for number in 0..CLIENTS {
            let protocol = if number % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
            let framing = if number % 4 < 2 { Framing::Length } else { Framing::Chunked };
            tasks.spawn(exchange(self.client.clone(), gateway.address, protocol, framing, end, moved.clone()));
        }
        let mut samples = Vec::new();
        while Instant::now() + length / SAMPLES <= end {
            tokio::select! {
                () = tokio::time::sleep(length / SAMPLES) => {}
                Some(done) = tasks.join_next() => done??,
            }
            samples.push((begun.elapsed().as_secs_f64(), gateway.process.resident_kib() as f64));
        }
        all(tasks).await?;
        let late = samples.iter().filter(|(at, _)| *at >= length.as_secs_f64() * WARM).copied().collect::<Vec<_>>();
        let slope = slope(&late);
        let grown = slope * length.as_secs_f64() * (1.0 - WARM);
        let (first, last) = (late.first().map_or(0.0, |sample| sample.1), late.last().map_or(0.0, |sample| sample.1));
        let most = samples.iter().map(|(_, kib)| *kib).fold(0.0, f64::max);
        report.note(format!(
            "soak: {} of pushes and pulls, {:.1} GB moved: {:.1} MiB resident after a quarter, {:.1} MiB at the end, {:.1} MiB \
             at most; {:+.1} KiB a minute: {}",
            humantime::format_duration(length),
            moved.load(Ordering::Relaxed) as f64 / 1e9,
            first / 1024.0,
            last / 1024.0,
            most / 1024.0,
            slope * 60.0,
            if grown > TOLERATED_KIB { "IT GROWS" } else { "no growth" },
        ));
        report.found(
            "soak",
            json!({"seconds": length.as_secs_f64(), "kib_a_minute": slope * 60.0, "grows": grown > TOLERATED_KIB, "samples": samples}),
        );
        Ok(())
    }
}

/// One client: a manifest, a blob, a push, now and then over a new connection.
async fn exchange(
    client: Arc<Client>,
    address: SocketAddr,
    protocol: Protocol,
    framing: Framing,
    end: Instant,
    moved: Arc<AtomicU64>,
) -> Outcome<()> {
    while Instant::now() < end {
        let mut connection = client.open(address, protocol).await?;
        for _ in 0..ROUNDS {
            connection.get(MANIFEST).await?;
            let pulled = connection.get(BLOB).await?.bytes;
            let session = connection.open_upload(UPLOADS).await?;
            connection.upload("PATCH", &session, BLOB_BYTES, framing).await?;
            moved.fetch_add(pulled + BLOB_BYTES, Ordering::Relaxed);
            if Instant::now() > end {
                break;
            }
        }
    }
    Ok(())
}

/// The slope of the straight line nearest to the samples (least squares).
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let covariance: f64 = samples.iter().map(|sample| (sample.0 - x) * (sample.1 - y)).sum();
    let variance: f64 = samples.iter().map(|sample| (sample.0 - x).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}
