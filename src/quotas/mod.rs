//! What clients may ask for, counted: the limits of the policy in force, each with its counters.
//!
//! A request states its [`Demand`] once, after the policy has allowed it, and gets a [`Grant`] or is [`Refused`]. All limits
//! that apply must have room; a request that one of them refuses uses up none of the others. What flows afterwards is
//! charged to the grant, and places for uploads are given back when it is dropped.
//!
//! Counters outlive reloads as long as their limit keeps its name, whose it is, and its numbers. They live in the memory
//! of this process, or in a Redis that replicas share; while that gives no answer, in the memory again.

mod ledger;
mod memory;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::policy::PerFile;
use crate::identity::ClientId;
use crate::policy::{Counted, Limit, Policy, Quota, Standing};
use crate::shared::{NoAnswer, Shared};
use crate::tally::Tally;
use crate::telemetry::{LimitKind, LimitMetrics, Metrics};
use ledger::{Held, Mode, Question};
use memory::Counts;
use window::{Look, Window};

/// Bytes that a transfer may have moved before they are charged.
const LUMP: u64 = 1 << 20;

/// For how long a client should wait that has too many uploads: until one has ended, which nobody knows.
const UPLOAD_WAIT: Duration = Duration::from_secs(5);

/// Whose counter it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Client(ClientId),
    Group(Arc<str>),
    Everybody,
}

impl From<(Counted<'_>, ClientId)> for Key {
    fn from((counted, client): (Counted<'_>, ClientId)) -> Self {
        match counted {
            Counted::Client => Self::Client(client),
            Counted::Group(name) => Self::Group(name.clone()),
            Counted::Everybody => Self::Everybody,
        }
    }
}

/// As keys of Redis have it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => {
                let half = client.as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]);
                write!(f, "client:{}", data_encoding::HEXLOWER.encode(half))
            }
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Everybody => f.write_str("everybody"),
        }
    }
}

/// The limits of a policy with their counters.
#[derive(Debug)]
pub struct Quotas {
    /// In the order of the policy.
    limiters: Vec<Limiter>,
    /// Where replicas count together, if they do.
    shared: Option<Arc<Shared>>,
}

/// One limit with its counters.
#[derive(Debug)]
struct Limiter {
    name: Arc<str>,
    per: PerFile,
    requests: Option<Rate>,
    manifest_pulls: Option<Rate>,
    bytes: Option<Rate>,
    uploads: Option<Places>,
    metrics: LimitMetrics,
}

/// So many in a time.
#[derive(Debug, Clone)]
struct Rate {
    quota: Quota,
    window: Window,
    counts: Arc<Counts>,
}

/// So many at a time.
#[derive(Debug, Clone)]
struct Places {
    most: u64,
    taken: Arc<Tally<Key>>,
}

/// What a request asks of the limits, besides being a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Whether it asks for a manifest.
    pub manifest: Option<Pull>,
    /// Whether it writes a blob.
    pub upload: bool,
}

/// How a manifest is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// By HEAD: the client only wants to know, also how much it has left.
    Look,
    /// By GET.
    Take,
}

/// What a client has left of manifests to pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Of how many.
    pub quota: Quota,
    /// How many.
    pub remaining: u64,
}

/// What a request was granted. Places come back, and what was moved is charged, when it is dropped.
#[derive(Default)]
pub struct Grant {
    places: Vec<Place>,
    meters: Vec<(Rate, Key)>,
    held: Option<Held>,
    moved: u64,
    left: Option<Left>,
}

/// Why a request is not granted.
#[derive(Debug)]
pub enum Denied {
    /// A limit has no room.
    Refused(Refused),
    /// Nobody can say whether there is room, and the configuration doesn't want it served then.
    Unknown,
}

/// Why a request must wait.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The limit.
    pub limit: Arc<str>,
    /// What of it.
    pub kind: LimitKind,
    /// What it allows, if that is so many in a time; else so many at a time.
    pub quota: Option<Quota>,
    /// How many at a time, if that is what it bounds.
    pub places: Option<u64>,
    /// Until it is worth another try.
    pub wait: Duration,
    /// What is left of manifests, if that is what it bounds.
    pub left: Option<Left>,
}

impl Quotas {
    /// The limits of `policy`, with the counters of `before` where a limit is as it was, or those in `shared`.
    #[must_use]
    pub(crate) fn new(policy: &Policy, before: Option<&Self>, shared: Option<Arc<Shared>>, metrics: &Metrics) -> Self {
        let old = |limit: &Limit| {
            let known = before.map_or(&[][..], |before| &before.limiters);
            known.iter().find(|old| old.name == *limit.name() && old.per == limit.per())
        };
        let limiters = policy.limits().iter().map(|limit| Limiter::new(limit, old(limit), metrics)).collect();
        Self { limiters, shared }
    }

