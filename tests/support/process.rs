//! Child processes that never outlive the test that started them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A long-running child whose output is collected, and which is ended by its own id on drop.
///
/// The kernel kills it too when the test process dies (`PR_SET_PDEATHSIG`, set by `setpriv`, which then becomes the
/// child), so an aborted run leaves nothing behind.
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `program` with `arguments`; `adjust` may set the environment, the working directory or standard input.
    pub fn spawn(name: &str, program: &str, arguments: &[&str], adjust: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        adjust(&mut command);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("starting {name}: {e}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take(), &lines);
        collect(child.stderr.take(), &lines);
        Self { name: name.to_owned(), child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything the child has written so far, line by line, standard output and error mixed.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("reader threads don't panic").clone()
    }

    /// The last `count` lines, for failure messages.
    pub fn tail(&self, count: usize) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Waits until a line fulfils `wanted` and returns what it made of it. `Err` holds the output so far.
    pub fn wait_for_line<T>(&mut self, limit: Duration, wanted: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let end = Instant::now() + limit;
        let mut seen = 0;
        loop {
            let exited = self.has_exited();
            let lines = self.lines();
            if let Some(found) = lines[seen..].iter().find_map(|line| wanted(line)) {
                return Ok(found);
            }
            seen = lines.len();
            if exited.is_some() || Instant::now() > end {
                thread::sleep(Duration::from_millis(50)); // the last lines may still be in the pipe
                let lines = self.lines();
                return lines[seen..].iter().find_map(|line| wanted(line)).ok_or_else(|| {
                    format!(
                        "{} (exit: {exited:?}) never wrote the awaited line; its output:\n{}",
                        self.name,
                        lines.join("\n")
                    )
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn has_exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal by name (`TERM`, `HUP`).
    pub fn signal(&self, name: &str) {
        let _ =
            Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).stderr(Stdio::null()).status();
    }

    /// Waits for the end of the child, `None` when it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.has_exited() {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, then SIGKILL after `patience`.
    pub fn stop(&mut self, patience: Duration) -> Option<ExitStatus> {
        if self.has_exited().is_none() {
            self.signal("TERM");
        }
        let status = self.wait(patience);
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(3));
        if thread::panicking() {
            eprintln!("--- last output of {} ---\n{}", self.name, self.tail(60));
        }
    }
}

fn collect(from: Option<impl std::io::Read + Send + 'static>, into: &Arc<Mutex<Vec<String>>>) {
    let (Some(from), into) = (from, Arc::clone(into)) else {
        return;
    };
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if let Ok(mut lines) = into.lock() {
                lines.push(text);
            }
            line.clear();
        }
    });
}

/// What a finished command left behind.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output and error together.
    pub fn all(&self) -> String {
        format!("{}{}", self.text(), self.stderr)
    }

    /// Panics with both outputs unless the command succeeded.
    #[track_caller]
    pub fn expect_success(self, what: &str) -> Self {
        assert!(self.success(), "{what} failed ({:?}):\n{}", self.code, self.all());
        self
    }
}

/// Runs a command to its end with `input` on its standard input; `timeout` ends it after `limit` (code 124).
pub fn run(program: &str, arguments: &[&str], input: &[u8], limit: Duration) -> Finished {
    run_with(program, arguments, input, limit, |_| {})
}

/// Like [`run`], with a hand on the command (environment, directory).
pub fn run_with(
    program: &str,
    arguments: &[&str],
    input: &[u8],
    limit: Duration,
    adjust: impl FnOnce(&mut Command),
) -> Finished {
    let seconds = format!("{:.3}", limit.as_secs_f64());
    let mut command = Command::new("timeout");
    command
        .args(["-k", "2", &seconds, program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    adjust(&mut command);
    let mut child = command.spawn().unwrap_or_else(|e| panic!("running {program}: {e}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A child that doesn't read its input is no error.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().unwrap_or_else(|e| panic!("waiting for {program}: {e}"));
    Finished {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
