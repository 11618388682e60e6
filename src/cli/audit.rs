//! `portcullis audit`

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{emit, exit};
use crate::telemetry::audit::{Report, Verifier};

/// The longest line that is taken for a record.
const MAX_LINE: u64 = 1024 * 1024;

/// What `portcullis audit` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Say whether records are missing or were changed
    #[command(after_long_help = HELP)]
    Verify(Verify),
}

#[derive(Debug, Clone, clap::Args)]
struct Verify {
    /// The files in the order in which they were written, the oldest first; - is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Demand that every chain begins here, rather than in an earlier file
    #[arg(long)]
    complete: bool,
}

const HELP: &str = "\
Each process of the gateway writes a chain of its own. What no file can show is whether records are missing
at the end of a chain that doesn't stop; it is said of each chain whether it does.

Example, with files that logrotate has moved and compressed:
  zcat /var/log/portcullis/audit.log.2.gz | portcullis audit verify - /var/log/portcullis/audit.log.1 \\
    /var/log/portcullis/audit.log";

pub(super) fn run(options: &Options) -> ExitCode {
    let Command::Verify(Verify { files, complete }) = &options.command;
    let mut verifier = Verifier::default();
    for file in files {
        if let Err(e) = read(file, &mut verifier) {
            eprintln!("{}: {e}", file.display());
            return exit::CONFIGURATION.into();
        }
    }
    let report = verifier.finish();
    emit(&told(&report));
    if report.records == 0 {
        eprintln!("there is no record in it: is this an audit log?");
        return exit::REFUSED.into();
    }
    let begun = report.chains.values().filter(|chain| chain.first > 0).count();
    if *complete && begun > 0 {
        eprintln!("{begun} chain(s) begin in an earlier file");
        return exit::REFUSED.into();
    }
    if report.is_whole() { ExitCode::SUCCESS } else { exit::REFUSED.into() }
}

fn read(file: &Path, verifier: &mut Verifier) -> io::Result<()> {
    let mut input: Box<dyn BufRead> = match file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(file)?)),
    };
    let name = file.display().to_string();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        verifier.line(&name, number, line.strip_suffix(b"\n").unwrap_or(&line));
    }
    Ok(())
}

fn told(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let _ = writeln!(text, "{}{finding}", if finding.is_fault { "" } else { "note: " });
    }
    for (name, chain) in &report.chains {
        let begins = match chain.first {
            0 => String::new(),
            first => format!(", begins in an earlier file (record {first} is the first here)"),
        };
        let ends =
            if chain.is_stopped { "stopped" } else { "no stop: it runs, was killed, or goes on in a later file" };
        let missed = match chain.missed {
            0 => String::new(),
            missed => format!(", {missed} record(s) could not be written at the time"),
        };
        let _ = writeln!(text, "{name}: records {} to {}{begins}, {ends}{missed}", chain.first, chain.last);
    }
    let faults = report.findings.iter().filter(|finding| finding.is_fault).count();
    let verdict = match faults {
        0 => "nothing is missing or changed".to_owned(),
        faults => format!("{faults} fault(s)"),
    };
    let _ = writeln!(text, "{} record(s) of {} process(es): {verdict}", report.records, report.chains.len());
    text
}
