//! What guides show of configurations and policies is taken by the gateway, on top of what they leave out.

use crate::support::blocks::blocks;
use crate::support::gateway::gateway;
use crate::support::process;
use portcullis::config::FileKind;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Groups that examples speak of, and a rule.
fn policy() -> Value {
    json!({
        "groups": {
            "ci": [{ "dns": "*.ci.example.com" }],
            "contractors": [{ "subject": { "O": "Contractor" } }],
            "team-a": [{ "subject": { "OU": "team-a" } }],
        },
        "rules": [{ "name": "all", "subjects": ["any"], "repositories": ["**"], "actions": ["pull"], "effect": "allow" }],
    })
}

/// Puts `part` over `whole`: keys of mappings one by one, entries of lists of mappings at the same place.
fn lay_over(whole: &mut Value, part: &Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                lay_over(whole.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(whole), Value::Array(part)) if part.iter().all(Value::is_object) => {
            whole.resize(part.len().max(1), json!({}));
            for (whole, part) in whole.iter_mut().zip(part) {
                lay_over(whole, part);
            }
        }
        (whole, part) => *whole = part.clone(),
    }
}

fn knows(kind: FileKind, part: &Value) -> bool {
    let schema = kind.schema();
    part.as_object().is_some_and(|part| part.keys().all(|key| schema["properties"].get(key).is_some()))
}

/// Whether the gateway takes a configuration with this part. Files that it names need not be there.
fn as_configuration(part: &Value) -> Result<(), String> {
    let builder = gateway().upstream("http://127.0.0.1:9").bound_uploads();
    let secrets =
        [("uploads.key", "a".repeat(64)), ("redis-password", "secret".to_owned()), ("admin-token", "f".repeat(64))];
    for (key, text) in secrets {
        fs::write(builder.path().join(key), text).expect("writable");
    }
    let builder = builder.configure(|config| lay_over(config, part));
    portcullis::config::load(&builder.write_config()).map(|_| ()).map_err(|e| e.to_string())
}

/// Whether a gateway would start with a policy that has this part.
fn as_policy(part: &Value) -> Result<(), String> {
    let mut whole = policy();
    lay_over(&mut whole, part);
    let text = serde_yaml::to_string(&whole).expect("YAML");
    let builder = gateway().upstream("http://127.0.0.1:9").policy(&text);
    fs::create_dir(builder.path().join("groups.d")).expect("writable");
    if whole["groups"]["team-a"].is_array() {
        fs::write(builder.path().join("groups.d/empty.yaml"), "groups: {}\n").expect("writable");
    }
    let config = builder.write_config();
    let arguments = ["check", "--config", &config.to_string_lossy()];
    let checked = process::run(env!("CARGO_BIN_EXE_portcullis"), &arguments, b"", Duration::from_secs(30));
    if checked.success() { Ok(()) } else { Err(checked.all()) }
}

#[test]
fn what_guides_show_of_files_is_taken() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut guides: Vec<_> = fs::read_dir(docs).expect("docs").map(|entry| entry.expect("docs").path()).collect();
    guides.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let (mut taken, mut faults) = (0, Vec::new());
    for path in guides.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(path).expect("a guide");
        for block in blocks(&text).iter().filter(|block| block.language == "yaml") {
            if block.run_by().is_some() || block.not_run().is_some() || block.file().is_some() {
                continue;
            }
            let part: Value = match serde_yaml::from_str(&block.text) {
                Ok(part) => part,
                Err(e) => {
                    faults.push(format!("{}:{}: {e}", path.display(), block.line));
                    continue;
                }
            };
            let kinds: [(_, fn(&Value) -> _); 2] =
                [(FileKind::Configuration, as_configuration), (FileKind::Policy, as_policy)];
            // `limits` is a key of both.
            let judged = kinds.into_iter().filter(|(kind, _)| knows(*kind, &part)).map(|(_, judge)| judge(&part));
            let judged = judged.reduce(Result::or).unwrap_or_else(|| {
                Err("neither a configuration nor a policy: say above what it is, and which test reads it".to_owned())
            });
            match judged {
                Ok(()) => taken += 1,
                Err(e) => faults.push(format!("{}:{}: {e}", path.display(), block.line)),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(taken > 15, "{taken}");
}
