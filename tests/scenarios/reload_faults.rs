//! Every way a file can be wrong: what is said about it, where, and that the last good state stays.

use crate::support::gateway::{Builder, Gateway, gateway};
use crate::support::pki::{self, Ca};
use crate::support::process::{self, Finished};
use crate::support::upstream::Upstream;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A mistake: its name, how it is made in the directory of a good configuration, and what must be said about it.
struct Mistake {
    name: &'static str,
    make: fn(&Path, &Ca),
    said: &'static [&'static str],
}

fn append(directory: &Path, file: &str, text: &str) {
    let path = directory.join(file);
    let old = fs::read_to_string(&path).expect("the file is there");
    fs::write(path, old + text).expect("writable");
}

fn replace(directory: &Path, from: &str, to: &str) {
    let path = directory.join("portcullis.yaml");
    let old = fs::read_to_string(&path).expect("the file is there");
    assert!(old.contains(from), "{from:?} is not in {old}");
    fs::write(path, old.replacen(from, to, 1)).expect("writable");
}

fn policy(directory: &Path, rule: &str) {
    let text = format!("groups:\n  builders:\n    - subject: {{ CN: x }}\nrules:\n  - name: one\n{rule}");
    fs::write(directory.join("policy.yaml"), text).expect("writable");
}

const CONFIG: &[Mistake] = &[
    Mistake {
        name: "an unknown key",
        make: |d, _| append(d, "portcullis.yaml", "limitz:\n  handshake_timeout: 1s\n"),
        said: &["portcullis.yaml:", "limitz", "limits"],
    },
    Mistake {
        name: "an unknown key inside",
        make: |d, _| append(d, "portcullis.yaml", "limits:\n  handshake_timeuot: 1s\n"),
        said: &["portcullis.yaml:", "limits.handshake_timeuot", "handshake_timeout"],
    },
    Mistake {
        name: "a wrong type",
        make: |d, _| replace(d, "threads: 2", "threads: many"),
        said: &["portcullis.yaml:", "threads"],
    },
    Mistake {
        name: "a bad duration",
        make: |d, _| append(d, "portcullis.yaml", "limits:\n  handshake_timeout: 10 bananas\n"),
        said: &["portcullis.yaml:", "limits.handshake_timeout"],
    },
    Mistake {
        name: "a key given twice",
        make: |d, _| append(d, "portcullis.yaml", "threads: 3\n"),
        said: &["portcullis.yaml:", "threads"],
    },
    Mistake {
        name: "two mistakes at once",
        make: |d, _| {
            replace(d, "threads: 2", "threads: many");
            append(d, "portcullis.yaml", "limits:\n  handshake_timeuot: 1s\nlimitz: 3\n");
        },
        said: &["threads", "limits.handshake_timeuot", "limitz"],
    },
    Mistake {
        name: "an empty configuration",
        make: |d, _| fs::write(d.join("portcullis.yaml"), "").expect("writable"),
        said: &["portcullis.yaml", "empty"],
    },
    Mistake {
        name: "a half-written configuration",
        make: |d, _| {
            let text = fs::read_to_string(d.join("portcullis.yaml")).expect("there");
            fs::write(d.join("portcullis.yaml"), &text[..text.len() / 2]).expect("writable");
        },
        said: &["portcullis.yaml"],
    },
    Mistake {
        name: "a configuration that is no text",
        make: |d, _| fs::write(d.join("portcullis.yaml"), b"\xff\xfe\x00").expect("writable"),
        said: &["portcullis.yaml", "UTF-8"],
    },
    Mistake {
        name: "a 100 MB file",
        make: |d, _| fs::write(d.join("policy.yaml"), vec![b'#'; 100 << 20]).expect("writable"),
        said: &["policy.yaml", "large"],
    },
    Mistake {
        name: "an upstream that isn't there",
        make: |d, _| replace(d, "upstream: registry", "upstream: registri"),
        said: &["portcullis.yaml:", "listeners[0].upstream", "registri"],
    },
    Mistake {
        name: "an admin listener that others can reach",
        make: |d, _| replace(d, "admin:\n  address: 127.0.0.1:0", "admin:\n  address: 0.0.0.0:0"),
        said: &["portcullis.yaml:", "admin.address", "127.0.0.1"],
    },
];

