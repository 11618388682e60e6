//! `portcullis pki renew`

use std::io::Write;

use super::passphrase::{ArchivePassphrase, KeyPassphrase};
use super::{Failure, Outcome, Place, leaf, report_lists};
use crate::identity::Serial;
use crate::pki::{Entry, ListOrder, Passphrases, Renewal, Selection, Store, days, parse_serial};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis pki renew ci-7
  portcullis pki renew --due 30             # all that end within 30 days, for cron or a timer
  portcullis pki renew ci-7 --revoke        # the old one is refused from the next list on
  portcullis pki renew registry.example.com --same-key    # a gateway whose key systemd has handed over takes it at once

The new certificate has the names of the old one and goes to the same files, docker's and containerd's included.
The key is new, unless --same-key is given, or it came by a request (--csr), whose owner keeps it.")]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// Days until the new one runs out; as long as the old one if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
    /// Revoke the old one as superseded, and sign a new list
    #[arg(long)]
    revoke: bool,
    /// Keep the key, which must lie where it was made
    #[arg(long)]
    same_key: bool,
    #[command(flatten)]
    passphrase: KeyPassphrase,
    #[command(flatten)]
    pkcs12_passphrase: ArchivePassphrase,
}

/// The certificates to renew.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Name of a client, or first name of a server
    name: Option<String>,
    /// Serial number in hexadecimal
    #[arg(long, value_parser = parse_serial, value_name = "HEX")]
    serial: Option<Serial>,
    /// All that end within this many days or have ended, unless they are revoked
    #[arg(long, value_name = "DAYS")]
    due: Option<u32>,
}

/// Renews one certificate, or all that are due.
pub(super) fn run(
    options: &Options,
    now: i64,
    console: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Outcome, Failure> {
    let passphrases = Passphrases { keys: options.passphrase.read()?, pkcs12: options.pkcs12_passphrase.read()? };
    let mut store = Store::open(&options.place.dir)?;
    let chosen = choose(options, &store, now)?;
    if chosen.is_empty() {
        writeln!(console, "nothing is due")?;
    }
    let how = Renewal { seconds: options.days.map(days), revoke: options.revoke, same_key: options.same_key };
    let mut outcome = Outcome::Done;
    for old in &chosen {
        match store.renew(old, how, &passphrases, now) {
            Ok(made) => leaf::report(&old.name, &made, console, notes)?,
            // One that can't be renewed must not keep the others from it.
            Err(fault) if chosen.len() > 1 && !fault.is_host() => {
                writeln!(notes, "{}: {fault}", old.name)?;
                outcome = Outcome::Faulty;
            }
            Err(fault) => return Err(fault.into()),
        }
    }
    if options.revoke && !chosen.is_empty() {
        let lists = store.write_lists(ListOrder::default(), passphrases.keys.as_ref(), now)?;
        report_lists(&lists, console, notes)?;
    }
    Ok(outcome)
}

fn choose(options: &Options, store: &Store, now: i64) -> Result<Vec<Entry>, Failure> {
    let Which { name, serial, due } = &options.which;
    let selection = match (name, serial, due) {
        (Some(name), ..) => Selection::Name(name.clone()),
        (_, Some(serial), _) => Selection::Serial(*serial),
        (_, _, Some(due)) => return Ok(store.due(days(*due), now)),
        _ => return Err(Failure::Usage("name a certificate, or give --due".to_owned())),
    };
    Ok(vec![store.renewable(&selection, now)?])
}
