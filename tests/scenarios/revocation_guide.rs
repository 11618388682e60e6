//! The guide to revocation: its commands run as they stand there, and its settings are taken.

use crate::support::blocks::blocks;
use crate::support::gateway::{Gateway, gateway};
use crate::support::pki::Identity;
use crate::support::process;
use crate::support::skip;
use crate::support::upstream::Upstream;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// The text of every block of the guide in `language` that is to be run.
fn texts(language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/revocation.md");
    let found = blocks(&fs::read_to_string(path).expect("the guide"));
    let mine = found.into_iter().filter(|block| block.language == language && block.not_run().is_none());
    mine.map(|block| block.text).collect()
}

/// Runs the guide's commands in an empty directory, where `portcullis` is the one under test.
fn follow() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let programs = directory.path().join(".programs");
    fs::create_dir(&programs).expect("writable");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_portcullis"), programs.join("portcullis")).expect("writable");
    let script = texts("sh").join("\n");
    assert!(script.contains("pki revoke") && script.contains("-gencrl"), "the commands were not found: {script}");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    process::run_with("bash", &["-euo", "pipefail", "-c", &script], b"", Duration::from_secs(120), |command| {
        command.current_dir(directory.path()).env("PATH", &path);
    })
    .expect_success("the guide's commands");
    directory
}

fn is_served(gateway: &Gateway, certificate: &Path, key: &Path) -> bool {
    let (certificate, key) = (certificate.to_owned(), key.to_owned());
    let identity = Identity { chain: certificate.clone(), certificate, intermediates: None, key };
    crate::support::client::H1::connect(&gateway.tls_as(&identity))
        .map_err(std::io::Error::other)
        .and_then(|mut client| client.request("GET", "/v2/", &[], b""))
        .is_ok_and(|reply| reply.status == 200)
}

#[test]
fn its_commands_make_lists_that_revoke_one_client_and_not_the_other() {
    if !skip::have(&["bash", "openssl"]) {
        return;
    }
    let made = follow();
    for (what, ca, list, client) in [
        ("pki", "pki/client-ca.pem", "pki/ca.crl", "pki/clients/NAME/client"),
        ("openssl", "openssl-ca/ca.crt", "openssl-ca/ca.crl", "openssl-ca/NAME"),
    ] {
        let text = |file: &str| fs::read_to_string(made.path().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let upstream = Upstream::start();
        let gateway = gateway().upstream(upstream.url()).file("client-ca.pem", &text(ca)).crl(&text(list)).start();
        for (name, served) in [("ci-7", false), ("ci-8", true)] {
            let base = client.replace("NAME", name);
            let (certificate, key) = (made.path().join(format!("{base}.crt")), made.path().join(format!("{base}.key")));
            assert_eq!(is_served(&gateway, &certificate, &key), served, "{what}: {name}");
        }
    }
}

#[test]
fn its_settings_are_taken() {
    let settings = texts("yaml");
    let settings = settings.iter().filter(|block| block.starts_with("revocation:"));
    let mut taken = 0;
    for block in settings {
        let upstream = Upstream::start();
        let builder = gateway().upstream(upstream.url());
        let own: serde_json::Value = serde_yaml::from_str(block).unwrap_or_else(|e| panic!("{e}: {block}"));
        let builder = builder.configure(|c| {
            for (key, value) in own.as_object().expect("a mapping") {
                c[key] = value.clone();
            }
        });
        // Read as the gateway reads them; the servers that they name don't exist.
        let document = portcullis::config::load(&builder.write_config()).unwrap_or_else(|e| panic!("{e}\n{block}"));
        assert!(!document.value.revocation.sources.is_empty(), "{block}");
        taken += 1;
    }
    assert_eq!(taken, 3, "the guide's settings were not found");
}
