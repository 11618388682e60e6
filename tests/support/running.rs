//! A gateway that runs: its clients, its files, and what it says about itself.

use super::client::H1;
use super::gateway::{Builder, NAME, Start, yaml};
use super::h2client::H2;
use super::pki::{self, Ca, Identity};
use super::plain::{plain_http, sample};
use super::process::Process;
use super::reply::Reply;
use super::tls::{ALPN_BOTH, PATIENCE, Tls};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running gateway; ends with the value.
pub struct Gateway {
    pub(super) process: Process,
    pub(super) config: Value,
    pub server_ca: Ca,
    pub client_ca: Ca,
    pub(super) client: Identity,
    pub(super) edges: Vec<SocketAddr>,
    pub(super) health: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) directory: TempDir,
}

impl Gateway {
    /// The address of the first listener.
    pub fn address(&self) -> SocketAddr {
        self.edges[0]
    }

    /// The address of each listener, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.edges
    }

    pub fn health(&self) -> SocketAddr {
        self.health.expect("the health listener is configured")
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("the admin listener is configured")
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The client `ci-7`, which [`Gateway::h1`] and [`Gateway::h2`] use.
    pub fn identity(&self) -> &Identity {
        &self.client
    }

    /// A new client of the trusted CA.
    pub fn client(&self, name: &str) -> Identity {
        self.client_ca.issue(&pki::client(name))
    }

    /// How the default client connects.
    pub fn tls(&self) -> Tls {
        self.tls_as(&self.client)
    }

    pub fn tls_as(&self, identity: &Identity) -> Tls {
        Tls {
            address: self.address(),
            name: Some(NAME.to_owned()),
            ca: self.server_ca.certificate.clone(),
            identity: Some(identity.clone()),
            alpn: ALPN_BOTH,
            source: None,
            newest: None,
        }
    }

    #[track_caller]
    pub fn h1(&self) -> H1 {
        self.h1_as(&self.client)
    }

    #[track_caller]
    pub fn h1_as(&self, identity: &Identity) -> H1 {
        H1::connect(&self.tls_as(identity)).unwrap_or_else(|e| panic!("connecting: {e}"))
    }

    #[track_caller]
    pub fn h2(&self) -> H2 {
        self.h2_as(&self.client)
    }

    #[track_caller]
    pub fn h2_as(&self, identity: &Identity) -> H2 {
        H2::connect(&self.tls_as(identity)).unwrap_or_else(|e| panic!("connecting: {e}"))
    }

    /// One client of each version.
    #[track_caller]
    pub fn both(&self) -> [Client; 2] {
        self.both_as(&self.client)
    }

    #[track_caller]
    pub fn both_as(&self, identity: &Identity) -> [Client; 2] {
        [Client::H1(self.h1_as(identity)), Client::H2(self.h2_as(identity))]
    }

    /// Replaces a file beside the configuration by renaming a new one over it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let staged = self.path().join(format!("{name}.staged"));
        fs::write(&staged, content).expect("the test directory is writable");
        fs::rename(staged, self.path().join(name)).expect("the test directory is writable");
    }

    /// Changes the configuration file in place; the gateway learns of it by a reload only.
    pub fn change_config(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.config);
        self.write("portcullis.yaml", yaml(&self.config));
    }

    /// `POST /-/reload`.
    #[track_caller]
    pub fn reload(&self) -> Reply {
        plain_http(self.admin(), "POST", "/-/reload")
    }

    /// Reloads and checks that it worked.
    #[track_caller]
    pub fn reload_ok(&self) {
        let reply = self.reload();
        assert_eq!(reply.status, 200, "reload: {}", reply.text());
    }

    /// Reloads, checks that it was refused, and returns what the admin listener and the log say about it.
    #[track_caller]
    pub fn reload_refused(&self) -> String {
        let seen = self.process.lines().len();
        let reply = self.reload();
        assert!(reply.status >= 400, "the reload should be refused: {} {}", reply.status, reply.text());
        let log = self.process.lines().split_off(seen).join("\n");
        format!("{}\n{log}", reply.text())
    }

    pub fn generation(&self) -> f64 {
        self.metric("portcullis_config_generation", &[]).unwrap_or(f64::NAN)
    }

    #[track_caller]
    pub fn metrics(&self) -> String {
        let reply = plain_http(self.health(), "GET", "/metrics");
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.text()
    }

    /// The sum of all samples `name` that have these labels; `None` without one.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        sample(&self.metrics(), name, labels)
    }

    /// Waits until a sample has a value that `wanted` likes.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let value = self.metric(name, labels);
            if value.is_some_and(&wanted) {
                return;
            }
            assert!(Instant::now() < end, "{name}{labels:?} stays at {value:?}\n{}", self.metrics());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All access records so far.
    pub fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path().join("access.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for an access record that fulfils `wanted`.
    #[track_caller]
    pub fn wait_for_record(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(found) = self.records().into_iter().find(|r| wanted(r)) {
                return found;
            }
            assert!(Instant::now() < end, "no such access record: {:#?}", self.records());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory now.
    pub fn rss_kib(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    /// The highest resident memory since the start or [`Gateway::reset_peak`].
    pub fn peak_kib(&self) -> u64 {
        self.status_field("VmHWM:")
    }

    pub fn reset_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5");
    }

    fn status_field(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.trim().split(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no {field} in {status}"))
    }

    /// Stops the gateway and starts another one with the same files. `Err` is what it wrote when it didn't come up.
    ///
    /// # Errors
    /// As `Builder::try_start`.
    pub fn restart(mut self) -> Result<Self, String> {
        self.process.stop(PATIENCE);
        let Self { config, server_ca, client_ca, client, directory, .. } = self;
        Builder { directory, config, server_ca, client_ca, client, start: Start::default() }.launch()
    }

    pub fn log(&self) -> Vec<String> {
        self.process.lines()
    }

    /// Waits for a log line that contains `text`.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let found = self.process.wait_for_line(PATIENCE, |line| line.contains(text).then(|| line.to_owned()));
        found.unwrap_or_else(|e| panic!("{text:?}: {e}"))
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// A client of either version, for scenarios that must hold in both.
pub enum Client {
    H1(H1),
    H2(H2),
}

impl Client {
    pub fn version(&self) -> &'static str {
        match self {
            Self::H1(_) => "HTTP/1.1",
            Self::H2(_) => "HTTP/2",
        }
    }

    #[track_caller]
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let version = self.version();
        match self {
            Self::H1(client) => client.request(method, target, headers, body).map_err(|e| e.to_string()),
            Self::H2(client) => client.request(method, target, headers, body),
        }
        .unwrap_or_else(|e| panic!("{version} {method} {target}: {e}"))
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Reply {
        self.request("GET", target, &[], b"")
    }

    /// Waits until the gateway ends the connection. `false` when it doesn't within `limit`.
    pub fn has_ended_within(mut self, limit: Duration) -> bool {
        match &mut self {
            Self::H1(client) => client.is_closed_within(limit),
            Self::H2(client) => client.ended_within(limit).is_some(),
        }
    }
}
