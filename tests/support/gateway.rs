//! The real binary, started on free ports with a configuration made for one test.

use super::pki::{self, Ca, Identity};
pub use super::plain::{plain_http, sample};
use super::process::Process;
pub use super::running::{Client, Gateway};
use super::tls::PATIENCE;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Every verified client may do everything.
pub const ALLOW_ALL: &str = r#"
rules:
  - name: everyone
    subjects: [any]
    repositories: ["**"]
    actions: [pull, push, overwrite, delete]
    effect: allow
  - name: everyone-lists
    subjects: [any]
    actions: [catalog]
    effect: allow
"#;

/// The name that test clients use for the gateway.
pub const NAME: &str = "gw.test";

/// A gateway with a PKI of its own, one listener on loopback, and [`ALLOW_ALL`] as its policy.
pub fn gateway() -> Builder {
    let directory =
        tempfile::Builder::new().prefix("portcullis-test-").tempdir().expect("the temporary directory is writable");
    let path = directory.path();
    let pki = path.join("pki");
    fs::create_dir(&pki).expect("the test directory is writable");
    let server_ca = Ca::root(&pki, "Test Server CA");
    let client_ca = Ca::root(&pki, "Test Client CA");
    let server = server_ca.issue(&pki::server(&[NAME, "localhost", "127.0.0.1"]));
    let client = client_ca.issue(&pki::client("ci-7"));
    let install = |from: &Path, to: &str| {
        fs::copy(from, path.join(to)).expect("the test directory is writable");
    };
    install(&server.chain, "server.crt");
    install(&server.key, "server.key");
    install(&client_ca.certificate, "client-ca.pem");
    fs::write(path.join("policy.yaml"), ALLOW_ALL).expect("the test directory is writable");
    Builder { config: base_config(), directory, server_ca, client_ca, client, start: Start::default() }
}

fn base_config() -> Value {
    json!({
        "listeners": [{
            "name": "main",
            "addresses": ["127.0.0.1:0"],
            "tls": {
                "certificates": [{ "certificate": "server.crt", "key": "server.key" }],
                "client_ca": "client-ca.pem",
            },
        }],
        "upstreams": [],
        "policy": "policy.yaml",
        // Tests make their sessions up; that real ones are bound is tested with real ones.
        "uploads": { "bind": false },
        // Reloads happen when a test says so; what watching does is tested with watching on.
        "reload": { "watch": false },
        "health": { "address": "127.0.0.1:0" },
        "admin": { "address": "127.0.0.1:0" },
        "access_log": { "path": "access.log" },
        "log": { "level": "info", "format": "json" },
        "drain": { "grace": "2s" },
        "threads": 2,
    })
}

/// A gateway about to start.
pub struct Builder {
    pub(super) directory: TempDir,
    pub(super) config: Value,
    pub server_ca: Ca,
    pub client_ca: Ca,
    pub(super) client: Identity,
    pub(super) start: Start,
}

/// How the binary is started, if not plainly.
#[derive(Default)]
pub struct Start {
    /// A command that becomes the gateway, with its arguments.
    pub through: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
    pub stdin: Option<OwnedFd>,
    /// Another binary than the one that was built.
    pub binary: Option<PathBuf>,
}

impl Builder {
    /// The directory of the configuration; relative paths start here.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the PKI keeps its files.
    pub fn pki(&self) -> PathBuf {
        self.directory.path().join("pki")
    }

    #[must_use]
    pub fn policy(self, yaml: &str) -> Self {
        self.file("policy.yaml", yaml)
    }

    /// Adds an upstream `registry` (or `registry-2`, …) at `url`, without health checks.
    #[must_use]
    pub fn upstream(mut self, url: impl Into<String>) -> Self {
        let Some(upstreams) = self.config["upstreams"].as_array_mut() else {
            panic!("the configuration has a list of upstreams");
        };
        let name = match upstreams.len() {
            0 => "registry".to_owned(),
            n => format!("registry-{}", n + 1),
        };
        upstreams.push(json!({
            "name": name,
            "urls": [url.into()],
            "health_check": { "enabled": false },
        }));
        self.config["listeners"][0]["upstream"] = "registry".into();
        self
    }

    /// Ties upload sessions to their clients, as a gateway does by default.
    #[must_use]
    pub fn bound_uploads(self) -> Self {
        self.configure(|c| c["uploads"] = json!({}))
    }

