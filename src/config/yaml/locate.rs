//! Which line a key stands on.
//!
//! `serde_yaml` knows positions only for syntax errors, so the events of a second parser give the shape of the file with
//! its lines. What could make the two parsers read one file differently, or a small file expand into a large one, is
//! refused here: duplicate keys, anchors, aliases, tags, several documents, deep nesting.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::{Finding, MAX_FINDINGS};
/// No configuration nests deeper; whoever walks the value may recurse.
const MAX_DEPTH: usize = 32;

/// Ten times what a policy with 10,000 rules holds. It bounds the memory that a small file of small values takes.
const MAX_NODES: usize = 500_000;

/// Longer than any key, and short enough for a message.
const MAX_KEY: usize = 256;

/// The shape of a file: every mapping and sequence with its lines.
#[derive(Debug)]
pub struct Node {
    line: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar,
    Sequence(Vec<Node>),
    Mapping(HashMap<String, Node>),
}

/// What became of a text.
pub enum Located {
    /// It holds one document.
    Tree(Node),
    /// It holds comments and blank lines at most.
    Nothing,
}

impl Node {
    /// The line of the key or list item that `path` names, or of the nearest one above it that the file has: a key that
    /// is missing is reported where it belongs.
    pub fn line_of(&self, path: &str) -> usize {
        self.nearest(path).0.line
    }

    /// Whether the file has what `path` names.
    pub fn contains(&self, path: &str) -> bool {
        self.nearest(path).1.is_empty()
    }

    /// The last node on the way along `path`, and what is left of it.
    fn nearest<'p>(&self, path: &'p str) -> (&Self, &'p str) {
        let (mut node, mut rest) = (self, path);
        while let Some((child, after)) = node.child(rest) {
            (node, rest) = (child, after);
        }
        (node, rest)
    }

    /// The child that the first step of `path` names, and what follows the step. A key may hold dots and brackets
    /// itself, so the longest key that fits is taken.
    fn child<'p>(&self, path: &'p str) -> Option<(&Self, &'p str)> {
        match &self.content {
            Content::Scalar => None,
            Content::Sequence(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                Some((items.get(index.parse::<usize>().ok()?)?, rest))
            }
            Content::Mapping(entries) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                let ends = path.char_indices().filter(|(_, c)| matches!(c, '.' | '['));
                let mut ends: Vec<usize> = ends.map(|(at, _)| at).chain([path.len()]).collect();
                ends.reverse();
                ends.into_iter().find_map(|end| {
                    let (key, rest) = path.split_at(end);
                    Some((entries.get(key)?, rest))
                })
            }
        }
    }
}

/// Reads the shape of `text`.
///
/// # Errors
/// A syntax error, or everything that stands there and is not understood here.
pub fn locate(text: &str) -> Result<Located, Vec<Finding>> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let taken = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => Err(syntax(text, &error)),
        };
        if let Err(fatal) = taken {
            builder.findings.push(fatal);
            return Err(builder.findings);
        }
    }
    if !builder.findings.is_empty() {
        return Err(builder.findings);
    }
    Ok(builder.root.map_or(Located::Nothing, Located::Tree))
}

/// A syntax error in words. One at the end of the text is what a half-written file looks like.
fn syntax(text: &str, error: &ScanError) -> Finding {
    let line = error.marker().line().max(1);
    let last = text.trim_end().lines().count().max(1);
    let hint = if line >= last { " (the file ends here: was it written only in part?)" } else { "" };
    Finding::new(line.min(last), "", format!("this is not YAML: {}{hint}", error.info()))
}

/// A mapping or sequence that has not ended yet.
struct Open {
    node: Node,
    /// The key whose value comes next, with its line.
    key: Option<(String, usize)>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    findings: Vec<Finding>,
}

impl Builder {
    /// Takes the next event; `Err` is a finding after which reading on makes no sense.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Finding> {
        let line = span.start.line().max(1);
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Finding::new(line, "", format!("the file holds more than {MAX_NODES} values; split it")));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(line, anchor, tag.is_some());
                self.scalar(&text, style, line)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(line, anchor, tag.is_some());
                self.start(line, Content::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(line, anchor, tag.is_some());
                self.start(line, Content::Mapping(HashMap::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(done) = self.open.pop() {
                    self.add(done.node);
                }
                Ok(())
            }
            Event::Alias(_) => {
                let path = self.path();
                Err(Finding::new(line, path, "aliases (*name) are not supported; write the value out"))
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Finding::new(line, "", "a second document starts here; only one is supported, remove the --- line"))
            }
            Event::DocumentStart(_) | Event::DocumentEnd => Ok(()),
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, line: usize) -> Result<(), Finding> {
        match self.open.last_mut() {
            Some(Open { node: Node { content: Content::Mapping(entries), .. }, key: key @ None }) => {
                if text.len() > MAX_KEY {
                    let message = format!("a key of {} bytes; {MAX_KEY} at most are allowed", text.len());
                    return Err(Finding::new(line, "", message));
                }
                let first = entries.get(text).map(|entry| entry.line);
                *key = Some((text.to_owned(), line));
                if let Some(first) = first {
                    self.note(line, format!("this key is already set on line {first}; remove one of them"));
                }
            }
            // This is how the parser says that nothing was written.
            None if matches!(text, "" | "~") && style == ScalarStyle::Plain => {}
            _ => self.add(Node { line, content: Content::Scalar }),
        }
        Ok(())
    }

    fn start(&mut self, line: usize, content: Content) -> Result<(), Finding> {
        if self.open.len() >= MAX_DEPTH {
            let message = format!("this is nested more than {MAX_DEPTH} levels deep");
            return Err(Finding::new(line, "", message));
        }
        let key_expected =
            matches!(self.open.last(), Some(Open { node: Node { content: Content::Mapping(_), .. }, key: None }));
        if key_expected {
            return Err(Finding::new(line, self.path(), "a key must be a word, not a list or a mapping"));
        }
        self.open.push(Open { node: Node { line, content }, key: None });
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node) {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut parent.node.content {
            Content::Sequence(items) => items.push(node),
            Content::Mapping(entries) => {
                if let Some((key, line)) = parent.key.take() {
                    entries.insert(key, Node { line, ..node });
                }
            }
            Content::Scalar => {}
        }
    }

    fn refuse_extras(&mut self, line: usize, anchor: usize, tagged: bool) {
        if anchor != 0 {
            self.note(line, "anchors (&name) are not supported; write the value out");
        }
        if tagged {
            self.note(
                line,
                "tags (!name) are not supported; remove it, and put text that looks like a number in quotes",
            );
        }
    }

    fn note(&mut self, line: usize, message: impl Into<String>) {
        if self.findings.len() <= MAX_FINDINGS {
            self.findings.push(Finding::new(line, self.path(), message));
        }
    }

    /// The path of what is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match (&open.node.content, &open.key) {
                (Content::Sequence(items), _) => path.push_str(&format!("[{}]", items.len())),
                (_, Some((key, _))) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                (_, None) => {}
            }
        }
        path
    }
}
