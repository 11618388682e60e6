use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::*;
use crate::config::units::{ByteSize, HumanDuration};

/// A file type with every form that ours use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct File {
    /// Who it is. More words.
    name: String,
    #[serde(default)]
    numbers: Vec<u8>,
    #[serde(default)]
    nested: Nested,
    #[serde(default)]
    maybe: Option<Nested>,
    #[serde(default)]
    by_name: BTreeMap<String, Vec<Nested>>,
    #[serde(default)]
    one_or_more: Option<OneOrMore>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Nested {
    wait: HumanDuration,
    room: ByteSize,
    on: bool,
    text: Option<String>,
    version: Version,
    plain: Option<Plain>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
enum Version {
    /// Old.
    #[default]
    #[serde(rename = "1.2")]
    Old,
    /// New.
    #[serde(rename = "1.3")]
    New,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Plain {
    Yes,
    No,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

fn read(bytes: &[u8]) -> Result<Document<File>, Diagnostics> {
    parse(Path::new("f.yaml"), bytes, Ok)
}

/// What is said about a text, one finding a line.
fn findings(text: &str) -> String {
    read(text.as_bytes()).map_or_else(|found| found.to_string(), |document| format!("{:?}", document.value))
}

#[test]
fn a_good_file_is_read() {
    let text = "name: a\nnumbers: [1, 2]\nnested: { wait: 5m, room: 1KiB, on: true, version: '1.3', plain: yes }\n\
                maybe:\nby_name:\n  x: [{ text: '7' }]\none_or_more: [b]\n";
    let file = read(text.as_bytes()).expect("good").value;
    assert_eq!((file.name.as_str(), file.numbers.len()), ("a", 2));
    assert_eq!((file.nested.room, file.nested.wait), (ByteSize(1024), HumanDuration::from_secs(300)));
    assert!(file.nested.on && matches!((file.nested.version, file.nested.plain), (Version::New, Some(Plain::Yes))));
    let one_or_more = file.one_or_more.map(|value| match value {
        OneOrMore::One(one) => vec![one],
        OneOrMore::More(more) => more,
    });
    assert_eq!(one_or_more, Some(vec!["b".to_owned()]));
    assert!(file.maybe.is_none() && file.by_name["x"][0].text.as_deref() == Some("7"));
}

#[test]
fn every_mistake_is_found_in_one_run_with_its_line() {
    let text = "\
nmae: a
numbers:
  - 1
  - 300
  - x
nested:
  wait: soon
  room: 64KB
  on: yes
  version: 1.2
  plain: maybe
maybe: 7
by_name:
  x:
    - txt: b
one_or_more: 5
";
    let expected = "\
f.yaml:1: nmae: unknown key; did you mean \"name\"?
f.yaml:1: name: this key is required, and missing: Who it is
f.yaml:4: numbers[1]: 300 is too large; it must be at most 255
f.yaml:5: numbers[2]: expected a whole number, found text
f.yaml:7: nested.wait: \"soon\" is no time span; write a number with a unit, such as 500ms, 30s, 5m or 12h
f.yaml:8: nested.room: \"64KB\" has a unit that is not known here; did you mean 64KiB?
f.yaml:9: nested.on: expected true or false, found text
f.yaml:10: nested.version: expected one of \"1.2\", \"1.3\", found 1.2; put it in quotes
f.yaml:11: nested.plain: expected one of \"yes\", \"no\", found \"maybe\"
f.yaml:12: maybe: expected a mapping (keys indented below this one), found a number
f.yaml:15: by_name.x[0].txt: unknown key; did you mean \"text\"?
f.yaml:16: one_or_more: expected text or a list, found a number; put it in quotes";
    assert_eq!(findings(text), expected);
}

#[test]
fn a_mistake_says_what_to_do() {
    let cases = [
        ("name: 5", "f.yaml:1: name: expected text, found a number; put it in quotes"),
        ("name:", "f.yaml:1: name: this key is required, and empty: Who it is"),
        ("name: a\nnested:", "remove the key to get its default, or set it"),
        ("name: a\nnumbers: 5", "expected a list, found a number"),
        ("name: a\nnumbers: x", "start each entry on a line of its own with a dash"),
        ("name: a\nnumbers: [1.5]", "expected a whole number, found a number with a fraction"),
        ("name: a\nnested: { wait: 30 }", "expected a time span with a unit, such as 30s, found a number"),
        ("name: a\nnested: { room: 30 }", "expected a size with a unit, such as 64KiB, found a number"),
        ("name: a\nnested: { plain: Yes }", "did you mean \"yes\"?"),
        ("name: a\nwait: 5s", "f.yaml:2: wait: unknown key; it belongs under \"nested\""),
        ("name: a\nnested: { zzzzzzz: 5s }", "the keys known here are: wait, room, on, text, version, plain"),
        ("name: a\n5: b", "the key 5 must be text; put it in quotes"),
        ("- a", "expected a mapping (keys indented below this one), found a list"),
        ("name", "expected a mapping (keys indented below this one), found text"),
    ];
    for (text, expected) in cases {
        let found = findings(text);
        assert!(found.contains(expected), "{text}: {found}");
    }
}

#[test]
fn misspelt_keys_are_recognised() {
    for key in ["one-or-more", "oneOrMore", "one_ormore", "ONE_OR_MORE", "one_of_more"] {
        let found = findings(&format!("name: a\n{key}: b"));
        assert!(found.contains("did you mean \"one_or_more\"?"), "{key}: {found}");
    }
}

#[test]
fn a_duplicate_key_is_an_error_and_not_the_last_one_wins() {
    let found = findings("name: a\nnested:\n  on: true\n  wait: 5s\n  on: false\nname: b\n");
    assert_eq!(
        found,
        "f.yaml:5: nested.on: this key is already set on line 3; remove one of them\n\
         f.yaml:6: name: this key is already set on line 1; remove one of them"
    );
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let cases = [
        ("name: &a b", "f.yaml:1: name: anchors (&name) are not supported"),
        ("by_name:\n  x: &a []\n  y: *a", "f.yaml:3: by_name.y: aliases (*name) are not supported"),
        ("name: !!str 5", "f.yaml:1: name: tags (!name) are not supported"),
        ("name: !secret x", "f.yaml:1: name: tags (!name) are not supported"),
        ("name: a\n---\nname: b", "f.yaml:2: a second document starts here"),
        ("? [a, b]\n: c", "a key must be a word"),
        ("name: a\n<<: { name: b }", "f.yaml:2: <<: unknown key"),
    ];
    for (text, expected) in cases {
        let found = findings(text);
        assert!(found.contains(expected), "{text}: {found}");
    }
}

#[test]
fn an_empty_file_says_so() {
    for text in ["", "\n\n", "# only a comment\n", "---\n", "\u{feff}", "--- # nothing\n...\n"] {
        let found = findings(text);
        assert!(found.contains("this file is empty"), "{text:?}: {found}");
    }
}

#[test]
fn a_half_written_file_is_refused_wherever_it_ends() {
    let whole = "numbers: [1, 2]\nnested: { wait: \"5m\", text: 'x' }\nby_name:\n  x:\n    - on: true\nname: abc\n";
    read(whole.as_bytes()).expect("whole");
    let needed = whole.find("name: abc").expect("the last key") + "name: a".len();
    for end in 0..needed {
        let found = read(&whole.as_bytes()[..end]).expect_err(whole.get(..end).unwrap_or_default());
        assert!(found.has_errors() && found.to_string().starts_with("f.yaml:"), "{found}");
    }
    let found = findings("name: a\nnested: { wait: \"5");
    assert!(found.contains("f.yaml:2: this is not YAML") && found.contains("written only in part"), "{found}");
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_line() {
    let found = read(b"name: a\nnested:\n  text: \xff\xfe\n").expect_err("not UTF-8").to_string();
    assert!(found.starts_with("f.yaml:3: this is not UTF-8 text"), "{found}");
    read(b"\x30\x82\x05\x00\x00").expect_err("DER");
    read(b"name: a\0b").expect_err("NUL");
    read(&[0; 1000]).expect_err("zeros, as a crash leaves them");
}

#[test]
fn a_byte_order_mark_and_windows_line_endings_are_accepted() {
    let document = read("\u{feff}name: a\r\nnumbers:\r\n  - 1\r\n".as_bytes()).expect("good");
    assert_eq!((document.value.name.as_str(), document.line_of("numbers[0]")), ("a", 3));
}

#[test]
fn hostile_text_is_bounded_and_does_not_reach_the_terminal() {
    let deep = "[".repeat(100_000);
    let flow = format!("name: {}{}", "[".repeat(33), "]".repeat(33));
    let wide = format!("name: a\nnumbers: [{}]", "1,".repeat(600_000));
    let long_key = format!("{}: a", "k.".repeat(100_000));
    let many = (0..5000).fold("name: a\n".to_owned(), |mut text, number| {
        let _ = writeln!(text, "key{number}: a");
        text
    });
    let escapes = "name: a\n\"x\\e[31m\\n\": a";
    for text in [&deep, &flow, &wide, &long_key, &many, escapes] {
        let found = read(text.as_bytes()).expect_err("refused");
        assert!(found.iter().count() <= MAX_FINDINGS + 1);
        let lines = found.to_string();
        assert!(!lines.contains('\u{1b}') && lines.lines().count() == found.iter().count(), "{lines}");
        assert!(lines.lines().all(|line| line.len() < 1000));
    }
    assert!(findings(&many).contains("there is more"));
}

#[test]
fn faults_of_the_made_value_come_in_the_same_run_as_those_of_the_form() {
    let make = |file: File| -> Result<(), Vec<Fault>> {
        assert_eq!(file.name, "b");
        Err(vec![Fault::new("name", "taken"), Fault::new("maybe", "needed, since nested.on is not set")])
    };
    let text = "nested:\n  on: 5\n  onn: true\nname: b\n";
    let found = parse(Path::new("f.yaml"), text.as_bytes(), make).expect_err("faulty").to_string();
    // The fault of the absent key may follow from the others, and is left for the next run.
    assert_eq!(
        found,
        "f.yaml:2: nested.on: expected true or false, found a number\n\
         f.yaml:3: nested.onn: unknown key; did you mean \"on\"?\n\
         f.yaml:4: name: taken"
    );
}

#[test]
fn a_path_leads_to_its_line_or_to_the_nearest_one_above() {
    let text = "name: a\nby_name:\n  a.b[0]:\n    - text: x\n      on: true\n  a: []\n";
    let document = read(text.as_bytes()).expect("good");
    let cases = [
        ("", 1),
        ("name", 1),
        ("by_name", 2),
        ("by_name.a", 6),
        ("by_name.a.b[0]", 3),
        ("by_name.a.b[0][0].on", 5),
        ("by_name.a.b[0][0].missing", 4),
        ("by_name.a.b[0][7]", 3),
        ("nowhere.at.all", 1),
    ];
    for (path, line) in cases {
        assert_eq!(document.line_of(path), line, "{path}");
    }
    let faults = vec![Fault::new("by_name.a", "late"), Fault::new("name", "early")];
    let lines: Vec<_> = document.diagnose(faults, Severity::Warning).iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["f.yaml:1: warning: name: early", "f.yaml:6: warning: by_name.a: late"]);
}
