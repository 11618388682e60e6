//! A load balancer of our own: it passes bytes on, behind a header of the test's choice.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How header and first bytes of the client leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// In one piece.
    Together,
    /// The header first, then the client's bytes.
    Apart,
    /// One byte after the other, some of the client's, too.
    Bytewise,
}

pub struct Balancer {
    pub address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Balancer {
    /// Passes connections on to `target`, from the address `source`.
    pub fn start(target: SocketAddr, source: [u8; 4], header: &[u8], manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let stopped = Arc::new(AtomicBool::new(false));
        let (end, header) = (Arc::clone(&stopped), header.to_vec());
        thread::spawn(move || {
            for client in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let header = header.clone();
                if let Ok(client) = client {
                    thread::spawn(move || pass_on(client, target, source, &header, manner));
                }
            }
        });
        Self { address, stopped }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// Connects from an address of this machine's own choice.
pub fn connect_from(source: [u8; 4], target: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&target.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

fn pass_on(
    mut client: TcpStream,
    target: SocketAddr,
    source: [u8; 4],
    header: &[u8],
    manner: Manner,
) -> io::Result<()> {
    let mut server = connect_from(source, target)?;
    if manner == Manner::Apart {
        server.write_all(header)?;
    }
    let mut first = [0; 16 * 1024];
    let n = client.read(&mut first)?;
    match manner {
        Manner::Together => server.write_all(&[header, &first[..n]].concat())?,
        Manner::Apart => server.write_all(&first[..n])?,
        Manner::Bytewise => {
            let (alone, rest) = first[..n].split_at(n.min(32));
            for byte in [header, alone].concat() {
                server.write_all(&[byte])?;
                // Long enough for most bytes to be read alone; which ones are is no matter.
                thread::sleep(Duration::from_micros(200));
            }
            server.write_all(rest)?;
        }
    }
    let (mut up_from, mut up_to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut up_from, &mut up_to);
        let _ = up_to.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut server, &mut client);
    client.shutdown(Shutdown::Both)
}
