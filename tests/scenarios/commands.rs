//! The command line: exit codes, and what is said when nothing can be started.
//!
//! 1 is for files at fault, 2 for wrong usage, 3 for the host: an address in use, a log that can't be written.

use crate::support::gateway::{gateway, start_binary};
use crate::support::process::{self, Finished};
use crate::support::upstream::Upstream;
use std::net::TcpListener;
use std::time::Duration;

fn portcullis(arguments: &[&str]) -> Finished {
    process::run(env!("CARGO_BIN_EXE_portcullis"), arguments, b"", Duration::from_secs(20))
}

#[test]
fn help_lists_the_commands() {
    let help = portcullis(&["--help"]).expect_success("--help").text();
    for command in ["serve", "upgrade", "check", "dev"] {
        assert!(help.contains(command), "{command}: {help}");
    }
    let version = portcullis(&["--version"]).expect_success("--version").text();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn wrong_usage_is_two() {
    for arguments in [&["serv"][..], &["serve", "--nonsense"], &["check", "--config"], &[]] {
        let finished = portcullis(arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.all());
    }
}

#[test]
fn a_good_configuration_is_zero() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let file = builder.write_config().to_string_lossy().into_owned();
    portcullis(&["check", "--config", &file]).expect_success("check");
}

#[test]
fn check_opens_no_listener() {
    let upstream = Upstream::start();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let builder =
        gateway().upstream(upstream.url()).configure(|c| c["listeners"][0]["addresses"] = serde_json::json!([address]));
    let file = builder.write_config().to_string_lossy().into_owned();
    portcullis(&["check", "--config", &file]).expect_success("check while the gateway runs");
}

#[test]
fn check_takes_the_key_of_a_service_that_is_stopped_for_no_fault() {
    let upstream = Upstream::start();
    let key = |builder: crate::support::gateway::Builder, unit: &str| {
        let path = format!("/run/credentials/{unit}/server.key");
        builder.configure(|c| c["listeners"][0]["tls"]["certificates"][0]["key"] = path.into())
    };
    let builder = key(gateway().upstream(upstream.url()), "portcullis-that-is-stopped.service");
    let file = builder.write_config().to_string_lossy().into_owned();
    let finished = portcullis(&["check", "--config", &file]);
    assert_eq!(finished.code, Some(0), "{}", finished.all());
    for part in ["warning: listeners[0].tls.certificates[0].key", "while the service runs", "nor lists were looked at"]
    {
        assert!(finished.stderr.contains(part), "{part}: {}", finished.all());
    }
    assert_eq!(portcullis(&["check", "--strict", "--config", &file]).code, Some(1));
    // It is a fault of whoever would serve with it, and what else is wrong stays wrong.
    assert_eq!(portcullis(&["serve", "--config", &file]).code, Some(1));
    let file = builder.policy("rules: 3\n").write_config().to_string_lossy().into_owned();
    assert_eq!(portcullis(&["check", "--config", &file]).code, Some(1));
}

#[test]
fn a_missing_configuration_is_named() {
    for command in ["check", "serve"] {
        let finished = portcullis(&[command, "--config", "/nowhere/portcullis.yaml"]);
        assert_eq!(finished.code, Some(1), "{command}: {}", finished.all());
        assert!(finished.stderr.contains("/nowhere/portcullis.yaml"), "{command}: {}", finished.all());
    }
}

#[test]
fn serve_does_not_start_with_a_broken_file() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url()).policy("rules: 3\n");
    let file = builder.write_config().to_string_lossy().into_owned();
    let finished = portcullis(&["serve", "--config", &file]);
    assert_eq!(finished.code, Some(1), "{}", finished.all());
    for part in ["policy.yaml:1", "rules"] {
        assert!(finished.all().contains(part), "{part}: {}", finished.all());
    }
}

#[test]
fn an_address_in_use_is_named_and_nothing_is_left_half_started() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    for key in ["edge", "health", "admin"] {
        let upstream = Upstream::start();
        let builder = gateway().upstream(upstream.url()).configure(|c| match key {
            "edge" => c["listeners"][0]["addresses"] = serde_json::json!([address]),
            other => c[other]["address"] = address.clone().into(),
        });
        let file = builder.write_config().to_string_lossy().into_owned();
        let mut process = start_binary(&["serve", "--config", &file], builder.path());
        let status = process.wait(Duration::from_secs(10));
        assert_eq!(status.and_then(|s| s.code()), Some(3), "{key}: {}", process.tail(20));
        let text = process.lines().join("\n");
        assert!(text.contains(&address) && text.to_lowercase().contains("in use"), "{key}: {text}");
    }
}

#[test]
fn a_log_that_cannot_be_written_is_named() {
    let upstream = Upstream::start();
    let builder =
        gateway().upstream(upstream.url()).configure(|c| c["access_log"]["path"] = "/nowhere/access.log".into());
    let file = builder.write_config().to_string_lossy().into_owned();
    let finished = portcullis(&["serve", "--config", &file]);
    assert_eq!(finished.code, Some(3), "{}", finished.all());
    assert!(finished.all().contains("/nowhere/access.log"), "{}", finished.all());
}

#[test]
fn sigterm_lets_a_running_transfer_end_and_leaves_at_once_when_idle() {
    let upstream = Upstream::start();
    upstream.answer(|_| crate::support::upstream::Answer::new(200).delay(Duration::from_millis(800)).body(b"{}"));
    let mut running = gateway().upstream(upstream.url()).configure(|c| c["drain"]["grace"] = "10s".into()).start();
    let mut client = running.h1();
    client.send_request("GET", "/v2/a/manifests/v1", &[], b"").expect("sent");
    upstream.wait_for(|r| r.target.contains("manifests"));
    running.process().signal("TERM");
    assert_eq!(client.answer().expect("the transfer ends well").status, 200);
    let start = std::time::Instant::now();
    let status = running.process().wait(Duration::from_secs(5));
    assert_eq!(status.and_then(|s| s.code()), Some(0), "{}", running.log().join("\n"));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let record = running.wait_for_record(|r| r["route"] == "manifest");
    assert_eq!(record["status"], 200, "the record is written before leaving");
}

#[test]
fn sigterm_cuts_what_does_not_end_in_time() {
    let upstream = Upstream::start();
    upstream.answer(|_| crate::support::upstream::Answer::new(200).delay(Duration::from_secs(30)).body(b"{}"));
    let mut running = gateway().upstream(upstream.url()).configure(|c| c["drain"]["grace"] = "1s".into()).start();
    let mut client = running.h1();
    client.send_request("GET", "/v2/a/manifests/v1", &[], b"").expect("sent");
    let mut idle = running.h2();
    idle.open("GET", "/v2/a/manifests/v2", &[], true).expect("sent");
    upstream.wait_for(|_| true);
    let start = std::time::Instant::now();
    running.process().signal("TERM");
    let status = running.process().wait(Duration::from_secs(8));
    assert!(status.is_some(), "still running after {:?}", start.elapsed());
    assert!(start.elapsed() > Duration::from_millis(900) && start.elapsed() < Duration::from_secs(5));
    running.wait_for_record(|r| r["outcome"] == "shutdown");
}
