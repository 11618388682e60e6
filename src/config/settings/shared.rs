//! What replicas share, resolved.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::model::OnFailure;
use crate::config::secret::Secret;
use crate::config::settings::Endpoint;

/// A Redis in which replicas count together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedRedis {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Which of its databases.
    pub database: u16,
    /// Who to log in as; none is the default user.
    pub username: Option<String>,
    /// The content of the password file, without its last line ending; none doesn't log in.
    pub password: Option<Secret<String>>,
    /// Where the password was read.
    pub password_file: Option<PathBuf>,
    /// For one answer.
    pub timeout: Duration,
    /// What all keys begin with.
    pub key_prefix: String,
    /// What becomes of requests while it doesn't answer.
    pub on_failure: OnFailure,
}

/// The address, without credentials.
impl fmt::Display for SharedRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.endpoint)?;
        if self.database > 0 { write!(f, " (database {})", self.database) } else { Ok(()) }
    }
}
