//! What clients may ask for, counted: the limits of the policy in force, each with its counters.
//!
//! A request states its [`Demand`] once, after the policy has allowed it, and gets a [`Grant`] or is [`Refused`]. All limits
//! that apply must have room; a request that one of them refuses uses up none of the others. What flows afterwards is
//! charged to the grant, and places for uploads are given back when it is dropped.
//!
//! Counters outlive reloads as long as their limit keeps its name, whose it is, and its numbers. They live in the memory
//! of this process, or in a Redis that replicas share; while that gives no answer, in the memory again.

mod grant;
mod ledger;
mod memory;
mod together;
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
pub use grant::Grant;
use grant::{Meter, Place, Taken};
use memory::Counts;
use window::Window;

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
    /// How many bytes its bodies have at least, if that is known.
    pub bytes: Option<u64>,
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

    /// Where replicas count together, if they do.
    pub(crate) fn shared(&self) -> Option<&Arc<Shared>> {
        self.shared.as_ref()
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
        let wishes: Vec<_> = limits().flat_map(|(limiter, key)| limiter.wishes(&key, demand, shared)).collect();
        if wishes.is_empty() {
            return Ok(Grant::default());
        }
        // Boxed: few requests wait here, and every request's future would be as large.
        match Box::pin(together::admit(shared, wishes)).await {
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
            let lump = rate.lump(demand.bytes);
            let used = rate.counts.reserve(key, rate.window, lump, now);
            let used = used.map_err(|wait| self.refused(LimitKind::Bytes, Some(rate), wait))?;
            grant.meter(Meter::new(rate, key.clone(), None, lump, used, now));
        }
        if let Some(places) = self.uploads.as_ref().filter(|_| demand.upload) {
            if !places.taken.enter(key.clone(), usize::try_from(places.most).unwrap_or(usize::MAX)) {
                return Err(self.refused(LimitKind::ConcurrentUploads, None, UPLOAD_WAIT));
            }
            grant.places.push(Place { taken: places.taken.clone(), key: key.clone() });
        }
        Ok(())
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

#[cfg(test)]
mod tests;
