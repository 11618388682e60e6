//! The gateway's own log must not hold up what it reports on.

use crate::support::client::H1;
use crate::support::gateway::{Builder, NAME, gateway, plain_http, sample};
use crate::support::pki::{self, Identity};
use crate::support::tls::{ALPN_H1, Tls};
use crate::support::upstream::Upstream;
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// Their lines are more than a pipe holds (64 KiB).
const REFUSED: usize = 800;

/// A gateway whose standard error is a pipe that nobody reads once the gateway serves.
struct Unread {
    builder: Builder,
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    edge: SocketAddr,
    health: SocketAddr,
}

impl Unread {
    fn start(builder: Builder) -> Self {
        // From debug on there is a line for each refused handshake, however many there are.
        let builder = builder.configure(|c| c["log"]["level"] = "debug".into());
        let file = builder.write_config();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_portcullis"), "serve", "--config"])
            .arg(&file)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv is there");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let (mut edge, mut health) = (None, None);
        let mut seen = Vec::new();
        while let Some(Ok(line)) = log.next() {
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            let address = || entry["address"].as_str().and_then(|text| text.parse().ok());
            match (entry["message"].as_str(), entry["kind"].as_str()) {
                (Some("listening"), Some("edge")) => edge = address(),
                (Some("listening"), Some("health")) => health = address(),
                (Some("serving"), _) => break,
                _ => {}
            }
            seen.push(line);
        }
        let (Some(edge), Some(health)) = (edge, health) else { panic!("the gateway did not start: {seen:#?}") };
        Self { builder, child, log, edge, health }
    }

    fn connect(&self, identity: Option<&Identity>) -> Result<H1, String> {
        H1::connect(&Tls {
            address: self.edge,
            name: Some(NAME.to_owned()),
            ca: self.builder.server_ca.certificate.clone(),
            identity: identity.cloned(),
            alpn: ALPN_H1,
            source: None,
            newest: None,
        })
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sample(&plain_http(self.health, "GET", "/metrics").text(), name, labels).unwrap_or(0.0)
    }

    /// Makes handshakes without a certificate, each of which is a line in the log.
    fn fill_the_pipe(&self) {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..REFUSED / 4 {
                        // Whether the refusal comes in the handshake or after it depends on the version of TLS.
                        let answer = self.connect(None).map(|mut client| client.request("GET", "/v2/", &[], b""));
                        assert!(!matches!(answer, Ok(Ok(_))), "a client without a certificate was answered");
                    }
                });
            }
        });
        let refused = self.metric("portcullis_handshakes_total", &[("result", "no_certificate")]);
        assert!(refused >= REFUSED as f64, "{refused}");
    }

    fn wait(&mut self, limit: Duration) -> Option<i32> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_standard_error_that_nobody_reads_stalls_no_request() {
    let upstream = Upstream::start();
    let mut gateway = Unread::start(gateway().upstream(upstream.url()));
    let good = gateway.builder.client_ca.issue(&pki::client("ci-8"));
    let mut before = gateway.connect(Some(&good)).expect("a connection");
    assert_eq!(before.get("/v2/").status, 200);
    gateway.fill_the_pipe();
    assert_eq!(before.get("/v2/team/app/tags/list").status, 200, "on a connection that was open");
    for _ in 0..4 {
        let mut client = gateway.connect(Some(&good)).expect("a connection");
        assert_eq!(client.get("/v2/team/app/tags/list").status, 200, "on a new connection");
    }
    // What waited is there as soon as somebody reads again.
    let refused = gateway.log.by_ref().map_while(Result::ok).filter(|line| line.contains("handshake refused"));
    assert_eq!(refused.take(REFUSED).count(), REFUSED);
    assert_eq!(gateway.metric("portcullis_log_messages_dropped_total", &[]), 0.0);
}

#[test]
fn a_standard_error_that_nobody_reads_does_not_hold_up_the_end() {
    let upstream = Upstream::start();
    let mut gateway = Unread::start(gateway().upstream(upstream.url()));
    gateway.fill_the_pipe();
    let id = gateway.child.id().to_string();
    Command::new("kill").args(["-TERM", &id]).status().expect("kill is there");
    assert_eq!(gateway.wait(Duration::from_secs(15)), Some(0));
}

#[test]
fn the_last_words_are_written() {
    let upstream = Upstream::start();
    let mut gateway = Unread::start(gateway().upstream(upstream.url()));
    let id = gateway.child.id().to_string();
    Command::new("kill").args(["-TERM", &id]).status().expect("kill is there");
    let mut rest = Vec::new();
    rest.extend(gateway.log.by_ref().map_while(Result::ok));
    assert!(rest.last().is_some_and(|line| line.contains("stopped")), "{rest:#?}");
    assert_eq!(gateway.wait(Duration::from_secs(5)), Some(0));
}
