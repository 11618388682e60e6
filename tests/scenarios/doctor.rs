//! `portcullis doctor` against set-ups with one thing broken in each, and servers that are not ours.

use crate::support::gateway::{Gateway, gateway};
use crate::support::pki::{self, Ca, Identity, Key};
use crate::support::process::{self, Finished};
use crate::support::skopeo;
use crate::support::tls::acceptor;
use crate::support::upstream::{Answer, Upstream};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

fn doctor(arguments: &[&str]) -> Finished {
    process::run(env!("CARGO_BIN_EXE_portcullis"), &[&["doctor"], arguments].concat(), b"", Duration::from_secs(60))
}

/// A client's machine: certs.d with one directory.
struct Machine {
    base: TempDir,
    host: String,
}

impl Machine {
    /// As docker wants it for `localhost` at this port.
    fn new(port: u16, server_ca: &Path, identity: &Identity) -> Self {
        let base = tempfile::Builder::new().prefix("portcullis-doctor-").tempdir().expect("a temporary directory");
        let machine = Self { base, host: format!("localhost:{port}") };
        skopeo::certificates(&machine.directory(), server_ca, identity);
        machine.mode("client.key", 0o600);
        machine
    }

    fn of(gateway: &Gateway, identity: &Identity) -> Self {
        Self::new(gateway.address().port(), &gateway.server_ca.certificate, identity)
    }

    fn directory(&self) -> PathBuf {
        self.base.path().join(&self.host)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.file(from), self.file(to)).expect("renamed");
    }

    fn copy(&self, from: &Path, to: &str) {
        fs::copy(from, self.file(to)).expect("copied");
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.file(name), fs::Permissions::from_mode(mode)).expect("chmod");
    }

    fn ask(&self, more: &[&str]) -> Diagnosis {
        let base = self.base.path().to_string_lossy();
        Diagnosis::of(&doctor(&[&[&self.host, "--certs-dir", &base, "--json"], more].concat()))
    }
}

struct Diagnosis {
    code: Option<i32>,
    report: Value,
}

