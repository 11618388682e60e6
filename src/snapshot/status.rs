//! How the sources of revocation lists stand: what messages, metrics and the admin listener say of them.

use std::path::Path;

use super::parts::Report;
use super::shelf::Shelf;
use crate::config::{CrlPlace, CrlSource, Freshness, Revocation, Settings};
use crate::identity::IssuerId;
use crate::revocation::{CrlFault, Issuer, ListReport, SourceReport, Standing};
use crate::telemetry::CrlState;

/// Where a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A file of its own.
    File,
    /// A file of a directory.
    Directory,
    /// A URL.
    Url,
}

impl SourceKind {
    /// For people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "file of a directory",
            Self::Url => "url",
        }
    }
}

/// How one source stood when a generation was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// Its path or URL.
    pub name: String,
    /// Where it is.
    pub kind: SourceKind,
    /// Its key in the configuration.
    pub place: String,
    /// Its last good lists.
    pub lists: Vec<ListReport>,
    /// When it was last good, in unix seconds.
    pub last_success: Option<i64>,
    /// What was wrong with what it held.
    pub faults: Vec<CrlFault>,
    /// What was wrong with the last attempt to fetch it, as a metric label and for people.
    pub fetch_fault: Option<(&'static str, String)>,
    /// Whether nothing is known of it yet.
    pub awaited: bool,
}

impl SourceStatus {
    pub(super) fn new(
        name: String,
        kind: SourceKind,
        place: String,
        report: Option<SourceReport>,
        last_good: Option<i64>,
        shelf: &Shelf,
    ) -> Self {
        let (lists, success, mut faults) =
            report.map_or_else(Default::default, |report| (report.lists, report.last_success, report.faults));
        let mut status = Self {
            last_success: success.filter(|_| faults.is_empty()).or(last_good),
            fetch_fault: None,
            awaited: false,
            name,
            kind,
            place,
            lists,
            faults: Vec::new(),
        };
        if kind == SourceKind::Url {
            // It is not gone, it just was not fetched.
            faults.retain(|fault| *fault != CrlFault::Missing);
            let fetched = shelf.state(&status.name);
            status.last_success = fetched.last_success.or(status.last_success);
            status.fetch_fault = fetched.fault;
            status.awaited = shelf.is_awaited(&status.name);
        }
        status.faults = faults;
        status
    }

    /// Whether it was read just now, and without fault.
    pub(super) fn is_good(&self) -> bool {
        self.faults.is_empty()
    }

    /// Reports everything that is wrong.
    pub(super) fn tell(&self, report: &mut Report<'_>) {
        const STAYS: &str = "(the last good list, if any, stays in force)";
        for fault in &self.faults {
            report.error(&self.place, format!("\"{}\": {fault} {STAYS}", self.name));
        }
        if let Some((_, fault)) = &self.fetch_fault {
            report.error(&self.place, format!("\"{}\": {fault} {STAYS}", self.name));
        }
    }

    /// What metrics say of it.
    pub(super) fn metrics(&self) -> CrlState {
        let number = |list: &ListReport| list.number.and_then(|number| number.to_string().parse().ok());
        CrlState {
            source: self.name.clone(),
            entries: self.lists.iter().map(|list| list.entries).sum(),
            this_update: self.lists.iter().map(|list| list.this_update).min(),
            // A delta that runs out leaves its base in force.
            next_update: self.lists.iter().filter(|list| list.delta_of.is_none()).map(|list| list.next_update).min(),
            number: self.lists.iter().filter_map(number).max(),
            last_success: self.last_success,
            failed: !self.faults.is_empty() || self.fetch_fault.is_some(),
        }
    }
}