const FILES: &[Mistake] = &[
    Mistake {
        name: "a missing certificate",
        make: |d, _| fs::remove_file(d.join("server.crt")).expect("there"),
        said: &["portcullis.yaml:", "listeners[0].tls.certificates[0].certificate", "server.crt"],
    },
    Mistake {
        name: "an empty certificate",
        make: |d, _| fs::write(d.join("server.crt"), "").expect("writable"),
        said: &["portcullis.yaml:", "listeners[0].tls.certificates[0].certificate", "server.crt"],
    },
    Mistake {
        name: "a key of another certificate",
        make: |d, ca| {
            let other = ca.issue(&pki::server(&["gw.test"]));
            fs::copy(other.key, d.join("server.key")).expect("writable");
        },
        said: &["portcullis.yaml:", "listeners[0].tls.certificates[0]", "belong"],
    },
    Mistake {
        name: "a half-written key",
        make: |d, _| {
            let text = fs::read_to_string(d.join("server.key")).expect("there");
            fs::write(d.join("server.key"), &text[..text.len() / 2]).expect("writable");
        },
        said: &["portcullis.yaml:", "listeners[0].tls.certificates[0].key", "server.key"],
    },
    Mistake {
        name: "a bundle without a certificate",
        make: |d, _| fs::write(d.join("client-ca.pem"), "# nothing\n").expect("writable"),
        said: &["portcullis.yaml:", "listeners[0].tls.client_ca", "no certificate"],
    },
    Mistake {
        name: "a bundle with a leaf",
        make: |d, ca| {
            let leaf = ca.issue(&pki::client("leaf"));
            append(d, "client-ca.pem", &fs::read_to_string(leaf.certificate).expect("there"));
        },
        said: &["portcullis.yaml:", "listeners[0].tls.client_ca", "leaf"],
    },
    Mistake {
        name: "a missing policy",
        make: |d, _| fs::remove_file(d.join("policy.yaml")).expect("there"),
        said: &["policy.yaml"],
    },
    Mistake {
        name: "a directory for a file",
        make: |d, _| {
            fs::remove_file(d.join("policy.yaml")).expect("there");
            fs::create_dir(d.join("policy.yaml")).expect("writable");
        },
        said: &["policy.yaml", "directory"],
    },
    Mistake {
        name: "an unknown group",
        make: |d, _| {
            policy(d, "    subjects: [bilders]\n    repositories: ['a']\n    actions: [pull]\n    effect: allow\n");
        },
        said: &["policy.yaml:6", "rules[0].subjects[0]", "bilders", "builders"],
    },
    Mistake {
        name: "a glob that matches no repository",
        make: |d, _| {
            policy(
                d,
                "    subjects: [builders]\n    repositories: ['Team/**']\n    actions: [pull]\n    effect: allow\n",
            );
        },
        said: &["policy.yaml:7", "rules[0].repositories[0]", "Team"],
    },
    Mistake {
        name: "an unknown placeholder",
        make: |d, _| {
            policy(
                d,
                "    subjects: [builders]\n    repositories: ['t/${subject.nickname}']\n    actions: [pull]\n    effect: allow\n",
            );
        },
        said: &["policy.yaml:7", "rules[0].repositories[0]", "subject.nickname"],
    },
    Mistake {
        name: "tags on a pull rule",
        make: |d, _| {
            policy(
                d,
                "    subjects: [builders]\n    repositories: ['a']\n    actions: [pull]\n    tags: ['v*']\n    effect: allow\n",
            );
        },
        said: &["policy.yaml:9", "rules[0].tags"],
    },
    Mistake {
        name: "an unknown action",
        make: |d, _| {
            policy(d, "    subjects: [builders]\n    repositories: ['a']\n    actions: [pul]\n    effect: allow\n");
        },
        said: &["policy.yaml:", "rules[0].actions[0]", "pull"],
    },
    Mistake {
        name: "an unknown key in a selector",
        make: |d, _| {
            fs::write(d.join("policy.yaml"), "groups:\n  g:\n    - sujbect: { CN: x }\nrules: []\n").expect("writable");
        },
        said: &["policy.yaml:3", "sujbect", "subject"],
    },
];

fn good() -> (Upstream, Builder) {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    builder.write_config();
    (upstream, builder)
}

fn check(builder: &Builder) -> Finished {
    let file = builder.path().join("portcullis.yaml").to_string_lossy().into_owned();
    let binary = env!("CARGO_BIN_EXE_portcullis");
    process::run(binary, &["check", "--config", &file], b"", Duration::from_secs(20))
}

#[track_caller]
fn assert_said(mistake: &Mistake, text: &str) {
    for part in mistake.said {
        assert!(text.contains(part), "{}: {part:?} is not said:\n{text}", mistake.name);
    }
}

