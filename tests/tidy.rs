//! The layout of the source: what ARCHITECTURE.md promises and a program can check, by reading files alone.
//!
//! Most promises are absences: a part that does not know, name or touch something. Whoever breaks one on purpose
//! changes ARCHITECTURE.md and the list here in the same commit.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test says what it expects by failing, in its helpers too"
)]

#[path = "support/blocks.rs"]
mod blocks;
#[path = "tidy/guides.rs"]
mod guides;
#[path = "tidy/source.rs"]
mod source;

use source::{Literal, before_tests, code_only, files_under, is_test_path, literals_of, mentions, read, sources};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Words that must not stand in the production code of some files, and what to do instead.
struct Absence {
    within: &'static [&'static str],
    except: &'static [&'static str],
    words: &'static [&'static str],
    instead: &'static str,
}

/// Modules that turn text and DER into values.
const PURE: &[&str] = &["src/oci/", "src/policy/", "src/identity/", "src/revocation/"];

const ABSENCES: &[Absence] = &[
    Absence {
        within: PURE,
        except: &[],
        words: &["pingora", "tokio", "async", "boring", "openssl", "crate::tls", "crate::edge", "crate::proxy"],
        instead: "this module knows no framework and no TLS library: take bytes or plain values, and let the caller convert",
    },
    Absence {
        within: PURE,
        except: &[],
        words: &[
            "fs",
            "File",
            "OpenOptions",
            "io",
            "env",
            "process",
            "thread",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "UnixListener",
            "log",
        ],
        instead: "this module does no I/O: take the content as an argument, and return what there is to say",
    },
    Absence {
        within: PURE,
        except: &[],
        words: &["SystemTime::now", "Instant::now", "elapsed", "fastrand"],
        instead: "this module has no clock and no dice: take the time (or the number) as an argument",
    },
    Absence {
        within: &["src/oci/"],
        except: &[],
        words: &["crate::identity", "crate::policy", "crate::config", "crate::revocation", "x509_parser"],
        instead: "`oci` knows no identity and no policy: they meet in an `Access`",
    },
    Absence {
        within: &["src/policy/"],
        except: &[],
        words: &["http", "httparse", "h2"],
        instead: "`policy` knows no HTTP: give it an `Access`",
    },
    Absence {
        within: &["src/identity/", "src/revocation/"],
        except: &[],
        words: &["crate::oci", "crate::policy", "crate::config", "crate::snapshot"],
        instead: "`identity` and `revocation` know nothing of registries, policies and files",
    },
    Absence {
        within: &["src/status/"],
        except: &["src/status/html.rs"],
        words: &["pingora", "tokio", "async", "fs", "File", "crate::edge", "crate::server", "SystemTime::now", "Html("],
        instead: "the status page is made of plain values, and text gets into it through `Html::text`, which escapes it",
    },
    Absence {
        within: &["src/"],
        except: &["src/tls/"],
        words: &["boring", "openssl", "pingora::tls", "tokio_ssl", "unsafe"],
        instead: "only `tls` names the TLS library or calls C: add a function there that takes and returns plain values",
    },
    Absence {
        within: &["src/"],
        except: &["src/tls/"],
        words: &[
            "cfg(feature",
            "cfg(not(feature",
            "cfg(any(feature",
            "cfg(all(feature",
            "cfg!(feature",
            "cfg_attr(feature",
        ],
        instead: "backends differ in `tls` alone: put the difference in its small file for each backend",
    },
    Absence {
        within: &["src/"],
        except: &["src/config/"],
        words: &["serde_yaml", "saphyr_parser"],
        instead: "YAML is read in `config`, which knows files and lines: use `config::read_yaml_with`",
    },
    Absence {
        within: &["src/"],
        // Besides reading: files replaced whole, the three logs, what commands make for the operator, the admin
        // listener's socket, times for the watcher, the system's tables when an address is taken, the state directory,
        // a client's directories for `doctor`, and logs, which are too long to be read whole.
        except: &[
            "src/config/load.rs",
            "src/files.rs",
            "src/telemetry/access.rs",
            "src/telemetry/audit.rs",
            "src/telemetry/audit/writer.rs",
            "src/telemetry/log.rs",
            "src/cli/audit.rs",
            "src/cli/dev/",
            "src/pki/files.rs",
            "src/cli/pki",
            "src/cli/man.rs",
            "src/cli/policy/log.rs",
            "src/cli/doctor/places.rs",
            "src/admin/listen.rs",
            "src/edge/holder.rs",
            "src/snapshot/watch.rs",
            "src/state.rs",
        ],
        words: &["fs", "File::open", "File::create", "OpenOptions"],
        instead: "files are read by `config::load` (use `config::read_bounded`), and written by the access log and `dev`",
    },
    Absence {
        within: &["src/snapshot/watch.rs"],
        except: &[],
        words: &["fs::read", "fs::read_to_string", "fs::write", "File::open", "OpenOptions"],
        instead: "the watcher looks at times, not at content",
    },
    Absence {
        within: &["src/"],
        except: &[
            "src/config/",
            "src/cli/",
            "src/tls/material.rs",
            "src/snapshot/lists.rs",
            "src/snapshot/keep.rs",
            "src/state.rs",
        ],
        words: &["read_bounded", "list_directory"],
        instead: "what serving depends on belongs to a snapshot: load it in `tls::material` or `snapshot::lists`",
    },
    Absence {
        within: &["src/"],
        except: &["src/telemetry/metrics/"],
        words: &["prometheus"],
        instead: "families are declared in `telemetry::metrics`: add a method to `Metrics`",
    },
    Absence {
        within: &["src/"],
        // The service manager and a predecessor speak by the environment, too.
        except: &["src/telemetry/log.rs", "src/cli/", "src/server/manager.rs", "src/server/serve.rs"],
        words: &["env::var", "env::var_os", "env::vars", "env::args"],
        instead: "settings come from the configuration file, so that a reload sees them",
    },
    Absence {
        within: &["src/"],
        except: &[],
        words: &["pingora::listeners", "pingora::services", "pingora::server::Server"],
        instead: "connections are accepted by `edge`, which can end them and report refused handshakes",
    },
];

