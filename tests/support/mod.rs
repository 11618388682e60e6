//! What the scenarios are made of: the real gateway, a CA, upstreams, and clients with full control over their bytes.

mod answer;
pub mod balancer;
pub mod blocks;
pub mod chromium;
pub mod client;
pub mod crl;
mod der;
pub mod dockerd;
pub mod gateway;
pub mod h2client;
pub mod h2raw;
pub mod heir;
pub mod machine;
pub mod manager;
mod pattern;
pub mod pki;
mod plain;
pub mod process;
mod recorded;
pub mod redis;
pub mod registry;
pub mod reply;
mod running;
pub mod skip;
pub mod skopeo;
pub mod tls;
pub mod upstream;
