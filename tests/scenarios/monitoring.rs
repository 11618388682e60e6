//! What is shipped for Prometheus and Grafana, tried with a real Prometheus that scrapes a real gateway.

use crate::DIGEST;
use crate::support::gateway::{Gateway, gateway, plain_http};
use crate::support::process::{self, Process};
use crate::support::registry::free_address;
use crate::support::skip;
use crate::support::upstream::{Answer, Upstream};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/prometheus/rules.yaml");
const RULES_TEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/prometheus/rules_test.yaml");
const DASHBOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/grafana/portcullis.json");
const RUNBOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbook.md");

const POLICY: &str = "
rules:
  - { name: team, subjects: [any], repositories: ['team/**'], actions: [pull, push], effect: allow }
";

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn rules() -> Vec<Value> {
    let rules: Value = serde_yaml::from_str(&read(RULES)).expect("the rules are YAML");
    let groups = rules["groups"].as_array().expect("groups").iter();
    groups.flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule["alert"].is_string()).collect()
}

#[test]
fn alerts_fire_in_bad_times_and_not_in_good_ones() {
    if !skip::have(&["promtool"]) {
        return;
    }
    for arguments in [["check", "rules", RULES], ["test", "rules", RULES_TEST]] {
        process::run("promtool", &arguments, b"", Duration::from_secs(120)).expect_success("promtool");
    }
    // Each has been seen firing and silent: an alert that nobody has seen fire is none.
    let tests: Value = serde_yaml::from_str(&read(RULES_TEST)).expect("the tests are YAML");
    let cases = tests["tests"].as_array().expect("tests").iter().filter_map(|t| t["alert_rule_test"].as_array());
    let cases: Vec<(&str, bool)> = cases
        .flatten()
        .map(|case| {
            let fires = case["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
            (case["alertname"].as_str().expect("a name"), fires)
        })
        .collect();
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("a name");
        for fires in [true, false] {
            assert!(
                cases.contains(&(name, fires)),
                "conf/prometheus/rules_test.yaml: {name} is never seen with {fires}"
            );
        }
    }
}

#[test]
fn every_alert_has_its_runbook() {
    let runbook = read(RUNBOOK);
    let headings: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut named = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("a name");
        let link = alert["annotations"]["runbook"].as_str().unwrap_or_default();
        let anchor = link.strip_prefix("docs/runbook.md#").unwrap_or_else(|| panic!("{name}: {link:?}"));
        let heading = headings.iter().find(|heading| heading.to_lowercase() == anchor);
        named.insert(*heading.unwrap_or_else(|| panic!("{name}: docs/runbook.md has no heading for #{anchor}")));
        for key in ["summary", "description"] {
            assert!(alert["annotations"][key].is_string(), "{name} has no {key}");
        }
        assert!(["warning", "critical"].map(Value::from).contains(&alert["labels"]["severity"]), "{name}");
    }
    assert_eq!(named, headings, "the runbook speaks of the alerts that there are");
}

/// A Prometheus that scrapes `target` every half second and evaluates the shipped rules.
struct Prometheus {
    process: Process,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let data = tempfile::tempdir().expect("the temporary directory is writable");
        let address = free_address();
        let config = json!({
            "global": { "scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s" },
            "rule_files": [RULES],
            "scrape_configs": [{
                "job_name": "portcullis",
                "static_configs": [{ "targets": [target.to_string()] }],
            }],
        });
        let file = data.path().join("prometheus.yaml");
        fs::write(&file, serde_yaml::to_string(&config).expect("YAML")).expect("the directory is writable");
        let process = Process::spawn(
            "prometheus",
            "prometheus",
            &[
                &format!("--config.file={}", file.display()),
                &format!("--storage.tsdb.path={}", data.path().join("tsdb").display()),
                &format!("--web.listen-address={address}"),
            ],
            |_| {},
        );
        let mut prometheus = Self { process, address, _data: data };
        let ready = prometheus.process.wait_for_line(Duration::from_secs(60), |line| {
            line.contains("Server is ready to receive web requests").then_some(())
        });
        ready.unwrap_or_else(|e| panic!("{e}"));
        prometheus
    }

    /// The samples that answer a query now.
    fn ask(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reply = plain_http(self.address, "GET", &format!("/api/v1/query?query={encoded}"));
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
        reply.json()["data"]["result"].as_array().expect("a vector").clone()
    }
}

/// Whether there is a number among the samples: what is divided by nothing is none.
fn has_data(samples: &[Value]) -> bool {
    samples.iter().any(|sample| sample["value"][1].as_str().is_some_and(|value| value != "NaN"))
}

