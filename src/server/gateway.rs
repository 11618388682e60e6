//! A gateway as a value: loaded, started, stopped. `serve` and programs that embed one use the same.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use super::control::{Answer, FETCH_PATIENCE, Reload, report};
use super::handover::Estate;
use super::places::{addresses, announce, nothing_unclaimed};
use super::pulse::Pulses;
use super::sockets::{self, Copies, Inherited, Origins};
use super::threads::{self, Plan};
use super::{ServeError, internal, metrics};
use crate::admin::Admin;
use crate::config::{self, Diagnostics, Secret, Settings};
use crate::identity::IssuerId;
use crate::snapshot::{self, Builder, Built, Reader, Watcher};
use crate::telemetry::{self, AccessLog, AuditLog, Metrics, Telemetry};
use crate::tls;

/// How long the last access records may take to be written at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// The key that ties upload sessions to their clients, unless replicas share one.
pub(super) type UploadKey = Secret<[u8; 32]>;

/// A gateway whose configuration is loaded and found good, and that doesn't listen yet.
///
/// It touches nothing of the process but what it starts: it installs no signal handler and no logger. Messages go to
/// the logger of the [`log`] crate that the program has installed, if any; the section `log` of the configuration
/// counts for the `portcullis` command alone.
pub struct Gateway {
    builder: Builder,
    built: Built,
    metrics: Arc<Metrics>,
    read_since: SystemTime,
    upload_key: UploadKey,
    pub(super) inherited: Inherited,
    /// How long lists that nobody has fetched yet are waited for.
    pub(super) patience: Duration,
    /// How often threads leave a sign of life; none if nobody asks.
    pub(super) heartbeat: Option<Duration>,
    /// Who carries out `POST /-/upgrade`.
    pub(super) upgrades: Option<mpsc::Sender<Answer>>,
    /// Lets the last messages be written when everything else has gone.
    pub(super) log: Option<telemetry::log::Flush>,
}

impl Gateway {
    /// Loads the configuration at `file` and every file it names. Blocking, for seconds with large revocation lists.
    ///
    /// # Errors
    ///
    /// [`ServeError::Configuration`] with everything that is wrong, each with file, line and key.
    pub fn load(file: impl AsRef<Path>) -> Result<Self, ServeError> {
        Self::load_with(file.as_ref(), None)
    }

    /// Loads with a predecessor's key, so that the uploads it let begin can go on here.
    pub(super) fn load_with(file: &Path, upload_key: Option<UploadKey>) -> Result<Self, ServeError> {
        let metrics = metrics().map_err(ServeError::Host)?;
        let upload_key = match upload_key {
            Some(key) => key,
            None => Secret::new(tls::random_key().map_err(ServeError::Host)?),
        };
        let read_since = SystemTime::now();
        let mut builder = Builder::new(file, metrics.clone()).with_upload_key(upload_key.expose());
        let built = builder.build()?;
        let inherited = Inherited::default();
        let (heartbeat, upgrades, log, patience) = (None, None, None, FETCH_PATIENCE);
        Ok(Gateway { builder, built, metrics, read_since, upload_key, inherited, patience, heartbeat, upgrades, log })
    }

    /// What was found in the files that is no reason not to start.
    #[must_use]
    pub fn findings(&self) -> &Diagnostics {
        &self.built.findings
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.built.snapshot.settings
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Binds every address and serves, on threads of its own, until the value returned is stopped or dropped.
    ///
    /// # Errors
    ///
    /// [`ServeError::Host`] if an address can't be bound or a log not be written. Nothing is left behind then.
    pub fn start(self) -> Result<Running, ServeError> {
        let running = self.prepare()?;
        running.open();
        Ok(running)
    }

    /// Does everything that can fail; nothing is accepted before [`Running::open`].
    pub(super) fn prepare(mut self) -> Result<Running, ServeError> {
        report(&self.built.findings);
        let settings = self.built.snapshot.settings.clone();
        let (requests, reloads) = mpsc::channel(16);
        // From here on no change is missed: what changed while the files were read is read again.
        let watcher = watch_files(self.builder.inputs(), settings.reload, &requests, self.read_since);
        let telemetry = open_telemetry(&settings, &self.metrics).map_err(ServeError::Host)?;
        let (bound, mut copies) = sockets::listen(&settings, &mut self.inherited).map_err(ServeError::Host)?;
        let (publisher, reader) = snapshot::store(self.built.snapshot.clone());
        let [(open, opened), (drain, draining), (hurry, hurried)] = [(); 3].map(|()| watch::channel(false));
        let (listeners, register, succeeded) = (addresses(&settings, &bound), Arc::default(), Arc::default());
        let doors = internal::Doors {
            register: &register,
            telemetry: &telemetry,
            reader: &reader,
            requests: &requests,
            draining: &draining,
            open: &opened,
            succeeded: &succeeded,
        };
        let (adopted, origins) = sockets::adopted(&settings, &mut self.inherited);
        let mut admin = doors.open(&settings, listeners.clone(), adopted, self.upgrades).map_err(ServeError::Host)?;
        nothing_unclaimed(&self.inherited).map_err(ServeError::Host)?;
        copies.extend(sockets::internal_copies(&settings, &mut admin, origins));
        announce(&listeners, &admin);
        let pulses = Pulses::new(settings.threads + 1);
        let plan = Plan {
            builder: self.builder,
            built: self.built,
            bound,
            register,
            telemetry: telemetry.clone(),
            read_since: self.read_since,
            patience: self.patience,
            watcher,
            reloads,
            publisher,
            reader: reader.clone(),
            open: opened,
            draining,
            hurried,
            beat: self.heartbeat.map(|every| (pulses.clone(), every)),
        };
        let (control, ended) = threads::start(plan).map_err(ServeError::Host)?;
        Ok(Running {
            listeners,
            admin: Some(admin),
            origins,
            control: Some(control),
            ended,
            requests,
            open,
            drain,
            hurry,
            copies: Mutex::new(Some(Arc::new(copies))),
            succeeded,
            reader,
            telemetry,
            pulses,
            upload_key: self.upload_key,
            _log: self.log,
        })
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("file", &self.settings().file).finish_non_exhaustive()
    }
}

/// Where a listener accepts connections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerAddress {
    /// The listener's name in the configuration.
    pub name: String,
    /// The address, with the port that was assigned if 0 was asked for.
    pub address: SocketAddr,
}

