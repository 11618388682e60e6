//! What docs/kubernetes.md says about upgrades.

use super::{Helm, PATIENCE, ROOT, read};
use crate::support::blocks::blocks;
use crate::support::process::{self, Finished};
use std::fs;
use std::path::Path;

#[test]
fn a_policy_that_helm_takes_is_judged_as_the_page_says() {
    let Some(helm) = Helm::found() else { return };
    let page = read("docs/kubernetes.md");
    let here = "helm::upgrades::a_policy_that_helm_takes_is_judged_as_the_page_says";
    let commands = blocks(&page).into_iter().find(|block| block.run_by() == Some(here)).expect("the commands").text;
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    std::os::unix::fs::symlink(format!("{ROOT}/helm"), directory.path().join("helm")).expect("writable");
    let programs = [helm.program.as_path(), Path::new(env!("CARGO_BIN_EXE_portcullis"))].map(Path::parent);
    let programs = programs.map(|directory| directory.expect("a directory").display().to_string()).join(":");
    let trial = read("tests/helm/trial.yaml");
    let judged = |values: &str| -> Finished {
        fs::write(directory.path().join("values.yaml"), values).expect("writable");
        process::run_with("sh", &["-ec", &commands], b"", PATIENCE, |command| {
            let path = std::env::var("PATH").unwrap_or_default();
            command.current_dir(directory.path()).env("PATH", format!("{programs}:{path}"));
            let home = helm.home.path();
            command.env("HELM_CACHE_HOME", home).env("HELM_CONFIG_HOME", home).env("HELM_DATA_HOME", home);
        })
    };
    let narrow = trial.replace("\"**\"", "\"team/**\"").replace("[pull, push]", "[pull]");
    judged(&narrow).expect_success("a policy");
    let broken = judged(&narrow.replace("effect: allow", "effect: perhaps"));
    assert!(!broken.success() && broken.all().contains("policy.yaml:"), "{}", broken.all());
    let doubtful = judged(&trial);
    assert!(!doubtful.success() && doubtful.all().contains("grant_to_everyone"), "{}", doubtful.all());
}
