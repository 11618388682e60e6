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
    /// Its path as it was configured, without links on the way to its directory, then what it leads to if it is a link, and
    /// so on. Looked up when watching began: where a link is turned elsewhere is an event of its own.
    places: Vec<PathBuf>,
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
        let inputs: Vec<Input> = inputs.iter().map(|input| Input::new(input)).collect();
        let wanted: BTreeSet<PathBuf> = inputs.iter().flat_map(Input::directories).collect();
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

/// Links in a row, as many as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

impl Input {
    fn new(path: &Path) -> Self {
        let mut places = vec![path.to_path_buf()];
        let mut next = Some(path.to_path_buf());
        while let Some(place) = next.take().and_then(|path| without_links_above(&path)) {
            if places.len() <= MOST_LINKS {
                next = std::fs::read_link(&place).ok().and_then(|target| Some(place.parent()?.join(target)));
            }
            places.push(place);
        }
        places.dedup();
        Input { places }
    }

    /// Where changes of it show: the directories of all its places, and itself if it is one.
    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let parents = self.places.iter().filter_map(|place| place.parent()).map(Path::to_path_buf);
        // Not by a link that leads to it: that may lead elsewhere tomorrow, and what is watched is an inode.
        let itself = self.places.last().filter(|last| std::fs::metadata(last).is_ok_and(|metadata| metadata.is_dir()));
        parents.chain(itself.cloned())
    }

    /// Whether what happened to `path` may mean that this has another content now.
    fn concerns(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        // Kubernetes switches `..data` beside the file.
        let switched = name.starts_with(b"..");
        // What an editor hides in a watched directory isn't read from there.
        let hidden = name.starts_with(b".") && !switched;
        let parent = path.parent();
        self.places
            .iter()
            .any(|place| place == path || (!hidden && parent == Some(place)) || (switched && parent == place.parent()))
    }
}

/// The path with its directory resolved, but not itself. `None` if there is no such directory.
fn without_links_above(path: &Path) -> Option<PathBuf> {
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
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
    let concerned = |path: &PathBuf| inputs.iter().any(|input| input.concerns(path));
    writes && (event.need_rescan() || event.paths.iter().any(concerned))
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

    fn is_noticed(inputs: &[Input], changed: &Path) -> bool {
        concerns(&Ok(Event::new(EventKind::Any).add_path(changed.to_path_buf())), inputs)
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
        let inputs = [Input::new(Path::new("/etc/p/policy.yaml"))];
        for (name, counts) in
            [("policy.yaml", true), ("..data", true), ("access.log", false), (".policy.yaml.swp", false)]
        {
            assert_eq!(is_noticed(&inputs, &Path::new("/etc/p").join(name)), counts, "{name}");
        }
    }

    #[test]
    fn every_link_on_the_way_to_a_file_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("its own path");
        for name in ["etc", "live", "archive"] {
            std::fs::create_dir(root.join(name)).expect("a directory");
        }
        let [link, live, target] = ["etc/tls.crt", "live/tls.crt", "archive/tls2.crt"].map(|name| root.join(name));
        std::os::unix::fs::symlink("../live/tls.crt", &link).expect("a link");
        std::os::unix::fs::symlink(&target, &live).expect("a link");
        // The last leads to what is yet to come.
        let inputs = [Input::new(&link)];
        let watched: BTreeSet<PathBuf> = inputs.iter().flat_map(Input::directories).collect();
        assert!(watched.into_iter().eq(["archive", "etc", "live"].map(|name| root.join(name))));
        for (place, counts) in [(link, true), (live, true), (target, true), (root.join("archive/tls1.crt"), false)] {
            assert_eq!(is_noticed(&inputs, &place), counts, "{}", place.display());
        }
    }

    #[test]
    fn a_directory_counts_with_what_is_in_it_by_whatever_name_it_is_reached() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("its own path");
        std::fs::create_dir(root.join("one")).expect("a directory");
        std::os::unix::fs::symlink("one", root.join("groups.d")).expect("a link");
        let inputs = [Input::new(&root.join("groups.d"))];
        for (name, counts) in
            [("groups.d", true), ("one/a.yaml", true), ("one/.a.yaml.swp", false), ("two/a.yaml", false)]
        {
            assert_eq!(is_noticed(&inputs, &root.join(name)), counts, "{name}");
        }
        // Links in a circle lead nowhere, and end.
        std::os::unix::fs::symlink("round", root.join("round")).expect("a link");
        assert!(is_noticed(&[Input::new(&root.join("round"))], &root.join("round")));
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
