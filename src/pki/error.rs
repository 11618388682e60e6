//! Why something of the PKI could not be done.

use std::io;
use std::path::PathBuf;

use crate::identity::CertificateFault;
use crate::tls::issue::{IssueError, KeyFault};

/// Why a command of the PKI failed. The text is for the operator and says what to do where that isn't plain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PkiError {
    /// The system refused to read or write.
    #[error("failed to {step} {}: {cause}", path.display())]
    File {
        /// What was being done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// Another command works on the same PKI.
    #[error("{} is in use by another portcullis pki command; try again when it has ended", .0.display())]
    Busy(PathBuf),
    /// The directory holds no PKI.
    #[error("{} holds no PKI; make one with `portcullis pki init`, or name another directory with --dir", .0.display())]
    NoPki(PathBuf),
    /// Something is in the way of a new PKI.
    #[error("{} is there already and is not empty; nothing was changed", .0.display())]
    Exists(PathBuf),
    /// A line of the journal that nobody finished or somebody changed.
    #[error("{}:{line}: {cause}; restore the file from a backup: without it, revocations would be forgotten", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        cause: String,
    },
    /// A key that can't be opened.
    #[error("{}: {fault}{}", path.display(), hint(*fault))]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        fault: KeyFault,
    },
    /// A file that isn't what it should be.
    #[error("{}: {cause}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The gateway would not take it, so it was not handed out.
    #[error("the gateway would refuse this certificate: {0}")]
    Refused(#[from] CertificateFault),
    /// The certificate holds another identity than was asked for, so it was not handed out.
    #[error("the gateway would not see the {0} in this certificate: use letters, digits and plain punctuation")]
    Unseen(&'static str),
    /// The CA has run out.
    #[error("the CA's certificate has run out; nothing it signs would be accepted")]
    CaExpired,
    /// The name is in use.
    #[error("{name} has a valid certificate already (serial {serial}): renew it, revoke it, or give --replace")]
    Taken {
        /// The name.
        name: String,
        /// The certificate's serial number in hexadecimal.
        serial: String,
    },
    /// Nothing of that name or number.
    #[error("the PKI knows no {0}; `portcullis pki list --all` shows what it knows")]
    Unknown(String),
    /// A name that stands for several things.
    #[error("{0} is both a client and a server; name the certificate by --serial")]
    Ambiguous(String),
    /// A PKCS #12 needs a passphrase.
    #[error("a PKCS #12 needs a passphrase (most programs import none without): --pkcs12-passphrase-file or -env")]
    NoPassphrase,
    /// A passphrase nobody could type, or an empty one.
    #[error("the passphrase in {0} must be one line of 4 to 1000 characters")]
    BadPassphrase(String),
    /// An import that would un-revoke.
    #[error(
        "what this CA has revoked is not known: give its last list (--crl) or openssl's database (--index), \
         or say --nothing-revoked; the first new list replaces the old one"
    )]
    HistoryMissing,
    /// The key of the root is elsewhere.
    #[error("{} is not here: bring the root's key for this and take it away again", .0.display())]
    RootAway(PathBuf),
    /// The certificate can't be renewed from here.
    #[error("{0} was not issued here, so its names are not known; issue a new one with `client` or `server`")]
    NotOurs(String),
}

impl PkiError {
    /// Whether the machine is at fault, not a file or a request.
    pub(crate) fn is_host(&self) -> bool {
        match self {
            // A file that isn't there is one that was misspelt.
            Self::File { step, cause, .. } => *step != "read" || cause.kind() != io::ErrorKind::NotFound,
            Self::Busy(_) => true,
            _ => false,
        }
    }

    pub(super) fn unusable(path: impl Into<PathBuf>, cause: impl Into<String>) -> Self {
        Self::Unusable { path: path.into(), cause: cause.into() }
    }
}

fn hint(fault: KeyFault) -> &'static str {
    match fault {
        KeyFault::NeedsPassphrase => " (--passphrase-file FILE or --passphrase-env VARIABLE)",
        KeyFault::WrongPassphrase | KeyFault::NotAKey => "",
    }
}
