//! Wiring: from a configuration file to a running gateway, its reloads, and its end.
//!
//! Serving threads run one single-threaded runtime each and share nothing that is locked on the way of a request. The
//! control plane has a runtime of its own on the calling thread; building a snapshot happens on yet another thread, so
//! that a large revocation list delays neither requests nor signals.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use pingora::server::configuration::ServerConf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{self, Admin, Control, Health};
use crate::config::{self, Diagnostics, Settings};
use crate::edge::{self, App, Bound, Counters, Edge, Register, WindowBudget};
use crate::proxy::Gateway;
use crate::snapshot::{self, Builder, Built, Failed, Fetcher, Publisher, Reader, Watcher};
use crate::telemetry::{self, AccessLog, Metrics, ReloadResult, Telemetry};
use crate::tls;
use control::{ControlPlane, FETCH_PATIENCE, Reload, report, settle, take_up};
use keeping::Keeping;

mod control;
mod keeping;
mod revocation;

/// How long the last access records may take to be written at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// Idle connections to upstreams that each serving thread keeps.
const POOL_SIZE: usize = 256;

/// Why the gateway could not start, or ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The files are at fault.
    #[error("{0}")]
    Configuration(Diagnostics),
    /// An address, a socket or a log file of the host.
    #[error("{0}")]
    Host(String),
}

impl From<Box<Failed>> for ServeError {
    fn from(failed: Box<Failed>) -> Self {
        ServeError::Configuration(failed.findings)
    }
}

/// Metrics under the names and version of this build.
///
/// # Errors
///
/// Never for the families of this program; a text if the library refuses one.
pub fn metrics() -> Result<Arc<Metrics>, String> {
    Metrics::new(env!("CARGO_PKG_VERSION"), tls::BACKEND).map(Arc::new).map_err(|e| format!("metrics: {e}"))
}

/// Serves the configuration at `file` until SIGTERM or SIGINT, then drains.
///
/// # Errors
///
/// [`ServeError`] before the first connection is accepted; nothing is served half.
pub fn serve(file: &Path) -> Result<(), ServeError> {
    let host = |e: String| ServeError::Host(e);
    let metrics = metrics().map_err(host)?;
    let mut builder = Builder::new(file, metrics.clone());
    let began = SystemTime::now();
    let built = builder.build()?;
    let settings = &built.snapshot.settings;
    let (requests, reloads) = mpsc::channel(16);
    // Ahead of everything that may have something to say; the last value to go, so that it says the last word.
    let _flush = telemetry::log::init(settings.log, &metrics).map_err(|e| host(format!("no log: {e}")))?;
    // From here on no change is missed: what changed while the files were read is read again.
    let watcher = watch_files(builder.inputs(), settings.reload, &requests, began);
    report(&built.findings);
    let access = match &settings.access_log {
        Some(log) => AccessLog::start(log.target.clone(), log.queue, &metrics)
            .map_err(|e| host(format!("access_log.path: cannot be written: {e}")))?,
        None => AccessLog::disabled(),
    };
    let telemetry = Telemetry { metrics, access, expiring: Arc::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| host(format!("no runtime: {e}")))?;
    // Before anybody learns that the gateway is there: a signal without a handler would end it.
    let signals = Signals::new(&runtime).map_err(|e| host(format!("signals: {e}")))?;
    let bound = bind(settings).map_err(host)?;
    let (publisher, reader) = snapshot::store(built.snapshot.clone());
    let (drain, draining) = watch::channel(false);
    let admin = start_admin(settings, &telemetry, &reader, &requests, &draining).map_err(host)?;
    announce(settings, &bound, &admin);
    let access = telemetry.access.clone();
    let plan = Plan {
        builder,
        built,
        bound,
        telemetry,
        watcher,
        requests,
        reloads,
        publisher,
        reader,
        drain,
        draining,
        signals,
    };
    let outcome = runtime.block_on(run(plan));
    drop(admin);
    if !access.flush(FLUSH) {
        log::warn!("the last access records could not be written");
    }
    outcome
}

