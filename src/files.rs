//! Files that are replaced whole, with the rights they are meant to have.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody: certificates, lists, settings.
    Public,
    /// Only the owner: keys.
    Private,
}

impl Access {
    /// The mode of such a file.
    pub(crate) fn mode(self) -> u32 {
        match self {
            Self::Public => 0o644,
            Self::Private => 0o600,
        }
    }
}

/// Replaces a file whole: after a crash it is the old one or the new one, and readers never see half of it.
///
/// # Errors
///
/// What the file system says; the old file is then still there.
pub(crate) fn replace(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this names no file"));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let temporary = directory.join(hidden);
    // Left over from an interrupted run, it could have another mode.
    match fs::remove_file(&temporary) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(access.mode()).open(&temporary)?;
    // The process's umask may have taken bits away that other programs need.
    file.set_permissions(Permissions::from_mode(access.mode()))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_directory(directory)
}

/// Makes what was renamed or created in a directory survive a power cut.
///
/// # Errors
///
/// What the file system says.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}
