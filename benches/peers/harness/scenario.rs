//! The scenarios, and how contestants take turns in them.

use super::client::Framing;
use super::contestant::Running;
use super::report::Report;
use super::{Bench, Outcome};
use std::time::Instant;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Uploads over HTTP/1.1.
    Uploads,
    /// Uploads over HTTP/2.
    UploadsHttp2,
}

/// What one contestant did in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub cpu_seconds: f64,
    pub wall_seconds: f64,
    pub amount: f64,
}

/// Measures from its making to its end.
pub struct Meter<'a> {
    running: &'a Running,
    cpu: f64,
    begun: Instant,
}

impl<'a> Meter<'a> {
    pub fn start(running: &'a Running) -> Self {
        Self { running, cpu: running.process.cpu_seconds(), begun: Instant::now() }
    }

    pub fn stop(self, amount: f64) -> Sample {
        let wall_seconds = self.begun.elapsed().as_secs_f64();
        Sample { cpu_seconds: self.running.process.cpu_seconds() - self.cpu, wall_seconds, amount }
    }
}

impl Scenario {
    pub const ALL: &[Self] = &[Self::Uploads, Self::UploadsHttp2];

    /// What it is called on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uploads => "S6",
            Self::UploadsHttp2 => "S6h2",
        }
    }

    /// # Errors
    /// Lists the names there are.
    pub fn by_name(name: &str) -> Outcome<Self> {
        let found = Self::ALL.iter().find(|scenario| scenario.name().eq_ignore_ascii_case(name));
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|scenario| scenario.name()).collect();
            format!("there is no scenario {name}; there are {}", names.join(", ")).into()
        })
    }

    /// # Errors
    /// When a contestant refuses or breaks off.
    pub async fn run(self, bench: &Bench, running: &[Running], report: &mut Report) -> Outcome<()> {
        match self {
            Self::Uploads => {
                for (title, framing) in [("with length", Framing::Length), ("in chunks", Framing::Chunked)] {
                    let work = async |one: &Running, count| bench.upload(one, framing, count).await;
                    turns(bench, running, report, (self, title, "s/GB"), 4, work).await?;
                }
            }
            Self::UploadsHttp2 => {
                for (title, framing) in [("with length", Framing::Length), ("without length", Framing::Chunked)] {
                    let work = async |one: &Running, count| bench.upload_http2(one, framing, count).await;
                    turns(bench, running, report, (self, title, "s/GB"), 4, work).await?;
                }
            }
        }
        Ok(())
    }
}

/// Lets the contestants take turns, each beginning once, after a round that warms them up with a tenth of the work.
async fn turns(
    bench: &Bench,
    running: &[Running],
    report: &mut Report,
    (scenario, title, unit): (Scenario, &'static str, &'static str),
    count: u32,
    work: impl AsyncFn(&Running, u32) -> Outcome<Sample>,
) -> Outcome<()> {
    let count = bench.options.scaled(count);
    let mut samples = vec![Vec::new(); running.len()];
    for one in running {
        work(one, count.div_ceil(10)).await.map_err(|e| format!("{} in {}: {e}", one.name, scenario.name()))?;
    }
    for round in 0..bench.options.rounds {
        for turn in 0..running.len() {
            let at = (round + turn) % running.len();
            let (Some(one), Some(samples)) = (running.get(at), samples.get_mut(at)) else { continue };
            samples.push(work(one, count).await.map_err(|e| format!("{} in {}: {e}", one.name, scenario.name()))?);
        }
    }
    report.add(scenario.name(), title, unit, running.iter().map(|one| one.name).zip(samples));
    Ok(())
}
