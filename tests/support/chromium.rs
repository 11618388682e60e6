//! A real browser without a window, spoken to by its own protocol over pipes, and kept from every host but loopback.

use super::process::Process;
use super::tls::PATIENCE;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the browser may take for a step, on a machine that does other things as well.
const STEP: Duration = Duration::from_secs(60);

/// Becomes the browser, with its pipes where it looks for them.
const LAUNCH: &str = r#"exec "$@" 3<"$COMMANDS" 4>"$EVENTS""#;

/// A browser with one tab.
pub struct Chromium {
    commands: File,
    events: Receiver<Value>,
    /// What came while something else was awaited.
    seen: Vec<Value>,
    next: u64,
    session: String,
    process: Process,
    _directory: TempDir,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
    pub scripts: bool,
}

impl Chromium {
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("pcb-").tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        for name in ["commands", "events"] {
            let made = Command::new("mkfifo").arg(path(name)).status().expect("mkfifo runs");
            assert!(made.success(), "mkfifo {name}");
        }
        let profile = format!("--user-data-dir={}", path("profile").display());
        let arguments = [
            "-c",
            LAUNCH,
            "sh",
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-default-apps",
            "--disable-extensions",
            "--metrics-recording-only",
            "--hide-scrollbars",
            // No name resolves, and loopback is all there is.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--proxy-server=127.0.0.1:1",
            "--proxy-bypass-list=127.0.0.1",
            "--remote-debugging-pipe",
            &profile,
            "about:blank",
        ];
        let process = Process::spawn("chromium", "sh", &arguments, |command| {
            command.env("COMMANDS", path("commands")).env("EVENTS", path("events")).env("HOME", directory.path());
        });
        // Both ways at once: so it doesn't wait for the browser, which may not even start.
        let open = |name: &str| OpenOptions::new().read(true).write(true).open(path(name)).expect("a pipe");
        let (commands, events) = (open("commands"), read_events(open("events")));
        let (seen, session) = (Vec::new(), String::new());
        let mut browser = Self { commands, events, seen, next: 1, session, process, _directory: directory };
        let targets = browser.call("Target.getTargets", json!({}));
        let page = targets["targetInfos"].as_array().and_then(|all| all.iter().find(|one| one["type"] == "page"));
        let target = page.expect("there is a tab")["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&mut self, url: &str, look: Look) {
        let Look { width, height, dark, scripts } = look;
        let (narrow, scheme) = (width < 600, if dark { "dark" } else { "light" });
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": narrow });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": !scripts }));
        let went = self.call("Page.navigate", json!({ "url": url }));
        assert!(went["errorText"].is_null(), "{url}: {went}");
        self.wait_for("Page.loadEventFired");
    }

    /// Waits until the page has loaded again, of its own accord.
    pub fn wait_for_reload(&mut self) {
        self.wait_for("Page.loadEventFired");
    }

    /// What an expression is in the page. Works without scripts, too: it is the browser that evaluates it.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let found = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].clone()
    }

    /// The text that is shown.
    pub fn text(&mut self) -> String {
        self.evaluate("document.body.innerText").as_str().expect("text").to_owned()
    }

    /// A picture of what is seen, as PNG. The whole page, if `whole`.
    pub fn picture(&mut self, whole: bool) -> Vec<u8> {
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": whole }));
        let encoded = taken["data"].as_str().expect("a picture");
        data_encoding::BASE64.decode(encoded.as_bytes()).expect("base64")
    }

    /// The height of the whole page.
    pub fn height(&mut self) -> u32 {
        let height = self.evaluate("document.documentElement.scrollHeight").as_u64();
        height.and_then(|height| u32::try_from(height).ok()).expect("a height")
    }

    /// What the browser has said on its console, violations of the page's policy included.
    pub fn complaints(&self) -> Vec<&Value> {
        let methods = ["Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"];
        self.seen.iter().filter(|event| methods.iter().any(|method| event["method"] == *method)).collect()
    }

    /// Every URL that the tab has asked for.
    pub fn asked(&self) -> Vec<String> {
        let requests = self.seen.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }

    #[track_caller]
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let bytes = format!("{message}\0");
        self.commands.write_all(bytes.as_bytes()).expect("the browser reads");
        let answer = self.await_event(method, |event| event["id"] == id);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    #[track_caller]
    fn wait_for(&mut self, method: &str) {
        let event = self.await_event(method, |event| event["method"] == *method);
        self.seen.push(event);
    }

    #[track_caller]
    fn await_event(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + STEP;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) if wanted(&event) => return event,
                Ok(event) => self.seen.push(event),
                Err(e) => panic!("{what}: {e}; the browser's last words:\n{}", self.process.tail(40)),
            }
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its helpers go with it, if it may leave by itself.
        self.session.clear();
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.process.wait(PATIENCE);
    }
}

/// Reads messages, each of which ends in a zero byte.
fn read_events(pipe: File) -> Receiver<Value> {
    // More than comes between two looks; a full one makes the browser wait.
    let (sender, receiver) = sync_channel(4096);
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut message = Vec::new();
        while matches!(reader.read_until(0, &mut message), Ok(n) if n > 0) {
            message.pop();
            let event = serde_json::from_slice(&message).unwrap_or_default();
            if sender.send(event).is_err() {
                return;
            }
            message.clear();
        }
    });
    receiver
}

/// Keeps a picture for whoever wants to look at it: where `PICTURES` names a directory.
pub fn keep(name: &str, picture: &[u8]) {
    if let Some(directory) = std::env::var_os("PICTURES") {
        std::fs::write(Path::new(&directory).join(format!("{name}.png")), picture).expect("the directory is writable");
    }
}
