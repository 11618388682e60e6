//! The development PKI: one CA, the gateway's certificate, two clients, an empty CRL.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::DevError;
use super::files::{self, Access};
use super::site::Site;
use crate::tls::issue::{Authority, CrlRequest, Issued, LeafRequest, Purpose, Validity};

/// May push and pull; the client of the certs.d directories.
pub(super) const DEVELOPER: &str = "developer";
/// May only pull: the way to see a refusal.
pub(super) const READER: &str = "reader";

const DAY: i64 = 86_400;
const CA_LIFETIME: i64 = 5 * 365 * DAY;
/// Long enough for a branch, short enough that renewal is exercised.
const LEAF_LIFETIME: i64 = 90 * DAY;
/// The CRL is signed again at each start; a gateway left running longer than this refuses its clients.
const CRL_LIFETIME: i64 = 30 * DAY;
/// What ends sooner than this is made anew at a start.
const SOON: i64 = 7 * DAY;
/// Certificates begin a little in the past, for clients whose clock is behind.
const BACKDATED: i64 = 3_600;

/// The PKI, complete on disk.
pub(super) struct DevPki {
    ca_pem: Vec<u8>,
    developer: Issued,
}

impl DevPki {
    /// Takes up what is in the site's `pki` directory, and makes what is missing, foreign or about to expire.
    pub(super) fn open(site: &Site, now: i64) -> Result<Self, DevError> {
        let (authority, ca_pem) = authority(site, now)?;
        leaf(site, &authority, "server", &server(site), now)?;
        let developer = leaf(site, &authority, DEVELOPER, &client(DEVELOPER, "developers"), now)?;
        leaf(site, &authority, READER, &client(READER, "readers"), now)?;

        // The time as number: it grows without being remembered.
        let number = u64::try_from(now).map_err(|_| DevError::Clock)?;
        let validity = Validity { from: now - BACKDATED, until: now + CRL_LIFETIME };
        let crl = authority.sign_crl(&CrlRequest { number, validity, revoked: &[] })?;
        files::write(&site.pki("ca.crl"), &crl, Access::Public)?;
        Ok(Self { ca_pem, developer })
    }

    /// Lays the developer's certificate out as docker, skopeo and podman look for it: `certs.d/<host>:<port>/`.
    pub(super) fn write_docker_directories(&self, site: &Site) -> Result<(), DevError> {
        for address in [site.client_address(), site.docker_address()] {
            self.write_docker_directory(site, address)?;
        }
        Ok(())
    }

    fn write_docker_directory(&self, site: &Site, address: SocketAddr) -> Result<(), DevError> {
        let directory = site.client_directory(address);
        files::make_directory(&directory)?;
        files::write(&directory.join("ca.crt"), &self.ca_pem, Access::Public)?;
        files::write(&directory.join("client.cert"), &self.developer.certificate_pem, Access::Public)?;
        files::write(&directory.join("client.key"), &self.developer.key_pem, Access::Private)
    }
}

/// The CA and its certificate as PEM. A CA that can't be used is replaced, and with it all it signed.
fn authority(site: &Site, now: i64) -> Result<(Authority, Vec<u8>), DevError> {
    let (certificate, key) = (site.pki("ca.crt"), site.pki("ca.key"));
    if let (Some(certificate_pem), Some(key_pem)) = (files::read(&certificate)?, files::read(&key)?)
        && let Ok(authority) = Authority::from_pem(&certificate_pem, &key_pem)
        && authority.outlives(now + LEAF_LIFETIME)
    {
        return Ok((authority, certificate_pem));
    }
    let validity = Validity { from: now - BACKDATED, until: now + CA_LIFETIME };
    let authority = Authority::create("Portcullis development CA", validity)?;
    let pem = authority.to_pem()?;
    files::write(&key, &pem.key_pem, Access::Private)?;
    files::write(&certificate, &pem.certificate_pem, Access::Public)?;
    Ok((authority, pem.certificate_pem))
}

/// The certificate `name`, kept while it serves `request`.
fn leaf(site: &Site, authority: &Authority, name: &str, request: &LeafRequest, now: i64) -> Result<Issued, DevError> {
    let (certificate, key) = (site.pki(&format!("{name}.crt")), site.pki(&format!("{name}.key")));
    if let (Some(certificate_pem), Some(key_pem)) = (files::read(&certificate)?, files::read(&key)?) {
        let issued = Issued { certificate_pem, key_pem };
        if authority.covers(&issued, request, now + SOON) {
            return Ok(issued);
        }
    }
    let issued = authority.issue(request, Validity { from: now - BACKDATED, until: now + LEAF_LIFETIME })?;
    files::write(&key, &issued.key_pem, Access::Private)?;
    files::write(&certificate, &issued.certificate_pem, Access::Public)?;
    Ok(issued)
}

fn server(site: &Site) -> LeafRequest {
    let mut ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for ip in [site.client_address().ip(), site.docker_address().ip()] {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    LeafRequest {
        purpose: Purpose::Server,
        common_name: "Portcullis development gateway".to_owned(),
        organizational_unit: None,
        dns: vec!["localhost".to_owned()],
        ips,
        uris: Vec::new(),
    }
}

fn client(name: &str, organizational_unit: &str) -> LeafRequest {
    LeafRequest {
        purpose: Purpose::Client,
        common_name: name.to_owned(),
        organizational_unit: Some(organizational_unit.to_owned()),
        dns: Vec::new(),
        ips: Vec::new(),
        uris: vec![format!("spiffe://dev.example/{organizational_unit}/{name}")],
    }
}
