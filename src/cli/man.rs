//! `portcullis man`

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;

use super::{Arguments, exit};

/// What `portcullis man` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
pub(super) struct Options {
    /// Where the pages go; made if it isn't there
    #[arg(long)]
    dir: PathBuf,
}

const HELP: &str = "\
Examples:
  portcullis man --dir /usr/local/share/man/man1 && man portcullis-policy-explain
  portcullis man --dir man && man -l man/portcullis.1";

/// Writes a page for each command.
pub(super) fn run(options: &Options) -> ExitCode {
    let written =
        fs::create_dir_all(&options.dir).and_then(|()| clap_mangen::generate_to(Arguments::command(), &options.dir));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to write man pages to {}: {error}", options.dir.display());
            exit::HOST.into()
        }
    }
}
