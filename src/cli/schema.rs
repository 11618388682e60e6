//! `portcullis schema`

use std::process::ExitCode;

use super::emit;
use crate::config::FileKind;

/// What `portcullis schema` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
pub(super) struct Options {
    /// The kind of file
    #[arg(value_enum)]
    file: File,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum File {
    /// The configuration, portcullis.yaml
    Config,
    /// The policy
    Policy,
    /// A file of the policy's groups_directory
    Groups,
    /// Cases for `portcullis policy test`
    Cases,
}

const HELP: &str = "\
Example, for editors with the YAML language server:
  portcullis schema policy > policy.schema.json
and as the first line of policy.yaml:
  # yaml-language-server: $schema=policy.schema.json";

/// Prints the JSON Schema of a kind of file.
pub(super) fn run(options: &Options) -> ExitCode {
    let kind = match options.file {
        File::Config => FileKind::Configuration,
        File::Policy => FileKind::Policy,
        File::Groups => FileKind::Groups,
        File::Cases => FileKind::Cases,
    };
    emit(&format!("{:#}\n", kind.schema()));
    ExitCode::SUCCESS
}