/// Binds every address of every listener, once for each serving thread.
fn bind(settings: &Settings) -> Result<Vec<Bound>, String> {
    let mut bound = Vec::new();
    for (index, listener) in settings.listeners.iter().enumerate() {
        for address in &listener.addresses {
            let socket = edge::bind(index, *address, settings.threads);
            bound.push(socket.map_err(|e| format!("listener \"{}\": {e}", listener.name))?);
        }
    }
    Ok(bound)
}

/// What a gateway starts with.
struct Plan {
    builder: Builder,
    built: Built,
    bound: Vec<Bound>,
    telemetry: Telemetry,
    watcher: Option<Watcher>,
    signals: Signals,
    requests: mpsc::Sender<Reload>,
    reloads: mpsc::Receiver<Reload>,
    publisher: Publisher,
    reader: Reader,
    drain: watch::Sender<bool>,
    draining: watch::Receiver<bool>,
}

async fn run(plan: Plan) -> Result<(), ServeError> {
    let Plan {
        builder, built, bound, telemetry, watcher, requests, reloads, publisher, reader, drain, draining, ..
    } = plan;
    let mut signals = plan.signals;
    let host = |e: String| ServeError::Host(e);
    let mut fetcher = Fetcher::new(builder.shelf(), telemetry.metrics.clone());
    let first = built.snapshot.generation;
    let (builder, built) = settle(&mut fetcher, builder, built, FETCH_PATIENCE).await.map_err(host)?;
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
        draining,
    };
    let workers = start_workers(bound, &settings, &edge).map_err(host)?;
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
    let stop = signals.until_stop(&telemetry, &requests).await;
    log::info!("{stop}: draining for at most {:?}; a second signal ends it", settings.drain_grace);
    let _ = drain.send(true);
    // Revocations and expiries count to the last byte: the control plane goes on until nobody is left.
    tokio::select! {
        () = wait_for_workers(&workers, settings.drain_grace) => {}
        stop = signals.until_stop(&telemetry, &requests) => log::warn!("{stop}: not waiting any longer"),
    }
    cut_the_rest(&workers, &edge.register).await;
    reloading.abort();
    log::info!("stopped");
    Ok(())
}

/// What a signal asks for.
enum Order {
    Reload,
    Stop(&'static str),
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new(runtime: &tokio::runtime::Runtime) -> std::io::Result<Self> {
        let _entered = runtime.enter();
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Serves SIGHUP until told to stop; by what is returned.
    async fn until_stop(&mut self, telemetry: &Telemetry, requests: &mpsc::Sender<Reload>) -> &'static str {
        loop {
            match self.next().await {
                Order::Reload => {
                    if let Err(e) = telemetry.access.reopen() {
                        log::error!("the access log could not be reopened: {e}");
                    }
                    // A full queue means that a reload is about to start anyway.
                    let _ = requests.try_send(Reload { origin: "SIGHUP", noticed: None, answer: None });
                }
                Order::Stop(name) => return name,
            }
        }
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.hangup.recv() => Order::Reload,
            _ = self.terminate.recv() => Order::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Order::Stop("SIGINT"),
        }
    }
}

fn announce(settings: &Settings, bound: &[Bound], admin: &Admin) {
    for socket in bound {
        let name = settings.listeners.get(socket.listener).map_or("", |listener| listener.name.as_str());
        log::info!(kind = "edge", listener = name, address:% = socket.address; "listening");
    }
    if let Some(address) = admin.health_address() {
        log::info!(kind = "health", address:% = address; "listening");
    }
    match admin.control_address() {
        Some(config::AdminAddress::Tcp(address)) => log::info!(kind = "admin", address:% = address; "listening"),
        Some(config::AdminAddress::Unix(path)) => {
            log::info!(kind = "admin", address:% = format!("unix:{}", path.display()); "listening");
        }
        None => {}
    }
}

