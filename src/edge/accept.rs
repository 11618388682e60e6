//! Listening sockets, and the life of a connection from accept to close.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::App;
use super::arrival::{Arrived, arrive};
use super::connection::Register;
use super::holder::held_by;
use super::limits::Counters;
use super::serve::{self, Serving, WindowBudget};
use super::socket::{abort, bound_backlog, close_gently};
use super::stream::EdgeStream;
use crate::snapshot::Reader;
use crate::telemetry::{EndReason, HttpVersion, Telemetry};

/// Connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;

/// How long accepting pauses when the process runs out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Edge {
    /// The configuration in force.
    pub snapshots: Reader,
    /// All live connections.
    pub register: Arc<Register>,
    /// Where outcomes go.
    pub telemetry: Telemetry,
    /// How many connections and handshakes there are.
    pub counters: Arc<Counters>,
    /// Receive windows of HTTP/2 uploads.
    pub windows: Arc<WindowBudget>,
    /// Becomes true when the gateway is to leave.
    pub draining: watch::Receiver<bool>,
}

/// A listening address with one socket for each worker.
#[derive(Debug)]
pub struct Bound {
    /// Position of the listener in the configuration.
    pub listener: usize,
    /// The address, with the port the kernel chose if 0 was asked for.
    pub address: SocketAddr,
    /// One for each worker; the kernel spreads connections over them.
    pub sockets: Vec<StdListener>,
}

/// Binds `address` once for each of `workers`.
///
/// # Errors
///
/// When the address is in use, not of this machine, or needs a privilege: a sentence that says which.
pub fn bind(listener: usize, address: SocketAddr, workers: usize) -> Result<Bound, String> {
    let explain = |e: &io::Error| match e.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{address} is in use {}", held_by(address))
        }
        io::ErrorKind::PermissionDenied => format!(
            "{address} needs a privilege: ports below 1024 are bound with CAP_NET_BIND_SERVICE or by socket activation"
        ),
        io::ErrorKind::AddrNotAvailable => format!("{address} is not an address of this machine"),
        _ => format!("cannot listen on {address}: {e}"),
    };
    // Sockets that share a port would also share it with another gateway of the same user. One that doesn't share
    // finds out first.
    let probe = listening_socket(address, false).map_err(|e| explain(&e))?;
    let address = probe.local_addr().map_err(|e| explain(&e))?;
    drop(probe);
    let sockets: io::Result<Vec<StdListener>> = (0..workers.max(1)).map(|_| listening_socket(address, true)).collect();
    Ok(Bound { listener, address, sockets: sockets.map_err(|e| explain(&e))? })
}

