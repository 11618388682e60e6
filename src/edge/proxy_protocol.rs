//! The PROXY protocol: how a load balancer that passes bytes on tells whose they are.
//!
//! A header stands before the first byte of TLS. What is read here is the header and nothing behind it, whatever the
//! pieces in which it arrives. The balancer is believed because of its address, so a header that any other peer sends is
//! never looked for: to the TLS library it is garbage.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::net::TcpStream;

use crate::telemetry::HandshakeResult;
use crate::tls::HandshakeFailure;

/// What a version 2 header begins with. No version 1 header is shorter.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What headers can begin with, as far as both versions are alike in length.
const BEGINNINGS: [&[u8]; 4] = [SIGNATURE, b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOW"];

/// Signature, command, family and length of a version 2 header.
const FIXED: usize = SIGNATURE.len() + 4;

/// The longest version 1 header that the protocol knows, its line end included.
const MOST_V1: usize = 107;

/// The longest version 2 header that is taken, as in nginx: addresses need 216 bytes at most, the rest are extensions.
const MOST_V2: usize = 4096;

/// Command LOCAL of version 2: the balancer speaks for itself, mostly to see whether we are there.
const LOCAL: u8 = 0x20;

/// Whether connections from `peer` begin with a header.
pub(super) fn is_expected(sources: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    sources.iter().any(|network| network.contains(&peer))
}

/// Reads a header off the connection, and gives the client's address that it carries. It carries none if the balancer
/// speaks for itself, or for a client of another kind (a unix socket).
///
/// # Errors
///
/// There is no header, a broken one, one for another transport than TCP; or the connection ended.
pub(super) async fn read_header(tcp: &TcpStream) -> Result<Option<SocketAddr>, HandshakeFailure> {
    let mut header = Header { tcp, bytes: Vec::new() };
    while header.bytes.len() < SIGNATURE.len() {
        header.some_until(SIGNATURE.len()).await?;
        check_beginning(&header.bytes)?;
    }
    if header.bytes == SIGNATURE {
        header.until(FIXED).await?;
        let length = header.bytes.last_chunk().map_or(0, |length| u16::from_be_bytes(*length));
        let whole = FIXED + usize::from(length);
        if whole > MOST_V2 {
            return Err(malformed(format!("a header of {whole} bytes; at most {MOST_V2} are taken")));
        }
        header.until(whole).await?;
    } else {
        header.line().await?;
    }
    carried_address(&header.bytes)
}

/// What a complete header says.
fn carried_address(header: &[u8]) -> Result<Option<SocketAddr>, HandshakeFailure> {
    // The rest of such a header means nothing, its family included.
    if header.starts_with(SIGNATURE) && header.get(SIGNATURE.len()) == Some(&LOCAL) {
        return Ok(None);
    }
    let options = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (parsed, length) = ProxyHeader::parse(header, options).map_err(|e| malformed(format!("{e:?}")))?;
    if length != header.len() {
        return Err(malformed(format!("it ends after {length} of {} bytes", header.len())));
    }
    match parsed.proxied_address() {
        Some(carried) if carried.protocol != Protocol::Stream => Err(malformed("it is for UDP".to_owned())),
        Some(carried) => Ok(Some(SocketAddr::new(carried.source.ip().to_canonical(), carried.source.port()))),
        None => Ok(None),
    }
}

/// Whether `bytes` can become a header.
fn check_beginning(bytes: &[u8]) -> Result<(), HandshakeFailure> {
    let alike = |beginning: &[u8]| beginning.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    if BEGINNINGS.iter().any(|beginning| alike(beginning) == bytes.len().min(beginning.len())) {
        return Ok(());
    }
    if BEGINNINGS.iter().any(|beginning| alike(beginning) >= b"PROXY".len()) {
        return Err(malformed("it is of no known version or address family".to_owned()));
    }
    /// The content type of a handshake record (RFC 8446 §5.1).
    const HANDSHAKE: u8 = 22;
    let what = if bytes.first() == Some(&HANDSHAKE) { "TLS" } else { "something else" };
    Err(HandshakeFailure {
        result: HandshakeResult::ProxyHeaderMissing,
        detail: format!(
            "the connection begins with {what}; is the load balancer told to send the PROXY protocol, and is every address of trusted_sources one of a load balancer?"
        ),
    })
}

/// A header that is being read.
struct Header<'c> {
    tcp: &'c TcpStream,
    bytes: Vec<u8>,
}

