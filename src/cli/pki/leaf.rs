//! `portcullis pki server` and `portcullis pki client`

use std::io::Write;
use std::path::{Path, PathBuf};

use super::init::KeyOption;
use super::passphrase::{ArchivePassphrase, KeyPassphrase};
use super::{Failure, Outcome, Place, date};
use crate::pki::{
    ClientName, KeySource, Made, Order, OrganizationalUnit, Passphrases, PkiError, Placement, RegistryHost, ServerName,
    SpiffeUri, Store, absolute, days, read_file,
};
use crate::tls::issue::{LeafRequest, PublicKey, Purpose};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis pki server registry.example.com
  portcullis pki server registry.example.com '*.registry.example.com' 192.0.2.10 --days 90
  portcullis pki server registry.example.com --out /etc/portcullis/tls

Writes server.crt (with its chain) and server.key to servers/FIRST-NAME/ of the PKI, or to --out.")]
pub(super) struct ServerOptions {
    #[command(flatten)]
    place: Place,
    /// DNS names and IP addresses of the server; the first gives the directory its name
    #[arg(required = true, value_name = "NAME")]
    names: Vec<ServerName>,
    #[command(flatten)]
    common: Common,
    /// Days until it runs out
    #[arg(long, default_value_t = 365, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis pki client ci-7 --ou build --spiffe spiffe://corp.example/ns/build/sa/ci-7
  portcullis pki client ci-7 --registry registry.example.com            # both layouts, to be copied
  portcullis pki client ci-7 --registry registry.example.com --docker /etc/docker/certs.d
  portcullis pki client node-3 --registry registry.example.com:8443 --containerd /etc/containerd/certs.d
  portcullis pki client alice --pkcs12 alice.p12 --pkcs12-passphrase-file alice.pass
  portcullis pki client bob --csr bob.csr                               # bob keeps his key

Writes client.crt (with its chain), client.key and ca.crt to clients/NAME/ of the PKI, or to --out.")]
pub(super) struct ClientOptions {
    #[command(flatten)]
    place: Place,
    /// The client's name: its CN
    name: ClientName,
    /// The client's organizational unit
    #[arg(long)]
    ou: Option<OrganizationalUnit>,
    /// The client's SPIFFE ID
    #[arg(long, value_name = "URI")]
    spiffe: Option<SpiffeUri>,
    /// A registry (host or host:port) that the client is to be configured for; may be repeated
    #[arg(long, value_name = "HOST")]
    registry: Vec<RegistryHost>,
    /// docker's, podman's or skopeo's certs.d, to be written to at once
    #[arg(long, value_name = "DIR", requires = "registry")]
    docker: Option<PathBuf>,
    /// containerd's certs.d (its config_path), to be written to at once
    #[arg(long, value_name = "DIR", requires = "registry")]
    containerd: Option<PathBuf>,
    /// The CA of the gateway's own certificate, if it is another than this PKI's
    #[arg(long, value_name = "FILE")]
    server_ca: Option<PathBuf>,
    /// Write a PKCS #12 for browsers, key stores and Java, too
    #[arg(long, value_name = "FILE", conflicts_with = "csr")]
    pkcs12: Option<PathBuf>,
    #[command(flatten)]
    pkcs12_passphrase: ArchivePassphrase,
    #[command(flatten)]
    common: Common,
    /// Days until it runs out
    #[arg(long, default_value_t = 90, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

/// What both take.
#[derive(Debug, clap::Args)]
struct Common {
    /// The kind of the new key
    #[arg(long, value_enum, default_value_t = KeyOption::Ecdsa)]
    key: KeyOption,
    /// Sign the key of this certificate request instead of making one; its names don't count
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    csr: Option<PathBuf>,
    /// The directory to write to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Issue it although another certificate of the name is valid
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    passphrase: KeyPassphrase,
}

impl Common {
    fn key(&self) -> Result<KeySource, PkiError> {
        let Some(path) = &self.csr else { return Ok(KeySource::New(self.key.into())) };
        Ok(KeySource::Theirs(PublicKey::of_request(&read_file(path)?)?))
    }

    fn out(&self) -> Result<Option<PathBuf>, PkiError> {
        self.out.as_deref().map(absolute).transpose()
    }
}

/// Issues a server's certificate.
pub(super) fn server(
    options: &ServerOptions,
    now: i64,
    console: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Outcome, Failure> {
    let name = options.names.first().map(ToString::to_string).unwrap_or_default();
    let dns = options.names.iter().filter_map(|name| match name {
        ServerName::Dns(dns) => Some(dns.clone()),
        ServerName::Ip(_) => None,
    });
    let ips = options.names.iter().filter_map(|name| match name {
        ServerName::Ip(ip) => Some(*ip),
        ServerName::Dns(_) => None,
    });
    let order = Order {
        request: LeafRequest {
            purpose: Purpose::Server,
            // A CN has 64 characters at most, and clients don't look at it.
            common_name: if name.len() <= 64 { name.clone() } else { "server".to_owned() },
            organizational_unit: None,
            dns: dns.collect(),
            ips: ips.collect(),
            uris: Vec::new(),
        },
        name,
        key: options.common.key()?,
        seconds: days(options.days),
        placement: Placement { out: options.common.out()?, ..Placement::default() },
        replace: options.common.replace,
    };
    let passphrases = Passphrases { keys: options.common.passphrase.read()?, pkcs12: None };
    issue(&options.place.dir, &order, &passphrases, now, console, notes)
}

/// Issues a client's certificate.
pub(super) fn client(
    options: &ClientOptions,
    now: i64,
    console: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Outcome, Failure> {
    let path = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
    let order = Order {
        name: options.name.to_string(),
        request: LeafRequest {
            purpose: Purpose::Client,
            common_name: options.name.to_string(),
            organizational_unit: options.ou.as_ref().map(ToString::to_string),
            dns: Vec::new(),
            ips: Vec::new(),
            uris: options.spiffe.iter().map(ToString::to_string).collect(),
        },
        key: options.common.key()?,
        seconds: days(options.days),
        placement: Placement {
            out: options.common.out()?,
            registries: options.registry.clone(),
            docker: path(&options.docker)?,
            containerd: path(&options.containerd)?,
            pkcs12: path(&options.pkcs12)?,
            server_ca: path(&options.server_ca)?,
        },
        replace: options.common.replace,
    };
    let passphrases =
        Passphrases { keys: options.common.passphrase.read()?, pkcs12: options.pkcs12_passphrase.read()? };
    issue(&options.place.dir, &order, &passphrases, now, console, notes)
}

fn issue(
    directory: &Path,
    order: &Order,
    passphrases: &Passphrases,
    now: i64,
    console: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Outcome, Failure> {
    let mut store = Store::open(directory)?;
    for key in store.exposed_keys() {
        writeln!(notes, "warning: others can read {}: chmod 600, and find out who did", key.display())?;
    }
    let made = store.issue(order, passphrases, now)?;
    report(&order.name, &made, console, notes)?;
    Ok(Outcome::Done)
}

/// Says what was made.
pub(super) fn report(name: &str, made: &Made, console: &mut dyn Write, notes: &mut dyn Write) -> Result<(), Failure> {
    let Made { serial, not_after, label, written, shortened } = made;
    writeln!(console, "issued {name} as {label}: serial {serial}, valid until {}", date(*not_after))?;
    for path in written {
        writeln!(console, "  {}", path.display())?;
    }
    if *shortened {
        writeln!(notes, "warning: it ends with the CA, sooner than asked for: the CA should be replaced")?;
    }
    Ok(())
}
