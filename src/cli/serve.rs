//! `portcullis serve`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::exit;
use crate::server::{self, ServeError, Succession};

/// What `portcullis serve` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    /// The configuration file
    #[arg(short, long, default_value_os_t = super::configuration())]
    pub(super) config: PathBuf,
}

/// Serves until told to stop.
pub(super) fn run(config: &Path, succession: Succession) -> ExitCode {
    match server::serve(config, succession) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}

/// Says why, and chooses the exit code.
pub(super) fn failed(error: &ServeError) -> ExitCode {
    eprintln!("{error}");
    match error {
        ServeError::Configuration(_) => exit::CONFIGURATION.into(),
        ServeError::Host(_) => exit::HOST.into(),
    }
}