    /// Asks for a request of this client, whose standing is the policy's that the limits are of.
    ///
    /// # Errors
    ///
    /// The first limit without room. Nothing is used up then.
    pub async fn admit(
        &self,
        policy: &Policy,
        standing: &Standing,
        client: ClientId,
        demand: Demand,
    ) -> Result<Grant, Denied> {
        let limits = || {
            let limits = policy.limits_of(standing);
            limits.filter_map(|(position, counted)| Some((self.limiters.get(position)?, Key::from((counted, client)))))
        };
        let here = || admit_here(limits(), demand, Instant::now()).map_err(|refused| Denied::Refused(*refused));
        let Some(shared) = &self.shared else { return here() };
        let wishes: Vec<Wish<'_>> = limits().flat_map(|(limiter, key)| limiter.wishes(&key, demand, shared)).collect();
        if wishes.is_empty() {
            return Ok(Grant::default());
        }
        // Boxed: few requests wait here, and every request's future would be as large.
        match Box::pin(admit_shared(shared, wishes)).await {
            Ok(granted) => granted.map_err(|refused| Denied::Refused(*refused)),
            Err(NoAnswer) if shared.allows_unanswered() => here(),
            Err(NoAnswer) => Err(Denied::Unknown),
        }
    }
}

/// Asks limits that are counted here.
fn admit_here<'q>(
    limits: impl Iterator<Item = (&'q Limiter, Key)>,
    demand: Demand,
    now: Instant,
) -> Result<Grant, Box<Refused>> {
    let mut grant = Grant::default();
    let mut taken = Taken::default();
    for (limiter, key) in limits {
        limiter.ask(&key, demand, now, &mut grant, &mut taken)?;
    }
    taken.keep();
    Ok(grant)
}

/// What a request wants of one counter in Redis.
struct Wish<'q> {
    limiter: &'q Limiter,
    kind: LimitKind,
    rate: Option<&'q Rate>,
    question: Question,
}

/// Asks limits that replicas count together.
async fn admit_shared(shared: &Arc<Shared>, wishes: Vec<Wish<'_>>) -> Result<Result<Grant, Box<Refused>>, NoAnswer> {
    let token = format!("{:032x}", fastrand::u128(..));
    let (wishes, questions): (Vec<_>, Vec<_>) =
        wishes.into_iter().map(|wish| ((wish.limiter, wish.kind, wish.rate), wish.question)).unzip();
    let answer = ledger::ask(shared, &questions, &token).await?;
    let used = |at: usize| answer.used.get(at).copied().unwrap_or_default();
    if let Some(at) = answer.full
        && let Some((limiter, kind, rate)) = wishes.get(at)
    {
        let wait = rate.map_or(UPLOAD_WAIT, |rate| rate.window.look_at(used(at)).wait);
        return Ok(Err(limiter.refused(*kind, *rate, wait)));
    }
    let mut grant = Grant::default();
    let (mut meters, mut places) = (Vec::new(), Vec::new());
    for (at, ((_, kind, rate), question)) in wishes.into_iter().zip(questions).enumerate() {
        match (kind, rate, question.mode) {
            (LimitKind::ManifestPulls, Some(rate), _) => {
                let remaining = rate.window.look_at(used(at)).remaining;
                grant.show(Left { quota: rate.quota, remaining });
            }
            (LimitKind::Bytes, Some(rate), _) => meters.push((question.key, rate.window)),
            (_, _, Mode::Place(_)) => places.push(question.key),
            _ => {}
        }
    }
    grant.held = Some(Held::new(shared, meters, places, token));
    Ok(Ok(grant))
}

impl Limiter {
    fn new(limit: &Limit, old: Option<&Self>, metrics: &Metrics) -> Self {
        let rate = |quota: Option<Quota>, pick: fn(&Self) -> Option<&Rate>| {
            let quota = quota?;
            let kept = old.and_then(pick).filter(|rate| rate.quota == quota).cloned();
            Some(kept.unwrap_or_else(|| Rate { quota, window: Window::new(quota), counts: Arc::new(Counts::new()) }))
        };
        Self {
            name: limit.name().clone(),
            per: limit.per(),
            requests: rate(limit.requests, |old| old.requests.as_ref()),
            manifest_pulls: rate(limit.manifest_pulls, |old| old.manifest_pulls.as_ref()),
            bytes: rate(limit.bytes, |old| old.bytes.as_ref()),
            uploads: limit.concurrent_uploads.map(|most| {
                // Those under way count whatever the number was when they began.
                let taken = old.and_then(|old| old.uploads.as_ref()).map(|places| places.taken.clone());
                Places { most, taken: taken.unwrap_or_default() }
            }),
            metrics: metrics.limit(limit.name()),
        }
    }

