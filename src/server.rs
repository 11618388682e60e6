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
use crate::config::{Diagnostics, Settings, Severity};
use crate::edge::{self, App, Bound, Edge, Register, WindowBudget};
use crate::proxy::Gateway;
use crate::snapshot::{self, Builder, Built, Publisher, Reader, Snapshot, Watcher};
use crate::telemetry::{self, AccessLog, Metrics, ReloadResult, Telemetry};
use crate::{tls, upstream};

/// How often live connections are looked through for certificates that have run out.
const SWEEP: Duration = Duration::from_secs(1);

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
    let built = builder.build().map_err(ServeError::Configuration)?;
    let settings = &built.snapshot.settings;
    let (requests, reloads) = mpsc::channel(16);
    // From here on no change is missed: what changed while the files were read is read again.
    let watcher = watch_files(settings, &requests, began);
    telemetry::log::init(settings.log).map_err(|e| host(e.to_string()))?;
    report(&built.findings);
    let access = match &settings.access_log {
        Some(log) => AccessLog::start(log.target.clone(), log.queue, &metrics)
            .map_err(|e| host(format!("access_log.path: cannot be written: {e}")))?,
        None => AccessLog::disabled(),
    };
    let telemetry = Telemetry { metrics, access };
    let bound = bind(settings).map_err(host)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| host(format!("no runtime: {e}")))?;
    let access = telemetry.access.clone();
    let inputs = Inputs { watcher, requests, reloads };
    let outcome = runtime.block_on(run(builder, built, bound, telemetry, inputs));
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

/// Where orders to reload come from and go to.
struct Inputs {
    watcher: Option<Watcher>,
    requests: mpsc::Sender<Reload>,
    reloads: mpsc::Receiver<Reload>,
}

async fn run(
    builder: Builder,
    built: Built,
    bound: Vec<Bound>,
    telemetry: Telemetry,
    inputs: Inputs,
) -> Result<(), ServeError> {
    let host = |e: String| ServeError::Host(e);
    let settings = built.snapshot.settings.clone();
    let (publisher, reader) = snapshot::store(built.snapshot.clone());
    telemetry.metrics.publish(&built.snapshot.published);
    telemetry.metrics.reload(ReloadResult::Published, SystemTime::now());
    take_up(&built.new_upstreams).await;

    let (drain, draining) = watch::channel(false);
    let edge = Edge {
        snapshots: reader.clone(),
        register: Arc::new(Register::default()),
        telemetry: telemetry.clone(),
        windows: Arc::new(WindowBudget::new(settings.limits.h2_upload_memory)),
        draining: draining.clone(),
    };
    let Inputs { watcher, requests, reloads } = inputs;
    let mut signals = Signals::new().map_err(|e| host(format!("signals: {e}")))?;
    let admin = start_admin(&settings, &telemetry, &reader, &requests, &draining).map_err(host)?;
    announce(&settings, &bound, &admin);
    let workers = start_workers(bound, &settings, &edge).map_err(host)?;
    let control = ControlPlane { builder: Some(builder), publisher, edge: edge.clone(), watcher, reader };
    let reloading = tokio::spawn(control.run(reloads));
    log::info!(generation = built.snapshot.generation; "serving");
    loop {
        match signals.next().await {
            Order::Reload => {
                if let Err(e) = telemetry.access.reopen() {
                    log::error!("the access log could not be reopened: {e}");
                }
                // A full queue means that a reload is about to start anyway.
                let _ = requests.try_send(Reload { origin: "SIGHUP", answer: None });
            }
            Order::Stop(name) => {
                log::info!("{name}: draining for at most {:?}", settings.drain_grace);
                break;
            }
        }
    }
    reloading.abort();
    let _ = drain.send(true);
    wait_for_workers(workers, &edge.register, settings.drain_grace).await;
    drop(admin);
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
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
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
        Some(crate::config::AdminAddress::Tcp(address)) => log::info!(kind = "admin", address:% = address; "listening"),
        Some(crate::config::AdminAddress::Unix(path)) => {
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

/// Waits until every connection has ended, or ends them when the grace is over.
async fn wait_for_workers(workers: Vec<JoinHandle<()>>, register: &Register, grace: Duration) {
    let deadline = Instant::now() + grace;
    let done = |workers: &[JoinHandle<()>]| workers.iter().all(JoinHandle::is_finished);
    while !done(&workers) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = register.end_where(|_| Some(telemetry::EndReason::Shutdown));
    if left > 0 {
        log::warn!("{left} connection(s) were cut at the end of the grace period");
    }
    // They only have to write their records now.
    let cut = Instant::now() + Duration::from_secs(3);
    while !done(&workers) && Instant::now() < cut {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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
                let request = Reload { origin: "admin", answer: Some(answer) };
                requests.send(request).await.map_err(|_| "the gateway is stopping".to_owned())?;
                answered.await.unwrap_or_else(|_| Err("the gateway is stopping".to_owned()))
            })
        };
        (address, Control { config: Arc::new(config), reload: Arc::new(reload) })
    });
    admin::start(health, control).map_err(|e| e.to_string())
}

