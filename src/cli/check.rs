//! `portcullis check`

use std::path::PathBuf;
use std::process::ExitCode;

use super::{exit, serve};
use crate::server;

/// What `portcullis check` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    /// The configuration file
    #[arg(short, long, default_value_os_t = super::configuration())]
    config: PathBuf,
    /// Treat warnings as errors
    #[arg(long)]
    strict: bool,
}

/// Prints every finding, one line each.
pub(super) fn run(options: &Options) -> ExitCode {
    match server::check(&options.config) {
        Ok(findings) => {
            if !findings.is_empty() {
                eprintln!("{findings}");
            }
            if findings.has_errors() || (options.strict && !findings.is_empty()) {
                return exit::CONFIGURATION.into();
            }
            println!("{}: the configuration can be used", options.config.display());
            ExitCode::SUCCESS
        }
        Err(e) => serve::failed(&e),
    }
}
