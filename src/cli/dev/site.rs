//! Where everything of a development set-up is: paths, addresses, and the settings that name them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::DevError;
use super::files::{self, Access};

/// An address of TEST-NET-1 (RFC 5737), which no network uses. dockerd takes every registry in 127.0.0.0/8 for an
/// insecure one: it ignores certs.d there and sends no client certificate. An address outside of it is needed.
const DOCKER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

const POLICY: &str = include_str!("policy.yaml");

/// The plan of a development set-up. Addresses are final: port 0 has become a free port.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// Absolute.
    pub dir: PathBuf,
    /// The gateway's listener.
    pub gateway: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics`.
    pub health: SocketAddr,
    /// `/config`, `/-/reload`.
    pub admin: SocketAddr,
    /// Where a registry of its own listens.
    pub registry: SocketAddr,
    /// The registry behind, of its own or another.
    pub upstream: String,
}

impl Site {
    /// Chooses the addresses and makes the directories.
    pub(super) fn plan(dir: &Path, address: SocketAddr, upstream: Option<String>) -> Result<Self, DevError> {
        files::make_directory(dir)?;
        let dir = files::absolute(dir)?;
        for part in ["pki", "certs.d", "registry"] {
            files::make_directory(&dir.join(part))?;
        }
        let [gateway, health, admin, registry] = addresses(address)?;
        let upstream = upstream.unwrap_or_else(|| format!("http://{registry}"));
        Ok(Self { dir, gateway, health, admin, registry, upstream })
    }

    /// The settings file, for `serve` and `check`.
    pub(super) fn settings(&self) -> PathBuf {
        self.dir.join("portcullis.yaml")
    }

    /// A file of the PKI.
    pub(super) fn pki(&self, file: &str) -> PathBuf {
        self.dir.join("pki").join(file)
    }

    /// The certs.d directory for clients of `address`: its name is what such clients call the registry.
    pub(super) fn client_directory(&self, address: SocketAddr) -> PathBuf {
        self.dir.join("certs.d").join(address.to_string())
    }

    /// Where clients on this machine reach the gateway: a wildcard listener is reached over loopback.
    pub(super) fn client_address(&self) -> SocketAddr {
        let ip = match self.gateway.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        SocketAddr::new(ip, self.gateway.port())
    }

    /// Where dockerd reaches the gateway: never in 127.0.0.0/8.
    pub(super) fn docker_address(&self) -> SocketAddr {
        let address = self.client_address();
        if address.ip().is_loopback() { SocketAddr::new(DOCKER_ADDRESS, address.port()) } else { address }
    }

    /// Writes portcullis.yaml, anew each time since the ports may have changed, and policy.yaml unless it is there.
    pub(super) fn write_settings(&self) -> Result<(), DevError> {
        let Self { gateway, health, admin, upstream, .. } = self;
        let settings = format!(
            "# Written at each start of `portcullis dev`; policy.yaml is yours to edit.\n\
             listeners:\n\
             \x20 - name: dev\n\
             \x20   addresses: [\"{gateway}\"]\n\
             \x20   tls:\n\
             \x20     certificates:\n\
             \x20       - certificate: pki/server.crt\n\
             \x20         key: pki/server.key\n\
             \x20     client_ca: pki/ca.crt\n\
             upstreams:\n\
             \x20 - name: registry\n\
             \x20   urls: [\"{upstream}\"]\n\
             policy: policy.yaml\n\
             revocation:\n\
             \x20 crls:\n\
             \x20   - file: pki/ca.crl\n\
             health: {{ address: \"{health}\" }}\n\
             admin: {{ address: \"{admin}\" }}\n\
             access_log: {{ path: access.log }}\n\
             drain: {{ grace: 5s }}\n"
        );
        files::write(&self.settings(), settings.as_bytes(), Access::Public)?;
        files::write_once(&self.dir.join("policy.yaml"), POLICY.as_bytes())
    }
}

/// The gateway's address and three of 127.0.0.1, each checked to be free.
///
/// The check holds only until the sockets are closed again; whoever listens for real reports what came in between.
fn addresses(gateway: SocketAddr) -> Result<[SocketAddr; 4], DevError> {
    let mut wanted = [gateway; 4];
    let mut held = Vec::new();
    let names = ["the gateway", "health and metrics", "admin", "the registry"];
    for (offset, (address, what)) in (0..).zip(wanted.iter_mut().zip(names)) {
        if gateway.port() != 0 {
            address.set_port(gateway.port().checked_add(offset).ok_or(DevError::Port)?);
        }
        if offset > 0 {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let bound = TcpListener::bind(*address).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (actual, socket) = bound.map_err(|cause| DevError::Address { address: *address, what, cause })?;
        *address = actual;
        held.push(socket);
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_use() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = Site::plan(dir.path(), taken.local_addr().unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("(the gateway)") && error.contains("--address"), "{error}");
    }

    #[test]
    fn the_last_ports_leave_no_room_for_the_others() {
        assert!(matches!(addresses("127.0.0.1:65535".parse().unwrap()), Err(DevError::Port)));
    }

    #[test]
    fn docker_is_never_sent_to_loopback() {
        let site = |gateway: &str| {
            let gateway = gateway.parse().unwrap();
            let (dir, upstream) = (PathBuf::new(), String::new());
            Site { dir, gateway, health: gateway, admin: gateway, registry: gateway, upstream }
        };
        assert_eq!(site("127.0.0.1:5443").docker_address().to_string(), "192.0.2.1:5443");
        assert_eq!(site("0.0.0.0:443").docker_address().to_string(), "192.0.2.1:443");
        assert_eq!(site("0.0.0.0:443").client_address().to_string(), "127.0.0.1:443");
        assert_eq!(site("198.51.100.7:5443").docker_address().to_string(), "198.51.100.7:5443");
    }
}
