//! From an upstream to one of its addresses, and what becomes of the connection.

use std::sync::Arc;
use std::time::Duration;

use pingora::prelude::HttpPeer;
use pingora::{Error, ErrorType};

use super::Exchange;
use crate::oci::Route;
use crate::proxy::internal;
use crate::proxy::redirect::Followed;
use crate::telemetry::Outcome;
use crate::upstream::{Address, Kept};

/// By how much the framework's clock for an answer stays behind the one for the client's body.
const CLOCK_DISTANCE: Duration = Duration::from_secs(2);

/// Addresses that are tried for one request.
const MAX_CONNECT_ATTEMPTS: usize = 3;

impl Exchange {
    /// Picks an address and notes it.
    pub(in crate::proxy) fn next_address(&mut self) -> pingora::Result<Arc<Address>> {
        let upstream = self.upstream.as_ref().ok_or_else(|| internal("no upstream was chosen"))?;
        let picked = self.followed.as_ref().map_or_else(|| upstream.pick(), |followed| followed.storage().pick());
        match picked {
            Ok(address) => {
                self.record.upstream = Some(address.label().clone());
                Ok(address)
            }
            Err(fault) => {
                upstream.metrics().fault(fault);
                self.outcome = Some(Outcome::UpstreamUnavailable);
                Err(Error::explain(ErrorType::ConnectError, fault.as_str()))
            }
        }
    }

    /// Picks an address for the client's request, and how it is to be connected to.
    ///
    /// The framework's clock for an answer runs while the body is still coming. It must not run out before the client's
    /// own, or a client that pauses would look like a silent registry.
    pub(in crate::proxy) fn next_peer(&mut self, has_body: bool, kept: &Arc<Kept>) -> pingora::Result<Box<HttpPeer>> {
        let address = self.next_address()?;
        let mut peer = Box::new(address.peer().clone());
        if has_body {
            let least = self.snapshot.settings.limits.body_idle_timeout.saturating_add(CLOCK_DISTANCE);
            peer.options.read_timeout = peer.options.read_timeout.map(|limit| limit.max(least));
        }
        let download = !has_body && self.route.as_ref().is_some_and(Route::is_download);
        self.dial = if download { address.dial(&mut peer, kept) } else { None };
        Ok(peer)
    }

    /// Sends the request on to a storage, which has addresses of its own.
    pub(in crate::proxy) fn follow(&mut self, followed: Followed) {
        self.followed = Some(followed);
        self.connect_attempts = 0;
    }

    /// Notes a failed attempt; whether another address should be tried.
    pub(in crate::proxy) fn connect_failed(&mut self) -> bool {
        self.connect_attempts += 1;
        let known = match (&self.followed, &self.upstream) {
            (Some(followed), _) => followed.storage().known(),
            (None, upstream) => upstream.as_ref().map_or(0, |upstream| upstream.addresses().len()),
        };
        self.connect_attempts < known.min(MAX_CONNECT_ATTEMPTS)
    }

    /// Whether the connection had served another request before, by what the framework knows of it.
    pub(in crate::proxy) fn is_reused(&self, reused: bool) -> bool {
        reused || self.dial.as_ref().is_some_and(|dial| dial.is_reused())
    }

    pub(in crate::proxy) fn connected(&self, reused: bool) {
        let reused = self.is_reused(reused);
        if let Some(upstream) = &self.upstream {
            upstream.metrics().connected(reused);
        }
    }

    /// The upstream's connection is not to be used again.
    pub(in crate::proxy) fn give_up_connection(&mut self) {
        if let Some(dial) = self.dial.take() {
            dial.give_up();
        }
    }

    /// Nothing more comes of the upstream's answer.
    pub(in crate::proxy) fn answer_ended(&self) {
        if let Some(dial) = &self.dial {
            dial.answered();
        }
    }
}
