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
    /// Its path, and every link on the way to what it leads to: among the directories above it, itself, what it leads to, and
    /// so on. Of what isn't there yet, the first directory that is missing. Looked up when watching began: any of these
    /// being turned elsewhere, made or removed is an event. Without links above each: what is watched is an inode, which has
    /// one name for all who watch it.
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
        // Those that were watched before, too: a directory that was replaced is another one, and has no watch.
        for directory in &wanted {
            if let Err(e) = self.inner.watch(directory, RecursiveMode::NonRecursive) {
                let directory = directory.display();
                log::warn!("{directory} can't be watched: {e}; changes in it need SIGHUP or POST /-/reload");
            }
        }
        self.watched = wanted;
    }
}

/// Links in a row, as many as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

impl Input {
    fn new(path: &Path) -> Self {
        let (mut links, mut places) = (MOST_LINKS, Vec::new());
        trace(path, Way::Itself, &mut links, &mut places);
        Input { places }
    }

    /// Where changes of it show: the directories of all its places, and itself if it is one.
    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let parents = self.places.iter().filter_map(|place| place.parent()).map(Path::to_path_buf);
        let itself = self.places.last().filter(|last| is_directory(last));
        parents.chain(itself.cloned())
    }

    /// Whether what happened to `path` may mean that this has another content now.
    fn concerns(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        // Kubernetes switches `..data` beside the file.
        let switched = name.starts_with(b"..");
        // What an editor hides in a watched directory isn't read from there.
        let hidden = name.starts_with(b".") && !switched;
        let directory = path.parent();
        self.places.iter().any(|place| {
            // The directory that it is in may be what was made or removed.
            let around = place.parent();
            place == path
                || around == Some(path)
                || (!hidden && directory == Some(place))
                || (switched && directory == around)
        })
    }
}

/// What a path is to an input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The input's own.
    Itself,
    /// A directory above it, of which the links count and not what else is in it.
    Above,
}

/// Finds the places on the way to what `path` leads to, over as many more `links`.
fn trace(path: &Path, way: Way, links: &mut usize, places: &mut Vec<PathBuf>) {
    let mut next = Some(path.to_path_buf());
    while let Some(path) = next.take() {
        for above in path.ancestors().skip(1).filter(|above| above.is_symlink()) {
            if let Some(left) = links.checked_sub(1) {
                *links = left;
                trace(above, Way::Above, links, places);
            }
        }
        let Some(place) = path.ancestors().find_map(without_links_above) else { return };
        if places.contains(&place) {
            return;
        }
        let target = std::fs::read_link(&place).ok();
        let is_end = target.is_none() && is_directory(&place);
        if let (Some(target), Some(left)) = (target, links.checked_sub(1)) {
            *links = left;
            next = place.parent().map(|parent| parent.join(target));
        }
        if !(is_end && way == Way::Above) {
            places.push(place);
        }
    }
}

fn is_directory(path: &Path) -> bool {
    // What can't be looked at can't be watched either, and says so there.
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
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

    /// A directory of its own, by its own name.
    fn root() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("its own path");
        (directory, root)
    }

    fn make(root: &Path, directories: &[&str], links: &[(&str, &str)]) {
        for name in directories {
            std::fs::create_dir(root.join(name)).expect("a directory");
        }
        for (link, target) in links {
            std::os::unix::fs::symlink(target, root.join(link)).expect("a link");
        }
    }

    fn assert_noticed(root: &Path, input: &str, noticed: &[&str], not: &[&str]) {
        let inputs = [Input::new(&root.join(input))];
        for (names, counts) in [(noticed, true), (not, false)] {
            for name in names {
                assert_eq!(is_noticed(&inputs, &root.join(name)), counts, "{name}: {:?}", inputs[0].places);
            }
        }
        let watched: BTreeSet<PathBuf> = inputs.iter().flat_map(Input::directories).collect();
        for name in noticed {
            let place = root.join(name);
            assert!(place.parent().is_some_and(|parent| watched.contains(parent)), "{name} in {watched:?}");
        }
    }

    #[test]
    fn the_switch_of_a_secret_counts_and_a_stranger_does_not() {
        let (_directory, root) = root();
        let noticed = ["policy.yaml", "..data"];
        assert_noticed(&root, "policy.yaml", &noticed, &["access.log", ".policy.yaml.swp", "policy.yaml/x/y"]);
    }

    #[test]
    fn every_link_on_the_way_to_a_file_counts() {
        let (_directory, root) = root();
        let links = [("etc/tls.crt", "../live/tls.crt"), ("live/tls.crt", "../archive/tls2.crt")];
        make(&root, &["etc", "live", "archive"], &links);
        // The last leads to what is yet to come.
        let noticed = ["etc/tls.crt", "live/tls.crt", "archive/tls2.crt"];
        assert_noticed(&root, "etc/tls.crt", &noticed, &["archive/tls1.crt", "live/tls.key"]);
    }

    #[test]
    fn a_link_among_the_directories_counts_and_what_else_is_behind_it_does_not() {
        let (_directory, root) = root();
        make(&root, &["rel1", "rel2"], &[("stable", "rel1"), ("current", "stable")]);
        let noticed = ["current", "stable", "rel1/policy.yaml"];
        assert_noticed(&root, "current/policy.yaml", &noticed, &["rel2/policy.yaml", "rel1/access.log"]);
    }

    #[test]
    fn what_is_missing_counts_when_it_is_made() {
        let (_directory, root) = root();
        make(&root, &[], &[("dangling", "nowhere")]);
        assert_noticed(&root, "lists/new/ca.crl", &["lists"], &["other"]);
        assert_noticed(&root, "dangling/ca.crl", &["dangling", "nowhere"], &["other"]);
    }

    #[test]
    fn a_directory_counts_with_what_is_in_it_by_whatever_name_it_is_reached() {
        let (_directory, root) = root();
        make(&root, &["one"], &[("groups.d", "one"), ("round", "round")]);
        assert_noticed(&root, "groups.d", &["groups.d", "one", "one/a.yaml"], &["one/.a.yaml.swp", "two/a.yaml"]);
        assert_noticed(&root, "one/../groups.d", &["groups.d", "one/a.yaml"], &[]);
        // Links in a circle lead nowhere, and end.
        assert_noticed(&root, "round", &["round"], &[]);
        assert_noticed(&root, "round/x", &["round"], &[]);
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