/// Starts the serving threads.
fn start_workers(bound: Vec<Bound>, settings: &Settings, edge: &Edge) -> Result<Vec<JoinHandle<()>>, String> {
    let mut shares: Vec<Vec<(usize, TcpListener)>> = (0..settings.threads).map(|_| Vec::new()).collect();
    for Bound { listener, sockets, .. } in bound {
        for (share, socket) in shares.iter_mut().zip(sockets) {
            share.push((listener, socket));
        }
    }
    let conf = Arc::new(ServerConf { threads: 1, upstream_keepalive_pool_size: POOL_SIZE, ..ServerConf::default() });
    let mut workers = Vec::new();
    for (index, share) in shares.into_iter().enumerate() {
        let edge = edge.clone();
        let gateway = Gateway::new(edge.snapshots.clone(), edge.telemetry.clone());
        // One application for each thread: its pool of upstream connections belongs to the thread's runtime.
        let app: Arc<App> = Arc::new(pingora::proxy::http_proxy(&conf, gateway));
        let worker = std::thread::Builder::new().name(format!("serve-{index}")).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = runtime.and_then(|runtime| runtime.block_on(edge::run_worker(edge, share, app)));
            if let Err(e) = outcome {
                log::error!("a serving thread ended: {e}");
            }
        });
        workers.push(worker.map_err(|e| format!("no thread: {e}"))?);
    }
    Ok(workers)
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
    wait_for_workers(workers, Duration::from_secs(3)).await;
}

fn start_admin(
    settings: &Settings,
    telemetry: &Telemetry,
    reader: &Reader,
    requests: &mpsc::Sender<Reload>,
    draining: &watch::Receiver<bool>,
) -> Result<Admin, String> {
    let draining = draining.clone();
    let health = settings.health.map(|address| {
        let ready = move || if *draining.borrow() { Err("draining".to_owned()) } else { Ok(()) };
        (address, Health { ready: Arc::new(ready), metrics: telemetry.metrics.clone() })
    });
    let control = settings.admin.clone().map(|address| {
        let revocation = {
            let (reader, expiring) = (reader.clone(), telemetry.expiring.clone());
            move |format| revocation::page(&reader.load(), &expiring, format)
        };
        let reader = reader.clone();
        let requests = requests.clone();
        let config = move || {
            let snapshot = reader.load();
            let effective = serde_json::to_string_pretty(snapshot.settings.effective()).unwrap_or_default();
            format!("{{\"generation\": {}, \"config\": {effective}}}\n", snapshot.generation)
        };
        let reload = move || -> admin::Reloading {
            let requests = requests.clone();
            Box::pin(async move {
                let (answer, answered) = oneshot::channel();
                let request = Reload { origin: "admin", noticed: None, answer: Some(answer) };
                requests.send(request).await.map_err(|_| "the gateway is stopping".to_owned())?;
                answered.await.unwrap_or_else(|_| Err("the gateway is stopping".to_owned()))
            })
        };
        (address, Control { config: Arc::new(config), revocation: Arc::new(revocation), reload: Arc::new(reload) })
    });
    admin::start(health, control).map_err(|e| e.to_string())
}

fn watch_files(
    inputs: &[PathBuf],
    timing: config::Reload,
    requests: &mpsc::Sender<Reload>,
    read_since: SystemTime,
) -> Option<Watcher> {
    if !timing.watch {
        return None;
    }
    let requests = requests.clone();
    let changed = move |noticed| {
        // A full queue means that a reload is about to start anyway.
        let _ = requests.try_send(Reload { origin: "file change", noticed: Some(noticed), answer: None });
    };
    match Watcher::start(inputs, timing, changed.clone()) {
        Ok(watcher) => {
            if watcher.changed_since(read_since) {
                changed(Instant::now());
            }
            Some(watcher)
        }
        Err(e) => {
            log::error!("files can't be watched: {e}; changes need SIGHUP or POST /-/reload");
            None
        }
    }
}

/// Builds the configuration once, as `serve` would, and says what there is to say.
///
/// # Errors
///
/// The findings, if the configuration can't be used.
pub fn check(file: &Path) -> Result<Diagnostics, ServeError> {
    let metrics = metrics().map_err(ServeError::Host)?;
    let mut builder = Builder::read_only(file, metrics.clone());
    let built = builder.build()?;
    let urls = &built.snapshot.settings.revocation;
    let Some(longest) = urls.urls().map(|url| url.timeout).max() else { return Ok(built.findings) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| ServeError::Host(format!("no runtime: {e}")))?;
    runtime.block_on(async {
        let mut fetcher = Fetcher::new(builder.shelf(), metrics);
        fetcher.follow(urls.urls());
        fetcher.first_answers(longest + Duration::from_secs(1), true).await
    });
    Ok(builder.build()?.findings)
}
