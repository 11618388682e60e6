//! Who holds an address that could not be bound, as far as the host lets us see.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// What the system's tables call a listening socket (`TCP_LISTEN`).
const LISTENING: &str = "0A";

/// Says who listens where `address` would: program and process if they can be seen, else how to find out.
///
/// Processes of other users show their descriptors only to root, and protected ones (as this gateway is) to nobody
/// else, so that often the command is all there is to say.
pub(crate) fn held_by(address: SocketAddr) -> String {
    match inodes_on(address).iter().find_map(|inode| process_with(inode)) {
        Some((pid, program)) => format!("by {program} (process {pid})"),
        None => format!("by another process (`ss -ltnp 'sport = :{}'` as root tells which)", address.port()),
    }
}

/// The inodes of the sockets that listen on this port of this address, or of all addresses.
fn inodes_on(address: SocketAddr) -> Vec<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(|line| inode_on(line, address)).collect()
}

/// The inode in a line of a table (proc(5), `/proc/net/tcp`), if its socket is in the way of `address`.
fn inode_on(line: &str, address: SocketAddr) -> Option<String> {
    let mut fields = line.split_whitespace();
    let (ip, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != LISTENING || u16::from_str_radix(port, 16).ok()? != address.port() {
        return None;
    }
    let ip = table_address(ip)?;
    let in_the_way = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    if in_the_way { fields.nth(5).map(str::to_owned) } else { None }
}

/// Words of 32 bits in the host's byte order, each as a number in hexadecimal.
fn table_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => word(0).map(|octets| Ipv4Addr::from(octets).into()),
        32 => {
            let mut octets = [0; 16];
            for (at, chunk) in octets.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

/// A process that has this socket open, and its program.
fn process_with(inode: &str) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = |link: &Path| fs::read_link(link).is_ok_and(|target| target.as_os_str() == wanted.as_str());
        if descriptors.flatten().any(|descriptor| holds(&descriptor.path())) {
            let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, program.trim_end().to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listening_process_is_named() {
        for (bound, asked) in [("127.0.0.1:0", "127.0.0.1"), ("127.0.0.1:0", "0.0.0.0"), ("[::1]:0", "::1")] {
            let Ok(listener) = TcpListener::bind(bound) else { continue };
            let port = listener.local_addr().expect("an address").port();
            let said = held_by(SocketAddr::new(asked.parse().expect("an address"), port));
            let this = format!("(process {})", std::process::id());
            assert!(said.starts_with("by ") && said.ends_with(&this), "{bound} {asked}: {said}");
        }
    }

    #[test]
    fn without_a_listener_there_is_a_way_to_find_out() {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
        assert!(held_by(free).contains(&format!("sport = :{}", free.port())));
    }

    #[test]
    fn a_line_is_read_as_the_kernel_writes_it() {
        let line = "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1";
        let on = |address: &str| inode_on(line, address.parse().expect("an address"));
        // The table's words are numbers of the host's byte order.
        if cfg!(target_endian = "little") {
            assert_eq!(on("127.0.0.1:8080").as_deref(), Some("12345"));
            assert_eq!(on("0.0.0.0:8080").as_deref(), Some("12345"));
            assert_eq!(on("127.0.0.2:8080"), None);
        }
        assert_eq!(on("127.0.0.1:8081"), None);
        assert_eq!(inode_on(&line.replace(" 0A ", " 01 "), "127.0.0.1:8080".parse().expect("an address")), None);
        assert_eq!(inode_on("nonsense", "127.0.0.1:1".parse().expect("an address")), None);
    }
}
