//! A live connection, and the register of all of them, so that they can be ended when their client loses its rights.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::Notify;

use super::flow::Flow;
use crate::identity::{ClientId, PeerIdentity};
use crate::policy::{Policy, Standing};
use crate::telemetry::{ConnectionRecord, EndReason};
use crate::tls::ClientCertificates;

/// What stays the same for all requests of a connection, and the switch that ends it.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    /// Position of its listener in the configuration.
    pub(crate) listener: usize,
    /// What access records say of the connection: client address, listener, identity, TLS session.
    pub(crate) record: Arc<ConnectionRecord>,
    /// Who the client proved to be.
    pub(crate) identity: Arc<PeerIdentity>,
    /// Which client that is, whatever certificate it shows.
    pub(crate) client_id: ClientId,
    /// The server name of the handshake, in lower case.
    pub(crate) server_name: Option<Box<str>>,
    /// What the upstream is told of the certificates, if it is told.
    pub(crate) certificates: Option<Arc<ClientCertificates>>,
    /// The client's address, as upstreams are told it.
    forwarded_for: OnceLock<HeaderValue>,
    /// The generation whose revocation index and trust last approved of the identity.
    checked: AtomicU64,
    /// Until when that approval holds, in unix seconds: lists run out.
    approved_until: AtomicI64,
    /// What its listener demanded of certificates in the handshake.
    pub(crate) demands: [u8; 32],
    /// What the policy in force has to do with the identity; made at the first request that it decides over.
    standing: ArcSwapOption<Standing>,
    /// The same with the shadow policy.
    shadow_standing: ArcSwapOption<Standing>,
    /// Requests whose head was complete.
    requests: AtomicU64,
    head_complete: AtomicBool,
    /// 0 while it lives, else the index of its [`EndReason`] plus one.
    end: AtomicU8,
    ended: Notify,
    /// Told instead of `ended` when the client is to hear of the end in HTTP/2's own way.
    farewell: Notify,
    /// Whose turn it is.
    pub(super) flow: Arc<Flow>,
}

/// What a new [`Connection`] is made of.
pub(super) struct Opened {
    pub(super) listener: usize,
    pub(super) record: Arc<ConnectionRecord>,
    pub(super) identity: Arc<PeerIdentity>,
    pub(super) server_name: Option<Box<str>>,
    pub(super) certificates: Option<Arc<ClientCertificates>>,
    pub(super) generation: u64,
    pub(super) approved_until: i64,
    pub(super) demands: [u8; 32],
    pub(super) http2: bool,
}

impl Connection {
    pub(super) fn new(opened: Opened) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Connection {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            listener: opened.listener,
            record: opened.record,
            client_id: opened.identity.client_id(),
            identity: opened.identity,
            server_name: opened.server_name,
            certificates: opened.certificates,
            forwarded_for: OnceLock::new(),
            checked: AtomicU64::new(opened.generation),
            approved_until: AtomicI64::new(opened.approved_until),
            demands: opened.demands,
            standing: ArcSwapOption::empty(),
            shadow_standing: ArcSwapOption::empty(),
            requests: AtomicU64::new(0),
            head_complete: AtomicBool::new(false),
            end: AtomicU8::new(0),
            ended: Notify::new(),
            farewell: Notify::new(),
            flow: Arc::new(Flow::new(opened.http2)),
        })
    }

    /// The client's address as the value of a header field.
    pub(crate) fn forwarded_for(&self) -> &HeaderValue {
        self.forwarded_for.get_or_init(|| {
            let address = self.record.client.ip().to_string();
            // An address has no character that a value can't have.
            HeaderValue::try_from(address).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        })
    }

    /// Unique within the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Ends the connection for `reason`. The first reason stays.
    pub fn end(&self, reason: EndReason) {
        if self.set_end(reason) {
            self.ended.notify_one();
        }
    }

    /// Ends the connection for `reason` after a GOAWAY, if the client takes one.
    pub(super) fn dismiss(&self, reason: EndReason) {
        if self.set_end(reason) {
            self.farewell.notify_one();
        }
    }

    fn set_end(&self, reason: EndReason) -> bool {
        let code = u8::try_from(reason as usize + 1).unwrap_or(u8::MAX);
        self.end.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Why the connection is ending, if it is.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        let code = self.end.load(Ordering::Acquire);
        code.checked_sub(1).and_then(|index| EndReason::from_index(usize::from(index)))
    }

    /// Resolves once [`Connection::end`] was called.
    pub(super) async fn wait_for_end(&self) {
        self.ended.notified().await;
    }

    /// The identity's standing with `policy`, worked out once for each policy.
    pub(crate) fn standing(&self, policy: &Policy) -> Arc<Standing> {
        self.kept_standing(&self.standing, policy)
    }

    /// The identity's standing with `policy`, the shadow of the one in force, worked out once, too.
    pub(crate) fn shadow_standing(&self, policy: &Policy) -> Arc<Standing> {
        self.kept_standing(&self.shadow_standing, policy)
    }

    fn kept_standing(&self, kept: &ArcSwapOption<Standing>, policy: &Policy) -> Arc<Standing> {
        if let Some(standing) = kept.load().as_ref().filter(|standing| policy.knows(standing)) {
            return standing.clone();
        }
        let standing = Arc::new(policy.standing(&self.identity));
        kept.store(Some(standing.clone()));
        standing
    }

    /// Resolves once the connection was dismissed, with the reason.
    pub(super) async fn wait_for_dismissal(&self) -> EndReason {
        self.farewell.notified().await;
        self.end_reason().unwrap_or(EndReason::Internal)
    }

    /// Counts a request, whose head is now complete.
    pub(crate) fn begin_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_complete.store(true, Ordering::Release);
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn expect_head(&self) {
        self.head_complete.store(false, Ordering::Release);
    }

    pub(super) fn head_complete(&self) -> bool {
        self.head_complete.load(Ordering::Acquire)
    }

    pub(super) fn note_late_head(&self) {
        self.end(EndReason::HeadTimeout);
    }

    /// Whether `generation` has approved of the identity and still does at `now`.
    pub(crate) fn is_approved_by(&self, generation: u64, now: i64) -> bool {
        self.checked.load(Ordering::Acquire) >= generation && now <= self.approved_until.load(Ordering::Acquire)
    }

    /// Notes that `generation` approves of the identity until then (unix seconds).
    pub(crate) fn approve(&self, generation: u64, until: i64) {
        // In this order: an approval seen half is one of the past, not of the future.
        self.approved_until.store(until, Ordering::Release);
        self.checked.fetch_max(generation, Ordering::AcqRel);
    }
}

