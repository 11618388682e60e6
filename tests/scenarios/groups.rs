//! Groups from the files of a directory, one for each team: how they come in, and what a broken one does.

use crate::support::gateway::{Gateway, gateway};
use crate::support::process::{self, Finished};
use crate::support::upstream::Upstream;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

const PULL: &str = "/v2/team-a/app/manifests/v1";

/// Members of `team-a` pull, as does `admins`, a group of the policy itself.
const POLICY: &str = "\
groups_directory: groups.d
groups:
  admins:
    - subject: { CN: admin }
rules:
  - { name: team-a, subjects: [team-a, admins], repositories: ['team-a/**'], actions: [pull], effect: allow }
";

/// The group that `ci-7`, the client of the tests, is in, and one that it isn't in.
const MEMBER: &str = "groups:\n  team-a:\n    - subject: { CN: ci-7 }\n";
const STRANGER: &str = "groups:\n  team-a:\n    - subject: { CN: somebody }\n";

fn start(team: &str, watch: bool) -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url()).file("policy.yaml", POLICY);
    fs::create_dir(builder.path().join("groups.d")).expect("writable");
    let gateway = builder.file("groups.d/team-a.yaml", team).configure(|c| c["reload"]["watch"] = watch.into()).start();
    (upstream, gateway)
}

#[track_caller]
fn wait_for_status(gateway: &Gateway, status: u16) {
    let start = Instant::now();
    let mut client = gateway.h1();
    loop {
        let now = client.get(PULL).status;
        if now == status {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "still {now}, not {status}: {:#?}", gateway.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_file_of_the_directory_says_who_is_in_a_group() {
    let (_upstream, gateway) = start(MEMBER, false);
    let stranger = gateway.client("somebody");
    for mut client in gateway.both() {
        assert_eq!(client.get(PULL).status, 200, "{}", client.version());
    }
    for mut client in gateway.both_as(&stranger) {
        assert_eq!(client.get(PULL).status, 403, "{}", client.version());
    }
    gateway.write("groups.d/team-a.yaml", STRANGER);
    gateway.reload_ok();
    for mut client in gateway.both() {
        assert_eq!(client.get(PULL).status, 403, "{}", client.version());
    }
    for mut client in gateway.both_as(&stranger) {
        assert_eq!(client.get(PULL).status, 200, "{}", client.version());
    }
}

#[test]
fn changes_in_the_directory_are_noticed() {
    let (_upstream, gateway) = start(STRANGER, true);
    assert_eq!(gateway.h1().get(PULL).status, 403);
    gateway.write("groups.d/team-a.yaml", MEMBER);
    wait_for_status(&gateway, 200);
    // Under another name it is the same group.
    fs::rename(gateway.path().join("groups.d/team-a.yaml"), gateway.path().join("groups.d/a.yml")).expect("renamed");
    gateway.write("groups.d/a.yml", STRANGER);
    wait_for_status(&gateway, 403);
}

#[test]
fn a_mounted_config_map_is_noticed_when_it_is_switched() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url()).file("policy.yaml", POLICY);
    let mount = builder.path().join("groups.d");
    fs::create_dir_all(mount.join("..1")).expect("writable");
    fs::write(mount.join("..1/team-a.yaml"), STRANGER).expect("writable");
    symlink("..1", mount.join("..data")).expect("writable");
    symlink("..data/team-a.yaml", mount.join("team-a.yaml")).expect("writable");
    let gateway = builder.configure(|c| c["reload"]["watch"] = true.into()).start();
    for (generation, text, status) in [("..2", MEMBER, 200), ("..3", STRANGER, 403)] {
        fs::create_dir(mount.join(generation)).expect("writable");
        fs::write(mount.join(generation).join("team-a.yaml"), text).expect("writable");
        symlink(generation, mount.join("..data_tmp")).expect("writable");
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("writable");
        wait_for_status(&gateway, status);
    }
}

#[test]
fn a_directory_that_is_a_link_is_followed_wherever_it_leads() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url()).file("policy.yaml", POLICY);
    let directory = builder.path().to_owned();
    for (version, text) in [("one", STRANGER), ("two", MEMBER)] {
        fs::create_dir(directory.join(version)).expect("writable");
        fs::write(directory.join(version).join("team-a.yaml"), text).expect("writable");
    }
    symlink("one", directory.join("groups.d")).expect("writable");
    let gateway = builder.configure(|c| c["reload"]["watch"] = true.into()).start();
    assert_eq!(gateway.h1().get(PULL).status, 403);
    symlink("two", directory.join("next")).expect("writable");
    fs::rename(directory.join("next"), directory.join("groups.d")).expect("writable");
    wait_for_status(&gateway, 200);
    gateway.write("two/team-a.yaml", STRANGER);
    wait_for_status(&gateway, 403);
}

