//! What `make bench` runs, with next to no work and the gateway alone: so that a user finds it working.

#[path = "../../benches/peers/harness/mod.rs"]
mod harness;

use clap::Parser;

/// Every scenario, the load run and the soak, on whatever cores there are.
#[test]
fn the_harness_measures_the_gateway_in_every_scenario() {
    // The harness's client of OpenSSL doesn't come back with its tickets; `resumption` shows that other clients do.
    let resumed = cfg!(feature = "boringssl");
    if !resumed {
        eprintln!("SKIPPED: S2, resumed handshakes, with a client of OpenSSL");
    }
    let arguments = "bench --only portcullis --unpinned --rounds 1 --scale 0.005 --load --soak 300ms --scenarios";
    let scenarios = format!("S1,{}S3,S4,S5,S5h2,S6,S6h2,S7,S9", if resumed { "S2," } else { "" });
    let options = harness::options::Options::parse_from(arguments.split_whitespace().chain([&*scenarios]));
    let report = harness::run(options, env!("CARGO_BIN_EXE_portcullis")).expect("every answer is as it should be");
    let text = report.markdown();
    let wanted = ["S1 ", "S2 ", "S3 ", "S4 ", "S5 ", "S5h2 ", "S6 ", "S6h2 ", "S7 ", "S9 docker-registry, blob"];
    for scenario in wanted.into_iter().filter(|scenario| resumed || *scenario != "S2 ") {
        assert!(text.lines().any(|line| line.starts_with(&format!("| {scenario}"))), "{scenario} is missing:\n{text}");
    }
    for part in ["load: at 50 %", "load: at 80 %", "load: balance", "soak:"] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    report.write(directory.path()).expect("the directory is writable");
    let json = std::fs::read(directory.path().join("results.json")).expect("written just now");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("valid JSON");
    assert!(
        json["results"][0]["samples"]["portcullis"][0]["amount"].as_f64().is_some_and(|amount| amount > 0.0),
        "{json}"
    );
}
