//! Two small listeners beside the gateway: health and metrics for probes and Prometheus, and administration.
//!
//! They don't share anything with the serving threads but what they are given: a runtime on a thread of its own serves
//! them, so that `/livez` and `/metrics` answer when the gateway is busy, and a scrape delays no client.
//!
//! The first may be open to a network: it tells no identity and changes nothing. The second is for whoever may run
//! commands on this machine: it listens on loopback or on a unix socket that only the gateway's user may open, and it
//! refuses what a browser on the machine could be tricked into sending. Where it is to be reached from elsewhere, each
//! connection meets a [`Guard`]: TLS, and a token or a certificate.

mod guard;
mod http;
mod listen;
mod routes;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::{runtime, time};

pub use self::guard::{Guard, Transport};

use self::guard::TurnedAway;
use self::http::Stream;
use self::listen::Socket;
use self::routes::Site;
use crate::config::AdminAddress;
use crate::inquiry::Unanswered;
use crate::tally::Tally;
use crate::telemetry::{AdminRefusal, Metrics};

/// Connections served at a time by each listener. More wait to be accepted; deadlines make room for them.
const MAX_CONNECTIONS: usize = 64;

/// Of these from one address, where other machines can connect.
const MAX_OF_ADDRESS: usize = 16;

/// How long a listener rests when it can't accept, for want of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long answers under way may take when the listeners stop: that to the order to stop or to hand over is one.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the health listener tells.
#[derive(Clone)]
pub struct Health {
    /// Whether the gateway takes requests; if not, why, in a line that may be read by anyone. Must not block.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// What `/metrics` renders.
    pub metrics: Arc<Metrics>,
}

/// What the admin listener can do.
#[derive(Clone)]
pub struct Control {
    /// What is demanded now. Must not block.
    pub guard: Arc<dyn Fn() -> Arc<Guard> + Send + Sync>,
    /// Takes note of somebody who was turned away: why, from where, and what there is to say. Must not block.
    pub refused: Arc<TakingNote>,
    /// Renders the status page for the query of a URL. The work belongs on another thread.
    pub status: Arc<dyn Fn(String) -> Explaining + Send + Sync>,
    /// The configuration in force, with secrets redacted. Must not block.
    pub config: Arc<dyn Fn() -> String + Send + Sync>,
    /// How the sources of revocation lists stand, and which client certificates run out soon. Must not block.
    pub revocation: Arc<dyn Fn(Format) -> String + Send + Sync>,
    /// Answers a question to the policy in force, given as the query of a URL. The work belongs on another thread, too.
    pub explain: Arc<dyn Fn(String, Format) -> Explaining + Send + Sync>,
    /// Loads everything anew; resolves to what is in force now, or to the diagnostics. The work belongs on another
    /// thread, for while it is polled nothing else is answered.
    pub reload: Arc<dyn Fn() -> Pending + Send + Sync>,
    /// Hands over to a successor; resolves to who serves now, or to why there is none.
    pub upgrade: Arc<dyn Fn() -> Pending + Send + Sync>,
}

/// Takes note of somebody who was turned away.
pub type TakingNote = dyn Fn(AdminRefusal, Option<SocketAddr>, &str) + Send + Sync;

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// An order under way.
pub type Pending = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// An answer under way.
pub type Explaining = Pin<Box<dyn Future<Output = Result<String, Unanswered>> + Send>>;

/// Sockets that listen already.
#[derive(Debug, Default)]
pub struct Adopted {
    /// For health and metrics.
    pub health: Option<OwnedFd>,
    /// For administration. The file of a unix socket is not removed unless [`Admin::own_path`] is called.
    pub control: Option<OwnedFd>,
}

/// The listeners at work. They stop when this is dropped.
#[derive(Debug)]
pub struct Admin {
    health: Option<SocketAddr>,
    control: Option<AdminAddress>,
    copies: Adopted,
    path_owned: Arc<AtomicBool>,
    release: Option<oneshot::Sender<()>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Binds the listeners, unless there are sockets for them already, and serves them on a thread of their own once `open`
/// becomes true. `None` is off.
///
/// # Errors
///
/// Fails if an address can't be bound, or isn't one that administration may listen on; the error names it.
pub fn start(
    health: Option<(SocketAddr, Health)>,
    control: Option<(AdminAddress, Control)>,
    adopted: Adopted,
    open: watch::Receiver<bool>,
) -> io::Result<Admin> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut sites = Vec::new();
    let mut admin = Admin {
        health: None,
        control: None,
        copies: Adopted::default(),
        path_owned: Arc::default(),
        release: None,
        stop: None,
        thread: None,
    };
    {
        // Sockets belong to the runtime in which they are made.
        let _entered = runtime.enter();
        if let Some((address, health)) = health {
            let listening = listen::health(address, adopted.health)?;
            admin.health = Some(listening.address);
            admin.copies.health = Some(listening.copy);
            sites.push((listening.socket, Site::Health(health)));
        }
        if let Some((address, control)) = control {
            let listening = listen::control(&address, adopted.control, &admin.path_owned)?;
            sites.push((listening.socket, Site::Control { control, address: listening.address.clone() }));
            admin.control = Some(listening.address);
            admin.copies.control = Some(listening.copy);
        }
    }
    if !sites.is_empty() {
        let ((release, released), (stop, stopped)) = (oneshot::channel(), oneshot::channel());
        let serving = thread::Builder::new().name("admin".to_owned());
        admin.thread = Some(serving.spawn(move || runtime.block_on(run(sites, open, released, stopped)))?);
        (admin.release, admin.stop) = (Some(release), Some(stop));
    }
    Ok(admin)
}

