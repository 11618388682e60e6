//! HTTP/2 frames counted by their heads, in both directions, as the bytes pass.
//!
//! The HTTP/2 library bounds what one frame or one head may hold, and how many streams there are. What it doesn't bound
//! is how many frames that move nothing a client may have it work on: those have budgets here. A frame's type, flags and
//! length are all that is read (RFC 9113 §4.1).

use std::time::Instant;

use crate::config::FrameLimits;
use crate::telemetry::EndReason;

/// Length of the HTTP/2 connection preface (RFC 9113 §3.4).
pub(super) const PREFACE: usize = 24;

/// Length of a frame's head.
const HEAD: usize = 9;

/// What was sent to the client pays for one WINDOW_UPDATE per this many bytes: libraries update after a few KiB, for the
/// stream and for the connection.
const BYTES_PER_WINDOW_UPDATE: u64 = 512;

/// Frame types and flags (RFC 9113 §6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const PRIORITY: u8 = 2;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
    pub(super) const END_STREAM: u8 = 0x1;
    pub(super) const ACK: u8 = 0x1;
    pub(super) const PADDED: u8 = 0x8;
}

/// What has a budget.
#[derive(Debug, Clone, Copy)]
enum Counted {
    Resets,
    Settings,
    Pings,
    Priorities,
    WindowUpdates,
    Empty,
    Continuations,
    Unknown,
}

impl Counted {
    fn most(self, limits: &FrameLimits) -> u32 {
        match self {
            Self::Resets => limits.resets,
            Self::Settings => limits.settings,
            Self::Pings => limits.pings,
            Self::Priorities => limits.priorities,
            Self::WindowUpdates => limits.window_updates,
            Self::Empty => limits.empty,
            Self::Continuations => limits.continuations,
            Self::Unknown => limits.unknown,
        }
    }

    fn reason(self) -> EndReason {
        match self {
            Self::Resets => EndReason::ResetFlood,
            Self::Settings => EndReason::SettingsFlood,
            Self::Pings => EndReason::PingFlood,
            Self::Priorities => EndReason::PriorityFlood,
            Self::WindowUpdates => EndReason::WindowUpdateFlood,
            Self::Empty => EndReason::EmptyFrameFlood,
            Self::Continuations => EndReason::ContinuationFlood,
            Self::Unknown => EndReason::UnknownFrameFlood,
        }
    }
}

/// The frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    limits: FrameLimits,
    from_client: Cutter,
    to_client: Cutter,
    tallies: [Tally; 8],
    /// Bytes sent to the client that no WINDOW_UPDATE has been charged against.
    unpaid: u64,
}

/// Bytes of bodies that passed whole frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) data: u64,
    /// There was padding, so the bytes are more than the body's.
    pub(super) padded: bool,
}

impl Frames {
    pub(super) fn new(limits: FrameLimits) -> Self {
        let now = Instant::now();
        Frames {
            limits,
            // The preface counts as the payload of a frame before the first.
            from_client: Cutter { rest: PREFACE, ..Cutter::default() },
            to_client: Cutter::default(),
            tallies: [Tally { count: 0, since: now }; 8],
            unpaid: 0,
        }
    }

    /// Counts what the client sent.
    ///
    /// # Errors
    ///
    /// The reason to end the connection, when a budget is used up.
    pub(super) fn received(&mut self, bytes: &[u8]) -> Result<Passed, EndReason> {
        let Frames { limits, from_client, tallies, unpaid, .. } = self;
        from_client.cut(bytes, |head| match incoming(head) {
            Some(counted) => count(tallies, limits, unpaid, counted),
            None => Ok(()),
        })
    }

    /// Counts what was sent to the client. A reset counts like one of the client's own: it is the client that makes the
    /// gateway send it.
    ///
    /// # Errors
    ///
    /// As [`Frames::received`].
    pub(super) fn sent(&mut self, bytes: &[u8]) -> Result<Passed, EndReason> {
        let Frames { limits, to_client, tallies, unpaid, .. } = self;
        let passed = to_client.cut(bytes, |head| match head.kind {
            kind::RST_STREAM => count(tallies, limits, unpaid, Counted::Resets),
            _ => Ok(()),
        })?;
        *unpaid += passed.data;
        Ok(passed)
    }
}

/// What a frame of the client counts as, if it has a budget. DATA and HEADERS that carry something have bounds of their
/// own: windows, streams, heads.
fn incoming(head: &Head) -> Option<Counted> {
    Some(match head.kind {
        kind::DATA if head.length > 0 || head.flags & kind::END_STREAM != 0 => return None,
        kind::HEADERS if head.length > 0 => return None,
        kind::SETTINGS if head.flags & kind::ACK != 0 => return None,
        kind::CONTINUATION if head.length > 0 => Counted::Continuations,
        kind::DATA | kind::HEADERS | kind::CONTINUATION => Counted::Empty,
        kind::RST_STREAM => Counted::Resets,
        kind::SETTINGS => Counted::Settings,
        kind::PING => Counted::Pings,
        kind::PRIORITY => Counted::Priorities,
        kind::WINDOW_UPDATE => Counted::WindowUpdates,
        _ => Counted::Unknown,
    })
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    count: u32,
    since: Instant,
}

/// Counts one more. The clock is asked only when a budget seems to be used up, so a frame costs an addition.
fn count(tallies: &mut [Tally; 8], limits: &FrameLimits, unpaid: &mut u64, counted: Counted) -> Result<(), EndReason> {
    let Some(tally) = tallies.get_mut(counted as usize) else { return Ok(()) };
    tally.count += 1;
    if tally.count <= counted.most(limits) {
        return Ok(());
    }
    let now = Instant::now();
    if now.duration_since(tally.since) < limits.window {
        let price = u64::from(tally.count) * BYTES_PER_WINDOW_UPDATE;
        match unpaid.checked_sub(price) {
            Some(left) if matches!(counted, Counted::WindowUpdates) => *unpaid = left,
            _ => return Err(counted.reason()),
        }
    }
    *tally = Tally { count: 1, since: now };
    Ok(())
}

#[derive(Debug)]
struct Head {
    kind: u8,
    flags: u8,
    length: usize,
}

/// Finds the heads in a stream of bytes that may be cut anywhere.
#[derive(Debug, Default)]
struct Cutter {
    head: [u8; HEAD],
    /// How much of `head` has come.
    have: usize,
    /// How much of the payload is still to come.
    rest: usize,
    /// The length of the DATA frame whose payload is coming.
    data: usize,
}

impl Cutter {
    fn cut(
        &mut self,
        mut bytes: &[u8],
        mut seen: impl FnMut(&Head) -> Result<(), EndReason>,
    ) -> Result<Passed, EndReason> {
        let mut passed = Passed::default();
        while !bytes.is_empty() {
            if self.rest > 0 {
                let step = self.rest.min(bytes.len());
                self.rest -= step;
                bytes = bytes.get(step..).unwrap_or_default();
                if self.rest == 0 {
                    passed.data += std::mem::take(&mut self.data) as u64;
                }
                continue;
            }
            let step = (HEAD - self.have).min(bytes.len());
            let (now, later) = bytes.split_at(step);
            if let Some(place) = self.head.get_mut(self.have..self.have + step) {
                place.copy_from_slice(now);
            }
            self.have += step;
            bytes = later;
            if self.have < HEAD {
                break;
            }
            self.have = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            self.rest = length;
            if kind == kind::DATA {
                self.data = length;
                passed.padded |= flags & kind::PADDED != 0;
            }
            seen(&Head { kind, flags, length })?;
        }
        Ok(passed)
    }
}

#[cfg(test)]
mod tests;
