//! Captures: `{team}` in a selector keeps a segment of a name, which `${team}` then stands for in repositories.

/// Longest name of a capture, in bytes.
const MAX_NAME: usize = 32;

/// Takes the only capture out of a text: what stands before it, its name, and what stands after it.
///
/// The error says what is wrong with the braces, as a fragment of a sentence.
pub(super) fn split(text: &str) -> Result<Option<(&str, &str, &str)>, String> {
    let Some((before, rest)) = text.split_once('{') else {
        if text.contains('}') {
            return Err(format!("\"{text}\" has a closing brace without an opening one"));
        }
        return Ok(None);
    };
    let (name, after) = rest.split_once('}').ok_or_else(|| format!("capture in \"{text}\" has no closing brace"))?;
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !letters || !name.starts_with(|first: char| first.is_ascii_lowercase()) || name.len() > MAX_NAME {
        return Err(format!(
            "\"{{{name}}}\" is no capture: 1 to {MAX_NAME} lower-case letters, digits and '_', beginning with a letter"
        ));
    }
    // What could be cut in several ways would give the client `ci` what belongs to `ci-2`.
    if before.contains(['*', '}']) || after.contains(['*', '{', '}']) {
        return Err(format!("\"{text}\" has a * or a brace beside a capture: put them in segments of their own"));
    }
    Ok(Some((before, name, after)))
}

/// A text with a star in place of the capture of each of its segments, for what looks at the text as a whole.
///
/// The error says what is wrong with a capture.
pub(super) fn starred(text: &str, separator: char) -> Result<String, String> {
    let mut starred = String::with_capacity(text.len());
    for (i, segment) in text.split(separator).enumerate() {
        if i > 0 {
            starred.push(separator);
        }
        match split(segment)? {
            Some((before, _, after)) => starred.extend([before, "*", after]),
            None => starred.push_str(segment),
        }
    }
    Ok(starred)
}

/// One value, if all that were found are the same.
#[derive(Debug, Default)]
pub(super) struct Unique<'v> {
    found: Option<&'v str>,
    doubtful: bool,
}

impl<'v> Unique<'v> {
    pub(super) fn add(&mut self, value: &'v str) {
        self.doubtful |= self.found.is_some_and(|found| found != value);
        self.found = Some(value);
    }

    /// There may be another value, which can't be read.
    pub(super) fn doubt(&mut self) {
        self.doubtful = true;
    }

    pub(super) fn value(&self) -> Option<&'v str> {
        self.found.filter(|_| !self.doubtful)
    }
}
