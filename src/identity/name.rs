//! Distinguished names: reading attributes, comparing, and printing them in one line.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use super::der::{self, DerFault, Reader};

/// Longest usable attribute value in bytes. RFC 5280's own bounds (64 for a common name) are exceeded in practice.
const MAX_VALUE: usize = 1024;

/// Most attributes that a name may hold.
const MAX_ATTRIBUTES: usize = 64;

const NUMERIC_STRING: u8 = 0x12;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const VISIBLE_STRING: u8 = 0x1a;
const UNIVERSAL_STRING: u8 = 0x1c;
const BMP_STRING: u8 = 0x1e;
const UTF8_STRING: u8 = 0x0c;

/// Object identifiers (DER content) of the attributes that have a short name here.
const SHORT_NAMES: [(&[u8], &str); 10] = [
    (&[0x55, 0x04, 0x03], "CN"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01], "UID"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01], "emailAddress"),
    (&[0x55, 0x04, 0x05], "serialNumber"),
];

/// Attributes that name one subject.
const SINGLE_VALUED: [&str; 3] = ["CN", "UID", "serialNumber"];

/// Whether several attributes of this type in one name contradict each other, as two common names do, while several
/// organizational units may all hold.
#[must_use]
pub fn names_one_subject(short: &str) -> bool {
    SINGLE_VALUED.contains(&short)
}

/// One attribute of a distinguished name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// `CN`, `O`, `OU`, `L`, `ST`, `C`, `DC`, `UID`, `emailAddress`, `serialNumber`, or the object identifier in dotted form.
    pub name: Cow<'static, str>,
    /// The value as text.
    pub value: String,
}

/// `CN=ci-7`, with whatever could deceive a reader escaped.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, escape(&self.value))
    }
}

/// The usable attributes of a name, in its order, and the types of which none is usable.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) usable: Vec<Attribute>,
    /// Short names, each once, sorted.
    pub(crate) unusable: Vec<Cow<'static, str>>,
}

/// Reads the attributes of a name.
///
/// One unusable value (control or invisible characters, not text, empty, too long) makes all values of its type
/// unusable: else a second common name could be hidden behind a NUL, and the first would look like the only one.
pub(crate) fn attributes(name_der: &[u8]) -> Result<Attributes, DerFault> {
    let parts = parts(name_der)?;
    // Kept as long as the connection: without room for more.
    let mut attributes = Attributes { usable: Vec::with_capacity(parts.len()), ..Attributes::default() };
    for part in &parts {
        let same_type = || parts.iter().filter(|other| other.oid == part.oid);
        match part.usable() {
            Some(value) if same_type().all(|other| other.usable().is_some()) => {
                attributes.usable.push(Attribute { name: short_name(part.oid), value: value.into_owned() });
            }
            _ => attributes.unusable.push(short_name(part.oid)),
        }
    }
    attributes.unusable.sort_unstable();
    attributes.unusable.dedup();
    Ok(attributes)
}

/// A name in the form in which names are compared (RFC 5280 §7.1): text in UTF-8, ASCII letters in lower case, surplus
/// spaces gone, attributes of one set in a fixed order. What isn't text is compared as it is.
pub(crate) fn canonical(name_der: &[u8]) -> Result<Vec<u8>, DerFault> {
    Ok(canonical_of(parts(name_der)?, name_der.len()))
}

/// One set of a name (the content of its DER) in the form in which it stands in [`canonical`].
pub(crate) fn canonical_set(content: &[u8]) -> Result<Vec<u8>, DerFault> {
    let mut parts = Vec::new();
    read_set(content, 0, &mut parts)?;
    Ok(canonical_of(parts, content.len()))
}

fn canonical_of(parts: Vec<Part<'_>>, about: usize) -> Vec<u8> {
    let mut canonical = Vec::with_capacity(about);
    let mut set = Vec::new();
    let mut parts = parts.into_iter().peekable();
    while let Some(part) = parts.next() {
        set.push(part.canonical());
        if parts.peek().is_none_or(|next| next.set != part.set) {
            set.sort_unstable();
            push_prefixed(&mut canonical, &set.concat());
            set.clear();
        }
    }
    canonical
}

/// All attributes of a name in one printable line, usable or not; for people.
pub(crate) fn display(name_der: &[u8]) -> String {
    parts(name_der).map_or_else(|_| "(unreadable name)".to_owned(), |parts| display_of(&parts))
}

/// The attributes of one set of a name (the content of its DER) in one printable line.
pub(crate) fn display_set(content: &[u8]) -> String {
    let mut parts = Vec::new();
    let read = read_set(content, 0, &mut parts);
    read.map_or_else(|_| "(unreadable name)".to_owned(), |()| display_of(&parts))
}

