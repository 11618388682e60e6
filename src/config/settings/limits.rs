//! Bounds on clients, resolved.

use std::time::Duration;

/// Bounds on what a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// For a whole request head.
    pub request_head_timeout: Duration,
    /// Between two requests of an HTTP/1.1 connection.
    pub keep_alive_timeout: Duration,
    /// Without an open stream on an HTTP/2 connection.
    pub h2_idle_timeout: Duration,
    /// Streams open at a time on one HTTP/2 connection, at least one.
    pub h2_max_streams: u32,
    /// Bytes that the receive windows of all HTTP/2 connections may hold together.
    pub h2_upload_memory: u64,
    /// Without a body byte in either direction.
    pub body_idle_timeout: Duration,
    /// For a whole request.
    pub request_lifetime: Duration,
    /// How many connections there may be.
    pub connections: ConnectionLimits,
    /// What a request may consist of.
    pub requests: RequestLimits,
    /// How slow a client may be.
    pub rates: RateLimits,
    /// How many frames without data an HTTP/2 connection may bring.
    pub h2_frames: FrameLimits,
}

/// How slow a client may be. A rate of 0 asks for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Bytes a second of a request's body.
    pub upload: u64,
    /// Bytes a second of an answer's body.
    pub download: u64,
    /// What the rates are averages over.
    pub window: Duration,
}

/// How many frames without data an HTTP/2 connection may bring within a time; none is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// The time.
    pub window: Duration,
    /// Resets of streams, in both directions.
    pub resets: u32,
    /// SETTINGS without acknowledgements.
    pub settings: u32,
    /// PING.
    pub pings: u32,
    /// PRIORITY.
    pub priorities: u32,
    /// WINDOW_UPDATE, beside those that what was sent pays for.
    pub window_updates: u32,
    /// Empty frames.
    pub empty: u32,
    /// CONTINUATION.
    pub continuations: u32,
    /// Everything else.
    pub unknown: u32,
}

/// How many connections there may be; none is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all.
    pub all: usize,
    /// From one client address.
    pub per_address: usize,
    /// Of one client certificate.
    pub per_identity: usize,
    /// In the middle of their handshake.
    pub handshakes: usize,
    /// In the middle of their handshake, from one client address.
    pub handshakes_per_address: usize,
}

/// What a request may consist of; none is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Requests on one connection.
    pub per_connection: u64,
    /// Bytes of a head.
    pub head: usize,
    /// Fields of a head.
    pub fields: usize,
    /// Bytes of a target.
    pub target: usize,
    /// Bytes of a manifest.
    pub manifest: u64,
}
