//! HTTP/2 frames counted by their heads, in both directions, as the bytes pass.
//!
//! The HTTP/2 library bounds what one frame or one head may hold, and how many streams there are. What it doesn't bound
//! is how many frames that move nothing a client may have it work on: those have budgets here. A frame's head and the length
//! of its padding are all that is read (RFC 9113 §4.1, §6.1).

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
    pub(super) const NONE: u8 = 0xff;
    pub(super) const END_STREAM: u8 = 0x1;
    pub(super) const END_HEADERS: u8 = 0x4;
    pub(super) const ACK: u8 = 0x1;
    pub(super) const PADDED: u8 = 0x8;
}

/// What the preface passes for.
const PREFACE_FRAME: Frame = Frame { kind: kind::NONE, flags: 0, stream: 0, content: PREFACE };

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
    in_head: bool,
}

/// How far the client's bytes may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// Bytes counted: all, or those up to the end of a head.
    pub(super) taken: usize,
    /// The stream whose head ends there.
    pub(super) head: Option<u32>,
}

impl Frames {
    pub(super) fn new(limits: FrameLimits) -> Self {
        let now = Instant::now();
        Frames {
            limits,
            // The preface counts as the payload of a frame before the first.
            from_client: Cutter { have: HEAD, frame: PREFACE_FRAME, rest: PREFACE, ..Cutter::default() },
            to_client: Cutter::default(),
            tallies: [Tally { count: 0, since: now }; 8],
            unpaid: 0,
            in_head: false,
        }
    }

    /// Counts what the client sent, up to the end of the next head at most. `body` is told of each DATA frame that is
    /// whole: its stream, and its bytes without the padding.
    ///
    /// # Errors
    ///
    /// The reason to end the connection, when a budget is used up.
    pub(super) fn received(&mut self, bytes: &[u8], mut body: impl FnMut(u32, u64)) -> Result<Received, EndReason> {
        let mut rest = bytes;
        while let Some(step) = self.from_client.step(&mut rest) {
            match step {
                Step::Begun(frame) => {
                    self.in_head |= frame.is_head();
                    if let Some(counted) = incoming(&frame) {
                        self.count(counted)?;
                    }
                }
                Step::Ended(frame) if frame.kind == kind::DATA => body(frame.stream, frame.content as u64),
                Step::Ended(frame) if frame.is_head() && frame.flags & kind::END_HEADERS != 0 => {
                    self.in_head = false;
                    return Ok(Received { taken: bytes.len() - rest.len(), head: Some(frame.stream) });
                }
                Step::Ended(_) => {}
            }
        }
        Ok(Received { taken: bytes.len(), head: None })
    }

    /// Whether a head of the client has begun, and not ended.
    pub(super) fn in_head(&self) -> bool {
        self.in_head
    }

    /// Counts what was sent to the client. A reset counts like one of the client's own: it is the client that makes the
    /// gateway send it.
    ///
    /// # Errors
    ///
    /// As [`Frames::received`].
    pub(super) fn sent(&mut self, mut bytes: &[u8], mut body: impl FnMut(u32, u64)) -> Result<(), EndReason> {
        while let Some(step) = self.to_client.step(&mut bytes) {
            match step {
                Step::Begun(frame) if frame.kind == kind::RST_STREAM => self.count(Counted::Resets)?,
                Step::Ended(frame) if frame.kind == kind::DATA => {
                    self.unpaid += frame.content as u64;
                    body(frame.stream, frame.content as u64);
                }
                Step::Begun(_) | Step::Ended(_) => {}
            }
        }
        Ok(())
    }

    /// Counts one more. The clock is asked only when a budget seems to be used up, so a frame costs an addition.
    fn count(&mut self, counted: Counted) -> Result<(), EndReason> {
        let Some(tally) = self.tallies.get_mut(counted as usize) else { return Ok(()) };
        tally.count += 1;
        if tally.count <= counted.most(&self.limits) {
            return Ok(());
        }
        let now = Instant::now();
        if now.duration_since(tally.since) < self.limits.window {
            let price = u64::from(tally.count) * BYTES_PER_WINDOW_UPDATE;
            match self.unpaid.checked_sub(price) {
                Some(left) if matches!(counted, Counted::WindowUpdates) => self.unpaid = left,
                _ => return Err(counted.reason()),
            }
        }
        *tally = Tally { count: 1, since: now };
        Ok(())
    }
}

/// What a frame of the client counts as, if it has a budget. DATA and HEADERS that carry something have bounds of their
/// own: windows, streams, heads.
fn incoming(frame: &Frame) -> Option<Counted> {
    Some(match frame.kind {
        kind::DATA if frame.content > 0 || frame.flags & kind::END_STREAM != 0 => return None,
        kind::HEADERS if frame.content > 0 => return None,
        kind::SETTINGS if frame.flags & kind::ACK != 0 => return None,
        kind::CONTINUATION if frame.content > 0 => Counted::Continuations,
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

#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Length of the payload; of DATA without its padding.
    content: usize,
}

impl Frame {
    fn is_head(&self) -> bool {
        matches!(self.kind, kind::HEADERS | kind::CONTINUATION)
    }
}

/// What comes next in a stream of frames.
enum Step {
    /// All is known of a frame but its payload.
    Begun(Frame),
    /// Its last byte has passed.
    Ended(Frame),
}

/// Finds the frames in a stream of bytes that may be cut anywhere.
#[derive(Debug, Default)]
struct Cutter {
    head: [u8; HEAD],
    /// How much of `head` has come.
    have: usize,
    /// The frame whose payload is coming, once the head is whole.
    frame: Frame,
    /// How much of the payload is still to come.
    rest: usize,
    /// The payload's first byte says how long its padding is, and is still to come.
    pad_length: bool,
}

impl Cutter {
    /// Takes bytes up to the next step, if they reach so far.
    fn step(&mut self, bytes: &mut &[u8]) -> Option<Step> {
        while self.have < HEAD {
            let (first, rest) = bytes.split_first()?;
            *self.head.get_mut(self.have)? = *first;
            *bytes = rest;
            self.have += 1;
            if self.have == HEAD {
                self.begin();
                if !self.pad_length {
                    return Some(Step::Begun(self.frame));
                }
            }
        }
        if self.pad_length {
            let (padding, rest) = bytes.split_first()?;
            *bytes = rest;
            self.rest -= 1;
            self.pad_length = false;
            // One that is longer than the frame is an error, which the library finds.
            self.frame.content = self.frame.content.saturating_sub(1 + usize::from(*padding));
            return Some(Step::Begun(self.frame));
        }
        let step = self.rest.min(bytes.len());
        self.rest -= step;
        *bytes = bytes.get(step..).unwrap_or_default();
        if self.rest > 0 {
            return None;
        }
        self.have = 0;
        Some(Step::Ended(self.frame))
    }

    /// Reads the head.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, d, e, f, g] = self.head;
        let content = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        // The first bit is reserved, and ignored.
        let stream = u32::from_be_bytes([d, e, f, g]) & (u32::MAX >> 1);
        self.frame = Frame { kind, flags, stream, content };
        self.rest = content;
        self.pad_length = kind == kind::DATA && flags & kind::PADDED != 0 && content > 0;
    }
}

#[cfg(test)]
mod tests;