fn display_of(parts: &[Part<'_>]) -> String {
    let mut line = String::new();
    for part in parts {
        let separator = if line.is_empty() { "" } else { ", " };
        let value = text(part.tag, part.value).unwrap_or(Cow::Borrowed("(not text)"));
        // Writing to a String can't fail.
        let _ = write!(line, "{separator}{}={}", short_name(part.oid), escape(&value));
    }
    shorten(line, 512)
}

/// Attributes in one line, such as `CN=ci-7, O=Example`.
pub(crate) fn one_line(attributes: &[Attribute]) -> String {
    let parts: Vec<_> = attributes.iter().map(ToString::to_string).collect();
    parts.join(", ")
}

/// Text that can't be taken for more than one attribute: separators, quotes and unprintable characters are escaped.
pub(crate) fn escape(value: &str) -> Cow<'_, str> {
    let special = |c: char| matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=');
    if !value.contains(|c| special(c) || is_deceptive(c)) {
        return Cow::Borrowed(value);
    }
    let mut escaped = String::with_capacity(value.len() + 8);
    for c in value.chars() {
        if is_deceptive(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.extend(special(c).then_some('\\'));
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Text in which whatever could deceive a reader is escaped, and nothing else.
pub(crate) fn escape_invisible(value: &str) -> String {
    let escape = |c: char| if is_deceptive(c) { c.escape_unicode().to_string() } else { c.to_string() };
    value.chars().map(escape).collect()
}

/// Cuts `text` to at most `limit` characters, the last of which is then `…`.
pub(crate) fn shorten(mut text: String, limit: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(limit) {
        let keep = text.char_indices().nth(limit.saturating_sub(1)).map_or(end, |(at, _)| at);
        text.truncate(keep);
        text.push('…');
    }
    text
}

/// Whether a character is invisible or changes how its neighbours are shown, so that text reads as what it isn't.
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One `AttributeTypeAndValue`, and the number of the set it is in.
struct Part<'a> {
    set: usize,
    oid: &'a [u8],
    tag: u8,
    value: &'a [u8],
}

impl<'a> Part<'a> {
    fn usable(&self) -> Option<Cow<'a, str>> {
        // Teletex text has no agreed meaning beyond ASCII.
        if self.tag == TELETEX_STRING && !self.value.is_ascii() {
            return None;
        }
        let text = text(self.tag, self.value)?;
        (!text.is_empty() && text.len() <= MAX_VALUE && !text.contains(is_deceptive)).then_some(text)
    }

    fn canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.oid.len() + self.value.len() + 9);
        push_prefixed(&mut bytes, self.oid);
        if let Some(text) = text(self.tag, self.value) {
            let words: Vec<_> = text.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
            bytes.push(UTF8_STRING);
            push_prefixed(&mut bytes, words.join(" ").as_bytes());
        } else {
            bytes.push(self.tag);
            push_prefixed(&mut bytes, self.value);
        }
        bytes
    }
}

fn parts(name_der: &[u8]) -> Result<Vec<Part<'_>>, DerFault> {
    let mut name = der::only(name_der, der::SEQUENCE)?;
    let mut parts = Vec::new();
    let mut set = 0;
    while !name.is_empty() {
        read_set(name.read(der::SET)?, set, &mut parts)?;
        set += 1;
    }
    Ok(parts)
}

/// Reads the content of one set.
fn read_set<'a>(content: &'a [u8], set: usize, parts: &mut Vec<Part<'a>>) -> Result<(), DerFault> {
    let mut members = Reader::new(content);
    if members.is_empty() {
        return Err(DerFault::Content("an empty set in a name"));
    }
    while !members.is_empty() {
        if parts.len() == MAX_ATTRIBUTES {
            return Err(DerFault::Content("a name of too many attributes"));
        }
        let mut pair = Reader::new(members.read(der::SEQUENCE)?);
        let oid = pair.read(der::OID)?;
        let (tag, value, _) = pair.any()?;
        pair.finish()?;
        parts.push(Part { set, oid, tag, value });
    }
    Ok(())
}

/// The text of a string type, `None` for other types and for bytes that the type doesn't allow.
fn text(tag: u8, value: &[u8]) -> Option<Cow<'_, str>> {
    match tag {
        UTF8_STRING => std::str::from_utf8(value).ok().map(Cow::Borrowed),
        NUMERIC_STRING | PRINTABLE_STRING | IA5_STRING | VISIBLE_STRING if value.is_ascii() => {
            std::str::from_utf8(value).ok().map(Cow::Borrowed)
        }
        TELETEX_STRING => Some(value.iter().copied().map(char::from).collect()),
        BMP_STRING => {
            let (units, rest) = value.as_chunks::<2>();
            let text = String::from_utf16(&units.iter().copied().map(u16::from_be_bytes).collect::<Vec<_>>());
            text.ok().filter(|_| rest.is_empty()).map(Cow::Owned)
        }
        UNIVERSAL_STRING => {
            let (units, rest) = value.as_chunks::<4>();
            let text: Option<String> =
                units.iter().copied().map(|unit| char::from_u32(u32::from_be_bytes(unit))).collect();
            text.filter(|_| rest.is_empty()).map(Cow::Owned)
        }
        _ => None,
    }
}

fn short_name(oid: &[u8]) -> Cow<'static, str> {
    match SHORT_NAMES.iter().find(|(known, _)| *known == oid) {
        Some((_, name)) => Cow::Borrowed(name),
        None => Cow::Owned(dotted(oid)),
    }
}

/// An object identifier in dotted form, or in hexadecimal if it is malformed or out of bounds.
pub(crate) fn dotted(oid: &[u8]) -> String {
    match arcs(oid) {
        Some(arcs) => arcs.iter().map(u64::to_string).collect::<Vec<_>>().join("."),
        None => oid.iter().take(MAX_OID).fold("oid-".to_owned(), |hex, octet| hex + &format!("{octet:02x}")),
    }
}

/// Longest object identifier in bytes that is shown in dotted form.
const MAX_OID: usize = 32;

fn arcs(oid: &[u8]) -> Option<Vec<u64>> {
    if oid.len() > MAX_OID || oid.last().is_none_or(|last| *last >= 0x80) {
        return None;
    }
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc = 0_u64;
    for octet in oid {
        arc = arc.checked_mul(128)? + u64::from(octet & 0x7f);
        if *octet < 0x80 {
            // The first number holds two arcs (X.690 §8.19.4).
            if arcs.is_empty() {
                let root = (arc / 40).min(2);
                arcs.push(root);
                arc -= root * 40;
            }
            arcs.push(arc);
            arc = 0;
        }
    }
    Some(arcs)
}

fn push_prefixed(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend((value.len() as u64).to_be_bytes());
    bytes.extend(value);
}
