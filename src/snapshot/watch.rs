//! Notices that files have changed.
//!
//! Directories are watched, not files: a file that is replaced by a rename, or by the switch of a symbolic link as
//! Kubernetes does it, is another inode.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::config::Reload;

/// Watches the inputs of a configuration and calls back when they have changed and come to rest.
pub struct Watcher {
    inner: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    inputs: Arc<ArcSwap<Vec<Input>>>,
}

/// A file or directory whose changes count.
struct Input {
    path: PathBuf,
    /// Where its links led when watching began. Their being turned elsewhere is an event of its own.
    target: Option<PathBuf>,
}

/// That something has changed; what, is read anew anyway.
struct Change;

impl Watcher {
    /// Starts a thread that calls `changed` once for every burst of changes, with the time of its first event.
    ///
    /// A burst ends when nothing happened for `quiet`, or `max_delay` after its first event.
    ///
    /// # Errors
    ///
    /// When the kernel gives no watch (the limit of inotify instances).
    pub fn start(
        inputs: &[PathBuf],
        timing: Reload,
        changed: impl Fn(Instant) + Send + 'static,
    ) -> notify::Result<Self> {
        let followed: Arc<ArcSwap<Vec<Input>>> = Arc::default();
        // One that waits says all that others could.
        let (changes, messages) = sync_channel(1);
        let inner = notify::recommended_watcher({
            let followed = followed.clone();
            move |event| {
                // Logs may be written beside the inputs, many times a second: the thread isn't woken for them.
                if concerns(&event, &followed.load()) {
                    // Full: see above. Without a receiver, the gateway is stopping.
                    let _ = changes.try_send(Change);
                }
            }
        })?;
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || run(&messages, timing, changed))
            .map_err(notify::Error::io)?;
        let mut watcher = Watcher { inner, watched: BTreeSet::new(), inputs: followed };
        watcher.follow(inputs);
        Ok(watcher)
    }

    /// Whether anything in the watched directories was replaced at `time` or later.
    pub fn changed_since(&self, time: SystemTime) -> bool {
        let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|metadata| metadata.modified());
        self.watched.iter().any(|directory| modified(directory).is_ok_and(|modified| modified >= time))
    }

    /// Watches these files and directories, and nothing else any more.
    pub fn follow(&mut self, inputs: &[PathBuf]) {
        let inputs: Vec<Input> = inputs.iter().map(Input::new).collect();
        let wanted: BTreeSet<PathBuf> = inputs.iter().flat_map(directories).collect();
        // Before the first event of a new directory can come.
        self.inputs.store(Arc::new(inputs));
        for gone in self.watched.difference(&wanted) {
            // It may have been removed together with its watch.
            let _ = self.inner.unwatch(gone);
        }
        for new in wanted.difference(&self.watched) {
            if let Err(e) = self.inner.watch(new, RecursiveMode::NonRecursive) {
                log::warn!("{} can't be watched: {e}; changes in it need SIGHUP or POST /-/reload", new.display());
            }
        }
        self.watched = wanted;
    }
}

impl Input {
    fn new(path: &PathBuf) -> Self {
        Input { path: path.clone(), target: path.canonicalize().ok() }
    }
}

/// Where changes of `input` show: its own directory, itself if it is one, and the directory it is a link into.
fn directories(input: &Input) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    directories.extend(input.path.parent().map(Path::to_path_buf));
    if let Some(target) = &input.target {
        directories.extend(target.parent().map(Path::to_path_buf));
        if std::fs::metadata(target).is_ok_and(|metadata| metadata.is_dir()) {
            // Not by a link that leads to it: that may lead elsewhere tomorrow, and what is watched is an inode.
            directories.push(target.clone());
        }
    }
    directories
}

fn run(messages: &Receiver<Change>, timing: Reload, changed: impl Fn(Instant)) {
    // The burst under way: when it began, and when it last went on.
    let mut burst: Option<(Instant, Instant)> = None;
    loop {
        let message = match burst {
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((first, last)) => {
                let until = (last + timing.quiet).min(first + timing.max_delay);
                messages.recv_timeout(until.saturating_duration_since(Instant::now()))
            }
        };
        match message {
            Ok(Change) => {
                let now = Instant::now();
                burst = Some((burst.map_or(now, |(first, _)| first), now));
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                if let Some((first, _)) = burst.take() {
                    changed(first);
                }
            }
        }
        if let Some((first, _)) = burst
            && first.elapsed() >= timing.max_delay + Duration::from_millis(1)
        {
            burst = None;
            changed(first);
        }
    }
}

