//! The only part of the PKI that touches the disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::PkiError;
use crate::config::Secret;
pub(super) use crate::files::Access;
use crate::files::{replace, sync_directory};

/// Larger than the list of a CA with a million revocations; no other file comes near.
const MAX_READ: u64 = 160 * 1024 * 1024;

/// Reads a file that must be there.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, PkiError> {
    let read = || {
        // Asked before opening: opening a pipe waits for its writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file"));
        }
        let mut content = Vec::new();
        File::open(path)?.take(MAX_READ + 1).read_to_end(&mut content)?;
        if content.len() as u64 > MAX_READ {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is larger than anything of a PKI"));
        }
        Ok(content)
    };
    read().map_err(fault("read", path))
}

/// Reads a file, or nothing if there is none.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    match read_file(path) {
        Ok(content) => Ok(Some(content)),
        Err(PkiError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(other) => Err(other),
    }
}

/// Reads a passphrase: the only line of a file.
pub(crate) fn read_passphrase(path: &Path) -> Result<Secret<String>, PkiError> {
    let bytes = read_file(path)?;
    let place = || path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|_| PkiError::BadPassphrase(place()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    check_passphrase(line.to_owned(), &place())
}

/// A passphrase that can be typed again: one line, of which nothing is lost on its way through the libraries.
pub(crate) fn check_passphrase(text: String, place: &str) -> Result<Secret<String>, PkiError> {
    if !(4..=1000).contains(&text.len()) || text.chars().any(char::is_control) {
        return Err(PkiError::BadPassphrase(place.to_owned()));
    }
    Ok(Secret::new(text))
}

/// Whether others than the owner may read a file. A file that can't be asked about will fail when it is read.
pub(crate) fn is_exposed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// Replaces a file whole: after a crash it is the old one or the new one. Readers never see half of it.
pub(super) fn write(path: &Path, content: &[u8], access: Access) -> Result<(), PkiError> {
    replace(path, content, access).map_err(fault("write", path))
}

/// Makes a directory and its parents, open to the owner only, or for all to read. What is there stays as it is.
pub(super) fn make_directory(path: &Path, access: Access) -> Result<(), PkiError> {
    let mode = match access {
        Access::Public => 0o755,
        Access::Private => 0o700,
    };
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(fault("create the directory", path))
}

/// Calls `fill` with a new directory beside `path`, and gives it the name `path` when it is complete.
///
/// A run that is interrupted leaves nothing at `path`; what it made stays in a hidden directory beside it.
pub(super) fn make_whole<T>(path: &Path, fill: impl FnOnce(&Path) -> Result<T, PkiError>) -> Result<T, PkiError> {
    let path = &absolute(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(PkiError::Exists(path.clone()));
    };
    let in_the_way = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(cause) => cause.kind() == io::ErrorKind::NotADirectory,
    };
    if in_the_way {
        return Err(PkiError::Exists(path.clone()));
    }
    make_directory(parent, Access::Public)?;
    let hidden = parent.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    DirBuilder::new().mode(0o700).create(&hidden).map_err(fault("create the directory", &hidden))?;
    let made = fill(&hidden).and_then(|made| {
        fs::rename(&hidden, path).map_err(fault("name the new directory", path))?;
        sync_directory(parent).map_err(fault("sync", parent))?;
        Ok(made)
    });
    if made.is_err() {
        // It is the first failure that counts; what can't be removed is only in the way of nobody.
        _ = fs::remove_dir_all(&hidden);
    }
    made
}

/// `path` from the root on, so that it means the same from every directory.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, PkiError> {
    std::path::absolute(path).map_err(fault("find", path))
}

/// How long a command waits for another one to end. None takes longer than a second by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// A file that is appended to, by this process alone until this value is gone.
#[derive(Debug)]
pub(super) struct Locked {
    file: File,
    path: PathBuf,
}

impl Locked {
    /// Opens a file that is there, when no other process has it open like this.
    pub(super) fn open(path: &Path) -> Result<Self, PkiError> {
        let file = OpenOptions::new().read(true).append(true).open(path).map_err(fault("open", path))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file, path: path.to_owned() }),
                Err(fs::TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(fs::TryLockError::WouldBlock) => return Err(PkiError::Busy(path.to_owned())),
                Err(fs::TryLockError::Error(cause)) => return Err(fault("lock", path)(cause)),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends, and waits until the disk has it.
    pub(super) fn append(&mut self, content: &[u8]) -> Result<(), PkiError> {
        self.file.write_all(content).and_then(|()| self.file.sync_all()).map_err(fault("append to", &self.path))
    }

    /// Cuts the file to its first `length` bytes.
    pub(super) fn truncate(&self, length: u64) -> Result<(), PkiError> {
        self.file.set_len(length).and_then(|()| self.file.sync_all()).map_err(fault("repair", &self.path))
    }
}

fn fault(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    move |cause| PkiError::File { step, path: path.to_owned(), cause }
}
