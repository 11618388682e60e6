//! `portcullis pki list`

use std::io::Write;

use serde_json::json;

use super::{Failure, Outcome, Place, date};
use crate::pki::{DAY, Entry, Signer, Status, Store};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis pki list                       # what is valid
  portcullis pki list --all                 # what has expired or is revoked, too
  portcullis pki list --due 30 --json")]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    /// Expired and revoked certificates, too
    #[arg(long)]
    all: bool,
    /// Only what ends within this many days
    #[arg(long, value_name = "DAYS")]
    due: Option<u32>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints the table.
pub(super) fn run(options: &Options, now: i64, console: &mut dyn Write) -> Result<Outcome, Failure> {
    let index = Store::peek(&options.place.dir)?;
    let due = options.due.map(|days| now + i64::from(days) * DAY);
    let wanted = |entry: &&Entry| {
        (options.all || entry.is_valid(now)) && due.is_none_or(|due| entry.not_after.is_some_and(|end| end <= due))
    };
    if !options.json {
        writeln!(console, "{:<28} {:<7} {:<22} {:<28} serial", "name", "kind", "ends", "status")?;
    }
    for entry in index.entries().iter().filter(wanted) {
        if options.json { print_json(entry, now, console)? } else { print_row(entry, now, console)? }
    }
    if !options.json {
        for (signer, called) in [(Signer::Ca, "CA"), (Signer::Root, "root")] {
            if let Some(list) = index.last_list(signer) {
                let state = if list.next_update < now { "OVER since" } else { "next due" };
                writeln!(console, "list of the {called}: number {}, {state} {}", list.number, date(list.next_update))?;
            }
        }
    }
    Ok(Outcome::Done)
}

fn print_row(entry: &Entry, now: i64, console: &mut dyn Write) -> Result<(), Failure> {
    let ends = entry.not_after.map_or("unknown".to_owned(), date);
    let status = match (entry.status(now), entry.revoked, entry.not_after) {
        (Status::Revoked, Some((_, reason)), _) => format!("revoked ({reason})"),
        (Status::Expired, ..) => "expired".to_owned(),
        (_, _, Some(end)) => format!("valid, {} days left", (end - now) / DAY),
        _ => "valid".to_owned(),
    };
    writeln!(console, "{:<28} {:<7} {ends:<22} {status:<28} {}", entry.name, entry.kind.as_str(), entry.serial)?;
    Ok(())
}

fn print_json(entry: &Entry, now: i64, console: &mut dyn Write) -> Result<(), Failure> {
    let status = match entry.status(now) {
        Status::Valid => "valid",
        Status::Expired => "expired",
        Status::Revoked => "revoked",
    };
    let object = json!({
        "name": entry.name,
        "kind": entry.kind.as_str(),
        "serial": entry.serial.to_string(),
        "not_before": entry.not_before.map(date),
        "not_after": entry.not_after.map(date),
        "status": status,
        "revoked_at": entry.revoked.map(|(at, _)| date(at)),
        "reason": entry.revoked.map(|(_, reason)| reason.as_str()),
    });
    writeln!(console, "{object}")?;
    Ok(())
}
