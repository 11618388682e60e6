//! The files of the project, and their code apart from comments, literals and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file.
pub struct Source {
    /// From the root of the project, with slashes.
    pub path: String,
    pub text: String,
    pub is_test: bool,
    /// What is compiled into the gateway, or all of a test file, without comments and literals. Each character stands in
    /// its place.
    pub production: String,
}

pub fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for path in ["src/", "tests/"].iter().flat_map(|folder| files_under(folder)).filter(|path| path.ends_with(".rs")) {
        let text = read(&path);
        let is_test = is_test_path(&path);
        let production = code_only(if is_test { &text } else { before_tests(&text) });
        sources.push(Source { path, text, is_test, production });
    }
    assert!(sources.len() > 80, "the source was not found");
    sources
}

/// Files that are compiled for tests only. Their parents declare them so; clippy would find them unused else.
pub fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
        || path.ends_with("/testing.rs")
}

/// What comes before the test modules, which stand last in a file.
pub fn before_tests(text: &str) -> &str {
    let mut from = 0;
    while let Some(found) = text[from..].find("#[cfg(test)]\n") {
        let at = from + found;
        let next = text[at..].lines().nth(1).unwrap_or_default();
        if mentions(next, "mod") && next.ends_with('{') {
            return &text[..at];
        }
        from = at + 1;
    }
    text
}

/// The text with comments and literals blanked, so that only code is left, each character in its place.
pub fn code_only(text: &str) -> String {
    let mut code = text.as_bytes().to_vec();
    for (start, end, _) in passages(text) {
        for byte in code[start..end].iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
    }
    String::from_utf8(code).expect("whole characters were blanked")
}

/// A string in quotes.
pub struct Literal<'a> {
    pub text: &'a str,
    /// Of the first quote.
    pub start: usize,
    /// Behind the last quote.
    pub end: usize,
}

/// The plain string literals of a file.
pub fn literals_of(text: &str) -> Vec<Literal<'_>> {
    let strings = passages(text).into_iter().filter(|(_, _, kind)| *kind == Kind::String);
    strings.map(|(start, end, _)| Literal { text: &text[start + 1..end - 1], start, end }).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Comment,
    String,
    RawString,
    Char,
}

/// Where comments and literals begin and end.
fn passages(text: &str) -> Vec<(usize, usize, Kind)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let passage = match rest[0] {
            b'/' if rest.starts_with(b"//") => {
                Some((rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()), Kind::Comment))
            }
            b'/' if rest.starts_with(b"/*") => {
                Some((find(rest, b"*/").map_or(rest.len(), |close| close + 2), Kind::Comment))
            }
            b'r' => raw_string(rest).map(|length| (length, Kind::RawString)),
            b'"' => Some((literal_end(rest, b'"'), Kind::String)),
            b'\'' if is_char(rest) => Some((literal_end(rest, b'\''), Kind::Char)),
            _ => None,
        };
        match passage {
            Some((length, kind)) => {
                found.push((at, at + length, kind));
                at += length;
            }
            None => at += 1,
        }
    }
    found
}

/// The length of `r"…"` or `r#"…"#`.
fn raw_string(bytes: &[u8]) -> Option<usize> {
    let hashes = bytes[1..].iter().take_while(|byte| **byte == b'#').count();
    let body = bytes.get(hashes + 1).filter(|byte| **byte == b'"').map(|_| hashes + 2)?;
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    Some(find(&bytes[body..], &close).map_or(bytes.len(), |end| body + end + close.len()))
}

/// A character, and not a lifetime.
fn is_char(bytes: &[u8]) -> bool {
    let one = |end: usize| std::str::from_utf8(&bytes[1..=end]).is_ok_and(|text| text.chars().count() == 1);
    bytes.get(1) == Some(&b'\\') || find(&bytes[1..], b"'").is_some_and(|end| (1..=4).contains(&end) && one(end))
}

/// The length of a literal that ends with `quote`, unless that is escaped.
fn literal_end(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Whether `word` stands in `text` by itself and not as a part of a longer name.
pub fn mentions(text: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| {
        let before = part(text[..at].chars().next_back()) && part(word.chars().next());
        let after = part(text[at + word.len()..].chars().next()) && part(word.chars().next_back());
        !before && !after
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// # Panics
/// When there is no such file.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A file's content, unless it is a picture or the like.
pub fn text(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

/// All files of the project below a folder, without what is built or belongs to git.
pub fn files_under(folder: &str) -> Vec<String> {
    let mut pending: Vec<PathBuf> = vec![root().join(folder)];
    let mut files = Vec::new();
    while let Some(directory) = pending.pop() {
        // A folder that isn't there yet holds nothing.
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let relative = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            if matches!(relative.as_str(), "target" | ".git" | "dev") {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(path),
                Ok(kind) if kind.is_file() => files.push(relative),
                _ => {}
            }
        }
    }
    files.sort();
    files
}
