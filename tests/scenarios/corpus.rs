//! The inputs of the fuzz targets, and mutations of them, without a fuzzer.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// Longer than any input may take, in a build without optimisation on a busy machine.
const LIMIT: Duration = Duration::from_secs(5);

fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("an input"))
        })
        .collect();
    inputs.sort();
    assert!(inputs.len() > 10, "{target}: the corpus is missing");
    inputs
}

/// Runs every input, and `mutations` of it, the same ones each time.
fn run(target: &str, mutations: usize, check: fn(&[u8])) {
    let inputs = inputs(target);
    let mut rng = Rng::with_seed(11);
    for (name, input) in &inputs {
        attempt(&format!("{target}/{name}"), input, check);
        for number in 0..mutations {
            let (_, other) = rng.choice(&inputs).expect("an input");
            let mutated = mutate(&mut rng, input, other);
            attempt(&format!("{target}/{name}, mutation {number}"), &mutated, check);
        }
    }
}

fn attempt(name: &str, input: &[u8], check: fn(&[u8])) {
    let start = Instant::now();
    if panic::catch_unwind(AssertUnwindSafe(|| check(input))).is_err() {
        panic!("{name}, as a literal: b\"{}\"", input.escape_ascii());
    }
    assert!(start.elapsed() < LIMIT, "{name} took {:?}: b\"{}\"", start.elapsed(), input.escape_ascii());
}

/// A few changes of the kinds that a fuzzer makes.
fn mutate(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 14] = [
        b"/",
        b"..",
        b"%2f",
        b"**",
        b"${",
        b"}",
        b"\n",
        b"\0",
        b"\xff",
        b"'",
        b": ",
        b"- ",
        b"\x30\x00",
        b"\x30\x82\xff\xff",
    ];
    let mut bytes = input.to_vec();
    for _ in 0..rng.usize(1..=3) {
        let at = rng.usize(0..=bytes.len());
        let end = (at + rng.usize(0..=16)).min(bytes.len());
        match rng.u8(0..7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            3 => drop(bytes.splice(at..at, rng.choice(WORDS).into_iter().flatten().copied())),
            4 => drop(bytes.splice(at.., other[rng.usize(0..=other.len())..].iter().copied())),
            5 => bytes[at..end].fill_with(|| rng.u8(..)),
            _ => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << rng.u8(0..8)),
        }
    }
    bytes
}

#[test]
fn routes() {
    run("route", 3000, targets::route);
}

#[test]
fn configurations() {
    run("configuration", 60, targets::configuration);
}

#[test]
fn policies() {
    run("policy", 150, targets::policy);
}

#[test]
fn certificates() {
    run("certificate", 1500, targets::certificate);
}

#[test]
fn revocation_lists() {
    run("crl", 150, targets::crl);
}
