//! `portcullis pki` with the tools around it: openssl, easy-rsa, curl, skopeo and the gateway itself.

use crate::support::gateway::{Builder, Gateway, NAME, gateway};
use crate::support::pki::openssl;
use crate::support::process::{self, Finished, Process};
use crate::support::registry::Registry;
use crate::support::skip;
use crate::support::skopeo;
use crate::support::upstream::{Upstream, pattern};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

mod foreign;
mod peers;

/// A directory in which commands of the PKI run, with the PKI in `pki`.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("portcullis-pki-").tempdir().expect("a temporary directory"))
    }

    /// A site with a PKI, a certificate for the gateway and the client `ci-7`.
    fn with_pki(more: &[&str]) -> Self {
        let site = Self::new();
        site.pki(&[&["init", "--name", "Test"], more].concat()).expect_success("init");
        site.pki(&["server", NAME, "localhost", "127.0.0.1"]).expect_success("server");
        site.pki(&["client", "ci-7", "--ou", "build", "--spiffe", "spiffe://corp.example/ci-7"])
            .expect_success("client");
        site
    }

    fn pki(&self, arguments: &[&str]) -> Finished {
        self.run(env!("CARGO_BIN_EXE_portcullis"), &[&["pki"], arguments].concat())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Finished {
        process::run_with(program, arguments, b"", Duration::from_secs(60), |command| {
            command.current_dir(self.0.path()).env("PKI_PASS", "open sesame");
        })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }

    /// `openssl verify` of a certificate against bundle and lists of the PKI.
    fn verify(&self, certificate: &str) -> Finished {
        let lists = ["verify", "-x509_strict", "-crl_check_all", "-CRLfile", "pki/ca.crl"];
        self.run("openssl", &[&lists[..], &["-CAfile", "pki/client-ca.pem", certificate]].concat())
    }

    /// A gateway that uses this PKI for everything.
    fn gateway(&self, upstream: &str) -> Gateway {
        self.server_side(gateway().upstream(upstream)).crl(&self.text("pki/ca.crl")).start()
    }

    fn server_side(&self, builder: Builder) -> Builder {
        let server = format!("pki/servers/{NAME}");
        builder
            .file("server.crt", &self.text(&format!("{server}/server.crt")))
            .file("server.key", &self.text(&format!("{server}/server.key")))
            .file("client-ca.pem", &self.text("pki/client-ca.pem"))
    }

    /// `GET /v2/` by curl with the certificate and key of `directory`.
    fn curl(&self, gateway: &Gateway, directory: &str) -> Finished {
        let file = |name: &str| self.path(&format!("{directory}/{name}")).display().to_string();
        curl(gateway, &file("ca.crt"), &file("client.crt"), &file("client.key"))
    }
}

fn curl(gateway: &Gateway, ca: &str, certificate: &str, key: &str) -> Finished {
    let port = gateway.address().port();
    let (url, place) = (format!("https://{NAME}:{port}/v2/"), format!("{NAME}:{port}:127.0.0.1"));
    let arguments = ["-sSf", "--cacert", ca, "--cert", certificate, "--key", key, "--resolve", &place, &url];
    process::run("curl", &arguments, b"", Duration::from_secs(20))
}

#[test]
fn from_nothing_to_a_client_that_is_served_and_then_revoked() {
    if !skip::have(&["curl", "openssl"]) {
        return;
    }
    for options in [&[][..], &["--key", "rsa"], &["--no-intermediate"]] {
        let site = Site::with_pki(options);
        site.pki(&["client", "other"]).expect_success("client");
        let upstream = Upstream::start();
        let gateway = site.gateway(&upstream.url());
        site.curl(&gateway, "pki/clients/ci-7").expect_success("curl");
        let record = gateway.wait_for_record(|record| record["route"] == "ping");
        assert_eq!(record["identity"], "spiffe://corp.example/ci-7", "{record}");

        site.pki(&["revoke", "ci-7", "--reason", "keyCompromise"]).expect_success("revoke");
        gateway.write("ca.crl", site.text("pki/ca.crl"));
        gateway.reload_ok();
        let refused = site.curl(&gateway, "pki/clients/ci-7");
        assert!(!refused.success() && refused.stderr.contains("revoked"), "{options:?}: {}", refused.all());
        site.curl(&gateway, "pki/clients/other").expect_success("the other client");
    }
}

