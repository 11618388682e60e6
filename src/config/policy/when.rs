//! Circumstances of a rule as they are written. [`crate::policy::compile`] checks them.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{HumanDuration, TlsVersion};

/// Circumstances under which a rule applies. All that are given must hold, for each request anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhenFile {
    /// The client connects from one of these networks or addresses. Behind a load balancer that is the balancer's address,
    /// unless it tells the client's by the PROXY protocol (`listeners[].proxy_protocol`).
    pub client: Option<Vec<String>>,
    /// Not before this time: `2026-01-31T08:00:00Z` (RFC 3339; other zones as `+02:00`).
    pub from: Option<String>,
    /// Before this time, likewise.
    pub until: Option<String>,
    /// In one of these windows.
    pub hours: Option<Vec<HoursFile>>,
    /// The certificate, with every certificate of its chain, has this long to go. Where nobody knows, as for a client that
    /// is only described, a rule that allows doesn't match, and a rule that denies does.
    pub certificate_lifetime: Option<LifetimeFile>,
    /// The connection is of this TLS version at least.
    pub min_tls_version: Option<TlsVersion>,
}

/// A window that comes again every day, or on some days of the week.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoursFile {
    /// On these days; every day if left out. A window over midnight belongs to the day on which it begins.
    pub days: Option<Vec<Day>>,
    /// From this time of the day, `08:00`; midnight if left out.
    pub from: Option<String>,
    /// Until this time of the day, which is outside; `24:00` if left out. An earlier one than `from` is on the next day.
    pub until: Option<String>,
    /// The zone of these times: `UTC`, or a fixed distance from it such as `+01:00`. Summer time isn't followed.
    pub zone: Option<String>,
}

/// How long a certificate has to go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LifetimeFile {
    /// This long or longer.
    pub at_least: Option<HumanDuration>,
    /// This long or shorter.
    pub at_most: Option<HumanDuration>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}
