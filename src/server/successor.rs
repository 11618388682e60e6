//! Starting the process that takes over.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gateway::UploadKey;
use super::handover::{Channel, VARIABLE};
use super::sockets::Copies;

/// How long a successor may take to read its files and serve. Large revocation lists take seconds.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// A process that serves in this one's place.
pub(super) struct Successor {
    child: Child,
    channel: Channel,
}

impl Successor {
    /// Starts `origin` again, passes everything on, and waits until it serves. Blocking.
    ///
    /// # Errors
    ///
    /// Why there is no successor. What was started is gone then.
    pub(super) fn start(
        origin: &Origin,
        (channel, theirs): (Channel, OwnedFd),
        (sockets, key): (Arc<Copies>, UploadKey),
    ) -> Result<Self, String> {
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
        let mut successor = Successor { child, channel };
        let outcome = successor.channel.bequeath(&sockets, &key).map_err(|e| match e.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => None,
            _ => Some(format!("it takes nothing: {e}")),
        });
        match outcome.and_then(|()| successor.channel.await_ready(PATIENCE)) {
            Ok(()) => Ok(successor),
            Err(why) => Err(successor.end(why)),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it speak to the service manager.
    pub(super) fn set_free(&self) {
        self.channel.leave();
    }

    /// Ends it, since it isn't wanted any more.
    pub(super) fn dismiss(mut self) {
        // There is nobody to be told how it took that.
        let _ = self.end(None);
    }

    /// Ends it, and says why it is no successor.
    fn end(&mut self, why: Option<String>) -> String {
        let deadline = Instant::now() + LAST_WORDS;
        let mut status = self.child.try_wait();
        while matches!(status, Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            status = self.child.try_wait();
        }
        if !matches!(status, Ok(Some(_))) {
            // It may be in the middle of anything; nothing of it is in use yet.
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

    fn start(script: &str) -> String {
        let origin = Origin { program: "/bin/sh".into(), arguments: ["-c", script].map(OsString::from).to_vec() };
        let pair = Channel::pair().expect("a pair");
        let outcome = Successor::start(&origin, pair, (Arc::default(), Secret::new([0; 32])));
        outcome.err().expect("a shell doesn't serve")
    }

    #[test]
    fn a_program_that_ends_or_is_not_there_is_no_successor() {
        let why = start("exit 7");
        assert!(why.contains("exit status: 7"), "{why}");
        let origin = Origin { program: "/nonexistent/portcullis".into(), arguments: Vec::new() };
        let pair = Channel::pair().expect("a pair");
        let why = Successor::start(&origin, pair, (Arc::default(), Secret::new([0; 32]))).err().expect("no program");
        assert!(why.starts_with("/nonexistent/portcullis can't be started"), "{why}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_when_the_wait_is_broken_off() {
        let origin = Origin { program: "/bin/sleep".into(), arguments: vec!["1000".into()] };
        let (ours, theirs) = Channel::pair().expect("a pair");
        let second = ours.second().expect("a descriptor");
        let started = Instant::now();
        let starting = std::thread::spawn(move || {
            Successor::start(&origin, (ours, theirs), (Arc::default(), Secret::new([0; 32]))).err()
        });
        std::thread::sleep(Duration::from_millis(100));
        second.break_off();
        assert!(starting.join().expect("no panic").is_some());
        assert!(started.elapsed() < PATIENCE, "it waited");
    }

    #[test]
    fn this_process_can_be_started_again() {
        let origin = Origin::of_this_process().expect("known");
        assert!(origin.program.is_absolute() && origin.program.metadata().is_ok(), "{origin:?}");
        assert_eq!(origin.arguments.len() + 1, std::env::args_os().count());
    }
}
