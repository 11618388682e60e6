//! The chart: rendered by Helm for each of `tests/helm/*.yaml`, and judged by Kubernetes' schemas and by the gateway.

mod cluster;
mod refusals;
mod upgrades;
mod values;

use crate::support::pki::{self, Ca};
use crate::support::process::{self, Finished};
use crate::support::skip;
use crate::support::upstream::{Answer, Upstream};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CASES: [&str; 4] = ["trial", "cert-manager", "everything", "daemonset"];
const PATIENCE: Duration = Duration::from_secs(120);

fn read(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Whether a reviewed text is to be written anew.
fn updating() -> bool {
    std::env::var_os("UPDATE_REFERENCE").is_some()
}

struct Helm {
    program: PathBuf,
    home: tempfile::TempDir,
}

impl Helm {
    /// `None` where there is no Helm, which has been said.
    fn found() -> Option<Self> {
        let program = skip::extra("helm")?;
        Some(Self { program, home: tempfile::tempdir().expect("the temporary directory is writable") })
    }

    /// Runs a command with the values of a case and more.
    fn run(&self, command: &[&str], case: &str, more: &[&str]) -> Finished {
        self.run_with(command, &format!("{ROOT}/tests/helm/{case}.yaml"), more)
    }

    /// The same with the values of a file.
    fn run_with(&self, command: &[&str], values: &str, more: &[&str]) -> Finished {
        let chart = format!("{ROOT}/helm/portcullis");
        let mut arguments = command.to_vec();
        arguments.extend([chart.as_str(), "--values", values, "--namespace", "registry"]);
        arguments.extend(more);
        let home = self.home.path();
        process::run_with(&self.program.to_string_lossy(), &arguments, b"", PATIENCE, |command| {
            command.env("HELM_CACHE_HOME", home).env("HELM_CONFIG_HOME", home).env("HELM_DATA_HOME", home);
        })
    }

    fn render(&self, case: &str, more: &[&str]) -> Vec<Value> {
        let mut all = vec!["--kube-version", "1.36"];
        all.extend(more);
        let rendered = self.run(&["template", "r"], case, &all).expect_success(case).text();
        let documents = serde_yaml::Deserializer::from_str(&rendered);
        let documents = documents.map(|document| Value::deserialize(document).expect("manifests are YAML"));
        let mut documents: Vec<Value> = documents.filter(|document| !document.is_null()).collect();
        documents.sort_by_key(|document| (text(&document["kind"]), text(&document["metadata"]["name"])));
        documents
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn of_kind<'d>(documents: &'d [Value], kind: &str) -> Vec<&'d Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

/// The Deployment or DaemonSet of gateways.
fn workload(documents: &[Value]) -> &Value {
    let gateway = |document: &&Value| {
        !document["spec"]["template"].is_null()
            && document["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"
    };
    documents.iter().find(gateway).expect("a workload")
}

#[test]
fn the_chart_passes_lint_and_renders_what_was_reviewed() {
    let Some(helm) = Helm::found() else { return };
    for case in CASES {
        helm.run(&["lint", "--strict"], case, &[]).expect_success(case);
        let mut documents = helm.render(case, &[]);
        for document in &mut documents {
            mask(document);
        }
        let texts = documents.iter().map(|document| serde_yaml::to_string(document).expect("YAML"));
        let rendered = texts.collect::<Vec<_>>().join("---\n");
        let reviewed = format!("tests/helm/snapshots/{case}.yaml");
        if updating() {
            fs::write(format!("{ROOT}/{reviewed}"), &rendered).expect("writable");
        }
        let same = read(&reviewed) == rendered;
        assert!(same, "{reviewed} differs: UPDATE_REFERENCE=1 cargo test helm, and review the difference\n{rendered}");
    }
}

/// Takes out what is random, and what is a copy of a file that is reviewed elsewhere.
fn mask(document: &mut Value) {
    if document["kind"] == "Secret" {
        let key = text(&document["data"]["uploads.key"]);
        // What the file holds is itself base64, of 32 bytes.
        let key = data_encoding::BASE64.decode(key.as_bytes()).expect("base64");
        let key = data_encoding::BASE64.decode(&key).expect("the file holds base64");
        assert_eq!(key.len(), 32);
        document["data"]["uploads.key"] = "(random)".into();
    }
    if document["kind"] == "PrometheusRule" {
        let shipped: Value = serde_yaml::from_str(&read("conf/prometheus/rules.yaml")).expect("YAML");
        let shipped = shipped.to_string().replace("docs/runbook.md", "https://runbooks.example.com/portcullis");
        assert_eq!(document["spec"].to_string(), shipped);
        document["spec"] = "(conf/prometheus/rules.yaml)".into();
    }
    if let Some(dashboard) = document.get_mut("data").and_then(|data| data.get_mut("portcullis.json")) {
        assert_eq!(dashboard.as_str().map(str::trim), Some(read("conf/grafana/portcullis.json").trim()));
        *dashboard = "(conf/grafana/portcullis.json)".into();
    }
}

#[test]
fn the_chart_carries_the_rules_and_the_dashboard_as_they_are() {
    for (chart, shipped) in [
        ("helm/portcullis/files/rules.yaml", "conf/prometheus/rules.yaml"),
        ("helm/portcullis/files/portcullis.json", "conf/grafana/portcullis.json"),
    ] {
        if updating() {
            fs::copy(format!("{ROOT}/{shipped}"), format!("{ROOT}/{chart}")).expect("writable");
        }
        assert!(read(chart) == read(shipped), "{chart} is not {shipped}: UPDATE_REFERENCE=1 cargo test helm");
    }
}

#[test]
fn kubernetes_takes_every_manifest() {
    let Some(helm) = Helm::found() else { return };
    let (Some(schemas), true) = (skip::extra_directory("kubernetes-schemas"), skip::have(&["node", "python3"])) else {
        return;
    };
    let Some(modules) = skip::extra_directory("node_modules") else { return };
    for case in CASES {
        let documents = helm.render(case, &[]);
        let all = Value::from(documents.clone()).to_string();
        // JSON is YAML.
        let yaml = documents.iter().map(|document| format!("---\n{document}\n")).collect::<String>();
        let (python, node) = (format!("{ROOT}/tests/helm/validate.py"), format!("{ROOT}/tests/helm/validate.mjs"));
        let (schemas, modules) = (schemas.to_string_lossy(), modules.to_string_lossy());
        let mut checked = 0;
        for (program, script, where_from, input) in
            [("/usr/bin/python3", &python, &schemas, &yaml), ("node", &node, &modules, &all)]
        {
            let said =
                process::run(program, &[script, where_from], input.as_bytes(), PATIENCE).expect_success(case).text();
            checked +=
                said.trim().trim_end_matches(" checked").parse::<usize>().unwrap_or_else(|e| panic!("{e}: {said}"));
        }
        assert_eq!(checked, documents.len(), "{case}: a manifest was looked at by nobody");
    }
}

#[test]
fn the_gateway_takes_every_rendered_configuration() {
    let Some(helm) = Helm::found() else { return };
    for case in CASES {
        let documents = helm.render(case, &[]);
        let maps = of_kind(&documents, "ConfigMap");
        let map = maps.iter().find(|map| map["data"]["portcullis.yaml"].is_string()).expect("the configuration");
        let root = tempfile::tempdir().expect("the temporary directory is writable");
        let place = |path: &str| root.path().join(path.trim_start_matches('/'));
        let pod = &workload(&documents)["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        for mount in container["volumeMounts"].as_array().expect("mounts") {
            fs::create_dir_all(place(&text(&mount["mountPath"]))).expect("writable");
        }
        let list = fill(&documents, pod, root.path());
        let server = Upstream::start();
        server.answer(move |_| Answer::new(200).body(list.as_bytes()));
        let here = |content: &str| {
            let root = root.path().display();
            content
                .replace("http://pki.example.com", &server.url())
                .replace("/etc/portcullis/", &format!("{root}/etc/portcullis/"))
                .replace("/var/lib/portcullis", &format!("{root}/var/lib/portcullis"))
        };
        let directory = place("/etc/portcullis/config");
        for (name, content) in map["data"].as_object().expect("files") {
            fs::write(directory.join(name), here(content.as_str().expect("text"))).expect("writable");
        }
        let arguments: Vec<String> = container["args"].as_array().expect("arguments").iter().map(text).collect();
        assert_eq!(arguments[..2], ["serve", "--config"]);
        let file = here(&arguments[2]);
        let checked = process::run(env!("CARGO_BIN_EXE_portcullis"), &["check", "--config", &file], b"", PATIENCE);
        checked.expect_success(case);
    }
}

/// Puts files where the Pod's volumes put them; the revocation list of the CA that is among them.
fn fill(documents: &[Value], pod: &Value, root: &Path) -> String {
    let keys = root.join("pki");
    fs::create_dir(&keys).expect("writable");
    let ca = Ca::root(&keys, "CA");
    let server = ca.issue(&pki::server(&["registry.example.com"]));
    let volumes = pod["volumes"].as_array().expect("volumes");
    for mount in pod["containers"][0]["volumeMounts"].as_array().expect("mounts") {
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("its volume");
        let at = root.join(text(&mount["mountPath"]).trim_start_matches('/'));
        let put = |name: &str, content: Vec<u8>| fs::write(at.join(name), content).expect("writable");
        let file = |path: &Path| fs::read(path).expect("openssl wrote it");
        match mount["name"].as_str().expect("a name") {
            "server" => {
                put("tls.crt", file(&server.chain));
                put("tls.key", file(&server.key));
            }
            "client-ca" => {
                let source = if volume["secret"].is_null() { &volume["configMap"] } else { &volume["secret"] };
                put(&text(&source["items"][0]["path"]), file(&ca.certificate));
            }
            "crl" => {
                let config = documents.iter().find_map(|document| document["data"]["portcullis.yaml"].as_str());
                let list = if config.is_some_and(|text| text.contains("crl/list.crl")) { "list.crl" } else { "ca.crl" };
                put(list, ca.crl().pem().into_bytes());
            }
            "uploads" => {
                put("uploads.key", data_encoding::BASE64.encode(&[7; 32]).into_bytes());
                fs::set_permissions(at.join("uploads.key"), Permissions::from_mode(0o440)).expect("its owner may");
            }
            // What the kubelet makes of an emptyDir with an fsGroup.
            "state" => fs::set_permissions(&at, Permissions::from_mode(0o2777)).expect("its owner may"),
            _ => {}
        }
    }
    ca.crl().pem()
}

#[test]
fn changed_files_need_no_new_pod_and_changed_addresses_do() {
    let Some(helm) = Helm::found() else { return };
    let annotation = |sets: &[&str]| {
        let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        workload(&helm.render("trial", &more))["spec"]["template"].clone()
    };
    let before = annotation(&[]);
    for reloaded in ["policy.rules=null", "config.revocation.grace=1h", "config.listeners[0].tls.min_version=1.3"] {
        let sets: &[&str] = if reloaded.starts_with("config.listeners") {
            &["config.listeners[0].addresses[0]=0.0.0.0:8443", "config.listeners[0].name=registry", reloaded]
        } else {
            &[reloaded]
        };
        assert_eq!(annotation(sets), before, "{reloaded}");
    }
    for fixed in ["config.threads=3", "config.health.address=0.0.0.0:9095", "config.limits.max_connections=9"] {
        assert_ne!(annotation(&[fixed])["metadata"], before["metadata"], "{fixed}");
    }
    // What is mounted by subPath is never updated.
    assert!(!before.to_string().contains("subPath"));
}

#[test]
fn pods_are_hardened() {
    let Some(helm) = Helm::found() else { return };
    for case in CASES {
        let documents = helm.render(case, &[]);
        for document in &documents {
            let pod = if document["kind"] == "Pod" { &document["spec"] } else { &document["spec"]["template"]["spec"] };
            let Some(containers) = pod["containers"].as_array() else { continue };
            let name = &document["metadata"]["name"];
            assert_eq!(pod["automountServiceAccountToken"], false, "{case} {name}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{case} {name}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{case} {name}");
            for container in containers {
                let wanted = json!({
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                });
                assert_eq!(container["securityContext"], wanted, "{case} {name}");
            }
        }
        assert!(of_kind(&documents, "Pod").iter().all(|pod| pod["metadata"]["annotations"]["helm.sh/hook"] == "test"));
    }
}

#[test]
fn the_notes_say_what_to_do_next() {
    let Some(helm) = Helm::found() else { return };
    let notes = |case: &str| helm.run(&["install", "r", "--dry-run=client"], case, &[]).expect_success(case).text();
    let trial = notes("trial");
    for part in [
        "rollout status deployment/r-portcullis",
        "helm --namespace registry test r",
        "no revocation list",
        "is for trials",
    ] {
        assert!(trial.contains(part), "{part}: {trial}");
    }
    assert!(!trial.contains("policy.rules is empty"), "{trial}");
    let daemons = notes("daemonset");
    assert!(daemons.contains("port 443 of each") && daemons.contains("policy.rules is empty"), "{daemons}");
    let manager = notes("cert-manager");
    assert!(manager.contains("Secret r-portcullis-client-ca") && !manager.contains("no revocation list"), "{manager}");
}

#[test]
fn without_a_sleep_before_the_stop_the_notes_say_so() {
    let Some(helm) = Helm::found() else { return };
    // Notes are rendered for the cluster that there is; so they stand in a manifest here.
    let chart = helm.home.path().join("chart");
    let chart = chart.to_string_lossy().into_owned();
    process::run("cp", &["-r", &format!("{ROOT}/helm/portcullis"), &chart], b"", PATIENCE).expect_success("cp");
    let notes = read("helm/portcullis/templates/NOTES.txt").replace('\n', "\n    ");
    let manifest = format!(
        "kind: ConfigMap\napiVersion: v1\nmetadata: {{ name: notes }}\ndata:\n  notes: |\n    NOTES: {notes}\n"
    );
    fs::write(format!("{chart}/templates/notes.yaml"), manifest).expect("writable");
    for (version, sleeps) in [("1.25", false), ("1.29", false), ("1.30", true), ("1.36", true)] {
        let values = format!("{ROOT}/tests/helm/trial.yaml");
        let arguments = ["template", "r", &chart, "--values", &values, "--kube-version", version];
        let rendered =
            process::run(&helm.program.to_string_lossy(), &arguments, b"", PATIENCE).expect_success(version).text();
        assert_eq!(rendered.contains("preStop:"), sleeps, "{version}: {rendered}");
        assert_eq!(rendered.contains("preStopSeconds does nothing"), !sleeps, "{version}: {rendered}");
    }
}

#[test]
fn its_own_test_reaches_the_health_listener_whoever_else_may() {
    let Some(helm) = Helm::found() else { return };
    let documents = helm.render("everything", &[]);
    let test = &of_kind(&documents, "Pod")[0]["metadata"]["labels"];
    let policy = of_kind(&documents, "NetworkPolicy")[0];
    let rules = policy["spec"]["ingress"].as_array().expect("rules");
    let health = rules.iter().find(|rule| rule["ports"][0]["port"] == "health").expect("a rule for health");
    let admitted = health["from"].as_array().expect("peers").iter().any(|peer| {
        let labels = peer["podSelector"]["matchLabels"].as_object();
        labels.is_some_and(|labels| labels.iter().all(|(key, value)| test[key] == *value))
    });
    assert!(admitted, "{health}");
}
