//! With the real registry, `docker-registry`; only the gateway is left out.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::config::policy::PolicyFile;
use crate::{config, policy};

const FREE_PORTS: &str = "127.0.0.1:0";

fn options(dir: &Path) -> Options {
    let registry = PathBuf::from("docker-registry");
    Options { dir: dir.to_owned(), address: FREE_PORTS.parse().unwrap(), registry, upstream: None }
}

/// Runs with a console that nobody reads.
fn start<T>(options: &Options, serve: impl FnOnce(&Path) -> T) -> Result<T, DevError> {
    run(options, &mut io::sink(), serve)
}

fn file(dir: &Path, name: &str) -> Vec<u8> {
    fs::read(dir.join(name)).unwrap()
}

/// The address after `key` in a settings file.
fn address_in(settings: &Path, key: &str) -> std::net::SocketAddr {
    let text = fs::read_to_string(settings).unwrap();
    let rest = text.split_once(key).unwrap().1;
    rest.split('"').next().unwrap().parse().unwrap()
}

#[test]
fn the_registry_runs_while_the_gateway_does() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(&options(dir.path()), |settings| {
        assert_eq!(settings, fs::canonicalize(dir.path()).unwrap().join("portcullis.yaml"));
        let registry = address_in(settings, "http://");
        let mut socket = TcpStream::connect(registry).unwrap();
        socket.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        registry
    })
    .unwrap();
    assert!(TcpStream::connect(registry).is_err(), "the registry is still there");
}

#[test]
fn a_registry_that_runs_already_is_used_and_none_started() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Some("http://registry.example:5000".to_owned());
    let options = Options { registry: PathBuf::from("no-such-registry"), upstream, ..options(dir.path()) };
    let settings = start(&options, |file| config::load(file).unwrap().value).unwrap();
    assert_eq!(settings.upstreams[0].endpoints[0].to_string(), "registry.example:5000");
}

#[test]
fn a_second_start_takes_up_the_pki_and_an_edited_policy() {
    let dir = tempfile::tempdir().unwrap();
    let kept = ["pki/ca.crt", "pki/server.crt", "pki/developer.key", "pki/reader.crt", "policy.yaml"];
    start(&options(dir.path()), |_| fs::write(dir.path().join("policy.yaml"), "rules: []\n").unwrap()).unwrap();
    let before = kept.map(|name| file(dir.path(), name));
    start(&options(dir.path()), |_| ()).unwrap();
    assert_eq!(before, kept.map(|name| file(dir.path(), name)));

    fs::write(dir.path().join("pki/reader.crt"), "half a certificate").unwrap();
    start(&options(dir.path()), |_| ()).unwrap();
    assert!(file(dir.path(), "pki/reader.crt").starts_with(b"-----BEGIN CERTIFICATE-----"));
    assert_eq!(before[0], file(dir.path(), "pki/ca.crt"));
}

#[test]
fn the_settings_and_the_policy_have_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    start(&options(dir.path()), |settings| {
        let settings = config::load(settings).map_err(|faults| faults.to_string()).unwrap();
        let file =
            config::read_yaml::<PolicyFile>(&settings.value.policy).map_err(|faults| faults.to_string()).unwrap();
        assert_eq!(policy::compile(&file.value).err(), None);
    })
    .unwrap();
}

#[test]
fn keys_are_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    start(&options(dir.path()), |_| ()).unwrap();
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    for key in ["ca.key", "server.key", "developer.key", "reader.key"] {
        assert_eq!(mode(&format!("pki/{key}")), 0o600, "{key}");
    }
    assert_eq!(mode("pki"), 0o700);
    let clients = fs::read_dir(dir.path().join("certs.d")).unwrap();
    for client in clients {
        let mode = fs::metadata(client.unwrap().path().join("client.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_missing_registry_is_named_with_its_package() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { registry: PathBuf::from("no-such-registry"), ..options(dir.path()) };
    let error = start(&options, |_| unreachable!("served without a registry")).unwrap_err().to_string();
    assert!(error.contains("no-such-registry") && error.contains("Debian: docker-registry"), "{error}");
}

#[test]
fn a_registry_that_ends_shows_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { registry: PathBuf::from("/bin/ls"), ..options(dir.path()) };
    let error = start(&options, |_| ()).unwrap_err().to_string();
    assert!(error.contains("ended at once") && error.contains("serve"), "{error}");
}

#[test]
fn what_is_printed_names_files_that_exist() {
    let dir = tempfile::tempdir().unwrap();
    let mut console = Vec::new();
    run(&options(dir.path()), &mut console, |_| ()).unwrap();
    let text = String::from_utf8(console).unwrap();
    let in_dir = |word: &&str| ["pki/", "certs.d/", "sample/blobs/"].iter().any(|start| word.starts_with(start));
    let named: Vec<&str> = text.split_whitespace().filter(in_dir).filter(|word| !word.contains('$')).collect();
    assert!(named.len() > 8, "{text}");
    for name in named {
        assert!(dir.path().join(name).try_exists().unwrap(), "{name}");
    }
}
