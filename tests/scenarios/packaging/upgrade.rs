//! What may be run in the unit's sandbox after the program has been replaced: mounts as the service manager makes them of
//! `NoExecPaths` and `ExecPaths`, in a mount namespace that nobody else sees.

use super::{PATIENCE, SERVICE, read, settings};
use crate::support::process::{self, Process};
use crate::support::skip;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Makes the mounts below `$1` for the further arguments, waits for a line, and runs the program `$2` once more.
const SANDBOX: &str = r#"
root=$1 program=$2; shift 2
mount --bind "$root" "$root" && mount -o remount,bind,noexec "$root" || { echo no mounts; exit; }
"$root$program" 2>/dev/null && { echo noexec means nothing; exit; }
for path; do mount --bind "$root$path" "$root$path" && mount -o remount,bind,exec "$root$path" || { echo no mounts; exit; }; done
"$root$program" || { echo the first one is refused; exit; }
echo ready
until [ -e "$root/replaced" ]; do sleep 0.02; done
"$root$program" && echo the successor runs || echo the successor is refused
"#;

/// A tree with the program at a path and a link to it in /usr/bin, as far as it isn't there itself.
fn tree(program: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("the temporary directory is writable");
    let at = below(root.path(), program);
    fs::create_dir_all(at.parent().expect("a directory")).expect("writable");
    fs::create_dir_all(root.path().join("usr/bin")).expect("writable");
    replace(&at);
    if program != "/usr/bin/portcullis" {
        symlink(Path::new("..").join(program.trim_start_matches("/usr/")), root.path().join("usr/bin/portcullis"))
            .expect("writable");
    }
    root
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Puts a new program in the place of an old one, as dpkg does it.
fn replace(at: &Path) {
    let new = at.with_extension("dpkg-new");
    fs::copy(skip::find("true").expect("every system has it"), &new).expect("writable");
    fs::rename(&new, at).expect("the mounts of a namespace keep no other from renaming");
}

/// What the sandbox says of a successor. `None` where mounts aren't permitted, which has been said.
fn verdict(program: &str, executable: &[&str]) -> Option<String> {
    let private: &[&[&str]] = &[&["-m"], &["-r", "-m"]];
    let private = private.iter().find(|options| {
        let tried = [options, ["--propagation", "private", "true"].as_slice()].concat();
        process::run("unshare", &tried, b"", PATIENCE).success()
    });
    let Some(private) = private else {
        skip::not_permitted("mount namespaces");
        return None;
    };
    let root = tree(program);
    let at = root.path().to_string_lossy().into_owned();
    let command = ["--propagation", "private", "sh", "-c", SANDBOX, "sandbox", &at, program];
    let arguments = [private, command.as_slice(), executable].concat();
    let mut sandbox = Process::spawn("the sandbox", "unshare", &arguments, |_| {});
    let line = |sandbox: &mut Process| {
        sandbox.wait_for_line(PATIENCE, |line| (!line.starts_with("sandbox:")).then(|| line.to_owned()))
    };
    let first = line(&mut sandbox).expect("it says something");
    if first == "no mounts" {
        skip::not_permitted("mounts in a namespace");
        return None;
    }
    assert_eq!(first, "ready");
    replace(&below(root.path(), program));
    fs::write(root.path().join("replaced"), "").expect("writable");
    let last = |line: &str| line.starts_with("the successor").then(|| line.to_owned());
    Some(sandbox.wait_for_line(PATIENCE, last).expect("it says how it went"))
}

#[test]
fn a_program_that_was_replaced_may_be_run_in_the_sandbox() {
    if !skip::have(&["unshare", "mount", "true"]) {
        return;
    }
    let unit = read(SERVICE);
    assert_eq!(settings(&unit, "NoExecPaths"), ["/"]);
    let program = settings(&unit, "ExecStart")[0].split_whitespace().next().expect("a program");
    let paths: Vec<&str> = settings(&unit, "ExecPaths").iter().flat_map(|paths| paths.split_whitespace()).collect();
    assert!(!paths.iter().any(|path| path.contains("portcullis")), "{paths:?}");
    let above: Vec<&str> = paths.into_iter().filter(|path| program.starts_with(&format!("{path}/"))).collect();
    assert_eq!(above, ["/usr/lib"], "{program}");
    if let Some(said) = verdict(program, &above) {
        assert_eq!(said, "the successor runs");
    }
}

#[test]
fn a_program_that_is_named_itself_could_not_be_replaced() {
    if !skip::have(&["unshare", "mount", "true"]) {
        return;
    }
    let program = "/usr/bin/portcullis";
    if let Some(said) = verdict(program, &[program]) {
        assert_eq!(
            said, "the successor is refused",
            "ExecPaths may name the program, and /usr/lib isn't needed for it"
        );
    }
}
