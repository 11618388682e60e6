//! Asks limits that replicas count together.

use std::sync::Arc;
use std::time::Instant;

use super::grant::Meter;
use super::ledger::{self, Held, Mode, Question};
use super::{Demand, Grant, Key, Left, Limiter, Pull, Rate, Refused, UPLOAD_WAIT};
use crate::shared::{NoAnswer, Shared};
use crate::telemetry::LimitKind;

/// What a request wants of one counter in Redis.
pub(super) struct Wish<'q> {
    limiter: &'q Limiter,
    kind: LimitKind,
    rate: Option<&'q Rate>,
    owner: Key,
}

/// Asks for everything at once.
pub(super) async fn admit(
    shared: &Arc<Shared>,
    wishes: Vec<(Wish<'_>, Question)>,
) -> Result<Result<Grant, Box<Refused>>, NoAnswer> {
    let token = format!("{:032x}", fastrand::u128(..));
    let (wishes, questions): (Vec<_>, Vec<_>) = wishes.into_iter().unzip();
    let places = questions.iter().filter(|question| matches!(question.mode, Mode::Place(_)));
    // Before asking: whoever goes away while he waits, or is answered too late, gives back what he may have got.
    let mut held = Held::asking(shared, places.map(|question| question.key.clone()).collect(), &token);
    let answer = ledger::ask(shared, &questions, &token).await?;
    let used = |at: usize| answer.used.get(at).copied().unwrap_or_default();
    if let Some(at) = answer.full {
        held.got_nothing();
        let Wish { limiter, kind, rate, .. } = wishes.get(at).ok_or(NoAnswer)?;
        let wait = rate.map_or(UPLOAD_WAIT, |rate| rate.window.look_at(used(at)).wait);
        return Ok(Err(limiter.refused(*kind, *rate, wait)));
    }
    held.got_all();
    let now = Instant::now();
    let mut grant = Grant::default();
    grant.held = Some(held);
    for (at, (wish, question)) in wishes.into_iter().zip(questions).enumerate() {
        match (wish.kind, wish.rate, question.mode) {
            (LimitKind::ManifestPulls, Some(rate), _) => {
                let remaining = rate.window.look_at(used(at)).remaining;
                grant.show(Left { quota: rate.quota, remaining });
            }
            (LimitKind::Bytes, Some(rate), Mode::Room(_, lump)) => {
                grant.meter(Meter::new(rate, wish.owner, Some(question.key), lump, used(at), now));
            }
            _ => {}
        }
    }
    Ok(Ok(grant))
}

impl Limiter {
    /// What the request wants of this limit.
    pub(super) fn wishes(&self, owner: &Key, demand: Demand, shared: &Shared) -> Vec<(Wish<'_>, Question)> {
        let mut wishes = Vec::new();
        let mut add = |kind: LimitKind, rate, mode| {
            let key = self.key(owner, kind, rate, shared);
            wishes.push((Wish { limiter: self, kind, rate, owner: owner.clone() }, Question { key, mode }));
        };
        if let Some(rate) = &self.requests {
            add(LimitKind::Requests, Some(rate), Mode::Take(rate.window));
        }
        if let (Some(rate), Some(pull)) = (&self.manifest_pulls, demand.manifest) {
            let mode = match pull {
                Pull::Look => Mode::Look(rate.window),
                Pull::Take => Mode::Take(rate.window),
            };
            add(LimitKind::ManifestPulls, Some(rate), mode);
        }
        if let Some(rate) = &self.bytes {
            add(LimitKind::Bytes, Some(rate), Mode::Room(rate.window, rate.lump(demand.bytes)));
        }
        if let Some(places) = self.uploads.as_ref().filter(|_| demand.upload) {
            add(LimitKind::ConcurrentUploads, None, Mode::Place(places.most));
        }
        wishes
    }

    fn key(&self, owner: &Key, kind: LimitKind, rate: Option<&Rate>, shared: &Shared) -> String {
        // Other numbers begin anew.
        let numbers =
            rate.map_or(String::new(), |rate| format!("{}/{}s:", rate.quota.amount, rate.quota.window.as_secs()));
        shared.key(format_args!("limit:{}:{}:{numbers}{owner}", self.name, kind.as_str()))
    }
}
