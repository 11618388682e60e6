//! Binding the listeners.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Type};
use tokio::net::{TcpListener, UnixListener};

use super::http::Stream;
use crate::config::AdminAddress;
use crate::edge::held_by;

/// Connections that may wait in the kernel.
const BACKLOG: i32 = 128;

/// A listening socket.
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: Option<SocketFile> },
}

/// What binding a listener, or taking one over, yields.
pub(super) struct Listening<A> {
    pub(super) socket: Socket,
    /// With the port that was assigned if 0 was asked for.
    pub(super) address: A,
    /// For a successor.
    pub(super) copy: OwnedFd,
}

impl Socket {
    /// The next connection, with the address it comes from.
    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<SocketAddr>)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                (Box::new(stream), Some(from))
            }
            Self::Unix { listener, .. } => (Box::new(listener.accept().await?.0), None),
        })
    }
}

/// Listens for probes and Prometheus, on the socket there is for that or on a new one.
pub(super) fn health(address: SocketAddr, adopted: Option<OwnedFd>) -> io::Result<Listening<SocketAddr>> {
    tcp(address, adopted).map_err(|error| named("health.address", &address.to_string(), &error))
}

/// Listens for administration: on an address, or on a socket for the gateway's own user. Its file is removed with it if
/// `owned` says so by then. What an address that others reach demands is not looked at here.
pub(super) fn control(
    address: &AdminAddress,
    adopted: Option<OwnedFd>,
    owned: &Arc<AtomicBool>,
) -> io::Result<Listening<AdminAddress>> {
    match address {
        AdminAddress::Tcp(address) => tcp(*address, adopted)
            .map(|Listening { socket, address, copy }| Listening { socket, address: AdminAddress::Tcp(address), copy })
            .map_err(|error| named("admin.address", &address.to_string(), &error)),
        AdminAddress::Unix(path) => unix(path, adopted, owned)
            .map(|(socket, copy)| Listening { socket, address: AdminAddress::Unix(path.clone()), copy })
            .map_err(|error| named("admin.address", &format!("unix:{}", path.display()), &error)),
    }
}

fn tcp(address: SocketAddr, adopted: Option<OwnedFd>) -> io::Result<Listening<SocketAddr>> {
    let listener = match adopted {
        Some(descriptor) => std::net::TcpListener::from(descriptor),
        None => std::net::TcpListener::bind(address)?,
    };
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let copy = listener.try_clone()?.into();
    Ok(Listening { socket: Socket::Tcp(TcpListener::from_std(listener)?), address, copy })
}

fn unix(path: &Path, adopted: Option<OwnedFd>, owned: &Arc<AtomicBool>) -> io::Result<(Socket, OwnedFd)> {
    let (listener, file) = match adopted {
        // Without its file it serves whoever is connected already, which is all that can be done.
        Some(descriptor) => (std::os::unix::net::UnixListener::from(descriptor), SocketFile::of(path, owned).ok()),
        None => {
            let (listener, file) = bind_unix(path, owned)?;
            (listener, Some(file))
        }
    };
    listener.set_nonblocking(true)?;
    let copy = listener.try_clone()?.into();
    Ok((Socket::Unix { listener: UnixListener::from_std(listener)?, _file: file }, copy))
}

fn bind_unix(path: &Path, owned: &Arc<AtomicBool>) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    owned.store(true, Ordering::Relaxed);
    let file = SocketFile::of(path, owned)?;
    // Nobody can connect before `listen`, so there is no moment in which the socket is open to others.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// Removes a socket that a process left behind when it was killed; nothing else, and none that is still served.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket; it stays"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves it")),
    }
}

/// The file of a unix socket, removed with it.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode, since another process may have bound the path anew in the meantime.
    file: (u64, u64),
    /// Whether it is this process that removes it: not while, or after, another process serves the same socket.
    owned: Arc<AtomicBool>,
}

impl SocketFile {
    fn of(path: &Path, owned: &Arc<AtomicBool>) -> io::Result<Self> {
        let file = identity(&fs::symlink_metadata(path)?);
        Ok(Self { path: path.to_owned(), file, owned: owned.clone() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.owned.load(Ordering::Relaxed)
            && fs::symlink_metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.file)
        {
            // What can't be removed is found to be stale by the next process.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The error with the key of the configuration it belongs to.
fn named(key: &str, address: &str, error: &io::Error) -> io::Error {
    let holder = match address.parse() {
        Ok(address) if error.kind() == io::ErrorKind::AddrInUse => format!(", {}", held_by(address)),
        _ => String::new(),
    };
    io::Error::new(error.kind(), format!("{key}: can't listen on {address}: {error}{holder}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs in a runtime, which sockets need.
    fn bind(address: &AdminAddress) -> io::Result<(Socket, AdminAddress)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let bound = runtime.block_on(async { control(address, None, &Arc::default()) })?;
        Ok((bound.socket, bound.address))
    }

    fn refused(address: &AdminAddress) -> String {
        bind(address).map(|(_, bound)| bound).expect_err("must not be bound").to_string()
    }

    #[test]
    fn an_address_in_use_is_named_with_its_key() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("an address");
        let holder = std::net::TcpListener::bind(taken).expect("binds");
        let error = refused(&AdminAddress::Tcp(taken));
        assert!(error.starts_with(&format!("admin.address: can't listen on {taken}: ")), "{error}");
        drop(holder);
    }

    #[test]
    fn a_unix_socket_is_for_its_owner_and_goes_when_it_is_closed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let (socket, _) = bind(&AdminAddress::Unix(path.clone())).expect("binds");
        let metadata = fs::symlink_metadata(&path).expect("is there");
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        drop(socket);
        fs::symlink_metadata(&path).expect_err("is gone");
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_a_served_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        let (socket, _) = bind(&AdminAddress::Unix(path.clone())).expect("binds over a stale socket");
        assert!(refused(&AdminAddress::Unix(path.clone())).contains("another process serves it"));
        drop(socket);
    }

    #[test]
    fn a_file_in_the_way_is_not_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, link) = (directory.path().join("precious"), directory.path().join("link"));
        fs::write(&file, "data").expect("writes");
        std::os::unix::fs::symlink(&file, &link).expect("links");
        for path in [file.clone(), link, directory.path().to_owned()] {
            assert!(refused(&AdminAddress::Unix(path)).contains("no socket"));
        }
        assert_eq!(fs::read(&file).expect("is there"), b"data");
    }

    #[test]
    fn the_socket_of_a_successor_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let (old, _) = bind(&AdminAddress::Unix(path.clone())).expect("binds");
        fs::rename(&path, directory.path().join("aside")).expect("renames");
        let (_new, _) = bind(&AdminAddress::Unix(path.clone())).expect("binds");
        drop(old);
        fs::symlink_metadata(&path).expect("is still there");
    }

    #[test]
    fn the_file_of_an_adopted_socket_stays_until_it_is_owned() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let address = AdminAddress::Unix(path.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _entered = runtime.enter();
        let (first, second) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let predecessor = control(&address, None, &first).expect("binds");
        let adopt = |owned| control(&address, predecessor.copy.try_clone().ok(), owned).expect("adopts");
        drop(adopt(&second).socket);
        fs::symlink_metadata(&path).expect("a successor that failed has no right to it");
        let successor = adopt(&second);
        first.store(false, Ordering::Relaxed);
        second.store(true, Ordering::Relaxed);
        drop(predecessor.socket);
        fs::symlink_metadata(&path).expect("it is the successor's now");
        drop(successor.socket);
        fs::symlink_metadata(&path).expect_err("is gone");
    }
}
