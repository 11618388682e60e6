//! A way to the gateway for dockerd, which takes loopback for insecure.
//!
//! The address it uses instead can be given to this machine at any time, by `ip address add`. This waits for that, and
//! passes what comes there on to the gateway, byte for byte: the gateway need not start again.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::site::Site;

/// How often the address is tried while the machine doesn't have it, and how soon the relay notices its end.
const POLL: Duration = Duration::from_millis(500);
/// dockerd uses fewer than ten. Two threads each.
const MAX_CONNECTIONS: usize = 64;

/// The relay. It takes no more connections once this is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    stopped: Arc<AtomicBool>,
}

impl Relay {
    /// Starts relaying if docker's address is another than the gateway's own.
    pub(super) fn start(site: &Site) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let (from, to) = (site.docker_address(), site.client_address());
        if from != to {
            let stopped = Arc::clone(&stopped);
            thread::spawn(move || relay(from, to, &stopped));
        }
        Self { stopped }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn relay(from: SocketAddr, to: SocketAddr, stopped: &AtomicBool) {
    let live = Arc::new(AtomicUsize::new(0));
    while !stopped.load(Ordering::Relaxed) {
        // Not there yet is the usual state, so it's no news.
        if let Ok(listener) = TcpListener::bind(from).and_then(|l| l.set_nonblocking(true).map(|()| l)) {
            log::info!("relaying {from} to {to}");
            accept(&listener, to, &live, stopped);
        }
        thread::sleep(POLL);
    }
}

fn accept(listener: &TcpListener, to: SocketAddr, live: &Arc<AtomicUsize>, stopped: &AtomicBool) {
    while !stopped.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((client, _)) if live.load(Ordering::Relaxed) < MAX_CONNECTIONS => {
                live.fetch_add(1, Ordering::Relaxed);
                let live = Arc::clone(live);
                thread::spawn(move || {
                    // How it ended is the gateway's to record.
                    _ = join(&client, to);
                    live.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Ok((refused, _)) => drop(refused),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(20)),
            Err(cause) => return log::warn!("the relay's listener failed: {cause}"),
        }
    }
}

/// Copies both ways until both are done, each end of file passed on as a half-close.
fn join(client: &TcpStream, to: SocketAddr) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let gateway = TcpStream::connect(to)?;
    thread::scope(|scope| {
        scope.spawn(|| one_way(client, &gateway));
        one_way(&gateway, client);
    });
    Ok(())
}

fn one_way(mut from: &TcpStream, mut to: &TcpStream) {
    if io::copy(&mut from, &mut to).is_err() {
        // A reset on one side: the other must not wait for what will never come.
        _ = from.shutdown(Shutdown::Both);
    }
    _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn both_directions_and_half_close_pass() {
        let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = gateway.local_addr().unwrap();
        let front = TcpListener::bind("127.0.0.1:0").unwrap();
        let from = front.local_addr().unwrap();
        thread::spawn(move || join(&front.accept().unwrap().0, to).unwrap());
        let server = thread::spawn(move || {
            let (mut socket, _) = gateway.accept().unwrap();
            let mut request = String::new();
            socket.read_to_string(&mut request).unwrap();
            socket.write_all(format!("{request} world").as_bytes()).unwrap();
        });

        let mut client = TcpStream::connect(from).unwrap();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        server.join().unwrap();
        assert_eq!(answer, "hello world");
    }
}
