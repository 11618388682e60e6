//! The state directory: what must outlive a restart.
//!
//! It holds the last good copy of every source of revocation lists, so that a restart without network, or beside a
//! broken file, begins with what was in force before, and the highest numbers of lists that were seen. Nothing in it is
//! trusted more than its source: a copy is verified like the list it was made from.
//!
//! Every file is replaced whole. Files that were not made here are left alone.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{ByteSize, read_bounded};
use crate::files::{self, Access};
use crate::revocation::{MAX_SOURCE, Seen};

/// Bytes that all copies may have together.
const MAX_COPIES: u64 = 1 << 30;

/// Copies at most: as many as sources may be in directories, and some.
const MAX_FILES: usize = 4096;

/// More than what stands beside a copy ever has, and more than ten thousand numbers.
const MAX_NOTE: ByteSize = ByteSize::from_kib(16);
const MAX_NUMBERS: ByteSize = ByteSize::from_mib(4);

/// The files' names.
const COPIES: &str = "crls";
const LIST: &str = "crl";
const NOTE: &str = "json";
const NUMBERS: &str = "crl-numbers";

/// What the file with the numbers begins and ends with, so that half of it is not taken for all.
const HEADING: &str = "# The newest revocation lists that were in force: issuer, scope, kind, number, thisUpdate.\n";
const ENDING: &str = "# end\n";

/// What stands beside a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Note {
    /// The source's path or URL.
    pub(crate) source: String,
    /// SHA-256 of the copy, in hexadecimal.
    pub(crate) sha256: String,
    /// When it was read or fetched, in unix seconds.
    pub(crate) taken: i64,
    /// The validators that a server gave with it.
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

/// A directory that this process may use.
#[derive(Debug, Clone)]
pub(crate) struct StateDirectory {
    path: PathBuf,
}

