//! `portcullis pki`: a small certificate authority.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;

use super::exit;
use crate::pki::PkiError;

mod import;
mod init;
mod leaf;
mod list;
mod passphrase;
mod renew;
mod revoke;
mod show;

/// What `portcullis pki` takes from the command line.
#[derive(Debug, clap::Args)]
#[command(after_long_help = GUIDE)]
pub(super) struct Options {
    #[command(subcommand)]
    // Boxed, for it is much larger than what other commands take.
    command: Box<Command>,
}

const GUIDE: &str = "\
A PKI in five commands:
  portcullis pki init --name Example --passphrase-file pass
  portcullis pki server registry.example.com --passphrase-file pass
  portcullis pki client ci-7 --ou build --registry registry.example.com --passphrase-file pass
  portcullis pki revoke ci-7 --reason keyCompromise --passphrase-file pass
  portcullis pki crl --passphrase-file pass         # daily: a list that runs out refuses everybody

The gateway reads client-ca.pem (client_ca), ca.crl (revocation.crls) and servers/NAME/server.crt and .key.
root.key is needed for `crl` twice a year and for revoking the CA: keep it on another machine.

Exit codes:
  0  done; for `show`: nothing is wrong; for `renew --due`: all are renewed, or none was due
  1  the request or a file is at fault: an unknown name, a wrong passphrase, a broken certificate
  2  the command line is at fault
  3  the machine is at fault: a file that can't be written, another pki command at work";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a PKI: a root, the CA below it, and their revocation lists
    Init(init::Options),
    /// Make a PKI around a CA that openssl, easy-rsa or another tool made
    Import(import::Options),
    /// Issue a certificate for a server, such as the gateway
    Server(leaf::ServerOptions),
    /// Issue a certificate for a client, laid out as docker, containerd and others want it
    Client(leaf::ClientOptions),
    /// Revoke certificates and sign a new list
    Revoke(revoke::Options),
    /// Sign new revocation lists
    Crl(revoke::CrlOptions),
    /// Issue successors: same names, same places, new key and dates
    Renew(renew::Options),
    /// List certificates
    List(list::Options),
    /// Show certificates, lists, keys and requests, and what the gateway would make of them
    Show(show::Options),
}

/// Where the PKI is.
#[derive(Debug, Clone, clap::Args)]
struct Place {
    /// The directory of the PKI
    #[arg(long, default_value = "pki", value_name = "DIR")]
    dir: PathBuf,
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("failed to write to standard output: {0}")]
    Output(#[from] io::Error),
    #[error("{0}")]
    Usage(String),
    #[error("the clock stands before 1970: set it, certificates depend on it")]
    Clock,
}

/// How a command ended.
enum Outcome {
    Done,
    /// It ran to its end and found something wrong.
    Faulty,
}

/// Runs one of the commands.
pub(super) fn run(options: &Options) -> ExitCode {
    let (mut console, mut notes) = (io::stdout().lock(), io::stderr().lock());
    match execute(&options.command, &mut console, &mut notes) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Faulty) => exit::CONFIGURATION.into(),
        Err(failure) => {
            // Without anybody to tell, the exit code still does.
            _ = writeln!(notes, "{failure}");
            match failure {
                Failure::Usage(_) => USAGE.into(),
                Failure::Pki(fault) if !fault.is_host() => exit::CONFIGURATION.into(),
                Failure::Pki(_) | Failure::Output(_) | Failure::Clock => exit::HOST.into(),
            }
        }
    }
}

/// clap's own exit code, for what only shows after parsing.
const USAGE: u8 = 2;

fn execute(command: &Command, console: &mut dyn Write, notes: &mut dyn Write) -> Result<Outcome, Failure> {
    let now = now()?;
    match command {
        Command::Init(options) => init::run(options, now, console, notes),
        Command::Import(options) => import::run(options, now, console, notes),
        Command::Server(options) => leaf::server(options, now, console, notes),
        Command::Client(options) => leaf::client(options, now, console, notes),
        Command::Revoke(options) => revoke::run(options, now, console, notes),
        Command::Crl(options) => revoke::crl(options, now, console, notes),
        Command::Renew(options) => renew::run(options, now, console, notes),
        Command::List(options) => list::run(options, now, console),
        Command::Show(options) => show::run(options, now, console),
    }
}

fn now() -> Result<i64, Failure> {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Failure::Clock)?;
    i64::try_from(elapsed.as_secs()).map_err(|_| Failure::Clock)
}

/// The day and time of a unix second, as people read it.
fn date(unix: i64) -> String {
    let since = std::time::Duration::from_secs(u64::try_from(unix).unwrap_or_default());
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

/// What a command says of the lists it signed.
fn report_lists(lists: &crate::pki::Lists, console: &mut dyn Write, notes: &mut dyn Write) -> io::Result<()> {
    for (signer, number, next_update, entries) in &lists.signed {
        let name = match signer {
            crate::pki::Signer::Root => "the root's list",
            crate::pki::Signer::Ca => "the CA's list",
        };
        writeln!(console, "signed {name}: number {number}, {entries} revoked, next due {}", date(*next_update))?;
    }
    for warning in &lists.warnings {
        writeln!(notes, "warning: {warning}")?;
    }
    Ok(())
}
