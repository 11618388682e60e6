//! The service manager (systemd): told how the gateway is, and asked for sockets it has bound already.
//!
//! All of it is optional: without `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `LISTEN_FDS` in the environment nothing happens.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use super::sockets::{Address, Label, Socket};

/// The first descriptor that the service manager passes (sd_listen_fds(3)).
const FIRST: usize = 3;

/// Speaks to the service manager for as long as this process is the service.
#[derive(Debug, Clone)]
pub(super) struct Manager {
    watchdog: Option<Duration>,
    /// Another process speaks.
    succeeded: Arc<AtomicBool>,
}

impl Manager {
    pub(super) fn of_this_process() -> Self {
        let watchdog = sd_notify::watchdog_enabled().filter(|period| !period.is_zero());
        Manager { watchdog, succeeded: Arc::default() }
    }

    /// How long the service manager waits for a ping before it takes the gateway for stuck.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Started. Names this process, which may have taken over from another one.
    pub(super) fn ready(&self, status: &str) {
        self.say(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The reload is done, or has failed.
    pub(super) fn reloaded(&self, status: &str) {
        self.say(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    pub(super) fn reloading(&self) {
        // With the time of the message, without which `Type=notify-reload` doesn't take it.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.say(&[NotifyState::Reloading, now]),
            Err(e) => log::debug!("the service manager is not told of the reload: {e}"),
        }
    }

    pub(super) fn status(&self, status: &str) {
        self.say(&[NotifyState::Status(status)]);
    }

    pub(super) fn stopping(&self, status: &str) {
        self.say(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// The service is another process from now on; this one has nothing more to say.
    pub(super) fn succeeded_by(&self, pid: u32) {
        self.say(&[NotifyState::MainPid(pid)]);
        self.succeeded.store(true, Ordering::Relaxed);
    }

    pub(super) fn ping(&self) {
        self.say(&[NotifyState::Watchdog]);
    }

    fn say(&self, states: &[NotifyState<'_>]) {
        if self.succeeded.load(Ordering::Relaxed) {
            return;
        }
        if let Err(e) = sd_notify::notify(states) {
            log::warn!("the service manager can't be reached ($NOTIFY_SOCKET): {e}");
        }
    }
}

/// The sockets that the service manager has bound for this process (sd_listen_fds(3)).
///
/// To be called before there are other threads: it takes the variables out of the environment.
///
/// # Errors
///
/// When one of them is no listening TCP or unix socket.
pub(super) fn sockets() -> Result<Vec<Socket>, String> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..given.len() {
        let name = names.next().unwrap_or_default();
        let explain = |why: &str| {
            format!("descriptor {} (\"{name}\") of the service manager can't be used: {why}", FIRST + index)
        };
        let (descriptor, bound) = take(&mut given, index).map_err(|e| explain(&e.to_string()))?;
        if !socket2::SockRef::from(&descriptor).is_listener().unwrap_or(false) {
            return Err(explain("it doesn't listen (is Accept=no?)"));
        }
        let label = Label { role: None, configured: None, bound, managed: true };
        sockets.push(Socket { descriptor, label });
    }
    Ok(sockets)
}

fn take(given: &mut ListenFd, index: usize) -> std::io::Result<(OwnedFd, Address)> {
    let unusable = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
    if let Ok(Some(listener)) = given.take_tcp_listener(index) {
        let address = listener.local_addr()?;
        return Ok((listener.into(), Address::Tcp(address)));
    }
    let listener = given.take_unix_listener(index)?.ok_or_else(unusable)?;
    let address = listener.local_addr()?;
    let path = address.as_pathname().ok_or_else(unusable)?.to_owned();
    Ok((listener.into(), Address::Unix(path)))
}
