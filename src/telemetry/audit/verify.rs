//! Whether the records of an audit log are all there, as they were written.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::line::hash;

/// Follows the chains of a log, line by line, the files in the order in which they were written.
///
/// A line that was changed, taken out or put elsewhere breaks its chain at the next one. What nobody can see is whether
/// records are missing at the end of a chain that doesn't stop, or at its beginning, which may stand in an earlier file.
#[derive(Debug, Default)]
pub struct Verifier {
    chains: BTreeMap<String, Chain>,
    findings: Vec<Finding>,
    /// Lines that are no records, until a record turns out to be what they began: where they are, and their text.
    torn: Vec<(usize, Vec<u8>)>,
    records: u64,
}

/// What there is of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The number of its first record that is there; 0 is the very first.
    pub first: u64,
    /// The number of its last record.
    pub last: u64,
    /// Whether its last record says that the process left.
    pub is_stopped: bool,
    /// How many records the process could not write, by its own account.
    pub missed: u64,
    hash: [u8; 32],
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file as it was named.
    pub file: String,
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong.
    pub message: String,
    /// Whether something is missing or was changed. The beginning of a line whose record follows once more isn't that.
    pub is_fault: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// What a log holds.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By name, which begins with the time of the start: they sort by it.
    pub chains: BTreeMap<String, Chain>,
    /// In the order of the files.
    pub findings: Vec<Finding>,
    /// How many records were read.
    pub records: u64,
}

impl Report {
    /// Whether nothing is missing and nothing was changed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.findings.iter().any(|finding| finding.is_fault)
    }
}

/// Broken lines that are kept to be compared with what follows. There is one for each time that the disk was full.
const MOST_TORN: usize = 1000;

/// What the chain needs of a line.
#[derive(Deserialize)]
struct Link {
    chain: String,
    seq: u64,
    prev: String,
    event: String,
    #[serde(default)]
    count: u64,
}

impl Verifier {
    /// Takes the next line of `file`, without its end.
    pub fn line(&mut self, file: &str, number: u64, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        let find = |findings: &mut Vec<Finding>, message: String, is_fault| {
            findings.push(Finding { file: file.to_owned(), line: number, message, is_fault });
        };
        let Ok(link) = serde_json::from_slice::<Link>(line) else {
            find(&mut self.findings, "this is no record: a line that was broken off, or changed".to_owned(), true);
            if self.torn.len() < MOST_TORN {
                self.torn.push((self.findings.len() - 1, line.to_vec()));
            }
            return;
        };
        self.records += 1;
        // What was broken off is written again as a whole, if need be by way of the next file.
        for (position, _) in self.torn.extract_if(.., |(_, begun)| line.starts_with(begun)) {
            if let Some(finding) = self.findings.get_mut(position) {
                finding.message = "a line that was broken off; its record follows".to_owned();
                finding.is_fault = false;
            }
        }
        let hash = hash(line);
        let is_stopped = link.event == "stopped";
        let missed = if link.event == "missed" { link.count } else { 0 };
        let prev = HEXLOWER.decode(link.prev.as_bytes()).unwrap_or_default();
        let Some(chain) = self.chains.get_mut(&link.chain) else {
            if link.seq == 0 && prev != [0; 32] {
                find(&mut self.findings, "a first record with something before it".to_owned(), true);
            }
            let chain = Chain { first: link.seq, last: link.seq, is_stopped, missed, hash };
            self.chains.insert(link.chain, chain);
            return;
        };
        let Chain { first, last, .. } = *chain;
        if chain.is_stopped {
            find(&mut self.findings, format!("record {} of {}, which had stopped", link.seq, link.chain), true);
        }
        let expected = last.saturating_add(1);
        if link.seq > expected {
            find(
                &mut self.findings,
                format!("records {expected} to {} of {} are missing before this one", link.seq - 1, link.chain),
                true,
            );
        } else if link.seq <= last {
            find(
                &mut self.findings,
                format!("record {} of {} stands behind record {last}", link.seq, link.chain),
                true,
            );
        } else if prev != chain.hash {
            find(
                &mut self.findings,
                format!("record {last} of {}, the one before this, or this one was changed", link.chain),
                true,
            );
        }
        *chain = Chain { first, last: link.seq, is_stopped, missed: chain.missed.saturating_add(missed), hash };
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Report {
        Report { chains: self.chains, findings: self.findings, records: self.records }
    }
}
