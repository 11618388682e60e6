//! The command line: one file for each command.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "commands answer on the terminal")]

use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};

mod check;
mod dev;
mod serve;

/// Exit codes of every command.
mod exit {
    /// The files are at fault.
    pub(super) const CONFIGURATION: u8 = 1;
    /// The command line is at fault (clap's own code).
    pub(super) const HOST: u8 = 3;
}

/// An mTLS edge gateway for container registries.
#[derive(Debug, Parser)]
#[command(version = version(), about, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `check`: the files can be used
  1  the files are at fault; every finding names file, line and key
  2  the command line is at fault
  3  the host is at fault: an address in use, a log that can't be written";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM; SIGHUP reloads
    Serve(serve::Options),
    /// Check the configuration and every file it names, as `serve` would read them
    Check(check::Options),
    /// Start a registry, a development PKI and the gateway on this machine, to try it
    Dev(dev::Options),
}

fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| format!("{} ({})", env!("CARGO_PKG_VERSION"), crate::tls::BACKEND))
}

/// Runs the command named by the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(options) => serve::run(&options.config),
        Command::Check(options) => check::run(&options),
        Command::Dev(options) => match dev::run(&options, &mut std::io::stdout(), serve::run) {
            Ok(code) => code,
            Err(e) => {
                eprintln!("{e}");
                exit::HOST.into()
            }
        },
    }
}
