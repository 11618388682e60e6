//! The threads of a gateway: one for the control plane, and those that serve.

use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use pingora::server::configuration::ServerConf;
use tokio::sync::{mpsc, watch};

use super::control::{ControlPlane, Reload, report, settle, take_up};
use super::keeping::Keeping;
use super::pulse::{Pulse, Pulses};
use super::sockets;
use crate::config::Settings;
use crate::edge::{App, Bound, Counters, Edge, Register, WindowBudget, Worker};
use crate::proxy;
use crate::snapshot::{Builder, Built, Fetcher, Publisher, Reader, Watcher};
use crate::tag_locks::TagLocks;
use crate::telemetry::{self, ReloadResult, Reloaded, STEP, Telemetry};

/// Idle connections to upstreams that each serving thread keeps.
const POOL_SIZE: usize = 256;

/// How long cut connections may take to write their records.
const LAST_RECORDS: Duration = Duration::from_secs(3);

/// What a gateway starts with.
pub(super) struct Plan {
    pub(super) builder: Builder,
    pub(super) built: Built,
    pub(super) bound: Vec<Bound>,
    /// For the connections to come.
    pub(super) register: Arc<Register>,
    pub(super) telemetry: Telemetry,
    /// When the files began to be read.
    pub(super) read_since: SystemTime,
    /// How long lists that nobody has fetched yet are waited for.
    pub(super) patience: Duration,
    pub(super) watcher: Option<Watcher>,
    pub(super) reloads: mpsc::Receiver<Reload>,
    pub(super) publisher: Publisher,
    pub(super) reader: Reader,
    /// The order to accept connections.
    pub(super) open: watch::Receiver<bool>,
    /// The order to leave, and that to wait no longer.
    pub(super) draining: watch::Receiver<bool>,
    pub(super) hurried: watch::Receiver<bool>,
    /// Where threads leave signs of life, and how often, if anybody asks. The control plane's is the last.
    pub(super) beat: Option<(Arc<Pulses>, Duration)>,
}

/// Starts the control plane on a thread of its own, and waits until every thread is ready to accept, for which it
/// waits for the order. What is returned with the thread becomes true when it ends.
pub(super) fn start(plan: Plan) -> Result<(JoinHandle<()>, watch::Receiver<bool>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
    let (started, starting) = std_mpsc::sync_channel(1);
    let (end, ended) = watch::channel(false);
    let control = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        runtime.block_on(run(plan, &started));
        let _ = end.send(true);
    });
    let control = control.map_err(|e| format!("no thread: {e}"))?;
    match starting.recv() {
        Ok(Ok(())) => Ok((control, ended)),
        Ok(Err(e)) => Err(e),
        Err(_) => Err("the control plane could not start; see the log".to_owned()),
    }
}

async fn run(plan: Plan, started: &std_mpsc::SyncSender<Result<(), String>>) {
    let Plan { builder, built, bound, register, telemetry, watcher, reloads, publisher, reader, .. } = plan;
    let (open, draining, hurried, beat) = (plan.open, plan.draining, plan.hurried, plan.beat);
    let mut fetcher = Fetcher::new(builder.shelf(), telemetry.metrics.clone());
    let first = built.snapshot.generation;
    let (builder, built) = match settle(&mut fetcher, builder, built, plan.patience).await {
        Ok(settled) => settled,
        Err(e) => return drop(started.send(Err(e))),
    };
    if built.snapshot.generation != first {
        report(&built.findings);
        publisher.publish(built.snapshot.clone());
    }
    let settings = built.snapshot.settings.clone();
    telemetry.metrics.publish(&built.snapshot.published);
    telemetry.metrics.reload(ReloadResult::Published, SystemTime::now());
    keep_history(&telemetry, &built, plan.read_since);
    take_up(&built.new_upstreams).await;
    let edge = Edge {
        snapshots: reader.clone(),
        register,
        telemetry: telemetry.clone(),
        counters: Arc::new(Counters::default()),
        windows: Arc::new(WindowBudget::new(settings.limits.h2_upload_memory)),
        draining: draining.clone(),
    };
    let workers = match start_workers(bound, &settings, (&edge, &open), beat.as_ref()).await {
        Ok(workers) => workers,
        Err(e) => return drop(started.send(Err(e))),
    };
    if let Some((pulses, every)) = beat {
        tokio::spawn(pulses.pulse(settings.threads).keep(every));
    }
    let control = ControlPlane {
        builder: Some(builder),
        publisher,
        edge: edge.clone(),
        watcher,
        reader,
        fetcher,
        keeping: Keeping::default(),
    };
    let reloading = tokio::spawn(control.run(reloads));
    let _ = started.send(Ok(()));
    let (mut draining, mut hurried) = (draining, hurried);
    order(&mut draining).await;
    log::info!("{} connection(s) are open", edge.register.len());
    // Revocations and expiries count to the last byte: the control plane goes on until nobody is left.
    tokio::select! {
        () = wait_for_workers(&workers, settings.drain_grace) => {}
        () = order(&mut hurried) => {}
    }
    cut_the_rest(&workers, &edge.register).await;
    reloading.abort();
}

