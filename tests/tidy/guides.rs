//! Guides: every command in them is run by a test, or says why not.

use super::Faults;
use super::blocks::blocks;
use super::source::{files_under, read, sources};
use std::path::Path;

/// What people are told to type.
fn guides() -> impl Iterator<Item = String> {
    let at_the_top = ["README.md", "SECURITY.md", "CONTRIBUTING.md"].map(str::to_owned);
    at_the_top.into_iter().chain(files_under("docs/").into_iter().filter(|path| path.ends_with(".md")))
}

/// Whether there is a test of the scenarios of this name, `module::function`.
fn is_a_test(name: &str) -> bool {
    let Some((module, function)) = name.rsplit_once("::") else { return false };
    let path = format!("tests/scenarios/{}.rs", module.replace("::", "/"));
    sources().iter().any(|source| source.path == path && source.text.contains(&format!("#[test]\nfn {function}(")))
}

#[test]
fn every_command_of_a_guide_is_run_or_says_why_not() {
    let mut faults = Faults::default();
    let followed: String = sources()
        .iter()
        .filter(|source| source.path.starts_with("tests/scenarios/"))
        .map(|source| source.text.split_whitespace().collect::<String>())
        .collect();
    let mut shells = 0;
    for path in guides() {
        let is_followed = ["", "_with"].iter().any(|kind| followed.contains(&format!("follow{kind}(\"{path}\"")));
        for block in blocks(&read(&path)) {
            if let Some(test) = block.run_by().filter(|test| !is_a_test(test)) {
                faults.add(&path, block.line, &format!("there is no test {test}"));
            }
            if block.not_run().is_some_and(|reason| reason.len() < 10) {
                faults.add(&path, block.line, "say why no test can run it");
            }
            // What is misspelt would be run, or not be looked at.
            let forms = [block.run_by(), block.not_run(), block.before(), block.needs(), block.file()];
            if forms.iter().flatten().count() != block.comments.len() || block.text.trim().is_empty() {
                faults.add(
                    &path,
                    block.line,
                    &format!("tests/support/blocks.rs knows no such comment: {:?}", block.comments),
                );
            }
            shells += usize::from(block.is_shell());
            let settled = block.run_by().is_some() || block.not_run().is_some() || is_followed;
            if block.is_shell() && !settled {
                let what = "nothing runs it: `follow` the guide in tests/scenarios/guides.rs, or say above `<!-- run by: \
                            MODULE::TEST -->` or `<!-- not run: REASON -->`";
                faults.add(&path, block.line, what);
            }
        }
    }
    assert!(shells > 30, "the blocks are not found: {shells}");
    faults.none();
}

#[test]
fn tests_that_the_security_model_names_are_there() {
    let mut faults = Faults::default();
    let path = "docs/security-model.md";
    let mut names = 0;
    for (number, line) in (1..).zip(read(path).lines()) {
        for name in line.split('`').skip(1).step_by(2).filter(|word| word.contains("::")) {
            names += 1;
            if !is_a_test(name) {
                faults.add(path, number, &format!("there is no test {name}"));
            }
        }
    }
    assert!(names > 20, "the names are not found: {names}");
    faults.none();
}

#[test]
fn figures_of_capacity_stand_where_they_are_from() {
    let mut faults = Faults::default();
    let path = "docs/capacity.md";
    let mut figures = 0;
    for (number, line) in (1..).zip(read(path).lines()) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, figure, from] = cells.as_slice() else { continue };
        let Some((_, file)) = from.trim_end_matches(')').split_once("](") else { continue };
        let file = file.strip_prefix("../").map_or_else(|| format!("docs/{file}"), str::to_owned);
        // Figures in tables may stand in bold.
        if !read(&file).replace('*', "").contains(*figure) {
            faults.add(
                path,
                number,
                &format!("{figure} is not in {file} (any more): correct it, and what is reckoned with it"),
            );
        }
        figures += 1;
    }
    assert!(figures > 5, "the figures are not found: {figures}");
    faults.none();
}

#[test]
fn links_between_guides_lead_somewhere() {
    let mut faults = Faults::default();
    for path in guides().chain(["ARCHITECTURE.md".to_owned()]) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut fenced = false;
        for (number, line) in (1..).zip(read(&path).lines()) {
            fenced ^= line.trim_start().starts_with("```");
            if fenced {
                continue;
            }
            for target in line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let file = if file.is_empty() { path.clone() } else { format!("{folder}/{file}") };
                let file = file.trim_start_matches('/');
                if Path::new(env!("CARGO_MANIFEST_DIR")).join(file).metadata().is_err() {
                    faults.add(&path, number, &format!("there is no {target}"));
                } else if !anchor.is_empty() && file.ends_with(".md") && !anchors(file).any(|one| one == anchor) {
                    faults.add(&path, number, &format!("{target}: no such heading"));
                }
            }
        }
    }
    faults.none();
}

/// What headings are called in links.
fn anchors(path: &str) -> impl Iterator<Item = String> {
    let name = |heading: &str| -> String {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    let normal = path.split('/').fold(Vec::new(), |mut parts, part| {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
        parts
    });
    let text = read(&normal.join("/"));
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| name(line.trim_start_matches('#').trim()))
        .collect::<Vec<_>>()
        .into_iter()
}