/// The last good configuration stays in force; the text says what is wrong with the new one.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ReloadError(String);

/// A gateway that serves.
///
/// Dropping it cuts what is still under way; [`stop`](Running::stop) waits for it first.
#[derive(Debug)]
pub struct Running {
    listeners: Vec<ListenerAddress>,
    admin: Option<Admin>,
    origins: Origins,
    control: Option<JoinHandle<()>>,
    ended: watch::Receiver<bool>,
    requests: mpsc::Sender<Reload>,
    /// Nothing is accepted before the order.
    open: watch::Sender<bool>,
    drain: watch::Sender<bool>,
    hurry: watch::Sender<bool>,
    /// Gone once the gateway drains: nobody would serve what is queued.
    copies: Mutex<Option<Arc<Copies>>>,
    /// Whether another process has taken over.
    succeeded: Arc<AtomicBool>,
    reader: Reader,
    telemetry: Telemetry,
    pulses: Arc<Pulses>,
    upload_key: UploadKey,
    _log: Option<telemetry::log::Flush>,
}

impl Running {
    /// Where it accepts connections, in the order of the configuration.
    #[must_use]
    pub fn listeners(&self) -> &[ListenerAddress] {
        &self.listeners
    }

    /// Where health and metrics are served, if they are.
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(Admin::health_address)
    }

    /// The number of the configuration in force, counted from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.reader.load().generation
    }

    /// Loads every file anew and puts the result in force; transfers go on. Blocks until that is done.
    ///
    /// # Errors
    ///
    /// What is wrong with the files; what was in force stays so, except that newer revocation lists count. Or the
    /// gateway is stopping, or more reloads are waiting already than it keeps.
    pub fn reload(&self) -> Result<u64, ReloadError> {
        let (answer, answered) = std_mpsc::sync_channel(1);
        let answer: Answer = Box::new(move |outcome| drop(answer.send(outcome)));
        self.order_reload("program", Some(answer));
        match answered.recv() {
            Ok(Ok(_)) => Ok(self.generation()),
            Ok(Err(why)) => Err(ReloadError(why.trim_end().to_owned())),
            Err(_) => Err(ReloadError("the gateway is stopping".to_owned())),
        }
    }

    /// Accepts connections from now on.
    pub(super) fn open(&self) {
        log::info!(generation = self.generation(); "serving");
        self.open.send_replace(true);
    }

    /// Takes no more connections, tells clients to leave, and ends when the last request is done or `drain.grace` has
    /// passed. Returns at once.
    pub fn drain(&self) {
        // What the kernel has let in is accepted by the serving threads; with these copies it would let in more.
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.drain.send(true);
    }

    /// Whether the gateway has ended: it drained, and nobody is left.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.control.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Drains, and waits until the gateway has ended: for `drain.grace` and some seconds at most.
    pub fn stop(mut self) {
        self.drain();
        self.join();
    }

    fn join(&mut self) {
        if let Some(control) = self.control.take() {
            // A panic there was reported when it happened.
            let _ = control.join();
        }
    }

    /// Resolves once the gateway has ended.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.clone();
        // The sender goes with the thread.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Waits no longer for what is under way.
    pub(super) fn hurry(&self) {
        let _ = self.hurry.send(true);
    }

    pub(super) fn order_reload(&self, origin: &'static str, answer: Option<Answer>) {
        order(&self.requests, Reload { origin, noticed: None, answer });
    }

    /// What a successor needs; none while the gateway drains.
    pub(super) fn estate(&self) -> Option<Estate<Arc<Copies>>> {
        let sockets = self.copies.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let snapshot = self.reader.load();
        let admitted = snapshot.shut_out().filter(|(_, shut_out)| !shut_out).map(|(issuer, _)| issuer.id);
        // Several listeners may trust one.
        let admitted: BTreeSet<IssuerId> = admitted.collect();
        let admitted = admitted.into_iter().collect();
        Some(Estate { sockets, upload_key: self.upload_key.clone(), admitted })
    }

    /// Refuses to take over where that would shut out clients that the predecessor lets in: it has a list that this process
    /// couldn't get. A file may have been damaged, or a URL be dead, since it took that in.
    ///
    /// # Errors
    ///
    /// Whose clients they are.
    pub(super) fn admits(&self, admitted: &[IssuerId]) -> Result<(), String> {
        let snapshot = self.reader.load();
        let mut refused = snapshot.shut_out().filter(|(issuer, shut_out)| *shut_out && admitted.contains(&issuer.id));
        refused.next().map_or(Ok(()), |(issuer, _)| {
            Err(format!(
                "its clients of {} would be refused, who are let in now: it has no revocation list in force (see the log, \
                 or set state_directory, where lists outlive the process)",
                issuer.subject
            ))
        })
    }

    /// Another process serves from now on. Whether it took the socket for administration, and so its file, it has said.
    pub(super) fn leave_to_successor(&mut self, admin_adopted: bool) {
        self.succeeded.store(true, Ordering::Relaxed);
        if let Some(admin) = &mut self.admin {
            if admin_adopted {
                admin.own_path(false);
            }
            admin.release();
        }
    }

    /// What was a predecessor's is this process's now.
    pub(super) fn take_over(&self) {
        if let Some(admin) = self.admin.as_ref().filter(|_| self.origins.admin_path_is_ours()) {
            admin.own_path(true);
        }
    }

    /// Whether the socket for administration was there before this process was.
    pub(super) fn admin_adopted(&self) -> bool {
        self.origins.admin_adopted
    }

    pub(super) fn reader(&self) -> Reader {
        self.reader.clone()
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    pub(super) fn grace(&self) -> Duration {
        self.reader.load().settings.drain_grace
    }

    /// Whether every thread has left a sign of life lately.
    pub(super) fn is_alive(&self, within: Duration) -> bool {
        self.pulses.all_alive(within)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drain();
        self.hurry();
        self.join();
        drop(self.admin.take());
        if !self.telemetry.access.flush(FLUSH) {
            log::warn!("the last access records could not be written");
        }
        if !self.telemetry.audit.flush(FLUSH) {
            log::error!("the last records of the audit log could not be written");
        }
    }
}

