//! What somebody who misspelt a name likely meant.

/// Longest text that is compared; the comparison takes time with the product of the lengths.
const LONGEST: usize = 128;

/// ` (did you mean "…"?)` with the nearest of the known names, or nothing when none is near.
pub(super) fn did_you_mean<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let near = known
        .into_iter()
        .filter(|candidate| name.len().max(candidate.len()) <= LONGEST)
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| distance * 3 <= candidate.len().max(name.len()))
        .min_by_key(|(distance, _)| *distance);
    near.map(|(_, candidate)| format!(" (did you mean \"{candidate}\"?)")).unwrap_or_default()
}

fn distance(name: &str, candidate: &str) -> usize {
    strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(did_you_mean("amdins", ["ci", "admins"]), " (did you mean \"admins\"?)");
        assert_eq!(did_you_mean("cn", ["CN", "OU"]), " (did you mean \"CN\"?)");
        assert_eq!(did_you_mean("robots", ["ci", "admins"]), "");
        assert_eq!(did_you_mean(&"a".repeat(10_000), ["a"]), "");
    }
}
