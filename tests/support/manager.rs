//! What systemd is to a service: a socket it sends notifications to, and sockets it gets.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::gateway::Start;
use super::tls::PATIENCE;

/// Receives notifications (sd_notify(3)).
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    pub fn start(directory: &Path) -> Self {
        let path = directory.join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("the test directory is writable");
        Self { socket, path }
    }

    /// Makes a gateway speak to this.
    pub fn adopt(&self, start: &mut Start) {
        start.environment.push(("NOTIFY_SOCKET", self.path.to_string_lossy().into_owned()));
    }

    /// The next notification within `limit`, as its lines.
    pub fn next_within(&self, limit: Duration) -> Option<Vec<String>> {
        let mut bytes = [0; 4096];
        self.socket.set_read_timeout(Some(limit.max(Duration::from_millis(1)))).expect("a socket can wait");
        match self.socket.recv(&mut bytes) {
            Ok(length) => Some(String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned).collect()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(e) => panic!("receiving a notification: {e}"),
        }
    }

    /// Waits for a notification with this line; what came before it is passed over.
    #[track_caller]
    pub fn wait_for(&self, line: &str) -> Vec<String> {
        let end = Instant::now() + PATIENCE * 2;
        let mut seen = Vec::new();
        while let Some(notification) = self.next_within(end.saturating_duration_since(Instant::now())) {
            if notification.iter().any(|found| found == line) {
                return notification;
            }
            seen.push(notification);
        }
        panic!("no notification {line:?}: {seen:?}");
    }
}

/// Starts the gateway with `socket` as its only inherited one, as socket activation does.
pub fn activated(socket: impl Into<OwnedFd>, start: &mut Start) {
    // A child's process id is known to the child alone.
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=test.socket exec \"$@\"";
    start.through.extend(["sh", "-c", script, "sh"].map(str::to_owned));
    start.stdin = Some(socket.into());
}

/// A listening socket on a free port, and its address.
pub fn listening() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}