/// Begins what whoever looks will want to know: how it started, and how the last minutes were.
fn keep_history(telemetry: &Telemetry, built: &Built, read_since: SystemTime) {
    telemetry.lately.reloaded(Reloaded {
        time: SystemTime::now(),
        origin: "start".to_owned(),
        took: read_since.elapsed().unwrap_or_default(),
        generation: built.snapshot.generation,
        ok: true,
        report: built.findings.to_string(),
    });
    // Nobody can look without the listener for it.
    if built.snapshot.settings.admin.is_some() {
        tokio::spawn(keep_sampling(telemetry.clone()));
    }
}

/// Reads the counters at intervals, for whoever asks how the last minutes were.
async fn keep_sampling(telemetry: Telemetry) {
    let mut steps = tokio::time::interval(STEP);
    steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        steps.tick().await;
        telemetry.lately.traffic.sample(Instant::now(), telemetry.metrics.totals());
    }
}

/// Resolves once the order is given, or nobody can give it any more.
async fn order(given: &mut watch::Receiver<bool>) {
    let _ = given.wait_for(|given| *given).await;
}

/// Starts the serving threads, and waits until all of them can serve. Those that could end if another one can't.
async fn start_workers(
    bound: Vec<Bound>,
    settings: &Settings,
    (edge, open): (&Edge, &watch::Receiver<bool>),
    beat: Option<&(Arc<Pulses>, Duration)>,
) -> Result<Vec<JoinHandle<()>>, String> {
    let shares = sockets::shares(bound, settings.threads).map_err(|e| format!("no descriptor: {e}"))?;
    let conf = Arc::new(ServerConf { threads: 1, upstream_keepalive_pool_size: POOL_SIZE, ..ServerConf::default() });
    // A tag is pushed by one request of the process at a time, on whatever thread.
    let tags = Arc::new(TagLocks::default());
    let (prepared, mut preparing) = mpsc::channel(settings.threads.max(1));
    let mut workers = Vec::new();
    for (index, share) in shares.into_iter().enumerate() {
        let edge = edge.clone();
        let pulse = beat.map(|(pulses, every)| (pulses.pulse(index), *every));
        let Edge { snapshots, telemetry, draining, .. } = edge.clone();
        let gateway = proxy::Gateway::new(snapshots, telemetry, draining, tags.clone());
        // One application for each thread: its pool of upstream connections belongs to the thread's runtime.
        let app: Arc<App> = Arc::new(pingora::proxy::http_proxy(&conf, gateway));
        let worker = std::thread::Builder::new().name(format!("serve-{index}"));
        let start = Start { prepared: prepared.clone(), open: open.clone() };
        let worker = worker.spawn(move || serve(edge, (share, app), start, pulse));
        workers.push(worker.map_err(|e| format!("no thread: {e}"))?);
    }
    drop(prepared);
    for _ in &workers {
        let outcome = preparing.recv().await;
        outcome.unwrap_or_else(|| Err("a serving thread could not start; see the log".to_owned()))?;
    }
    Ok(workers)
}

/// The first moments of a serving thread.
struct Start {
    /// Takes whether it can serve.
    prepared: mpsc::Sender<Result<(), String>>,
    open: watch::Receiver<bool>,
}

impl Start {
    /// Whether the order to accept came, and not that to leave.
    async fn opened(self, outcome: Result<(), String>, draining: &watch::Receiver<bool>) -> bool {
        let Start { prepared, mut open } = self;
        let ready = outcome.is_ok();
        // Whoever doesn't wait for it has given up.
        let _ = prepared.send(outcome).await;
        drop(prepared);
        let mut draining = draining.clone();
        ready
            && tokio::select! {
                opened = open.wait_for(|open| *open) => opened.is_ok(),
                () = order(&mut draining) => false,
            }
    }
}

fn serve(edge: Edge, (share, app): (sockets::Share, Arc<App>), start: Start, pulse: Option<(Pulse, Duration)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let draining = edge.draining.clone();
    let beat = pulse.clone();
    let outcome = runtime.and_then(|runtime| {
        runtime.block_on(async {
            if let Some((pulse, every)) = beat {
                tokio::spawn(pulse.keep(every));
            }
            let draining = edge.draining.clone();
            let (worker, outcome) = match Worker::new(edge, share, app) {
                Ok(worker) => (Some(worker), Ok(())),
                Err(e) => (None, Err(format!("a serving thread can't serve: {e}"))),
            };
            if let (true, Some(worker)) = (start.opened(outcome, &draining).await, worker) {
                worker.run().await;
            }
            std::io::Result::Ok(())
        })
    });
    if let Err(e) = outcome {
        log::error!("a serving thread ended: {e}");
    }
    // One that ends before its time goes on being missed.
    if let Some((pulse, _)) = pulse.filter(|_| *draining.borrow()) {
        pulse.retire();
    }
}

fn all_finished(workers: &[JoinHandle<()>]) -> bool {
    workers.iter().all(JoinHandle::is_finished)
}

/// Waits until every connection has ended, for `grace` at most.
async fn wait_for_workers(workers: &[JoinHandle<()>], grace: Duration) {
    let deadline = Instant::now() + grace;
    while !all_finished(workers) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends the connections that are left. They only have to write their records then.
async fn cut_the_rest(workers: &[JoinHandle<()>], register: &Register) {
    let left = register.end_where(|_| Some(telemetry::EndReason::Shutdown));
    if left > 0 {
        log::warn!("{left} connection(s) were cut before they were done");
    }
    wait_for_workers(workers, LAST_RECORDS).await;
}
