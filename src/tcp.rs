//! Reading TCP sockets of the runtime.

use std::io;

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads without waiting. Who gets less than there is room for has got all, and need not ask to learn that: the runtime is
/// told as if it had asked, and waits for more.
pub(crate) fn read_some(tcp: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let room = into.len();
    let mut got = 0;
    let outcome = tcp.try_io(Interest::READABLE, || {
        got = rustix::net::recv(tcp, into, RecvFlags::empty())?.0;
        if (1..room).contains(&got) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    if got > 0 { Ok(got) } else { outcome.map(|()| 0) }
}