    /// Changes the configuration in place.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes the settings of the first upstream in place.
    #[must_use]
    pub fn with_upstream(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config["upstreams"][0]);
        self
    }

    /// Writes a file beside the configuration.
    #[must_use]
    pub fn file(self, name: &str, content: &str) -> Self {
        fs::write(self.path().join(name), content).expect("the test directory is writable");
        self
    }

    /// Puts `pem` in `ca.crl` and makes it the only revocation source.
    #[must_use]
    pub fn crl(self, pem: &str) -> Self {
        self.file("ca.crl", pem).configure(|c| c["revocation"]["crls"] = json!([{ "file": "ca.crl" }]))
    }

    /// Starts the binary in another way.
    #[must_use]
    pub fn started(mut self, change: impl FnOnce(&mut Start)) -> Self {
        change(&mut self.start);
        self
    }

    /// Writes the configuration and returns its path, for tests of commands and broken configurations.
    pub fn write_config(&self) -> PathBuf {
        let file = self.path().join("portcullis.yaml");
        fs::write(&file, yaml(&self.config)).expect("the test directory is writable");
        file
    }

    /// Starts the gateway.
    ///
    /// # Panics
    /// With the gateway's log when it doesn't come up.
    #[track_caller]
    pub fn start(self) -> Gateway {
        match self.try_start() {
            Ok(gateway) => gateway,
            Err(log) => panic!("the gateway did not start:\n{log}"),
        }
    }

    /// Starts the gateway; `Err` is what it wrote when it didn't come up.
    ///
    /// # Errors
    /// When the process ends, or doesn't report all its listeners in time.
    pub fn try_start(self) -> Result<Gateway, String> {
        self.write_config();
        self.launch()
    }

    /// Starts the gateway with the files as they are.
    pub(super) fn launch(self) -> Result<Gateway, String> {
        let file = self.path().join("portcullis.yaml");
        let listeners = self.config["listeners"].as_array().map_or(0, Vec::len);
        let mut process =
            start_binary_as(self.start, &["serve", "--config", &file.to_string_lossy()], self.directory.path());
        let mut wait = |kind: &'static str, listener: Option<String>| {
            process.wait_for_line(PATIENCE, |line| listening(line, kind, listener.as_deref()))
        };
        let mut edges = Vec::new();
        for index in 0..listeners {
            let name = self.config["listeners"][index]["name"].as_str().map(str::to_owned);
            edges.push(wait("edge", name)?);
        }
        let on = |key: &str| self.config[key]["address"].is_string();
        let tcp_admin = !self.config["admin"]["address"].as_str().is_some_and(|a| a.starts_with("unix:"));
        let health = if on("health") { Some(wait("health", None)?) } else { None };
        let admin = if on("admin") && tcp_admin { Some(wait("admin", None)?) } else { None };
        Ok(Gateway {
            process,
            config: self.config,
            server_ca: self.server_ca,
            client_ca: self.client_ca,
            client: self.client,
            edges,
            health,
            admin,
            directory: self.directory,
        })
    }
}

/// Starts `portcullis` with `arguments` in `directory`, without what the environment could change.
pub fn start_binary(arguments: &[&str], directory: &Path) -> Process {
    start_binary_as(Start::default(), arguments, directory)
}

/// Starts `portcullis` in another way than plainly.
pub fn start_binary_as(start: Start, arguments: &[&str], directory: &Path) -> Process {
    let binary = start.binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_portcullis").into());
    let mut words: Vec<String> = start.through;
    words.push(binary.to_string_lossy().into_owned());
    words.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Process::spawn("portcullis", words[0], &words[1..], |command: &mut Command| {
        command.current_dir(directory).env_remove("RUST_LOG").env("RUST_BACKTRACE", "1").envs(start.environment);
        if let Some(stdin) = start.stdin {
            command.stdin(stdin);
        }
    })
}

/// The address in a line that reports a listening socket of this kind and name.
///
/// Read from the keys of the JSON object, or from `key=value` words of its message.
fn listening(line: &str, kind: &str, listener: Option<&str>) -> Option<SocketAddr> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let mut words = entry["message"].as_str()?.split_whitespace();
    if words.next() != Some("listening") {
        return None;
    }
    let pairs: Vec<_> = words.filter_map(|word| word.split_once('=')).collect();
    let field = |key: &str| {
        let word = pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        entry[key].as_str().or(word)
    };
    let matches = field("kind") == Some(kind) && listener.is_none_or(|name| field("listener") == Some(name));
    if matches { field("address")?.parse().ok() } else { None }
}

/// The configuration as a file.
pub(super) fn yaml(config: &Value) -> String {
    serde_yaml::to_string(config).expect("a JSON value is valid YAML")
}