#[test]
fn openssl_accepts_what_is_made_and_sees_what_is_revoked() {
    for options in [&[][..], &["--key", "rsa"], &["--no-intermediate"]] {
        let site = Site::with_pki(options);
        let client = "pki/clients/ci-7/client.crt";
        site.verify(client).expect_success("openssl verify of a client");
        site.verify(&format!("pki/servers/{NAME}/server.crt")).expect_success("openssl verify of a server");
        let purpose = ["verify", "-purpose", "sslclient", "-CAfile", "pki/client-ca.pem", client];
        site.run("openssl", &purpose).expect_success("openssl verify -purpose");
        site.pki(&["revoke", "ci-7"]).expect_success("revoke");
        let refused = site.verify(client);
        assert!(!refused.success() && refused.all().contains("certificate revoked"), "{}", refused.all());

        let before = site.text("pki/ca.crl");
        site.pki(&["crl", "--crl-days", "3", "--root"]).expect_success("crl");
        assert_ne!(site.text("pki/ca.crl"), before);
        let list = site.run("openssl", &["crl", "-in", "pki/ca.crl", "-noout", "-text"]).expect_success("openssl crl");
        assert!(list.text().contains("X509v3 CRL Number"), "{}", list.text());
        assert_eq!(site.pki(&["renew", "ci-7"]).code, Some(1), "a revoked one is not renewed");
        site.pki(&["client", "ci-7"]).expect_success("a new one of the name");
        site.verify(client).expect_success("the new one");
    }
}