/// All live connections. Sharded, so that the workers don't wait for each other.
#[derive(Debug)]
pub struct Register {
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashMap<u64, Arc<Connection>>;

/// Shards of the register; a power of two well above the number of cores of a gateway.
const SHARDS: usize = 16;

impl Default for Register {
    fn default() -> Self {
        Register { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Register {
    /// Enters a connection; it leaves when the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>, connection: &Arc<Connection>) -> Entry {
        if let Some(mut shard) = self.shard(connection.id) {
            shard.insert(connection.id, connection.clone());
        }
        Entry { register: self.clone(), id: connection.id }
    }

    /// Ends every connection for which `judge` finds a reason, and returns how many those were.
    pub fn end_where(&self, mut judge: impl FnMut(&Connection) -> Option<EndReason>) -> usize {
        let mut ended = 0;
        for shard in &self.shards {
            // Judged outside the lock: a worker that accepts must not wait for a scan.
            for connection in members(shard) {
                if let Some(reason) = judge(&connection) {
                    connection.end(reason);
                    ended += 1;
                }
            }
        }
        ended
    }

    /// Who is connected: the `most` clients with the most connections, and how many others there are.
    #[must_use]
    pub fn clients(&self, most: usize) -> Presence {
        let mut clients: HashMap<ClientId, Present> = HashMap::new();
        for shard in &self.shards {
            for connection in members(shard) {
                let client = clients.entry(connection.client_id).or_insert_with(|| Present {
                    latest: connection.record.clone(),
                    connections: 0,
                    requests: 0,
                    newest: 0,
                });
                client.connections += 1;
                client.requests += connection.requests();
                if connection.id >= client.newest {
                    (client.newest, client.latest) = (connection.id, connection.record.clone());
                }
            }
        }
        let mut clients: Vec<_> = clients.into_values().collect();
        let connections = clients.iter().map(|client| client.connections).sum();
        clients.sort_by(|a, b| {
            let rank = |client: &Present| (std::cmp::Reverse(client.connections), std::cmp::Reverse(client.requests));
            rank(a).cmp(&rank(b)).then_with(|| a.latest.identity.label.cmp(&b.latest.identity.label))
        });
        let others = clients.len().saturating_sub(most);
        clients.truncate(most);
        Presence { clients, others, connections }
    }

    /// How many connections are live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().map_or(0, |shard| shard.len())).sum()
    }

    fn shard(&self, id: u64) -> Option<MutexGuard<'_, Shard>> {
        let position = usize::try_from(id % SHARDS as u64).unwrap_or(0);
        match self.shards.get(position)?.lock() {
            Ok(shard) => Some(shard),
            // A panic elsewhere must not leave connections that nobody can end.
            Err(poisoned) => Some(poisoned.into_inner()),
        }
    }
}

fn members(shard: &Mutex<Shard>) -> Vec<Arc<Connection>> {
    match shard.lock() {
        Ok(shard) => shard.values().cloned().collect(),
        Err(poisoned) => poisoned.into_inner().values().cloned().collect(),
    }
}

/// Who is connected.
#[derive(Debug)]
pub struct Presence {
    /// Those with the most connections, they first.
    pub clients: Vec<Present>,
    /// How many clients there are besides.
    pub others: usize,
    /// Connections of all of them.
    pub connections: usize,
}

/// A client that is connected.
#[derive(Debug)]
pub struct Present {
    /// Its newest connection.
    pub latest: Arc<ConnectionRecord>,
    /// How many it has.
    pub connections: usize,
    /// Requests on them so far.
    pub requests: u64,
    newest: u64,
}

/// A connection's place in the [`Register`].
pub(super) struct Entry {
    register: Arc<Register>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(mut shard) = self.register.shard(self.id) {
            shard.remove(&self.id);
        }
    }
}
