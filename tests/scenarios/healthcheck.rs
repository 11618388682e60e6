//! `portcullis healthcheck`: what a container engine asks, without a shell or curl.

use crate::support::gateway::gateway;
use crate::support::process::{self, Finished};
use crate::support::registry::free_address;
use crate::support::upstream::Upstream;
use std::path::Path;
use std::time::{Duration, Instant};

fn ask(arguments: &[&str]) -> Finished {
    let mut all = vec!["healthcheck"];
    all.extend(arguments);
    process::run(env!("CARGO_BIN_EXE_portcullis"), &all, b"", Duration::from_secs(20))
}

fn at(config: &Path) -> Finished {
    ask(&["--config", &config.to_string_lossy()])
}

#[test]
fn the_exit_code_says_whether_the_gateway_is_ready() {
    let upstream = Upstream::start();
    let address = free_address();
    let mut gateway = gateway()
        .upstream(upstream.url())
        .configure(|c| {
            c["health"]["address"] = format!("0.0.0.0:{}", address.port()).into();
            c["drain"]["grace"] = "60s".into();
        })
        .start();
    let config = gateway.path().join("portcullis.yaml");
    let ready = at(&config);
    assert_eq!((ready.code, ready.text().as_str()), (Some(0), "ready\n"), "{}", ready.all());
    let here = format!("127.0.0.1:{}", address.port());
    let named = format!("localhost:{}", address.port());
    assert_eq!((ask(&["--address", &here]).code, ask(&["--address", &named]).code), (Some(0), Some(0)));
    // While it drains for a transfer it is alive, and not ready.
    upstream.answer(|_| {
        crate::support::upstream::Answer::new(200).pattern(0, 1 << 30).slowly(64 * 1024, Duration::from_millis(10))
    });
    let mut transfer = gateway.h1();
    transfer.send_request("GET", &format!("/v2/team/app/blobs/{}", crate::DIGEST), &[], b"").expect("sent");
    transfer.head().expect("a head");
    gateway.process().signal("TERM");
    gateway.wait_for_log("draining");
    let refused = ask(&["--address", &here]);
    assert_eq!(refused.code, Some(4), "{}", refused.all());
    assert!(refused.stderr.contains("draining"), "{}", refused.all());
    assert_eq!(ask(&["--address", &here, "--live"]).code, Some(0));
    gateway.process().signal("TERM");
    gateway.process().wait(Duration::from_secs(20));
    let gone = at(&config);
    assert_eq!(gone.code, Some(3), "{}", gone.all());
    assert!(gone.stderr.contains(&here), "{}", gone.all());
}

#[test]
fn what_serves_and_what_asks_find_the_same_configuration() {
    let upstream = Upstream::start();
    let address = free_address();
    let builder = gateway().upstream(upstream.url()).configure(|c| c["health"]["address"] = address.to_string().into());
    let file = builder.write_config();
    let with = |arguments: &[&str], file: &Path| {
        process::run_with(env!("CARGO_BIN_EXE_portcullis"), arguments, b"", Duration::from_secs(20), |command| {
            command.env("PORTCULLIS_CONFIG", file);
        })
    };
    let checked = with(&["check"], &file).expect_success("check");
    assert!(checked.text().contains(&*file.to_string_lossy()), "{}", checked.all());
    // As the image has it: neither is told where the file is.
    let mut gateway = process::Process::spawn("serve", env!("CARGO_BIN_EXE_portcullis"), &["serve"], |command| {
        command.env("PORTCULLIS_CONFIG", &file);
    });
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let asked = with(&["healthcheck"], &file);
        if asked.success() {
            break;
        }
        assert!(Instant::now() < end, "{}\n{}", asked.all(), gateway.tail(20));
        std::thread::sleep(Duration::from_millis(100));
    }
    gateway.stop(Duration::from_secs(20));
    let missing = with(&["serve"], Path::new("/nonexistent/portcullis.yaml"));
    assert!(missing.code == Some(1) && missing.all().contains("/nonexistent/portcullis.yaml"), "{}", missing.all());
    // An option is meant more than the environment, which is meant more than the default.
    let other = with(&["check", "--config", "/nonexistent/other.yaml"], &file);
    assert!(other.all().contains("/nonexistent/other.yaml"), "{}", other.all());
}

#[test]
fn a_health_listener_that_is_off_is_nobody_to_ask() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url()).configure(|c| c["health"]["address"] = serde_json::Value::Null);
    let refused = at(&builder.write_config());
    assert_eq!(refused.code, Some(3), "{}", refused.all());
    assert!(refused.stderr.contains("health.address is off"), "{}", refused.all());
}

#[test]
fn a_file_that_cannot_be_read_is_said() {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let file = directory.path().join("portcullis.yaml");
    std::fs::write(&file, "listeners: 7\n").expect("writable");
    // Whether somebody answers at the default address is another's affair.
    let said = at(&file);
    assert!(said.stderr.contains("portcullis.yaml:1: listeners"), "{}", said.all());
    let usage = ask(&["--address", "localhost"]);
    assert_eq!(usage.code, Some(2), "{}", usage.all());
}
