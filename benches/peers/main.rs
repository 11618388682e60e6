//! `make bench`: the gateway beside its peers. See `benches/RESULTS.md`.

#![expect(clippy::print_stdout, reason = "what it measured it prints")]

mod harness;

use clap::Parser;
use harness::options::Options;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let gateway = std::env::var("PORTCULLIS").unwrap_or_else(|_| env!("CARGO_BIN_EXE_portcullis").to_owned());
    let report = harness::run(Options::parse(), &gateway)?;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    report.write(&directory)?;
    println!("\n{}\nwritten to {}", report.markdown(), directory.display());
    Ok(())
}
