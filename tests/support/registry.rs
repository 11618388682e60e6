//! The real registry (Debian's `docker-registry`) on a free loopback port, with its storage in a temporary directory.

use super::gateway::plain_http;
use super::process::Process;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Registry {
    _process: Process,
    address: SocketAddr,
    root: TempDir,
}

impl Registry {
    /// Starts a registry that allows deletes.
    ///
    /// # Panics
    /// When it doesn't answer in time.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same with more in its configuration.
    ///
    /// # Panics
    /// When it doesn't answer in time.
    #[track_caller]
    pub fn start_with(more: &str) -> Self {
        let root = tempfile::tempdir().expect("the temporary directory is writable");
        let address = free_address();
        let config = root.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{ level: warn, accesslog: {{ disabled: true }} }}\nstorage:\n  filesystem: {{ \
             rootdirectory: {} }}\n  delete: {{ enabled: true }}\nhttp:\n  addr: {address}\n{more}\n",
            root.path().join("storage").display()
        );
        fs::write(&config, text).expect("the temporary directory is writable");
        let mut process =
            Process::spawn("docker-registry", "docker-registry", &["serve", &config.to_string_lossy()], |_| {});
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(
                Instant::now() < end && process.has_exited().is_none(),
                "docker-registry did not start:\n{}",
                process.tail(20)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(plain_http(address, "GET", "/v2/").status, 200);
        Self { _process: process, address, root }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it keeps its files.
    pub fn storage(&self) -> PathBuf {
        self.root.path().join("storage")
    }

    /// The file that holds the content of a blob or manifest.
    pub fn file_of(&self, digest: &str) -> PathBuf {
        let (algorithm, hash) = digest.split_once(':').expect("a digest");
        let blobs = self.storage().join("docker/registry/v2/blobs");
        blobs.join(algorithm).join(&hash[..2]).join(hash).join("data")
    }
}

/// A loopback address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("loopback has a free port")
}
