//! What a gateway and its successor say to each other.
//!
//! | the gateway | its successor |
//! |---|---|
//! | its [estate](Estate) | prepares itself to the last thread, and accepts nothing |
//! | | *ready*, or a reason why not, with which it ends |
//! | *serve* | |
//! | | *serving*: from here on it accepts |
//! | tells the service manager; *leaving*; drains | speaks to the service manager |
//!
//! *Serving* is where the one becomes the other: whose message can't be sent ends without having accepted anything, and
//! whoever doesn't wait for it any longer closes the connection first, and then looks whether it has come. So there is
//! no moment in which both serve because neither knows of the other, and none in which neither does.
//!
//! They are connected by a socket pair, which the successor finds as its standard input. Messages are JSON, one a
//! packet, so that two versions understand each other as long as they know each other's fields; an unknown version is
//! refused. Descriptors travel beside them (unix(7), `SCM_RIGHTS`).

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::gateway::UploadKey;
use super::sockets::{Copies, Label, Socket};
use crate::config::Secret;
use crate::identity::IssuerId;

/// Tells a process that its standard input leads to its predecessor; the value is the predecessor's process id.
pub(super) const VARIABLE: &str = "PORTCULLIS_PREDECESSOR";

/// Of the messages. A successor of another version doesn't take over.
const VERSION: u32 = 2;

/// Sockets in one message. The kernel takes 253.
const BATCH: usize = 64;

/// The longest message; addresses are short, a report on a broken configuration is cut.
const LONGEST: usize = 64 * 1024;
const LONGEST_REASON: usize = 16 * 1024;

/// Authorities that a successor is told of: as many as fit into a message.
const MOST_AUTHORITIES: usize = 512;

/// How long one side waits for what the other has no reason to delay.
const PATIENCE: Duration = Duration::from_secs(10);

/// One end of the connection.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// What a gateway leaves to its successor.
#[derive(Debug)]
pub(super) struct Estate<S> {
    /// Its sockets.
    pub(super) sockets: S,
    /// The key of its upload sessions.
    pub(super) upload_key: UploadKey,
    /// The authorities whose clients it lets in: it has a revocation list of each that needs one.
    pub(super) admitted: Vec<IssuerId>,
}

/// From the predecessor. The message with the key is the last before the answer.
#[derive(Serialize, Deserialize)]
struct Bequest {
    version: u32,
    sockets: Vec<Label>,
    upload_key: Option<String>,
    #[serde(default)]
    admitted: Vec<String>,
}

/// From the successor.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It could serve, and accepts nothing yet.
    Ready,
    /// It accepts from now on.
    Serving(Taken),
    /// It doesn't serve, and ends.
    Failed(String),
}

/// What of the estate a successor has a use for, as far as its predecessor must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    /// The socket for administration. If not, its file has no use any more.
    pub(super) admin: bool,
}

/// From the predecessor, to one that is ready.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// The successor may accept.
    Serve,
    /// The service manager knows who the service is.
    Leaving,
}

