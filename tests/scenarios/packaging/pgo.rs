//! The order of the builds behind `make pgo`. What they build is measured by hand: it takes a quarter of an hour.

use super::{PATIENCE, process};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/packaging/pgo");

/// Stands for cargo: a build leaves its flags where the binary would be; the bench leaves counts, as the binary would.
const CARGO: &str = r#"#!/bin/sh
set -eu
echo "$1" >>"$PGO_DIR.log"
case $1 in
  build)
    while [ "$1" != --target ]; do shift; done
    mkdir -p "$PGO_DIR/$2/release"
    printf '%s' "$RUSTFLAGS" >"$PGO_DIR/$2/release/portcullis" ;;
  bench)
    case " $* " in *" --only portcullis "*) ;; *) exit 9 ;; esac
    mkdir "$PGO_DIR/counts"
    cp "$PORTCULLIS" "$PGO_DIR/counts/binary.profraw" ;;
esac
"#;

/// Stands for llvm-profdata: what it merges is what was counted, `COUNTED` times.
const PROFDATA: &str = r#"#!/bin/sh
set -eu
case $1 in
  merge) cp "$3"/*.profraw "${2#--output=}" ;;
  show) printf 'Total functions: 24846\nTotal count: %s\n' "$COUNTED" ;;
esac
"#;

fn program(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).expect("the test directory is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    path
}

fn make(directory: &Path, counted: &str) -> process::Finished {
    let cargo = program(directory, "cargo", CARGO);
    let profdata = program(directory, "llvm-profdata", PROFDATA);
    process::run_with(SCRIPT, &[], b"", PATIENCE, |command| {
        command.env("CARGO", &cargo).env("LLVM_PROFDATA", &profdata).env("COUNTED", counted);
        command.env("PGO_DIR", directory.join("pgo")).env_remove("RUSTFLAGS");
    })
}

#[test]
fn a_profile_of_a_binary_that_was_not_at_work_is_not_used() {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let made = make(directory.path(), "11707");
    assert!(!made.success() && made.all().contains("holds next to nothing (11707 steps counted)"), "{}", made.all());
    assert!(!directory.path().join("pgo/portcullis").try_exists().expect("readable"));
}

#[test]
fn a_profile_is_taken_of_the_binary_that_counts_and_used_for_the_one_that_ships() {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let out = directory.path().join("pgo");
    let shipped = out.join("portcullis");
    let made = make(directory.path(), "274824328").expect_success("conf/packaging/pgo");
    assert_eq!(String::from_utf8_lossy(&made.stdout).trim_end(), shipped.to_string_lossy());
    let counted = fs::read_to_string(out.join("portcullis.profdata")).expect("a profile");
    assert_eq!(counted.trim(), format!("-Cprofile-generate={}", out.join("counts").display()));
    let used = fs::read_to_string(&shipped).expect("a binary");
    assert_eq!(used.trim(), format!("-Cprofile-use={}", out.join("portcullis.profdata").display()));
    assert!(!out.join("counts").try_exists().expect("readable"), "what was counted once would be counted again");
    let order = fs::read_to_string(directory.path().join("pgo.log")).expect("what was called");
    let order: Vec<&str> = order.lines().collect();
    assert_eq!(order, ["build", "bench", "build"]);
}
