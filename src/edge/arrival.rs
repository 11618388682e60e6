//! From an accepted socket to a client that was let in: limits, the handshake, and what is told to those who weren't.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use log::Level;
use tokio::net::TcpStream;

use super::accept::Edge;
use super::connection::{Connection, Opened};
use super::limits::{self, ConnectionSlot};
use super::proxy_protocol;
use super::serve::Serving;
use super::socket::{Socket, abort, close_gently};
use crate::snapshot::{Listener, unix_now};
use crate::telemetry::{ClientRecord, ConnectionRecord, HandshakeResult, RefusedHandshake, Telemetry, Text};
use crate::tls::{self, Accepted, HandshakeFailure};

/// A connection whose client was let in.
pub(super) struct Arrived {
    pub(super) connection: Arc<Connection>,
    pub(super) stream: tls::Stream<Socket>,
    pub(super) http2: bool,
    /// Held until the socket is closed.
    pub(super) _slots: (Option<ConnectionSlot>, limits::IdentitySlot),
}

/// Lets a client in, or tells it why not.
pub(super) async fn arrive(
    edge: &Edge,
    serving: &Arc<Serving>,
    listener: usize,
    tcp: &Arc<TcpStream>,
    peer: SocketAddr,
) -> Option<Arrived> {
    let snapshot = edge.snapshots.load();
    let configured = snapshot.listeners.get(listener)?;
    let bounds = &serving.limits.connections;
    let started = Instant::now();
    // Until a load balancer says otherwise.
    let mut client = peer;
    // Held until the socket is closed, also by those that are refused and told why.
    let slot = edge.counters.connection(bounds);
    let full = |result| HandshakeFailure { result, detail: "a limit is reached".to_owned() };
    let (outcome, slot) = match slot {
        Ok(mut slot) => (handshake(edge, serving, configured, tcp, (&mut client, &mut slot)).await, Some(slot)),
        Err(result) => (Err(full(result)), None),
    };
    let report = |failure: &HandshakeFailure| {
        report_failure(&edge.telemetry, &configured.name, Ends { client, peer }, failure, started);
    };
    let accepted = match outcome {
        Ok(accepted) => accepted,
        Err(failure) => {
            report(&failure);
            turn_away(tcp, failure.result).await;
            return None;
        }
    };
    let identity_slot = match edge.counters.identity(accepted.identity.client_id(), bounds) {
        Ok(slot) => slot,
        Err(result) => {
            let detail = format!("{} has as many connections as it may", accepted.identity.label());
            report(&HandshakeFailure { result, detail });
            close_gently(tcp).await;
            return None;
        }
    };
    let result = if accepted.resumed { HandshakeResult::Resumed } else { HandshakeResult::Established };
    edge.telemetry.metrics.handshake(result, started.elapsed());
    edge.telemetry.expiring.note(&accepted.identity, snapshot.settings.client_expiry_warning, unix_now());
    let opened = Opened {
        listener,
        record: Arc::new(connection_record(&configured.name, client, &accepted)),
        approved_until: snapshot.revocation.permits_until(&accepted.identity.path),
        identity: accepted.identity,
        server_name: accepted.server_name,
        certificates: accepted.certificates,
        generation: snapshot.generation,
        demands: *configured.acceptor.demands(),
        http2: accepted.http2,
    };
    let (stream, http2) = (accepted.stream, accepted.http2);
    Some(Arrived { connection: Connection::new(opened), stream, http2, _slots: (slot, identity_slot) })
}

/// Ends a connection that gave no client.
async fn turn_away(tcp: &TcpStream, result: HandshakeResult) {
    match result {
        HandshakeResult::Timeout
        | HandshakeResult::TooManyConnections
        | HandshakeResult::TooManyOfAddress
        | HandshakeResult::TooManyBytes
        | HandshakeResult::TooManyHandshakes
        | HandshakeResult::TooManyHandshakesOfAddress
        | HandshakeResult::ProxyHeaderMissing
        | HandshakeResult::ProxyHeaderMalformed => abort(tcp),
        // Whoever was told why must be able to read it.
        _ => close_gently(tcp).await,
    }
}

