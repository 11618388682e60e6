//! Processes under measurement: started on cores of their own, read through `/proc`, and ended with all their children.

use super::Outcome;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What the kernel counts CPU time in for user space, on every architecture of Linux: hundredths of a second.
pub const TICKS_A_SECOND: f64 = 100.0;

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process and its children; dropping it ends them.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` in `directory`, its output in a file there, on `cores` (`0` or `0,1`) if they are named.
    ///
    /// The kernel ends it when the harness dies.
    ///
    /// # Errors
    /// When it can't be started, which needs `setpriv` and `taskset` of util-linux.
    pub fn start(
        command: &[String],
        directory: &Path,
        cores: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Outcome<Self> {
        let output = File::create(directory.join("output.log"))?;
        let mut whole = vec!["--pdeathsig", "KILL", "--"];
        if let Some(cores) = cores {
            whole.extend(["taskset", "-c", cores]);
        }
        whole.extend(command.iter().map(String::as_str));
        let child = Command::new("setpriv")
            .args(whole)
            .envs(environment.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|e| format!("cannot start {command:?}: {e}"))?;
        Ok(Self { child })
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// CPU seconds of the process and its children so far, in steps of 10 ms each.
    pub fn cpu_seconds(&self) -> f64 {
        let of = |pid: &u32| Some(Stat::of(&format!("/proc/{pid}/stat"))?.seconds(true));
        self.tree().iter().filter_map(of).sum()
    }

    /// CPU seconds so far of each thread of the process itself, by name.
    pub fn threads(&self) -> Vec<(String, f64)> {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return Vec::new() };
        let of = |task: fs::DirEntry| {
            let stat = Stat::of(&task.path().join("stat").to_string_lossy())?;
            Some((stat.name.clone(), stat.seconds(false)))
        };
        tasks.flatten().filter_map(of).collect()
    }

    /// Resident memory of the process and its children, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let of = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("Rss:"))?.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.tree().iter().filter_map(of).sum()
    }

    fn tree(&self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(stat) = Stat::of(&format!("/proc/{pid}/stat")) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        let mut tree = vec![self.child.id()];
        let mut at = 0;
        while let Some(pid) = tree.get(at) {
            let more = children.remove(pid).unwrap_or_default();
            tree.extend(more);
            at += 1;
        }
        tree
    }
}

impl Drop for Process {
    /// A process that counts what it does, for a profile, writes its counts when it ends by itself.
    fn drop(&mut self) {
        let kill = |signal: &str, processes: &[u32]| {
            let processes = processes.iter().map(ToString::to_string);
            let _ = Command::new("kill").arg(signal).args(processes).stderr(Stdio::null()).status();
        };
        let tree = self.tree();
        if self.is_running() {
            kill("-TERM", &[self.child.id()]);
        }
        let end = Instant::now() + PATIENCE;
        while self.is_running() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        if self.is_running() {
            kill("-KILL", &tree);
        }
        let _ = self.child.wait();
    }
}

/// Moves this process to `cores`; threads started later go with it.
///
/// # Errors
/// When `taskset` is missing, or the machine has no such core.
pub fn move_to(cores: &str) -> Outcome<()> {
    let output = Command::new("taskset").args(["-cp", cores, &std::process::id().to_string()]).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "cannot use the cores {cores} (--unpinned does without): {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )
    .into())
}

/// Lets this process, and what it starts, have as many files open as the system permits.
///
/// # Errors
/// When the kernel refuses.
pub fn raise_limits() -> Outcome<()> {
    let limits = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum })?)
}

/// The first of `names` on PATH or where Debian keeps servers; a variable of the environment goes before them.
pub fn find(variable: &str, names: &[&str]) -> Option<String> {
    if let Some(path) = std::env::var_os(variable) {
        return path.into_string().ok();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = || path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    let is_there = |file: &String| fs::metadata(file).is_ok_and(|metadata| metadata.is_file());
    names.iter().find_map(|name| folders().map(|folder| format!("{folder}/{name}")).find(is_there))
}

/// The fields of a `stat` file that matter here.
struct Stat {
    name: String,
    parent: u32,
    own: u64,
    /// Of children that have been waited for.
    reaped: u64,
}

impl Stat {
    fn of(file: &str) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        // The name may hold anything, brackets too.
        let (before, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            name: before.split_once('(')?.1.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            own: number(11)? + number(12)?,
            reaped: number(13)? + number(14)?,
        })
    }

    fn seconds(&self, with_reaped: bool) -> f64 {
        (self.own + if with_reaped { self.reaped } else { 0 }) as f64 / TICKS_A_SECOND
    }
}
