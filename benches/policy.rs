//! What a decision costs: few rules and many, with what was worked out about the client before, as requests have it.

#![expect(clippy::expect_used, reason = "a benchmark that can't be set up has nothing to measure")]

use std::hint::black_box;

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

criterion_group!(benches, decide);
criterion_main!(benches);