impl Diagnosis {
    fn of(finished: &Finished) -> Self {
        let report = serde_json::from_slice(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {}", finished.all()));
        Self { code: finished.code, report }
    }

    fn checks(&self, result: &str) -> BTreeSet<&str> {
        let all = self.report["checks"].as_array().expect("checks").iter();
        all.filter(|check| check["result"] == result).filter_map(|check| check["check"].as_str()).collect()
    }

    /// These failed and no others, the exit code says so, and what is said has each of `parts`.
    #[track_caller]
    fn fails(&self, what: &str, expected: &[&str], parts: &[&str]) {
        assert_eq!(self.checks("fail"), expected.iter().copied().collect(), "{what}: {:#}", self.report);
        assert_eq!(self.code, Some(if expected.is_empty() { 0 } else { 4 }), "{what}: {:#}", self.report);
        let text = self.report.to_string();
        for part in parts {
            assert!(text.contains(part), "{what}: nothing of {part:?} in {:#}", self.report);
        }
        for check in self.report["checks"].as_array().expect("checks") {
            assert_eq!(check["remedy"].is_null(), check["result"] == "ok", "{what}: {check}");
        }
    }

    #[track_caller]
    fn warns(&self, what: &str, check: &str, parts: &[&str]) {
        assert!(self.checks("warn").contains(check), "{what}: {:#}", self.report);
        self.fails(what, &[], parts);
    }
}

#[test]
fn a_healthy_client_is_told_so() {
    let (_upstream, gateway) = crate::open_gateway();
    let machine = Machine::of(&gateway, gateway.identity());
    let diagnosis = machine.ask(&[]);
    diagnosis.fails("healthy", &[], &["localhost", "HTTP/2", "Test Client CA", "ci-7", "lets this client in"]);
    for check in ["directory", "file-names", "ca", "permissions", "certificate", "key", "chain", "validity", "dns"] {
        assert!(diagnosis.checks("ok").contains(check), "{check}: {:#}", diagnosis.report);
    }
    for check in ["tls", "server-certificate", "server-name", "certificate-request", "issuer", "client-certificate"] {
        assert!(diagnosis.checks("ok").contains(check), "{check}: {:#}", diagnosis.report);
    }
    assert!(diagnosis.checks("ok").contains("registry"), "{:#}", diagnosis.report);
    let record = gateway.wait_for_record(|record| record["route"] == "ping");
    assert!(record["user_agent"].as_str().is_some_and(|agent| agent.starts_with("portcullis-doctor/")), "{record}");

    let text = |name: &str| machine.file(name).to_string_lossy().into_owned();
    let (cert, key, ca) = (text("client.cert"), text("client.key"), text("ca.crt"));
    let named = doctor(&[&machine.host, "--cert", &cert, "--key", &key, "--ca", &ca]).expect_success("doctor --cert");
    for line in ["ok    key ", "ok    registry ", &format!("{}: ", machine.host)] {
        assert!(named.text().lines().any(|shown| shown.starts_with(line)), "{line:?}: {}", named.text());
    }
}

#[test]
fn what_is_wrong_with_names_and_places() {
    let (_upstream, gateway) = crate::open_gateway();
    let broken = |what: &str, expected: &[&str], parts: &[&str], harm: &dyn Fn(&Machine)| {
        let machine = Machine::of(&gateway, gateway.identity());
        harm(&machine);
        machine.ask(&[]).fails(what, expected, parts);
    };
    let without = ["client-certificate"];
    let and_without = |check: &'static str| [check, "client-certificate"];
    let no_files = ["directory", "server-certificate", "client-certificate"];
    broken("no directory", &no_files, &["no directory localhost:", "ca.crt, client.cert and client.key"], &|m| {
        fs::remove_dir_all(m.directory()).expect("removed");
    });
    broken("a directory without the port", &no_files, &["there is ", "with the port if there is one"], &|m| {
        fs::rename(m.directory(), m.base.path().join("localhost")).expect("renamed");
    });
    let crt = ["rename it to", "client.cert", ".crt is for CAs", "certificate_required"];
    broken("the certificate as .crt", &["file-names", "ca", "client-certificate"], &crt, &|m| {
        m.rename("client.cert", "client.crt");
    });
    broken("no key", &and_without("file-names"), &["has no client.key"], &|m| {
        fs::remove_file(m.file("client.key")).expect("removed");
    });
    broken(
        "keys and certificates of other names",
        &and_without("file-names"),
        &["has no key.cert", "no client.key"],
        &|m| {
            m.rename("client.key", "key.key");
        },
    );
    broken("only a CA", &and_without("file-names"), &["holds no client certificate"], &|m| {
        fs::remove_file(m.file("client.key")).expect("removed");
        fs::remove_file(m.file("client.cert")).expect("removed");
    });
    broken("the CA as .pem", &["server-certificate"], &["ca.pem is passed over", "holds no CA"], &|m| {
        m.rename("ca.crt", "ca.pem");
    });
    broken("a link that leads nowhere", &and_without("key"), &["there is no ", "client.key"], &|m| {
        fs::remove_file(m.file("client.key")).expect("removed");
        symlink("/nowhere/client.key", m.file("client.key")).expect("linked");
    });
    broken("swapped", &["certificate", "key", "client-certificate"], &["are the two files swapped?"], &|m| {
        m.rename("client.key", "x");
        m.rename("client.cert", "client.key");
        m.rename("x", "client.cert");
    });
    broken("an empty file", &and_without("certificate"), &["client.cert is empty"], &|m| {
        fs::write(m.file("client.cert"), "").expect("written");
    });
    broken("half a file", &and_without("certificate"), &["half-written"], &|m| {
        let text = fs::read_to_string(m.file("client.cert")).expect("read");
        fs::write(m.file("client.cert"), &text[..text.len() / 2]).expect("written");
    });
    broken("a hosts.toml without the client", &["file-names"], &["hosts.toml names no client certificate"], &|m| {
        fs::write(m.file("hosts.toml"), "server = \"https://localhost\"\n# client = [[]]\n").expect("written");
    });
    assert_eq!(without.len(), 1);

    let machine = Machine::of(&gateway, gateway.identity());
    machine.mode("client.key", 0o644);
    machine.ask(&[]).warns("a key for all", "permissions", &["chmod 600"]);
    machine.mode("client.key", 0o600);
    machine.copy(&gateway.server_ca.certificate, "notes.txt");
    machine.ask(&[]).warns("a file too many", "file-names", &["notes.txt is passed over"]);
}

#[test]
fn what_is_wrong_with_certificates_and_keys() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let revoked = builder.client_ca.issue(&pki::client("ci-8"));
    let list = builder.client_ca.crl().revoke(&revoked.certificate).pem();
    let gateway = builder.crl(&list).start();
    let ca = &gateway.client_ca;
    let as_client = |identity: &Identity| Machine::of(&gateway, identity).ask(&[]);
    let ends = |what: &str, identity: &Identity, expected: &[&str], parts: &[&str]| {
        as_client(identity).fails(what, expected, parts);
    };
    let alert = "client-certificate";
    ends("revoked", &revoked, &[alert], &["certificate_revoked (alert 44)"]);
    let expired = ca.issue(&pki::client("ci-9").expired());
    ends("expired", &expired, &["validity", alert], &["ended on 2021-01-01", "certificate_expired", "renew"]);
    let early = ca.issue(&pki::client("ci-9").not_yet_valid());
    ends("not yet valid", &early, &["validity", alert], &["begins on 2090-01-01", "set this machine's clock"]);
    let foreign = Ca::root(&gateway.path().join("pki"), "Foreign CA").issue(&pki::client("ci-7"));
    let parts = ["leads to CN=Foreign CA", "docker would not even show it", "unknown_ca"];
    ends("a foreign CA", &foreign, &["issuer", alert], &parts);
    let version1 = ca.issue(&pki::Profile::new("ci-7").version1());
    ends("version 1", &version1, &["certificate", alert], &["X.509 version 1", "bad_certificate"]);
    let server = ca.issue(&pki::server(&["localhost"]));
    ends("a server's", &server, &["certificate", alert], &["is not for TLS clients", "unsupported_certificate"]);
    let weak = as_client(&ca.issue(&pki::client("ci-7").key(Key::Rsa(1024))));
    assert!(weak.checks("fail").contains("certificate"), "{:#}", weak.report);
    assert!(weak.report.to_string().contains("RSA of 1024 bits"), "{:#}", weak.report);

