//! What came out: a table for the terminal, Markdown and JSON for whoever compares later.

use super::Outcome;
use super::contestant::Contestant;
use super::options::Options;
use super::scenario::Sample;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Everything a run has measured so far.
pub struct Report {
    versions: Vec<(&'static str, String)>,
    machine: Value,
    rows: Vec<Row>,
}

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
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor =
            processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|p| p.1);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let machine = json!({
            "processor": processor, "kernel": kernel.trim(), "cores": cores, "rounds": options.rounds, "scale": options.scale,
        });
        Self { versions, machine, rows: Vec::new() }
    }

    /// Adds a row, and prints it.
    #[expect(clippy::print_stdout, reason = "whoever waits sees what is there already")]
    pub fn add(
        &mut self,
        scenario: &'static str,
        title: &'static str,
        unit: &'static str,
        cells: impl Iterator<Item = (&'static str, Vec<Sample>)>,
    ) {
        let row = Row { scenario, title, unit, cells: cells.collect() };
        println!("{}", row.line());
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

    /// The table: CPU time for a unit of work, and in brackets the gateway's as a share of it.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (name, version) in &self.versions {
            let _ = writeln!(text, "- {name}: {version}");
        }
        let _ = writeln!(text, "- machine: {}\n", self.machine);
        let _ = write!(text, "| CPU time for a unit of work |");
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
        text
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({"machine": self.machine, "versions": self.versions, "results": rows})
    }
}

impl Row {
    fn costs(&self, name: &str) -> Vec<f64> {
        let samples = self.cells.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, samples)| samples);
        let mut costs: Vec<f64> = samples.iter().map(|sample| sample.cpu_seconds / sample.amount).collect();
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

    fn shown(&self, seconds: f64) -> String {
        match self.unit {
            "us" => format!("{:.1}", seconds * 1e6),
            "ms" => format!("{:.3}", seconds * 1e3),
            _ => format!("{seconds:.3}"),
        }
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
        let sample = |sample: &Sample| json!({"cpu_seconds": sample.cpu_seconds, "wall_seconds": sample.wall_seconds, "amount": sample.amount});
        let cells: serde_json::Map<String, Value> = self
            .cells
            .iter()
            .map(|(name, samples)| ((*name).to_owned(), samples.iter().map(sample).collect::<Vec<_>>().into()))
            .collect();
        json!({"scenario": self.scenario, "title": self.title, "unit": self.unit, "samples": cells})
    }
}
