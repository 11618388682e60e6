//! `portcullis policy import`

use std::path::PathBuf;

use super::Failure;
use crate::cli::emit;
use crate::config::policy::PolicyFile;
use crate::config::{self, Diagnostics, Severity};
use crate::policy;
use crate::policy::import::{AccountIs, docker_auth};

/// What `portcullis policy import` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum From {
    /// Make a policy of the ACL of docker_auth (cesanta/docker_auth)
    DockerAuth(DockerAuth),
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
struct DockerAuth {
    /// Which name of a certificate is what docker_auth calls the account: cn, dns, email, or a URI with ${account} as a
    /// segment of its path
    #[arg(long, value_name = "NAME", value_parser = AccountIs::parse)]
    account_is: AccountIs,
    /// docker_auth's configuration, or a file with the acl alone
    file: PathBuf,
}

const HELP: &str = "\
The policy goes to standard output, and what there is to say to standard error. In docker_auth the first entry that matches
decides; in a policy the order means nothing, and a denial wins. An entry whose meaning can't be kept is left out and
reported, and so are the entries behind it that would give more than it did: the policy never allows what the list does not.
A client whose certificate lacks the chosen name is granted nothing.

docker_auth ignores match keys that it doesn't know, so that a misspelt one matches everyone. Such entries are reported.

Examples:
  portcullis policy import docker-auth --account-is cn auth_config.yml > policy.yaml
  portcullis policy import docker-auth --account-is 'spiffe://example.com/user/${account}' acl.yml > policy.yaml

Exit codes:
  0  everything was carried over
  1  a file is at fault
  2  the command line is at fault
  4  something was left out; the policy can be used";

/// Whether everything was carried over.
pub(super) fn run(options: &Options) -> Result<bool, Failure> {
    let From::DockerAuth(DockerAuth { account_is, file }) = &options.from;
    let document = config::read_yaml_with(file, |value: serde_json::Value| docker_auth(&value, account_is))?;
    let mut findings = document.diagnose(document.value.lost.clone(), Severity::Error);
    findings.extend(document.diagnose(document.value.remarks.clone(), Severity::Warning));
    if !findings.is_empty() {
        eprintln!("{}", Diagnostics(findings));
    }
    // What is printed can be used, or it is not printed.
    config::parse_yaml(file, document.value.policy.as_bytes(), |file: PolicyFile| policy::compile(&file))?;
    emit(&document.value.policy);
    eprintln!("{} entries were carried over", document.value.carried);
    Ok(document.value.lost.is_empty())
}
