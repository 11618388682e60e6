//! What a small request costs the gateway, in instructions and allocations rather than seconds, so that no machine's speed
//! matters: valgrind counts them. A change that makes requests dearer fails here, and not in production.
//!
//! The figures are those of the tests' build, which is barely optimized; a release build needs a fraction. They are bounds,
//! a tenth above what was counted. Who makes something cheaper lowers them.

use crate::support::gateway::{Gateway, gateway};
use crate::support::upstream::{Answer, Upstream};
use crate::support::{process, skip};
use portcullis::config::policy::PolicyFile;
use portcullis::identity::{Attribute, Description, PeerIdentity};
use portcullis::oci::{self, Route};
use portcullis::policy::{Facts, Policy, compile, suite};
use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

/// valgrind is some fifty times slower than the machine, and the machine may have other work.
const LONG: Duration = Duration::from_secs(240);

/// Functions of the C library that hand out memory, and those of the gateway's own allocator.
const ALLOCATING: [&str; 8] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
    "mi_malloc_aligned",
    "mi_zalloc_aligned",
    "mi_realloc_aligned",
];

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// How often callgrind saw one of these functions called.
fn calls(text: &str, functions: &[&str]) -> u64 {
    let mut names = HashMap::new();
    let (mut called, mut calls) = (None, 0);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=").or(line.strip_prefix("cfn=")) {
            // A name is written out once, behind its number.
            let (id, name) = name.split_once(')').expect("callgrind compresses names");
            if !name.is_empty() {
                names.insert(id, name.trim().split(['\'', '@']).next().unwrap_or_default());
            }
            called = line.starts_with('c').then_some(id);
        } else if let Some(count) = line.strip_prefix("calls=")
            && called.and_then(|id| names.get(id)).is_some_and(|name| functions.contains(name))
        {
            calls += count.split(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number of calls");
        }
    }
    calls
}

#[derive(Clone, Copy, Debug)]
struct Cost {
    instructions: u64,
    allocations: u64,
}

impl Cost {
    /// Reads what callgrind wrote (valgrind manual, "Callgrind Format Specification").
    fn read(file: &Path) -> Self {
        Self::of(&read(file))
    }

    fn of(text: &str) -> Self {
        let total = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
        let instructions = total.and_then(|total| total.trim().parse().ok()).expect("callgrind writes a total");
        Self { instructions, allocations: calls(text, &ALLOCATING) }
    }

    /// What each of `times` costs, by two counts of which the second holds so many more.
    fn each(fewer: Self, more: Self, times: u64) -> Self {
        Self {
            instructions: more.instructions.saturating_sub(fewer.instructions) / times,
            allocations: (more.allocations.saturating_sub(fewer.allocations) + times / 2) / times,
        }
    }
}

/// What the upstream answers, in all that is counted here.
fn manifest() -> Answer {
    let head = Answer::new(200).header("Content-Type", "application/vnd.oci.image.manifest.v1+json");
    head.header("Docker-Content-Digest", crate::DIGEST).body(&[b'm'; 1500])
}

const MANIFEST: &str = "/v2/team/app/manifests/v1";

/// What callgrind writes of a gateway before `upstream` that does this `work` between its start and its stop.
fn counted(upstream: &Upstream, work: impl FnOnce(&Gateway)) -> String {
    let builder = gateway().upstream(upstream.url());
    let list = builder.client_ca.crl().pem();
    let counts = builder.path().join("counts");
    let through = ["valgrind", "--tool=callgrind", "--quiet", &format!("--callgrind-out-file={}", counts.display())]
        .map(str::to_owned);
    let mut gateway = builder
        .crl(&list)
        .configure(|c| c["threads"] = 1.into())
        .started(|start| start.through = through.to_vec())
        .start();
    work(&gateway);
    gateway.process().signal("TERM");
    assert!(gateway.process().wait(LONG).is_some_and(|status| status.success()));
    read(&counts)
}

/// What a gateway that serves `requests` on one connection costs from start to stop.
fn serving(requests: u64) -> Cost {
    let upstream = Upstream::start();
    upstream.answer(|_| manifest());
    let text = counted(&upstream, |gateway| {
        let mut client = gateway.h1();
        for _ in 0..requests {
            let reply = client.request("GET", MANIFEST, &[], b"").expect("an answer");
            assert_eq!((reply.status, reply.body.len()), (200, 1500));
        }
    });
    Cost::of(&text)
}

#[test]
fn answers_that_are_ready_together_are_sent_together() {
    if !skip::have(&["valgrind"]) {
        return;
    }
    const TOGETHER: usize = 8;
    const TURNS: usize = 10;
    let sends = |turns: usize| {
        let upstream = Upstream::start();
        // None is given before all are asked for.
        let asked = Barrier::new(TOGETHER);
        upstream.answer(move |_| {
            asked.wait();
            manifest()
        });
        let text = counted(&upstream, |gateway| {
            let mut client = gateway.h2();
            for _ in 0..turns {
                let requests = [(); TOGETHER].map(|()| client.open("GET", MANIFEST, &[], true).expect("a stream"));
                for request in requests {
                    let reply = request.reply().expect("an answer");
                    assert_eq!((reply.status, reply.body.len()), (200, 1500));
                }
            }
        });
        calls(&text, &["send", "__send"])
    };
    let each = sends(1 + TURNS).saturating_sub(sends(1)) / TURNS as u64;
    eprintln!("sends for {TOGETHER} requests on one connection: {each}");
    // Each goes to the upstream by one of its own. Answers that come while others are on their way may need a second.
    let (least, most) = (TOGETHER as u64 + 1, TOGETHER as u64 + 4);
    assert!((least..=most).contains(&each), "{each} sends for {TOGETHER} requests");
}