fn watch_files(settings: &Settings, requests: &mpsc::Sender<Reload>, read_since: SystemTime) -> Option<Watcher> {
    if !settings.reload.watch {
        return None;
    }
    let requests = requests.clone();
    let changed = move || {
        // A full queue means that a reload is about to start anyway.
        let _ = requests.try_send(Reload { origin: "file change", answer: None });
    };
    match Watcher::start(settings, changed.clone()) {
        Ok(watcher) => {
            if watcher.changed_since(read_since) {
                changed();
            }
            Some(watcher)
        }
        Err(e) => {
            log::error!("files can't be watched: {e}; changes need SIGHUP or POST /-/reload");
            None
        }
    }
}

/// Someone wants everything loaded anew.
struct Reload {
    origin: &'static str,
    answer: Option<oneshot::Sender<Result<String, String>>>,
}

/// Builds and publishes, one at a time.
struct ControlPlane {
    /// Absent only while a build is under way on another thread.
    builder: Option<Builder>,
    publisher: Publisher,
    reader: Reader,
    edge: Edge,
    watcher: Option<Watcher>,
}

impl ControlPlane {
    async fn run(mut self, mut requests: mpsc::Receiver<Reload>) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Reload { origin, answer }) => {
                        let outcome = self.reload(origin).await;
                        if let Some(answer) = answer {
                            // Whoever asked may have left.
                            let _ = answer.send(outcome);
                        }
                    }
                    None => return,
                },
                _ = sweep.tick() => self.end_unwelcome(&self.reader.load()),
            }
        }
    }

    async fn reload(&mut self, origin: &str) -> Result<String, String> {
        let Some(mut builder) = self.builder.take() else { return Err("an earlier reload failed fatally".to_owned()) };
        let started = Instant::now();
        let task = tokio::task::spawn_blocking(move || {
            let outcome = builder.build();
            (builder, outcome)
        });
        let (builder, outcome) = match task.await {
            Ok(finished) => finished,
            Err(e) => {
                log::error!("the reload panicked: {e}; no further reloads before a restart");
                return Err("the reload panicked; see the log".to_owned());
            }
        };
        self.builder = Some(builder);
        let now = SystemTime::now();
        let metrics = &self.edge.telemetry.metrics;
        match outcome {
            Ok(built) => {
                report(&built.findings);
                take_up(&built.new_upstreams).await;
                let snapshot = built.snapshot;
                self.publisher.publish(snapshot.clone());
                metrics.publish(&snapshot.published);
                metrics.reload(ReloadResult::Published, now);
                self.end_unwelcome(&snapshot);
                if let Some(watcher) = &mut self.watcher {
                    watcher.follow(&snapshot.settings);
                }
                let generation = snapshot.generation;
                log::info!(generation = generation; "reloaded ({origin}) in {:?}", started.elapsed());
                let said = if built.findings.is_empty() { String::new() } else { format!("{}\n", built.findings) };
                Ok(format!("generation {generation}\n{said}"))
            }
            Err(findings) => {
                metrics.reload(ReloadResult::Failed, now);
                report(&findings);
                log::error!(
                    "the reload ({origin}) failed; generation {} stays in force",
                    self.reader.load().generation
                );
                Err(format!("{findings}\n"))
            }
        }
    }

    /// Ends the connections that the snapshot in force wouldn't let in.
    fn end_unwelcome(&self, snapshot: &Snapshot) {
        let ended = self.edge.register.end_where(|connection| snapshot.judge(connection));
        if ended > 0 {
            log::info!("{ended} connection(s) ended: their certificates are revoked, expired or no longer trusted");
        }
    }
}

/// Resolves the names of new upstreams and starts their health checks.
async fn take_up(upstreams: &[Arc<upstream::Upstream>]) {
    for upstream in upstreams {
        upstream.resolve().await;
        tokio::spawn(upstream::watch(Arc::downgrade(upstream)));
    }
}

/// Says every finding in the log, one line each.
fn report(findings: &Diagnostics) {
    for finding in findings {
        match finding.severity {
            Severity::Error => log::error!("{finding}"),
            Severity::Warning => log::warn!("{finding}"),
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
    let built = Builder::new(&PathBuf::from(file), metrics).build().map_err(ServeError::Configuration)?;
    Ok(built.findings)
}