#[test]
fn keys_are_private_and_a_passphrase_protects_them() {
    let site = Site::new();
    fs::write(site.path("pass"), "open sesame\n").expect("written");
    site.pki(&["init", "--name", "Test", "--passphrase-file", "pass"]).expect_success("init");
    let plain = site.pki(&["client", "ci-7"]);
    assert_eq!(plain.code, Some(1), "{}", plain.all());
    assert!(plain.stderr.contains("passphrase") && !plain.all().contains("sesame"), "{}", plain.all());
    site.pki(&["client", "ci-7", "--passphrase-env", "PKI_PASS"]).expect_success("client");
    for key in ["ca.key", "root.key"] {
        assert!(site.text(&format!("pki/{key}")).starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{key}");
        let file = format!("pki/{key}");
        site.run("openssl", &["pkey", "-in", &file, "-passin", "file:pass", "-noout"]).expect_success("openssl pkey");
    }
    for key in ["ca.key", "root.key", "clients/ci-7/client.key"] {
        let mode = fs::metadata(site.path("pki").join(key)).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    // A wrong passphrase stops a revocation before it is half done.
    fs::write(site.path("pass"), "wrong\n").expect("written");
    assert_eq!(site.pki(&["revoke", "ci-7", "--passphrase-file", "pass"]).code, Some(1));
    assert!(site.pki(&["list"]).text().contains("ci-7"), "it is still valid");
}

#[test]
fn a_pkcs12_opens_with_openssl() {
    let site = Site::with_pki(&[]);
    let archive = ["client", "alice", "--pkcs12", "alice.p12"];
    let refused = site.pki(&archive);
    assert!(refused.code == Some(1) && refused.stderr.contains("--pkcs12-passphrase-file"), "{}", refused.all());
    site.pki(&[&archive[..], &["--pkcs12-passphrase-env", "PKI_PASS"]].concat()).expect_success("client --pkcs12");
    let open = ["pkcs12", "-in", "alice.p12", "-passin", "env:PKI_PASS", "-nodes"];
    let text = site.run("openssl", &open).expect_success("openssl pkcs12").text();
    assert_eq!(
        (text.matches("BEGIN CERTIFICATE").count(), text.matches("BEGIN PRIVATE KEY").count()),
        (3, 1),
        "{text}"
    );
}

#[test]
fn who_keeps_the_key_sends_a_request() {
    let site = Site::with_pki(&[]);
    let request = ["req", "-new", "-newkey", "rsa:2048", "-noenc", "-keyout", "bob.key", "-out", "bob.csr"];
    site.run("openssl", &[&request[..], &["-subj", "/CN=root/OU=admins"]].concat()).expect_success("openssl req");
    let shown = site.pki(&["show", "bob.csr", "bob.key"]);
    assert!(shown.text().contains("certificate request") && shown.text().contains("RSA 2048"), "{}", shown.all());
    site.pki(&["client", "bob", "--csr", "bob.csr"]).expect_success("client --csr");
    let shown = site.pki(&["show", "pki/clients/bob/client.crt", "bob.key"]).expect_success("show").text();
    assert!(shown.contains("identity     CN=bob") && !shown.contains("admins"), "the CA decides the name: {shown}");
    assert!(!site.path("pki/clients/bob/client.key").try_exists().is_ok_and(|there| there));
}

#[test]
fn skopeo_reads_the_docker_layout() {
    if !skip::have(&["docker-registry", "skopeo"]) {
        return;
    }
    let site = Site::with_pki(&[]);
    let registry = Registry::start();
    let gateway = site.gateway(&registry.url());
    let host = format!("localhost:{}", gateway.address().port());
    site.pki(&["client", "pusher", "--registry", &host, "--docker", "certs.d"]).expect_success("client --docker");
    let image = site.path("image");
    skopeo::image(&image, &pattern(0, 10_000));
    let (from, to) = (format!("oci:{}:latest", image.display()), format!("docker://{host}/team/app:v1"));
    let certificates = site.path("certs.d").join(&host).display().to_string();
    let copy = ["copy", "--insecure-policy", "--dest-cert-dir", &certificates, &from, &to];
    skopeo::skopeo(site.0.path(), &copy).expect_success("skopeo copy");
}

#[test]
fn doctor_finds_nothing_wrong_with_the_layouts() {
    let site = Site::with_pki(&[]);
    let upstream = Upstream::start();
    let gateway = site.gateway(&upstream.url());
    let host = format!("localhost:{}", gateway.address().port());
    site.pki(&["client", "node", "--registry", &host]).expect_success("client --registry");
    for layout in ["docker", "containerd"] {
        let base = format!("pki/clients/node/{layout}/certs.d");
        let arguments = ["doctor", &host, "--certs-dir", &base];
        let said = site.run(env!("CARGO_BIN_EXE_portcullis"), &arguments).expect_success("doctor").text();
        assert!(said.contains(&format!("{host}: 0 failed")), "{said}");
        let warned: Vec<_> = said.lines().filter(|line| line.starts_with("warn")).collect();
        assert!(warned.iter().all(|line| line.contains("on this machine") || line.contains("::1")), "{said}");
    }
}

#[test]
fn containerd_reads_its_layout() {
    if !skip::have(&["docker-registry", "skopeo", "containerd", "ctr"]) {
        return;
    }
    let site = Site::with_pki(&[]);
    let registry = Registry::start();
    let gateway = site.gateway(&registry.url());
    let host = format!("localhost:{}", gateway.address().port());
    site.pki(&["client", "node", "--registry", &host]).expect_success("client --registry");
    let layouts = site.path("pki/clients/node");
    let image = site.path("image");
    skopeo::image(&image, &pattern(0, 10_000));
    let (from, to) = (format!("oci:{}:latest", image.display()), format!("docker://{host}/team/app:v1"));
    let certificates = layouts.join("docker/certs.d").join(&host).display().to_string();
    let copy = ["copy", "--insecure-policy", "--dest-cert-dir", &certificates, &from, &to];
    skopeo::skopeo(site.0.path(), &copy).expect_success("skopeo copy");

    let part = |name: &str| site.path(name).display().to_string();
    let (socket, config) = (part("ctrd.sock"), part("ctrd.toml"));
    fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n").expect("written");
    let (root, state) = (part("root"), part("state"));
    let options = ["--config", &config, "--address", &socket, "--root", &root, "--state", &state];
    let mut daemon = Process::spawn("containerd", "containerd", &options, |_| {});
    let ready =
        daemon.wait_for_line(Duration::from_secs(20), |line| line.contains("successfully booted").then_some(()));
    if let Err(log) = ready {
        skip::skipped(&format!("containerd does not run here: {log}"));
        return;
    }
    let hosts = layouts.join("containerd/certs.d").display().to_string();
    let image = format!("{host}/team/app:v1");
    let fetch = ["--address", &socket, "content", "fetch", "--hosts-dir", &hosts, &image];
    site.run("ctr", &fetch).expect_success("ctr content fetch");
    let record = gateway.wait_for_record(|record| record["route"] == "blob" && record["method"] == "GET");
    assert_eq!(record["identity"], "CN=node", "{record}");
}

#[test]
fn a_command_killed_anywhere_leaves_a_pki_that_works_and_knows_every_certificate() {
    let site = Site::with_pki(&[]);
    let binary = env!("CARGO_BIN_EXE_portcullis");
    for run in 0..24 {
        let limit = format!("0.{:03}", run * 4);
        let name = format!("victim-{run}");
        site.run("timeout", &["-s", "KILL", &limit, binary, "pki", "client", &name]);
        site.run("timeout", &["-s", "KILL", &limit, binary, "pki", "revoke", &name]);
    }
    site.pki(&["client", "after"]).expect_success("a client after all that");
    site.pki(&["crl"]).expect_success("crl");
    site.verify("pki/clients/after/client.crt").expect_success("openssl verify");
    let known = site.pki(&["list", "--all"]).expect_success("list").text().to_lowercase();
    for client in fs::read_dir(site.path("pki/clients")).expect("clients") {
        let file = client.expect("an entry").path().join("client.crt");
        if file.try_exists().is_ok_and(|there| there) {
            let serial = openssl(&["x509", "-noout", "-serial", "-in", &file.to_string_lossy()]);
            let serial = serial.trim().trim_start_matches("serial=").to_lowercase();
            assert!(known.contains(&serial), "{}: {serial} is not in\n{known}", file.display());
        }
    }
}

#[test]
fn commands_at_the_same_time_wait_for_each_other() {
    let site = Site::with_pki(&[]);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let site = &site;
            scope.spawn(move || site.pki(&["client", &format!("c{number}")]).expect_success("client"));
        }
    });
    let listed = site.pki(&["list"]).text();
    assert!((0..6).all(|number| listed.contains(&format!("c{number} "))), "{listed}");
}