impl Channel {
    pub(super) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel(ours), theirs))
    }

    /// A second handle, by which [`Channel::break_off`] can end a wait in another thread.
    pub(super) fn second(&self) -> io::Result<Channel> {
        self.0.try_clone().map(Channel)
    }

    /// Whoever waits on this connection sees its end.
    pub(super) fn break_off(&self) {
        // It may have ended already.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }

    /// Sends everything a successor needs.
    pub(super) fn bequeath(&self, estate: &Estate<Arc<Copies>>) -> io::Result<()> {
        self.wait_at_most(PATIENCE)?;
        let bequest = |sockets| Bequest { version: VERSION, sockets, upload_key: None, admitted: Vec::new() };
        for batch in estate.sockets.chunks(BATCH) {
            let labels = batch.iter().map(|socket| socket.label.clone()).collect();
            let descriptors: Vec<BorrowedFd<'_>> = batch.iter().map(|socket| socket.descriptor.as_fd()).collect();
            self.send(&bequest(labels), &descriptors)?;
        }
        let upload_key = Some(HEXLOWER.encode(estate.upload_key.expose()));
        let admitted = estate.admitted.iter().take(MOST_AUTHORITIES).map(ToString::to_string).collect();
        self.send(&Bequest { upload_key, admitted, ..bequest(Vec::new()) }, &[])
    }

    /// Waits until the successor could serve.
    ///
    /// # Errors
    ///
    /// Why it couldn't: what it said, that it ended (`None`), or that it took too long.
    pub(super) fn await_ready(&self, patience: Duration) -> Result<(), Option<String>> {
        let failed = |e: io::Error| {
            Some(match e.kind() {
                io::ErrorKind::WouldBlock => format!("it was not ready after {patience:?}"),
                _ => format!("it can't be understood: {e}"),
            })
        };
        self.wait_at_most(patience).map_err(failed)?;
        match self.receive::<Answer>().map_err(failed)? {
            Some((Answer::Ready, _)) => Ok(()),
            Some((Answer::Serving(_), _)) => Err(Some("it served without having been told to".to_owned())),
            Some((Answer::Failed(why), _)) => Err(Some(why)),
            None => Err(None),
        }
    }

    /// Lets a successor that is ready serve. With an error it hasn't accepted anything, and never will.
    ///
    /// # Errors
    ///
    /// Why it doesn't: that it ended (`None`), or that it took too long.
    pub(super) fn let_serve(&self, patience: Duration) -> Result<Taken, Option<String>> {
        let outcome = self.order_to_serve(patience);
        if outcome.is_ok() {
            return outcome;
        }
        // The kernel takes no more messages after this, and keeps those it took before.
        self.break_off();
        match self.receive::<Answer>() {
            Ok(Some((Answer::Serving(taken), _))) => Ok(taken),
            _ => outcome,
        }
    }

    fn order_to_serve(&self, patience: Duration) -> Result<Taken, Option<String>> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => None,
            io::ErrorKind::WouldBlock => Some(format!("it was ready, but didn't serve within {patience:?}")),
            _ => Some(format!("it can't be understood: {e}")),
        };
        self.wait_at_most(patience).map_err(failed)?;
        self.send(&Order::Serve, &[]).map_err(failed)?;
        match self.receive::<Answer>().map_err(failed)? {
            Some((Answer::Serving(taken), _)) => Ok(taken),
            Some((Answer::Failed(why), _)) => Err(Some(why)),
            Some((Answer::Ready, _)) => Err(Some("it can't be understood: it is ready twice".to_owned())),
            None => Err(None),
        }
    }

    /// Lets the successor tell the service manager.
    pub(super) fn leave(&self) {
        // A successor that is gone by now has no use for it.
        let _ = self.send(&Order::Leaving, &[]);
    }

    fn wait_at_most(&self, patience: Duration) -> io::Result<()> {
        let socket = socket2::SockRef::from(&self.0);
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))
    }

    fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message and its descriptors; `None` at the end of the connection.
    fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut into = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                // Reset: the other side ended before it read everything. What it said before is still to be read.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                received => break received?,
            }
        };
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors = rights.flatten().collect();
        match bytes.get(..received.bytes) {
            Some(message) if !message.is_empty() => Ok(Some((serde_json::from_slice(message)?, descriptors))),
            _ => Ok(None),
        }
    }
}

/// The process that this one is to succeed.
#[derive(Debug)]
pub(super) struct Predecessor {
    channel: Channel,
}