#[test]
fn a_small_request() {
    if !skip::have(&["valgrind"]) {
        return;
    }
    let times = 200;
    let (fewer, more) = (serving(50), serving(50 + times));
    let cost = Cost::each(fewer, more, times);
    eprintln!("a request for a manifest over HTTP/1.1: {cost:?}");
    assert!(cost.instructions > 10_000 && cost.allocations > 10, "nothing was counted: {cost:?}");
    assert!(cost.instructions < INSTRUCTIONS_OF_A_REQUEST, "{cost:?}");
    assert!(cost.allocations <= ALLOCATIONS_OF_A_REQUEST, "{cost:?}");
}

/// OpenSSL needs a tenth more than BoringSSL: 179,500 and 117 were counted with it.
const INSTRUCTIONS_OF_A_REQUEST: u64 = 190_000;
const ALLOCATIONS_OF_A_REQUEST: u64 = 120;

/// Which part a child process runs, and how often.
const PART: &str = "PORTCULLIS_TEST_PART";

/// The parts that every request goes through, with the bound of each.
const PARTS: [(&str, Cost); 3] = [
    ("route", Cost { instructions: 3_610, allocations: 2 }),
    ("decide", Cost { instructions: 860, allocations: 0 }),
    // Where a shadow policy is evaluated: another decision, over a copy of the route.
    ("shadow", Cost { instructions: 1_760, allocations: 2 }),
];

#[test]
fn parts_of_a_request() {
    if !skip::have(&["valgrind"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let this = std::env::current_exe().expect("the test knows itself").to_string_lossy().into_owned();
    let count = |part: &str, times: u64| {
        let counts = directory.path().join(format!("{part}-{times}"));
        let out = format!("--callgrind-out-file={}", counts.display());
        let test = "costs::a_part_for_valgrind";
        let arguments = ["--tool=callgrind", "--quiet", &out, &this, "--exact", test, "--test-threads=1"];
        process::run_with("valgrind", &arguments, b"", LONG, |command| {
            command.env(PART, format!("{part} {times}"));
        })
        .expect_success(part);
        Cost::read(&counts)
    };
    for (part, bound) in PARTS {
        let times = 1000;
        let cost = Cost::each(count(part, 100), count(part, 100 + times), times);
        eprintln!("{part}: {cost:?}");
        assert!(cost.instructions > 50, "nothing was counted: {part} {cost:?}");
        assert!(cost.instructions <= bound.instructions && cost.allocations <= bound.allocations, "{part}: {cost:?}");
    }
}

/// What [`parts_of_a_request`] starts under valgrind. By itself it has nothing to do.
#[test]
fn a_part_for_valgrind() {
    let Ok(order) = std::env::var(PART) else { return };
    let (part, times) = order.split_once(' ').expect("a part and a number");
    let times: u64 = times.parse().expect("a number");
    match part {
        "route" => {
            for _ in 0..times {
                black_box(oci::route("GET", black_box("/v2/team/app/manifests/v1"), None)).expect("a route");
            }
        }
        "decide" => decide(times, |policy, _, facts| drop(black_box(policy.decide(black_box(facts))))),
        "shadow" => decide(times, |policy, route, facts| drop(black_box(policy.judge_route(black_box(route), facts)))),
        _ => panic!("there is no part {part}"),
    }
}

fn decide(times: u64, ask: impl Fn(&Policy, &Route, &Facts<'_>)) {
    let rules: String = (0..50).fold("rules:\n".to_owned(), |all, rule| {
        let name = if rule == 40 { "team".to_owned() } else { format!("team-{rule}") };
        all + &format!(
            "  - {{name: r{rule}, subjects: [any], repositories: [\"{name}/**\"], actions: [pull], effect: allow}}\n"
        )
    });
    let file: PolicyFile = serde_yaml::from_str(&rules).expect("a policy file");
    let policy = compile(&file).expect("a policy without faults");
    let subject = vec![Attribute { name: "CN".into(), value: "ci-7".to_owned() }];
    let identity = PeerIdentity::described(Description { subject, ..Description::default() });
    let standing = policy.standing(&identity);
    let route = oci::route("GET", "/v2/team/app/manifests/v1", None).expect("a route");
    let accesses = route.accesses();
    let facts = Facts {
        accesses: accesses.as_ref(),
        standing: Some(&standing),
        ..suite::facts(&identity, suite::NO_ADDRESS, 1_790_000_000)
    };
    for _ in 0..times {
        ask(&policy, &route, &facts);
    }
}
