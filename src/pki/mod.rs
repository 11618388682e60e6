//! A small certificate authority, for teams without one: what `portcullis pki` keeps and makes.
//!
//! ```text
//! pki/
//!   index.jsonl      the journal: every certificate issued, every revocation, every list; append-only
//!   ca.crt ca.key    the CA that signs clients, servers and its list
//!   root.crt root.key    the root above it; its key belongs on another machine
//!   client-ca.pem    both certificates: the gateway's client_ca
//!   ca.crl root.crl  the lists; ca.crl holds both, for the gateway's revocation
//!   clients/NAME/    client.crt (with its chain), client.key, ca.crt, and the layouts of docker and containerd
//!   servers/NAME/    server.crt (with its chain), server.key
//! ```
//!
//! The journal is written, and on the disk, before anything that it speaks of leaves this module: a certificate that
//! somebody has can always be found and revoked, whenever the program or the machine stopped. All other files are
//! replaced whole. [`files`] is the only part that touches the disk; time is an argument.

mod describe;
mod error;
mod files;
mod foreign;
mod index;
mod journal;
mod layout;
mod lists;
mod names;
mod renew;
mod setup;
mod store;
mod x509;

pub(crate) use describe::{Context, Input, date, describe, printable};
pub(crate) use error::PkiError;
pub(crate) use files::{absolute, check_passphrase, is_exposed, read_file, read_passphrase};
pub(crate) use index::{Entry, Status};
pub(crate) use journal::{Placement, Signer};
pub(crate) use lists::{ListOrder, Lists};
pub(crate) use names::{
    ClientName, OrganizationalUnit, RegistryHost, ServerName, SpiffeUri, parse_reason, parse_serial,
};
pub(crate) use renew::Renewal;
pub(crate) use setup::{Import, Plan};
pub(crate) use store::{KeySource, Made, Order, Passphrases, Selection, Store, days};
pub(crate) use x509::{Facts, blocks, is_certificate, is_signed_by};

/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;

#[cfg(test)]
mod tests;
