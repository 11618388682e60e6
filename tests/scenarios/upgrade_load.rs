//! Upgrades and a drain under load: real clients push to and pull from a real registry all the while, and nothing fails.
//!
//! Gateways that are started independently share one listening socket, as the service manager's do (socket activation):
//! what one leaves in the queue, another one takes. Two addresses behind one name would not do for this: clients try the
//! second one only if the first refuses the connection, and not all do even then.

use crate::support::gateway::{Gateway, NAME, Start, gateway, start_binary_as};
use crate::support::heir::{Heir, upgrade};
use crate::support::manager::activated;
use crate::support::process::{self, Finished};
use crate::support::registry::Registry;
use crate::support::skip;
use crate::support::skopeo::{certificates, image_of, skopeo};
use crate::support::upstream::{pattern, sha256};
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pushes and pulls in all, at least.
const TRANSFERS: usize = 200;

/// Longer than the slowest machine takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Clients that transfer until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn new() -> Self {
        Self { stop: Arc::default(), done: Arc::default(), failures: Arc::default(), clients: Vec::new() }
    }

    /// A client that does `transfer` again and again, with a number that counts up.
    fn add(&mut self, name: &'static str, transfer: impl Fn(usize) -> Result<(), String> + Send + 'static) {
        let (stop, done, failures) = (self.stop.clone(), self.done.clone(), self.failures.clone());
        self.clients.push(std::thread::spawn(move || {
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                match transfer(round) {
                    Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                    Err(e) => failures.lock().expect("no client panics").push(format!("{name} {round}: {e}")),
                }
            }
        }));
    }

    #[track_caller]
    fn wait_for(&self, transfers: usize) {
        let end = Instant::now() + PATIENCE;
        while self.done.load(Ordering::Relaxed) < transfers {
            self.assert_well();
            assert!(Instant::now() < end, "{} of {transfers} transfers are done", self.done.load(Ordering::Relaxed));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn assert_well(&self) {
        let failures = self.failures.lock().expect("no client panics");
        assert!(failures.is_empty(), "{failures:#?}");
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().expect("no client panics");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What a client knows of the gateway.
#[derive(Clone)]
struct Site {
    home: PathBuf,
    port: u16,
}

impl Site {
    fn certs(&self) -> String {
        self.home.join("certs").to_string_lossy().into_owned()
    }

    /// A push of an image by skopeo and its pull, over connections that it keeps.
    fn copy(&self, name: &str, round: usize) -> Result<(), String> {
        let home = self.home.join(name);
        let remote = format!("docker://localhost:{}/team/{name}-{round}:v1", self.port);
        let layout = format!("oci:{}:latest", self.home.join("image").display());
        let back = home.join(format!("back-{round}"));
        let target = format!("oci:{}:latest", back.display());
        fs::create_dir_all(&home).map_err(|e| e.to_string())?;
        let common = ["copy", "--insecure-policy", "--preserve-digests"];
        let certs = self.certs();
        let push = [&common[..], &["--dest-cert-dir", &certs, &layout, &remote]].concat();
        succeeded(skopeo(&home, &push))?;
        let pull = [&common[..], &["--src-cert-dir", &certs, &remote, &target]].concat();
        succeeded(skopeo(&home, &pull))?;
        fs::remove_dir_all(back).map_err(|e| e.to_string())
    }

    fn curl(&self, version: &str, more: &[&str], targets: &[String], input: &[u8]) -> Result<Finished, String> {
        let file = |name: &str| self.home.join("certs").join(name).to_string_lossy().into_owned();
        let (ca, certificate, key) = (file("ca.crt"), file("client.cert"), file("client.key"));
        let resolve = format!("{NAME}:{}:127.0.0.1", self.port);
        let mut arguments =
            vec!["-sSf", version, "--noproxy", "*", "--path-as-is", "--resolve", &resolve, "--cacert", &ca];
        arguments.extend(["--cert", &certificate, "--key", &key]);
        arguments.extend(more);
        let urls: Vec<String> = targets.iter().map(|target| format!("https://{NAME}:{}{target}", self.port)).collect();
        arguments.extend(urls.iter().map(String::as_str));
        let finished = process::run("curl", &arguments, input, Duration::from_secs(60));
        if finished.success() { Ok(finished) } else { Err(format!("{:?} {}", finished.code, finished.stderr)) }
    }

    /// A blob pushed in one piece, and pulled three times over one connection.
    fn blob(&self, version: &str, round: usize) -> Result<(), String> {
        let repository = format!("/v2/team/blobs{}", version.replace(['-', '.'], ""));
        let content = [pattern(round as u64, 256 * 1024), version.as_bytes().to_vec()].concat();
        let digest = sha256(&content);
        let begin = ["-i", "-X", "POST"];
        let begun = self.curl(version, &begin, &[format!("{repository}/blobs/uploads/")], b"")?.text();
        let location = begun
            .lines()
            .find_map(|line| line.to_lowercase().starts_with("location: ").then(|| line[10..].trim().to_owned()))
            .ok_or(begun)?;
        let put = ["-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", "@-"];
        self.curl(version, &put, &[format!("{location}&digest=sha256:{digest}")], &content)?;
        let blob = format!("{repository}/blobs/sha256:{digest}");
        let pulled = self.curl(version, &[], &[blob.clone(), blob.clone(), blob], b"")?;
        let whole = pulled.stdout == content.repeat(3);
        if whole { Ok(()) } else { Err(format!("{} bytes of {}", pulled.stdout.len(), content.len() * 3)) }
    }
}

fn succeeded(finished: Finished) -> Result<(), String> {
    if finished.success() { Ok(()) } else { Err(format!("{:?} {}", finished.code, finished.all())) }
}

/// A gateway on `socket`, which stays open here, with a key for uploads that others share.
fn start(socket: &TcpListener, registry: &Registry) -> Gateway {
    let address = socket.local_addr().expect("an address").to_string();
    let builder = gateway().upstream(registry.url()).file("uploads.key", &"5a".repeat(32));
    let admin = format!("unix:{}", builder.path().join("admin.sock").display());
    let builder = builder.configure(|c| {
        c["uploads"] = json!({ "key_file": "uploads.key" });
        c["listeners"][0]["addresses"] = json!([address]);
        c["admin"]["address"] = admin.into();
        c["drain"]["grace"] = "120s".into();
    });
    let inherited = socket.try_clone().expect("a descriptor");
    builder.started(|start| activated(inherited, start)).start()
}

#[test]
fn two_upgrades_and_a_drain_beside_a_second_instance_fail_no_transfer() {
    if !skip::have(&["docker-registry", "skopeo", "curl"]) {
        return;
    }
    let registry = Registry::start();
    let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let mut first = start(&socket, &registry);
    let home = tempfile::tempdir().expect("a temporary directory");
    let site = Site { home: home.path().to_owned(), port: first.address().port() };
    certificates(&home.path().join("certs"), &first.server_ca.certificate, first.identity());
    image_of(&home.path().join("image"), &[pattern(1, 200_000), pattern(2, 400_000), pattern(3, 50_000)]);
    let mut load = Load::new();
    for name in ["one", "two"] {
        let site = site.clone();
        load.add(name, move |round| site.copy(name, round));
    }
    for version in ["--http1.1", "--http2"] {
        let site = site.clone();
        load.add(version, move |round| site.blob(version, round));
    }

    load.wait_for(TRANSFERS / 5);
    first.process().signal("QUIT");
    let second = Heir::named_in(&first.wait_for_log("is to take over")).expect("a process");
    assert!(first.process().wait(PATIENCE).is_some_and(|status| status.success()), "the first one drains and leaves");
    load.wait_for(2 * TRANSFERS / 5);
    let said = upgrade(&first.path().join("portcullis.yaml")).expect_success("upgrade").text();
    let third = Heir::named_in(&said).expect("a process");
    assert!(second.ends_within(PATIENCE), "the second one drains and leaves");
    load.wait_for(3 * TRANSFERS / 5);

    let other = independent(&first, &socket);
    third.signal("TERM");
    assert!(third.ends_within(PATIENCE), "the third one drains and leaves");
    load.wait_for(TRANSFERS);
    load.end();
    load.assert_well();
    drop(other);
    let log = first.log().join("\n");
    assert!(!log.contains("were cut"), "{log}");
    let failed = first
        .records()
        .into_iter()
        .find(|record| record["outcome"] != "proxied" || record["status"].as_u64() >= Some(500));
    assert!(failed.is_none(), "{failed:#?}");
}

/// A second instance, with its own configuration but for the socket and the keys.
fn independent(first: &Gateway, socket: &TcpListener) -> process::Process {
    let mut config = fs::read_to_string(first.path().join("portcullis.yaml")).expect("a configuration");
    config = config.replace("admin.sock", "other.sock").replace("access.log", "other.log");
    let file = first.path().join("other.yaml");
    fs::write(&file, config).expect("the test directory is writable");
    let mut start = Start::default();
    activated(socket.try_clone().expect("a descriptor"), &mut start);
    let mut other = start_binary_as(start, &["serve", "--config", &path(&file)], first.path());
    other.wait_for_line(PATIENCE, |line| line.contains("\"serving\"").then_some(())).unwrap_or_else(|e| panic!("{e}"));
    other
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
