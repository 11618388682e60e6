//! `portcullis doctor`: what a client's machine lacks to reach a registry behind the gateway.
//!
//! It needs nothing of the gateway's: it takes the steps that docker takes, and says at each what there is.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::{emit, exit};
use crate::pki::RegistryHost;
use crate::snapshot::unix_now;
use report::Report;

mod http;
mod material;
mod network;
mod places;
mod report;

/// What `portcullis doctor` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
pub(super) struct Options {
    /// The registry as images name it: host or host:port
    #[arg(value_name = "HOST[:PORT]")]
    host: RegistryHost,
    /// A directory as /etc/docker/certs.d is one, in place of the usual ones; may be repeated
    #[arg(long, value_name = "DIR")]
    certs_dir: Vec<PathBuf>,
    /// A client certificate with its chain (PEM), in place of the directories
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "certs_dir")]
    cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The CA of the server's certificate (PEM), in place of the directories
    #[arg(long, value_name = "FILE", conflicts_with = "certs_dir")]
    ca: Option<PathBuf>,
    /// Connect to this address and port, whatever the name resolves to
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<RegistryHost>,
    /// How long each step on the network may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Looks at the certificates in the directories of docker, podman and containerd, connects as they do, asks for /v2/, and
says what is wrong and what to do. It sends nothing but that. Run it as the user that the client runs as: root for docker
and containerd.

Examples:
  portcullis doctor registry.example.com                # with what is in /etc/docker/certs.d and the like
  portcullis doctor registry.example.com:5000 --certs-dir ./certs.d
  portcullis doctor registry.example.com --cert client.crt --key client.key --ca ca.crt
  portcullis doctor registry.example.com --connect 10.0.0.5:443     # past DNS or a load balancer
  portcullis doctor registry.example.com --json

Exit codes:
  0  nothing failed; there may be warnings
  2  the command line is at fault
  3  this machine can't run the checks
  4  a check failed";

/// Prints what was found.
pub(super) fn run(options: &Options) -> ExitCode {
    let target = Target::of(&options.host);
    let now = unix_now();
    let mut report = Report::new(target.to_string());
    let files = places::find(&mut report, &target, options);
    let roots: Vec<_> = files.cas.iter().flat_map(|path| material::authorities(&mut report, path, now)).collect();
    let identities: Vec<_> = files.pairs.iter().filter_map(|pair| material::identity(&mut report, pair, now)).collect();
    let journey = network::Journey {
        target: &target,
        at: options.connect.as_ref().map(Target::of),
        identity: identities.first(),
        roots: &roots,
        patience: options.timeout.clamp(Duration::from_millis(100), Duration::from_secs(300)),
        now,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("failed to start: {e}");
            return exit::HOST.into();
        }
    };
    runtime.block_on(journey.go(&mut report));
    // A name that is still being looked up is nothing to wait for.
    runtime.shutdown_background();
    emit(&if options.json { report.json() } else { report.text() });
    if report.is_healthy() { ExitCode::SUCCESS } else { exit::REFUSED.into() }
}

/// A registry as clients name it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    /// In lower case, without brackets.
    host: String,
    port: Option<u16>,
}

impl Target {
    fn of(name: &RegistryHost) -> Self {
        let text = name.to_string().to_ascii_lowercase();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
            _ => (text.as_str(), None),
        };
        Self { host: host.trim_start_matches('[').trim_end_matches(']').to_owned(), port }
    }

    /// Registries are reached by HTTPS.
    fn port(&self) -> u16 {
        self.port.unwrap_or(443)
    }

    fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// How directories of this registry may be called.
    fn directory_names(&self) -> Vec<String> {
        // containerd has a second form, for file systems that forbid colons.
        let second = self.port.map(|port| format!("{}_{port}_", self.host));
        std::iter::once(self.to_string()).chain(second).collect()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            _ => f.write_str(&self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_a_host_with_or_without_a_port() {
        let target = |text: &str| Target::of(&text.parse().expect(text));
        let shown = |text: &str| target(text).to_string();
        for text in ["registry.example.com", "registry.example.com:5000", "10.0.0.1:443", "[2001:db8::1]:443", "[::1]"]
        {
            assert_eq!(shown(text), text);
        }
        assert_eq!(target("Registry.example.com").host, "registry.example.com");
        assert_eq!((target("a.example").port(), target("a.example:5000").port()), (443, 5000));
        assert_eq!(target("a.example:5000").directory_names(), ["a.example:5000", "a.example_5000_"]);
        assert!(target("[::1]:5000").address().is_some());
    }
}
