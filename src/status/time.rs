//! Times, durations and amounts, short enough for a table.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

pub(super) use crate::snapshot::span;

/// The time of day, with the date if that is not today.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// Unix seconds.
    pub(super) at: i64,
    /// The same of the page.
    pub(super) now: i64,
}

const DAY: i64 = 24 * 3600;

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = rfc3339(self.at);
        let (date, time) = whole.split_once('T').unwrap_or((&whole, ""));
        let time = time.trim_end_matches('Z');
        if self.at.div_euclid(DAY) == self.now.div_euclid(DAY) { f.write_str(time) } else { write!(f, "{date} {time}") }
    }
}

/// The day.
pub(super) fn date(at: i64) -> String {
    rfc3339(at).split('T').next().unwrap_or_default().to_owned()
}

/// Until when, or how long ago.
pub(super) fn away(seconds: i64) -> String {
    if seconds < 0 { ago(-seconds) } else { format!("in {}", span(seconds)) }
}

/// How long ago.
pub(super) fn ago(seconds: i64) -> String {
    if seconds <= 0 { "just now".to_owned() } else { format!("{} ago", span(seconds)) }
}

fn rfc3339(at: i64) -> String {
    // No later than can be written.
    let seconds = u64::try_from(at).unwrap_or(0).min(253_402_300_799);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// So many a second.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate <= 0.0 => "0".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate if rate < 9_999.5 => format!("{rate:.0}"),
        rate => format!("{:.1}k", rate / 1000.0),
    }
}

/// A duration of a request.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        short if short < 0.00995 => format!("{:.1} ms", short * 1000.0),
        short if short < 0.9995 => format!("{:.0} ms", short * 1000.0),
        medium if medium < 99.95 => format!("{medium:.1} s"),
        long => format!("{:.0} min", long / 60.0),
    }
}

/// An amount of bytes.
pub(super) fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut left = bytes;
    for unit in UNITS {
        if left < 999.5 || unit == "TiB" {
            let digits = usize::from(left < 9.95 && unit != "B");
            return format!("{left:.digits$} {unit}");
        }
        left /= 1024.0;
    }
    String::new()
}

/// A number, with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(2 * digits.len());
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

/// The same.
pub(super) fn count_of(number: usize) -> String {
    count(u64::try_from(number).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        assert_eq!([0.0, 0.25, 9.96, 1234.0, 12_345.0].map(rate), ["0", "0.2", "10", "1234", "12.3k"]);
        assert_eq!([0.0004, 0.0123, 1.5, 120.0].map(seconds), ["0.4 ms", "12 ms", "1.5 s", "2 min"]);
        assert_eq!([0.0, 512.0, 2048.0, 5e9].map(bytes), ["0 B", "512 B", "2.0 KiB", "4.7 GiB"]);
        assert_eq!([7, 999, 1000, 1_234_567].map(count), ["7", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]);
    }

    #[test]
    fn the_date_is_told_when_it_is_another_day() {
        let noon = 1_700_049_600;
        assert_eq!(Moment { at: noon, now: noon + 60 }.to_string(), "12:00:00");
        assert_eq!(Moment { at: noon, now: noon + DAY }.to_string(), "2023-11-15 12:00:00");
        assert_eq!([away(-90), away(3 * DAY)], ["90 s ago", "in 3 days"]);
    }
}
