//! What a run measures, and where.

use super::Outcome;
use super::contestant::Contestant;
use super::scenario::Scenario;
use clap::Parser;
use std::time::Duration;

/// Measures the gateway beside those of envoy, nginx, haproxy, traefik and caddy that are on PATH (or named by ENVOY=…,
/// NGINX=…, HAPROXY=…, TRAEFIK=…, CADDY=…; the gateway itself by PORTCULLIS=…).
#[derive(Clone, Debug, Parser)]
#[command(name = "bench", version)]
pub struct Options {
    /// Which scenarios, by comma: S1 handshakes, S2 resumed, S3 and S4 small requests over HTTP/1.1 and HTTP/2, S5 and S5h2
    /// downloads, S6 and S6h2 uploads, S7 memory, S9 before docker-registry.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Also S1m: handshakes with a revocation list of a million entries, of which peers need seconds.
    #[arg(long)]
    million: bool,
    /// Which contestants, by comma, besides the gateway.
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<String>>,
    /// How often each contestant is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Multiplies the amounts of work.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// The gateway alone, under load: two serving threads, 5,000 idle and 500 busy connections, latencies at 50 % and 80 % of
    /// what it can do with requests at a constant rate, the balance between its threads.
    #[arg(long)]
    pub load: bool,
    /// The gateway alone, for so long (`10m`), with pushes and pulls of all kinds: does its memory grow?
    #[arg(long, value_parser = humantime::parse_duration)]
    pub soak: Option<Duration>,
    /// The core (or cores) of the contestants.
    #[arg(long, default_value = "0")]
    gateway_cores: String,
    /// The core (or cores) of clients and upstream.
    #[arg(long, default_value = "1")]
    client_cores: String,
    /// Leaves it to the kernel which core runs what.
    #[arg(long)]
    unpinned: bool,
    /// What cargo says to benchmarks.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub fn gateway_cores(&self) -> Option<&str> {
        (!self.unpinned).then_some(&self.gateway_cores)
    }

    pub fn client_cores(&self) -> Option<&str> {
        (!self.unpinned).then_some(&self.client_cores)
    }

    /// Cores of the gateway in a load run: both kinds.
    pub fn load_cores(&self) -> Option<String> {
        (!self.unpinned).then(|| format!("{},{}", self.gateway_cores, self.client_cores))
    }

    /// # Errors
    /// Names a scenario that there isn't.
    pub fn scenarios(&self) -> Outcome<Vec<Scenario>> {
        if self.scenarios.is_empty() && (self.load || self.soak.is_some()) {
            return Ok(Vec::new());
        }
        if self.scenarios.is_empty() {
            let all = Scenario::NAMES.iter().map(|(_, scenario)| *scenario);
            return Ok(all.filter(|one| self.million || *one != Scenario::HandshakesLongList).collect());
        }
        let mut chosen: Vec<_> = self.scenarios.iter().map(|name| Scenario::by_name(name)).collect::<Outcome<_>>()?;
        if self.million && !chosen.contains(&Scenario::HandshakesLongList) {
            chosen.push(Scenario::HandshakesLongList);
        }
        Ok(chosen)
    }

    /// The gateway and the peers that are wanted.
    ///
    /// # Errors
    /// Names a peer that isn't here.
    pub fn choose(&self, gateway: Contestant, peers: Vec<Contestant>) -> Outcome<Vec<Contestant>> {
        let Some(only) = &self.only else { return Ok(std::iter::once(gateway).chain(peers).collect()) };
        let there = |name: &String| name == gateway.name || peers.iter().any(|peer| peer.name == name);
        if let Some(missing) = only.iter().find(|name| !there(name)) {
            return Err(format!("--only {missing}: not found on PATH, nor named by a variable").into());
        }
        let peers: Vec<_> = peers.into_iter().filter(|peer| only.iter().any(|name| name == peer.name)).collect();
        Ok(std::iter::once(gateway).chain(peers).collect())
    }

    /// So much of a time.
    pub fn scaled_time(&self, time: Duration) -> Duration {
        time.mul_f64(self.scale.max(0.0))
    }

    /// So much of `count`, and at least one.
    pub fn scaled(&self, count: u32) -> u32 {
        let scaled = (f64::from(count) * self.scale).max(1.0);
        // Within the bounds of what it came from, as far as anybody would wait for it.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and `as` saturates")]
        let scaled = scaled as u32;
        scaled
    }

    /// The size of a blob: 256 MiB, and less in a scaled run.
    pub fn blob_bytes(&self) -> u64 {
        u64::from(self.scaled(256).min(256)) << 20
    }
}
