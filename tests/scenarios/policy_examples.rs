//! The policies of docs/policy.md: each can be used, does what its cases say, and is what the document shows.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::gateway::gateway;
use crate::support::process::{self, Finished};

/// Each policy with its cases.
const EXAMPLES: [[&str; 2]; 5] = [
    ["conf/policies/teams.yaml", "conf/policies/teams-test.yaml"],
    ["conf/policies/ci-pushes.yaml", "conf/policies/ci-pushes-test.yaml"],
    ["conf/policies/immutable-releases.yaml", "conf/policies/immutable-releases-test.yaml"],
    ["conf/policies/contractors.yaml", "conf/policies/contractors-test.yaml"],
    ["conf/policies/read-only-mirror.yaml", "conf/policies/read-only-mirror-test.yaml"],
];

fn portcullis(arguments: &[&str]) -> Finished {
    process::run(env!("CARGO_BIN_EXE_portcullis"), arguments, b"", Duration::from_secs(20))
}

fn shipped(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name).to_string_lossy().into_owned()
}

#[test]
fn every_example_does_what_its_cases_say() {
    for [_, cases] in EXAMPLES {
        let text = portcullis(&["policy", "test", &shipped(cases)]).expect_success(cases).text();
        assert!(text.contains("all as expected"), "{cases}: {text}");
        assert!(!text.contains("rules that settled no request"), "{cases}: {text}");
    }
}

#[test]
fn every_example_can_be_put_in_force() {
    let builder = gateway().upstream("http://127.0.0.1:9");
    let config = builder.write_config();
    for [policy, _] in EXAMPLES {
        let text = fs::read_to_string(shipped(policy)).expect("shipped");
        fs::write(builder.path().join("policy.yaml"), text).expect("the test directory is writable");
        portcullis(&["check", "--config", &config.to_string_lossy()]).expect_success(policy);
    }
}

#[test]
fn the_document_shows_the_examples_as_they_are() {
    let document = fs::read_to_string(shipped("docs/policy.md")).expect("the document");
    for [policy, cases] in EXAMPLES {
        assert!(document.contains(&format!("../{policy}")) && document.contains(&format!("../{cases}")), "{policy}");
        let shown = document
            .split("```yaml\n")
            .filter_map(|rest| rest.split("```").next())
            .find_map(|block| block.strip_prefix(&format!("# {policy}\n")))
            .unwrap_or_else(|| panic!("{policy} isn't shown"));
        let file = fs::read_to_string(shipped(policy)).expect("shipped");
        assert!(file.contains(shown), "{policy} is not what the document shows:\n{shown}");
    }
}
