//! The commands of a guide, followed to the letter on a machine that is thrown away: see tests/guides/machine.

use super::blocks::{Block, blocks};
use super::process::{self, Finished};
use super::skip;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What machines are made with, and what guides speak of.
const TOOLS: [&str; 15] = [
    "unshare",
    "ip",
    "setpriv",
    "pgrep",
    "dpkg",
    "curl",
    "openssl",
    "jq",
    "nft",
    "docker-registry",
    "dockerd",
    "docker",
    "containerd",
    "skopeo",
    "podman",
];

/// Runs the commands of the guide `name` after those of `given`, which are functions of tests/guides/given.sh or plain commands,
/// and returns what they wrote. `None` when this machine can't, which has been said.
///
/// # Panics
/// When a command fails, or doesn't print what the guide shows.
#[track_caller]
pub fn follow(name: &str, given: &str) -> Option<Finished> {
    follow_with(name, given, "")
}

/// The same, with commands to be run at the end: what has to be true then.
///
/// # Panics
/// As [`follow`].
#[track_caller]
pub fn follow_with(name: &str, given: &str, then: &str) -> Option<Finished> {
    if !skip::have(&TOOLS) || !may() {
        return None;
    }
    let text = fs::read_to_string(Path::new(ROOT).join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let commands = script(name, &blocks(&text));
    assert!(commands.contains("guide_"), "{name} has no command to run");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("script");
    fs::write(&file, format!("{given}\n{commands}\n{then}\n")).expect("writable");
    let machine = format!("{ROOT}/tests/guides/machine");
    let arguments = [env!("CARGO_BIN_EXE_portcullis"), &file.to_string_lossy()];
    Some(process::run(&machine, &arguments, b"", Duration::from_secs(240)).expect_success(name))
}

/// The blocks as calls of the functions that run them.
fn script(name: &str, blocks: &[Block]) -> String {
    let mut script = String::new();
    for block in blocks.iter().filter(|block| block.is_shell() || block.file().is_some()) {
        if block.not_run().is_some() || block.run_by().is_some() {
            continue;
        }
        if let Some(before) = block.before() {
            let _ = writeln!(script, "{before}");
        }
        let place = format!("{name}:{}", block.line);
        if let Some(program) = block.needs() {
            let _ = writeln!(script, "if guide_has {program} {name}:{}; then", block.line);
        }
        if let Some(path) = block.file() {
            let _ = writeln!(script, "guide_writes {path} <<'GUIDE'\n{}GUIDE", block.text);
        } else if block.language == "console" {
            let _ = writeln!(script, "guide_shows {place} <<'GUIDE'\n{}GUIDE", block.text);
        } else {
            let _ = writeln!(script, "guide_runs {place}\n{}", block.text);
        }
        if block.needs().is_some() {
            let _ = writeln!(script, "fi");
        }
    }
    script
}

/// Whether namespaces and overlays may be made here.
#[track_caller]
fn may() -> bool {
    let try_it = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/a /mnt/b && \
                  mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/a,workdir=/mnt/b /etc";
    let arguments = ["--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", try_it];
    let tried = process::run("unshare", &arguments, b"", Duration::from_secs(20));
    if tried.success() {
        return true;
    }
    let reason = tried.stderr.lines().last().unwrap_or_default().to_owned();
    skip::skipped(&format!("guides are followed by root, in namespaces and overlays of its own: {reason}"))
}
