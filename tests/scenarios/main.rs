//! Scenarios: the real binary between test clients and test upstreams.
//!
//! One test binary, so that the harness is built once; each scenario starts a gateway of its own on free ports.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::too_many_lines,
    reason = "tests say what they expect by failing, in their helpers too"
)]

#[path = "../support/mod.rs"]
mod support;

mod admin_access;
mod attacks;
mod audit;
mod bench;
mod catalog;
mod circumstances;
mod commands;
mod container;
mod corpus;
mod costs;
mod digests;
mod doctor;
mod downloads;
mod embedding;
mod explain_page;
mod firewall;
mod groups;
mod guides;
mod harness;
mod headers;
mod healthcheck;
mod helm;
mod host;
mod http2_strictness;
mod http_strictness;
mod identity;
mod lifecycle;
mod limits;
mod log;
mod monitoring;
mod packaging;
mod pki;
mod pkits;
mod policy;
mod policy_examples;
mod policy_import;
mod policy_lint;
mod policy_replay;
mod policy_tools;
mod proxy_protocol;
mod quotas;
mod quotas_faults;
mod quotas_shared;
mod read_only;
mod readiness;
mod real_registry;
mod redirects;
mod reload;
mod reload_faults;
mod resumption;
mod revocation;
mod revocation_files;
mod revocation_guide;
mod revocation_live;
mod revocation_matrix;
mod revocation_page;
mod revocation_scopes;
mod revocation_urls;
mod routing;
mod service;
mod shadow;
mod status_page;
mod streaming;
mod tag_races;
mod tag_races_shared;
mod tags;
mod telemetry;
mod tls_faults;
mod tls_negotiation;
mod tls_strict;
mod upgrade;
mod upgrade_load;
mod upload_sessions;
mod upstreams;

use support::gateway::{Gateway, gateway};
use support::upstream::Upstream;

/// A well-formed digest.
const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A recording upstream behind a gateway that lets every verified client do everything.
#[track_caller]
fn open_gateway() -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).start();
    (upstream, gateway)
}
