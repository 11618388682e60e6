//! What a decision costs: few rules and many, with what was worked out about the client before, as requests have it.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that can't be set up has nothing to measure, and what it measured it prints"
)]

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::config::policy::PolicyFile;
use portcullis::identity::{Attribute, Description, PeerIdentity};
use portcullis::oci::{self, Route};
use portcullis::policy::{Facts, Policy, compile, suite};

/// Teams with a group and some rules each, and rules for everybody among them.
fn policy(rules: usize, groups: usize) -> Policy {
    use std::fmt::Write as _;
    let mut yaml = String::from("groups:\n");
    for group in 0..groups {
        // Writing to a String doesn't fail.
        let _ = writeln!(
            yaml,
            "  team-{group}: [{{subject: {{OU: team-{group}}}}}, {{uri: \"spiffe://corp/t{group}/**\"}}]"
        );
    }
    yaml.push_str("rules:\n");
    for rule in 0..rules {
        let group = rule % groups;
        let (subject, repository, actions, effect) = match rule / groups % 5 {
            0 => (format!("team-{group}"), format!("team-{group}/**"), "[pull, push, overwrite]", "allow"),
            1 => (format!("team-{group}"), "shared/**".to_owned(), "[pull]", "allow"),
            2 => ("any".to_owned(), format!("public/team-{group}/*"), "[pull]", "allow"),
            3 => (
                format!("team-{group}"),
                "${subject.ou}/cache/**".to_owned(),
                "[pull, push, overwrite, delete]",
                "allow",
            ),
            _ => ("any".to_owned(), format!("team-{group}/frozen-{rule}"), "[push, delete]", "deny"),
        };
        let _ = writeln!(
            yaml,
            "  - {{name: r{rule}, subjects: [{subject}], repositories: [\"{repository}\"], actions: {actions}, effect: {effect}}}"
        );
    }
    let file: PolicyFile = serde_yaml::from_str(&yaml).expect("a policy file");
    compile(&file).expect("a policy without faults")
}

fn client(team: usize) -> PeerIdentity {
    let attribute = |name: &'static str, value: String| Attribute { name: name.into(), value };
    PeerIdentity::described(Description {
        subject: vec![attribute("CN", "ci-7".to_owned()), attribute("OU", format!("team-{team}"))],
        ..Description::default()
    })
}

/// What a team's clients ask for, most of it allowed.
fn routes(team: usize) -> Vec<Route> {
    let tag = |name: String| oci::route("GET", &format!("/v2/{name}/manifests/v1"), None).expect("a route");
    let push = |name: String| oci::route("PUT", &format!("/v2/{name}/manifests/v1"), None).expect("a route");
    vec![
        tag(format!("team-{team}/app")),
        push(format!("team-{team}/app/web")),
        tag("shared/base".to_owned()),
        tag(format!("public/team-{team}/tool")),
        push(format!("team-{team}/cache/layer")),
        tag(format!("team-{}/app", team + 1)),
    ]
}

fn decide(criterion: &mut Criterion) {
    for (rules, groups) in [(50, 10), (10_000, 1_000)] {
        let policy = policy(rules, groups);
        let team = groups / 2;
        let (identity, routes) = (client(team), routes(team));
        let standing = policy.standing(&identity);
        let address = suite::NO_ADDRESS;
        let accesses: Vec<_> = routes.iter().map(Route::accesses).collect();
        for (route, accesses) in routes.iter().zip(&accesses) {
            let facts = Facts {
                accesses: accesses.as_ref(),
                standing: Some(&standing),
                ..suite::facts(&identity, address, 1_790_000_000)
            };
            let name = route.repository().map(ToString::to_string).unwrap_or_default();
            criterion.bench_function(&format!("decide/{rules} rules/{name}"), |bencher| {
                bencher.iter(|| policy.decide(black_box(&facts)));
            });
        }
        // What a shadow policy adds to a request: its decision, reduced to what is recorded.
        let facts = Facts { standing: Some(&standing), ..suite::facts(&identity, address, 1_790_000_000) };
        for (name, route) in [("allowed", routes.first()), ("refused", routes.last())] {
            let route = route.expect("there are routes");
            criterion.bench_function(&format!("shadow/{rules} rules/{name}"), |bencher| {
                bencher.iter(|| policy.judge_route(black_box(route), black_box(&facts)));
            });
        }
        criterion.bench_function(&format!("standing/{rules} rules"), |bencher| {
            bencher.iter(|| policy.standing(black_box(&identity)));
        });
    }
}

/// The percentiles of a mixed load: the requests of many teams in no order, each decision timed by itself. What it prints is
/// without the time that looking at the clock takes.
fn mixed(_: &mut Criterion) {
    const ROUNDS: usize = 200_000;
    for (rules, groups) in [(50, 10), (10_000, 1_000)] {
        let policy = policy(rules, groups);
        let teams: Vec<_> = (0..groups).map(|team| (client(team), routes(team))).collect();
        let standings: Vec<_> = teams.iter().map(|(identity, _)| policy.standing(identity)).collect();
        let mut times = Vec::with_capacity(ROUNDS);
        let mut clock = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS {
            // Steps that visit every team and route, far from the one before.
            let team = round * 7919 % groups;
            let (Some((identity, routes)), Some(standing)) = (teams.get(team), standings.get(team)) else { continue };
            let Some(route) = routes.get(round * 31 % routes.len()) else { continue };
            let accesses = route.accesses();
            let facts = Facts {
                accesses: accesses.as_ref(),
                standing: Some(standing),
                ..suite::facts(identity, suite::NO_ADDRESS, 1_790_000_000)
            };
            let begun = Instant::now();
            clock.push(begun.elapsed());
            let begun = Instant::now();
            let decision = black_box(policy.decide(black_box(&facts)));
            times.push(begun.elapsed());
            drop(decision);
        }
        times.sort_unstable();
        clock.sort_unstable();
        let idle = clock.get(ROUNDS / 2).copied().unwrap_or_default();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default().saturating_sub(idle);
        println!("mixed/{rules} rules: median {:?}, 99th percentile {:?}", at(50), at(99));
    }
}

criterion_group!(benches, decide, mixed);
criterion_main!(benches);
