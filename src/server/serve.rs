//! The `serve` command: a gateway as a process, with signals, a service manager and successors.

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::control::Answer;
use super::gateway::{Gateway, Running};
use super::handover::{Estate, Predecessor, Taken, VARIABLE};
use super::manager::{self, Manager};
use super::sockets::Inherited;
use super::successor::{Brake, Origin, Start, Successor};
use super::{ServeError, host};
use crate::identity::IssuerId;
use crate::telemetry::audit::AdminAction;
use crate::telemetry::{self, UpgradeResult};

/// How often the status for the service manager is brought up to date.
const STATUS: Duration = Duration::from_secs(1);

/// How long a successor waits for revocation lists that it has to fetch: without one that its predecessor has it may not take
/// over, and its predecessor waits a little longer for it.
const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(45);

/// How many times threads leave a sign of life before the service manager would lose its patience.
const BEATS: u32 = 8;

const STOPPING: &str = "the gateway is stopping";

/// Whether the process may start its own program again, for SIGQUIT and `upgrade`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Succession {
    /// A successor is started as this process was.
    ByThisProgram,
    /// The process does more than serve, and a second one would be in its way.
    None,
}

/// Serves the configuration at `file` until SIGTERM or SIGINT, or until a successor has taken over; then drains.
///
/// With a predecessor nothing is accepted, on no listener, before that one says so; if it doesn't, this one ends.
///
/// # Errors
///
/// [`ServeError`] before the first connection is accepted; nothing is served half.
pub fn serve(file: &Path, succession: Succession) -> Result<(), ServeError> {
    let host = |e: String| ServeError::Host(e);
    let unprotected = host::protect_memory();
    let origin = match succession {
        Succession::ByThisProgram => Some(Origin::of_this_process().map_err(host)?),
        Succession::None => None,
    };
    let predecessor = Predecessor::of_this_process(std::env::var_os(VARIABLE).as_deref()).map_err(host)?;
    let started = prepare(file, predecessor.as_ref()).and_then(|(gateway, admitted)| {
        let (runtime, service) = start(gateway, &unprotected, origin)?;
        Ok((runtime, service, admitted))
    });
    let (runtime, service, admitted) = match started {
        Ok(started) => started,
        Err(e) => {
            if let Some(predecessor) = &predecessor {
                predecessor.decline(&e.to_string());
            }
            return Err(e);
        }
    };
    if let Some(predecessor) = &predecessor {
        // Said before the threads end, which may take a while.
        service.running.admits(&admitted).inspect_err(|why| predecessor.decline(why)).map_err(host)?;
        predecessor.succeed(Taken { admin: service.running.admin_adopted() }).map_err(host)?;
        service.running.take_over();
    }
    service.running.open();
    if let Some(predecessor) = predecessor {
        predecessor.await_leaving();
    }
    runtime.block_on(service.run());
    // A thread that still waits for a successor's end is not waited for.
    runtime.shutdown_background();
    Ok(())
}

/// Loads the configuration, with what a predecessor or the service manager has passed on. Beside the gateway, the
/// authorities whose clients the predecessor lets in.
fn prepare(file: &Path, predecessor: Option<&Predecessor>) -> Result<(Gateway, Vec<IssuerId>), ServeError> {
    let (sockets, key, admitted) = match predecessor {
        Some(predecessor) => {
            let Estate { sockets, upload_key, admitted } = predecessor.receive().map_err(ServeError::Host)?;
            (sockets, Some(upload_key), admitted)
        }
        None => (manager::sockets().map_err(ServeError::Host)?, None, Vec::new()),
    };
    let mut gateway = Gateway::load_with(file, key)?;
    if predecessor.is_some() {
        gateway.patience = SUCCESSOR_PATIENCE;
    }
    gateway.inherited = Inherited::new(sockets);
    Ok((gateway, admitted))
}

fn start(
    mut gateway: Gateway,
    unprotected: &[String],
    origin: Option<Origin>,
) -> Result<(Runtime, Service), ServeError> {
    let host = |e: String| ServeError::Host(e);
    let descriptors = host::raise_descriptor_limit();
    gateway.metrics().open_files_limit(descriptors.unwrap_or(u64::MAX));
    let log = telemetry::log::init(gateway.settings().log, gateway.metrics());
    gateway.log = Some(log.map_err(|e| host(format!("no log: {e}")))?);
    for warning in unprotected.iter().chain(&host::judge_descriptor_limit(descriptors, gateway.settings())) {
        log::warn!("{warning}");
    }
    let manager = Manager::of_this_process();
    gateway.heartbeat = manager.watchdog().map(|patience| patience / BEATS);
    let (order, upgrades) = mpsc::channel(1);
    gateway.upgrades = origin.is_some().then_some(order);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| host(format!("no runtime: {e}")))?;
    // Before anybody learns that the gateway is there: a signal without a handler would end it.
    let signals = Signals::new(&runtime).map_err(|e| host(format!("signals: {e}")))?;
    let running = gateway.prepare()?;
    Ok((runtime, Service { running, signals, manager, origin, upgrades, pending: None, told: 0 }))
}

