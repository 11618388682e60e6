//! The one place of the configuration that reads files, each with a bound on its size.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::fault::{Diagnostic, Diagnostics, Fault, Severity};
use super::model::Config;
use super::resolve::resolve;
use super::secret::Secret;
use super::settings::Settings;
use super::units::ByteSize;
use super::yaml::{self, Document};

/// The largest configuration or policy that is read: a policy with 10,000 rules takes about 2 MiB.
pub const MAX_YAML: ByteSize = ByteSize::from_mib(4);

/// More than any password or key; what is larger is some other file.
const MAX_SECRET: ByteSize = ByteSize::from_kib(4);

/// Reads and resolves the configuration.
///
/// # Errors
/// Everything that is wrong with the file, and the warnings about it. Warnings alone are no error; they come with the
/// document.
pub fn load(path: &Path) -> Result<Document<Settings>, Diagnostics> {
    let bytes = read_bounded(path, MAX_YAML).map_err(|error| about_file(path, error.to_string()))?;
    parse(path, &bytes)
}

/// Resolves a configuration that was read already: `bytes`, the content of the file at `path`.
///
/// # Errors
/// As [`load`]. The passwords that the configuration names are files of their own and are read here.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Document<Settings>, Diagnostics> {
    let file = std::path::absolute(path).map_err(|error| about_file(path, error.to_string()))?;
    let mut warnings = Vec::new();
    let mut document = yaml::parse(path, bytes, |config: Config| {
        let resolved = resolve(&config, &file, &read_secret);
        warnings = resolved.warnings;
        resolved.settings.ok_or(resolved.errors)
    })?;
    document.warnings = document.diagnose(warnings, Severity::Warning);
    Ok(document)
}

/// Reads a YAML file of at most [`MAX_YAML`] as a `T`.
///
/// # Errors
/// Why the file can't be read, or everything that is wrong with its form, each with its line.
pub fn read_yaml<T: DeserializeOwned + JsonSchema>(path: &Path) -> Result<Document<T>, Diagnostics> {
    read_yaml_with(path, Ok::<T, _>)
}

/// Reads a YAML file of at most [`MAX_YAML`] as a `T` and makes a `U` of it; what `make` finds wrong is reported together
/// with what is wrong with the form.
///
/// # Errors
/// As [`read_yaml`], and the faults that `make` finds, with their lines.
pub fn read_yaml_with<T: DeserializeOwned + JsonSchema, U>(
    path: &Path,
    make: impl FnOnce(T) -> Result<U, Vec<Fault>>,
) -> Result<Document<U>, Diagnostics> {
    let bytes = read_bounded(path, MAX_YAML).map_err(|error| about_file(path, error.to_string()))?;
    yaml::parse(path, &bytes, make)
}

fn about_file(path: &Path, message: String) -> Diagnostics {
    Diagnostics::from(Diagnostic {
        file: path.to_owned(),
        line: None,
        key: String::new(),
        message,
        severity: Severity::Error,
    })
}

/// Why a file or directory can't be read, in words that say what to do. The path is not in them.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Nothing is there, or a symbolic link leads nowhere.
    #[error(
        "there is no such file or directory; check the path (relative ones start at the configuration's directory)"
    )]
    Missing,
    /// The process may not read it, or not search a directory on the way.
    #[error(
        "permission denied; let the user that portcullis runs as read it, and search the directories above it (if that isn't you: sudo)"
    )]
    Denied,
    /// A directory where a file is expected.
    #[error("this is a directory; name a file in it")]
    IsDirectory,
    /// A file where a directory is expected.
    #[error("this is not a directory")]
    NotDirectory,
    /// A pipe, device or socket, which could hold up the reader for ever.
    #[error("this is not a regular file; pipes and devices are not read")]
    Special,
    /// More than the bound, which may also be a file that grows while it is read.
    #[error("this is larger than {limit}, too large for what it should be; was another file meant?")]
    TooLarge {
        /// The bound.
        limit: ByteSize,
    },
    /// Anything else.
    #[error("can't be read: {0}")]
    Io(io::Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::IsADirectory => Self::IsDirectory,
            io::ErrorKind::NotADirectory => Self::NotDirectory,
            _ => Self::Io(error),
        }
    }
}

/// Reads a regular file (symbolic links are followed) of at most `limit` bytes. A larger one is refused before any of it
/// is read.
///
/// # Errors
/// See [`FileError`].
pub fn read_bounded(path: &Path, limit: ByteSize) -> Result<Vec<u8>, FileError> {
    // Asked before opening: opening a pipe waits for its writer.
    check_regular(&fs::metadata(path)?, limit)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    check_regular(&metadata, limit)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    file.take(limit.0.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit.0 {
        return Err(FileError::TooLarge { limit });
    }
    Ok(bytes)
}

fn check_regular(metadata: &fs::Metadata, limit: ByteSize) -> Result<(), FileError> {
    if metadata.is_dir() {
        Err(FileError::IsDirectory)
    } else if !metadata.is_file() {
        Err(FileError::Special)
    } else if metadata.len() > limit.0 {
        Err(FileError::TooLarge { limit })
    } else {
        Ok(())
    }
}

/// The files of a directory, sorted by name, `limit` at most. Directories in it and names that start with a dot are left
/// out: Kubernetes keeps the versions of a mounted Secret in `..data` and links its files to them.
///
/// # Errors
/// See [`FileError`]; more than `limit` files are [`FileError::Io`].
pub fn list_directory(path: &Path, limit: usize) -> Result<Vec<PathBuf>, FileError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Follows links. One that leads nowhere stays in the list, so that reading it says so.
        let directory = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        if hidden || directory {
            continue;
        }
        if files.len() >= limit {
            let message = format!("it holds more than {limit} files; was another directory meant?");
            return Err(FileError::Io(io::Error::other(message)));
        }
        files.push(entry.path());
    }
    files.sort();
    Ok(files)
}

/// A secret and whether others than the file's owner and group may read it.
pub(super) struct SecretFile {
    pub secret: Secret<String>,
    pub exposed: bool,
}

/// Reads a secret: the file's text without its last line ending.
fn read_secret(path: &Path) -> Result<SecretFile, String> {
    let bytes = read_bounded(path, MAX_SECRET).map_err(|error| error.to_string())?;
    let text =
        String::from_utf8(bytes).map_err(|_| "this is not text; it should hold a secret in one line".to_owned())?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err("this file is empty; write the secret into it".to_owned());
    }
    if secret.chars().any(char::is_control) {
        return Err("the secret has control characters or several lines; write nothing else into the file".to_owned());
    }
    Ok(SecretFile { secret: Secret::new(secret.to_owned()), exposed: readable_by_others(path) })
}

fn readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests;