    /// Takes what the request needs of this limit.
    fn ask(
        &self,
        key: &Key,
        demand: Demand,
        now: Instant,
        grant: &mut Grant,
        taken: &mut Taken,
    ) -> Result<(), Box<Refused>> {
        if let Some(rate) = &self.requests {
            taken.take(rate, key, now).map_err(|wait| self.refused(LimitKind::Requests, Some(rate), wait))?;
        }
        if let (Some(rate), Some(pull)) = (&self.manifest_pulls, demand.manifest) {
            let look = match pull {
                Pull::Look => Ok(rate.counts.look(key, rate.window, now)),
                Pull::Take => taken.take(rate, key, now),
            };
            let look = look.map_err(|wait| self.refused(LimitKind::ManifestPulls, Some(rate), wait))?;
            grant.show(Left { quota: rate.quota, remaining: look.remaining });
        }
        if let Some(rate) = &self.bytes {
            let look = rate.counts.look(key, rate.window, now);
            if look.remaining == 0 {
                return Err(self.refused(LimitKind::Bytes, Some(rate), look.wait));
            }
            grant.meters.push((rate.clone(), key.clone()));
        }
        if let Some(places) = self.uploads.as_ref().filter(|_| demand.upload) {
            if !places.taken.enter(key.clone(), usize::try_from(places.most).unwrap_or(usize::MAX)) {
                return Err(self.refused(LimitKind::ConcurrentUploads, None, UPLOAD_WAIT));
            }
            grant.places.push(Place { taken: places.taken.clone(), key: key.clone() });
        }
        Ok(())
    }

    /// What the request wants of this limit, where replicas count together.
    fn wishes(&self, key: &Key, demand: Demand, shared: &Shared) -> Vec<Wish<'_>> {
        let mut wishes = Vec::new();
        let wish = |kind: LimitKind, rate: Option<&'_ Rate>, mode| {
            // Other numbers begin anew.
            let numbers =
                rate.map_or(String::new(), |rate| format!("{}/{}s:", rate.quota.amount, rate.quota.window.as_secs()));
            let key = shared.key(format_args!("limit:{}:{}:{numbers}{key}", self.name, kind.as_str()));
            (kind, Question { key, mode })
        };
        let mut add = |(kind, question), rate| wishes.push(Wish { limiter: self, kind, rate, question });
        if let Some(rate) = &self.requests {
            add(wish(LimitKind::Requests, Some(rate), Mode::Take(rate.window)), Some(rate));
        }
        if let (Some(rate), Some(pull)) = (&self.manifest_pulls, demand.manifest) {
            let mode = match pull {
                Pull::Look => Mode::Look(rate.window),
                Pull::Take => Mode::Take(rate.window),
            };
            add(wish(LimitKind::ManifestPulls, Some(rate), mode), Some(rate));
        }
        if let Some(rate) = &self.bytes {
            add(wish(LimitKind::Bytes, Some(rate), Mode::Room(rate.window)), Some(rate));
        }
        if let Some(places) = self.uploads.as_ref().filter(|_| demand.upload) {
            add(wish(LimitKind::ConcurrentUploads, None, Mode::Place(places.most)), None);
        }
        wishes
    }

    fn refused(&self, kind: LimitKind, rate: Option<&Rate>, wait: Duration) -> Box<Refused> {
        self.metrics.refused(kind);
        let quota = rate.map(|rate| rate.quota);
        Box::new(Refused {
            limit: self.name.clone(),
            kind,
            quota,
            places: self.uploads.as_ref().filter(|_| quota.is_none()).map(|places| places.most),
            wait,
            left: quota.filter(|_| kind == LimitKind::ManifestPulls).map(|quota| Left { quota, remaining: 0 }),
        })
    }
}

/// What a request has taken so far; given back unless it is kept.
#[derive(Default)]
struct Taken(Vec<(Rate, Key)>);

impl Taken {
    fn take(&mut self, rate: &Rate, key: &Key, now: Instant) -> Result<Look, Duration> {
        let look = rate.counts.take(key, rate.window, 1, now)?;
        self.0.push((rate.clone(), key.clone()));
        Ok(look)
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for (rate, key) in &self.0 {
            rate.counts.give_back(key, rate.window, 1);
        }
    }
}

/// One upload's place.
#[derive(Debug)]
struct Place {
    taken: Arc<Tally<Key>>,
    key: Key,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.leave(&self.key);
    }
}

impl Grant {
    /// What the client has left of manifests to pull, by the limit that leaves it least; none if no limit bounds them.
    #[must_use]
    pub fn left(&self) -> Option<Left> {
        self.left
    }

    /// Bytes of a body have moved.
    pub fn moved(&mut self, bytes: usize) {
        if self.meters.is_empty() && !self.held.as_ref().is_some_and(Held::is_metered) {
            return;
        }
        self.moved = self.moved.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.moved >= LUMP {
            self.charge();
        }
    }

    fn show(&mut self, left: Left) {
        if self.left.is_none_or(|least| left.remaining < least.remaining) {
            self.left = Some(left);
        }
    }

    fn charge(&mut self) {
        let now = Instant::now();
        for (rate, key) in &self.meters {
            rate.counts.charge(key, rate.window, self.moved, now);
        }
        if let Some(held) = &self.held {
            held.charge(self.moved);
        }
        self.moved = 0;
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.moved > 0 {
            self.charge();
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("places", &self.places.len()).field("left", &self.left).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
