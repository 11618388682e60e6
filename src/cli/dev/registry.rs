//! The registry behind the development gateway: a child process.

use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::DevError;
use super::files::{self, Access};
use super::site::Site;

/// It answers in about 100 ms; this is for a machine that is busy compiling.
const START: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// A running registry. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Registry {
    child: Child,
    log: PathBuf,
}

impl Registry {
    /// Starts `program` with a configuration of its own and waits until it accepts connections.
    pub(super) fn start(program: &Path, site: &Site) -> Result<Self, DevError> {
        let directory = site.dir.join("registry");
        let log = directory.join("registry.log");
        files::write(&directory.join("config.yml"), configuration(site).as_bytes(), Access::Public)?;
        let output = files::create_log(&log)?;
        let errors = output.try_clone().map_err(|cause| DevError::File { step: "share", path: log.clone(), cause })?;
        let child = Command::new(program)
            .args(["serve", "config.yml"])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // A group of its own: Ctrl-C is for the gateway, which lets transfers end before the registry goes.
            .process_group(0)
            .spawn()
            .map_err(|cause| DevError::Program { program: program.to_owned(), cause })?;
        let mut registry = Self { child, log };
        registry.wait_until_ready(site)?;
        Ok(registry)
    }

    fn wait_until_ready(&mut self, site: &Site) -> Result<(), DevError> {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            // Its end is looked at first: on a port that another process took, somebody else would answer.
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Err(self.fault(format!("ended at once ({status})"))),
                Err(cause) => return Err(self.fault(format!("can't be watched ({cause})"))),
            }
            if TcpStream::connect_timeout(&site.registry, POLL).is_ok() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(self.fault(format!("does not listen on {} after {} s", site.registry, START.as_secs())))
    }

    fn fault(&self, problem: String) -> DevError {
        DevError::Registry { problem, log: self.log.clone(), tail: files::tail(&self.log) }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Killed, not asked: it writes to its storage by renaming, and nobody is connected to it any more.
        if let Err(cause) = self.child.kill().and_then(|()| self.child.wait()) {
            log::warn!("failed to stop the registry (process {}): {cause}", self.child.id());
        }
    }
}

/// Paths are relative to the registry's own directory, where it is started.
fn configuration(site: &Site) -> String {
    let address = site.registry;
    format!(
        "# Written at each start of `portcullis dev`.\n\
         version: 0.1\n\
         log: {{ level: info }}\n\
         storage:\n\
         \x20 filesystem: {{ rootdirectory: data }}\n\
         \x20 delete: {{ enabled: true }}\n\
         http: {{ addr: \"{address}\" }}\n"
    )
}
