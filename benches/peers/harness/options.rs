//! What a run measures, and where.

use super::Outcome;
use super::contestant::Contestant;
use super::scenario::Scenario;
use clap::Parser;

/// Measures the gateway beside those of envoy, nginx, haproxy, traefik and caddy that are on PATH (or named by ENVOY=…,
/// NGINX=…, HAPROXY=…, TRAEFIK=…, CADDY=…; the gateway itself by PORTCULLIS=…).
#[derive(Clone, Debug, Parser)]
#[command(name = "bench", version)]
pub struct Options {
    /// Which scenarios, by comma; `all` is everything.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    scenarios: Vec<String>,
    /// Which contestants, by comma, besides the gateway.
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<String>>,
    /// How often each contestant is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Multiplies the amounts of work.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
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

    /// # Errors
    /// Names a scenario that there isn't.
    pub fn scenarios(&self) -> Outcome<Vec<Scenario>> {
        if self.scenarios.iter().any(|name| name == "all") {
            return Ok(Scenario::ALL.to_vec());
        }
        self.scenarios.iter().map(|name| Scenario::by_name(name)).collect()
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
