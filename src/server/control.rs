//! Builds and publishes, one at a time, and ends the connections that a publication makes unwelcome.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};

use super::keeping::Keeping;
use crate::config::{Diagnostics, Severity};
use crate::edge::Edge;
use crate::snapshot::{Builder, Built, Failed, Fetcher, Publisher, Reader, Snapshot, Watcher};
use crate::telemetry::audit::AdminAction;
use crate::telemetry::{ReloadResult, Reloaded};
use crate::upstream;

/// How often live connections are looked through for certificates and lists that have run out.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a publication waits for the names of new upstreams. Look-ups go on behind it.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(1);

/// How long a publication waits for the first answer of a URL with revocation lists of which nothing is known. Without
/// it the clients of its issuer would be refused; attempts go on behind it.
pub(super) const FETCH_PATIENCE: Duration = Duration::from_secs(5);

/// Someone wants everything loaded anew.
pub(super) struct Reload {
    /// Who, for the log.
    pub(super) origin: &'static str,
    /// When there was the first sign of what is to be loaded, if something changed.
    pub(super) noticed: Option<Instant>,
    /// Whom to tell how it went.
    pub(super) answer: Option<Answer>,
}

/// Takes the outcome of an order: what is in force now, or why it could not be carried out.
pub(super) type Answer = Box<dyn FnOnce(Result<String, String>) + Send>;

/// The one that may publish.
pub(super) struct ControlPlane {
    /// Absent only while a build is under way on another thread.
    pub(super) builder: Option<Builder>,
    pub(super) publisher: Publisher,
    pub(super) reader: Reader,
    pub(super) edge: Edge,
    pub(super) watcher: Option<Watcher>,
    pub(super) fetcher: Fetcher,
    pub(super) keeping: Keeping,
}

impl ControlPlane {
    /// Serves orders until nobody can give any more.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Reload>) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.keep();
        loop {
            tokio::select! {
                () = self.keeping.done() => {}
                at = self.fetcher.changed() => {
                    // Nobody waits for the answer, and the log has it.
                    let _ = self.reload("list fetched", Some(at)).await;
                }
                request = requests.recv() => match request {
                    Some(Reload { origin, noticed, answer }) => {
                        if noticed.is_none() {
                            // Somebody asks, rather than a file: what is behind URLs is meant, too. Nothing waits for it.
                            self.fetcher.hurry();
                        }
                        let outcome = self.reload(origin, noticed).await;
                        if let Some(answer) = answer {
                            answer(outcome);
                        }
                    }
                    None => return,
                },
                _ = sweep.tick() => {
                    self.end_unwelcome(&self.reader.load());
                    give_memory_back();
                }
            }
        }
    }

    async fn reload(&mut self, origin: &str, noticed: Option<Instant>) -> Result<String, String> {
        let Some(builder) = self.builder.take() else { return Err("a reload is under way".to_owned()) };
        let started = Instant::now();
        let (mut builder, mut outcome) = build(builder).await?;
        if let Some(Ok(built)) = outcome {
            let settled = settle(&mut self.fetcher, builder, built, FETCH_PATIENCE).await?;
            (builder, outcome) = (settled.0, Some(Ok(settled.1)));
        }
        if let Some(watcher) = &mut self.watcher {
            watcher.follow(builder.inputs());
        }
        self.builder = Some(builder);
        let answer = self.take_in(outcome, origin, noticed, started).await;
        let told = answer.as_deref().map_err(String::as_str);
        let (Ok(report) | Err(report)) = told;
        self.edge.telemetry.lately.reloaded(Reloaded {
            time: SystemTime::now(),
            origin: origin.to_owned(),
            took: started.elapsed(),
            generation: self.reader.load().generation,
            ok: told.is_ok(),
            report: report.to_owned(),
        });
        self.edge.telemetry.audit.admin(AdminAction::Reload, origin, told);
        self.keep();
        answer
    }

    /// Puts in force what can be, and says how it went.
    async fn take_in(
        &mut self,
        outcome: Outcome,
        origin: &str,
        noticed: Option<Instant>,
        started: Instant,
    ) -> Result<String, String> {
        let now = SystemTime::now();
        match outcome {
            Some(Ok(built)) => {
                self.edge.telemetry.metrics.reload(ReloadResult::Published, now);
                let generation = built.snapshot.generation;
                let findings = self.put_in_force(built, noticed).await;
                log::info!(generation = generation; "reloaded ({origin}) in {:?}", started.elapsed());
                let said = if findings.is_empty() { String::new() } else { format!("{findings}\n") };
                Ok(format!("generation {generation}\n{said}"))
            }
            Some(Err(failed)) => {
                self.edge.telemetry.metrics.reload(ReloadResult::Failed, now);
                let Failed { findings, revocations } = *failed;
                report(&findings);
                if let Some(built) = revocations {
                    let generation = built.snapshot.generation;
                    self.put_in_force(built, noticed).await;
                    log::warn!(generation = generation; "of the reload ({origin}) only the revocation lists are in force");
                } else {
                    let generation = self.reader.load().generation;
                    log::error!("the reload ({origin}) failed; generation {generation} stays in force");
                }
                Err(format!("{findings}\n"))
            }
            None => {
                self.edge.telemetry.metrics.reload(ReloadResult::Failed, now);
                Err("the reload met a fault of the gateway itself; see the log\n".to_owned())
            }
        }
    }

    /// Publishes, and ends whom the new generation wouldn't let in.
    async fn put_in_force(&mut self, built: Built, noticed: Option<Instant>) -> Diagnostics {
        let Built { snapshot, findings, new_upstreams } = built;
        report(&findings);
        take_up(&new_upstreams).await;
        self.publisher.publish(snapshot.clone());
        self.edge.telemetry.metrics.publish(&snapshot.published);
        self.end_unwelcome(&snapshot);
        if let Some(noticed) = noticed {
            self.edge.telemetry.metrics.change_in_effect(noticed.elapsed());
        }
        findings
    }

    /// Has what must outlive a restart kept.
    fn keep(&mut self) {
        let Some(builder) = &mut self.builder else { return };
        if builder.is_forgetful() {
            self.edge.telemetry.metrics.state_failed(true);
        }
        if let Some(job) = builder.what_to_keep() {
            self.keeping.order(job, &self.edge.telemetry.metrics);
        }
    }

    fn end_unwelcome(&self, snapshot: &Snapshot) {
        let ended = self.edge.register.end_where(|connection| snapshot.judge(connection));
        if ended > 0 {
            log::info!("{ended} connection(s) ended: their certificates are revoked, expired or no longer trusted");
        }
    }
}

