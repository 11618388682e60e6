//! What a contestant pays for an amount of work.

use super::contestant::Running;
use serde_json::{Value, json};
use std::fs;
use std::time::Instant;

/// What one contestant paid in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// CPU seconds, or bytes of memory.
    pub paid: f64,
    /// For so many of the row's unit.
    pub amount: f64,
    pub wall_seconds: f64,
    /// The share of the contestant's cores that others used meanwhile. A large one makes the figure doubtful.
    pub others: f64,
}

impl Sample {
    pub fn memory(kib: f64, amount: f64) -> Self {
        Self { paid: kib * 1024.0, amount, wall_seconds: 0.0, others: 0.0 }
    }

    pub fn cost(&self) -> f64 {
        self.paid / self.amount
    }

    pub fn json(&self) -> Value {
        json!({"paid": self.paid, "amount": self.amount, "wall_seconds": self.wall_seconds, "others": self.others})
    }
}

/// Measures from its making to its end.
pub struct Meter<'a> {
    running: &'a Running,
    cores: Option<&'a str>,
    cpu: f64,
    busy: f64,
    begun: Instant,
}

impl<'a> Meter<'a> {
    /// Begins; `cores` are those of the contestant, if it has its own.
    pub fn start(running: &'a Running, cores: Option<&'a str>) -> Self {
        Self { running, cores, cpu: running.process.cpu_seconds(), busy: busy_seconds(cores), begun: Instant::now() }
    }

    /// CPU seconds and time so far.
    pub fn so_far(&self) -> (f64, f64) {
        (self.running.process.cpu_seconds() - self.cpu, self.begun.elapsed().as_secs_f64())
    }

    pub fn stop(self, amount: f64) -> Sample {
        let (paid, wall_seconds) = self.so_far();
        let others = (busy_seconds(self.cores) - self.busy - paid).max(0.0) / wall_seconds.max(0.001);
        Sample { paid, amount, wall_seconds, others }
    }
}

/// How long the cores (`0` or `0,1`) have worked for anybody since boot, what the hypervisor took included.
fn busy_seconds(cores: Option<&str>) -> f64 {
    let Some(cores) = cores else { return 0.0 };
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let of = |core: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} ")))?;
        let fields: Vec<f64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user.
        let idle: f64 = fields.iter().skip(3).take(2).sum();
        Some((fields.iter().take(8).sum::<f64>() - idle) / super::process::TICKS_A_SECOND)
    };
    cores.split(',').filter_map(|core| of(core.trim())).sum()
}
