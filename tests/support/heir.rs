//! Successors of a gateway: processes that the test didn't start itself, and must end all the same.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::process::{self, Finished};

/// A process that took over. Ended with the value, by its id.
pub struct Heir(pub u32);

impl Heir {
    /// The process that a message names as the one that is to take over, or has.
    pub fn named_in(text: &str) -> Option<Self> {
        let (_, after) =
            text.split_once(" handed over to process ").or_else(|| text.split_once("message\":\"process "))?;
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok().map(Self)
    }

    pub fn runs(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        // One that has ended and waits for its parent's interest doesn't.
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
    }

    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill").args([format!("-{name}"), self.0.to_string()]).stderr(Stdio::null()).status();
    }

    /// Whether it has ended within `limit`.
    pub fn ends_within(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.runs() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if self.runs() {
            self.signal("TERM");
            if !self.ends_within(Duration::from_secs(4)) {
                self.signal("KILL");
            }
        }
    }
}

/// `portcullis upgrade` for the gateway with this configuration.
pub fn upgrade(config: &Path) -> Finished {
    let config = config.to_string_lossy();
    process::run(env!("CARGO_BIN_EXE_portcullis"), &["upgrade", "--config", &config], b"", Duration::from_secs(100))
}