#[test]
fn what_editors_leave_behind_is_passed_over() {
    let (_upstream, gateway) = start(MEMBER, false);
    fs::create_dir(gateway.path().join("groups.d/archive.yaml")).expect("writable");
    fs::create_dir(gateway.path().join("groups.d/old")).expect("writable");
    for name in
        [".team-a.yaml.swp", ".#team-a.yaml", "#team-a.yaml#", "team-a.yaml~", "team-a.yaml.bak", "4913", "README"]
    {
        fs::write(gateway.path().join("groups.d").join(name), b"\0 not: [yaml").expect("writable");
    }
    fs::write(gateway.path().join("groups.d/old/team-b.yaml"), STRANGER).expect("writable");
    gateway.reload_ok();
    assert_eq!(gateway.h1().get(PULL).status, 200);
}

/// A mistake, how it is made in the configuration's directory, and what must be said about it.
struct Mistake {
    name: &'static str,
    make: fn(&Path),
    said: &'static [&'static str],
}

fn write(directory: &Path, file: &str, text: &str) {
    fs::write(directory.join("groups.d").join(file), text).expect("writable");
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "a group in two files",
        make: |d| {
            write(d, "z.yaml", "groups:\n  other:\n    - dns: a.example.com\n  team-a:\n    - dns: b.example.com\n");
        },
        said: &["groups.d/z.yaml:4: groups.team-a", "groups.d/team-a.yaml:2", "one place"],
    },
    Mistake {
        name: "a group of the policy",
        make: |d| write(d, "z.yaml", "groups:\n  admins:\n    - dns: b.example.com\n"),
        said: &["groups.d/z.yaml:2: groups.admins", "policy.yaml", "one place"],
    },
    Mistake {
        name: "an unknown key",
        make: |d| write(d, "z.yaml", "groups:\n  b:\n    - sujbect: { CN: x }\n"),
        said: &["groups.d/z.yaml:3: groups.b[0].sujbect", "subject"],
    },
    Mistake {
        name: "rules beside groups",
        make: |d| write(d, "z.yaml", "groups:\n  b:\n    - dns: b.example.com\nrules: []\n"),
        said: &["groups.d/z.yaml:4: rules"],
    },
    Mistake {
        name: "a selector without sense, in each of two files",
        make: |d| {
            write(d, "y.yaml", "groups:\n  b:\n    - uri: 'spiffe://*/x'\n");
            write(d, "z.yaml", "groups:\n  c:\n    - ip: 10.0.0.0/8\n    - ip: ten\n");
        },
        said: &["groups.d/y.yaml:3: groups.b[0].uri", "groups.d/z.yaml:4: groups.c[1].ip"],
    },
    Mistake {
        name: "a name that no group may have",
        make: |d| write(d, "z.yaml", "groups:\n  'b.c':\n    - dns: b.example.com\n"),
        said: &["groups.d/z.yaml:2: groups.b.c", "group name must be"],
    },
    Mistake { name: "not YAML", make: |d| write(d, "z.yaml", "groups:\n  b: [\n"), said: &["groups.d/z.yaml"] },
    Mistake { name: "an empty file", make: |d| write(d, "z.yaml", ""), said: &["groups.d/z.yaml", "empty"] },
    Mistake {
        name: "a link that leads nowhere",
        make: |d| symlink("nowhere", d.join("groups.d/z.yaml")).expect("writable"),
        said: &["groups.d/z.yaml", "there is no such file"],
    },
    Mistake {
        name: "a pipe",
        make: |d| {
            let pipe = d.join("groups.d/z.yaml").to_string_lossy().into_owned();
            process::run("mkfifo", &[&pipe], b"", Duration::from_secs(20)).expect_success("mkfifo");
        },
        said: &["groups.d/z.yaml", "not a regular file"],
    },
    Mistake {
        name: "the file with the group has vanished",
        make: |d| fs::remove_file(d.join("groups.d/team-a.yaml")).expect("there"),
        said: &["policy.yaml:6: rules[0].subjects[0]", "unknown group \"team-a\""],
    },
    Mistake {
        name: "the directory has vanished",
        make: |d| fs::rename(d.join("groups.d"), d.join("elsewhere")).expect("there"),
        said: &["policy.yaml:1: groups_directory", "groups.d", "there is no such"],
    },
];

