//! The scenarios, and how contestants take turns in them.

use super::body::Framing;
use super::client::Protocol;
use super::contestant::Running;
use super::meter::Sample;
use super::registry::Registry;
use super::report::Report;
use super::upstream::{BLOB, MANIFEST};
use super::{Bench, Outcome};

/// A kind of work. Its name on the command line stands in [`Scenario::NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Handshakes,
    HandshakesLongList,
    Resumptions,
    Requests,
    RequestsHttp2,
    Downloads,
    DownloadsHttp2,
    Uploads,
    UploadsHttp2,
    Memory,
    Registry,
}

/// How a row is called: scenario, what of it, the unit of work.
pub type Title = (Scenario, &'static str, &'static str);

impl Scenario {
    /// All of them, in the order in which they run.
    pub const NAMES: &[(&str, Self)] = &[
        ("S1", Self::Handshakes),
        ("S1m", Self::HandshakesLongList),
        ("S2", Self::Resumptions),
        ("S3", Self::Requests),
        ("S4", Self::RequestsHttp2),
        ("S5", Self::Downloads),
        ("S5h2", Self::DownloadsHttp2),
        ("S6", Self::Uploads),
        ("S6h2", Self::UploadsHttp2),
        ("S7", Self::Memory),
        ("S9", Self::Registry),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, scenario)| *scenario == self).map_or("?", |(name, _)| name)
    }

    /// # Errors
    /// Lists the names there are.
    pub fn by_name(name: &str) -> Outcome<Self> {
        let found = Self::NAMES.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, scenario)| *scenario).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("there is no scenario {name}; there are {}", names.join(", ")).into()
        })
    }

    /// How many entries the revocation list has.
    pub fn list_entries(self) -> u32 {
        if self == Self::HandshakesLongList { 1_000_000 } else { 1000 }
    }

    /// Measures every contestant and adds what came out to the report.
    ///
    /// # Errors
    /// When a contestant refuses or breaks off.
    pub async fn run(self, bench: &Bench, running: &[Running], report: &mut Report) -> Outcome<()> {
        match self {
            Self::Handshakes => {
                let work = async |one: &Running, count| bench.handshakes(one, count, false).await;
                turns(bench, running, report, ((self, "full handshake, list of 1,000", "ms"), 2000), work).await
            }
            Self::HandshakesLongList => {
                let work = async |one: &Running, count| bench.handshakes(one, count, false).await;
                turns(bench, running, report, ((self, "full handshake, list of 1,000,000", "ms"), 100), work).await
            }
            Self::Resumptions => {
                let work = async |one: &Running, count| bench.handshakes(one, count, true).await;
                turns(bench, running, report, ((self, "resumed handshake", "ms"), 2000), work).await
            }
            Self::Requests => {
                let work = async |one: &Running, count| bench.requests(one, 32, MANIFEST, count).await;
                turns(bench, running, report, ((self, "manifest, HTTP/1.1, 32 connections", "us"), 30_000), work).await
            }
            Self::RequestsHttp2 => {
                for (title, connections, streams) in
                    [("manifest, HTTP/2, 32x1", 32, 1), ("manifest, HTTP/2, 4x8", 4, 8)]
                {
                    let work =
                        async |one: &Running, count| bench.requests_http2(one, connections, streams, count).await;
                    turns(bench, running, report, ((self, title, "us"), 30_000), work).await?;
                }
                Ok(())
            }
            Self::Downloads => self.downloads(bench, running, report, Protocol::Http1).await,
            Self::DownloadsHttp2 => self.downloads(bench, running, report, Protocol::Http2).await,
            Self::Uploads => self.uploads(bench, running, report, Protocol::Http1).await,
            Self::UploadsHttp2 => self.uploads(bench, running, report, Protocol::Http2).await,
            Self::Memory => bench.memory(running, report).await,
            Self::Registry => self.registry(bench, report).await,
        }
    }

    async fn downloads(
        self,
        bench: &Bench,
        running: &[Running],
        report: &mut Report,
        protocol: Protocol,
    ) -> Outcome<()> {
        for (title, parallel, count) in [("download, 1 at a time", 1, 6), ("download, 8 at a time", 8, 8)] {
            let work = async |one: &Running, count| bench.download(one, protocol, BLOB, (parallel, count)).await;
            turns(bench, running, report, ((self, title, "s/GB"), count), work).await?;
        }
        Ok(())
    }

    async fn uploads(self, bench: &Bench, running: &[Running], report: &mut Report, protocol: Protocol) -> Outcome<()> {
        for (title, framing) in [("upload with length", Framing::Length), ("upload without length", Framing::Chunked)] {
            let work = async |one: &Running, count| bench.upload(one, protocol, framing, count).await;
            turns(bench, running, report, ((self, title, "s/GB"), 4), work).await?;
        }
        Ok(())
    }

    /// The real registry, if there is one.
    async fn registry(self, bench: &Bench, report: &mut Report) -> Outcome<()> {
        let Some(registry) = Registry::start(bench).await? else {
            report.note("S9 was left out: docker-registry is not on PATH (REGISTRY=… names one)");
            return Ok(());
        };
        let running = bench.start(registry.address, self.list_entries())?;
        let work = async |one: &Running, count| bench.requests(one, 32, MANIFEST, count).await;
        turns(bench, &running, report, ((self, "docker-registry, manifest", "us"), 6000), work).await?;
        let work = async |one: &Running, count| bench.download(one, Protocol::Http1, &registry.blob, (1, count)).await;
        turns(bench, &running, report, ((self, "docker-registry, blob", "s/GB"), 4), work).await
    }
}

/// Lets the contestants take turns, another one first in every round, after a tenth of the work that warms them up.
async fn turns(
    bench: &Bench,
    running: &[Running],
    report: &mut Report,
    (title, count): (Title, u32),
    work: impl AsyncFn(&Running, u32) -> Outcome<Sample>,
) -> Outcome<()> {
    let work = async |one: &Running, count| {
        work(one, count).await.map_err(|e| format!("{} in {} ({}): {e}", one.name, title.0.name(), title.1))
    };
    let count = bench.options.scaled(count);
    let mut samples = vec![Vec::new(); running.len()];
    for one in running {
        work(one, count.div_ceil(10)).await?;
    }
    for round in 0..bench.options.rounds {
        for turn in 0..running.len() {
            let at = (round + turn) % running.len();
            let (Some(one), Some(samples)) = (running.get(at), samples.get_mut(at)) else { continue };
            samples.push(work(one, count).await?);
        }
    }
    report.add(title, running.iter().map(|one| one.name).zip(samples));
    Ok(())
}
