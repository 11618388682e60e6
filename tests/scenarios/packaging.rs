//! What a Debian machine gets: the units of the service, and the package that brings them.

mod pgo;
mod upgrade;

use crate::support::gateway::gateway;
use crate::support::pki::{self, Ca};
use crate::support::process;
use crate::support::skip;
use crate::support::upstream::Upstream;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SERVICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/systemd/portcullis.service");
const SOCKET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/systemd/portcullis.socket");
const PATIENCE: Duration = Duration::from_secs(60);

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The units in a directory, with the program that was built in place of the one that will be installed.
fn units(directory: &Path) -> Vec<PathBuf> {
    [SERVICE, SOCKET]
        .map(|unit| {
            let path = directory.join(Path::new(unit).file_name().expect("a name"));
            let text = read(unit).replace(
                "/usr/lib/portcullis/portcullis serve",
                &format!("{} serve", env!("CARGO_BIN_EXE_portcullis")),
            );
            fs::write(&path, text).expect("the test directory is writable");
            path
        })
        .to_vec()
}

#[test]
fn the_units_are_what_systemd_understands() {
    if !skip::have(&["systemd-analyze"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let units = units(directory.path());
    let paths: Vec<String> = units.iter().map(|unit| unit.to_string_lossy().into_owned()).collect();
    let mut arguments = vec!["verify", "--man=no"];
    arguments.extend(paths.iter().map(String::as_str));
    let verified = process::run("systemd-analyze", &arguments, b"", PATIENCE).expect_success("systemd-analyze verify");
    // What it doesn't know it only warns of.
    let ours: Vec<String> =
        verified.all().lines().filter(|line| line.contains("portcullis.")).map(str::to_owned).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn the_sandbox_leaves_little_open() {
    if !skip::have(&["systemd-analyze"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let unit = units(directory.path())[0].to_string_lossy().into_owned();
    // The threshold is in tenths: 2.0.
    let arguments = ["security", "--offline=true", "--no-pager", "--threshold=20", &unit];
    let judged = process::run("systemd-analyze", &arguments, b"", PATIENCE).expect_success("systemd-analyze security");
    let overall = judged.all();
    let exposure: f64 = overall
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for")?.1.split_once(':')?.1.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no exposure: {overall}"));
    assert!(exposure <= 2.0, "{overall}");
    let page = read(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/systemd.md"));
    assert!(page.contains(&format!("at {exposure} of 10")), "docs/systemd.md tells another exposure than {exposure}");
}

/// The values of a key of a unit.
fn settings<'u>(unit: &'u str, key: &str) -> Vec<&'u str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_sandbox_lets_the_gateway_do_with_resources_what_it_does() {
    // The priority of the thread that builds, the soft limit of open files, and no core dumps.
    let needed = ["setpriority", "prlimit64", "setrlimit"];
    let unit = read(SERVICE);
    let filters = settings(&unit, "SystemCallFilter");
    let refused = filters.iter().position(|filter| *filter == "~@privileged @resources").expect("what is refused");
    let allowed: Vec<&str> = filters[refused + 1..].iter().flat_map(|filter| filter.split_whitespace()).collect();
    for call in needed {
        assert!(allowed.contains(&call), "SystemCallFilter={call} isn't allowed again: {filters:#?}");
    }
    if !skip::have(&["systemd-analyze"]) {
        return;
    }
    let arguments = ["--no-pager", "syscall-filter", "@resources", "@privileged"];
    let named = process::run("systemd-analyze", &arguments, b"", PATIENCE).expect_success("systemd-analyze").all();
    assert!(named.lines().any(|line| line.trim() == "setpriority"), "it need not be allowed again: {named}");
}

#[test]
fn the_service_has_one_capability_and_its_key_as_a_credential() {
    let unit = read(SERVICE);
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(settings(&unit, key), ["CAP_NET_BIND_SERVICE"], "{key}");
    }
    assert_eq!(settings(&unit, "LoadCredential"), ["server.key:/etc/portcullis/server.key"]);
    assert_eq!(settings(&unit, "Type"), ["notify"]);
    assert_eq!(settings(&unit, "StateDirectory"), ["portcullis"]);
    // A stop that is cut short by systemd cuts transfers that drain.grace lets end.
    let reference = read(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/portcullis.yaml"));
    let (_, drain) = reference.split_once("\ndrain:\n").expect("drain");
    assert!(drain.lines().any(|line| line.trim() == "grace: 1m"), "the grace of the reference is 60 s");
    let stop: u32 = settings(&unit, "TimeoutStopSec")[0].parse().expect("seconds");
    assert!(stop > 60, "{stop}");
    let listens = settings(&read(SOCKET), "ListenStream").join(" ");
    assert!(reference.contains(r#"addresses: ["0.0.0.0:443", "[::]:443"]"#), "the reference's addresses");
    assert_eq!(listens, "0.0.0.0:443 [::]:443");
}

/// A system of its own, as far as dpkg sees: an empty root with an empty database.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("the temporary directory is writable");
        fs::create_dir_all(root.path().join("var/lib/dpkg/info")).expect("writable");
        fs::create_dir_all(root.path().join("var/lib/dpkg/updates")).expect("writable");
        fs::write(root.path().join("var/lib/dpkg/status"), "").expect("writable");
        Self(root)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// dpkg runs the package's scripts with this root named to them (`DPKG_ROOT`): there is no shell in it to change to.
    fn dpkg(&self, action: &str, what: &str) {
        let root = format!("--root={}", self.0.path().display());
        let force = "--force-not-root,script-chrootless,depends";
        process::run("dpkg", &[&root, force, "--log=/dev/null", action, what], b"", PATIENCE).expect_success("dpkg");
    }
}

/// The package of the binary that was built for the tests.
fn package(directory: &Path, version: &str) -> String {
    let build = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/packaging/deb");
    let out = directory.to_string_lossy().into_owned();
    let arguments = ["--binary", env!("CARGO_BIN_EXE_portcullis"), "--out", &out, "--version", version];
    let built = process::run(build, &arguments, b"", PATIENCE * 2).expect_success("conf/packaging/deb");
    built.text().trim().to_owned()
}

#[test]
fn the_package_is_installed_configured_upgraded_and_removed() {
    if !skip::have(&["dpkg-deb", "strip", "objdump", "systemd-sysusers", "python3"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let root = Root::new();
    root.dpkg("--install", &package(directory.path(), "1.0-1"));
    for (path, mode) in [
        ("usr/lib/portcullis/portcullis", 0o755),
        ("usr/bin/portcullis", 0o755),
        ("etc/portcullis/portcullis.yaml", 0o644),
        ("etc/portcullis/policy.yaml", 0o644),
        ("etc/logrotate.d/portcullis", 0o644),
        ("usr/lib/systemd/system/portcullis.service", 0o644),
        ("usr/lib/systemd/system/portcullis.socket", 0o644),
        ("usr/share/man/man1/portcullis.1.gz", 0o644),
        ("usr/share/man/man1/portcullis-policy-explain.1.gz", 0o644),
        ("usr/share/bash-completion/completions/portcullis", 0o644),
        ("usr/share/zsh/vendor-completions/_portcullis", 0o644),
        ("usr/share/fish/vendor_completions.d/portcullis.fish", 0o644),
        ("usr/share/portcullis/prometheus/rules.yaml", 0o644),
        ("usr/share/portcullis/grafana/portcullis.json", 0o644),
        ("usr/share/doc/portcullis/docs/runbook.md", 0o644),
    ] {
        let found = root.path(path).metadata().unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o7777, mode, "{path}");
    }
    for (installed, shipped) in [
        ("etc/portcullis/portcullis.yaml", "/conf/packaging/debian/portcullis.yaml"),
        ("etc/portcullis/policy.yaml", "/conf/packaging/debian/policy.yaml"),
        ("usr/lib/sysusers.d/portcullis.conf", "/conf/packaging/debian/sysusers.conf"),
        ("var/lib/dpkg/info/portcullis.postinst", "/conf/packaging/debian/postinst"),
        ("var/lib/dpkg/info/portcullis.prerm", "/conf/packaging/debian/prerm"),
        ("var/lib/dpkg/info/portcullis.postrm", "/conf/packaging/debian/postrm"),
    ] {
        assert_eq!(read(root.path(installed)), read(format!("{}{shipped}", env!("CARGO_MANIFEST_DIR"))), "{installed}");
    }
    let users = read(root.path("etc/passwd"));
    assert!(
        users.lines().any(|line| line.starts_with("portcullis:") && line.ends_with("/usr/sbin/nologin")),
        "{users}"
    );
    let link = fs::read_link(root.path("usr/bin/portcullis")).expect("a link");
    assert_eq!(link, Path::new("../lib/portcullis/portcullis"));
    let program = root.path("usr/bin/portcullis").to_string_lossy().into_owned();
    process::run(&program, &["--version"], b"", PATIENCE).expect_success("the installed program");

    the_installed_configuration_can_be_used(&root, &program);

    // An upgrade leaves what the operator has changed, and data.
    let policy = root.path("etc/portcullis/policy.yaml");
    fs::write(&policy, "rules: []\n").expect("writable");
    fs::create_dir_all(root.path("var/log/portcullis")).expect("writable");
    fs::write(root.path("var/log/portcullis/access.log"), "").expect("writable");
    let before = inode(&root.path("usr/lib/portcullis/portcullis"));
    root.dpkg("--install", &package(directory.path(), "1.0-2"));
    assert_ne!(inode(&root.path("usr/lib/portcullis/portcullis")), before, "the program is a new file");
    assert_eq!(read(&policy), "rules: []\n");
    root.dpkg("--remove", "portcullis");
    assert!(root.path("usr/bin/portcullis").symlink_metadata().is_err());
    assert_eq!(read(&policy), "rules: []\n");
    root.dpkg("--purge", "portcullis");
    assert!(policy.metadata().is_err() && root.path("var/log/portcullis").metadata().is_err());
    assert!(
        root.path("etc/portcullis/server.crt").metadata().is_ok(),
        "what the package has not brought it doesn't take away"
    );
    assert!(
        root.path("etc/logrotate.d/portcullis").metadata().is_err()
            && root.path("usr/share/portcullis").metadata().is_err()
    );
}

fn inode(path: &Path) -> u64 {
    let found = path.metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    std::os::unix::fs::MetadataExt::ino(&found)
}

/// With certificates where the configuration looks for them.
fn the_installed_configuration_can_be_used(root: &Root, program: &str) {
    let pki = root.0.path().join("pki");
    fs::create_dir(&pki).expect("writable");
    let ca = Ca::root(&pki, "CA");
    let server = ca.issue(&pki::server(&["registry.example.com"]));
    let etc = |name: &str| root.path("etc/portcullis").join(name);
    for (from, name) in [(&server.chain, "server.crt"), (&server.key, "server.key"), (&ca.certificate, "ca.crt")] {
        fs::copy(from, etc(name)).expect("writable");
    }
    fs::write(etc("ca.crl"), ca.crl().pem()).expect("writable");
    let shipped = read(etc("portcullis.yaml"));
    let credential = "/run/credentials/portcullis.service/server.key";
    assert!(shipped.contains(credential), "{shipped}");
    // What the service manager does is done by hand.
    let tried = etc("tried.yaml");
    fs::write(&tried, shipped.replace(credential, "server.key")).expect("writable");
    let tried = tried.to_string_lossy().into_owned();
    process::run(program, &["check", "--strict", "--config", &tried], b"", PATIENCE).expect_success("check");
}

#[test]
fn the_logs_are_kept_as_long_as_the_page_about_audits_says() {
    let shipped = read(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/packaging/debian/logrotate"));
    let (access, audit) = shipped.split_once("\n# ").expect("two stanzas");
    assert!(access.starts_with("/var/log/portcullis/access.log {") && access.contains("\trotate 30\n"), "{access}");
    let (_, audit) = audit.split_once('\n').expect("a comment of one line");
    assert!(audit.starts_with("/var/log/portcullis/audit.log {") && audit.contains("\trotate 90\n"), "{audit}");
    let page = read(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md"));
    assert!(page.contains(&format!("```\n{audit}```\n")), "docs/audit.md shows another stanza than {audit}");
}

#[test]
fn a_rotated_log_loses_no_record() {
    if !skip::have(&["logrotate"]) {
        return;
    }
    let upstream = Upstream::start();
    let mut gateway = gateway().upstream(upstream.url()).start();
    assert_eq!(gateway.h1().get("/v2/old/tags/list").status, 200);
    gateway.wait_for_record(|r| r["repository"] == "old");
    let shipped = read(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/packaging/debian/logrotate"));
    // A service manager that is older than --kill-whom. One that refuses makes logrotate fail, which somebody notices.
    let manager = gateway.path().join("bin");
    fs::create_dir(&manager).expect("writable");
    let systemctl = format!(
        "#!/bin/sh\ncase \"$*\" in\n\
         '--quiet is-active portcullis.service') ;;\n\
         '--quiet kill --signal=HUP --kill-who=main portcullis.service') kill -HUP {} ;;\n\
         *) echo \"systemctl: $*\" >&2; exit 1 ;;\nesac\n",
        gateway.process().id()
    );
    fs::write(manager.join("systemctl"), systemctl).expect("writable");
    fs::set_permissions(manager.join("systemctl"), fs::Permissions::from_mode(0o755)).expect("ours");
    let file = gateway.path().join("logrotate.conf");
    let here = shipped.replace("/var/log/portcullis", &gateway.path().display().to_string());
    fs::write(&file, here.replace("\tsu portcullis portcullis\n", "")).expect("writable");
    let (state, file) = (gateway.path().join("logrotate.state"), file.to_string_lossy().into_owned());
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", manager.display());
    let arguments = [&path, "logrotate", "--force", "--state", &state.to_string_lossy(), &file];
    process::run("env", &arguments, b"", PATIENCE).expect_success("logrotate");
    assert!(read(gateway.path().join("access.log.1")).contains("\"old\""));
    let end = std::time::Instant::now() + PATIENCE;
    while gateway.path().join("access.log").metadata().is_err() {
        assert!(std::time::Instant::now() < end, "{:#?}", gateway.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(gateway.h1().get("/v2/new/tags/list").status, 200);
    gateway.wait_for_record(|r| r["repository"] == "new");
}