impl StateDirectory {
    /// Makes the directory if it is missing, for this user alone.
    ///
    /// # Errors
    ///
    /// What is wrong, for the operator.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let state = Self { path: path.to_owned() };
        make(path).and_then(|()| make(&state.copies())).map_err(|e| explain(&e))?;
        Ok(state)
    }

    /// Whether a gateway of this user could use the directory. Changes nothing.
    ///
    /// # Errors
    ///
    /// What is wrong, for the operator.
    pub(crate) fn examine(path: &Path) -> Result<Self, String> {
        let state = Self { path: path.to_owned() };
        let metadata = match fs::metadata(path) {
            // It will be made.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().ok_or("this names no directory")?;
                let metadata = fs::metadata(parent).map_err(|e| format!("{}: {}", parent.display(), explain(&e)))?;
                return if metadata.is_dir() { Ok(state) } else { Err("its parent is not a directory".to_owned()) };
            }
            Err(e) => return Err(explain(&e)),
            Ok(metadata) => metadata,
        };
        if !metadata.is_dir() {
            return Err("this is not a directory".to_owned());
        }
        if metadata.permissions().mode() & 0o002 != 0 {
            return Err(
                "every user of this machine can write it, and so put old lists in it; make its mode 0700".to_owned()
            );
        }
        fs::read_dir(path).map_err(|e| explain(&e))?;
        Ok(state)
    }

    fn copies(&self) -> PathBuf {
        self.path.join(COPIES)
    }

    fn file(&self, source: &str, extension: &str) -> PathBuf {
        self.copies().join(hex(&Sha256::digest(source))).with_extension(extension)
    }

    /// What stands beside each copy, whatever source it is of.
    pub(crate) fn notes(&self) -> Vec<Note> {
        let notes = self.own_files().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == NOTE));
        notes.filter_map(|(path, _)| read_note(&path)).collect()
    }

    /// What stands beside the copy of `source`, if there is a copy.
    pub(crate) fn note(&self, source: &str) -> Option<Note> {
        fs::metadata(self.file(source, LIST)).ok()?;
        Some(read_note(&self.file(source, NOTE)).unwrap_or_default())
    }

    /// The last good copy of `source`.
    ///
    /// # Errors
    ///
    /// Why it can't be read.
    pub(crate) fn copy(&self, source: &str) -> Result<Vec<u8>, String> {
        let limit = ByteSize(MAX_SOURCE as u64);
        read_bounded(&self.file(source, LIST), limit).map_err(|e| format!("its copy: {e}"))
    }

    /// Keeps a copy of what `source` held.
    ///
    /// # Errors
    ///
    /// What the file system says, or that there is no room; the copy before is then still there.
    pub(crate) fn keep(&self, source: &str, bytes: &[u8], note: Note) -> Result<(), String> {
        let list = self.file(source, LIST);
        let others = self.own_files().into_iter().filter(|(path, _)| *path != list);
        let total = others.map(|(_, size)| size).sum::<u64>().saturating_add(bytes.len() as u64);
        if total > MAX_COPIES {
            return Err(format!("the copies would have {total} bytes together, more than {MAX_COPIES}"));
        }
        files::replace(&list, bytes, Access::Private).map_err(|e| explain(&e))?;
        // Between the two a crash leaves a copy with another's note, which its hash tells.
        self.annotate(source, &Note { sha256: hex(&Sha256::digest(bytes)), ..note })
    }

    /// Replaces what stands beside a copy.
    fn annotate(&self, source: &str, note: &Note) -> Result<(), String> {
        let note = Note { source: source.to_owned(), ..note.clone() };
        let text = serde_json::to_vec_pretty(&note).map_err(|e| e.to_string())?;
        files::replace(&self.file(source, NOTE), &text, Access::Private).map_err(|e| explain(&e))
    }

    /// Removes the copies of sources of which `is_wanted` does not say that they are still wanted.
    pub(crate) fn retain(&self, is_wanted: impl Fn(&str) -> bool) {
        for note in self.notes().iter().filter(|note| !is_wanted(&note.source)) {
            for extension in [LIST, NOTE] {
                if let Err(e) = fs::remove_file(self.file(&note.source, extension)) {
                    log::warn!("the copy of {} can't be removed: {e}", note.source);
                }
            }
        }
    }

    /// The newest lists that an earlier process had in force; none if there never was one.
    ///
    /// # Errors
    ///
    /// Why they can't be read, with the file's name. A file with one line that can't be read is taken for damaged, since
    /// nobody knows what else is missing in it.
    pub(crate) fn numbers(&self) -> Result<Vec<Seen>, String> {
        let path = self.path.join(NUMBERS);
        let fault = |e: String| format!("\"{}\": {e}", path.display());
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            _ => {}
        }
        let bytes = read_bounded(&path, MAX_NUMBERS).map_err(|e| fault(e.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| fault("it is damaged: this is no text".to_owned()))?;
        let lines = text.strip_prefix(HEADING).and_then(|text| text.strip_suffix(ENDING));
        let lines = lines.ok_or_else(|| fault("it is damaged: beginning or end is missing".to_owned()))?;
        lines.lines().map(|line| line.parse().map_err(|e| fault(format!("it is damaged: {e}")))).collect()
    }

    /// Keeps the newest lists in force.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub(crate) fn keep_numbers(&self, seen: &[Seen]) -> Result<(), String> {
        let lines: String = seen.iter().map(|seen| format!("{seen}\n")).collect();
        let text = format!("{HEADING}{lines}{ENDING}");
        files::replace(&self.path.join(NUMBERS), text.as_bytes(), Access::Private).map_err(|e| explain(&e))
    }

    /// The files among the copies that were made here, with their sizes.
    fn own_files(&self) -> Vec<(PathBuf, u64)> {
        let Ok(entries) = fs::read_dir(self.copies()) else { return Vec::new() };
        let own = entries.flatten().map(|entry| entry.path()).filter(|path| is_own(path));
        own.take(2 * MAX_FILES)
            .filter_map(|path| Some((fs::metadata(&path).ok()?.len(), path)))
            .map(|(n, p)| (p, n))
            .collect()
    }
}

/// Whether a file's name is one that is given here: a hash and an extension.
fn is_own(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let hashed = stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    hashed && path.extension().is_some_and(|extension| extension == LIST || extension == NOTE)
}

