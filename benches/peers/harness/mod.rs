//! The gateway beside its peers: the same work for everybody, in one run, and what each paid for it in CPU time.
//!
//! Contestants run on cores of their own with one worker, the clients and the upstream, which are this process, on others.
//! They take turns within each round, so that what disturbs the machine disturbs everybody. What counts is the CPU time of
//! a contestant's processes for a unit of work: rates also depend on the client and the upstream.

mod client;
mod contestant;
pub mod options;
mod pki;
mod process;
mod report;
mod scenario;
mod transfer;
mod upstream;

use client::Client;
use contestant::{Contestant, Running, Setting};
use options::Options;
use pki::Pki;
use report::Report;
use scenario::Scenario;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use tempfile::TempDir;
use upstream::Upstream;

/// What the harness returns; whoever runs it reads the text.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a run has set up.
pub struct Bench {
    pub options: Options,
    pub contestants: Vec<Contestant>,
    pub client: Client,
    pki: Pki,
    list: PathBuf,
    upstream: Upstream,
    directory: TempDir,
}

/// Runs what the options ask for, with the gateway in `gateway`, on a runtime of its own.
///
/// # Errors
/// When something can't be started or answers wrongly, and when the run was interrupted.
pub fn run(options: Options, gateway: &str) -> Outcome<Report> {
    if let Some(cores) = options.client_cores() {
        process::move_to(cores)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        // What is dropped on the way out ends the processes it started.
        tokio::select! {
            report = Bench::whole(options, gateway) => report,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            _ = terminated.recv() => Err("interrupted".into()),
        }
    })
}

impl Bench {
    async fn whole(options: Options, gateway: &str) -> Outcome<Report> {
        let bench = Self::new(options, gateway)?;
        let mut report = Report::new(&bench.contestants, &bench.options);
        for scenario in bench.options.scenarios()? {
            bench.scenario(scenario, &mut report).await?;
        }
        Ok(report)
    }

    fn new(options: Options, gateway: &str) -> Outcome<Self> {
        let directory = tempfile::Builder::new().prefix("portcullis-bench-").tempdir()?;
        let pki = Pki::create(&directory.path().join("pki"))?;
        let contestants = options.choose(Contestant::gateway(gateway.to_owned())?, Contestant::peers())?;
        let upstream = Upstream::start(options.blob_bytes())?;
        Ok(Self { client: Client::new(&pki)?, list: pki.list(1000)?, contestants, pki, upstream, directory, options })
    }

    /// Starts every contestant before `upstream`.
    fn start(&self, upstream: SocketAddr) -> Outcome<Vec<Running>> {
        let start = |contestant: &Contestant| {
            let setting = Setting {
                pki: &self.pki,
                list: &self.list,
                upstream,
                directory: tempfile::Builder::new().prefix(contestant.name).tempdir_in(&self.directory)?.keep(),
                cores: self.options.gateway_cores(),
                threads: 1,
            };
            Running::start(contestant, &setting)
        };
        self.contestants.iter().map(start).collect()
    }

    async fn scenario(&self, scenario: Scenario, report: &mut Report) -> Outcome<()> {
        let running = self.start(self.upstream.address)?;
        scenario.run(self, &running, report).await
    }
}
