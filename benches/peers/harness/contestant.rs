//! Who is measured: the gateway, as `benches/gateway.toml` sets it up, and peers that do the same job as far as they can.

use super::Outcome;
use super::pki::Pki;
use super::process::{Process, find};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// A contestant's files for another harness, too; this one takes the configuration from it.
const GATEWAY: &str = include_str!("../../gateway.toml");

/// A program and how it is run. Marks (`@PORT@`) in arguments and files are filled in for each run.
pub struct Contestant {
    pub name: &'static str,
    pub binary: String,
    command: &'static [&'static str],
    version: &'static str,
    files: Vec<(String, String)>,
    environment: &'static [(&'static str, &'static str)],
}

/// A peer: its variable, its name on PATH, its command, how it tells its version, its files and environment.
struct Peer {
    name: &'static str,
    variable: &'static str,
    command: &'static [&'static str],
    version: &'static str,
    files: &'static [(&'static str, &'static str)],
    environment: &'static [(&'static str, &'static str)],
}

const PEERS: &[Peer] = &[
    Peer {
        name: "envoy",
        variable: "ENVOY",
        command: &["-c", "@DIR@/envoy.yaml", "--concurrency", "@THREADS@", "--disable-hot-restart", "-l", "warn"],
        version: "--version",
        files: &[
            ("envoy.yaml", include_str!("configs/envoy.yaml")),
            ("clients.yaml", include_str!("configs/clients.yaml")),
        ],
        environment: &[],
    },
    Peer {
        name: "nginx",
        variable: "NGINX",
        command: &["-p", "@DIR@", "-c", "@DIR@/nginx.conf"],
        version: "-v",
        files: &[("nginx.conf", include_str!("configs/nginx.conf"))],
        environment: &[],
    },
    Peer {
        name: "haproxy",
        variable: "HAPROXY",
        command: &["-db", "-f", "@DIR@/haproxy.cfg"],
        version: "-v",
        files: &[("haproxy.cfg", include_str!("configs/haproxy.cfg"))],
        environment: &[],
    },
    Peer {
        name: "traefik",
        variable: "TRAEFIK",
        command: &["--configFile=@DIR@/traefik.yaml"],
        version: "version",
        files: &[
            ("traefik.yaml", include_str!("configs/traefik.yaml")),
            ("dynamic.yaml", include_str!("configs/dynamic.yaml")),
        ],
        environment: &[("GOMAXPROCS", "@THREADS@")],
    },
    Peer {
        name: "caddy",
        variable: "CADDY",
        command: &["run", "--config", "@DIR@/Caddyfile", "--adapter", "caddyfile"],
        version: "version",
        files: &[("Caddyfile", include_str!("configs/Caddyfile"))],
        environment: &[("GOMAXPROCS", "@THREADS@"), ("XDG_DATA_HOME", "@DIR@/data"), ("XDG_CONFIG_HOME", "@DIR@/data")],
    },
];

impl Contestant {
    /// The gateway.
    ///
    /// # Errors
    /// When its contestant file holds no configuration.
    pub fn gateway(binary: String) -> Outcome<Self> {
        let files = files_of(GATEWAY);
        if !files.iter().any(|(name, _)| name == "portcullis.yaml") {
            return Err("benches/gateway.toml holds no portcullis.yaml".into());
        }
        let command = &["serve", "--config", "@DIR@/portcullis.yaml"];
        Ok(Self { name: "portcullis", binary, command, version: "--version", files, environment: &[] })
    }

    /// The peers that this machine has.
    pub fn peers() -> Vec<Self> {
        let peer = |peer: &Peer| {
            let binary = find(peer.variable, &[peer.name])?;
            let files = peer.files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
            let Peer { name, command, version, environment, .. } = *peer;
            Some(Self { name, binary, command, version, files, environment })
        };
        PEERS.iter().filter_map(peer).collect()
    }

    /// What it says about itself, in a line.
    pub fn version(&self) -> String {
        let Ok(output) = Command::new(&self.binary).arg(self.version).output() else { return "?".to_owned() };
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).replace(&self.binary, self.name);
        said.lines().find(|line| !line.trim().is_empty()).unwrap_or("?").trim().to_owned()
    }
}

