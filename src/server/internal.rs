//! What the internal listeners are given to answer with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::ListenerAddress;
use super::control::{Answer, Reload};
use super::revocation;
use super::status::StatusPage;
use super::turned_away::TurnedAway;
use crate::admin::{self, Admin, Adopted, Control, Explaining, Format, Health, Pending};
use crate::config::Settings;
use crate::edge::Register;
use crate::inquiry::{self, Question, Unanswered};
use crate::snapshot::{Reader, Snapshot, unix_now};
use crate::telemetry::{Recent, Telemetry};

/// Pages about decisions that are made at a time. Each is bounded, and may still take a processor for a while.
const MOST_EXPLAINING: usize = 2;

/// Status pages that are put together at a time. Each looks at every live connection.
const MOST_LOOKING: usize = 2;

const STOPPING: &str = "the gateway is stopping";

/// Where the listeners find what they tell, and whom they pass orders to.
pub(super) struct Doors<'a> {
    pub(super) register: &'a Arc<Register>,
    pub(super) telemetry: &'a Telemetry,
    pub(super) reader: &'a Reader,
    pub(super) requests: &'a mpsc::Sender<Reload>,
    pub(super) draining: &'a watch::Receiver<bool>,
    /// Nothing is accepted before.
    pub(super) open: &'a watch::Receiver<bool>,
    /// Another process serves, so that it doesn't matter whether this one drains.
    pub(super) succeeded: &'a Arc<AtomicBool>,
}

impl Doors<'_> {
    /// Starts the listeners that are configured. Without `upgrades` the program is not ours to start anew.
    pub(super) fn open(
        &self,
        settings: &Settings,
        listeners: Vec<ListenerAddress>,
        adopted: Adopted,
        upgrades: Option<mpsc::Sender<Answer>>,
    ) -> Result<Admin, String> {
        let page = Arc::new(StatusPage {
            listeners,
            internal: OnceLock::new(),
            reader: self.reader.clone(),
            register: self.register.clone(),
            telemetry: self.telemetry.clone(),
            draining: self.draining.clone(),
            started: unix_now(),
        });
        let health = settings.health.map(|address| (address, self.health()));
        let control = settings.admin.as_ref().map(|admin| (admin.address.clone(), self.control(&page, upgrades)));
        let admin = admin::start(health, control, adopted, self.open.clone()).map_err(|e| e.to_string())?;
        page.set_internal(&admin);
        Ok(admin)
    }

    fn health(&self) -> Health {
        let (draining, succeeded) = (self.draining.clone(), self.succeeded.clone());
        let (reader, begun) = (self.reader.clone(), AtomicBool::new(false));
        let ready = move || {
            if *draining.borrow() && !succeeded.load(Ordering::Relaxed) {
                return Err("draining".to_owned());
            }
            // Once and for all: what comes later meets all replicas at once, and nobody would be left to serve the clients of
            // the other authorities.
            if begun.load(Ordering::Relaxed) {
                return Ok(());
            }
            match reader.load().source_without_list() {
                Some(source) => {
                    Err(format!("waits for the first revocation list of {source}: without one, clients are refused"))
                }
                None => {
                    begun.store(true, Ordering::Relaxed);
                    Ok(())
                }
            }
        };
        Health { ready: Arc::new(ready), metrics: self.telemetry.metrics.clone() }
    }

    fn control(&self, page: &Arc<StatusPage>, upgrades: Option<mpsc::Sender<Answer>>) -> Control {
        let reader = self.reader.clone();
        let config = move || {
            let snapshot = reader.load();
            let effective = serde_json::to_string_pretty(snapshot.settings.effective()).unwrap_or_default();
            format!("{{\"generation\": {}, \"config\": {effective}}}\n", snapshot.generation)
        };
        let requests = self.requests.clone();
        let reload = move || {
            let requests = requests.clone();
            ask(async move |answer| {
                requests
                    .send(Reload { origin: "admin", noticed: None, answer: Some(answer) })
                    .await
                    .map_err(|_| STOPPING.to_owned())
            })
        };
        let upgrade = move || {
            let upgrades = upgrades.clone();
            ask(async move |answer| match upgrades {
                Some(upgrades) => upgrades.send(answer).await.map_err(|_| STOPPING.to_owned()),
                None => Err("this gateway is part of another program, which alone can start its successor".to_owned()),
            })
        };
        let (reader, expiring) = (self.reader.clone(), self.telemetry.expiring.clone());
        let revocation = move |format| revocation::page(&reader.load(), &expiring, format);
        let (reader, recent) = (self.reader.clone(), self.telemetry.recent.clone());
        let turns = Arc::new(Semaphore::new(MOST_EXPLAINING));
        let explain = move |query: String, format| {
            let (snapshot, recent) = (reader.load(), recent.clone());
            in_turn(turns.clone(), move || explain(&snapshot, &recent, &query, format))
        };
        let reader = self.reader.clone();
        let turned_away = TurnedAway::new(self.telemetry.clone());
        let (page, looking) = (page.clone(), Arc::new(Semaphore::new(MOST_LOOKING)));
        let status = move |query: String| {
            let page = page.clone();
            in_turn(looking.clone(), move || Ok(page.render(&query)))
        };
        Control {
            guard: Arc::new(move || reader.load().admin.clone()),
            refused: Arc::new(move |why, from, detail| turned_away.note(why, from, detail)),
            status: Arc::new(status),
            explain: Arc::new(explain),
            config: Arc::new(config),
            revocation: Arc::new(revocation),
            reload: Arc::new(reload),
            upgrade: Arc::new(upgrade),
        }
    }
}

