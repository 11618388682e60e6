//! The catalog's pages: reading a registry's, and writing the gateway's own.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::name::RepoName;
use super::query::{Query, append};

/// Longest cursor that is followed, in bytes. Registries take the last name of a page.
const MAX_CURSOR: usize = 1024;

/// Path and query of a catalog page of at most `n` names after the cursor `last`.
#[must_use]
pub fn catalog_target(n: Option<u32>, last: Option<&str>) -> String {
    let mut target = "/v2/_catalog".to_owned();
    let mut separator = '?';
    if let Some(n) = n {
        append(&mut target, &mut separator, "n", &n.to_string());
    }
    if let Some(last) = last {
        append(&mut target, &mut separator, "last", last);
    }
    target
}

/// The body of a catalog page with these names.
#[must_use]
pub fn catalog_body(names: &[RepoName]) -> String {
    json!({ "repositories": names.iter().map(RepoName::as_str).collect::<Vec<_>>() }).to_string()
}

/// The names in the body of a registry's catalog page, in its order.
///
/// What is no repository name is left out: no request could name it.
///
/// # Errors
/// When the body is no catalog.
pub fn catalog_names(body: &[u8]) -> Result<Vec<RepoName>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Page {
        // Registries written in Go send null for an empty list.
        repositories: Option<Vec<Entry>>,
    }
    let page: Page = serde_json::from_slice(body)?;
    Ok(page.repositories.unwrap_or_default().into_iter().filter_map(|entry| entry.0).collect())
}

/// A name, judged while the page is read: what is malformed isn't kept.
struct Entry(Option<RepoName>);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Ok(Entry(RepoName::parse(&text).ok()))
    }
}

/// Where a list goes on, by the `Link` of a page (RFC 8288): the `last` of the target whose relation is `next`.
///
/// # Errors
/// When there is a next page but no usable cursor: to stop there would pass a part off as the whole.
pub fn next_cursor(link: &str) -> Result<Option<String>, MalformedLink> {
    for part in link.split('<').skip(1) {
        let (target, parameters) = part.split_once('>').ok_or(MalformedLink)?;
        let relation = |parameter: &str| {
            let value = parameter.trim().trim_end_matches(',').trim_end().strip_prefix("rel=")?;
            Some(value.trim_matches('"').eq_ignore_ascii_case("next"))
        };
        if parameters.split(';').filter_map(relation).any(|next| next) {
            return cursor(target).map(Some).ok_or(MalformedLink);
        }
    }
    Ok(None)
}

/// A `Link` that can't be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Link to the next page of the catalog can't be read")]
pub struct MalformedLink;

fn cursor(target: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let query = Query::parse(query).ok()?;
    query.last.filter(|last| last.len() <= MAX_CURSOR).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(body: &str) -> Option<Vec<String>> {
        Some(catalog_names(body.as_bytes()).ok()?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_are_read_and_what_is_none_is_left_out() {
        let body = r#"{"repositories":["a","team\/app","Team/App","","../x","a//b"],"more":1}"#;
        assert_eq!(names(body), Some(vec!["a".to_owned(), "team/app".to_owned()]));
        for empty in [r#"{"repositories":null}"#, r#"{"repositories":[]}"#, "{}"] {
            assert_eq!(names(empty), Some(Vec::new()), "{empty}");
        }
        for bad in ["", "[]x", "null", r#"{"repositories":"a"}"#, r#"{"repositories":[1]}"#, r#"{"repositories":["a""#]
        {
            assert_eq!(names(bad), None, "{bad}");
        }
    }

    #[test]
    fn pages_are_asked_for_and_written() {
        assert_eq!(catalog_target(None, None), "/v2/_catalog");
        assert_eq!(catalog_target(Some(5), Some("team/app")), "/v2/_catalog?n=5&last=team%2Fapp");
        assert_eq!(catalog_target(None, Some("a&n=9#")), "/v2/_catalog?last=a%26n%3D9%23");
        let names = [RepoName::parse("a").expect("a name"), RepoName::parse("b/c").expect("a name")];
        assert_eq!(catalog_body(&names), r#"{"repositories":["a","b/c"]}"#);
        assert_eq!(catalog_body(&[]), r#"{"repositories":[]}"#);
    }

    #[test]
    fn links_are_followed() {
        let cursor = |text: &str| Ok(Some(text.to_owned()));
        for (link, expected) in [
            (r#"</v2/_catalog?last=b%2Fc&n=2>; rel="next""#, cursor("b/c")),
            (r#"<https://registry.example.com/v2/_catalog?n=2&last=b>; rel=next"#, cursor("b")),
            (r#"</v2/_catalog?last=a>; rel="prev", </v2/_catalog?last=z>; title="x"; rel="next""#, cursor("z")),
            (r#"</v2/_catalog?last=z>;rel="next", </v2/_catalog?last=a>; rel="prev""#, cursor("z")),
            (r#"</v2/_catalog?last=a>; rel="prev""#, Ok(None)),
            ("", Ok(None)),
            (r#"</v2/_catalog?next_page=x>; rel="next""#, Err(MalformedLink)),
            (r#"</v2/_catalog>; rel="next""#, Err(MalformedLink)),
            (r#"</v2/_catalog?last=a&last=b>; rel="next""#, Err(MalformedLink)),
            ("</v2/_catalog?last=a", Err(MalformedLink)),
        ] {
            assert_eq!(next_cursor(link), expected, "{link}");
        }
        assert_eq!(next_cursor(&format!("</?last={}>; rel=next", "a".repeat(MAX_CURSOR + 1))), Err(MalformedLink));
    }
}