/// A process that serves.
struct Service {
    running: Running,
    signals: Signals,
    manager: Manager,
    origin: Option<Origin>,
    upgrades: mpsc::Receiver<Answer>,
    /// The successor that is being started.
    pending: Option<Pending>,
    /// The generation that the service manager was told of last.
    told: u64,
}

struct Pending {
    starting: JoinHandle<Result<Successor, String>>,
    brake: Brake,
    answer: Option<Answer>,
}

/// Why the process leaves.
enum Leaving {
    Signal(&'static str),
    Successor(u32),
}

impl Service {
    async fn run(mut self) {
        self.told = self.running.generation();
        self.manager.ready(&self.status());
        let mut leaving = self.until_leaving().await;
        if let Some(pid) = self.break_off_upgrade().await {
            leaving = Leaving::Successor(pid);
        }
        let grace = self.running.grace();
        match &leaving {
            Leaving::Signal(name) => {
                self.running.telemetry().audit.admin(AdminAction::Stop, name, Ok("draining"));
                self.manager.stopping(&format!("draining for at most {grace:?}"));
                log::info!("{name}: draining for at most {grace:?}; a second signal ends it");
            }
            Leaving::Successor(pid) => {
                log::info!("process {pid} has taken over: draining for at most {grace:?}");
            }
        }
        self.running.drain();
        self.until_gone(&leaving).await;
        log::info!("stopped");
        self.running.stop();
    }

    async fn until_leaving(&mut self) -> Leaving {
        let mut tick =
            tokio::time::interval(self.manager.watchdog().map_or(STATUS, |patience| (patience / 4).min(STATUS)));
        loop {
            tokio::select! {
                order = self.signals.next() => match order {
                    Order::Reload => self.reload(),
                    Order::Stop(name) => return Leaving::Signal(name),
                    Order::Upgrade => self.begin_upgrade(None),
                },
                Some(answer) = self.upgrades.recv() => self.begin_upgrade(Some(answer)),
                outcome = started(&mut self.pending) => if let Some(pid) = self.end_upgrade(outcome) {
                    return Leaving::Successor(pid);
                },
                _ = tick.tick() => self.keep_in_touch(true),
            }
        }
    }

    /// Waits for the end of the draining, or for a second order to stop.
    async fn until_gone(&mut self, leaving: &Leaving) {
        let is_service = matches!(leaving, Leaving::Signal(_));
        let mut orders = usize::from(is_service);
        let mut tick =
            tokio::time::interval(self.manager.watchdog().map_or(STATUS, |patience| (patience / 4).min(STATUS)));
        loop {
            tokio::select! {
                () = self.running.ended() => return,
                order = self.signals.next() => match order {
                    Order::Reload => self.reload_silently(),
                    Order::Upgrade => log::warn!("SIGQUIT: this process is leaving already"),
                    // After a hand-over the first one is meant for the service, which is another process by now.
                    Order::Stop(name) if orders == 0 => {
                        orders += 1;
                        log::info!("{name}: draining already; a second signal ends it");
                    }
                    Order::Stop(name) => {
                        log::warn!("{name}: not waiting any longer");
                        self.running.hurry();
                    }
                },
                Some(answer) = self.upgrades.recv() => answer(Err(STOPPING.to_owned())),
                _ = tick.tick(), if is_service => self.keep_in_touch(false),
            }
        }
    }

    /// Pings the service manager as long as every thread turns, and tells it of generations that files brought about.
    fn keep_in_touch(&mut self, serving: bool) {
        if let Some(patience) = self.manager.watchdog() {
            if self.running.is_alive(patience / 2) {
                self.manager.ping();
            } else {
                log::error!("a thread stands still; the service manager gets no more pings until it turns again");
            }
        }
        if serving && self.running.generation() != self.told {
            self.told = self.running.generation();
            self.manager.status(&self.status());
        }
    }

    fn status(&self) -> String {
        format!("serving generation {}", self.running.generation())
    }

    /// SIGHUP: logs are reopened and everything is loaded anew, between two messages to the service manager.
    fn reload(&mut self) {
        self.reopen_logs();
        self.manager.reloading();
        let (done, wait) = oneshot::channel();
        let done: Answer = Box::new(move |outcome| drop(done.send(outcome)));
        self.running.order_reload("SIGHUP", Some(done));
        let (manager, reader) = (self.manager.clone(), self.running.reader());
        tokio::spawn(async move {
            let failed = match wait.await {
                Ok(Err(_)) => " (the last reload failed; see the log)",
                // Without an answer another reload is about to start.
                Ok(Ok(_)) | Err(_) => "",
            };
            manager.reloaded(&format!("serving generation {}{failed}", reader.load().generation));
        });
    }

