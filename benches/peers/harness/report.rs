//! What came out: a table for the terminal, Markdown and JSON for whoever compares later.

use super::Outcome;
use super::contestant::Contestant;
use super::meter::Sample;
use super::options::Options;
use super::scenario::Title;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Everything a run has measured so far.
pub struct Report {
    versions: Vec<(&'static str, String)>,
    machine: Value,
    rows: Vec<Row>,
    notes: Vec<String>,
    /// What the load run found, by the name of its part.
    load: serde_json::Map<String, Value>,
}

/// A sample is doubtful when others used more of the contestant's cores than this meanwhile.
const DISTURBED: f64 = 0.05;

struct Row {
    scenario: &'static str,
    title: &'static str,
    unit: &'static str,
    /// By contestant, the gateway first.
    cells: Vec<(&'static str, Vec<Sample>)>,
}

impl Report {
    pub fn new(contestants: &[Contestant], options: &Options) -> Self {
        let versions = contestants.iter().map(|one| (one.name, one.version())).collect();
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor =
            processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|p| p.1);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
        let machine = json!({
            "processor": processor, "kernel": kernel.trim(), "cores": cores, "rounds": options.rounds, "scale": options.scale,
        });
        Self { versions, machine, rows: Vec::new(), notes: Vec::new(), load: serde_json::Map::new() }
    }

    /// Adds a sentence, and prints it.
    #[expect(clippy::print_stdout, reason = "whoever waits sees what is there already")]
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        println!("{text}");
        self.notes.push(text);
    }

    /// Adds what a part of the load run found.
    pub fn found(&mut self, part: &str, value: Value) {
        self.load.insert(part.to_owned(), value);
    }

    /// Adds a row, and prints it.
    #[expect(clippy::print_stdout, reason = "whoever waits sees what is there already")]
    pub fn add(&mut self, (scenario, title, unit): Title, cells: impl Iterator<Item = (&'static str, Vec<Sample>)>) {
        let row = Row { scenario: scenario.name(), title, unit, cells: cells.collect() };
        println!("{}", row.line());
        if let Some(doubt) = row.doubt() {
            self.note(doubt);
        }
        self.rows.push(row);
    }

    /// Writes `results.json` and `results.md` into a directory.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, directory: &Path) -> Outcome<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("results.json"), serde_json::to_string_pretty(&self.json())?)?;
        Ok(fs::write(directory.join("results.md"), self.markdown())?)
    }

    /// The table: what a unit of work costs each, and in brackets the gateway's cost as a share of it.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (name, version) in &self.versions {
            let _ = writeln!(text, "- {name}: {version}");
        }
        let _ = writeln!(text, "- machine: {}\n", self.machine);
        if self.rows.is_empty() {
            self.remarks(&mut text);
            return text;
        }
        let _ = write!(text, "| cost of a unit of work (gateway : peer) |");
        for (name, _) in &self.versions {
            let _ = write!(text, " {name} |");
        }
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(self.versions.len()));
        for row in &self.rows {
            let _ = write!(text, "| {} {} ({}) |", row.scenario, row.title, row.unit);
            for (name, _) in &self.versions {
                let _ = write!(text, " {} |", row.cell(name));
            }
            text.push('\n');
        }
        self.remarks(&mut text);
        text
    }

    fn remarks(&self, text: &mut String) {
        text.push('\n');
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({"machine": self.machine, "versions": self.versions, "results": rows, "load": self.load, "notes": self.notes})
    }
}

impl Row {
    fn costs(&self, name: &str) -> Vec<f64> {
        let samples = self.cells.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, samples)| samples);
        let mut costs: Vec<f64> = samples.iter().map(Sample::cost).collect();
        costs.sort_by(f64::total_cmp);
        costs
    }

    fn median(&self, name: &str) -> Option<f64> {
        let costs = self.costs(name);
        costs.get(costs.len() / 2).copied()
    }

    fn gateway(&self) -> Option<f64> {
        self.median(self.cells.first()?.0)
    }

    fn cell(&self, name: &str) -> String {
        let Some(median) = self.median(name) else { return "–".to_owned() };
        match self.gateway() {
            Some(gateway) if self.cells.first().is_none_or(|(first, _)| *first != name) => {
                format!("{} ({:.2})", self.shown(median), gateway / median)
            }
            _ => self.shown(median),
        }
    }

    fn shown(&self, cost: f64) -> String {
        match self.unit {
            "us" => format!("{:.1}", cost * 1e6),
            "ms" => format!("{:.3}", cost * 1e3),
            "KiB" => format!("{:.1}", cost / 1024.0),
            "MiB" => format!("{:.1}", cost / 1_048_576.0),
            _ => format!("{cost:.3}"),
        }
    }

    /// Who was disturbed most, if anybody was.
    fn doubt(&self) -> Option<String> {
        let most = |samples: &[Sample]| samples.iter().map(|sample| sample.others).fold(0.0, f64::max);
        let (name, others) =
            self.cells.iter().map(|(name, samples)| (name, most(samples))).max_by(|a, b| a.1.total_cmp(&b.1))?;
        let (scenario, title) = (self.scenario, self.title);
        let percent = others * 100.0;
        (others > DISTURBED).then(|| {
            format!("{scenario} {title}: others used up to {percent:.0} % of the core of {name}: not a quiet machine")
        })
    }

    fn line(&self) -> String {
        let mut line = format!("{} {} ({}):", self.scenario, self.title, self.unit);
        for (name, _) in &self.cells {
            let _ = write!(line, "  {name} {}", self.cell(name));
            let costs = self.costs(name);
            if let (Some(least), Some(most)) = (costs.first(), costs.last()) {
                let _ = write!(line, " [{}–{}]", self.shown(*least), self.shown(*most));
            }
        }
        line
    }

    fn json(&self) -> Value {
        let cells: serde_json::Map<String, Value> = self
            .cells
            .iter()
            .map(|(name, samples)| ((*name).to_owned(), samples.iter().map(Sample::json).collect::<Vec<_>>().into()))
            .collect();
        json!({"scenario": self.scenario, "title": self.title, "unit": self.unit, "samples": cells})
    }
}