/// Has the allocator return to the system what it has kept for a while without use. It does so when it is given back a large
/// block, which a gateway without traffic does not have: after a large list it would keep what the build needed. None of
/// the block is touched, so none of it ever is memory; where there is no room even for that, nothing is done.
fn give_memory_back() {
    /// More than the allocator keeps for reuse.
    const LARGE: usize = 32 * 1024 * 1024;
    let mut block = Vec::<u8>::new();
    let _ = block.try_reserve_exact(LARGE);
    drop(std::hint::black_box(block));
}

type Outcome = Option<Result<Built, Box<Failed>>>;

/// How much the building thread steps back behind the serving ones: it gets about a tenth of a core that others want
/// too, and all of one that is free.
const BUILDING_NICE: i32 = 10;

/// Builds on a thread of its own, which ends afterwards: a priority that was lowered can't be raised again without a
/// privilege. `None` after a panic, which costs this reload and not the ones to come.
async fn build(builder: Builder) -> Result<(Builder, Outcome), String> {
    let (hand_over, taken) = oneshot::channel();
    let (done, built) = oneshot::channel();
    let thread = std::thread::Builder::new().name("build".to_owned()).spawn(move || {
        let Ok(builder) = taken.blocking_recv() else { return };
        // Of this thread alone, as Linux has it (setpriority(2), "C library/kernel differences").
        if let Err(e) = rustix::process::setpriority_process(None, BUILDING_NICE) {
            log::debug!("the building thread keeps its priority: {e}");
        }
        // Nobody takes it only when the process leaves.
        let _ = done.send(build_here(builder));
    });
    if let Err(e) = thread {
        log::warn!("no thread can be started for the reload, and other work waits for it: {e}");
        return Ok(build_here(builder));
    }
    // The thread waits for it.
    let _ = hand_over.send(builder);
    built.await.map_err(|e| {
        log::error!("the reload could not be carried out: {e}");
        "the reload could not be carried out; see the log".to_owned()
    })
}

fn build_here(mut builder: Builder) -> (Builder, Outcome) {
    let outcome = catch_unwind(AssertUnwindSafe(|| builder.build())).ok();
    (builder, outcome)
}

/// Fetches lists that are behind URLs of which nothing is known yet, for `patience` at most, and builds again with what
/// came. Whatever doesn't come in time is taken in by a reload of its own.
pub(super) async fn settle(
    fetcher: &mut Fetcher,
    builder: Builder,
    built: Built,
    patience: Duration,
) -> Result<(Builder, Built), String> {
    fetcher.follow(built.snapshot.settings.revocation.urls());
    if !fetcher.first_answers(patience, false).await {
        return Ok((builder, built));
    }
    let (builder, outcome) = build(builder).await?;
    let again = match outcome {
        Some(Ok(again)) => Some(again),
        // The files have changed in between, and the next reload says it.
        Some(Err(failed)) => failed.revocations,
        None => None,
    };
    Ok(match again {
        Some(mut again) => {
            // The first build found these new.
            again.new_upstreams.extend(built.new_upstreams);
            (builder, again)
        }
        None => (builder, built),
    })
}

/// Resolves the names of new upstreams and starts their health checks.
pub(super) async fn take_up(upstreams: &[Arc<upstream::Upstream>]) {
    let mut lookups = tokio::task::JoinSet::new();
    for upstream in upstreams {
        let upstream = upstream.clone();
        lookups.spawn(async move {
            upstream.resolve().await;
            tokio::spawn(upstream::watch(Arc::downgrade(&upstream)));
        });
    }
    let all = async { while lookups.join_next().await.is_some() {} };
    if tokio::time::timeout(RESOLVE_PATIENCE, all).await.is_err() {
        lookups.detach_all();
    }
}

/// Says every finding in the log, one line each.
pub(super) fn report(findings: &Diagnostics) {
    for finding in findings {
        match finding.severity {
            Severity::Error => log::error!("{finding}"),
            Severity::Warning => log::warn!("{finding}"),
        }
    }
}
