//! `portcullis pki import`

use std::io::Write;
use std::path::PathBuf;

use super::init::ListDays;
use super::passphrase::KeyPassphrase;
use super::{Failure, Outcome, Place, report_lists};
use crate::pki::{Import, Store};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis pki import --certificate ca.crt --key ca.key --index index.txt --crl ca.crl
  portcullis pki import --certificate pki/ca.crt --key pki/private/ca.key --index pki/index.txt   # easy-rsa
  portcullis pki import --certificate sub.crt --key sub.key --chain root.crt --nothing-revoked

The key stays protected as it was. What was revoked must be known, for the next list replaces the last one.")]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    /// The CA's certificate (PEM)
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// The CA's key (PEM)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The certificates above it, up to the root (PEM), if it is not a root itself
    #[arg(long, value_name = "FILE")]
    chain: Option<PathBuf>,
    /// Its last revocation list (PEM or DER)
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    /// The database of `openssl ca` or easy-rsa, with what it issued and revoked
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// The CA has never revoked anything
    #[arg(long, conflicts_with_all = ["crl", "index"])]
    nothing_revoked: bool,
    #[command(flatten)]
    lists: ListDays,
    #[command(flatten)]
    passphrase: KeyPassphrase,
}

pub(super) fn run(
    options: &Options,
    now: i64,
    console: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Outcome, Failure> {
    let import = Import {
        certificate: options.certificate.clone(),
        key: options.key.clone(),
        chain: options.chain.clone(),
        crl: options.crl.clone(),
        index: options.index.clone(),
        nothing_revoked: options.nothing_revoked,
        lists: options.lists.order(),
        passphrase: options.passphrase.read()?,
    };
    let dir = &options.place.dir;
    let (lists, known) = Store::import(dir, &import, now)?;
    writeln!(console, "made a PKI in {} around the CA; {known} of its certificates are known", dir.display())?;
    report_lists(&lists, console, notes)?;
    if import.chain.is_some() {
        writeln!(notes, "note: the gateway needs the list of the CA above, too, from whoever runs that")?;
    }
    Ok(Outcome::Done)
}