fn check(directory: &Path) -> Finished {
    let file = directory.join("portcullis.yaml").to_string_lossy().into_owned();
    process::run(env!("CARGO_BIN_EXE_portcullis"), &["check", "--config", &file], b"", Duration::from_secs(20))
}

#[test]
fn a_broken_file_is_named_with_line_and_key_and_the_last_good_groups_stay() {
    for mistake in MISTAKES {
        let (_upstream, gateway) = start(MEMBER, false);
        let checked = check(gateway.path());
        assert_eq!(checked.code, Some(0), "{}", checked.all());
        (mistake.make)(gateway.path());
        let reloaded = gateway.reload_refused();
        let checked = check(gateway.path());
        assert_eq!(checked.code, Some(1), "{}: {}", mistake.name, checked.all());
        for part in mistake.said {
            for text in [&reloaded, &checked.all()] {
                assert!(text.contains(part), "{}: {part:?} is not said:\n{text}", mistake.name);
            }
        }
        assert!(!reloaded.contains("unknown group") || mistake.said.iter().any(|said| said.contains("unknown group")));
        assert_eq!(gateway.h1().get(PULL).status, 200, "{}: the last good groups stay", mistake.name);
    }
}

#[test]
fn a_gateway_does_not_start_beside_a_broken_file_and_says_which() {
    for mistake in MISTAKES {
        let upstream = Upstream::start();
        let builder = gateway().upstream(upstream.url()).file("policy.yaml", POLICY);
        fs::create_dir(builder.path().join("groups.d")).expect("writable");
        let builder = builder.file("groups.d/team-a.yaml", MEMBER);
        (mistake.make)(builder.path());
        let Err(said) = builder.try_start() else { panic!("{}: it started", mistake.name) };
        for part in mistake.said {
            assert!(said.contains(part), "{}: {part:?} is not said:\n{said}", mistake.name);
        }
    }
}

#[test]
fn a_policy_change_waits_for_a_broken_file_and_comes_when_it_is_moved_away() {
    let (_upstream, gateway) = start(MEMBER, false);
    gateway.write("groups.d/team-b.yaml", "groups:\n  team-b: [\n");
    gateway.write("policy.yaml", POLICY.replace("effect: allow", "effect: deny"));
    assert!(gateway.reload_refused().contains("groups.d/team-b.yaml"));
    assert_eq!(gateway.h1().get(PULL).status, 200, "the withdrawn right is still there");
    let file = |name: &str| gateway.path().join("groups.d").join(name);
    fs::rename(file("team-b.yaml"), file("team-b.yaml.off")).expect("there");
    gateway.reload_ok();
    assert_eq!(gateway.h1().get(PULL).status, 403);
}

#[test]
fn a_file_that_was_mended_is_noticed_although_it_was_broken() {
    let (_upstream, mut gateway) = start(STRANGER, true);
    gateway.write("groups.d/team-a.yaml", "groups: [");
    gateway.wait_for_log("the reload");
    gateway.write("groups.d/team-a.yaml", MEMBER);
    wait_for_status(&gateway, 200);
}

#[test]
fn the_commands_read_the_directory_too() {
    let (_upstream, gateway) = start(MEMBER, false);
    let at = |name: &str| gateway.path().join(name).to_string_lossy().into_owned();
    let portcullis =
        |arguments: &[&str]| process::run(env!("CARGO_BIN_EXE_portcullis"), arguments, b"", Duration::from_secs(20));
    let explain = ["policy", "explain", "--policy", &at("policy.yaml"), "--subject", "CN=ci-7", "GET", PULL];
    let explained = portcullis(&explain);
    assert_eq!(explained.code, Some(0), "{}", explained.all());
    let cases = "policy: policy.yaml\nclients: { ci: { subject: CN=ci-7 } }\ncases:\n  - { name: pulls, client: ci, \
                 requests: GET /v2/team-a/app/manifests/v1, expect: allow, rule: team-a }\n";
    gateway.write("cases.yaml", cases);
    portcullis(&["policy", "test", &at("cases.yaml")]).expect_success("policy test");
    gateway.write("groups.d/team-a.yaml", STRANGER);
    let tested = portcullis(&["policy", "test", &at("cases.yaml")]);
    assert_eq!(tested.code, Some(4), "{}", tested.all());
}