/// Gives an order, or tells whoever waits for its outcome why it can't be.
fn order(requests: &mpsc::Sender<Reload>, reload: Reload) {
    let (Reload { origin, answer, .. }, why) = match requests.try_send(reload) {
        Ok(()) => return,
        Err(mpsc::error::TrySendError::Full(reload)) => (reload, "too many reloads are waiting already"),
        Err(mpsc::error::TrySendError::Closed(reload)) => (reload, "the gateway is stopping"),
    };
    log::warn!("no reload ({origin}): {why}");
    if let Some(answer) = answer {
        answer(Err(why.to_owned()));
    }
}

fn open_telemetry(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Telemetry, String> {
    metrics.connections_limit(settings.limits.connections.all);
    let access = match &settings.access_log {
        Some(log) => AccessLog::start(log.target.clone(), log.queue, metrics)
            .map_err(|e| format!("access_log.path: cannot be written: {e}"))?,
        None => AccessLog::disabled(),
    };
    let audit = match &settings.audit_log {
        Some(log) => AuditLog::start(log, metrics).map_err(|e| format!("audit_log.path: cannot be written: {e}"))?,
        None => AuditLog::disabled(),
    };
    let (expiring, recent, lately) = Default::default();
    Ok(Telemetry { metrics: metrics.clone(), access, audit, expiring, recent, lately })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_nobody_takes_is_told_why() {
        let (requests, reloads) = mpsc::channel(1);
        let ask = || {
            let (answer, answered) = std_mpsc::sync_channel(1);
            let answer: Answer = Box::new(move |outcome| drop(answer.send(outcome)));
            order(&requests, Reload { origin: "test", noticed: None, answer: Some(answer) });
            answered.try_recv()
        };
        assert_eq!(ask(), Err(std_mpsc::TryRecvError::Empty), "it waits");
        let refused = ask().expect("an answer").expect_err("no room");
        assert!(refused.contains("too many reloads"), "{refused}");
        drop(reloads);
        let refused = ask().expect("an answer").expect_err("nobody is left");
        assert!(refused.contains("stopping"), "{refused}");
    }
}
