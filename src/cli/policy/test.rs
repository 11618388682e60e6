//! `portcullis policy test`

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::certificate::{self, Problem};
use super::{Failure, load_policy, now};
use crate::cli::emit;
use crate::config::policy::cases::CasesFile;
use crate::config::{self, Diagnostics, Fault, Severity};
use crate::identity::LeafRules;
use crate::policy::suite::{self, Outcome, Verdict};
use crate::policy::{Policy, Rule};

/// What `portcullis policy test` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
pub(super) struct Options {
    /// The policy to test, in place of the one that the case file names
    #[arg(short, long)]
    policy: Option<PathBuf>,
    /// Show only what did not come out as expected
    #[arg(short, long)]
    quiet: bool,
    /// The case file
    cases: PathBuf,
}

const HELP: &str = "\
A case file:
  policy: policy.yaml
  clients:
    build: { uri: \"spiffe://example.com/team-a/build\" }
    alice: { certificate: alice.crt }
  cases:
    - name: a team pushes to its own repositories
      client: build
      requests: [PUT /v2/team-a/app/manifests/v1, POST /v2/team-a/app/blobs/uploads/]
      expect: allow               # or deny, or invalid: no request of the registry's API
      rule: team-repositories     # optional: the rule that is to settle it
`portcullis schema cases` prints its JSON Schema.

Examples:
  portcullis policy test policy-test.yaml
  portcullis policy test --policy /etc/portcullis/policy.yaml policy-test.yaml

Exit codes:
  0  everything came out as expected
  1  a file is at fault
  2  the command line is at fault
  4  something did not come out as expected";

/// Whether everything came out as expected.
pub(super) fn run(options: &Options) -> Result<bool, Failure> {
    let base = options.cases.parent().unwrap_or(Path::new(""));
    let policy = policy(options, base)?;
    let read_certificate = |name: &str| {
        certificate::read(&base.join(name), &LeafRules::default()).map_err(|problem| match problem {
            Problem::File(message) => format!("\"{name}\": {message}"),
            Problem::Refused(fault) => format!("\"{name}\" is refused in the TLS handshake: {fault}"),
        })
    };
    let document =
        config::read_yaml_with(&options.cases, |file: CasesFile| suite::compile(&file, &policy, &read_certificate))?;
    let outcomes = document.value.run(&policy, now());
    emit(&table(&outcomes, options.quiet));
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.is_expected()).collect();
    let faults = failed.iter().map(|outcome| Fault::new(outcome.key.as_str(), unexpected(outcome))).collect();
    if !failed.is_empty() {
        eprintln!("{}", Diagnostics(document.diagnose(faults, Severity::Error)));
    }
    emit(&summary(&outcomes, failed.len(), &policy));
    Ok(failed.is_empty())
}

/// The policy that the command line or the case file names.
fn policy(options: &Options, base: &Path) -> Result<Policy, Failure> {
    if let Some(path) = &options.policy {
        return Ok(load_policy(path)?.value);
    }
    let named = config::read_yaml_with(&options.cases, |file: CasesFile| {
        file.policy.ok_or_else(|| vec![Fault::new("policy", "missing: name the policy file here, or with --policy")])
    })?;
    Ok(load_policy(&base.join(named.value))?.value)
}

fn unexpected(outcome: &Outcome<'_>) -> String {
    let by = |rule: &Option<String>| rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default();
    let said = if outcome.message.is_empty() { String::new() } else { format!(": {}", outcome.message) };
    format!(
        "{} {}: expected {}{}, found {} by {}{said}",
        outcome.request.method,
        outcome.request.target,
        outcome.expected.verdict.as_str(),
        by(&outcome.expected.rule),
        outcome.verdict.as_str(),
        outcome.rule,
    )
}

/// A line for each request, in columns.
fn table(outcomes: &[Outcome<'_>], quiet: bool) -> String {
    let rows = outcomes.iter().filter(|outcome| !(quiet && outcome.is_expected())).map(|outcome| {
        [
            (if outcome.is_expected() { "ok" } else { "FAILED" }).to_owned(),
            outcome.case.to_owned(),
            format!("{} {}", outcome.request.method, outcome.request.target),
            outcome.verdict.as_str().to_owned(),
            outcome.rule.clone(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        // Writing to a String can't fail.
        _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

fn summary(outcomes: &[Outcome<'_>], failed: usize, policy: &Policy) -> String {
    let settled = outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Invalid);
    let settled: BTreeSet<_> = settled.map(|outcome| outcome.rule.as_str()).collect();
    let untested: Vec<_> = policy.rules().map(Rule::name).filter(|name| !settled.contains(name)).collect();
    let mut text = String::new();
    if !untested.is_empty() {
        _ = writeln!(text, "rules that settled no request here: {}", untested.join(", "));
    }
    let count = outcomes.len();
    _ = match failed {
        0 => writeln!(text, "{count} requests, all as expected"),
        _ => writeln!(text, "{count} requests, {failed} not as expected"),
    };
    text
}
