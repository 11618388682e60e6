//! The gateway under load: many connections, requests at a constant rate, more than one serving thread.

use super::contestant::Running;
use super::http1::Http1;
use super::memory::hold;
use super::report::Report;
use super::small::all;
use super::upstream::MANIFEST;
use super::{Bench, Outcome};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Serving threads, and cores that they may use.
const THREADS: usize = 2;
const IDLE: u32 = 5000;
const BUSY: u32 = 500;
/// How long the most it can do is looked for.
const SEARCH: Duration = Duration::from_secs(10);
/// How long each rate is held.
const HELD: Duration = Duration::from_secs(20);

type Connections = Vec<Arc<Mutex<Http1>>>;

impl Bench {
    /// Opens the connections, finds the capacity with all busy ones at once, and measures latencies below it.
    ///
    /// # Errors
    /// When a connection breaks or an answer isn't as it should be.
    pub async fn load(&self, report: &mut Report) -> Outcome<()> {
        let gateway = self.start_gateway(self.upstream.address, THREADS)?;
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        hold(&self.client, gateway.address, &mut idle, self.options.scaled(IDLE)).await?;
        hold(&self.client, gateway.address, &mut busy, self.options.scaled(BUSY)).await?;
        let busy: Connections = busy.into_iter().map(|connection| Arc::new(Mutex::new(connection))).collect();
        let before = serving(&gateway);
        let capacity = capacity(&busy, self.options.scaled_time(SEARCH)).await?;
        report.note(format!(
            "load: {} idle and {} busy connections, {THREADS} serving threads: {capacity:.0} requests a second with all busy \
             connections at once; {:.1} MiB resident",
            idle.len(),
            busy.len(),
            gateway.process.resident_kib() as f64 / 1024.0,
        ));
        report.found("capacity", json!(capacity));
        for percent in [50, 80] {
            let rate = capacity * f64::from(percent) / 100.0;
            let latencies = at_rate(&busy, rate, self.options.scaled_time(HELD)).await?;
            report.note(format!(
                "load: at {percent} % of that, at a constant rate: median {:.2} ms, 99 % {:.2} ms, 99.9 % {:.2} ms, longest \
                 {:.2} ms, of {} requests",
                latencies.at(0.5),
                latencies.at(0.99),
                latencies.at(0.999),
                latencies.at(1.0),
                latencies.0.len(),
            ));
            let quantiles = [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| json!([share, latencies.at(share)]));
            report.found(&format!("latencies_ms_at_{percent}"), json!(quantiles));
        }
        let spent: Vec<(String, f64)> = serving(&gateway)
            .into_iter()
            .zip(before)
            .map(|((name, after), (_, before))| (name, after - before))
            .collect();
        report.note(format!("load: balance of the serving threads, by CPU time: {}", shares(&spent)));
        report.found("cpu_seconds_by_thread", json!(spent));
        // Idle connections are still there, and served.
        for connection in idle.iter_mut().step_by(100) {
            connection.get(MANIFEST).await?;
        }
        Ok(())
    }
}

/// CPU seconds of the gateway's serving threads, in the order of their names.
fn serving(gateway: &Running) -> Vec<(String, f64)> {
    let mut threads = gateway.process.threads();
    threads.retain(|(name, _)| name.starts_with("serve-"));
    threads.sort_by(|one, other| one.0.cmp(&other.0));
    threads
}

fn shares(spent: &[(String, f64)]) -> String {
    let whole: f64 = spent.iter().map(|(_, seconds)| seconds).sum::<f64>().max(0.01);
    let share = |(name, seconds): &(String, f64)| format!("{name} {:.0} %", seconds / whole * 100.0);
    spent.iter().map(share).collect::<Vec<_>>().join(", ")
}

/// Requests a second with every connection asking again as soon as it has an answer.
async fn capacity(connections: &Connections, length: Duration) -> Outcome<f64> {
    let begun = Instant::now();
    let end = begun + length;
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks: JoinSet<Outcome<()>> = JoinSet::new();
    for connection in connections {
        let (connection, done) = (connection.clone(), done.clone());
        tasks.spawn(async move {
            let mut connection = connection.lock().await;
            while Instant::now() < end {
                connection.get(MANIFEST).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    all(tasks).await?;
    Ok(done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
}

/// Latencies in milliseconds, in order.
struct Latencies(Vec<f64>);

impl Latencies {
    /// The latency that this share of the requests doesn't exceed.
    fn at(&self, share: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place within the list")]
        let place = (self.0.len().saturating_sub(1) as f64 * share).round() as usize;
        self.0.get(place).copied().unwrap_or_default()
    }
}

/// Asks at a constant rate, whatever the answers do: each request has the moment at which it is due, and its latency
/// counts from then, also if no connection was free. Due moments are whole milliseconds, which is what timers can do.
async fn at_rate(connections: &Connections, rate: f64, length: Duration) -> Outcome<Latencies> {
    let begun = Instant::now() + Duration::from_millis(10);
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks: JoinSet<Outcome<Vec<f64>>> = JoinSet::new();
    for connection in connections {
        let (connection, next) = (connection.clone(), next.clone());
        tasks.spawn(async move {
            let mut connection = connection.lock().await;
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let after = Duration::from_secs_f64((number as f64 / rate * 1e3).ceil() / 1e3);
                if after > length {
                    return Ok(latencies);
                }
                let due = begun + after;
                tokio::time::sleep_until(due).await;
                connection.get(MANIFEST).await?;
                latencies.push(due.elapsed().as_secs_f64() * 1e3);
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    latencies.sort_by(f64::total_cmp);
    Ok(Latencies(latencies))
}
