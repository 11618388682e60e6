//! Circumstances of a rule: where from, when, with how much left of the certificate, over which TLS.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use ipnet::IpNet;

use crate::config::policy::Effect;
use crate::config::{HumanDuration, TlsVersion};

use super::decide::Facts;

/// Seconds of a day.
pub(super) const DAY: i64 = 24 * 60 * 60;

/// Compiled circumstances: all that are given must hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct When {
    /// None of them: everywhere.
    pub(super) networks: Box<[IpNet]>,
    /// In unix seconds.
    pub(super) from: Option<u64>,
    /// In unix seconds; the first that is too late.
    pub(super) until: Option<u64>,
    /// None of them: always.
    pub(super) hours: Box<[Hours]>,
    pub(super) lifetime: Option<Lifetime>,
    pub(super) min_tls: Option<TlsVersion>,
}

/// A window of the day, on some days of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hours {
    /// Bit 0 is Monday.
    pub(super) days: u8,
    /// In seconds of the day; an end before the beginning is on the next day.
    pub(super) from: i64,
    pub(super) until: i64,
    /// By how much the zone's clocks are ahead of UTC, in seconds.
    pub(super) ahead: i64,
    /// As it is written.
    pub(super) text: Box<str>,
}

/// How long a certificate has to go, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub(super) at_least: u64,
    pub(super) at_most: u64,
}

/// One of the circumstances.
#[derive(Debug, Clone, Copy)]
enum Part<'w> {
    Client(&'w [IpNet]),
    From(u64),
    Until(u64),
    Hours(&'w [Hours]),
    Lifetime(Lifetime),
    Tls(TlsVersion),
}

impl When {
    /// Whether the circumstances are given.
    pub(super) fn holds(&self, facts: &Facts<'_>, effect: Effect) -> bool {
        self.parts().all(|part| part.holds(facts, effect))
    }

    /// Those that hold, or those that don't, each with what it says and what is.
    pub(super) fn reasons(&self, facts: &Facts<'_>, effect: Effect, holding: bool) -> impl Iterator<Item = String> {
        self.parts().filter(move |part| part.holds(facts, effect) == holding).map(|part| part.reason(facts))
    }

    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        [
            Some(Part::Client(&self.networks)).filter(|_| !self.networks.is_empty()),
            self.from.map(Part::From),
            self.until.map(Part::Until),
            Some(Part::Hours(&self.hours)).filter(|_| !self.hours.is_empty()),
            self.lifetime.map(Part::Lifetime),
            self.min_tls.map(Part::Tls),
        ]
        .into_iter()
        .flatten()
    }
}

impl Part<'_> {
    fn holds(self, facts: &Facts<'_>, effect: Effect) -> bool {
        match self {
            Self::Client(networks) => {
                // A socket for both families shows IPv4 as IPv6.
                let client = facts.client.to_canonical();
                networks.iter().any(|network| network.contains(&client))
            }
            Self::From(from) => facts.now >= from,
            Self::Until(until) => facts.now < until,
            Self::Hours(hours) => hours.iter().any(|window| window.holds(facts.now)),
            Self::Lifetime(Lifetime { at_least, at_most }) => match left(facts) {
                Some(left) => (at_least..=at_most).contains(&left),
                None => effect == Effect::Deny,
            },
            Self::Tls(least) => match version(facts.tls.version) {
                Some(version) => version >= least,
                None => effect == Effect::Deny,
            },
        }
    }

    fn reason(self, facts: &Facts<'_>) -> String {
        let now = shown(facts.now);
        match self {
            Self::Client(networks) => {
                let networks: Vec<_> = networks.iter().take(8).map(ToString::to_string).collect();
                format!("the client connects from {} (for: {})", facts.client.to_canonical(), networks.join(", "))
            }
            Self::From(from) => format!("it is {now} (from {})", shown(from)),
            Self::Until(until) => format!("it is {now} (until {})", shown(until)),
            Self::Hours(hours) => {
                let hours: Vec<_> = hours.iter().take(8).map(|window| &*window.text).collect();
                format!("it is {now} (in: {})", hours.join("; "))
            }
            Self::Lifetime(lifetime) => match left(facts).map(HumanDuration::from_secs) {
                Some(left) => format!("the certificate has {left} to go (for {lifetime})"),
                None => format!("nobody knows how long the certificate has to go (for {lifetime})"),
            },
            Self::Tls(least) => {
                let least = match least {
                    TlsVersion::Tls12 => "TLSv1.2",
                    TlsVersion::Tls13 => "TLSv1.3",
                };
                format!("the connection is of {} (for {least} and newer)", facts.tls.version)
            }
        }
    }
}

impl Hours {
    fn holds(&self, now: u64) -> bool {
        let local = i64::try_from(now).unwrap_or(i64::MAX - DAY).saturating_add(self.ahead);
        let (day, second) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        if self.from < self.until {
            return self.is_on(day) && (self.from..self.until).contains(&second);
        }
        (self.is_on(day) && second >= self.from) || (self.is_on(day - 1) && second < self.until)
    }

    /// Whether the window is on this day, counted from the epoch, which was a Thursday.
    fn is_on(&self, day: i64) -> bool {
        self.days >> (day + 3).rem_euclid(7) & 1 == 1
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = HumanDuration::from_secs;
        match (self.at_least, self.at_most) {
            (least, u64::MAX) => write!(f, "{} and more", span(least)),
            (0, most) => write!(f, "{} and less", span(most)),
            (least, most) => write!(f, "{} to {}", span(least), span(most)),
        }
    }
}

/// How long the client's certificates have to go, in seconds.
fn left(facts: &Facts<'_>) -> Option<u64> {
    let end = u64::try_from(facts.identity.expires()?).unwrap_or_default();
    Some(end.saturating_sub(facts.now))
}

fn version(name: &str) -> Option<TlsVersion> {
    match name {
        "TLSv1.2" => Some(TlsVersion::Tls12),
        "TLSv1.3" => Some(TlsVersion::Tls13),
        _ => None,
    }
}

/// A time as RFC 3339 has it.
fn shown(seconds: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
        // The year 10000 can't be written so.
        Some(time) if seconds < 253_402_300_800 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => format!("{seconds} s after 1970"),
    }
}
