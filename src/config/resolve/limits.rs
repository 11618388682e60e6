//! Bounds on clients.

use super::{DAY, Range, Resolver, count};
use crate::config::model;
use crate::config::settings::{ConnectionLimits, FrameLimits, Limits, RateLimits, RequestLimits};
use crate::config::units::ByteSize;

impl Resolver<'_> {
    pub(super) fn limits(&mut self, model: &model::Limits) -> Limits {
        let mut wait = |name: &str, value| self.time(&format!("limits.{name}"), value, Range::WAIT);
        Limits {
            handshake_timeout: wait("handshake_timeout", model.handshake_timeout),
            request_head_timeout: wait("request_head_timeout", model.request_head_timeout),
            keep_alive_timeout: wait("keep_alive_timeout", model.keep_alive_timeout),
            h2_idle_timeout: wait("h2_idle_timeout", model.h2_idle_timeout),
            body_idle_timeout: wait("body_idle_timeout", model.body_idle_timeout),
            request_lifetime: self.time("limits.request_lifetime", model.request_lifetime, Range::up_to(7 * DAY)),
            h2_max_streams: model.h2_max_streams,
            connections: ConnectionLimits {
                all: count(model.max_connections),
                per_address: count(model.max_connections_per_address),
                per_identity: count(model.max_connections_per_identity),
                handshakes: count(model.max_handshakes),
                handshakes_per_address: count(model.max_handshakes_per_address),
            },
            requests: self.request_limits(model),
            rates: self.rate_limits(model),
            h2_frames: self.frame_limits(&model.h2_frames),
            h2_upload_memory: self.size(
                "limits.h2_upload_memory",
                model.h2_upload_memory,
                ByteSize::from_mib(1),
                ByteSize::from_mib(1 << 20),
            ),
        }
    }

    fn request_limits(&mut self, model: &model::Limits) -> RequestLimits {
        let mut size = |name: &str, value, least, most| self.size(&format!("limits.{name}"), value, least, most);
        let head = size("max_head", model.max_head, ByteSize::from_kib(1), ByteSize::from_mib(1));
        let target = size("max_target", model.max_target, ByteSize::from_kib(1), ByteSize::from_kib(64));
        RequestLimits {
            per_connection: u64::from(model.max_requests_per_connection),
            head: usize::try_from(head).unwrap_or(usize::MAX),
            fields: count(model.max_header_fields),
            target: usize::try_from(target).unwrap_or(usize::MAX),
            manifest: size("max_manifest", model.max_manifest, ByteSize::from_kib(1), ByteSize::from_mib(1 << 10)),
        }
    }

    fn rate_limits(&mut self, model: &model::Limits) -> RateLimits {
        let mut rate = |name: &str, value| {
            self.size(&format!("limits.{name}"), value, ByteSize::default(), ByteSize::from_mib(1 << 10))
        };
        RateLimits {
            upload: rate("min_upload_rate", model.min_upload_rate),
            download: rate("min_download_rate", model.min_download_rate),
            window: self.time("limits.rate_window", model.rate_window, Range::WAIT),
        }
    }

    fn frame_limits(&mut self, model: &model::H2Frames) -> FrameLimits {
        FrameLimits {
            window: self.time("limits.h2_frames.window", model.window, Range::WAIT),
            resets: model.resets,
            settings: model.settings,
            pings: model.pings,
            priorities: model.priorities,
            window_updates: model.window_updates,
            empty: model.empty,
            continuations: model.continuations,
            unknown: model.unknown,
        }
    }
}
