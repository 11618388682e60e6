//! Passphrases: from a file or the environment, never from the command line, which every process can read.

use std::path::PathBuf;

use crate::config::Secret;
use crate::pki::{PkiError, check_passphrase, read_passphrase};

/// What opens (or, for `init`, closes) the CA's keys.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct KeyPassphrase {
    /// File whose only line is the passphrase of the CA's keys
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_env")]
    passphrase_file: Option<PathBuf>,
    /// Environment variable that holds the passphrase of the CA's keys
    #[arg(long, value_name = "VARIABLE")]
    passphrase_env: Option<String>,
}

/// What closes a PKCS #12.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ArchivePassphrase {
    /// File whose only line is the passphrase of the PKCS #12
    #[arg(long, value_name = "FILE", conflicts_with = "pkcs12_passphrase_env")]
    pkcs12_passphrase_file: Option<PathBuf>,
    /// Environment variable that holds the passphrase of the PKCS #12
    #[arg(long, value_name = "VARIABLE")]
    pkcs12_passphrase_env: Option<String>,
}

impl KeyPassphrase {
    pub(super) fn read(&self) -> Result<Option<Secret<String>>, PkiError> {
        read(self.passphrase_file.as_ref(), self.passphrase_env.as_deref())
    }
}

impl ArchivePassphrase {
    pub(super) fn read(&self) -> Result<Option<Secret<String>>, PkiError> {
        read(self.pkcs12_passphrase_file.as_ref(), self.pkcs12_passphrase_env.as_deref())
    }
}

fn read(file: Option<&PathBuf>, variable: Option<&str>) -> Result<Option<Secret<String>>, PkiError> {
    match (file, variable) {
        (Some(path), _) => read_passphrase(path).map(Some),
        (None, Some(name)) => {
            let place = format!("the environment variable {name}");
            check_passphrase(std::env::var(name).unwrap_or_default(), &place).map(Some)
        }
        (None, None) => Ok(None),
    }
}
