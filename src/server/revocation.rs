//! The page about revocation: what is known, until when, and what is wrong.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::admin::Format;
use crate::config::Freshness;
use crate::revocation::{Issuer, ListReport, Standing};
use crate::snapshot::{Snapshot, SourceKind, SourceStatus, span, unix_now};
use crate::telemetry::{Expiring, ExpiringClient};

/// The page as it is now.
pub(super) fn page(snapshot: &Snapshot, expiring: &Expiring, format: Format) -> String {
    let now = unix_now();
    let page = Page { snapshot, expiring: expiring.clients(now), now };
    match format {
        Format::Text => page.text(),
        Format::Json => page.json(),
    }
}

struct Page<'a> {
    snapshot: &'a Snapshot,
    expiring: Vec<ExpiringClient>,
    /// Unix seconds.
    now: i64,
}

impl<'a> Page<'a> {
    fn standpoint(&self) -> Standpoint<'a> {
        Standpoint { snapshot: self.snapshot }
    }

    /// For people.
    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string doesn't fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let settings = &self.snapshot.settings;
        writeln!(out, "generation {}", self.snapshot.generation)?;
        if settings.revocation.sources.is_empty() {
            writeln!(out, "revocation is not checked: revocation.crls names no source")?;
        }
        for source in self.snapshot.sources.iter() {
            self.write_source(out, source)?;
        }
        for issuer in self.standpoint().issuers_without_list() {
            let refused = settings.revocation.freshness == Freshness::Required;
            let so =
                if refused { "certificates that it signed are refused" } else { "nothing that it signed is revoked" };
            writeln!(out, "\n{}: no list; {so}", issuer.subject)?;
        }
        if !self.expiring.is_empty() {
            let within = span(i64::try_from(settings.client_expiry_warning.as_secs()).unwrap_or(i64::MAX));
            writeln!(out, "\nclient certificates that run out within {within}")?;
        }
        for client in &self.expiring {
            let ExpiringClient { label, serial, .. } = client;
            let (end, seen) = (self.moment(client.not_after), self.moment(client.last_seen));
            writeln!(out, "  {label}, serial {serial}: runs out {end}, last seen {seen}")?;
        }
        Ok(())
    }

    fn write_source(&self, out: &mut String, source: &SourceStatus) -> std::fmt::Result {
        writeln!(out, "\n{} ({}, {})", source.name, source.kind.as_str(), source.place)?;
        match self.standpoint().last_success(source) {
            Some(time) => writeln!(out, "  last good {}", self.moment(time))?,
            None if source.awaited => writeln!(out, "  not fetched yet")?,
            None => writeln!(out, "  never good so far")?,
        }
        for list in &source.lists {
            writeln!(out, "  {}: {}", list.issuer_name, standing(list))?;
            if let Some(base) = list.delta_of {
                writeln!(out, "    changes to number {base}")?;
            }
            if !list.scope.is_full() {
                writeln!(out, "    covers {}", list.scope)?;
            }
            let number = list.number.map_or_else(|| "none".to_owned(), |number| number.to_string());
            writeln!(out, "    number {number}, {} entries", list.entries)?;
            writeln!(out, "    thisUpdate {}", self.moment(list.this_update))?;
            writeln!(out, "    nextUpdate {}", self.moment(list.next_update))?;
        }
        for fault in &source.faults {
            writeln!(out, "  FAULT {fault}")?;
        }
        if let Some((_, fault)) = self.standpoint().fetch_fault(source) {
            writeln!(out, "  FAULT {fault}")?;
        }
        Ok(())
    }

    /// For programs.
    fn json(&self) -> String {
        let sources: Vec<Value> = self.snapshot.sources.iter().map(|source| self.source_json(source)).collect();
        let without: Vec<&str> =
            self.standpoint().issuers_without_list().iter().map(|issuer| issuer.subject.as_str()).collect();
        let expiring = self.expiring.iter().map(|client| {
            json!({
                "client": client.label,
                "serial": client.serial,
                "not_after": rfc3339(client.not_after),
                "last_seen": rfc3339(client.last_seen),
            })
        });
        let page = json!({
            "generation": self.snapshot.generation,
            "sources": sources,
            "issuers_without_list": without,
            "expiring_clients": expiring.collect::<Vec<_>>(),
        });
        serde_json::to_string_pretty(&page).unwrap_or_default()
    }

    fn source_json(&self, source: &SourceStatus) -> Value {
        let lists = source.lists.iter().map(|list| {
            json!({
                "issuer": list.issuer_name,
                "standing": list.standing.as_str(),
                "scope": list.scope.to_string(),
                "delta_of": list.delta_of.map(|number| number.to_string()),
                "number": list.number.map(|number| number.to_string()),
                "entries": list.entries,
                "this_update": rfc3339(list.this_update),
                "next_update": rfc3339(list.next_update),
                "seconds_left": list.next_update - self.now,
            })
        });
        let faults = source.faults.iter().map(|fault| (fault.as_str(), fault.to_string()));
        let faults = faults.chain(self.standpoint().fetch_fault(source));
        let faults = faults.map(|(kind, message)| json!({ "kind": kind, "message": message }));
        json!({
            "source": source.name,
            "kind": source.kind.as_str(),
            "key": source.place,
            "last_success": self.standpoint().last_success(source).map(rfc3339),
            "lists": lists.collect::<Vec<_>>(),
            "faults": faults.collect::<Vec<_>>(),
        })
    }

    /// A time, and how far it is away.
    fn moment(&self, time: i64) -> String {
        let away = match time - self.now {
            left @ 0.. => format!("in {}", span(left)),
            past => format!("{} ago", span(-past)),
        };
        format!("{} ({away})", rfc3339(time))
    }
}

/// How sources stand, by what is in force and what was fetched since.
pub(super) struct Standpoint<'a> {
    pub(super) snapshot: &'a Snapshot,
}

impl<'a> Standpoint<'a> {
    /// Of a URL, as it is now: attempts that bring nothing new make no generation.
    pub(super) fn last_success(&self, source: &SourceStatus) -> Option<i64> {
        let fetched = || self.snapshot.fetched.state(&source.name).last_success;
        if source.kind == SourceKind::Url { fetched().or(source.last_success) } else { source.last_success }
    }

    pub(super) fn fetch_fault(&self, source: &SourceStatus) -> Option<(&'static str, String)> {
        self.snapshot.fetched.state(&source.name).fault.filter(|_| source.kind == SourceKind::Url)
    }

    pub(super) fn issuers_without_list(&self) -> Vec<&'a Issuer> {
        let mut without: Vec<&'a Issuer> = Vec::new();
        if self.snapshot.settings.revocation.sources.is_empty() {
            return without;
        }
        for issuer in self.snapshot.issuers() {
            let mut lists = self.snapshot.sources.iter().flat_map(|source| &source.lists);
            if !lists.any(|list| list.issuer == issuer.id) && without.iter().all(|other| other.id != issuer.id) {
                without.push(issuer);
            }
        }
        without
    }
}

/// Whether a list is in force, in words.
pub(super) fn standing(list: &ListReport) -> &'static str {
    match list.standing {
        Standing::InForce => "in force",
        Standing::RolledBack => "older than one before it: what it revokes counts, and it vouches for nobody",
        Standing::Superseded => "superseded by a newer list",
        Standing::Waiting => "a delta that waits for its base",
    }
}

fn rfc3339(time: i64) -> String {
    // No later than humantime can write.
    let seconds = u64::try_from(time).unwrap_or(0).min(253_402_300_799);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}
