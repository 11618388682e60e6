//! The gateway beside its peers: the same work for everybody, in one run, and what each paid for it in CPU time.
//!
//! Contestants run on cores of their own with one worker, the clients and the upstream, which are this process, on others.
//! They take turns within each round, so that what disturbs the machine disturbs everybody. What counts is the CPU time of
//! a contestant's processes for a unit of work: rates also depend on the client and the upstream.

mod body;
mod client;
mod contestant;
mod http1;
mod http2;
mod load;
mod memory;
mod meter;
pub mod options;
mod pki;
mod process;
mod registry;
mod report;
mod scenario;
mod small;
mod soak;
mod transfer;
mod upstream;

use client::Client;
use contestant::{Contestant, Running, Setting};
use meter::Meter;
use options::Options;
use pki::Pki;
use report::Report;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use upstream::Upstream;

/// What the harness returns; whoever runs it reads the text.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a run has set up.
pub struct Bench {
    pub options: Options,
    pub contestants: Vec<Contestant>,
    pub client: Arc<Client>,
    pki: Pki,
    upstream: Upstream,
    directory: TempDir,
}

/// Runs what the options ask for, with the gateway in `gateway`, on a runtime of its own.
///
/// # Errors
/// When something can't be started or answers wrongly, and when the run was interrupted.
pub fn run(options: Options, gateway: &str) -> Outcome<Report> {
    process::raise_limits()?;
    // A load run uses all cores, for the gateway as for the clients.
    let alone = options.load || options.soak.is_some();
    if let Some(cores) = options.client_cores().filter(|_| !alone) {
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
            let running = bench.start(bench.upstream.address, scenario.list_entries())?;
            scenario.run(&bench, &running, &mut report).await?;
        }
        if bench.options.load {
            bench.load(&mut report).await?;
        }
        if let Some(length) = bench.options.soak {
            bench.soak(length, &mut report).await?;
        }
        Ok(report)
    }

    fn new(options: Options, gateway: &str) -> Outcome<Self> {
        let directory = tempfile::Builder::new().prefix("portcullis-bench-").tempdir()?;
        let pki = Pki::create(&directory.path().join("pki"))?;
        let contestants = options.choose(Contestant::gateway(gateway.to_owned())?, Contestant::peers())?;
        let upstream = Upstream::start(options.blob_bytes())?;
        Ok(Self { client: Arc::new(Client::new(&pki, None)?), contestants, pki, upstream, directory, options })
    }

    /// Starts every contestant before `upstream`, with a revocation list of so many entries.
    fn start(&self, upstream: SocketAddr, entries: u32) -> Outcome<Vec<Running>> {
        let list = self.pki.list(entries)?;
        let start = |contestant: &Contestant| {
            let directory = self.directory(contestant.name)?;
            let cores = self.options.gateway_cores();
            let setting = Setting { pki: &self.pki, list: &list, upstream, directory, cores, threads: 1 };
            Running::start(contestant, &setting)
        };
        self.contestants.iter().map(start).collect()
    }

    /// Starts the gateway alone, with `threads` serving threads, on whatever cores there are for it.
    fn start_gateway(&self, upstream: SocketAddr, threads: usize) -> Outcome<Running> {
        let gateway = self.contestants.first().ok_or("the gateway always comes first")?;
        let list = self.pki.list(1000)?;
        let (directory, cores) = (self.directory("alone")?, self.options.load_cores());
        let cores = cores.as_deref();
        Running::start(gateway, &Setting { pki: &self.pki, list: &list, upstream, directory, cores, threads })
    }

    /// A new directory within the run's own.
    fn directory(&self, name: &str) -> Outcome<PathBuf> {
        Ok(tempfile::Builder::new().prefix(name).tempdir_in(&self.directory)?.keep())
    }

    /// Begins to measure.
    fn meter<'a>(&'a self, running: &'a Running) -> Meter<'a> {
        Meter::start(running, self.options.gateway_cores())
    }
}