    // Of intermediates that nobody has a list for nothing is known, and that is an answer, too.
    let listless = ca.intermediate("Listless", &[]).issue(&pki::client("ci-7"));
    ends("no list", &listless, &[alert], &["certificate_unknown", "revocation lists"]);
}

#[test]
fn what_is_wrong_with_pairs_and_chains() {
    let (_upstream, gateway) = crate::open_gateway();
    let ca = &gateway.client_ca;
    let ends = |what: &str, identity: &Identity, expected: &[&str], parts: &[&str]| {
        Machine::of(&gateway, identity).ask(&[]).fails(what, expected, parts);
    };
    let alert = "client-certificate";
    let between = ca.intermediate("Between", &[]);
    let below = between.issue(&pki::client("ci-7"));
    ends("a whole chain", &below, &[], &["2 certificates sent"]);
    let alone = Identity { chain: below.certificate.clone(), ..below.clone() };
    ends("no intermediate", &alone, &["issuer", alert], &["append the certificate of CN=Between", "unknown_ca"]);
    let machine = Machine::of(&gateway, &below);
    let text = |path: &Path| fs::read_to_string(path).expect("read");
    let turned = text(&between.certificate) + &text(&below.certificate);
    fs::write(machine.file("client.cert"), turned).expect("written");
    machine.ask(&[]).fails("the wrong way round", &["certificate", "key", alert], &["must come first"]);
    let unrelated = text(&below.certificate) + &text(&gateway.server_ca.certificate);
    fs::write(machine.file("client.cert"), unrelated).expect("written");
    machine.ask(&[]).fails("an unrelated CA", &["chain", "issuer", alert], &["did not sign"]);

    let machine = Machine::of(&gateway, gateway.identity());
    machine.copy(&gateway.client("other").key, "client.key");
    machine.ask(&[]).fails("another's key", &["key", alert], &["does not belong to", "certificate_required"]);
    let machine = Machine::of(&gateway, gateway.identity());
    let (key, locked) = (gateway.identity().key.to_string_lossy().into_owned(), machine.file("client.key"));
    let lock = ["pkey", "-in", &key, "-aes256", "-passout", "pass:secret", "-out", &locked.to_string_lossy()];
    process::run("openssl", &lock, b"", Duration::from_secs(20)).expect_success("openssl pkey");
    machine.ask(&[]).fails("a passphrase", &["key", alert], &["docker can't ask for it"]);

    let machine = Machine::of(&gateway, gateway.identity());
    machine.copy(&gateway.client_ca.certificate, "ca.crt");
    let parts = ["CN=gw.test, issued by CN=Test Server CA, is not trusted", "ca.crt"];
    machine.ask(&[]).fails("the client's CA for the server's", &["server-certificate"], &parts);
}

