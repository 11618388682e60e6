//! Notices that files have changed.
//!
//! Directories are watched, not files: a file that is replaced by a rename, or by the switch of a symbolic link as
//! Kubernetes does it, is another inode.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::config::Reload;

/// Watches the inputs of a configuration and calls back when they have changed and come to rest.
pub struct Watcher {
    inner: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    commands: SyncSender<Message>,
}

/// Events that may wait for the thread; the kernel's own queue holds the rest.
const QUEUE: usize = 256;

enum Message {
    Event(notify::Result<Event>),
    Inputs(Vec<PathBuf>),
}

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
        let (commands, messages) = sync_channel(QUEUE);
        let events = commands.clone();
        let inner = notify::recommended_watcher(move |event| {
            // The receiver is gone only when the gateway stops.
            let _ = events.send(Message::Event(event));
        })?;
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || run(&messages, timing, changed))
            .map_err(notify::Error::io)?;
        let mut watcher = Watcher { inner, watched: BTreeSet::new(), commands };
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
        let wanted: BTreeSet<PathBuf> = inputs.iter().flat_map(|input| directories(input)).collect();
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
        let _ = self.commands.send(Message::Inputs(inputs.to_vec()));
    }
}

/// Where changes of `input` show: its own directory, itself if it is one, and the directory it is a link into.
fn directories(input: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    directories.extend(input.parent().map(Path::to_path_buf));
    if let Ok(target) = input.canonicalize() {
        directories.extend(target.parent().map(Path::to_path_buf));
        if std::fs::metadata(&target).is_ok_and(|metadata| metadata.is_dir()) {
            // Not by a link that leads to it: that may lead elsewhere tomorrow, and what is watched is an inode.
            directories.push(target);
        }
    }
    directories
}

fn run(messages: &Receiver<Message>, timing: Reload, changed: impl Fn(Instant)) {
    let mut inputs: Vec<PathBuf> = Vec::new();
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
            Ok(Message::Inputs(new)) => inputs = new,
            Ok(Message::Event(event)) => {
                if concerns(&event, &inputs) {
                    let now = Instant::now();
                    burst = Some((burst.map_or(now, |(first, _)| first), now));
                }
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
fn concerns(event: &notify::Result<Event>, inputs: &[PathBuf]) -> bool {
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

fn is_input(path: &Path, inputs: &[PathBuf]) -> bool {
    let hidden = path.file_name().is_some_and(|name| {
        let name = name.as_encoded_bytes();
        name.starts_with(b".") && !name.starts_with(b"..")
    });
    inputs.iter().any(|input| {
        let holds = |directory: &Path| !hidden && path.parent() == Some(directory);
        // The file itself, a file of a watched directory (not what an editor hides there), or the target of a link.
        path == input
            || holds(input)
            || input.canonicalize().is_ok_and(|target| target == path || holds(&target))
            // Kubernetes switches `..data` beside the file.
            || (path.parent() == input.parent()
                && path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"..")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> Reload {
        Reload { watch: true, quiet: Duration::from_millis(10), max_delay: Duration::from_millis(60) }
    }

    fn event(path: &str) -> Message {
        Message::Event(Ok(Event::new(EventKind::Any).add_path(PathBuf::from(path))))
    }

    fn bursts(send: impl FnOnce(&SyncSender<Message>)) -> usize {
        let (commands, messages) = sync_channel(QUEUE);
        let (fired, count) = sync_channel(QUEUE);
        let thread = std::thread::spawn(move || run(&messages, timing(), move |_| fired.send(()).expect("counted")));
        commands.send(Message::Inputs(vec![PathBuf::from("/etc/p/policy.yaml")])).expect("listening");
        send(&commands);
        std::thread::sleep(Duration::from_millis(100));
        drop(commands);
        thread.join().expect("no panic");
        count.iter().count()
    }

    #[test]
    fn a_burst_of_events_is_one_reload() {
        let count = bursts(|commands| {
            for _ in 0..5 {
                commands.send(event("/etc/p/policy.yaml")).expect("listening");
            }
        });
        assert_eq!(count, 1);
    }

    #[test]
    fn the_switch_of_a_secret_counts_and_a_stranger_does_not() {
        assert_eq!(bursts(|commands| commands.send(event("/etc/p/..data")).expect("listening")), 1);
        assert_eq!(bursts(|commands| commands.send(event("/etc/p/access.log")).expect("listening")), 0);
    }

    #[test]
    fn a_file_that_never_rests_is_read_all_the_same() {
        let count = bursts(|commands| {
            for _ in 0..30 {
                commands.send(event("/etc/p/policy.yaml")).expect("listening");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        assert!(count >= 2, "{count}");
    }
}
