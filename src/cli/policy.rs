//! `portcullis policy`: ask a policy without a gateway.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use super::exit;
use crate::config::{self, Diagnostics, Document, Settings};
use crate::identity::LeafRules;
use crate::policy::{self, Policy};

mod certificate;
mod diff;
mod explain;
mod import;
mod lint;
mod log;
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
    /// Say what is doubtful about a policy that can be used
    Lint(lint::Options),
    /// Make a policy of another program's access list
    Import(import::Options),
    /// Say which requests of an access log would come out otherwise under another policy
    Diff(diff::Options),
    /// Hold a policy against a file of cases
    Test(test::Options),
}

pub(super) fn run(options: &Options) -> ExitCode {
    let done = match &options.command {
        Command::Explain(options) => explain::run(options),
        Command::Lint(options) => lint::run(options),
        Command::Import(options) => import::run(options),
        Command::Test(options) => test::run(options),
        // Like diff(1), which scripts know: 1 is a difference, 2 is trouble.
        Command::Diff(options) => {
            return match diff::run(options) {
                Ok(alike) => u8::from(!alike).into(),
                Err(failure) => {
                    failure.tell();
                    exit::USAGE.into()
                }
            };
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => exit::REFUSED.into(),
        Err(failure) => {
            failure.tell();
            match failure {
                Failure::Usage(_) => exit::USAGE.into(),
                Failure::Files(_) | Failure::File { .. } | Failure::Answerless(_) => exit::CONFIGURATION.into(),
            }
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
    /// The files don't hold what is asked about.
    Answerless(String),
    /// The arguments make no sense.
    Usage(String),
}

impl Failure {
    /// Says it on standard error.
    fn tell(&self) {
        match self {
            Self::Files(findings) => eprintln!("{findings}"),
            Self::File { path, message } => eprintln!("{}: {message}", path.display()),
            Self::Answerless(message) => eprintln!("{message}"),
            Self::Usage(message) => eprintln!("error: {message}\n\nFor more information, try '--help'."),
        }
    }
}

impl From<Diagnostics> for Failure {
    fn from(findings: Diagnostics) -> Self {
        Self::Files(findings)
    }
}

fn load_policy(path: &Path) -> Result<Document<Policy>, Diagnostics> {
    config::read_policy(path, |file| policy::compile(&file)).document
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
