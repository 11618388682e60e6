//! The files of the development directory: the only reads and writes of the `dev` command.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::DevError;
pub(super) use crate::files::Access;
use crate::files::replace;

/// More than any certificate, key or policy of a development set-up; a larger file is somebody else's.
const MAX_READ: u64 = 1024 * 1024;

/// Makes a directory and its parents. What is new is open to its owner only; what is there stays as it is.
pub(super) fn make_directory(path: &Path) -> Result<(), DevError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fault("create the directory", path))
}

/// `path` as an absolute path without symbolic links; it must exist.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, DevError> {
    fs::canonicalize(path).map_err(fault("find", path))
}

/// Writes a file whole or not at all: a reader, such as the gateway's file watcher, never sees half of it.
pub(super) fn write(path: &Path, content: &[u8], access: Access) -> Result<(), DevError> {
    replace(path, content, access).map_err(fault("write", path))
}

/// Writes a file unless it is there already: what the developer edited stays.
pub(super) fn write_once(path: &Path, content: &[u8]) -> Result<(), DevError> {
    match OpenOptions::new().write(true).create_new(true).mode(Access::Public.mode()).open(path) {
        Ok(mut file) => file.write_all(content).map_err(fault("write", path)),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(fault("write", path)(cause)),
    }
}

/// The content of a file, or nothing if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, DevError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(fault("read", path)(cause)),
    };
    let mut content = Vec::new();
    file.take(MAX_READ).read_to_end(&mut content).map_err(fault("read", path))?;
    Ok(Some(content))
}

/// A new, empty file for a child process to write its output to.
pub(super) fn create_log(path: &Path) -> Result<File, DevError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(Access::Private.mode())
        .open(path)
        .map_err(fault("create", path))
}

/// The last 2 KiB of a file, or as much as can be read of it.
pub(super) fn tail(path: &Path) -> String {
    const LENGTH: u64 = 2048;
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        // A tail that can't be read is an empty one: it only illustrates an error that is reported anyway.
        _ = file.seek(SeekFrom::Start(size.saturating_sub(LENGTH)));
        _ = file.take(LENGTH).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn fault(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DevError {
    move |cause| DevError::File { step, path: path.to_owned(), cause }
}
