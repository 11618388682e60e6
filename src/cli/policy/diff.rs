//! `portcullis policy diff`

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Failure, load_policy, log};
use crate::cli::emit;
use crate::inquiry::Comparison;
use crate::policy::Judged;
use crate::telemetry::{Past, Unreadable};

/// What `portcullis policy diff` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
pub(super) struct Options {
    /// The policy that is in force
    old: PathBuf,
    /// The policy that is to be
    new: PathBuf,
    /// An access log, `-` for standard input; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    log: Vec<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Each request of the log is decided by both policies, with the time, the address and the names that its record tells. Those
that come out otherwise are counted by client, action and repository. Another rule with the same outcome is no difference.

Examples:
  portcullis policy diff /etc/portcullis/policy.yaml new.yaml --log /var/log/portcullis/access.log
  zcat access.log.*.gz | portcullis policy diff policy.yaml new.yaml --log -

Exit codes, like those of diff(1):
  0  no request comes out otherwise
  1  some do
  2  trouble: a file or the command line is at fault";

/// Lines that tell of no request.
#[derive(Default)]
struct Unread {
    count: u64,
    /// Where the first one is, and what is wrong with it.
    first: Option<String>,
}

impl Unread {
    fn note(&mut self, line: &log::Line<'_>, why: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| format!("{}:{}: {why}", line.file.display(), line.number));
    }
}

/// Whether no request comes out otherwise.
pub(super) fn run(options: &Options) -> Result<bool, Failure> {
    let (old, new) = (load_policy(&options.old)?.value, load_policy(&options.new)?.value);
    let mut comparison = Comparison::new(&old, &new);
    let (mut foreign, mut untold) = (Unread::default(), Unread::default());
    log::each_line(&options.log, |line| {
        let taken = line.text.map(|text| Past::read(text).and_then(|past| comparison.take(&past)));
        match taken {
            Some(Ok(())) => {}
            Some(Err(why @ Unreadable::Foreign(_))) => foreign.note(&line, &why.to_string()),
            Some(Err(why @ Unreadable::Untold(_))) => untold.note(&line, &why.to_string()),
            None => foreign.note(&line, "this is no access record: it is no text, or too long"),
        }
        ControlFlow::Continue(())
    })?;
    for first in [&foreign, &untold].into_iter().filter_map(|unread| unread.first.as_ref()) {
        eprintln!("{first}");
    }
    let render = if options.json { object } else { table };
    emit(&render(&comparison, &foreign, &untold));
    Ok(comparison.totals().differing == 0)
}

/// A line for each group, and what there is to say about the whole.
fn table(comparison: &Comparison<'_>, foreign: &Unread, untold: &Unread) -> String {
    let mut page = String::new();
    for (key, group) in comparison.groups() {
        let by = |(judged, rule): &(Judged, String)| format!("{} ({rule})", judged.as_str());
        let unsure = match group.uncertain {
            0 => String::new(),
            some => format!(", {some} not certain: records were cut"),
        };
        // Writing to a String can't fail.
        _ = writeln!(
            page,
            "{:>8}  {}  {} {}: {} -> {}  [{}{unsure}]",
            group.count,
            key.client,
            key.action,
            key.repository,
            by(&key.old),
            by(&key.new),
            group.example,
        );
    }
    let totals = comparison.totals();
    _ = writeln!(page, "{} of {} requests come out otherwise", totals.differing, totals.requests);
    for (count, what) in [
        (totals.ungrouped, "of these are in none of the groups above, which are too many"),
        (totals.unknown, "depend on what the records don't tell"),
        (totals.cut, "are not certain, differing or not: their records were cut, and names of the client are missing"),
        (totals.drifted, "were decided otherwise than the old policy does: was another one in force?"),
        (totals.undecided, "were refused before a policy was asked"),
        (untold.count, "can't be decided again, since their records don't tell enough"),
        (foreign.count, "lines are no access records, and are left out"),
    ] {
        if count > 0 {
            _ = writeln!(page, "{count} {what}");
        }
    }
    page
}

fn object(comparison: &Comparison<'_>, foreign: &Unread, untold: &Unread) -> String {
    let side = |(judged, rule): &(Judged, String)| json!({ "decision": judged.as_str(), "rule": rule });
    let groups = comparison.groups().into_iter().map(|(key, group)| {
        json!({
            "client": key.client,
            "action": key.action,
            "repository": key.repository,
            "old": side(&key.old),
            "new": side(&key.new),
            "count": group.count,
            "uncertain": group.uncertain,
            "example": group.example,
        })
    });
    let totals = comparison.totals();
    let value: Value = json!({
        "requests": totals.requests,
        "differing": totals.differing,
        "ungrouped": totals.ungrouped,
        "unknown": totals.unknown,
        "cut": totals.cut,
        "drifted": totals.drifted,
        "undecided": totals.undecided,
        "untold": untold.count,
        "unreadable": foreign.count,
        "groups": groups.collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::policy::PolicyFile;
    use crate::policy::compile;

    #[test]
    fn requests_whose_records_were_cut_are_told_apart() {
        let file: PolicyFile = serde_yaml::from_str(
            "rules: [{name: r, subjects: [any], repositories: [a], actions: [pull], effect: allow}]",
        )
        .expect("a policy file");
        let policy = compile(&file).expect("a policy without faults");
        let mut comparison = Comparison::new(&policy, &policy);
        // The policy allows what was denied, by the names that are left of the client.
        for cut in [true, false] {
            let record = json!({
                "time": "2026-11-22T10:00:00.000Z", "decision_id": "01HF7YAT3V0000000000000007", "generation": 3,
                "client": "192.0.2.1:40000", "identity": "CN=ci-7", "fingerprint": "ab".repeat(32),
                "names": { "subject": ["CN=ci-7"], "spki": "cd".repeat(32), "cut": cut }, "tls_version": "TLSv1.3",
                "method": "GET", "target": "/v2/a/manifests/v1", "reference": "v1", "decision": "deny", "status": 403,
                "outcome": "denied",
            });
            let past = Past::read(&record.to_string()).expect("a record");
            comparison.take(&past).expect("enough of a record");
        }
        let none = Unread::default();
        let page = table(&comparison, &none, &none);
        assert!(
            page.starts_with("0 of 2 requests come out otherwise\n1 are not certain, differing or not: "),
            "{page}"
        );
        assert!(page.contains("\n1 were decided otherwise than the old policy does"), "{page}");
        let told: Value = serde_json::from_str(&object(&comparison, &none, &none)).expect("JSON");
        assert_eq!((&told["cut"], &told["drifted"], &told["requests"]), (&json!(1), &json!(1), &json!(2)), "{told:#}");
    }
}
