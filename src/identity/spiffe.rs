//! SPIFFE IDs, read strictly.

/// Longest SPIFFE ID in bytes (SPIFFE-ID §2.3).
const MAX_LENGTH: usize = 2048;

/// Longest trust domain in bytes (SPIFFE-ID §2.1).
const MAX_TRUST_DOMAIN: usize = 255;

/// A SPIFFE ID such as `spiffe://corp.example/ns/build/sa/ci`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpiffeId<'a> {
    trust_domain: &'a str,
    path: &'a str,
}

impl<'a> SpiffeId<'a> {
    /// Reads a SPIFFE ID as its specification has it: no port, user, query, fragment or percent-encoding, no empty
    /// or dot segments, so that no two texts mean one workload.
    #[must_use]
    pub fn parse(uri: &'a str) -> Option<Self> {
        let rest = uri.strip_prefix("spiffe://").filter(|_| uri.len() <= MAX_LENGTH)?;
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let domain_ok = !trust_domain.is_empty()
            && trust_domain.len() <= MAX_TRUST_DOMAIN
            && trust_domain.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
        let path_ok = path.is_empty() || path.split('/').skip(1).all(is_segment);
        (domain_ok && path_ok).then_some(Self { trust_domain, path })
    }

    /// The trust domain, such as `corp.example`.
    #[must_use]
    pub fn trust_domain(&self) -> &'a str {
        self.trust_domain
    }

    /// The path with its leading slash, or nothing.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The path's segments.
    pub fn segments(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.path.split('/').skip(1)
    }
}

fn is_segment(segment: &str) -> bool {
    !segment.is_empty()
        && segment != "."
        && segment != ".."
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_split_into_trust_domain_and_path() {
        let id = SpiffeId::parse("spiffe://corp.example/ns/build/sa/ci").expect("valid");
        assert_eq!(id.trust_domain(), "corp.example");
        assert_eq!(id.path(), "/ns/build/sa/ci");
        assert_eq!(id.segments().collect::<Vec<_>>(), ["ns", "build", "sa", "ci"]);
        let id = SpiffeId::parse("spiffe://corp.example").expect("a trust domain alone is valid");
        assert_eq!(id.segments().count(), 0);
    }

    #[test]
    fn other_spellings_are_none() {
        for uri in [
            "spiffe://",
            "spiffe:///path",
            "SPIFFE://corp.example/a",
            "spiffe://Corp.example/a",
            "spiffe://corp.example:443/a",
            "spiffe://me@corp.example/a",
            "spiffe://corp.example/",
            "spiffe://corp.example/a/",
            "spiffe://corp.example//a",
            "spiffe://corp.example/a/../b",
            "spiffe://corp.example/./b",
            "spiffe://corp.example/a%2fb",
            "spiffe://corp.example/a?b",
            "spiffe://corp.example/a#b",
            "https://corp.example/a",
        ] {
            assert_eq!(SpiffeId::parse(uri), None, "{uri}");
        }
        assert_eq!(SpiffeId::parse(&format!("spiffe://corp.example/{}", "a".repeat(MAX_LENGTH))), None);
        assert_eq!(SpiffeId::parse(&format!("spiffe://{}/a", "a".repeat(256))), None);
    }
}
