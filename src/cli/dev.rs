//! `portcullis dev`: a registry, a PKI and the gateway in front, on this machine, with the commands to try them.
//!
//! What it makes lies in one directory and is taken up again by the next start: the PKI while it is valid, the policy
//! as it was edited, the images that were pushed. Only loopback is listened on unless an address says otherwise.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::tls::issue::IssueError;

mod files;
mod guide;
mod pki;
mod registry;
mod relay;
mod sample;
mod site;

use guide::Guide;
use pki::DevPki;
use registry::Registry;
use relay::Relay;
use sample::Sample;
use site::Site;

/// What `portcullis dev` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Directory for certificates, settings, policy and the registry's data
    #[arg(long, default_value = "dev")]
    pub dir: PathBuf,
    /// Where the gateway listens; health, admin and the registry take the three ports after it (port 0: free ones)
    #[arg(long, default_value = "127.0.0.1:5443")]
    pub address: std::net::SocketAddr,
    /// The registry's program (distribution 2.x)
    #[arg(long, default_value = "docker-registry")]
    pub registry: PathBuf,
    /// A registry that runs already, as http://host:port, in place of one of its own
    #[arg(long, value_name = "URL", conflicts_with = "registry")]
    pub upstream: Option<String>,
}

/// Why the development set-up could not be made or started.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A file or directory could not be read or written.
    #[error("failed to {step} {}: {cause}", path.display())]
    File {
        /// What was being done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// The PKI could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// An address is taken or not this machine's.
    #[error("failed to listen on {address} ({what}): {cause}; choose another with --address (make run ADDRESS=…)")]
    Address {
        /// The address.
        address: std::net::SocketAddr,
        /// What was going to listen there.
        what: &'static str,
        /// The system's answer.
        cause: io::Error,
    },
    /// The ports that follow `--address` end above 65535.
    #[error("--address needs three free ports after it: choose a port below {}", u16::MAX - 2)]
    Port,
    /// The registry's program could not be started.
    #[error("failed to start {}: {cause}; install it (Debian: docker-registry) or name it with --registry", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// The registry ended, or doesn't answer.
    #[error("the registry {problem}; its log ({}) ends with:\n{tail}", log.display())]
    Registry {
        /// What happened.
        problem: String,
        /// Where its output is.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// The clock can't be right, so no certificate would be.
    #[error("the clock stands before 1970: set it, certificates depend on it")]
    Clock,
}

/// Makes what is missing, starts the registry, writes the commands to `console`, and calls `serve` with the settings
/// file.
///
/// `serve` is the gateway itself, the same as the `serve` command's; its result is handed on once the registry has
/// been stopped. It must return rather than exit the process, or the registry is left running.
///
/// # Errors
///
/// When something can't be made or the registry doesn't start; `serve` has not been called then.
pub fn run<T>(options: &Options, console: &mut dyn Write, serve: impl FnOnce(&Path) -> T) -> Result<T, DevError> {
    let site = Site::plan(&options.dir, options.address, options.upstream.clone())?;
    let pki = DevPki::open(&site, unix_now()?)?;
    let sample = Sample::write(&site)?;
    site.write_settings()?;
    pki.write_docker_directories(&site)?;

    let registry = match options.upstream {
        Some(_) => None,
        None => Some(Registry::start(&options.registry, &site)?),
    };
    let relay = Relay::start(&site);
    // A console that is gone is no reason not to serve.
    _ = write!(console, "{}", Guide::new(&site, &sample)).and_then(|()| console.flush());
    let outcome = serve(&site.settings());
    drop(relay);
    drop(registry);
    Ok(outcome)
}

fn unix_now() -> Result<i64, DevError> {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| DevError::Clock)?;
    i64::try_from(elapsed.as_secs()).map_err(|_| DevError::Clock)
}

#[cfg(test)]
mod tests;
