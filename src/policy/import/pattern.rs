//! docker_auth's patterns, globs (Go's `path.Match`) and regular expressions, as patterns of a policy.

use crate::oci::is_path_component;

/// Most patterns that one regular expression becomes.
const MAX_PATTERNS: usize = 16;

/// A piece of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// This character.
    Char(char),
    /// The client's account.
    Account,
    /// Any run of characters.
    Run {
        /// Also across slashes.
        slashes: bool,
        /// Also none.
        empty: bool,
    },
}

/// One of several alternatives.
pub(super) type Tokens = Vec<Token>;

/// Reads a glob, or a regular expression between slashes. The error says what there is no pattern for.
pub(super) fn read(pattern: &str) -> Result<Vec<Tokens>, String> {
    let expression = pattern.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).filter(|rest| !rest.is_empty());
    let alternatives = match expression {
        Some(expression) => regex(expression)?,
        None => vec![glob(pattern)?],
    };
    Ok(alternatives.into_iter().map(merged).collect())
}

fn glob(pattern: &str) -> Result<Tokens, String> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '$' if rest.starts_with("${") => account(rest, &mut tokens)?,
            '*' => {
                tokens.push(Token::Run { slashes: false, empty: true });
                rest.get(1..).unwrap_or_default()
            }
            // With a star beside it this is a run of at least one.
            '?' if rest.starts_with("?*") => {
                tokens.push(Token::Run { slashes: false, empty: false });
                rest.get(2..).unwrap_or_default()
            }
            '?' | '[' => return Err(format!("there is no pattern for the \"{first}\" in \"{pattern}\"")),
            '\\' => {
                let mut escaped = rest.chars();
                escaped.next();
                tokens.push(Token::Char(escaped.next().ok_or_else(|| format!("\"{pattern}\" ends in a backslash"))?));
                escaped.as_str()
            }
            other => {
                tokens.push(Token::Char(other));
                rest.get(other.len_utf8()..).unwrap_or_default()
            }
        };
    }
    Ok(tokens)
}

/// Takes `${account}` off the beginning.
fn account<'r>(rest: &'r str, tokens: &mut Tokens) -> Result<&'r str, String> {
    match rest.strip_prefix("${account}") {
        Some(rest) => {
            tokens.push(Token::Account);
            Ok(rest)
        }
        None => {
            let name = rest.split_inclusive('}').next().unwrap_or(rest);
            Err(format!("there is no placeholder for {name}"))
        }
    }
}

/// The few things that regular expressions for repositories are made of: text, escapes, `.*`, `.+`, `[^/]*`, `[^/]+`,
/// `^`, `$`, and a choice of texts in parentheses.
fn regex(expression: &str) -> Result<Vec<Tokens>, String> {
    let unknown = |what: &str| format!("there is no pattern for the {what} in the regular expression /{expression}/");
    let mut rest = expression.strip_prefix('^').unwrap_or(expression);
    let anywhere = Token::Run { slashes: true, empty: true };
    let mut all = vec![if rest.len() == expression.len() { vec![anywhere] } else { Vec::new() }];
    let push = |token: Token, all: &mut Vec<Tokens>| all.iter_mut().for_each(|tokens| tokens.push(token));
    let mut closed = false;
    while let Some(first) = rest.chars().next() {
        let after = rest.get(first.len_utf8()..).unwrap_or_default();
        let run = |after: &'_ str| match after.chars().next() {
            Some('*') => Some(true),
            Some('+') => Some(false),
            _ => None,
        };
        rest = match first {
            '$' if rest.starts_with("${") => {
                let mut account_alone = Vec::new();
                let after = account(rest, &mut account_alone)?;
                push(Token::Account, &mut all);
                after
            }
            '$' if after.is_empty() => {
                closed = true;
                after
            }
            '.' => {
                let empty = run(after).ok_or_else(|| unknown("\".\""))?;
                push(Token::Run { slashes: true, empty }, &mut all);
                after.get(1..).unwrap_or_default()
            }
            '[' => {
                let after = after.strip_prefix("^/]").ok_or_else(|| unknown("character class"))?;
                let empty = run(after).ok_or_else(|| unknown("single character class"))?;
                push(Token::Run { slashes: false, empty }, &mut all);
                after.get(1..).unwrap_or_default()
            }
            '(' => {
                let (choices, after) = after.split_once(')').ok_or_else(|| unknown("parenthesis"))?;
                all = choose(&all, choices).ok_or_else(|| unknown("group"))?;
                after
            }
            '\\' => {
                let escaped = after.chars().next().filter(char::is_ascii_punctuation);
                push(Token::Char(escaped.ok_or_else(|| unknown("escape"))?), &mut all);
                after.get(1..).unwrap_or_default()
            }
            ')' | '|' | '^' | '$' | '*' | '+' | '?' | '{' | '}' | ']' => return Err(unknown(&format!("\"{first}\""))),
            other => {
                push(Token::Char(other), &mut all);
                after
            }
        };
        // What stands here would be repeated.
        if matches!(rest.chars().next(), Some('*' | '+' | '?' | '{')) {
            return Err(unknown("repetition"));
        }
    }
    if !closed {
        push(anywhere, &mut all);
    }
    Ok(all)
}

