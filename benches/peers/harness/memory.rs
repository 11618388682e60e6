//! What a contestant keeps at its start, and for connections that do nothing.

use super::client::Client;
use super::contestant::Running;
use super::http1::Http1;
use super::meter::Sample;
use super::report::Report;
use super::scenario::Scenario;
use super::upstream::MANIFEST;
use super::{Bench, Outcome};
use std::net::SocketAddr;
use std::time::Duration;

/// For what a contestant does a moment after the last answer.
const MOMENT: Duration = Duration::from_millis(500);

impl Bench {
    /// Resident memory after the start and a few visits, and what idle connections add to it. One contestant after the
    /// other, each once: it is never as it was after its start.
    ///
    /// # Errors
    /// When a connection isn't kept.
    pub async fn memory(&self, running: &[Running], report: &mut Report) -> Outcome<()> {
        let (few, many) = (self.options.scaled(1000), self.options.scaled(5000));
        let mut rows: [Vec<(&'static str, Vec<Sample>)>; 3] = Default::default();
        for one in running {
            for _ in 0..5 {
                self.client.http1(one.address).await?.get("/v2/").await?;
            }
            tokio::time::sleep(MOMENT).await;
            let start = one.process.resident_kib() as f64;
            let mut held = Vec::new();
            let [first, second, third] = &mut rows;
            first.push((one.name, vec![Sample::memory(start, 1.0)]));
            for (row, count) in [(second, few), (third, many)] {
                hold(&self.client, one.address, &mut held, count).await?;
                tokio::time::sleep(MOMENT).await;
                let grown = (one.process.resident_kib() as f64 - start).max(0.0);
                row.push((one.name, vec![Sample::memory(grown, f64::from(count))]));
            }
        }
        let titles = [
            ("resident at the start", "MiB"),
            ("an idle connection, 1,000 of them", "KiB"),
            ("an idle connection, 5,000 of them", "KiB"),
        ];
        for ((title, unit), row) in titles.into_iter().zip(rows) {
            report.add((Scenario::Memory, title, unit), row.into_iter());
        }
        Ok(())
    }
}

/// Opens connections, with one request on each, until there are `count`.
pub async fn hold(client: &Client, address: SocketAddr, held: &mut Vec<Http1>, count: u32) -> Outcome<()> {
    while held.len() < count as usize {
        let mut connection = client.http1(address).await?;
        connection.get(MANIFEST).await?;
        held.push(connection);
    }
    Ok(())
}
