//! What the gateway asks of its host, and what it says when it doesn't get it.

use crate::support::gateway::gateway;
use crate::support::upstream::Upstream;
use std::fs;
use std::net::TcpListener;

/// One of the limits of a process, soft and hard (proc(5)).
fn limit(pid: u32, name: &str) -> Vec<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("the process runs");
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {limits}"));
    line.split_whitespace().take(2).map(str::to_owned).collect()
}

#[test]
fn a_descriptor_limit_below_what_is_configured_is_raised_as_far_as_it_goes_and_told() {
    let upstream = Upstream::start();
    let prlimit = ["prlimit", "--nofile=100:2000", "--"].map(str::to_owned);
    let mut gateway = gateway().upstream(upstream.url()).started(|start| start.through = prlimit.to_vec()).start();
    let said = gateway.wait_for_log("descriptors may be open");
    assert!(said.contains("at most 2000 ") && said.contains("limits.max_connections (10000)"), "{said}");
    assert!(said.contains("warn") || said.contains("WARN"), "{said}");
    assert_eq!(limit(gateway.process().id(), "Max open files"), ["2000", "2000"]);
    assert_eq!(gateway.metric("portcullis_open_files_limit", &[]), Some(2000.0));
}

#[test]
fn a_limit_that_suffices_is_not_mentioned() {
    let upstream = Upstream::start();
    let prlimit = ["prlimit", "--nofile=100:2000", "--"].map(str::to_owned);
    let builder = gateway().upstream(upstream.url()).with_upstream(|u| u["limits"]["max_connections"] = 100.into());
    let builder = builder.configure(|c| c["limits"]["max_connections"] = 1000.into());
    let mut gateway = builder.started(|start| start.through = prlimit.to_vec()).start();
    gateway.wait_for_log("serving");
    assert!(!gateway.log().iter().any(|line| line.contains("descriptors")), "{:#?}", gateway.log());
}

#[test]
fn no_core_is_ever_dumped() {
    let upstream = Upstream::start();
    let mut gateway = gateway().upstream(upstream.url()).start();
    assert_eq!(limit(gateway.process().id(), "Max core file size"), ["0", "0"]);
}

#[test]
fn whoever_holds_an_address_is_named() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = holder.local_addr().expect("an address").to_string();
    let this = format!("(process {})", std::process::id());
    for key in ["listener", "health", "admin"] {
        let upstream = Upstream::start();
        let builder = gateway().upstream(upstream.url()).configure(|c| match key {
            "listener" => c["listeners"][0]["addresses"] = serde_json::json!([address]),
            key => c[key]["address"] = address.clone().into(),
        });
        let said = builder.try_start().err().expect("the address is taken");
        assert!(said.contains(&address) && said.contains(&this), "{key}: {said}");
        assert!(said.contains("unix_wait_status(768)"), "{key}: exit code 3 is the host: {said}");
    }
}
