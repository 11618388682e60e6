//! `portcullis policy lint`

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use crate::cli::emit;
use crate::config::{self, Diagnostic, Diagnostics, Settings, Severity};
use crate::policy::{self, Lint};
use crate::tls::TrustBundle;

/// What `portcullis policy lint` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
pub(super) struct Options {
    /// The configuration that names the policy, and the authorities of its clients
    #[arg(short, long, default_value_os_t = super::super::configuration())]
    config: PathBuf,
    /// The policy itself, in place of the one that the configuration names, which then is not read
    #[arg(short, long, conflicts_with = "config")]
    policy: Option<PathBuf>,
    /// Exit with 4 if there is a warning
    #[arg(long)]
    strict: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
What is reported is so, whoever the clients are; what can't be said with certainty is not reported. Warnings are likely
mistakes: rules that never decide (unreachable), rules that allow what another denies altogether (denied), groups that no
rule names (unused_group), changes by everybody and reading of everything (grant_to_everyone), and, if the configuration
trusts several authorities, descriptions that any of them could issue a certificate for (shared_identity). Notes are worth
a look: rules that deny a part of what others allow (overlap).

Examples:
  portcullis policy lint --config portcullis.yaml
  portcullis policy lint --policy policy.yaml --strict

Exit codes:
  0  done, whatever was found; with --strict: nothing but notes
  1  a file is at fault
  2  the command line is at fault
  4  with --strict: there is a warning";

/// Whether there is nothing that should fail a check.
pub(super) fn run(options: &Options) -> Result<bool, Failure> {
    let (file, authorities) = match &options.policy {
        Some(policy) => (policy.clone(), Vec::new()),
        None => {
            let document = config::load(&options.config)?;
            let authorities = authorities(&document)?;
            (document.value.policy, authorities)
        }
    };
    let mut lints = Vec::new();
    let read = config::read_policy(&file, |file| {
        policy::compile(&file)?;
        lints = policy::lint(&file, &authorities);
        Ok(())
    });
    let document = read.document?;
    // In the order of the file.
    lints.sort_by_key(|lint| document.line_of(&lint.fault.path));
    if options.json {
        let found = lints.iter().map(|lint| {
            json!({
                "file": document.file(),
                "line": document.line_of(&lint.fault.path),
                "key": lint.fault.path,
                "kind": lint.kind.as_str(),
                "level": level(lint),
                "message": lint.fault.message,
                "hint": lint.hint,
            })
        });
        emit(&format!("{:#}\n", serde_json::Value::from(found.collect::<Vec<_>>())));
    } else {
        for lint in &lints {
            let place = format!("{}:{}", document.file().display(), document.line_of(&lint.fault.path));
            let kind = lint.kind.as_str();
            emit(&format!("{place}: {}: {} ({}) [{kind}]\n", level(lint), lint.fault, lint.hint));
        }
        let warnings = lints.iter().filter(|lint| lint.kind.is_warning()).count();
        emit(&format!("{warnings} warnings, {} notes\n", lints.len() - warnings));
    }
    Ok(!options.strict || !lints.iter().any(|lint| lint.kind.is_warning()))
}

fn level(lint: &Lint) -> &'static str {
    if lint.kind.is_warning() { "warning" } else { "note" }
}

/// The names of all independent authorities that may vouch for a client.
fn authorities(document: &config::Document<Settings>) -> Result<Vec<String>, Diagnostics> {
    let mut names = BTreeSet::new();
    let mut faults = Vec::new();
    for (index, listener) in document.value.listeners.iter().enumerate() {
        match TrustBundle::load(&listener.tls.client_ca) {
            Ok(bundle) => names.extend(bundle.anchors().iter().cloned()),
            Err(errors) => faults.extend(
                errors
                    .into_iter()
                    .map(|error| config::Fault::new(format!("listeners[{index}].tls.{}", error.field), error.message)),
            ),
        }
    }
    let findings: Vec<Diagnostic> = document.diagnose(faults, Severity::Error);
    if findings.is_empty() { Ok(names.into_iter().collect()) } else { Err(Diagnostics(findings)) }
}