#[test]
fn check_names_every_mistake_with_file_line_and_key() {
    for mistake in CONFIG.iter().chain(FILES) {
        let (_upstream, builder) = good();
        (mistake.make)(builder.path(), &builder.client_ca);
        let finished = check(&builder);
        assert_eq!(finished.code, Some(1), "{}: {}", mistake.name, finished.all());
        assert_said(mistake, &finished.all());
        assert!(!finished.all().contains("panicked"), "{}: {}", mistake.name, finished.all());
    }
}

#[test]
fn all_mistakes_of_a_policy_come_at_once() {
    let (_upstream, builder) = good();
    policy(
        builder.path(),
        "    subjects: [bilders]\n    repositories: ['Team/**', 'x/${nope}']\n    actions: [pull]\n    tags: [v1]\n    effect: allow\n",
    );
    let text = check(&builder).all();
    for part in ["rules[0].subjects[0]", "rules[0].repositories[0]", "rules[0].repositories[1]", "rules[0].tags"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

fn restore(gateway: &Gateway, good: &[(String, Vec<u8>)]) {
    for (name, bytes) in good {
        let path = gateway.path().join(name);
        if path.metadata().is_ok_and(|found| found.is_dir()) {
            fs::remove_dir(&path).expect("an empty directory");
        }
        gateway.write(name, bytes);
    }
}

#[test]
fn a_broken_file_leaves_the_last_good_state_in_force() {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).start();
    let names = ["portcullis.yaml", "policy.yaml", "server.crt", "server.key", "client-ca.pem"];
    let good: Vec<_> =
        names.iter().map(|name| ((*name).to_owned(), fs::read(gateway.path().join(name)).expect("there"))).collect();
    let mut open = gateway.h1();
    for mistake in CONFIG.iter().chain(FILES) {
        let generation = gateway.generation();
        (mistake.make)(gateway.path(), &gateway.client_ca);
        assert_said(mistake, &gateway.reload_refused());
        assert_eq!(gateway.metric("portcullis_reload_failed", &[]), Some(1.0), "{}", mistake.name);
        assert!((gateway.generation() - generation).abs() < 0.5, "{}: a new generation", mistake.name);
        assert_eq!(open.get("/v2/a/manifests/v1").status, 200, "{}", mistake.name);
        assert_eq!(gateway.h1().get("/v2/a/manifests/v1").status, 200, "{}", mistake.name);
        restore(&gateway, &good);
        gateway.reload_ok();
        assert_eq!(gateway.metric("portcullis_reload_failed", &[]), Some(0.0), "{}", mistake.name);
    }
}

#[test]
fn an_expired_server_certificate_is_a_warning() {
    let (_upstream, builder) = good();
    let old = builder.server_ca.issue(&pki::server(&["gw.test"]).expired());
    fs::copy(&old.chain, builder.path().join("server.crt")).expect("writable");
    fs::copy(&old.key, builder.path().join("server.key")).expect("writable");
    let finished = check(&builder);
    assert_eq!(finished.code, Some(0), "{}", finished.all());
    for part in ["portcullis.yaml:", "listeners[0].tls.certificates[0].certificate", "expired"] {
        assert!(finished.all().contains(part), "{part}: {}", finished.all());
    }
    let gateway = builder.start();
    assert!(gateway.log().join("\n").contains("expired"), "{:#?}", gateway.log());
}

#[test]
fn lists_that_cannot_be_used_are_said() {
    let (_upstream, builder) = good();
    let foreign = Ca::root(&builder.pki(), "Unknown CA").crl().pem();
    let posing = Ca::root(&builder.pki(), "Test Client CA").crl().pem();
    for (what, pem, said) in [("an unknown issuer", foreign, "Unknown CA"), ("a bad signature", posing, "signature")] {
        fs::write(builder.path().join("ca.crl"), pem).expect("writable");
        let config = builder.path().join("portcullis.yaml");
        let text = fs::read_to_string(&config).expect("there");
        fs::write(&config, format!("{text}revocation:\n  crls:\n    - file: ca.crl\n")).expect("writable");
        let finished = check(&builder);
        for part in ["ca.crl", "revocation.crls[0]", said] {
            assert!(finished.all().contains(part), "{what}: {part}: {}", finished.all());
        }
        fs::write(&config, text).expect("writable");
    }
}

#[test]
fn a_missing_directory_of_lists_is_said() {
    let (_upstream, builder) = good();
    append(builder.path(), "portcullis.yaml", "revocation:\n  crls:\n    - directory: nowhere/\n");
    let text = check(&builder).all();
    for part in ["portcullis.yaml:", "revocation.crls[0]", "nowhere"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
