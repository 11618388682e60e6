//! A private docker daemon that reaches the gateway by a name which does not resolve.
//!
//! A daemon ignores certs.d for a registry on loopback, so it gets a CONNECT proxy that maps the name to the gateway.

use super::gateway::NAME;
use super::pki::Identity;
use super::process::{self, Finished, Process};
use super::skopeo;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Dockerd {
    _process: Process,
    _proxy: ConnectProxy,
    socket: PathBuf,
    directory: TempDir,
    /// What image names start with: the gateway's name and port.
    pub registry: String,
}

impl Dockerd {
    /// Starts a daemon whose certs.d holds `identity` for the gateway at `gateway`.
    ///
    /// # Errors
    /// Why no daemon can run here: not root, or what it wrote.
    pub fn start(gateway: SocketAddr, server_ca: &Path, identity: &Identity) -> Result<Self, String> {
        Self::start_with(gateway, |certs, registry| skopeo::certificates(&certs.join(registry), server_ca, identity))
    }

    /// The same, with a certs.d that `fill` fills: it is told the directory, and how images name the registry.
    ///
    /// # Errors
    /// As [`Dockerd::start`].
    pub fn start_with(gateway: SocketAddr, fill: impl FnOnce(&Path, &str)) -> Result<Self, String> {
        let directory = tempfile::Builder::new().prefix("pcd-").tempdir().map_err(|e| e.to_string())?;
        let path = |name: &str| directory.path().join(name);
        let proxy = ConnectProxy::start(gateway);
        let registry = format!("{NAME}:{}", gateway.port());
        let etc = path("etc");
        let certs = etc.join("certs.d");
        std::fs::create_dir_all(&certs).map_err(|e| e.to_string())?;
        fill(&certs, &registry);
        let socket = path("docker.sock");
        let program = super::skip::find("dockerd").ok_or("dockerd is not installed")?;
        // The daemon reads certs.d below /etc/docker and nowhere else: it gets an /etc/docker of its own.
        let script = format!(
            "mkdir -p /etc/docker && mount --bind {etc} /etc/docker && exec {program} --iptables=false \
             --ip6tables=false --bridge=none --storage-driver=vfs --data-root {data} --exec-root {exec} \
             --pidfile {pid} -H unix://{socket}",
            etc = etc.display(),
            program = program.display(),
            data = path("data").display(),
            exec = path("exec").display(),
            pid = path("pid").display(),
            socket = socket.display(),
        );
        let through = format!("http://{}", proxy.address);
        let mut process = Process::spawn("dockerd", "unshare", &["--mount", "sh", "-c", &script], |command| {
            command.env("HTTPS_PROXY", &through).env("NO_PROXY", "");
        });
        let daemon = |process| Self { _process: process, _proxy: proxy, socket: socket.clone(), directory, registry };
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = process.has_exited() {
                return Err(format!("dockerd ended with {status}:\n{}", process.tail(15)));
            }
            if ping(&socket) {
                return Ok(daemon(process));
            }
            if Instant::now() > end {
                return Err(format!("dockerd doesn't answer:\n{}", process.tail(15)));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs the docker command line against this daemon.
    pub fn docker(&self, arguments: &[&str]) -> Finished {
        self.docker_with_input(arguments, b"")
    }

    pub fn docker_with_input(&self, arguments: &[&str], input: &[u8]) -> Finished {
        let host = format!("unix://{}", self.socket.display());
        process::run_with("docker", arguments, input, Duration::from_secs(120), |command| {
            command.env("DOCKER_HOST", &host).env("DOCKER_CONFIG", self.directory.path().join("client"));
        })
    }

    /// Makes the image `name` of one file by `docker import`.
    #[track_caller]
    pub fn import(&self, name: &str, content: &[u8]) {
        self.docker_with_input(&["import", "-", name], &skopeo::tar("content", content))
            .expect_success("docker import");
    }
}

fn ping(socket: &Path) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut answer = [0_u8; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b"200"))
    };
    ask().unwrap_or(false)
}

/// Answers `CONNECT gw.test:…` by a connection to one address, and refuses every other name.
struct ConnectProxy {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl ConnectProxy {
    fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let stopped = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&stopped);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    thread::spawn(move || tunnel(stream, target));
                }
            }
        });
        Self { address, stopped }
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn tunnel(mut client: TcpStream, target: SocketAddr) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        let mut byte = [0_u8];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    if !head.starts_with(format!("CONNECT {NAME}:").as_bytes()) {
        client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").ok()?;
        return None;
    }
    let mut server = TcpStream::connect(target).ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut up_from, mut up_to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    thread::spawn(move || {
        let _ = io::copy(&mut up_from, &mut up_to);
        let _ = up_to.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Write);
    Some(())
}