    fn reload_silently(&self) {
        self.reopen_logs();
        self.running.order_reload("SIGHUP", None);
    }

    fn reopen_logs(&self) {
        if let Err(e) = self.running.telemetry().access.reopen() {
            log::error!("the access log could not be reopened: {e}");
        }
        if let Err(e) = self.running.telemetry().audit.reopen() {
            log::error!("the audit log could not be reopened: {e}");
        }
    }

    /// Starts a successor, unless there is a reason not to.
    fn begin_upgrade(&mut self, answer: Option<Answer>) {
        match self.try_begin() {
            Ok((starting, brake)) => {
                self.manager.status("starting a successor");
                self.pending = Some(Pending { starting, brake, answer });
            }
            Err(why) => {
                log::error!("no hand-over: {why}");
                if let Some(answer) = answer {
                    answer(Err(why));
                }
            }
        }
    }

    fn try_begin(&self) -> Result<(JoinHandle<Result<Successor, String>>, Brake), String> {
        if self.pending.is_some() {
            return Err("a hand-over is under way".to_owned());
        }
        if std::process::id() == 1 {
            return Err("this is process 1, with which its container ends: replace the container".to_owned());
        }
        let origin = self.origin.clone();
        let origin = origin.ok_or_else(|| "this process does more than serve: stop and start it".to_owned())?;
        let estate = self.running.estate().ok_or_else(|| STOPPING.to_owned())?;
        let (start, brake) = Start::new()?;
        Ok((tokio::task::spawn_blocking(move || start.run(&origin, &estate)), brake))
    }

    /// Takes note of how the start went; the process that serves now, if that is another one.
    fn end_upgrade(&mut self, outcome: Result<Successor, String>) -> Option<u32> {
        let answer = self.pending.take().and_then(|pending| pending.answer).unwrap_or_else(|| Box::new(|_| {}));
        let metrics = &self.running.telemetry().metrics;
        // The sockets are still this process's, too: whoever took over and died at once is no loss.
        let outcome = outcome.and_then(|mut successor| match successor.has_ended() {
            Some(why) => Err(why),
            None => Ok(successor),
        });
        match outcome {
            Ok(successor) => {
                metrics.upgrade(UpgradeResult::HandedOver);
                let pid = successor.pid();
                self.manager.succeeded_by(pid);
                self.running.leave_to_successor(successor.taken.admin);
                let done = format!("process {pid} has taken over");
                self.running.telemetry().audit.admin(AdminAction::Upgrade, "order", Ok(&done));
                answer(Ok(format!("process {} has handed over to process {pid}", std::process::id())));
                successor.set_free();
                Some(pid)
            }
            Err(why) => {
                metrics.upgrade(UpgradeResult::Failed);
                self.running.telemetry().audit.admin(AdminAction::Upgrade, "order", Err(&why));
                log::error!("no hand-over, this process goes on: {why}");
                self.manager.status(&format!("{} (the last hand-over failed; see the log)", self.status()));
                answer(Err(why));
                None
            }
        }
    }

    /// Ends a successor that is still being started when this process is to stop; if it serves already, it goes on to,
    /// and the outcome names it.
    async fn break_off_upgrade(&mut self) -> Option<u32> {
        self.pending.as_ref()?.brake.pull();
        let outcome = started(&mut self.pending).await;
        if outcome.is_ok() {
            return self.end_upgrade(outcome);
        }
        if let Some(answer) = self.pending.take().and_then(|pending| pending.answer) {
            answer(Err(STOPPING.to_owned()));
        }
        None
    }
}

/// Resolves when the successor serves or is known not to; never without one.
async fn started(pending: &mut Option<Pending>) -> Result<Successor, String> {
    match pending {
        Some(Pending { starting, .. }) => {
            starting.await.unwrap_or_else(|e| Err(format!("the hand-over met a fault of the gateway itself: {e}")))
        }
        None => std::future::pending().await,
    }
}

/// What a signal asks for.
enum Order {
    Reload,
    Upgrade,
    Stop(&'static str),
}

struct Signals {
    hangup: Signal,
    quit: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new(runtime: &Runtime) -> std::io::Result<Self> {
        let _entered = runtime.enter();
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.hangup.recv() => Order::Reload,
            _ = self.quit.recv() => Order::Upgrade,
            _ = self.terminate.recv() => Order::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Order::Stop("SIGINT"),
        }
    }
}
