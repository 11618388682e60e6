//! `portcullis pki show`

use std::io::Write;
use std::path::{Path, PathBuf};

use super::passphrase::KeyPassphrase;
use super::{Failure, Outcome};
use crate::identity::LeafRules;
use crate::pki::{Context, Input, PkiError, describe, is_exposed, read_file};
use crate::revocation::Index;
use crate::tls::TrustBundle;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis pki show client.crt client.key           # do they belong together? whose are they?
  portcullis pki show client.crt --ca client-ca.pem --crl ca.crl   # would the gateway let it in?
  portcullis pki show ca.crl --ca client-ca.pem       # would the gateway take the list?
  portcullis pki show bob.csr

Reads PEM and DER. What the gateway would refuse is marked FAULT, and the exit code is 1.")]
pub(super) struct Options {
    /// Certificates, revocation lists, keys and requests, in PEM or DER
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The gateway's client_ca
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The gateway's revocation lists; may be repeated
    #[arg(long, value_name = "FILE", requires = "ca")]
    crl: Vec<PathBuf>,
    /// As the gateway's setting require_eku
    #[arg(long)]
    require_eku: bool,
    /// As the gateway's setting allow_v1
    #[arg(long)]
    allow_v1: bool,
    #[command(flatten)]
    passphrase: KeyPassphrase,
}

/// Prints the report.
pub(super) fn run(options: &Options, now: i64, console: &mut dyn Write) -> Result<Outcome, Failure> {
    let read = |path: &PathBuf| {
        let name = path.display().to_string();
        Ok::<_, PkiError>(Input { name, bytes: read_file(path)?, exposed: is_exposed(path) })
    };
    let inputs = options.files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut context = Context {
        trust: options.ca.as_deref().map(bundle).transpose()?,
        revocation: Index::disabled(),
        rules: LeafRules { require_eku: options.require_eku, allow_v1: options.allow_v1, ..LeafRules::default() },
        passphrase: options.passphrase.read()?,
        now,
    };
    let list = |path: &PathBuf| Ok::<_, PkiError>((path.display().to_string(), read_file(path)?));
    context.take_lists(options.crl.iter().map(list).collect::<Result<Vec<_>, _>>()?);
    let report = describe(&inputs, &context);
    write!(console, "{}", report.text)?;
    Ok(if report.faults == 0 { Outcome::Done } else { Outcome::Faulty })
}

fn bundle(path: &Path) -> Result<std::sync::Arc<TrustBundle>, PkiError> {
    TrustBundle::load(path).map_err(|faults| {
        let messages: Vec<_> = faults.into_iter().map(|fault| fault.message).collect();
        PkiError::Unusable { path: path.to_owned(), cause: messages.join("; ") }
    })
}