/// Whether an event may mean that an input has another content now.
fn concerns(event: &notify::Result<Event>, inputs: &[Input]) -> bool {
    let Ok(event) = event else {
        // Events were lost: better one reload too many.
        return true;
    };
    let writes = match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    };
    writes && (event.need_rescan() || event.paths.iter().any(|path| is_input(path, inputs)))
}

fn is_input(path: &Path, inputs: &[Input]) -> bool {
    let hidden = path.file_name().is_some_and(|name| {
        let name = name.as_encoded_bytes();
        name.starts_with(b".") && !name.starts_with(b"..")
    });
    inputs.iter().any(|input| {
        let holds = |directory: &Path| !hidden && path.parent() == Some(directory);
        let is_target = |target: &Path| target == path || holds(target);
        // The file itself, a file of a watched directory (not what an editor hides there), or the target of a link.
        path == input.path
            || holds(&input.path)
            || match &input.target {
                Some(target) => is_target(target),
                // It led nowhere: perhaps to what is being made now.
                None => input.path.canonicalize().is_ok_and(|target| is_target(&target)),
            }
            // Kubernetes switches `..data` beside the file.
            || (path.parent() == input.path.parent()
                && path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"..")))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::SyncSender;

    use super::*;

    fn timing() -> Reload {
        Reload { watch: true, quiet: Duration::from_millis(10), max_delay: Duration::from_millis(60) }
    }

    fn bursts(send: impl FnOnce(&SyncSender<Change>)) -> usize {
        let (changes, messages) = sync_channel(8);
        let (fired, count) = sync_channel(8);
        let thread = std::thread::spawn(move || run(&messages, timing(), move |_| fired.send(()).expect("counted")));
        send(&changes);
        std::thread::sleep(Duration::from_millis(100));
        drop(changes);
        thread.join().expect("no panic");
        count.iter().count()
    }

    fn is_noticed(inputs: &[&Path], changed: &Path) -> bool {
        let inputs: Vec<Input> = inputs.iter().map(|path| Input::new(&path.to_path_buf())).collect();
        concerns(&Ok(Event::new(EventKind::Any).add_path(changed.to_path_buf())), &inputs)
    }

    #[test]
    fn a_burst_of_events_is_one_reload() {
        let count = bursts(|changes| {
            for _ in 0..5 {
                changes.send(Change).expect("listening");
            }
        });
        assert_eq!(count, 1);
    }

    #[test]
    fn the_switch_of_a_secret_counts_and_a_stranger_does_not() {
        let policy = Path::new("/etc/p/policy.yaml");
        assert!(is_noticed(&[policy], policy));
        assert!(is_noticed(&[policy], Path::new("/etc/p/..data")));
        assert!(!is_noticed(&[policy], Path::new("/etc/p/access.log")));
    }

    #[test]
    fn what_a_link_leads_to_counts_also_when_it_comes_later() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path().canonicalize().expect("its own path");
        let [link, target, log] = ["policy.yaml", "policy-2.yaml", "access.log"].map(|name| directory.join(name));
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        let inputs = [Input::new(&link)];
        let event = |path: &Path| Ok(Event::new(EventKind::Any).add_path(path.to_path_buf()));
        assert!(!concerns(&event(&target), &inputs), "there is nothing to read yet");
        std::fs::write(&target, "rules: []").expect("a file");
        assert!(concerns(&event(&target), &inputs));
        assert!(is_noticed(&[&link], &target));
        assert!(!is_noticed(&[&link], &log));
    }

    #[test]
    fn a_file_that_never_rests_is_read_all_the_same() {
        let count = bursts(|changes| {
            for _ in 0..30 {
                changes.send(Change).expect("listening");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        assert!(count >= 2, "{count}");
    }
}
