//! From the file model to [`Settings`]: references, ranges, addresses, absolute paths.
//!
//! Everything that is wrong is collected, so that one run of `check` shows it all. Certificates are not read here; who
//! builds TLS contexts does that.

mod address;
mod admin;
mod clients;
mod limits;
mod listener;
mod redirects;
mod revocation;
mod shared;
#[cfg(test)]
mod tests;
mod uploads;
mod upstream;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault::Fault;
use super::load::SecretFile;
use super::model::{self, Config};
use super::settings::{AccessLog, AuditLog, Log, LogTarget, Reload, Settings};
use super::units::{ByteSize, HumanDuration, Shown};

/// What became of a model.
pub struct Resolved {
    /// Only without errors.
    pub settings: Option<Settings>,
    pub errors: Vec<Fault>,
    pub warnings: Vec<Fault>,
}

/// Reads a secret from a file.
pub type SecretReader<'a> = &'a dyn Fn(&Path) -> Result<SecretFile, String>;

/// Resolves what the configuration `file` (an absolute path) says.
pub fn resolve(config: &Config, file: &Path, secrets: SecretReader<'_>) -> Resolved {
    let mut resolver = Resolver {
        directory: file.parent().unwrap_or(Path::new("/")),
        secrets,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let settings = resolver.settings(config, file);
    Resolved {
        settings: resolver.errors.is_empty().then_some(settings),
        errors: resolver.errors,
        warnings: resolver.warnings,
    }
}

/// Collects faults while values are made. A faulty value yields a stand-in, which nobody sees: with an error there are
/// no settings.
struct Resolver<'a> {
    directory: &'a Path,
    secrets: SecretReader<'a>,
    errors: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Resolver<'_> {
    fn settings(&mut self, config: &Config, file: &Path) -> Settings {
        let upstreams = self.upstreams(&config.upstreams);
        Settings {
            listeners: self.listeners(&config.listeners, &config.upstreams),
            upstreams,
            policy: self.path("policy", &config.policy),
            shadow_policy: self.optional_path("shadow_policy", config.shadow_policy.as_deref()),
            read_only: self.read_only(&config.read_only),
            revocation: self.revocation(config),
            client_names: self.client_names(&config.clients.identity),
            client_expiry_warning: self.time(
                "clients.expiry_warning",
                config.clients.expiry_warning,
                Range::up_to(YEAR),
            ),
            uploads: self.uploads(&config.uploads),
            limits: self.limits(&config.limits),
            shared_limits: self.shared_limits(&config.shared_limits),
            headers: self.headers(&config.headers),
            reload: self.reload(&config.reload),
            health: self.health(&config.health),
            admin: self.admin(&config.admin),
            access_log: self.access_log(&config.access_log),
            audit_log: self.audit_log(&config.audit_log),
            log: Log { level: config.log.level, format: config.log.format },
            threads: threads(config.threads),
            drain_grace: self.time("drain.grace", config.drain.grace, Range::up_to(DAY)),
            state_directory: self.optional_path("state_directory", config.state_directory.as_deref()),
            file: file.to_owned(),
            effective: serde_json::to_value(config).unwrap_or_default(),
        }
    }

    fn read_only(&mut self, model: &model::ReadOnly) -> Option<String> {
        let message = model.message.as_deref().unwrap_or("the registry is read-only at the moment");
        if message.trim().is_empty() || message.len() > MAX_MESSAGE || message.chars().any(char::is_control) {
            let message = format!("must be 1 to {MAX_MESSAGE} bytes of text on one line: clients show it to people");
            self.error("read_only.message", message);
        }
        model.enabled.then(|| message.to_owned())
    }

    fn reload(&mut self, model: &model::Reload) -> Reload {
        if model.quiet > model.max_delay {
            self.error("reload.max_delay", format!("this must be at least as long as quiet ({})", model.quiet));
        }
        Reload {
            watch: model.watch,
            quiet: self.time("reload.quiet", model.quiet, Range::up_to(MINUTE)),
            max_delay: self.time("reload.max_delay", model.max_delay, Range::up_to(10 * MINUTE)),
        }
    }

    fn access_log(&mut self, model: &model::AccessLog) -> Option<AccessLog> {
        let path = model.path.as_deref()?;
        let target = if path == Path::new("-") {
            LogTarget::Stdout
        } else {
            LogTarget::File(self.path("access_log.path", path))
        };
        Some(AccessLog { target, queue: count(model.queue) })
    }

    fn audit_log(&mut self, model: &model::AuditLog) -> Option<AuditLog> {
        let path = model.path.as_deref()?;
        Some(AuditLog {
            path: self.path("audit_log.path", path),
            on_failure: model.on_failure,
            sync: model.sync,
            refusals_per_minute: model.refusals_per_minute,
            queue: count(model.queue),
        })
    }

    /// An absolute path, for one that starts at the configuration's directory.
    fn path(&mut self, at: &str, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() {
            self.error(at, "an empty path; name a file");
        } else if path.to_string_lossy().contains('\0') {
            self.error(at, "a path can't hold a NUL character");
        }
        self.directory.join(path)
    }

    fn optional_path(&mut self, at: &str, path: Option<&Path>) -> Option<PathBuf> {
        path.map(|path| self.path(at, path))
    }

    /// A time span within `range`.
    fn time(&mut self, at: &str, value: HumanDuration, range: Range) -> Duration {
        if value.0 < range.min {
            self.error(at, format!("{value} is too short; at least {}", HumanDuration(range.min)));
        } else if value.0 > range.max {
            self.error(at, format!("{value} is too long; at most {}", HumanDuration(range.max)));
        }
        value.0
    }

    fn size(&mut self, at: &str, value: ByteSize, min: ByteSize, max: ByteSize) -> u64 {
        if value < min {
            self.error(at, format!("{value} is too small; at least {min}"));
        } else if value > max {
            self.error(at, format!("{value} is too large; at most {max}"));
        }
        value.0
    }

    /// Reports every one of `items` (a path and a value) whose value an earlier one has.
    fn unique(&mut self, items: impl IntoIterator<Item = (String, String)>, what: &str) {
        let mut seen: HashMap<String, String> = HashMap::new();
        for (at, value) in items {
            if let Some(first) = seen.get(&value) {
                self.error(at, format!("the {what} {} is already given at {first}", Shown(&value)));
            } else {
                seen.insert(value, at);
            }
        }
    }

    /// Reports a name that can't stand in a log line or a metric as it is.
    fn check_name(&mut self, at: &str, name: &str) {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 63 || !name.chars().all(fine) {
            let message = format!("{} is no name; use 1 to 63 of a-z, A-Z, 0-9, '-', '_' and '.'", Shown(name));
            self.error(at, message);
        }
    }

    fn error(&mut self, at: impl Into<String>, message: impl Into<String>) {
        self.errors.push(Fault::new(at, message));
    }

    fn warning(&mut self, at: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Fault::new(at, message));
    }
}

/// Longest text that clients are told, in bytes.
const MAX_MESSAGE: usize = 512;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The bounds of a time span, both included.
#[derive(Clone, Copy)]
struct Range {
    min: Duration,
    max: Duration,
}

impl Range {
    /// For deadlines: zero would end everything at once, and more than a day is as good as none.
    const WAIT: Self = Self { min: Duration::from_millis(10), max: DAY };

    const fn up_to(max: Duration) -> Self {
        Self { min: Duration::ZERO, max }
    }
}

/// The number of serving threads, where 0 asks for one per core.
fn threads(asked: u32) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        asked => count(asked),
    }
}

/// A number from the file as a size in memory. A `u32` fits wherever this runs.
fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