/// A handshake within its bounds of number and time, after the header of a load balancer if one must be there.
///
/// Before the header the connection counts among all connections and handshakes; from then on for the address in it, too.
async fn handshake(
    edge: &Edge,
    serving: &Serving,
    listener: &Listener,
    tcp: &Arc<TcpStream>,
    (client, slot): (&mut SocketAddr, &mut ConnectionSlot),
) -> Result<Accepted<Socket>, HandshakeFailure> {
    let limits = &serving.limits;
    let full = |result| HandshakeFailure { result, detail: "a limit is reached".to_owned() };
    let mut under_way = edge.counters.handshake(&limits.connections).map_err(full)?;
    let steps = async {
        if proxy_protocol::is_expected(&listener.proxy_sources, client.ip())
            && let Some(carried) = proxy_protocol::read_header(tcp).await?
        {
            *client = carried;
        }
        slot.of_address(client.ip(), &limits.connections).map_err(full)?;
        under_way.of_address(client.ip(), &limits.connections).map_err(full)?;
        tls::accept(&listener.acceptor, Socket::new(tcp.clone(), listener.acceptor.handshake_bytes())).await
    };
    match tokio::time::timeout(limits.handshake_timeout, steps).await {
        Ok(outcome) => outcome,
        Err(_) => Err(HandshakeFailure {
            result: HandshakeResult::Timeout,
            detail: format!("not done after {:?}", limits.handshake_timeout),
        }),
    }
}

/// Lines a second about refused handshakes at their own level; more are at debug.
static LINES: Allowance = Allowance { second: AtomicU64::new(0), taken: AtomicU64::new(0) };
const LINES_A_SECOND: u64 = 20;

struct Allowance {
    second: AtomicU64,
    taken: AtomicU64,
}

impl Allowance {
    fn take(&self) -> bool {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.taken.store(0, Ordering::Relaxed);
        }
        self.taken.fetch_add(1, Ordering::Relaxed) < LINES_A_SECOND
    }
}

/// Who is at the other end: the client, and the load balancer that passed it on, if there is one.
#[derive(Clone, Copy)]
struct Ends {
    client: SocketAddr,
    peer: SocketAddr,
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.client)?;
        if self.client == self.peer { Ok(()) } else { write!(f, " by way of {}", self.peer) }
    }
}

fn report_failure(
    telemetry: &Telemetry,
    listener: &Arc<str>,
    ends: Ends,
    failure: &HandshakeFailure,
    started: Instant,
) {
    telemetry.metrics.handshake(failure.result, started.elapsed());
    if failure.result.level() <= Level::Info {
        telemetry.lately.handshake_refused(RefusedHandshake {
            time: SystemTime::now(),
            listener: listener.clone(),
            client: ends.client,
            result: failure.result,
            detail: failure.detail.clone(),
        });
    }
    // Anybody can cause these lines, so they may not fill a disk; the metric counts every one.
    let level = if LINES.take() { failure.result.level() } else { Level::Debug };
    log::log!(level, "handshake refused: {} (listener {listener}, {ends}): {}", failure.result, failure.detail);
}

fn connection_record(listener: &Arc<str>, client: SocketAddr, accepted: &Accepted<Socket>) -> ConnectionRecord {
    let identity = &accepted.identity;
    let serial = identity.path.first().map(|leaf| leaf.serial.to_string()).unwrap_or_default();
    let client_record = ClientRecord {
        label: identity.label().into(),
        fingerprint: Text::new(&hex(&identity.fingerprint)),
        serial: Text::new(&serial),
        not_after: identity.not_after(),
    };
    let session = [accepted.version, accepted.cipher].map(Text::new);
    ConnectionRecord::new(client, listener.clone(), client_record, identity.clone(), session)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string doesn't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
