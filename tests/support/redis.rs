//! A real Redis in a directory of its own, which can be stopped and started again.

use super::process::{self, Process};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Stops with the value. It forgets everything when it stops.
pub struct Redis {
    process: Option<Process>,
    directory: TempDir,
    options: Vec<String>,
}

impl Redis {
    /// On a unix socket alone.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more options.
    pub fn start_with(options: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("pcr-").tempdir().expect("the temporary directory is writable");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut redis = Self { process: None, directory, options };
        redis.start_again();
        redis
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// The address as a configuration has it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal("KILL");
            process.wait(Duration::from_secs(20));
        }
        let _ = fs::remove_file(self.socket());
    }

    /// Stands still, as a machine does that swaps or a network that drops everything, until [`Redis::go_on`].
    pub fn freeze(&self) {
        self.process.as_ref().expect("it runs").signal("STOP");
    }

    pub fn go_on(&self) {
        self.process.as_ref().expect("it runs").signal("CONT");
    }

    pub fn start_again(&mut self) {
        let socket = self.socket().to_string_lossy().into_owned();
        let directory = self.directory.path().to_string_lossy().into_owned();
        let mut arguments = vec!["--unixsocket", &socket, "--dir", &directory, "--save", "", "--appendonly", "no"];
        if !self.options.iter().any(|option| option == "--port") {
            arguments.extend(["--port", "0"]);
        }
        arguments.extend(self.options.iter().map(String::as_str));
        self.process = Some(Process::spawn("redis", "redis-server", &arguments, |_| {}));
        let end = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(self.socket()).is_err() {
            let said = self.process.as_ref().map(|process| process.tail(20));
            assert!(Instant::now() < end, "redis-server doesn't come up: {said:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What `redis-cli` prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let socket = self.socket().to_string_lossy().into_owned();
        let arguments: Vec<&str> = ["-s", &socket].into_iter().chain(arguments.iter().copied()).collect();
        process::run("redis-cli", &arguments, b"", Duration::from_secs(20)).expect_success("redis-cli").text()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}
