//! `portcullis policy`: ask a policy without a gateway.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use super::exit;
use crate::config::{self, Diagnostics, Document, Settings};
use crate::identity::LeafRules;
use crate::policy::{self, Policy};

mod certificate;
mod explain;
mod test;

/// What `portcullis policy` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Say how one request of one client comes out, and what each rule says to it
    Explain(Box<explain::Options>),
    /// Hold a policy against a file of cases
    Test(test::Options),
}

pub(super) fn run(options: &Options) -> ExitCode {
    let done = match &options.command {
        Command::Explain(options) => explain::run(options),
        Command::Test(options) => test::run(options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => exit::REFUSED.into(),
        Err(Failure::Files(findings)) => {
            eprintln!("{findings}");
            exit::CONFIGURATION.into()
        }
        Err(Failure::File { path, message }) => {
            eprintln!("{}: {message}", path.display());
            exit::CONFIGURATION.into()
        }
        Err(Failure::Usage(message)) => {
            eprintln!("error: {message}\n\nFor more information, try '--help'.");
            exit::USAGE.into()
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
enum Failure {
    /// Files are wrong, with the places.
    Files(Diagnostics),
    /// A file without lines can't be read.
    File { path: PathBuf, message: String },
    /// The arguments make no sense.
    Usage(String),
}

impl From<Diagnostics> for Failure {
    fn from(findings: Diagnostics) -> Self {
        Self::Files(findings)
    }
}

fn load_policy(path: &Path) -> Result<Document<Policy>, Diagnostics> {
    config::read_yaml_with(path, |file: config::policy::PolicyFile| policy::compile(&file))
}

/// What leaves must be like to be let in by one of the listeners at least.
fn leaf_rules(settings: &Settings) -> LeafRules {
    LeafRules {
        require_eku: settings.listeners.iter().all(|listener| listener.tls.require_eku),
        allow_v1: settings.listeners.iter().any(|listener| listener.tls.allow_v1),
        ..LeafRules::default()
    }
}

/// The time in unix seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}