/// Asks the policy in force.
fn explain(snapshot: &Snapshot, recent: &Recent, query: &str, format: Format) -> Result<String, Unanswered> {
    let now = u64::try_from(unix_now()).unwrap_or_default();
    let answer = Question::parse(query)?.answer(&snapshot.policy, now, |id| recent.find(id))?;
    Ok(if format == Format::Json { inquiry::json(&answer) } else { inquiry::text(&answer) })
}

/// Does what may take a moment on a thread for such things, once it has its turn, which it keeps until it is done, also
/// if nobody waits any more.
fn in_turn(turns: Arc<Semaphore>, work: impl FnOnce() -> Result<String, Unanswered> + Send + 'static) -> Explaining {
    Box::pin(async move {
        let broken = || Err(Unanswered::NotKnown("this met a fault of the gateway itself; see the log".to_owned()));
        let Ok(turn) = turns.acquire_owned().await else { return broken() };
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        work.await.unwrap_or_else(|_| broken())
    })
}

/// Gives an order, and waits for its outcome.
fn ask<F>(order: impl FnOnce(Answer) -> F + Send + 'static) -> Pending
where
    F: Future<Output = Result<(), String>> + Send,
{
    Box::pin(async move {
        let (answer, answered) = oneshot::channel();
        let answer: Answer = Box::new(move |outcome| drop(answer.send(outcome)));
        order(answer).await?;
        answered.await.unwrap_or_else(|_| Err(STOPPING.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn few_pages_are_made_at_a_time() {
        let turns = Arc::new(Semaphore::new(MOST_EXPLAINING));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (now, most) = (now.clone(), most.clone());
            all.spawn(in_turn(turns.clone(), move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(Duration::from_millis(20));
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(String::new())
            }));
        }
        while let Some(done) = all.join_next().await {
            assert!(done.expect("no panic").is_ok());
        }
        assert!(most.load(Ordering::SeqCst) <= MOST_EXPLAINING, "{most:?} at a time");
        assert_eq!(turns.available_permits(), MOST_EXPLAINING);
        // A page that fails gives its turn back.
        let broken = in_turn(turns.clone(), || panic!("on purpose")).await;
        assert!(broken.is_err() && turns.available_permits() == MOST_EXPLAINING);
    }
}