#[test]
fn exit_codes_and_errors_say_what_to_do() {
    let site = Site::with_pki(&[]);
    for (arguments, code, part) in [
        (&["init", "--name", "Test"][..], 1, "is there already"),
        (&["client", "ci-7"], 1, "--replace"),
        (&["client", "../ci"], 2, "a client's name has"),
        (&["client", "x", "--spiffe", "http://a"], 2, "SPIFFE"),
        (&["client", "x", "--docker", "d"], 2, "--registry"),
        (&["revoke", "nobody"], 1, "list --all"),
        (&["revoke"], 2, "--serial"),
        (&["revoke", "--serial", "0102"], 1, "0102"),
        (&["list", "--dir", "nowhere"], 1, "pki init"),
        (&["show", "nowhere.crt"], 1, "nowhere.crt"),
        (&["show", "pki/index.jsonl"], 1, "FAULT"),
        (&["client", "x", "--out", "/proc/nowhere"], 3, "/proc/nowhere"),
        (&["crl", "--passphrase-file", "nowhere"], 1, "nowhere"),
    ] {
        let finished = site.pki(arguments);
        assert_eq!(finished.code, Some(code), "{arguments:?}: {}", finished.all());
        assert!(finished.all().contains(part), "{arguments:?}: {}", finished.all());
    }
    for command in ["init", "import", "server", "client", "revoke", "crl", "renew", "list", "show"] {
        let help = site.pki(&[command, "--help"]).expect_success(command).text();
        assert!(help.contains("Examples:") && help.contains("portcullis pki"), "{help}");
    }
    let guide = site.pki(&["--help"]).text();
    assert!(guide.contains("Exit codes:") && guide.contains("client-ca.pem"), "{guide}");
}

#[test]
fn list_and_due_renewals_are_for_programs_too() {
    let site = Site::with_pki(&[]);
    site.pki(&["client", "short", "--days", "5"]).expect_success("client");
    let due = site.pki(&["list", "--due", "30", "--json"]).expect_success("list").text();
    let entry: serde_json::Value = serde_json::from_str(due.trim()).expect("one JSON object");
    assert_eq!((&entry["name"], &entry["status"]), (&"short".into(), &"valid".into()));
    site.pki(&["renew", "--due", "30", "--days", "90"]).expect_success("renew --due");
    assert!(site.pki(&["renew", "--due", "30"]).expect_success("renew").text().contains("nothing is due"));
}
