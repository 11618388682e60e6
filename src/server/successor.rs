//! Starting the process that takes over.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::handover::{Channel, Estate, Taken, VARIABLE};
use super::sockets::Copies;

/// How long a successor may take to read its files and be ready. Large revocation lists take seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one that is ready may take to say that it serves.
const TAKING_OVER: Duration = Duration::from_secs(5);

/// How long a successor that says it can't may take to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the service manager or a shell started, to be started again.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Origin {
    /// To be asked at the start: later, the file may have been replaced, and the kernel calls the old one deleted.
    ///
    /// # Errors
    ///
    /// When the system doesn't say.
    pub(super) fn of_this_process() -> Result<Self, String> {
        let executable = std::env::current_exe().map_err(|e| format!("which program this is can't be told: {e}"))?;
        let mut arguments = std::env::args_os();
        let called = arguments.next().map(PathBuf::from).filter(|called| called.components().count() > 1);
        // By the name it was called by, so that a link is followed anew; that name is the caller's to choose, though.
        let called = called.and_then(|called| std::path::absolute(called).ok());
        let same = |called: &PathBuf| called.canonicalize().is_ok_and(|called| called == executable);
        Ok(Origin { program: called.filter(same).unwrap_or(executable), arguments: arguments.collect() })
    }
}

/// A successor to be started.
pub(super) struct Start {
    channel: Channel,
    theirs: OwnedFd,
    unwanted: Arc<AtomicBool>,
}

/// Breaks off the start of a successor from another thread.
pub(super) struct Brake {
    channel: Channel,
    unwanted: Arc<AtomicBool>,
}

impl Brake {
    /// A successor that doesn't serve by now never will, and is ended soon.
    pub(super) fn pull(&self) {
        self.unwanted.store(true, Ordering::Relaxed);
        self.channel.break_off();
    }
}

/// A process that serves in this one's place.
pub(super) struct Successor {
    process: Process,
    /// What it has a use for.
    pub(super) taken: Taken,
}

/// One that may come to serve.
struct Process {
    child: Child,
    channel: Channel,
    unwanted: Arc<AtomicBool>,
}

impl Start {
    pub(super) fn new() -> Result<(Self, Brake), String> {
        let unusable = |e: std::io::Error| format!("no connection to a successor: {e}");
        let (channel, theirs) = Channel::pair().map_err(unusable)?;
        let unwanted = Arc::<AtomicBool>::default();
        let brake = Brake { channel: channel.second().map_err(unusable)?, unwanted: unwanted.clone() };
        Ok((Start { channel, theirs, unwanted }, brake))
    }

    /// Starts `origin` again, passes everything on, and waits until it serves. Blocking.
    ///
    /// # Errors
    ///
    /// Why there is no successor. What was started is gone then, and has not accepted anything.
    pub(super) fn run(self, origin: &Origin, estate: &Estate<Arc<Copies>>) -> Result<Successor, String> {
        let Start { channel, theirs, unwanted } = self;
        let mut command = Command::new(&origin.program);
        command.args(&origin.arguments).stdin(Stdio::from(theirs)).env(VARIABLE, std::process::id().to_string());
        // They name this process.
        for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        let program = origin.program.display();
        let child = command.spawn().map_err(|e| format!("{program} can't be started: {e}"))?;
        // It holds the other end, which is to end with the successor.
        drop(command);
        log::info!("process {} is to take over ({program})", child.id());
        let mut process = Process { child, channel, unwanted };
        let outcome = process.channel.bequeath(estate).map_err(|e| match e.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => None,
            _ => Some(format!("it takes nothing: {e}")),
        });
        let outcome = outcome.and_then(|()| process.channel.await_ready(PATIENCE));
        match outcome.and_then(|()| process.channel.let_serve(TAKING_OVER)) {
            Ok(taken) => Ok(Successor { process, taken }),
            Err(why) => Err(process.end(why)),
        }
    }
}

impl Successor {
    pub(super) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Lets it speak to the service manager.
    pub(super) fn set_free(&self) {
        self.process.channel.leave();
    }

    /// Why it doesn't serve any more, if it doesn't.
    pub(super) fn has_ended(&mut self) -> Option<String> {
        let status = self.process.child.try_wait().ok().flatten()?;
        Some(format!("process {} ended ({status}) as soon as it served; see the log for what it said", self.pid()))
    }
}

impl Process {
    /// Ends it, which hasn't accepted anything, and says why it is no successor.
    fn end(&mut self, why: Option<String>) -> String {
        // It may still be about to say that it is ready; it learns that nobody listens then.
        self.channel.break_off();
        let deadline = Instant::now() + LAST_WORDS;
        let mut status = self.child.try_wait();
        while matches!(status, Ok(None)) && Instant::now() < deadline && !self.unwanted.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
            status = self.child.try_wait();
        }
        if !matches!(status, Ok(Some(_))) {
            // It may be in the middle of anything, but not of a request.
            let _ = self.child.kill();
            status = self.child.wait().map(Some);
        }
        why.unwrap_or_else(|| match status {
            Ok(Some(status)) => format!("it ended ({status}) before it served; see the log for what it said"),
            _ => "it was ended before it served".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn origin(program: &str, arguments: &[&str]) -> Origin {
        Origin { program: program.into(), arguments: arguments.iter().map(OsString::from).collect() }
    }

    fn estate() -> Estate<Arc<Copies>> {
        Estate { sockets: Arc::default(), upload_key: Secret::new([0; 32]), admitted: Vec::new() }
    }

    fn start(program: &str, arguments: &[&str]) -> String {
        let (start, _brake) = Start::new().expect("a pair");
        start.run(&origin(program, arguments), &estate()).err().expect("it is no gateway")
    }

    #[test]
    fn a_program_that_ends_or_is_not_there_is_no_successor() {
        let why = start("/bin/sh", &["-c", "exit 7"]);
        assert!(why.contains("exit status: 7"), "{why}");
        let why = start("/nonexistent/portcullis", &[]);
        assert!(why.starts_with("/nonexistent/portcullis can't be started"), "{why}");
    }

    #[test]
    fn a_program_that_is_ready_and_ends_is_no_successor() {
        // What it inherits of standard input is the connection, on which a write is a message.
        let why = start("/bin/sh", &["-c", "printf '\"ready\"' >&0; exit 9"]);
        assert!(why.contains("exit status: 9"), "{why}");
        let why = start("/bin/sh", &["-c", "printf '{\"serving\":{\"admin\":true}}' >&0; exec sleep 1000"]);
        assert!(why.contains("without having been told"), "{why}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_when_the_wait_is_broken_off() {
        // Before it is ready, and after that.
        for script in ["exec sleep 1000", "printf '\"ready\"' >&0; exec sleep 1000"] {
            let (start, brake) = Start::new().expect("a pair");
            let started = Instant::now();
            let starting = std::thread::spawn(move || start.run(&origin("/bin/sh", &["-c", script]), &estate()).err());
            std::thread::sleep(Duration::from_millis(100));
            brake.pull();
            assert!(starting.join().expect("no panic").is_some());
            assert!(started.elapsed() < PATIENCE, "it waited");
        }
    }

    #[test]
    fn this_process_can_be_started_again() {
        let origin = Origin::of_this_process().expect("known");
        assert!(origin.program.is_absolute() && origin.program.metadata().is_ok(), "{origin:?}");
        assert_eq!(origin.arguments.len() + 1, std::env::args_os().count());
    }
}
