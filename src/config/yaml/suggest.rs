//! What somebody who wrote an unknown key likely meant.

use serde_json::{Map, Value as Schema};

/// A hint for `key`, which is none of `known`: the key it resembles, the section it belongs to, or the keys there are.
///
/// `resolve` follows a schema's reference.
pub fn suggest<'s>(
    key: &str,
    known: Option<&'s Map<String, Schema>>,
    resolve: impl Fn(&'s Schema) -> &'s Schema,
) -> String {
    let Some(known) = known.filter(|known| !known.is_empty()) else {
        return "nothing can be set here; remove it".to_owned();
    };
    if let Some(near) = nearest(key, known.keys()) {
        return format!("did you mean {near:?}?");
    }
    let section = known.iter().find(|(_, schema)| {
        let inner = resolve(schema).get("properties").and_then(Schema::as_object);
        inner.is_some_and(|inner| inner.contains_key(key))
    });
    if let Some((section, _)) = section {
        return format!("it belongs under {section:?}");
    }
    let all = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("the keys known here are: {all}")
}

/// The name that `key` is most likely a misspelling of, if one is near enough.
pub fn nearest<'a>(key: &str, names: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    // More than any key or name is long; the comparison takes time with the product of the lengths.
    const LONGEST: usize = 128;
    if key.len() > LONGEST {
        return None;
    }
    let plain = |name: &str| name.to_lowercase().replace(['_', '-', '.', ' '], "");
    let wanted = plain(key);
    let near = names.filter(|name| name.len() <= LONGEST).map(|name| {
        let other = plain(name);
        let distance = strsim::damerau_levenshtein(&wanted, &other);
        (distance, other.len().max(wanted.len()), name)
    });
    let (_, _, name) =
        near.filter(|&(distance, length, _)| distance * 3 <= length).min_by_key(|&(distance, ..)| distance)?;
    Some(name)
}