/// What clients do all day, good and bad, until `done`.
fn load(gateway: &Gateway, done: &AtomicBool) {
    let stranger = crate::support::pki::Ca::root(&gateway.path().join("pki"), "Stranger CA");
    let stranger = stranger.issue(&crate::support::pki::client("stranger"));
    let blob = format!("/v2/team/app/blobs/{DIGEST}");
    while !done.load(Ordering::Relaxed) {
        for mut client in gateway.both() {
            client.get("/v2/team/app/manifests/v1");
            client.get(&blob);
            client.request("PATCH", "/v2/team/app/blobs/uploads/1?_state=x", &[], &[1_u8; 5000]);
            client.get("/v2/secret/app/manifests/v1");
            client.get("/v2/team/app/manifests/broken");
        }
        let _ = gateway.tls_as(&stranger).connect();
        thread::sleep(Duration::from_millis(50));
    }
}

/// Ends the load however the test ends: a scope waits for its threads.
struct Finally<'a>(&'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The queries of a dashboard with their panel's title, its variables replaced as Grafana does it.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().expect("a title");
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}: what does it show?");
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title} asks nothing");
        for target in targets {
            let query = target["expr"].as_str().expect("a query");
            assert!(
                query.contains("$job") && query.contains("$instance"),
                "{title} shows gateways not chosen: {query}"
            );
            let query = query.replace("$job", ".+").replace("$instance", ".+").replace("$__rate_interval", "10s");
            assert!(!query.contains('$'), "{title}: {query}");
            all.push((title.to_owned(), query));
        }
    }
    all
}

#[test]
fn every_panel_of_the_dashboard_shows_a_gateway_under_load() {
    if !skip::have(&["prometheus"]) {
        return;
    }
    let upstream = Upstream::start();
    upstream.answer(|request| match request.method.as_str() {
        "GET" if request.target.ends_with("/broken") => Answer::new(500),
        "GET" => Answer::new(200).pattern(0, 20_000),
        _ => Answer::new(201),
    });
    let builder = gateway().policy(POLICY).upstream(upstream.url());
    let list = builder.client_ca.crl().number(1).serial("0102").pem();
    let gateway = builder
        .with_upstream(|u| u["health_check"] = json!({ "interval": "1s", "timeout": "1s" }))
        .configure(|c| c["reload"]["watch"] = true.into())
        .crl(&list)
        .start();
    let prometheus = Prometheus::start(gateway.health());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let end_of_load = Finally(&done);
        let loading = scope.spawn(|| load(&gateway, &done));
        // A change that takes effect, for the panel that says how long that takes.
        gateway.write("ca.crl", gateway.client_ca.crl().number(2).serial("0103").pem());
        gateway.wait_for_metric("portcullis_change_to_effect_seconds_count", &[], |n| n >= 1.0);
        let mut missing = queries(&serde_json::from_str(&read(DASHBOARD)).expect("the dashboard is JSON"));
        assert!(missing.len() > 40, "{}", missing.len());
        // The rules that record, too, give something; some of them from what others recorded a moment ago.
        let recorded = rules().into_iter().filter_map(|rule| rule["record"].as_str().map(str::to_owned));
        missing.extend(recorded.map(|name| ("a recording rule".to_owned(), name)));
        let end = Instant::now() + Duration::from_secs(90);
        while !missing.is_empty() && Instant::now() < end && !loading.is_finished() {
            missing.retain(|(_, query)| !has_data(&prometheus.ask(query)));
            thread::sleep(Duration::from_millis(500));
        }
        drop(end_of_load);
        loading.join().unwrap_or_else(|e| std::panic::resume_unwind(e));
        assert!(missing.is_empty(), "no data for {missing:#?}\n{}", gateway.metrics());
    });
    let rules = plain_http(prometheus.address, "GET", "/api/v1/rules").json();
    for group in rules["data"]["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            assert_eq!(rule["health"], "ok", "{rule:#}");
        }
    }
}

#[test]
fn the_page_about_monitoring_shows_a_configuration_that_prometheus_takes() {
    if !skip::have(&["promtool"]) {
        return;
    }
    let page = read(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring.md"));
    let (_, rest) = page.split_once("```yaml\n# prometheus.yml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let file = directory.path().join("prometheus.yml");
    fs::write(&file, example).expect("writable");
    fs::copy(RULES, directory.path().join("portcullis.yaml")).expect("writable");
    let file = file.to_string_lossy().into_owned();
    process::run("promtool", &["check", "config", &file], b"", Duration::from_secs(60)).expect_success("promtool");
}