#[test]
fn modules_do_not_know_what_they_need_not() {
    let mut faults = Faults::default();
    for source in sources().iter().filter(|source| !source.is_test) {
        for absence in ABSENCES {
            let applies = |paths: &[&str]| paths.iter().any(|path| source.path.starts_with(path));
            if !applies(absence.within) || applies(absence.except) {
                continue;
            }
            for (number, line) in (1..).zip(source.production.lines()) {
                for word in absence.words.iter().filter(|word| mentions(line, word)) {
                    faults.add(&source.path, number, &format!("`{word}`: {}", absence.instead));
                }
            }
        }
    }
    faults.none();
}

#[test]
fn no_lint_is_allowed_and_no_test_ignored() {
    let mut faults = Faults::default();
    for source in sources() {
        for (number, line) in (1..).zip(code_only(&source.text).lines()) {
            if mentions(line, "#[allow") || mentions(line, "#![allow") {
                faults.add(
                    &source.path,
                    number,
                    "use `#[expect(lint, reason = \"…\")]`, which goes when it is not needed",
                );
            }
            if mentions(line, "#[ignore") {
                faults.add(&source.path, number, "a test that can't run says so, loudly: see tests/support/skip.rs");
            }
        }
    }
    faults.none();
}

#[test]
fn files_are_of_a_size_that_can_be_read() {
    let mut faults = Faults::default();
    for source in sources() {
        let lines = source.production.lines().count();
        if lines > 450 {
            faults.add(&source.path, lines, "more than 450 lines: find the second thought in it and give it a file");
        }
        if !source.is_test && !source.text.starts_with("//!") {
            faults.add(&source.path, 1, "begin with `//!` and what the module is for");
        }
    }
    faults.none();
}

