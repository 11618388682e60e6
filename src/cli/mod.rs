//! The command line: one file for each command.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "commands answer on the terminal")]

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};

use crate::server::Succession;

mod audit;
mod check;
mod completions;
mod dev;
mod doctor;
mod healthcheck;
mod man;
mod own;
mod pki;
mod policy;
mod schema;
mod serve;
mod upgrade;

/// Exit codes of every command.
mod exit {
    /// The files are at fault.
    pub(super) const CONFIGURATION: u8 = 1;
    /// The command line is at fault (clap's own code).
    pub(super) const USAGE: u8 = 2;
    /// The host is at fault.
    pub(super) const HOST: u8 = 3;
    /// The answer to what was asked is no.
    pub(super) const REFUSED: u8 = 4;
}

/// The configuration of commands that aren't told another: one place to name it for all that run in a container.
fn configuration() -> PathBuf {
    let named = std::env::var_os("PORTCULLIS_CONFIG").filter(|path| !path.is_empty());
    named.map_or_else(|| PathBuf::from("/etc/portcullis/portcullis.yaml"), PathBuf::from)
}

/// An mTLS edge gateway for container registries.
#[derive(Debug, Parser)]
#[command(version = version(), about, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Environment:
  PORTCULLIS_CONFIG  the configuration, for every command without --config

Exit codes:
  0  done; for `check`: the files can be used
  1  the files are at fault; every finding names file, line and key
  2  the command line is at fault
  3  the host is at fault: an address in use, a log that can't be written
  4  the answer is no: `policy explain` found a refusal, `policy test` something unexpected, `doctor` a
     fault, `upgrade` no successor, `audit verify` a gap, `healthcheck` a gateway that isn't ready";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM; SIGHUP reloads, SIGQUIT hands over to the program that is now on disk
    Serve(serve::Options),
    /// Replace the running gateway by the program that is now on disk, without a refused connection
    Upgrade(upgrade::Options),
    /// Check the configuration and every file it names, as `serve` would read them
    Check(check::Options),
    /// Run a small certificate authority: make, issue, renew, revoke, inspect
    Pki(pki::Options),
    /// Start a registry, a development PKI and the gateway on this machine, to try it
    Dev(dev::Options),
    /// Find out what a client's machine lacks to reach a registry behind the gateway
    Doctor(doctor::Options),
    /// Check that an audit log is whole
    Audit(audit::Options),
    /// Ask the running gateway whether it is ready, by an exit code
    Healthcheck(healthcheck::Options),
    /// Ask a policy without a gateway
    Policy(policy::Options),
    /// Print the JSON Schema of a kind of file, for editors
    Schema(schema::Options),
    /// Print completions for a shell
    Completions(completions::Options),
    /// Write man pages
    Man(man::Options),
}

fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| format!("{} ({})", env!("CARGO_PKG_VERSION"), crate::tls::BACKEND))
}

/// Runs the command named by the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(options) => serve::run(&options.config, Succession::ByThisProgram),
        Command::Upgrade(options) => upgrade::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Audit(options) => audit::run(&options),
        Command::Healthcheck(options) => healthcheck::run(&options),
        Command::Policy(options) => policy::run(&options),
        Command::Schema(options) => schema::run(&options),
        Command::Completions(options) => completions::run(&options),
        Command::Man(options) => man::run(&options),
        Command::Pki(options) => pki::run(&options),
        Command::Dev(options) => match dev::run(&options, &mut io::stdout(), |file| serve::run(file, Succession::None))
        {
            Ok(code) => code,
            Err(e) => {
                eprintln!("{e}");
                exit::HOST.into()
            }
        },
    }
}

/// Prints a command's result. Who has closed the pipe doesn't want the rest.
fn emit(text: &str) {
    let mut out = io::stdout().lock();
    _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