/// Warns of lists that run out soon, and of authorities without any.
pub(super) fn warn_of_gaps(
    statuses: &[SourceStatus],
    issuers: &[Issuer],
    settings: &Settings,
    now: i64,
    report: &mut Report<'_>,
) {
    let configured = &settings.revocation;
    for status in statuses {
        // A delta that runs out leaves its base in force.
        for list in status.lists.iter().filter(|list| list.standing == Standing::InForce && list.delta_of.is_none()) {
            if let Some(message) = near_end(list, configured.expiry_warning.as_secs(), now) {
                report.warn(&status.place, format!("\"{}\": {message}", status.name));
            }
        }
    }
    // What isn't fetched yet may be what is missed here.
    if configured.freshness == Freshness::Optional
        || configured.sources.is_empty()
        || statuses.iter().any(|status| status.awaited)
    {
        return;
    }
    let mut missed: Vec<&str> = Vec::new();
    for issuer in issuers {
        let mut lists = statuses.iter().flat_map(|status| &status.lists);
        if !lists.any(|list| list.issuer == issuer.id) && !missed.contains(&issuer.subject.as_str()) {
            missed.push(&issuer.subject);
        }
    }
    for subject in missed {
        report.warn(
            "revocation.crls",
            format!("there is no list of {subject}, which is in a client_ca bundle: until there is one, certificates that it signed are refused"),
        );
    }
}

/// Whether an authority's clients are refused at `now` for want of a list: there is none that says something about the
/// certificates it signs, or all have run out.
pub(super) fn is_shut_out(statuses: &[SourceStatus], issuer: &IssuerId, configured: &Revocation, now: i64) -> bool {
    let slack = i64::try_from((configured.grace + configured.clock_skew).as_secs()).unwrap_or(i64::MAX);
    let counts = |list: &ListReport| {
        let stands = list.standing == Standing::InForce && list.delta_of.is_none();
        list.issuer == *issuer && stands && list.next_update.saturating_add(slack) >= now
    };
    let needed = !configured.sources.is_empty() && configured.freshness != Freshness::Optional;
    needed && !statuses.iter().flat_map(|status| &status.lists).any(counts)
}

/// The first source that has no list yet, as long as clients are refused for want of one: there is an authority without a
/// list about everything it signs. Lists that have run out are lists.
pub(super) fn lacking(
    statuses: &[SourceStatus],
    mut issuers: impl Iterator<Item = IssuerId>,
    configured: &Revocation,
) -> Option<String> {
    if configured.freshness == Freshness::Optional {
        return None;
    }
    let lists = || statuses.iter().flat_map(|status| &status.lists);
    let is_full =
        |list: &ListReport| list.standing == Standing::InForce && list.delta_of.is_none() && list.scope.is_full();
    if issuers.all(|issuer| lists().any(|list| list.issuer == issuer && is_full(list))) {
        return None;
    }
    let has_none = |name: &str| statuses.iter().all(|status| status.name != name || status.lists.is_empty());
    let lacks = |place: &CrlPlace| match place {
        CrlPlace::File(file) => has_none(&file.display().to_string()),
        CrlPlace::Url(url) => has_none(&url.url),
        CrlPlace::Directory(directory) => {
            let mut files =
                statuses.iter().filter(|status| Path::new(&status.name).parent() == Some(directory)).peekable();
            files.peek().is_none() || files.any(|file| file.lists.is_empty())
        }
    };
    configured.sources.iter().find(|source| lacks(&source.place)).map(CrlSource::name)
}

/// What there is to say of a list's end, if it is near or past.
fn near_end(list: &ListReport, threshold: u64, now: i64) -> Option<String> {
    let left = list.next_update.saturating_sub(now);
    if left < 0 {
        return Some(format!("the list of {} ran out {} ago; publish a new one", list.issuer_name, span(-left)));
    }
    // A list that is signed anew each hour is not worth a warning all day.
    let quarter = list.next_update.saturating_sub(list.this_update) / 4;
    let threshold = i64::try_from(threshold).unwrap_or(i64::MAX).min(quarter);
    (left < threshold)
        .then(|| format!("the list of {} runs out in {}; publish a new one", list.issuer_name, span(left)))
}

/// A number of seconds, in units that fit.
pub(crate) fn span(seconds: i64) -> String {
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        7_200.. => format!("{} h", seconds / 3_600),
        120.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}