#[test]
fn every_test_file_is_compiled() {
    let mut faults = Faults::default();
    for (root, folder) in [("tests/scenarios/main.rs", "tests/scenarios/"), ("tests/support/mod.rs", "tests/support/")]
    {
        let declared = read(root);
        for source in sources().iter().filter(|source| source.path.starts_with(folder) && source.path != root) {
            let name = source.path.trim_start_matches(folder).trim_end_matches(".rs").trim_end_matches("/mod");
            if !name.contains('/') && !mentions(&declared, &format!("mod {name};")) {
                faults.add(&source.path, 1, &format!("nothing runs it: add `mod {name};` to {root}"));
            }
        }
    }
    faults.none();
}

#[test]
fn nothing_is_left_to_be_done_or_names_a_machine() {
    // Put together, so that this file has none of them.
    let notes = ["TO", "FIX", "XX", "HA"].iter().zip(["DO", "ME", "X", "CK"]).map(|(a, b)| format!("{a}{b}"));
    let notes: Vec<String> = notes.collect();
    let machine: Vec<String> = ["work", "root", "home", "tmp"].iter().map(|name| format!("/{name}/")).collect();
    let public =
        ["docker.io", "ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "mcr.microsoft.com", "public.ecr.aws"];
    let mut faults = Faults::default();
    for path in files_under("").iter().filter(|path| *path != "Cargo.lock" && *path != "LICENSE") {
        let Some(text) = source::text(path) else { continue };
        let shipped = path.starts_with("src/") || path.starts_with("conf/");
        let text = if path.starts_with("src/") { before_tests(&text) } else { &text };
        for (number, line) in (1..).zip(text.lines()) {
            for note in notes.iter().filter(|note| mentions(line, note)) {
                faults.add(path, number, &format!("{note}: do it now, or say here what holds now and why"));
            }
            for place in &machine {
                let start = line
                    .find(place.as_str())
                    .filter(|at| !line[..*at].ends_with(|c: char| c.is_alphanumeric() || "._-}$".contains(c)));
                if start.is_some() && !(path.starts_with("tests/") && place == "/tmp/") {
                    faults.add(
                        path,
                        number,
                        &format!("{place}… is a place on one machine: take it from the configuration"),
                    );
                }
            }
            let test = is_test_path(path);
            for host in public.iter().filter(|host| shipped && !test && mentions(line, host)) {
                faults.add(
                    path,
                    number,
                    &format!("{host}: the gateway knows the registries it is told of; use example.com"),
                );
            }
        }
    }
    faults.none();
}

#[test]
fn every_shipped_file_is_used_by_a_test() {
    let mut tests = String::new();
    for source in sources().iter().filter(|source| source.path != "tests/tidy.rs") {
        tests.push_str(if source.is_test { &source.text } else { &source.text[source.production.len()..] });
    }
    let mut faults = Faults::default();
    // The test of the package installs what this file lists.
    let packaged = read("Cargo.toml");
    for path in files_under("conf/") {
        let used = (path.starts_with("conf/packaging/debian/") && packaged.contains("\"conf/packaging/debian/"))
            || tests.contains(&format!("\"{path}\""))
            || tests.contains(&format!("/{path}\""));
        if !used {
            faults.add(&path, 1, "no test reads it: a shipped example that nobody runs is wrong sooner or later");
        }
    }
    faults.none();
}

#[test]
fn every_dependency_has_its_reason() {
    let text = read("Cargo.toml");
    let mut faults = Faults::default();
    let (mut inside, mut above) = (false, "");
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && line.contains('=') && !above.starts_with('#') {
            faults.add("Cargo.toml", number, "say in a comment above what the dependency is for");
        }
        above = line;
    }
    faults.none();
}

