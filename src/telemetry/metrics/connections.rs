//! Handshakes and connections.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::family::{Families, Table};
use crate::telemetry::outcome::{EndReason, HandshakeResult, HttpVersion};

/// A handshake on a LAN takes about a millisecond, one over a bad line some seconds.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug)]
pub(super) struct ConnectionFamilies {
    handshakes: Table<HandshakeResult, IntCounter>,
    handshake_seconds: Histogram,
    open: IntGauge,
    opened: Table<HttpVersion, IntCounter>,
    ended: Table<EndReason, IntCounter>,
}

impl ConnectionFamilies {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        let handshakes = families.counters("handshakes_total", "TLS handshakes by how they ended.", &["result"])?;
        let opened = families.counters(
            "connections_total",
            "Connections that completed their handshake, by the protocol agreed.",
            &["protocol"],
        )?;
        let ended =
            families.counters("connections_ended_total", "Connections that ended, by the reason.", &["reason"])?;
        Ok(Self {
            handshakes: Table::new(|result: HandshakeResult| handshakes.with_label_values(&[result.as_str()])),
            handshake_seconds: families.histogram(
                "handshake_seconds",
                "Time from accepting a connection to the end of its handshake, of handshakes that succeeded.",
                SECONDS,
            )?,
            open: families.gauge("connections", "Connections open after a completed handshake.")?,
            opened: Table::new(|protocol: HttpVersion| opened.with_label_values(&[protocol.as_str()])),
            ended: Table::new(|reason: EndReason| ended.with_label_values(&[reason.as_str()])),
        })
    }

    pub(super) fn handshake(&self, result: HandshakeResult, duration: Duration) {
        self.handshakes.get(result).inc();
        if result.is_ok() {
            self.handshake_seconds.observe(duration.as_secs_f64());
        }
    }

    pub(super) fn opened(&self, protocol: HttpVersion) -> OpenConnection {
        self.opened.get(protocol).inc();
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    pub(super) fn ended(&self, reason: EndReason) {
        self.ended.get(reason).inc();
    }
}

/// Counts a connection among the open ones for as long as it lives, also if the future that serves it is dropped.
#[derive(Debug)]
#[must_use = "the connection counts as open only while this lives"]
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
