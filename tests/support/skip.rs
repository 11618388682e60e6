//! Tests that need a tool of the machine: they fail in CI, and elsewhere say loudly that they did not run.

use std::fs;
use std::path::{Path, PathBuf};

/// Whether all `tools` are installed. `false` means the caller must return at once; it has been said on stderr.
///
/// # Panics
/// When `CI` is set: a test that silently stops running there protects nobody.
#[must_use]
#[track_caller]
pub fn have(tools: &[&str]) -> bool {
    let missing: Vec<_> = tools.iter().filter(|tool| find(tool).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    skipped(&format!("not installed: {missing:?}"))
}

/// Says that the test is skipped for `reason`, and returns `false`.
///
/// # Panics
/// When `CI` is set.
#[track_caller]
pub fn skipped(reason: &str) -> bool {
    let place = std::panic::Location::caller();
    assert!(std::env::var_os("CI").is_none(), "cannot run in CI: {reason} ({place})");
    eprintln!("SKIPPED: {place}: {reason}");
    false
}

/// What no package of the system has, where `.ci/setup` could get it: it puts such tools in `target/tools`. That it
/// couldn't is said there and here, and fails nothing.
#[track_caller]
pub fn extra(tool: &str) -> Option<PathBuf> {
    find_extra(tool, fs::Metadata::is_file)
}

/// The same for a directory.
#[track_caller]
pub fn extra_directory(name: &str) -> Option<PathBuf> {
    find_extra(name, fs::Metadata::is_dir)
}

#[track_caller]
fn find_extra(tool: &str, wanted: fn(&fs::Metadata) -> bool) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(tool);
    if path.metadata().is_ok_and(|found| wanted(&found)) {
        return Some(path);
    }
    let place = std::panic::Location::caller();
    eprintln!("SKIPPED: {place}: {tool} is not in target/tools");
    None
}

/// Says that the test is skipped since the superuser, who reads everything, runs it. CI does.
#[track_caller]
pub fn skipped_as_root() {
    let place = std::panic::Location::caller();
    eprintln!("SKIPPED: {place}: permissions mean nothing to the superuser; run it as another user");
}

/// Says that the test is skipped since this machine, a container perhaps, doesn't permit what it needs.
#[track_caller]
pub fn not_permitted(what: &str) {
    let place = std::panic::Location::caller();
    eprintln!("SKIPPED: {place}: not permitted here: {what}");
}

/// The path of a program, also where Debian keeps daemons out of a user's PATH.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"])
        .map(|directory| PathBuf::from(directory).join(tool))
        .find(|candidate| candidate.metadata().is_ok_and(|found| found.is_file()))
}
