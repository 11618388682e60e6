//! Connections over real sockets, used as the framework does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::ahead::{AT_ONCE, PROMPT, READS_WITHOUT};
use super::*;

fn destination(address: SocketAddr) -> Destination {
    Destination { group: 1, address, keep_for: Duration::from_secs(60) }
}

/// A socket as the framework gets it, and the registry's end of it.
async fn pair(kept: &Arc<Kept>) -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (tcp, ending) = (Some(ours.unwrap()), Ending::default());
    let lease = Lease { tcp, to: destination(address), reused: false, ending, home: Arc::downgrade(kept) };
    let socket = Socket { lease: Arc::new(lease), ahead: Ahead::default(), plenty: false };
    (socket, accepted.unwrap().0)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// What the framework does before it keeps a connection; whether it is told that there is an end.
async fn ask(socket: &mut Socket) -> bool {
    socket.read(&mut [0]).await.unwrap() == 0
}

fn answered(socket: &Socket) {
    let _ = socket.lease.ending.advance(Ending::UNDER_WAY, Ending::ANSWERED);
}

/// Ends the use of a socket; whether its connection was kept.
fn is_kept(socket: Socket, kept: &Kept) -> bool {
    let to = socket.lease.to.clone();
    drop(socket);
    kept.take(&to).is_some()
}

#[tokio::test]
async fn all_bytes_arrive_in_order_whatever_is_asked_for() {
    let sent = pattern(5 * AT_ONCE + 17);
    for room in [1000, BODY, 64 * 1024, 2 * AT_ONCE] {
        let (mut socket, mut registry) = pair(&Arc::default()).await;
        let send = async {
            registry.write_all(&sent).await.unwrap();
            drop(registry);
        };
        let receive = async {
            let mut received = Vec::new();
            let mut buffer = vec![0; room];
            loop {
                match socket.read(&mut buffer).await.unwrap() {
                    0 => return received,
                    n => received.extend_from_slice(&buffer[..n]),
                }
            }
        };
        let ((), received) = tokio::join!(send, receive);
        assert!(received == sent, "room for {room}: {} of {} bytes", received.len(), sent.len());
    }
}

#[tokio::test]
async fn a_connection_is_kept_once_it_was_answered_and_asked_in_this_order() {
    let kept = Arc::default();
    let steps: [(&[&str], bool); 8] = [
        (&["answered", "asked"], true),
        (&["answered"], false),
        (&["asked"], false),
        (&["asked", "answered"], false),
        (&["answered", "asked", "asked"], false),
        (&["answered", "asked", "written"], false),
        (&["answered", "shut down", "asked"], false),
        (&["answered", "more came", "asked"], false),
    ];
    for (steps, expected) in steps {
        let (mut socket, mut registry) = pair(&kept).await;
        for step in steps {
            match *step {
                "answered" => answered(&socket),
                // In vain, if it is asked too early.
                "asked" => drop(tokio::time::timeout(Duration::from_millis(50), ask(&mut socket)).await),
                "written" => socket.write_all(b"x").await.unwrap(),
                "more came" => registry.write_all(b"x").await.unwrap(),
                _ => socket.shutdown().await.unwrap(),
            }
        }
        assert_eq!(is_kept(socket, &kept), expected, "{steps:?}");
    }
}

#[tokio::test]
async fn what_was_read_beyond_an_answer_spoils_its_connection() {
    let kept = Arc::default();
    let (mut socket, mut registry) = pair(&kept).await;
    let sending = tokio::spawn(async move {
        registry.write_all(&pattern(3 * AT_ONCE)).await.unwrap();
        registry
    });
    let mut buffer = vec![0; 64 * 1024];
    while socket.ahead.is_empty() {
        assert!(socket.read(&mut buffer).await.unwrap() > 0);
    }
    // The answer ends with what was handed on; more is here.
    answered(&socket);
    assert!(!ask(&mut socket).await, "what is here was not told");
    assert!(!is_kept(socket, &kept));
    sending.abort();
}

#[tokio::test]
async fn who_is_slow_makes_do_without_a_buffer_for_a_while() {
    let (mut socket, mut registry) = pair(&Arc::default()).await;
    let sending = tokio::spawn(async move { while registry.write_all(&pattern(AT_ONCE)).await.is_ok() {} });
    let mut buffer = vec![0; 64 * 1024];
    while socket.ahead.is_empty() {
        assert!(socket.read(&mut buffer).await.unwrap() > 0);
    }
    tokio::time::sleep(PROMPT + Duration::from_millis(20)).await;
    while !socket.ahead.is_empty() {
        assert!(socket.read(&mut buffer).await.unwrap() > 0);
    }
    for _ in 0..READS_WITHOUT {
        assert!(socket.read(&mut buffer).await.unwrap() > 0);
        assert_eq!(ahead::in_use(), 0);
    }
    while socket.ahead.is_empty() {
        assert!(socket.read(&mut buffer).await.unwrap() > 0);
    }
    sending.abort();
}

/// Has one idle connection, which may be kept for so long; the registry's end of it.
async fn keep_one(kept: &Arc<Kept>, keep_for: Duration) -> (Destination, TcpStream) {
    let (mut socket, registry) = pair(kept).await;
    let to = Destination { keep_for, ..socket.lease.to.clone() };
    Arc::get_mut(&mut socket.lease).unwrap().to = to.clone();
    answered(&socket);
    assert!(ask(&mut socket).await);
    drop(socket);
    (to, registry)
}

#[tokio::test]
async fn a_connection_is_for_its_destination_alone() {
    let kept: Arc<Kept> = Arc::default();
    let (to, _registry) = keep_one(&kept, Duration::from_secs(60)).await;
    assert!(kept.take(&Destination { group: 2, ..to.clone() }).is_none());
    let address = SocketAddr::new(to.address.ip(), to.address.port().wrapping_add(1));
    assert!(kept.take(&Destination { address, ..to.clone() }).is_none());
    assert!(kept.take(&to).is_some());
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_not_taken() {
    let kept: Arc<Kept> = Arc::default();
    let (to, _registry) = keep_one(&kept, Duration::from_millis(30)).await;
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert!(kept.take(&to).is_none());
}

#[tokio::test]
async fn what_came_after_an_answer_is_seen_before_the_runtime_hears_of_it() {
    let kept: Arc<Kept> = Arc::default();
    for registry_does in [|registry: TcpStream| assert_eq!(registry.try_write(b"x").unwrap(), 1), drop] {
        let (to, registry) = keep_one(&kept, Duration::from_secs(60)).await;
        // No await from here on, so that the runtime doesn't look.
        registry_does(registry);
        assert!(kept.take(&to).is_none());
    }
}

#[tokio::test]
async fn who_looks_closes_what_is_too_old_or_was_closed() {
    let kept: Arc<Kept> = Arc::default();
    let (_, registry) = keep_one(&kept, Duration::from_secs(60)).await;
    assert!(kept.sweep());
    drop(registry);
    assert!(!kept.sweep(), "nothing is left");
    let (_, _registry) = keep_one(&kept, Duration::from_millis(30)).await;
    assert!(kept.sweep());
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert!(!kept.sweep(), "nothing is left");
}