#[test]
fn metrics_are_named_by_the_grammar_and_documented() {
    let mut faults = Faults::default();
    let mut names = BTreeSet::new();
    for source in sources().iter().filter(|s| s.path.starts_with("src/telemetry/metrics/") && !s.is_test) {
        for (name, help, line) in described_names(&source.text[..source.production.len()]) {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !name.chars().all(plain) || name.starts_with("portcullis") {
                faults.add(
                    &source.path,
                    line,
                    &format!("\"{name}\": lower-case words; the prefix portcullis_ is added"),
                );
            }
            if !help.ends_with('.') {
                faults.add(&source.path, line, &format!("\"{name}\": its help is a sentence for the operator"));
            }
            names.insert(format!("portcullis_{name}"));
        }
    }
    assert!(names.len() > 20, "the families were not found: {names:?}");
    let family = read("src/telemetry/metrics/family.rs");
    assert!(
        family.contains("namespace(\"portcullis\")"),
        "family.rs no longer gives every metric the prefix portcullis_"
    );
    // The page is written from a sample of every family: one that is missing there has no member in the sample.
    let page = read("docs/metrics.md");
    for name in names.iter().filter(|name| !mentions(&page, name)) {
        faults.add("docs/metrics.md", 0, &format!("{name} is missing: give it a member in `populated` of the tests"));
    }
    for path in ["conf/", "docs/", "helm/"].iter().flat_map(|folder| files_under(folder)) {
        for (number, line) in (1..).zip(read(&path).lines()) {
            for name in metric_names(line).filter(|name| !names.contains(family_of(name))) {
                faults.add(&path, number, &format!("{name}: there is no such metric"));
            }
        }
    }
    faults.none();
}

/// A name and its help stand beside each other wherever a family is made; with the line.
fn described_names(text: &str) -> Vec<(&str, &str, usize)> {
    let code = code_only(text);
    let literals = literals_of(text);
    let beside = |one: &Literal, other: &Literal| code[one.end..other.start].trim() == ",";
    let pairs = literals.iter().zip(literals.iter().skip(1));
    pairs
        .filter(|(name, help)| beside(name, help) && !name.text.contains(' ') && help.text.contains(' '))
        .map(|(name, help)| (name.text, help.text, text[..name.start].lines().count()))
        .collect()
}

/// Words of a line that name a metric of the gateway.
fn metric_names(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    // A digit is the version in a package's name.
    words.filter(|word| word.strip_prefix("portcullis_").is_some_and(|name| name.starts_with(char::is_alphabetic)))
}

/// A histogram shows as three series.
fn family_of(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

#[test]
fn what_is_looked_for_is_found() {
    let text = "use std::{fs, io}; // tokio\nlet a = \"pingora\"; let b = r#\"un\"safe\"#; let c = '\"'; fn f<'a>() {}\n\
                /* x\n*/ boring::ssl";
    let code = code_only(text);
    assert_eq!((code.lines().count(), code.len()), (4, text.len()));
    assert!(["fs", "boring", "fn f"].iter().all(|word| mentions(&code, word)), "{code}");
    assert!(["tokio", "pingora", "safe", "x"].iter().all(|word| !mentions(&code, word)), "{code}");
    assert!(!mentions("openssl_like my_openssl", "openssl"));
    assert_eq!(
        before_tests("a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod tests {\nc\n}\n"),
        "a\n#[cfg(test)]\nmod tests;\nb\n"
    );
    assert_eq!(described_names("f(\"a_total\", \"What it is.\", &[\"b\", \"c\"])"), [("a_total", "What it is.", 1)]);
    let all = sources();
    let file = |path: &str| all.iter().find(|source| source.path == path).unwrap_or_else(|| panic!("{path} is gone"));
    assert!(file("src/oci/tests.rs").is_test && !file("src/oci/mod.rs").is_test);
    assert!(mentions(&file("src/tls/boring.rs").production, "unsafe"), "the words are looked for where they are");
}

/// Everything that is wrong, so that one run shows all of it.
#[derive(Default)]
struct Faults(String);

impl Faults {
    fn add(&mut self, path: &str, line: usize, what: &str) {
        let _ = writeln!(self.0, "  {path}:{line}: {what}");
    }

    #[track_caller]
    fn none(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}