impl Predecessor {
    /// The predecessor of this process, if `variable` (of the environment) says that there is one.
    ///
    /// # Errors
    ///
    /// When standard input leads to no gateway.
    pub(super) fn of_this_process(variable: Option<&OsStr>) -> Result<Option<Self>, String> {
        if variable.is_none() {
            return Ok(None);
        }
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("no standard input: {e}"))?;
        let kind = rustix::net::sockopt::socket_type(&stdin);
        if kind != Ok(SocketType::SEQPACKET) {
            return Err(format!("{VARIABLE} is set, but standard input leads to no gateway: unset it"));
        }
        Ok(Some(Predecessor { channel: Channel(stdin) }))
    }

    /// What it leaves.
    ///
    /// # Errors
    ///
    /// When it doesn't say so in time, or in a way of another version.
    pub(super) fn receive(&self) -> Result<Estate<Vec<Socket>>, String> {
        let failed = |e: io::Error| format!("the predecessor can't be understood: {e}");
        self.channel.wait_at_most(PATIENCE).map_err(failed)?;
        let mut sockets = Vec::new();
        loop {
            let message = self.channel.receive::<Bequest>().map_err(failed)?;
            let (bequest, descriptors) = message.ok_or_else(|| "the predecessor is gone".to_owned())?;
            if bequest.version != VERSION || bequest.sockets.len() != descriptors.len() {
                return Err("the predecessor is of a version that can't hand over to this one: restart".to_owned());
            }
            let labelled = descriptors.into_iter().zip(bequest.sockets);
            sockets.extend(labelled.map(|(descriptor, label)| Socket { descriptor, label }));
            if let Some(key) = bequest.upload_key {
                let octets =
                    |text: &String| HEXLOWER.decode(text.as_bytes()).ok().and_then(|octets| octets.try_into().ok());
                let key = octets(&key).ok_or_else(|| "the predecessor's key is none".to_owned())?;
                let admitted = bequest.admitted.iter().filter_map(octets).map(IssuerId::from_bytes).collect();
                return Ok(Estate { sockets, upload_key: Secret::new(key), admitted });
            }
        }
    }

    /// Tells it that this process could serve, and takes its place once it says so: without an error, this process must
    /// serve from now on.
    ///
    /// # Errors
    ///
    /// When the predecessor goes on, or is gone. This process must not accept anything then.
    pub(super) fn succeed(&self, taken: Taken) -> Result<(), String> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::WouldBlock => "the predecessor doesn't answer".to_owned(),
            _ => format!("the predecessor goes on without this process: {e}"),
        };
        self.channel.wait_at_most(PATIENCE).map_err(failed)?;
        self.channel.send(&Answer::Ready, &[]).map_err(failed)?;
        match self.channel.receive::<Order>().map_err(failed)? {
            Some((Order::Serve, _)) => self.channel.send(&Answer::Serving(taken), &[]).map_err(failed),
            Some((Order::Leaving, _)) => Err("the predecessor can't be understood".to_owned()),
            None => Err("the predecessor goes on without this process".to_owned()),
        }
    }

    /// Waits until it has told the service manager, or is gone.
    pub(super) fn await_leaving(self) {
        // Who has ended meanwhile needn't be waited for.
        let _ = self.channel.receive::<Order>();
    }

    /// Tells it why it must go on.
    pub(super) fn decline(&self, why: &str) {
        let end = why.char_indices().map(|(at, _)| at).find(|at| *at > LONGEST_REASON).unwrap_or(why.len());
        let why = why.get(..end).unwrap_or_default().to_owned();
        // Else it learns by the end of this process.
        let _ = self.channel.send(&Answer::Failed(why), &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::sockets::Address;
    use std::net::TcpListener;

    const TAKEN: Taken = Taken { admin: true };

    const LONG: Duration = Duration::from_secs(60);

    fn listener(address: &TcpListener) -> Socket {
        let bound = Address::Tcp(address.local_addr().expect("an address"));
        let label = Label { role: Some("listener a".to_owned()), configured: None, bound, managed: false };
        Socket { descriptor: address.try_clone().expect("a descriptor").into(), label }
    }

    #[test]
    fn more_sockets_than_a_message_holds_arrive_in_order_with_the_key() {
        let (ours, theirs) = Channel::pair().expect("a pair");
        let successor = Predecessor { channel: Channel(theirs) };
        let bound = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut sent: Vec<Socket> = (0..BATCH * 2 + 3).map(|_| listener(&bound)).collect();
        sent[BATCH].label.role = None;
        let admitted = vec![IssuerId::from_bytes([1; 32]), IssuerId::from_bytes([2; 32])];
        let estate = Estate { sockets: Arc::new(sent), upload_key: Secret::new([7; 32]), admitted };
        ours.bequeath(&estate).expect("is sent");
        let received = successor.receive().expect("is received");
        assert_eq!(received.upload_key.expose(), &[7; 32]);
        assert_eq!(received.admitted, estate.admitted);
        let labels = |sockets: &[Socket]| sockets.iter().map(|socket| socket.label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&received.sockets), labels(&estate.sockets));
        for socket in received.sockets {
            let received = TcpListener::from(socket.descriptor);
            assert_eq!(received.local_addr().ok(), bound.local_addr().ok());
        }
    }

    #[test]
    fn ready_and_every_way_of_not_being_so() {
        let (ours, theirs) = Channel::pair().expect("a pair");
        let successor = std::thread::spawn(move || {
            let predecessor = Predecessor { channel: Channel(theirs) };
            predecessor.succeed(TAKEN).map(|()| predecessor.await_leaving())
        });
        assert_eq!(ours.await_ready(LONG), Ok(()));
        assert!(!successor.is_finished(), "it waits for the order");
        assert_eq!(ours.let_serve(LONG), Ok(TAKEN));
        ours.leave();
        assert_eq!(successor.join().expect("no panic"), Ok(()), "it saw that it may speak");

        let (ours, theirs) = Channel::pair().expect("a pair");
        Predecessor { channel: Channel(theirs) }.decline(&"ä".repeat(LONGEST_REASON));
        let why = ours.await_ready(Duration::from_secs(60)).expect_err("declined").expect("a reason");
        assert!(why.starts_with('ä') && why.len() <= LONGEST_REASON + 2, "{}", why.len());
        assert_eq!(ours.await_ready(Duration::from_secs(60)), Err(None), "it has ended");

        let (ours, theirs) = Channel::pair().expect("a pair");
        let why = ours.await_ready(Duration::from_millis(20)).expect_err("silent").expect("a reason");
        assert!(why.contains("not ready after 20ms"), "{why}");
        drop(theirs);
    }

    #[test]
    fn either_both_know_that_the_successor_serves_or_neither() {
        // It was ready, and is gone.
        let (ours, theirs) = Channel::pair().expect("a pair");
        Channel(theirs).send(&Answer::Ready, &[]).expect("is sent");
        assert_eq!(ours.await_ready(LONG), Ok(()));
        assert_eq!(ours.let_serve(LONG), Err(None));

        // The wait ends before it says that it serves: it can't any more.
        let (ours, theirs) = Channel::pair().expect("a pair");
        let theirs = Channel(theirs);
        let why = ours.let_serve(Duration::from_millis(20)).expect_err("silent").expect("a reason");
        assert!(why.contains("didn't serve within 20ms"), "{why}");
        theirs.send(&Answer::Serving(TAKEN), &[]).expect_err("too late");

        // It said so before the wait was broken off: that counts.
        let (ours, theirs) = Channel::pair().expect("a pair");
        let theirs = Channel(theirs);
        theirs.send(&Answer::Serving(TAKEN), &[]).expect("in time");
        ours.break_off();
        assert_eq!(ours.let_serve(LONG), Ok(TAKEN));

        // A predecessor that is gone, before and after this one was ready.
        let (ours, theirs) = Channel::pair().expect("a pair");
        drop(ours);
        Predecessor { channel: Channel(theirs) }.succeed(TAKEN).expect_err("can't be told");
        let (ours, theirs) = Channel::pair().expect("a pair");
        let successor = std::thread::spawn(move || Predecessor { channel: Channel(theirs) }.succeed(TAKEN));
        assert_eq!(ours.await_ready(LONG), Ok(()));
        drop(ours);
        successor.join().expect("no panic").expect_err("nobody told it to serve");
    }

    #[test]
    fn a_wait_can_be_broken_off_from_another_thread() {
        let (ours, _theirs) = Channel::pair().expect("a pair");
        let second = ours.second().expect("a descriptor");
        let waiting = std::thread::spawn(move || ours.await_ready(Duration::from_secs(60)));
        second.break_off();
        assert_eq!(waiting.join().expect("no panic"), Err(None));
    }

    #[test]
    fn another_version_is_refused() {
        let (ours, theirs) = Channel::pair().expect("a pair");
        let newer = Bequest { version: VERSION + 1, sockets: Vec::new(), upload_key: None, admitted: Vec::new() };
        ours.send(&newer, &[]).expect("is sent");
        let why = Predecessor { channel: Channel(theirs) }.receive().expect_err("is refused");
        assert!(why.contains("version"), "{why}");
    }

    #[test]
    fn a_process_without_predecessor_has_none() {
        assert!(Predecessor::of_this_process(None).expect("no fault").is_none());
        // Tests have a terminal, a pipe or nothing as their standard input.
        let why = Predecessor::of_this_process(Some(OsStr::new("1"))).expect_err("no gateway there");
        assert!(why.contains(VARIABLE), "{why}");
    }
}
