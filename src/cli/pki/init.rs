//! `portcullis pki init`

use std::io::Write;

use super::passphrase::KeyPassphrase;
use super::{Failure, Outcome, Place, report_lists};
use crate::pki::{ListOrder, Plan, Store};
use crate::tls::issue::KeyKind;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis pki init --name Example --passphrase-file pass
  portcullis pki init --name Example --dir /etc/portcullis/pki --key rsa
  portcullis pki init --name Lab --no-intermediate

What the gateway needs of it: client-ca.pem (client_ca) and ca.crl (revocation.crls).")]
pub(super) struct Options {
    #[command(flatten)]
    place: Place,
    /// Whose PKI it is; the CAs are called NAME Root CA and NAME Issuing CA
    #[arg(long, value_parser = ca_name)]
    name: String,
    /// The kind of the CAs' keys
    #[arg(long, value_enum, default_value_t = KeyOption::Ecdsa)]
    key: KeyOption,
    /// One CA that is its own root: simpler, but a stolen key can't be revoked
    #[arg(long)]
    no_intermediate: bool,
    /// Days until the root runs out
    #[arg(long, default_value_t = 3650, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    /// Days until the CA below it runs out
    #[arg(long, default_value_t = 1825, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36500))]
    ca_days: u32,
    #[command(flatten)]
    lists: ListDays,
    #[command(flatten)]
    passphrase: KeyPassphrase,
}

/// When the next lists are due.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ListDays {
    /// Days until the CA's next list is due; from then on the gateway refuses its clients
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(super) crl_days: u32,
    /// Days until the root's next list is due
    #[arg(long, default_value_t = 180, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(super) root_crl_days: u32,
}

impl ListDays {
    pub(super) fn order(&self) -> ListOrder {
        ListOrder { days: self.crl_days, root_days: self.root_crl_days, root: false }
    }
}

/// A kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum KeyOption {
    /// ECDSA on P-256
    Ecdsa,
    /// RSA of 3072 bits
    Rsa,
}

impl From<KeyOption> for KeyKind {
    fn from(option: KeyOption) -> Self {
        match option {
            KeyOption::Ecdsa => Self::EcdsaP256,
            KeyOption::Rsa => Self::Rsa3072,
        }
    }
}

/// A CN has 64 characters (RFC 5280 ub-common-name), of which ` Issuing CA` takes 11.
fn ca_name(text: &str) -> Result<String, String> {
    if (1..=53).contains(&text.chars().count()) && !text.chars().any(char::is_control) && text.trim() == text {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 53 printable characters, and no space at its ends".to_owned())
    }
}

pub(super) fn run(
    options: &Options,
    now: i64,
    console: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Outcome, Failure> {
    let plan = Plan {
        name: options.name.clone(),
        key: options.key.into(),
        intermediate: !options.no_intermediate,
        root_days: options.days,
        ca_days: options.ca_days,
        lists: options.lists.order(),
        passphrase: options.passphrase.read()?,
    };
    let dir = &options.place.dir;
    let lists = Store::create(dir, &plan, now)?;
    writeln!(console, "made a PKI in {}", dir.display())?;
    report_lists(&lists, console, notes)?;
    writeln!(console, "for the gateway: client_ca: {0}/client-ca.pem, revocation.crls: {0}/ca.crl", dir.display())?;
    if plan.passphrase.is_none() {
        writeln!(notes, "note: the CA's keys are not protected by a passphrase (--passphrase-file, -env)")?;
    }
    if plan.intermediate {
        writeln!(notes, "note: keep {}/root.key on another machine", dir.display())?;
    }
    Ok(Outcome::Done)
}
