//! The values of the chart: what its README, its schema and docs/kubernetes.md say of them.

use super::{Helm, ROOT, of_kind, read, text, updating};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

#[test]
fn the_page_about_kubernetes_shows_values_that_the_chart_takes() {
    let Some(helm) = Helm::found() else { return };
    let page = read("docs/kubernetes.md");
    let (_, rest) = page.split_once("```yaml\n# values.yaml\n").expect("an example");
    let (example, rest) = rest.split_once("```").expect("its end");
    let file = helm.home.path().join("values.yaml");
    fs::write(&file, example).expect("writable");
    let file = file.to_string_lossy().into_owned();
    let rendered = helm.run_with(&["template", "registry"], &file, &[]).expect_success("the page's values").text();
    for named in ["name: registry-tls", "name: clients", "name: clients-crl", "http://registry.storage:5000"] {
        assert!(rendered.contains(named) || rendered.contains(&named.replace("name:", "secretName:")), "{named}");
    }
    // Its other examples are parts of values.
    for part in rest.split("```yaml\n").skip(1).filter_map(|part| part.split_once("```")) {
        fs::write(&file, part.0).expect("writable");
        // What doesn't say whose certificates they are stands on top of a trial's.
        let trial = format!("{ROOT}/tests/helm/trial.yaml");
        let below = if part.0.contains("server:") { &file } else { &trial };
        let more = ["--values", &file, "--set", "registry.enabled=true"];
        helm.run_with(&["template", "registry"], below, &more).expect_success(part.0);
    }
}

#[test]
fn the_readme_lists_every_value() {
    let values: Value = serde_yaml::from_str(&read("helm/portcullis/values.yaml")).expect("YAML");
    let documented = documented(&read("helm/portcullis/values.yaml"));
    let mut table = "| value | default | for |\n|---|---|---|\n".to_owned();
    for (path, doc) in &documented {
        let value = path.split('.').fold(&values, |value, key| &value[key]);
        let default = value.to_string();
        let default = if default.len() > 60 { "see values.yaml".to_owned() } else { format!("`{default}`") };
        let _ = writeln!(table, "| `{path}` | {default} | {doc} |");
    }
    let readme = read("helm/portcullis/README.md");
    let (head, rest) = readme.split_once("| value | default | for |").expect("the table of values");
    let tail = rest.split_once("\n\n").map_or("", |(_, tail)| tail);
    let wanted = format!("{head}{table}\n{tail}");
    if updating() {
        fs::write(format!("{ROOT}/helm/portcullis/README.md"), &wanted).expect("writable");
    }
    assert!(readme == wanted || updating(), "the values have changed: UPDATE_REFERENCE=1 cargo test helm");
    let paths: BTreeSet<&str> = documented.iter().map(|(path, _)| path.as_str()).collect();
    undocumented(&values, "", &paths);
    let schema: Value = serde_json::from_str(&read("helm/portcullis/values.schema.json")).expect("JSON");
    closed(&schema, &values, "");
}

#[test]
fn what_is_on_by_itself_is_off_with_null() {
    let Some(helm) = Helm::found() else { return };
    for key in ["admin.address", "access_log.path"] {
        let documents = helm.render("trial", &["--set", &format!("config.{key}=null")]);
        let maps = of_kind(&documents, "ConfigMap");
        let config: Value = serde_yaml::from_str(&text(&maps[0]["data"]["portcullis.yaml"])).expect("YAML");
        let (section, key) = key.split_once('.').expect("a section");
        let section = config[section].as_object().expect("the section");
        assert_eq!(section.get(key), Some(&Value::Null), "{section:?}");
    }
}

#[test]
fn slow_clients_can_hold_what_the_memory_limit_gives() {
    let number = |text: &str, unit: &str| text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
    let values: Value = serde_yaml::from_str(&read("helm/portcullis/values.yaml")).expect("YAML");
    let limit = values["resources"]["limits"]["memory"].as_str().expect("text");
    let mebibytes = number(limit, "Gi").map(|gibibytes| gibibytes * 1024).expect("GiB");
    let reference: Value = serde_yaml::from_str(&read("conf/portcullis.yaml")).expect("YAML");
    let requests = reference["upstreams"][0]["limits"]["max_connections"].as_u64().expect("a number");
    // 1 MiB for each (docs/limits.md), and a quarter for the process and its lists.
    assert!(mebibytes >= requests + requests / 4, "{mebibytes} MiB for {requests} requests");
}

/// The paths of values with what stands behind `# --` above them.
fn documented(text: &str) -> Vec<(String, String)> {
    let (mut found, mut above, mut doc): (_, Vec<(usize, &str)>, Option<String>) = (Vec::new(), Vec::new(), None);
    for line in text.lines() {
        let bare = line.trim_start();
        let depth = line.len() - bare.len();
        if let Some(text) = bare.strip_prefix("# -- ") {
            doc = Some(text.to_owned());
        } else if let (Some(more), Some(doc)) = (bare.strip_prefix("# "), &mut doc) {
            doc.push(' ');
            doc.push_str(more);
        } else if let Some((key, _)) = bare.split_once(':').filter(|_| !bare.starts_with(['#', '-'])) {
            above.retain(|(other, _)| *other < depth);
            above.push((depth, key));
            if let Some(doc) = doc.take() {
                let path: Vec<&str> = above.iter().map(|(_, key)| *key).collect();
                found.push((path.join("."), doc));
            }
        }
    }
    found
}

/// Every value is documented, itself or with what it belongs to.
#[track_caller]
fn undocumented(value: &Value, path: &str, documented: &BTreeSet<&str>) {
    if documented.contains(path) {
        return;
    }
    let map = value.as_object().filter(|map| !map.is_empty());
    let map = map.unwrap_or_else(|| panic!("values.yaml says nothing about {path}: `# -- …` above it"));
    for (key, value) in map {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        undocumented(value, &below, documented);
    }
}

/// The schema knows every value, and lets nothing else in where the keys are the chart's own.
#[track_caller]
fn closed(schema: &Value, values: &Value, path: &str) {
    let Some(map) = values.as_object() else { return };
    if ["config", "policy", "resources", "affinity"].contains(&path) || !schema["additionalProperties"].is_boolean() {
        let free = schema["additionalProperties"]["type"] == "string";
        assert!(free || ["config", "policy", "resources", "affinity"].contains(&path), "{path} takes anything");
        return;
    }
    assert_eq!(schema["additionalProperties"], false, "{path}");
    for (key, value) in map {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        assert!(!schema["properties"][key].is_null(), "values.schema.json doesn't know {below}");
        closed(&schema["properties"][key], value, &below);
    }
}
