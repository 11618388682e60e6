//! Bounds on clients.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{ByteSize, HumanDuration};

/// Bounds on what one client, or all of them together, may take.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: HumanDuration,

    /// For a whole request head, from its first byte to its last.
    pub request_head_timeout: HumanDuration,

    /// Between two requests of an HTTP/1.1 connection.
    pub keep_alive_timeout: HumanDuration,

    /// Without a request on an HTTP/2 connection.
    pub h2_idle_timeout: HumanDuration,

    /// Requests at a time on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 1000))]
    pub h2_max_streams: u32,

    /// What the receive windows of all HTTP/2 connections may hold together. Larger windows make uploads over distance
    /// faster; when this much is in use, new connections get small ones.
    pub h2_upload_memory: ByteSize,

    /// Without a byte of the body in either direction.
    pub body_idle_timeout: HumanDuration,

    /// Bytes a second that a client sends of its request's body, on average; less ends the request. Only time in which
    /// the gateway waits for the client counts. 0B is off.
    pub min_upload_rate: ByteSize,

    /// Bytes a second that a client takes of its answer, on average; less ends the request. Only time in which the
    /// gateway waits for the client counts. 0B is off.
    pub min_download_rate: ByteSize,

    /// The time over which these rates are averages: a pause does no harm until a client has fallen behind by this
    /// much.
    pub rate_window: HumanDuration,

    /// For a whole request, its answer included, however fast it moves.
    pub request_lifetime: HumanDuration,

    /// Connections in all. More are refused before their handshake.
    #[schemars(range(min = 1))]
    pub max_connections: u32,

    /// Connections from one client address (an IPv6 /64 counts as one). Clients behind a NAT share theirs.
    #[schemars(range(min = 1))]
    pub max_connections_per_address: u32,

    /// Connections of one client: of its name and CA, whatever certificate it shows.
    #[schemars(range(min = 1))]
    pub max_connections_per_identity: u32,

    /// Handshakes under way in all.
    #[schemars(range(min = 1))]
    pub max_handshakes: u32,

    /// Handshakes under way from one client address.
    #[schemars(range(min = 1))]
    pub max_handshakes_per_address: u32,

    /// Requests on one connection, after which it is closed in good order.
    #[schemars(range(min = 1))]
    pub max_requests_per_connection: u32,

    /// Bytes of a request head; more is a 431.
    pub max_head: ByteSize,

    /// Fields of a request head; more is a 431.
    #[schemars(range(min = 1, max = 256))]
    pub max_header_fields: u32,

    /// Bytes of a request target (path and query); more is a 414.
    pub max_target: ByteSize,

    /// Bytes of a manifest that is pushed; more is a 413. Blobs may be of any size.
    pub max_manifest: ByteSize,

    /// How many frames that move no data an HTTP/2 connection may bring. One that brings more is ended.
    pub h2_frames: H2Frames,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: HumanDuration::from_secs(10),
            request_head_timeout: HumanDuration::from_secs(10),
            keep_alive_timeout: HumanDuration::from_secs(75),
            h2_idle_timeout: HumanDuration::from_secs(300),
            h2_max_streams: 100,
            h2_upload_memory: ByteSize::from_mib(64),
            body_idle_timeout: HumanDuration::from_secs(60),
            min_upload_rate: ByteSize::from_kib(1),
            min_download_rate: ByteSize::from_kib(1),
            rate_window: HumanDuration::from_secs(60),
            request_lifetime: HumanDuration::from_secs(24 * 3600),
            max_connections: 10_000,
            max_connections_per_address: 1024,
            max_connections_per_identity: 1024,
            max_handshakes: 4096,
            max_handshakes_per_address: 128,
            max_requests_per_connection: 10_000,
            max_head: ByteSize::from_kib(32),
            max_header_fields: 100,
            max_target: ByteSize::from_kib(8),
            max_manifest: ByteSize::from_mib(4),
            h2_frames: H2Frames::default(),
        }
    }
}

/// How many frames that move no data an HTTP/2 connection may bring.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct H2Frames {
    /// The time in which the frames below are counted.
    pub window: HumanDuration,

    /// Streams reset by the client, and those the gateway resets because of what it sent or left unread.
    #[schemars(range(min = 1))]
    pub resets: u32,

    /// SETTINGS, acknowledgements aside.
    #[schemars(range(min = 1))]
    pub settings: u32,

    /// PING.
    #[schemars(range(min = 1))]
    pub pings: u32,

    /// PRIORITY.
    #[schemars(range(min = 1))]
    pub priorities: u32,

    /// WINDOW_UPDATE. Beside these there may be one for every 512 bytes that were sent to the client.
    #[schemars(range(min = 1))]
    pub window_updates: u32,

    /// DATA, HEADERS and CONTINUATION without a byte in them, unless they end the body.
    #[schemars(range(min = 1))]
    pub empty: u32,

    /// CONTINUATION. One head has at most six in any case.
    #[schemars(range(min = 1))]
    pub continuations: u32,

    /// Frames of types that HTTP/2 doesn't know, or that clients have no use for.
    #[schemars(range(min = 1))]
    pub unknown: u32,
}

impl Default for H2Frames {
    fn default() -> Self {
        Self {
            window: HumanDuration::from_secs(10),
            resets: 200,
            settings: 50,
            pings: 500,
            priorities: 500,
            window_updates: 10_000,
            empty: 50,
            continuations: 200,
            unknown: 200,
        }
    }
}
