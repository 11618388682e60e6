//! Times and sizes as people write them: `30s`, `64KiB`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A time span as written in a file: a number and a unit, or several (`90s`, `5m`, `1h 30m`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// The JSON Schema `format` of these strings.
    pub(super) const FORMAT: &'static str = "duration";

    /// A span of whole seconds, for defaults.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A span of milliseconds, for defaults.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// Reads a span.
    ///
    /// # Errors
    /// Says what a time span looks like when `text` is none, in a fragment that holds at most a few bytes of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Self).map_err(|_| {
            format!("{} is no time span; write a number with a unit, such as 500ms, 30s, 5m or 12h", Shown(text))
        })
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u128); 6] = [
            ("h", 3_600_000_000_000),
            ("m", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
            ("us", 1_000),
            ("ns", 1),
        ];
        let nanos = self.0.as_nanos();
        let fits = |&&(_, unit): &&(&str, u128)| nanos != 0 && nanos.is_multiple_of(unit);
        let (name, unit) = UNITS.iter().find(fits).copied().unwrap_or(("s", 1));
        write!(f, "{}{name}", nanos / unit)
    }
}

/// A number of bytes as written in a file: a whole number and one of `B`, `KiB`, `MiB`, `GiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The units from the largest to the smallest, so that the first that divides a size prints it shortest.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// The JSON Schema `format` of these strings.
    pub(super) const FORMAT: &'static str = "size";

    /// `n` KiB.
    pub const fn from_kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` MiB.
    pub const fn from_mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// Reads a size. Units are exact: `K`, `KB` and the like are refused, since nobody can tell 1000 from 1024 in them.
    ///
    /// # Errors
    /// Says what a size looks like when `text` is none, in a fragment that holds at most a few bytes of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|&(_, factor)| factor);
        match (number.parse::<u64>(), factor) {
            (Ok(number), Some(factor)) => number
                .checked_mul(factor)
                .map(Self)
                .ok_or_else(|| format!("{} is more than any machine holds", Shown(text))),
            (Ok(number), None) if meant(unit).is_some() => Err(format!(
                "{} has a unit that is not known here; did you mean {number}{}?",
                Shown(text),
                meant(unit).unwrap_or_default()
            )),
            _ => Err(format!(
                "{} is no size; write a whole number with a unit, such as 512B, 64KiB, 4MiB or 1GiB",
                Shown(text)
            )),
        }
    }
}

/// The unit someone likely means by another spelling of it.
fn meant(unit: &str) -> Option<&'static str> {
    match unit.chars().next()?.to_ascii_lowercase() {
        'k' => Some("KiB"),
        'm' => Some("MiB"),
        'g' => Some("GiB"),
        'b' => Some("B"),
        _ => None,
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |&&(_, factor): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(factor);
        let (unit, factor) = UNITS.iter().find(fits).copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// Text from a file inside a message: quoted, escaped, and cut when it is long.
pub(super) struct Shown<'a>(pub &'a str);

impl Shown<'_> {
    const LIMIT: usize = 60;
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(Self::LIMIT).map_or(self.0.len(), |(at, _)| at);
        let cut = if end < self.0.len() { "…" } else { "" };
        write!(f, "{:?}{cut}", self.0.get(..end).unwrap_or_default())
    }
}

/// Implements serde and schemars for a type that is a string with a grammar of its own.
macro_rules! text_form {
    ($type:ident, $name:literal, $pattern_hint:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": Self::FORMAT, "pattern": $pattern_hint })
            }
        }
    };
}

text_form!(HumanDuration, "HumanDuration", "^[0-9]+ *[a-zA-Zµ]+( *[0-9]+ *[a-zA-Zµ]+)*$");
text_form!(ByteSize, "ByteSize", "^[0-9]+ *(B|KiB|MiB|GiB)$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed() {
        let cases = [
            ("0B", 0, "0B"),
            ("512B", 512, "512B"),
            ("64KiB", 65_536, "64KiB"),
            ("64 KiB", 65_536, "64KiB"),
            ("1024KiB", 1 << 20, "1MiB"),
            ("1GiB", 1 << 30, "1GiB"),
            ("1025B", 1025, "1025B"),
        ];
        for (text, bytes, printed) in cases {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), printed);
        }
    }

    #[test]
    fn sizes_of_doubtful_meaning_are_refused() {
        let cases = [
            ("64KB", "did you mean 64KiB?"),
            ("64k", "did you mean 64KiB?"),
            ("1gib", "did you mean 1GiB?"),
            ("64", "write a whole number with a unit"),
            ("KiB", "is no size"),
            ("-1KiB", "is no size"),
            ("1.5MiB", "is no size"),
            ("", "is no size"),
            ("18446744073709551615GiB", "more than any machine"),
            ("99999999999999999999B", "is no size"),
            ("1KiB 2B", "did you mean 1KiB?"),
        ];
        for (text, expected) in cases {
            let error = ByteSize::parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn time_spans_are_read_and_printed() {
        for (text, milliseconds) in [("10ms", 10), ("30s", 30_000), ("5m", 300_000), ("1h 30m", 5_400_000), ("0s", 0)] {
            let span = HumanDuration::parse(text).expect(text);
            assert_eq!(span, HumanDuration::from_millis(milliseconds));
            assert_eq!(HumanDuration::parse(&span.to_string()), Ok(span));
        }
        for text in ["", "30", "s", "5 parsecs", "-1s", "99999999999999999999s"] {
            let error = HumanDuration::parse(text).expect_err(text);
            assert!(error.contains("write a number with a unit"), "{text}: {error}");
        }
    }

    #[test]
    fn long_and_hostile_text_is_cut_and_escaped_in_messages() {
        let error = ByteSize::parse(&"x\n\u{1b}[31m".repeat(1000)).expect_err("no size");
        assert!(error.len() < 400 && !error.contains(['\n', '\u{1b}']), "{error}");
    }
}