/// The entries of the table `[files]` that are texts of many lines.
fn files_of(toml: &str) -> Vec<(String, String)> {
    let table = toml.split_once("[files]").map_or("", |(_, table)| table);
    let mut pieces = table.split("'''");
    let mut files = Vec::new();
    while let (Some(key), Some(text)) = (pieces.next(), pieces.next()) {
        let name = key.trim().trim_end_matches('=').trim().trim_matches('"');
        files.push((name.to_owned(), text.to_owned()));
    }
    files
}

/// Where and how a contestant shall run.
pub struct Setting<'a> {
    pub pki: &'a Pki,
    pub list: &'a Path,
    pub upstream: SocketAddr,
    pub directory: PathBuf,
    pub cores: Option<&'a str>,
    pub threads: usize,
}

/// A contestant that runs.
pub struct Running {
    pub name: &'static str,
    pub address: SocketAddr,
    pub process: Process,
    directory: PathBuf,
}

impl Running {
    /// Starts a contestant on a free port and waits until it listens.
    ///
    /// # Errors
    /// What it says when it doesn't.
    pub fn start(contestant: &Contestant, setting: &Setting<'_>) -> Outcome<Self> {
        let directory = setting.directory.clone();
        let lists = directory.join("lists");
        fs::create_dir_all(&lists)?;
        fs::copy(setting.list, lists.join("list.pem"))?;
        let both =
            fs::read_to_string(setting.pki.file("server.pem"))? + &fs::read_to_string(setting.pki.file("server.key"))?;
        fs::write(directory.join("both.pem"), both)?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let marks = Marks::new(setting, address);
        for (name, text) in &contestant.files {
            fs::write(directory.join(name), marks.fill(text))?;
        }
        let command: Vec<String> = std::iter::once(contestant.binary.clone())
            .chain(contestant.command.iter().map(|argument| marks.fill(argument).trim_end().to_owned()))
            .collect();
        let environment: Vec<(&str, String)> =
            contestant.environment.iter().map(|(key, value)| (*key, marks.fill(value).trim_end().to_owned())).collect();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let process = Process::start(&command, &directory, setting.cores, &environment)?;
        let mut running = Self { name: contestant.name, address, process, directory };
        running.wait()?;
        Ok(running)
    }

    fn wait(&mut self) -> Outcome<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(self.address).is_err() {
            if !self.process.is_running() || Instant::now() > end {
                let said = fs::read_to_string(self.directory.join("output.log")).unwrap_or_default();
                return Err(format!("{} did not start:\n{said}", self.name).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

struct Marks(Vec<(&'static str, String)>);

impl Marks {
    fn new(setting: &Setting<'_>, address: SocketAddr) -> Self {
        let directory = setting.directory.as_path();
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let threads = setting.threads.to_string();
        Self(vec![
            ("@DIR@", text(directory.to_owned())),
            ("@PORT@", address.port().to_string()),
            ("@UPSTREAM_PORT@", setting.upstream.port().to_string()),
            ("@CA@", text(setting.pki.file("authority.pem"))),
            ("@CERT@", text(setting.pki.file("server.pem"))),
            ("@KEY@", text(setting.pki.file("server.key"))),
            ("@CERT_AND_KEY@", text(directory.join("both.pem"))),
            ("@CRL@", text(directory.join("lists/list.pem"))),
            ("@CRL_DIR@", text(directory.join("lists"))),
            ("@ACCESS_LOG@", text(directory.join("access.log"))),
            ("threads: 1", format!("threads: {threads}")),
            ("@THREADS@", threads),
        ])
    }

    /// The text for a run with a revocation list and an access log.
    fn fill(&self, text: &str) -> String {
        let mut whole = String::new();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("@IF_NO")) {
            let line = line.replace("@IF_CRL@", "").replace("@IF_LOG@", "");
            let line = self.0.iter().fold(line, |line, (mark, value)| line.replace(mark, value));
            whole.push_str(&line);
            whole.push('\n');
        }
        whole
    }
}
