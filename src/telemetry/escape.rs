//! One value, one line: nothing a client or a certificate says may end a line or steer a terminal.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io;

use serde::Serialize;
use serde::ser::SerializeStruct;
use serde_json::ser::{Formatter, Serializer};

/// Appends the value as one line of JSON.
///
/// # Errors
///
/// Fails if the value itself can't be serialized; the buffer then is as it was.
pub(super) fn json_line<T: Serialize>(buffer: &mut Vec<u8>, value: &T) -> serde_json::Result<()> {
    let start = buffer.len();
    let written = value.serialize(&mut Serializer::with_formatter(&mut *buffer, OneLine));
    match written {
        Ok(()) => buffer.push(b'\n'),
        Err(_) => buffer.truncate(start),
    }
    written
}

/// An object as a line of JSON, member by member.
#[derive(Debug)]
pub(super) struct JsonLine<'b> {
    buffer: &'b mut Vec<u8>,
    start: usize,
    ended: bool,
}

impl<'b> JsonLine<'b> {
    /// Begins behind what the buffer holds. A line that is not ended leaves nothing there.
    pub(super) fn begin(buffer: &'b mut Vec<u8>) -> Self {
        let start = buffer.len();
        Self { buffer, start, ended: false }
    }

    /// How many bytes the line has.
    pub(super) fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The members from the byte on where the line was so long, as they are written.
    pub(super) fn written_since(&self, len: usize) -> &[u8] {
        self.buffer.get(self.start + len..).unwrap_or_default()
    }

    /// Appends members that were written before, behind others.
    pub(super) fn append_written(&mut self, members: &[u8]) {
        self.buffer.extend_from_slice(members);
    }
}

impl SerializeStruct for JsonLine<'_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> serde_json::Result<()> {
        debug_assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{key} would need escaping");
        self.buffer.extend_from_slice(if self.len() == 0 { b"{\"" } else { b",\"" });
        self.buffer.extend_from_slice(key.as_bytes());
        self.buffer.extend_from_slice(b"\":");
        value.serialize(&mut Serializer::with_formatter(&mut *self.buffer, OneLine))
    }

    /// Ends the line.
    fn end(mut self) -> serde_json::Result<()> {
        self.buffer.extend_from_slice(if self.len() == 0 { b"{}\n" } else { b"}\n" });
        self.ended = true;
        Ok(())
    }
}

impl Drop for JsonLine<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.buffer.truncate(self.start);
        }
    }
}

/// JSON in which everything that a terminal or a line-oriented reader could act upon is escaped.
///
/// JSON itself demands that only below U+0020. It is still the same value to every reader of JSON.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if is_plain(fragment) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(position) = rest.find(is_unsafe) {
            let (safe, tail) = rest.split_at(position);
            writer.write_all(safe.as_bytes())?;
            let mut chars = tail.chars();
            if let Some(unsafe_char) = chars.next() {
                for unit in unsafe_char.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Shows text with everything unsafe escaped as in Rust's string literals.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            if is_unsafe(char) {
                write!(f, "{}", char.escape_default())?;
            } else {
                f.write_char(char)?;
            }
        }
        Ok(())
    }
}

/// The text if it has at most `limit` bytes; else its beginning and `…`, together at most `limit` bytes.
pub(super) fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let (kept, _) = text.split_at(text.floor_char_boundary(limit.saturating_sub('…'.len_utf8())));
    Cow::Owned(format!("{kept}…"))
}

/// Whether it is printable ASCII, as nearly all text is. Looks at all of it, so that it can look at many bytes at a time.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & (b' '..=b'~').contains(&byte))
}

/// Control characters of all kinds, line and paragraph separators, and what reorders the text around it.
fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\"b\\c\r\nfake line\u{1b}[2J\u{7f}\u{85}\u{2028}\u{202e}ü…\u{0}";

    #[test]
    fn a_hostile_name_stays_one_line_of_json_and_one_value() {
        let mut buffer = Vec::new();
        json_line(&mut buffer, &HOSTILE).expect("a string is serializable");
        let line = String::from_utf8(buffer).expect("JSON is UTF-8");
        let inner = line.strip_suffix('\n').expect("ends the line");
        assert!(!inner.contains(is_unsafe), "{inner:?}");
        assert!(inner.contains('ü'));
        assert_eq!(serde_json::from_str::<String>(inner).expect("valid JSON"), HOSTILE);
    }

    #[test]
    fn a_hostile_name_stays_one_line_of_text() {
        let line = Escaped(HOSTILE).to_string();
        assert!(!line.contains(is_unsafe), "{line:?}");
        assert!(line.contains("\\r\\nfake line\\u{1b}[2J"), "{line}");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut("0123456789", 10), "0123456789");
        assert_eq!(cut("0123456789a", 10), "0123456…");
        assert_eq!(cut("012345ü789a", 10), "012345…");
    }
}