fn listening_socket(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` beside `0.0.0.0` must not be a conflict.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The sockets of a worker, in its runtime, and what it serves them with.
pub struct Worker {
    edge: Edge,
    sockets: Vec<(usize, TcpListener)>,
    serving: Arc<Serving>,
}

impl Worker {
    /// Does everything that can fail, in the runtime that is to serve. Nothing is accepted yet.
    ///
    /// # Errors
    ///
    /// When a socket can't be handed to the runtime.
    pub fn new(edge: Edge, sockets: Vec<(usize, StdListener)>, app: Arc<App>) -> io::Result<Self> {
        let limits = edge.snapshots.load().settings.limits;
        let serving = Arc::new(Serving { app, limits, windows: edge.windows.clone(), draining: edge.draining.clone() });
        let sockets = sockets.into_iter().map(|(listener, socket)| Ok((listener, TcpListener::from_std(socket)?)));
        Ok(Worker { sockets: sockets.collect::<io::Result<_>>()?, edge, serving })
    }

    /// Serves until the gateway drains and the last connection has ended.
    pub async fn run(self) {
        let mut loops = JoinSet::new();
        for (listener, socket) in self.sockets {
            loops.spawn(accept_loop(self.edge.clone(), listener, socket, self.serving.clone()));
        }
        while loops.join_next().await.is_some() {}
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}

async fn accept_loop(edge: Edge, listener: usize, socket: TcpListener, serving: Arc<Serving>) {
    let mut draining = edge.draining.clone();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = serve::drain_order(&mut draining) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                connections.spawn(connection(edge.clone(), serving.clone(), listener, tcp, peer));
            }
            // The client was gone before it was accepted.
            Err(e) if is_of_one_client(&e) => {}
            Err(e) => {
                log::error!("accept failed: {e} (is the limit on open files too low?)");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // What the kernel has let in would be reset with the socket. Where a successor has the same socket, it takes the rest.
    for (tcp, peer) in let_in(socket) {
        connections.spawn(connection(edge.clone(), serving.clone(), listener, tcp, peer));
    }
    while connections.join_next().await.is_some() {}
}

/// The connections that wait in the socket's queue, which ends with it. Not asked of the runtime, since it learns of them
/// with the next turn only.
fn let_in(socket: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let Ok(socket) = socket.into_std() else { return Vec::new() };
    let mut waiting = Vec::new();
    for _ in 0..BACKLOG {
        match socket.accept() {
            Ok((tcp, peer)) => {
                let ready = tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp));
                waiting.extend(ready.ok().map(|tcp| (tcp, peer)));
            }
            // One that was gone before it was accepted says nothing of those behind it.
            Err(e) if is_of_one_client(&e) => {}
            Err(e) => {
                if e.kind() != io::ErrorKind::WouldBlock {
                    log::error!("connections that were waiting are lost: {e}");
                }
                break;
            }
        }
    }
    waiting
}

/// Whether accepting failed because of the client that was to be accepted.
fn is_of_one_client(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(e.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// A connection from accept to close.
async fn connection(edge: Edge, serving: Arc<Serving>, listener: usize, tcp: TcpStream, peer: SocketAddr) {
    let tcp = Arc::new(tcp);
    // Answers are written whole; waiting for more would only delay them.
    let _ = tcp.set_nodelay(true);
    bound_backlog(&tcp);
    // What only the handshake needs goes with it: the memory of its future, and the generation that it was judged by.
    let arrived = Box::pin(arrive(&edge, &serving, listener, &tcp, peer)).await;
    if let Some(arrived) = arrived {
        serve_accepted(&edge, &serving, tcp, arrived).await;
    }
}

async fn serve_accepted(edge: &Edge, serving: &Serving, tcp: Arc<TcpStream>, arrived: Arrived) {
    let Arrived { connection, stream, http2, _slots } = arrived;
    let entry = edge.register.enter(&connection);
    // Whoever publishes a generation judges the connections in the register. One that was not yet in it is judged here.
    let unwelcome = edge.snapshots.load().judge(&connection);
    if let Some(reason) = unwelcome {
        connection.end(reason);
    }
    let _gauge = edge.telemetry.metrics.connection_opened(if http2 { HttpVersion::Http2 } else { HttpVersion::Http11 });
    let reason = match EdgeStream::new(stream, connection.clone(), &serving.limits) {
        Ok(stream) => {
            let stream = Box::new(stream);
            tokio::select! {
                biased;
                () = connection.wait_for_end() => EndReason::Complete,
                reason = async {
                    match http2 {
                        // Boxed, since it is the larger one, and there are many idle connections of the other kind.
                        true => Box::pin(serve::http2(serving, stream, &connection)).await,
                        false => serve::http1(serving, stream, &connection).await,
                    }
                } => reason,
            }
        }
        Err(e) => {
            log::error!("connection {}: {e}", connection.id());
            EndReason::Internal
        }
    };
    drop(entry);
    // A reason set from outside stands above the one the loop saw.
    match connection.end_reason() {
        Some(ended) => {
            edge.telemetry.metrics.connection_ended(ended);
            if ended == reason {
                // The client was told, and may read it.
                close_gently(&tcp).await;
            } else {
                abort(&tcp);
            }
        }
        None => {
            if reason == EndReason::ProtocolError {
                edge.telemetry.metrics.head_refused();
            }
            edge.telemetry.metrics.connection_ended(reason);
            match reason {
                EndReason::ClientClosed => {}
                // It doesn't read. What the kernel holds for it would only be kept.
                _ if reason == EndReason::TooSlow || connection.flow.is_blocked() => abort(&tcp),
                _ => close_gently(&tcp).await,
            }
        }
    }
}
