//! Limits: how much which clients may ask for, compiled. Who counts, and remembers, is somebody else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Fault;
use crate::config::policy::{LimitFile, PerFile, RateFile};

use super::compile::compile_subjects;
use super::rule::{Policy, Subjects};
use super::standing::Standing;
use super::suggest::did_you_mean;

/// Longest name of a limit, in bytes: it is a label of metrics.
const MAX_NAME: usize = 63;
/// Shortest and longest windows.
const WINDOWS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(31 * 24 * 3600);
/// Most of anything in a second. What counts does so in steps of a nanosecond, and more would be too coarse.
const FASTEST: u64 = 1_000_000;

/// So many in a time; neither is zero, and the time is in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many.
    pub amount: u64,
    /// In which time.
    pub window: Duration,
}

/// One limit: whom it is about, and what it bounds. At least one bound is set.
#[derive(Debug)]
pub struct Limit {
    pub(super) name: Arc<str>,
    pub(super) subjects: Subjects,
    pub(super) except: Box<[usize]>,
    pub(super) per: PerFile,
    /// Requests.
    pub requests: Option<Quota>,
    /// Manifests asked for by GET.
    pub manifest_pulls: Option<Quota>,
    /// Bytes of bodies, in both directions.
    pub bytes: Option<Quota>,
    /// Uploads at a time.
    pub concurrent_uploads: Option<u64>,
}

impl Limit {
    /// Its name, unique within the policy.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whose it is.
    #[must_use]
    pub fn per(&self) -> PerFile {
        self.per
    }
}

/// Who is counted under a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted<'p> {
    /// The client for itself.
    Client,
    /// The client as one of a group.
    Group(&'p Arc<str>),
    /// The client as one of all.
    Everybody,
}

/// A limit that applies to a client: its position in the policy, and the group as one of which the client counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Applied {
    limit: usize,
    group: Option<usize>,
}

impl Policy {
    /// The limits, in the order of the file.
    #[must_use]
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// What applies to a client with this standing: positions in [`Policy::limits`], and who is counted. A limit of
    /// groups applies once for each group that the client is in. Allocates nothing.
    pub fn limits_of<'a>(&'a self, standing: &'a Standing) -> impl Iterator<Item = (usize, Counted<'a>)> {
        let known = if self.knows(standing) { standing.limits() } else { &[] };
        known.iter().filter_map(|applied| {
            let counted = match (self.limits.get(applied.limit)?.per, applied.group) {
                (PerFile::Identity, _) => Counted::Client,
                (PerFile::Group, None) => Counted::Everybody,
                (PerFile::Group, Some(group)) => Counted::Group(&self.groups.get(group)?.name),
            };
            Some((applied.limit, counted))
        })
    }

    /// What applies to a client of these groups: those that it may be in, and those that it is in beyond doubt.
    pub(super) fn applied(
        &self,
        maybe_in: impl Fn(usize) -> bool,
        surely_in: impl Fn(usize) -> bool,
    ) -> Box<[Applied]> {
        let mut applied = Vec::new();
        for (position, limit) in self.limits.iter().enumerate() {
            if limit.except.iter().any(|group| surely_in(*group)) {
                continue;
            }
            let mut apply = |group| applied.push(Applied { limit: position, group });
            match (&limit.subjects, limit.per) {
                (Subjects::Any, _) => apply(None),
                (Subjects::Groups(groups), PerFile::Identity) => {
                    if groups.iter().any(|group| maybe_in(*group)) {
                        apply(None);
                    }
                }
                (Subjects::Groups(groups), PerFile::Group) => {
                    groups.iter().filter(|group| maybe_in(**group)).for_each(|group| apply(Some(*group)));
                }
            }
        }
        applied.into()
    }
}

/// Checks and compiles the limits of a policy.
pub(super) fn compile(files: &[LimitFile], groups: &BTreeMap<&str, usize>, faults: &mut Vec<Fault>) -> Vec<Limit> {
    check_names(files, faults);
    let limits = files.iter().enumerate();
    limits.map(|(i, file)| compile_one(file, &format!("limits[{i}]"), groups, faults)).collect()
}

fn check_names(files: &[LimitFile], faults: &mut Vec<Fault>) {
    let mut seen = HashMap::new();
    for (position, LimitFile { name, .. }) in files.iter().enumerate() {
        let path = format!("limits[{position}].name");
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
            faults.push(Fault::new(path, format!("must be 1 to {MAX_NAME} letters, digits, '_', '-' or '.'")));
        } else if let Some(first) = seen.insert(name.as_str(), position) {
            let message = format!("\"{name}\" is also the name of limits[{first}]: names must be unique");
            faults.push(Fault::new(path, message));
        }
    }
}

fn compile_one(file: &LimitFile, path: &str, groups: &BTreeMap<&str, usize>, faults: &mut Vec<Fault>) -> Limit {
    let LimitFile { requests, manifest_pulls, bytes, concurrent_uploads, .. } = file;
    if requests.is_none() && manifest_pulls.is_none() && bytes.is_none() && concurrent_uploads.is_none() {
        let message = "limits nothing: give at least one of requests, manifest_pulls, bytes and concurrent_uploads";
        faults.push(Fault::new(path, message));
    }
    if *concurrent_uploads == Some(0) {
        faults.push(Fault::new(
            format!("{path}.concurrent_uploads"),
            "0 would refuse every upload: that is a policy's rule",
        ));
    }
    let mut rate = |key: &str, rate: &Option<RateFile>| {
        let rate = (*rate)?;
        Some(quota(&format!("{path}.{key}"), "count", rate.count, rate.window.0, faults))
    };
    let requests = rate("requests", requests);
    let manifest_pulls = rate("manifest_pulls", manifest_pulls);
    let bytes = bytes.map(|volume| {
        let at = format!("{path}.bytes");
        quota(&at, "size", volume.size.0, volume.window.0, faults)
    });
    Limit {
        name: file.name.as_str().into(),
        subjects: compile_subjects(&file.subjects, &format!("{path}.subjects"), groups, faults),
        except: compile_exceptions(&file.except, &format!("{path}.except"), groups, faults),
        per: file.per,
        requests,
        manifest_pulls,
        bytes,
        concurrent_uploads: concurrent_uploads.map(u64::from),
    }
}

fn quota(path: &str, key: &str, amount: u64, window: Duration, faults: &mut Vec<Fault>) -> Quota {
    if !WINDOWS.contains(&window) || window.subsec_nanos() != 0 {
        faults.push(Fault::new(format!("{path}.window"), "must be whole seconds, from 1s to 31 days"));
    }
    if amount == 0 {
        faults.push(Fault::new(format!("{path}.{key}"), "0 would refuse everything: that is a policy's rule"));
    } else if key == "count" && amount / FASTEST > window.as_secs() {
        faults
            .push(Fault::new(format!("{path}.{key}"), format!("more than {FASTEST} a second is as good as no limit")));
    }
    Quota { amount, window }
}

fn compile_exceptions(
    names: &[String],
    path: &str,
    groups: &BTreeMap<&str, usize>,
    faults: &mut Vec<Fault>,
) -> Box<[usize]> {
    let mut positions = Vec::new();
    for (i, name) in names.iter().enumerate() {
        match groups.get(name.as_str()) {
            Some(position) => positions.push(*position),
            None => {
                let hint = did_you_mean(name, groups.keys().copied());
                faults.push(Fault::new(format!("{path}[{i}]"), format!("unknown group \"{name}\"{hint}")));
            }
        }
    }
    positions.into()
}
