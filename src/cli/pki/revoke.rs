//! `portcullis pki revoke` and `portcullis pki crl`

use std::io::Write;
use std::path::PathBuf;

use super::init::ListDays;
use super::passphrase::KeyPassphrase;
use super::{Failure, Outcome, Place, report_lists};
use crate::identity::Serial;
use crate::pki::{ListOrder, Selection, Signer, Store, parse_reason, parse_serial};
use crate::revocation::Reason;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis pki revoke ci-7 --reason keyCompromise
  portcullis pki revoke --serial 3f:a1:09
  portcullis pki revoke --certificate old.crt        # one that this CA signed before it was imported

A name stands for all its valid certificates. The new list is ca.crl; once the gateway has it, the client's
handshakes are refused and its open connections end.")]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// Why: keyCompromise, superseded, cessationOfOperation, affiliationChanged, privilegeWithdrawn, …
    #[arg(long, default_value = "unspecified", value_parser = parse_reason)]
    reason: Reason,
    /// Don't sign a new list; `crl` does later
    #[arg(long)]
    no_crl: bool,
    #[command(flatten)]
    lists: ListDays,
    #[command(flatten)]
    passphrase: KeyPassphrase,
}

/// The certificates a command is about.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// Name of a client, or first name of a server
    name: Option<String>,
    /// Serial number in hexadecimal
    #[arg(long, value_parser = parse_serial, value_name = "HEX")]
    serial: Option<Serial>,
    /// A certificate (PEM)
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
}

impl Which {
    fn selection(&self) -> Result<Selection, Failure> {
        let by_name = || self.name.clone().map(Selection::Name);
        let by_serial = || self.serial.map(Selection::Serial);
        let by_file = || self.certificate.clone().map(Selection::File);
        let missing = || Failure::Usage("name a certificate".to_owned());
        by_name().or_else(by_serial).or_else(by_file).ok_or_else(missing)
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis pki crl                        # daily, by cron or a timer
  portcullis pki crl --crl-days 14
  portcullis pki crl --root                 # with the root's key at hand: renew the root's list, too

The gateway refuses all clients of a CA whose list has run out. ca.crl holds the lists of the CA and of the root.")]
pub(super) struct CrlOptions {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    lists: ListDays,
    /// Sign the root's list, too, although it isn't due
    #[arg(long)]
    root: bool,
    #[command(flatten)]
    passphrase: KeyPassphrase,
}

/// Revokes, then signs.
pub(super) fn run(
    options: &Options,
    now: i64,
    console: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Outcome, Failure> {
    let passphrase = options.passphrase.read()?;
    let mut store = Store::open(&options.place.dir)?;
    if !options.no_crl {
        // A key that can't be opened shall stop this before it is half done.
        store.authority(Signer::Ca, passphrase.as_ref())?;
    }
    let revoked = store.revoke(&options.which.selection()?, options.reason, now)?;
    for entry in &revoked {
        writeln!(console, "revoked {} (serial {}): {}", entry.name, entry.serial, options.reason)?;
    }
    if revoked.is_empty() {
        writeln!(console, "it was revoked already")?;
    }
    if !options.no_crl {
        let lists = store.write_lists(options.lists.order(), passphrase.as_ref(), now)?;
        report_lists(&lists, console, notes)?;
    } else if !revoked.is_empty() {
        writeln!(notes, "note: it takes effect with the next list: portcullis pki crl")?;
    }
    Ok(Outcome::Done)
}

/// Signs.
pub(super) fn crl(
    options: &CrlOptions,
    now: i64,
    console: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Outcome, Failure> {
    let passphrase = options.passphrase.read()?;
    let mut store = Store::open(&options.place.dir)?;
    let order = ListOrder { root: options.root, ..options.lists.order() };
    let lists = store.write_lists(order, passphrase.as_ref(), now)?;
    report_lists(&lists, console, notes)?;
    Ok(Outcome::Done)
}