impl Header<'_> {
    /// Reads until there are `length` bytes.
    async fn until(&mut self, length: usize) -> Result<(), HandshakeFailure> {
        while self.bytes.len() < length {
            self.some_until(length).await?;
        }
        Ok(())
    }

    /// Reads what there is, at most until there are `length` bytes.
    async fn some_until(&mut self, length: usize) -> Result<(), HandshakeFailure> {
        let start = self.bytes.len();
        loop {
            self.bytes.resize(length, 0);
            let read = self.tcp.try_read(self.bytes.get_mut(start..).unwrap_or_default());
            self.bytes.truncate(start + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(self.ended("closed by the load balancer")),
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.tcp.readable().await.map_err(|e| disconnected(&e))?;
                }
                Err(e) => return Err(disconnected(&e)),
            }
        }
    }

    /// Reads a line to its end. What has come is looked at before it is taken: behind the line stands TLS.
    async fn line(&mut self) -> Result<(), HandshakeFailure> {
        loop {
            let mut ahead = [0; MOST_V1];
            let room = ahead.get_mut(self.bytes.len()..).unwrap_or_default();
            if room.is_empty() {
                return Err(malformed(format!("no line end within {MOST_V1} bytes")));
            }
            let seen = self.tcp.peek(room).await.map_err(|e| disconnected(&e))?;
            let end = room.iter().take(seen).position(|byte| *byte == b'\n');
            // Without a line end all of it belongs to the header, and taking it is what makes the next look wait.
            let taken = end.map_or(seen, |end| end + 1);
            if taken == 0 {
                return Err(self.ended("closed by the load balancer"));
            }
            self.until(self.bytes.len() + taken).await?;
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// A probe that connects and goes away is no fault of anybody's; half a header is one.
    fn ended(&self, how: &str) -> HandshakeFailure {
        if self.bytes.is_empty() {
            return HandshakeFailure { result: HandshakeResult::Disconnected, detail: how.to_owned() };
        }
        malformed(format!("{how} in the middle of it"))
    }
}

fn malformed(what: String) -> HandshakeFailure {
    HandshakeFailure { result: HandshakeResult::ProxyHeaderMalformed, detail: format!("PROXY header: {what}") }
}

fn disconnected(cause: &io::Error) -> HandshakeFailure {
    HandshakeFailure { result: HandshakeResult::Disconnected, detail: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(header: &[u8]) -> Result<Option<String>, HandshakeResult> {
        carried_address(header).map(|address| address.map(|a| a.to_string())).map_err(|failure| failure.result)
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("a short block").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    #[test]
    fn the_address_is_the_source_in_the_header() {
        let tcp4 = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
        assert_eq!(carried(tcp4), Ok(Some("192.0.2.1:56324".into())));
        let tcp6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n";
        assert_eq!(carried(tcp6), Ok(Some("[2001:db8::1]:56324".into())));
        let block = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
        assert_eq!(carried(&v2(0x21, 0x11, &block)), Ok(Some("192.0.2.1:56324".into())));
        let extended = [&block[..], &[4, 0, 2, 0, 0]].concat();
        assert_eq!(carried(&v2(0x21, 0x11, &extended)), Ok(Some("192.0.2.1:56324".into())));
        let mapped = [&[0; 10][..], &[255, 255, 192, 0, 2, 1], &[0; 16], &[0xdc, 4, 1, 0xbb]].concat();
        assert_eq!(carried(&v2(0x21, 0x21, &mapped)), Ok(Some("192.0.2.1:56324".into())));
    }

    #[test]
    fn who_speaks_for_himself_carries_no_address() {
        let unknown: [&[u8]; 2] = [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"];
        for header in unknown {
            assert_eq!(carried(header), Ok(None));
        }
        assert_eq!(carried(&v2(0x20, 0, &[])), Ok(None));
        assert_eq!(carried(&v2(0x20, 0x11, &[])), Ok(None), "the family of LOCAL means nothing");
        assert_eq!(carried(&v2(0x21, 0, &[])), Ok(None));
        assert_eq!(carried(&v2(0x21, 0x31, &[0; 216])), Ok(None), "a unix socket");
    }

    #[test]
    fn what_is_not_exactly_a_header_is_refused() {
        let block = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
        let lines: [&[u8]; 7] = [
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            b"PROXY TCP4 192.0.2.1  198.51.100.1 56324 443\r\n",
            b"PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
            b"PROXY UNKNOWN\r\nx",
        ];
        let blocks = [v2(0x22, 0x11, &block), v2(0x31, 0x11, &block), v2(0x21, 0x41, &block), v2(0x21, 0x12, &block)];
        let short = [v2(0x21, 0x11, &block[..11]), v2(0x21, 0x21, &block), v2(0x21, 0x31, &[0; 215])];
        for header in lines.into_iter().chain(blocks.iter().chain(&short).map(Vec::as_slice)) {
            assert_eq!(carried(header), Err(HandshakeResult::ProxyHeaderMalformed), "{header:?}");
        }
    }

    #[test]
    fn beginnings_are_known_by_every_first_piece() {
        for header in [&v2(0x21, 0x11, &[])[..12], b"PROXY TCP4 1", b"PROXY TCP6 :", b"PROXY UNKNOW"] {
            assert!((0..=12).all(|n| check_beginning(&header[..n]).is_ok()), "{header:?}");
        }
        let result = |bytes: &[u8]| check_beginning(bytes).map_err(|failure| failure.result);
        for garbage in [&[22, 3, 1][..], b"GET / HTTP/1", b"\r\n\r\nX", b"PR0XY TCP4 1", &[0]] {
            assert_eq!(result(garbage), Err(HandshakeResult::ProxyHeaderMissing), "{garbage:?}");
        }
        for broken in [&b"PROXY TCP5"[..], b"PROXY\tTCP4 ", b"PROXY UNKNOX", b"\r\n\r\n\0\r\nQUIX"] {
            assert_eq!(result(broken), Err(HandshakeResult::ProxyHeaderMalformed), "{broken:?}");
        }
    }

    /// The parser is somebody else's: it must take whatever comes behind a good beginning.
    #[test]
    fn no_bytes_make_the_parser_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200_000 {
            let mut bytes = random.choice(BEGINNINGS).unwrap_or_default().to_vec();
            let length = random.usize(..64);
            let alphabet = b"0123456789.: \r\nPROXY\x20\x21\x11\x21\x00\xff";
            bytes.extend((0..length).map(|_| random.choice(alphabet).copied().unwrap_or_default()));
            let _ = carried_address(&bytes);
        }
    }

    #[test]
    fn sources_are_networks_of_either_family() {
        let sources: Vec<IpNet> = ["10.0.0.0/24", "2001:db8::7/128"].iter().map(|n| n.parse().expect(n)).collect();
        let expected = |text: &str| is_expected(&sources, text.parse().expect(text));
        assert!(expected("10.0.0.9") && expected("::ffff:10.0.0.9") && expected("2001:db8::7"));
        assert!(!expected("10.0.1.9") && !expected("2001:db8::8") && !is_expected(&[], [10, 0, 0, 9].into()));
    }
}
