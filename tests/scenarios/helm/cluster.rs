//! What a cluster makes of the manifests: nodes, networks, and what is there already.

use super::{Helm, text, workload};
use crate::support::upstream::{Answer, Upstream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

#[test]
fn nodes_without_a_zone_get_pods_however_strictly_nodes_are_shared_out() {
    let Some(helm) = Helm::found() else { return };
    let documents = helm.render("trial", &["--set", "topologySpread.whenUnsatisfiable=DoNotSchedule"]);
    let spread = &workload(&documents)["spec"]["template"]["spec"]["topologySpreadConstraints"];
    let rules = spread.as_array().expect("constraints").iter();
    let rules: Vec<_> = rules.map(|rule| (text(&rule["topologyKey"]), text(&rule["whenUnsatisfiable"]))).collect();
    let wanted = [("kubernetes.io/hostname", "DoNotSchedule"), ("topology.kubernetes.io/zone", "ScheduleAnyway")];
    assert_eq!(rules, wanted.map(|(key, rule)| (key.to_owned(), rule.to_owned())));
}

#[test]
fn a_daemon_set_waits_for_the_operator_if_told_so() {
    let Some(helm) = Helm::found() else { return };
    for (more, kind) in [(&[][..], "RollingUpdate"), (&["--set", "updateStrategy=OnDelete"][..], "OnDelete")] {
        let documents = helm.render("daemonset", more);
        assert_eq!(workload(&documents)["spec"]["updateStrategy"], json!({ "type": kind }));
    }
    let notes = |case: &str, more: &[&str]| {
        helm.run(&["install", "r", "--dry-run=client"], case, more).expect_success(case).text()
    };
    assert!(notes("daemonset", &[]).contains("for each node by updateStrategy: OnDelete"));
    assert!(notes("daemonset", &["--set", "updateStrategy=OnDelete"]).contains("registry delete pod POD"));
    assert!(!notes("trial", &[]).contains("a DaemonSet ends"));
}

/// A cluster's API as far as Helm looks things up by it: what kinds there are, and one Deployment.
fn cluster(kinds: &[Value], deployment: Option<Value>) -> Upstream {
    let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for manifest in kinds {
        let kind = text(&manifest["kind"]);
        let name = format!("{}s", kind.to_lowercase());
        let resource = json!({ "name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get"] });
        groups.entry(text(&manifest["apiVersion"])).or_default().push(resource);
    }
    let api = Upstream::start();
    api.answer(move |request| {
        let path = request.target.split('?').next().unwrap_or_default();
        let listed = path.strip_prefix("/apis/").or_else(|| path.strip_prefix("/api/"));
        let listed = listed.and_then(|group| Some((group, groups.get(group)?)));
        let body = match (path, listed) {
            ("/version", _) => Some(json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.0" })),
            ("/api", _) => Some(json!({ "kind": "APIVersions", "versions": ["v1"] })),
            ("/apis", _) => {
                let all = groups.keys().filter_map(|group| Some((group, group.split_once('/')?)));
                let all = all.map(|(group, (name, version))| {
                    let version = json!({ "groupVersion": group, "version": version });
                    json!({ "name": name, "versions": [version], "preferredVersion": version })
                });
                Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": all.collect::<Vec<_>>() }))
            }
            (_, Some((group, resources))) => {
                Some(json!({ "kind": "APIResourceList", "groupVersion": group, "resources": resources }))
            }
            ("/apis/apps/v1/namespaces/registry/deployments/r-portcullis", _) => deployment.clone(),
            _ => None,
        };
        let status = if body.is_some() { 200 } else { 404 };
        let body =
            body.unwrap_or_else(|| json!({ "kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404 }));
        Answer::new(status).header("Content-Type", "application/json").body(body.to_string().as_bytes())
    });
    api
}

#[test]
fn autoscaling_begins_with_as_many_gateways_as_there_are() {
    let Some(helm) = Helm::found() else { return };
    let scaled = ["--set", "autoscaling.enabled=true,autoscaling.minReplicas=3,autoscaling.maxReplicas=9"];
    let kinds = helm.render("trial", &scaled);
    // Nothing is known of a cluster, as with Argo CD: the autoscaler's number must not be overwritten.
    assert_eq!(workload(&kinds)["spec"]["replicas"], Value::Null);
    for (live, wanted) in [(Some(7), json!(7)), (Some(2), json!(3)), (Some(20), json!(9)), (None, Value::Null)] {
        let deployment = live.map(|replicas| {
            // Whose it is, or Helm leaves it alone.
            let metadata = json!({
                "name": "r-portcullis", "namespace": "registry", "labels": { "app.kubernetes.io/managed-by": "Helm" },
                "annotations": { "meta.helm.sh/release-name": "r", "meta.helm.sh/release-namespace": "registry" },
            });
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": { "replicas": replicas } })
        });
        let api = cluster(&kinds, deployment);
        let access = helm.home.path().join("kubeconfig");
        let access_text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": api.url() } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
            "users": [{ "name": "u", "user": {} }],
        });
        fs::write(&access, access_text.to_string()).expect("writable");
        let access = access.to_string_lossy().into_owned();
        let there = ["--dry-run=server", "--disable-openapi-validation", "--kubeconfig", &access];
        let rendered = helm.render("trial", &[&scaled[..], &there].concat());
        assert_eq!(workload(&rendered)["spec"]["replicas"], wanted, "{live:?}");
    }
}