fn read_note(path: &Path) -> Option<Note> {
    serde_json::from_slice(&read_bounded(path, MAX_NOTE).ok()?).ok()
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && fs::metadata(directory)?.is_dir() => Ok(()),
        other => other,
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "permission denied; it must be the user's that portcullis runs as, with mode 0700".to_owned()
        }
        io::ErrorKind::NotFound => "the directory above it is missing; make it, or name another".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is read-only; with systemd, use StateDirectory= and name that directory".to_owned()
        }
        io::ErrorKind::AlreadyExists => "there is a file of this name, and no directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(taken: i64) -> Note {
        Note { taken, etag: Some("\"a\"".to_owned()), ..Note::default() }
    }

    #[test]
    fn a_copy_comes_back_with_its_note() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state");
        let state = StateDirectory::open(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        state.keep("http://a/x.crl", b"list", note(7)).expect("kept");
        let state = StateDirectory::open(&path).expect("opened again");
        assert_eq!(state.copy("http://a/x.crl").expect("there"), b"list");
        let found = state.note("http://a/x.crl").expect("there");
        assert_eq!((found.taken, found.sha256), (7, hex(&Sha256::digest(b"list"))));
        assert_eq!(state.note("http://a/y.crl"), None);
    }

    #[test]
    fn copies_of_other_sources_go_and_other_files_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = StateDirectory::open(directory.path()).expect("opened");
        for source in ["a", "b"] {
            state.keep(source, source.as_bytes(), note(1)).expect("kept");
        }
        let strangers = ["notes.json", "x.crl", ".crl"].map(|name| state.copies().join(name));
        strangers.iter().for_each(|path| fs::write(path, "mine").expect("written"));
        state.retain(|source| source == "b");
        assert!(state.copy("a").is_err() && state.note("a").is_none());
        assert_eq!(state.copy("b").expect("stays"), b"b");
        assert!(strangers.iter().all(|path| fs::read(path).is_ok_and(|content| content == b"mine")));
    }

    #[test]
    fn copies_are_bounded_together() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = StateDirectory::open(directory.path()).expect("opened");
        state.keep("a", b"list", note(1)).expect("kept");
        // Sparse: it has the size, not the blocks.
        let large = fs::File::create(state.file("large", LIST)).expect("made");
        large.set_len(MAX_COPIES).expect("grown");
        let refused = state.keep("a", b"newer", note(2)).expect_err("there is no room");
        assert!(refused.contains("together"), "{refused}");
        assert_eq!(state.copy("a").expect("the copy before"), b"list");
    }

    #[test]
    fn a_damaged_note_costs_the_validators_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = StateDirectory::open(directory.path()).expect("opened");
        state.keep("a", b"list", note(1)).expect("kept");
        fs::write(state.file("a", NOTE), "{").expect("written");
        assert_eq!(state.note("a"), Some(Note::default()));
        assert_eq!(state.copy("a").expect("there"), b"list");
    }

    #[test]
    fn numbers_come_back_whole_or_not_at_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = StateDirectory::open(directory.path()).expect("opened");
        assert_eq!(state.numbers(), Ok(Vec::new()));
        let line = |tell: &str| format!("{} {} full - 1735689600", tell.repeat(32), "00".repeat(32));
        let seen: Vec<Seen> = ["0a", "0b"].map(|tell| line(tell).parse().expect("a line")).into();
        state.keep_numbers(&seen).expect("kept");
        assert_eq!(state.numbers(), Ok(seen));
        let path = directory.path().join(NUMBERS);
        let text = fs::read(&path).expect("there");
        for length in 0..text.len() {
            fs::write(&path, &text[..length]).expect("written");
            assert!(state.numbers().is_err(), "{length} of {} bytes are taken for all", text.len());
        }
    }

    #[test]
    fn what_is_wrong_with_a_directory_is_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("written");
        assert!(StateDirectory::open(&file).expect_err("a file").contains("no directory"));
        assert!(StateDirectory::open(&directory.path().join("a/b")).expect_err("no parent").contains("missing"));
        assert!(StateDirectory::examine(&directory.path().join("a/b")).is_err());
        assert!(StateDirectory::examine(&directory.path().join("a")).is_ok(), "it will be made");
        let open = directory.path().join("open");
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("set");
        assert!(StateDirectory::examine(&open).expect_err("open to all").contains("0700"));
    }
}