#[test]
fn what_is_wrong_on_the_way() {
    let (upstream, gateway) = crate::open_gateway();
    let machine = |host: &str, address: SocketAddr| {
        let mut machine = Machine::of(&gateway, gateway.identity());
        let old = machine.directory();
        machine.host = format!("{host}:{}", address.port());
        fs::rename(old, machine.directory()).expect("renamed");
        machine
    };
    let here = gateway.address().to_string();
    let named = machine("other.test", gateway.address()).ask(&["--connect", &here]);
    named.fails("another name", &["server-name"], &["localhost, 127.0.0.1, not for other.test"]);
    let lost = machine("nowhere.invalid", gateway.address()).ask(&["--timeout", "20s"]);
    lost.fails("no such name", &["dns"], &["nowhere.invalid does not resolve"]);
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    machine("127.0.0.1", closed).ask(&[]).fails("nobody there", &["connect"], &["refused", "is the gateway running"]);
    let plain = machine("127.0.0.1", gateway.health()).ask(&[]);
    plain.fails("plain HTTP", &["tls"], &["speaks HTTP without TLS"]);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = machine("127.0.0.1", silent.local_addr().expect("bound")).ask(&["--timeout", "1s"]);
    silent.fails("silence", &["tls"], &["doesn't answer a TLS handshake"]);
    let by_address = machine("127.0.0.1", gateway.address()).ask(&[]);
    by_address.warns("by address", "connect", &["dockerd takes a registry on this machine", "it is for 127.0.0.1"]);
    upstream.answer(|_| Answer::new(503));
    let down = machine("localhost", gateway.address()).ask(&[]);
    down.fails("no registry behind", &["registry"], &["the registry behind it is not"]);
}

#[test]
fn what_other_servers_say() {
    let (_upstream, gateway) = crate::open_gateway();
    let server = gateway.server_ca.issue(&pki::server(&["localhost"]));
    let anybody = Upstream::start_tls(acceptor(&server, None));
    let machine = |upstream: &Upstream| {
        let port = upstream.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        Machine::new(port, &gateway.server_ca.certificate, gateway.identity())
    };
    let parts = ["the server asks for no client certificate", "HTTP/1.1"];
    machine(&anybody).ask(&[]).fails("no client certificate wanted", &["certificate-request"], &parts);

    let other = Upstream::start_tls(acceptor(&server, Some(&gateway.client_ca.certificate)));
    let says = |answer: Answer| {
        other.answer(move |_| answer.clone());
        machine(&other).ask(&[])
    };
    let denied = br#"{"errors":[{"code":"DENIED","message":"not on Sundays"}]}"#;
    says(Answer::new(403).body(denied)).fails("403", &["registry"], &["answers 403: not on Sundays", "policy explain"]);
    says(Answer::new(401)).fails("401 without a challenge", &["registry"], &["answers 401"]);
    says(Answer::new(401).header("WWW-Authenticate", "Basic")).warns("401", "registry", &["docker login"]);
    says(Answer::new(404)).fails("404", &["registry"], &["there is no registry here"]);
    says(Answer::new(308).header("Location", "https://r.test/v2/")).fails(
        "308",
        &["registry"],
        &["https://r.test/v2/"],
    );
    says(Answer::new(204)).warns("204", "registry", &["are host and port right?"]);
    says(Answer::raw(b"SSH-2.0-x\r\n")).fails("not HTTP", &["tls"], &["the answer is not HTTP"]);
    let past = Answer::new(200).header("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    says(past).warns("a clock", "clock", &["on the server 1994-11-06T08:49:37Z", "timedatectl"]);
}

#[test]
fn wrong_usage_is_two_and_the_help_has_examples() {
    for arguments in [&["https://localhost/"][..], &["localhost/app"], &[], &["localhost", "--cert", "x"]] {
        assert_eq!(doctor(arguments).code, Some(2), "{arguments:?}");
    }
    let help = doctor(&["--help"]).expect_success("--help").text();
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
}