impl Admin {
    /// Where health and metrics are served, with the port that was assigned if 0 was asked for.
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health
    }

    /// Where administration is served, with the port that was assigned if 0 was asked for.
    #[must_use]
    pub fn control_address(&self) -> Option<&AdminAddress> {
        self.control.as_ref()
    }

    /// Copies of the sockets, once. While they are kept, connections are let in and queued.
    pub fn take_copies(&mut self) -> Adopted {
        std::mem::take(&mut self.copies)
    }

    /// The file of the unix socket is this process's to remove, or, with `false`, another one's.
    pub fn own_path(&self, own: bool) {
        self.path_owned.store(own, Ordering::Relaxed);
    }

    /// Accepts no more connections, since a successor does; what is being answered goes on.
    pub fn release(&mut self) {
        drop(self.release.take());
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.release.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Accepts from the moment that `open` says so until the other end of `released` is dropped, and serves until that of
/// `stopped` is. What is still being answered then has a moment to end.
async fn run(
    sites: Vec<(Socket, Site)>,
    mut open: watch::Receiver<bool>,
    released: oneshot::Receiver<()>,
    mut stopped: oneshot::Receiver<()>,
) {
    let opened = tokio::select! {
        opened = open.wait_for(|open| *open) => opened.is_ok(),
        _ = &mut stopped => false,
    };
    if !opened {
        return;
    }
    let mut accepting = JoinSet::new();
    let (busy, mut idle) = mpsc::channel::<()>(1);
    for (socket, site) in sites {
        accepting.spawn(accept(socket, Arc::new(site), busy.clone()));
    }
    drop(busy);
    // An error is the end of the sender, which is the signal.
    tokio::select! {
        _ = released => {
            accepting.shutdown().await;
            let _ = stopped.await;
        }
        _ = &mut stopped => accepting.shutdown().await,
    }
    // Nothing is ever sent: this is the end of the last exchange.
    let _ = time::timeout(FAREWELL, idle.recv()).await;
}

/// Accepts connections for ever, at most [`MAX_CONNECTIONS`] at a time. Each keeps a copy of `busy`.
async fn accept(socket: Socket, site: Arc<Site>, busy: mpsc::Sender<()>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let of_address = Arc::<Tally<IpAddr>>::default();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match socket.accept().await {
            Ok((stream, from)) => {
                let (site, busy, of_address) = (Arc::clone(&site), busy.clone(), Arc::clone(&of_address));
                tokio::spawn(async move {
                    let _kept = (place, busy);
                    if let Err(error) = serve(&site, &of_address, stream, from).await {
                        log::debug!("a client of {site} left without its answer: {error}");
                    }
                });
            }
            Err(error) => {
                log::warn!("{site} can't accept a connection: {error}");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that was let in, and what it was let in by.
struct Visit {
    from: Option<SocketAddr>,
    guard: Arc<Guard>,
}

/// Lets a connection in, and answers it.
async fn serve(
    site: &Site,
    of_address: &Arc<Tally<IpAddr>>,
    stream: Box<dyn Stream>,
    from: Option<SocketAddr>,
) -> io::Result<()> {
    let Site::Control { control, address } = site else {
        let visit = Visit { from, guard: Arc::default() };
        return http::exchange(stream, async |request| site.answer(request, &visit).await).await;
    };
    let visit = Visit { from, guard: (control.guard)() };
    let refuse = |why, detail: &str| (control.refused)(why, from, detail);
    if !visit.guard.suffices_for(address) {
        refuse(
            AdminRefusal::Unguarded,
            "the configuration in force switches it off, or demands too little for where it is",
        );
        return Ok(());
    }
    let _place = match from.filter(|_| !address.is_local()) {
        Some(from) => match Place::take(of_address, from.ip()) {
            Some(place) => Some(place),
            None => {
                refuse(AdminRefusal::TooMany, "too many connections from there");
                return Ok(());
            }
        },
        None => None,
    };
    match time::timeout(http::DEADLINE, visit.guard.secure(stream)).await? {
        Ok(Some(stream)) => http::exchange(stream, async |request| site.answer(request, &visit).await).await,
        Ok(None) => Ok(()),
        Err(TurnedAway { why, detail }) => {
            refuse(why, &detail);
            Ok(())
        }
    }
}

/// One of the connections of an address.
struct Place {
    of_address: Arc<Tally<IpAddr>>,
    address: IpAddr,
}

impl Place {
    fn take(of_address: &Arc<Tally<IpAddr>>, address: IpAddr) -> Option<Self> {
        let entered = of_address.enter(address, MAX_OF_ADDRESS);
        entered.then(|| Self { of_address: of_address.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of_address.leave(&self.address);
    }
}

#[cfg(test)]
mod tests;
