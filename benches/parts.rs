//! What the other parts of a request cost, and what a reload does: routes, identities, access records, and loading a
//! configuration whole.

#![expect(clippy::expect_used, reason = "a benchmark that can't be set up has nothing to measure")]

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::Gateway;
use portcullis::identity::{LeafRules, PeerIdentity};
use portcullis::oci::{self, Action};
use portcullis::telemetry::{
    AccessRecord, ClientRecord, ConnectionRecord, DecisionId, HttpVersion, Metrics, Outcome as Ending, RequestId, Text,
    TraceId, Verdict, access_line,
};

#[path = "peers/harness/pki.rs"]
mod pki;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CA: &[u8] = include_bytes!("../tests/fuzz/fixtures/ca.der");
const CLIENT: &[u8] = include_bytes!("../tests/fuzz/fixtures/client-8.der");
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// From method, path and query to a route, and to the path that goes upstream.
fn route(criterion: &mut Criterion) {
    for (name, method, path, query) in [
        ("manifest by tag", "GET", "/v2/team/red/app/manifests/v1.2.3".to_owned(), None),
        ("blob", "GET", format!("/v2/team/red/app/blobs/{DIGEST}"), None),
        (
            "mount",
            "POST",
            "/v2/team/red/app/blobs/uploads/".to_owned(),
            Some(format!("mount={DIGEST}&from=base/debian")),
        ),
        ("upload", "PATCH", "/v2/team/red/app/blobs/uploads/7f1d9c52-3c0e".to_owned(), Some("_state=c3Rh".to_owned())),
        ("refused", "GET", "/v2/team/../app/manifests/v1".to_owned(), None),
    ] {
        criterion.bench_function(&format!("route/{name}"), |bencher| {
            bencher.iter(|| oci::route(black_box(method), black_box(&path), black_box(query.as_deref())));
        });
    }
}

/// From a verified path to an identity, once for each handshake.
fn identity(criterion: &mut Criterion) {
    let rules = LeafRules::default();
    criterion.bench_function("identity/from path", |bencher| {
        bencher.iter(|| PeerIdentity::from_path(black_box(&[CLIENT, CA]), &rules));
    });
}

fn record() -> AccessRecord {
    let path = format!("/v2/team/red/app/blobs/{DIGEST}");
    let route = oci::route("GET", &path, None).expect("a route");
    let peer = PeerIdentity::from_path(&[CLIENT, CA], &LeafRules::default()).expect("a path");
    let time = UNIX_EPOCH + Duration::from_millis(1_790_000_000_123);
    AccessRecord {
        time,
        decision_id: DecisionId::new(time),
        generation: 3,
        connection: Arc::new(ConnectionRecord::new(
            ([192, 0, 2, 1], 40_000).into(),
            "main".into(),
            ClientRecord {
                label: "CN=ci-7".into(),
                fingerprint: "ab".repeat(32).as_str().into(),
                serial: "0a".into(),
                not_after: 1_800_000_000,
            },
            Arc::new(peer),
            ["TLSv1.3".into(), "TLS_AES_128_GCM_SHA256".into()],
        )),
        http_version: HttpVersion::Http11,
        method: "GET".into(),
        target: Some(Text::target(path)),
        route: Some(route.kind()),
        repository: Some("team/red/app".into()),
        reference: Some(DIGEST.into()),
        action: Some(Action::Pull),
        decision: Some(Verdict::Allow),
        rule: Some("teams-pull".into()),
        shadow: None,
        limit: None,
        tag_exists: Vec::new(),
        status: Some(200),
        bytes_in: 0,
        bytes_out: 4096,
        duration: Duration::from_micros(1_500),
        upstream_first_byte: Some(Duration::from_micros(1_200)),
        upstream: Some("127.0.0.1:5000".into()),
        outcome: Ending::Proxied,
        end_reason: None,
        request_id: Some(RequestId::Decision),
        trace_id: TraceId::of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        user_agent: Some("docker/29.0.1 go/go1.25".into()),
    }
}

/// What a request's end costs: its metrics on the serving thread, its line on the thread of the access log.
fn access_record(criterion: &mut Criterion) {
    let metrics = Metrics::new("0", "bench").expect("metrics");
    let mut record = record();
    criterion.bench_function("record/metrics", |bencher| bencher.iter(|| metrics.request(black_box(&record))));
    let mut line = Vec::new();
    criterion.bench_function("record/line", |bencher| {
        bencher.iter(|| {
            line.clear();
            access_line(&mut line, black_box(&record)).is_ok()
        });
    });
    criterion.bench_function("record/taking it out", |bencher| {
        bencher.iter(|| {
            let taken = record.take();
            // Put back for the next turn.
            record = black_box(taken);
        });
    });
}

/// A directory with everything a gateway needs, and so much of it.
fn configuration(directory: &Path, rules: usize, revoked: u32) -> Outcome<()> {
    let pki = pki::Pki::create(directory)?;
    let list = pki.list(revoked)?;
    let file = |name: &str| pki.file(name).display().to_string();
    let config = format!(
        "listeners:\n  - addresses: [\"127.0.0.1:0\"]\n    tls:\n      certificates: [{{certificate: \"{}\", key: \"{}\"}}]\n      \
         client_ca: \"{}\"\nupstreams: [{{name: registry, urls: [\"http://127.0.0.1:1\"], health_check: {{enabled: \
         false}}}}]\npolicy: policy.yaml\nrevocation: {{crls: [{{file: \"{}\"}}]}}\nadmin: {{address: null}}\n",
        file("server.pem"),
        file("server.key"),
        file("authority.pem"),
        list.display(),
    );
    fs::write(directory.join("portcullis.yaml"), config)?;
    let mut policy = "groups:\n  clients: [{subject: {O: bench}}]\nrules:\n".to_owned();
    for rule in 0..rules {
        writeln!(
            policy,
            "  - {{name: r{rule}, subjects: [clients], repositories: [\"team-{rule}/**\"], actions: [pull, push], effect: allow}}"
        )?;
    }
    fs::write(directory.join("policy.yaml"), policy)?;
    Ok(())
}

/// From files to a generation that could serve: reading, checking, signatures, the index of what is revoked.
fn snapshot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10);
    for (rules, revoked) in [(50, 1000), (10_000, 100_000)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        configuration(directory.path(), rules, revoked).expect("a configuration");
        let file = directory.path().join("portcullis.yaml");
        group.bench_function(format!("load, {rules} rules, {revoked} revoked"), |bencher| {
            bencher.iter(|| Gateway::load(black_box(&file)).expect("a configuration without faults"));
        });
    }
    group.finish();
}

criterion_group!(benches, route, identity, access_record, snapshot);
criterion_main!(benches);
