//! The threads of a gateway: one for the control plane, and those that serve.

use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use pingora::server::configuration::ServerConf;
use tokio::sync::{mpsc, watch};

use super::control::{ControlPlane, FETCH_PATIENCE, Reload, report, settle, take_up};
use super::keeping::Keeping;
use super::pulse::{Pulse, Pulses};
use super::sockets;
use crate::config::Settings;
use crate::edge::{self, App, Bound, Counters, Edge, Register, WindowBudget};
use crate::proxy;
use crate::snapshot::{Builder, Built, Fetcher, Publisher, Reader, Watcher};
use crate::telemetry::{self, ReloadResult, Telemetry};

/// Idle connections to upstreams that each serving thread keeps.
const POOL_SIZE: usize = 256;

/// How long cut connections may take to write their records.
const LAST_RECORDS: Duration = Duration::from_secs(3);

/// What a gateway starts with.
pub(super) struct Plan {
    pub(super) builder: Builder,
    pub(super) built: Built,
    pub(super) bound: Vec<Bound>,
    pub(super) telemetry: Telemetry,
    pub(super) watcher: Option<Watcher>,
    pub(super) reloads: mpsc::Receiver<Reload>,
    pub(super) publisher: Publisher,
    pub(super) reader: Reader,
    /// The order to leave, and that to wait no longer.
    pub(super) draining: watch::Receiver<bool>,
    pub(super) hurried: watch::Receiver<bool>,
    /// Where threads leave signs of life, and how often, if anybody asks. The control plane's is the last.
    pub(super) beat: Option<(Arc<Pulses>, Duration)>,
}

/// Starts the control plane on a thread of its own, and waits until connections are served. What is returned with the
/// thread becomes true when it ends.
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
    let Plan { builder, built, bound, telemetry, watcher, reloads, publisher, reader, draining, hurried, beat } = plan;
    let mut fetcher = Fetcher::new(builder.shelf(), telemetry.metrics.clone());
    let first = built.snapshot.generation;
    let (builder, built) = match settle(&mut fetcher, builder, built, FETCH_PATIENCE).await {
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
    take_up(&built.new_upstreams).await;
    let edge = Edge {
        snapshots: reader.clone(),
        register: Arc::new(Register::default()),
        telemetry: telemetry.clone(),
        counters: Arc::new(Counters::default()),
        windows: Arc::new(WindowBudget::new(settings.limits.h2_upload_memory)),
        draining: draining.clone(),
    };
    let workers = match start_workers(bound, &settings, &edge, beat.as_ref()) {
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
    log::info!(generation = built.snapshot.generation; "serving");
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

/// Resolves once the order is given, or nobody can give it any more.
async fn order(given: &mut watch::Receiver<bool>) {
    let _ = given.wait_for(|given| *given).await;
}

/// Starts the serving threads.
fn start_workers(
    bound: Vec<Bound>,
    settings: &Settings,
    edge: &Edge,
    beat: Option<&(Arc<Pulses>, Duration)>,
) -> Result<Vec<JoinHandle<()>>, String> {
    let shares = sockets::shares(bound, settings.threads).map_err(|e| format!("no descriptor: {e}"))?;
    let conf = Arc::new(ServerConf { threads: 1, upstream_keepalive_pool_size: POOL_SIZE, ..ServerConf::default() });
    let mut workers = Vec::new();
    for (index, share) in shares.into_iter().enumerate() {
        let edge = edge.clone();
        let pulse = beat.map(|(pulses, every)| (pulses.pulse(index), *every));
        let gateway = proxy::Gateway::new(edge.snapshots.clone(), edge.telemetry.clone(), edge.draining.clone());
        // One application for each thread: its pool of upstream connections belongs to the thread's runtime.
        let app: Arc<App> = Arc::new(pingora::proxy::http_proxy(&conf, gateway));
        let worker = std::thread::Builder::new().name(format!("serve-{index}"));
        let worker = worker.spawn(move || serve(edge, share, app, pulse));
        workers.push(worker.map_err(|e| format!("no thread: {e}"))?);
    }
    Ok(workers)
}

fn serve(edge: Edge, share: sockets::Share, app: Arc<App>, pulse: Option<(Pulse, Duration)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let draining = edge.draining.clone();
    let beat = pulse.clone();
    let outcome = runtime.and_then(|runtime| {
        runtime.block_on(async {
            if let Some((pulse, every)) = beat {
                tokio::spawn(pulse.keep(every));
            }
            edge::run_worker(edge, share, app).await
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