/// Each alternative with each of the choices, which are plain texts.
fn choose(all: &[Tokens], choices: &str) -> Option<Vec<Tokens>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '|' | ':' | '@');
    if choices.is_empty() || !choices.chars().all(plain) {
        return None;
    }
    let choices: Vec<Tokens> = choices.split('|').map(|choice| choice.chars().map(Token::Char).collect()).collect();
    (all.len() * choices.len() <= MAX_PATTERNS)
        .then(|| all.iter().flat_map(|tokens| choices.iter().map(move |choice| [&**tokens, choice].concat())).collect())
}

/// Runs that stand side by side are one.
fn merged(tokens: Tokens) -> Tokens {
    let mut merged: Tokens = Vec::with_capacity(tokens.len());
    for token in tokens {
        match (merged.last_mut(), token) {
            (Some(Token::Run { slashes, empty }), Token::Run { slashes: more, empty: none }) => {
                *slashes |= more;
                *empty &= none;
            }
            _ => merged.push(token),
        }
    }
    merged
}

/// The repository patterns that match what the tokens do, with this placeholder for the account; none if no repository
/// has such a name. The error says what there is no pattern for.
pub(super) fn repositories(tokens: &[Token], placeholder: Option<&str>) -> Result<Vec<String>, String> {
    if let [Token::Run { slashes: true, .. }] = tokens {
        return Ok(vec!["**".to_owned()]);
    }
    let at = |position: Option<usize>| position.and_then(|position| tokens.get(position));
    let ends = |token: Option<&Token>| matches!(token, None | Some(Token::Char('/')));
    let mut all = vec![String::new()];
    for (position, token) in tokens.iter().enumerate() {
        let pieces: &[&str] = match token {
            Token::Char('*') => return Err("no repository has a star in its name".to_owned()),
            Token::Char(_) => &[],
            Token::Account => &[placeholder.ok_or("an account of this kind can't be a part of a repository's name")?],
            Token::Run { slashes, empty } => {
                let starts = ends(at(position.checked_sub(1)));
                let stops = ends(at(position.checked_add(1)));
                // A whole segment is never empty.
                let whole = starts && stops;
                if !whole && !empty {
                    return Err("there is no pattern for at least one character within a segment".to_owned());
                }
                match (slashes, starts, stops) {
                    (false, ..) => &["*"],
                    (true, true, true) | (true, false, true) => &["*/**"],
                    (true, true, false) => &["**/*"],
                    (true, false, false) => &["*", "*/**/*"],
                }
            }
        };
        all = match (token, pieces) {
            (Token::Char(c), _) => all.into_iter().map(|text| format!("{text}{c}")).collect(),
            (_, pieces) => {
                all.iter().flat_map(|text| pieces.iter().map(move |piece| format!("{text}{piece}"))).collect()
            }
        };
        if all.len() > MAX_PATTERNS {
            return Err("this would be too many patterns".to_owned());
        }
    }
    all.retain(|pattern| pattern.split('/').all(|segment| segment == "**" || is_path_component(&filled(segment))));
    let crowded =
        |segment: &str| segment.contains("${") && (segment.contains('*') || segment.matches("${").count() > 1);
    if all.iter().any(|pattern| pattern.split('/').any(crowded)) {
        return Err("there is no pattern for an account with a star, or another account, beside it".to_owned());
    }
    Ok(all)
}

/// A segment with letters in place of stars and placeholders.
fn filled(segment: &str) -> String {
    let mut rest = segment;
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once("${") {
        text.push_str(before);
        text.push('a');
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text.replace('*', "a")
}

/// The tokens as a text in which `*` is any run of characters.
pub(super) fn text(tokens: &[Token]) -> Result<String, String> {
    let mut text = String::new();
    for token in tokens {
        match token {
            Token::Char('*' | '{' | '}') => return Err("there is no way to write this account in a policy".to_owned()),
            Token::Char(c) => text.push(*c),
            Token::Account => return Err("an account can't be held against itself".to_owned()),
            Token::Run { empty: false, .. } if tokens.len() > 1 => {
                return Err("there is no pattern for at least one character beside others".to_owned());
            }
            Token::Run { .. } => text.push('*'),
        }
    }
    Ok(text)
}

/// Whether the tokens match a text; none if that depends on the account.
pub(super) fn matches(tokens: &[Token], text: &str) -> Option<bool> {
    if !tokens.contains(&Token::Account) {
        return Some(matches_from(tokens, text));
    }
    // Whatever the account is, it is a segment or a part of one where it can match a name at all.
    let any = Token::Run { slashes: false, empty: false };
    let open: Tokens = tokens.iter().map(|token| if *token == Token::Account { any } else { *token }).collect();
    if matches_from(&open, text) { None } else { Some(false) }
}

fn matches_from(tokens: &[Token], text: &str) -> bool {
    match tokens.split_first() {
        None => text.is_empty(),
        Some((Token::Char(c), rest)) => text.strip_prefix(*c).is_some_and(|text| matches_from(rest, text)),
        Some((Token::Account, _)) => false,
        Some((Token::Run { slashes, empty }, rest)) => {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.filter(|at| *at > 0 || *empty).any(|at| {
                let (taken, left) = text.split_at(at);
                (*slashes || !taken.contains('/')) && matches_from(rest, left)
            })
        }
    }
}
