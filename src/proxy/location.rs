//! `Location` headers of the registry.

use http::Uri;

/// The path and query of `location` if it is absolute and names one of `ours` (host with optional port); else `None`.
///
/// Registries build absolute locations from what they believe to be their own name. A relative one (RFC 9110 §10.2.2)
/// leads the client back through the gateway whatever the registry believes. Redirects are looked at more closely: see
/// [`super::redirect`].
pub(super) fn make_relative(location: &str, ours: &[String]) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    if is_one_of(&uri, ours) { relative(&uri) } else { None }
}

/// The path and query of an absolute address.
pub(super) fn relative(uri: &Uri) -> Option<String> {
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    // `//host/path` would be a reference to another host.
    (target.starts_with('/') && !target.starts_with("//")).then(|| target.to_owned())
}

/// Whether `uri` is absolute and names one of `hosts` (host with optional port).
pub(super) fn is_one_of(uri: &Uri, hosts: &[String]) -> bool {
    let (Some(authority), Some(scheme)) = (uri.authority(), uri.scheme_str()) else { return false };
    hosts.iter().filter(|host| !host.is_empty()).any(|host| same_host(authority.as_str(), host, scheme))
}

fn same_host(authority: &str, host: &str, scheme: &str) -> bool {
    let default_port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let bare = |name: &str| name.strip_suffix(default_port).unwrap_or(name).to_ascii_lowercase();
    bare(authority) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_own_locations_become_relative() {
        let ours = ["registry.example.com".to_owned(), "127.0.0.1:5000".to_owned()];
        let relative = |location: &str| make_relative(location, &ours);
        assert_eq!(
            relative("https://registry.example.com/v2/a/blobs/uploads/1?_state=x").as_deref(),
            Some("/v2/a/blobs/uploads/1?_state=x")
        );
        assert_eq!(relative("https://Registry.Example.com:443/v2/").as_deref(), Some("/v2/"));
        assert_eq!(relative("http://127.0.0.1:5000/v2/a").as_deref(), Some("/v2/a"));
    }

    #[test]
    fn other_hosts_and_relative_locations_are_left_alone() {
        let ours = ["registry.example.com".to_owned(), String::new()];
        for location in [
            "https://storage.example.com/bucket/blob?signature=1",
            "https://registry.example.com.evil.test/v2/",
            "https://registry.example.com:8443/v2/",
            "/v2/a/blobs/uploads/1",
            "//registry.example.com/v2/",
            "not a uri",
            "https://registry.example.com//evil.test/",
        ] {
            assert_eq!(make_relative(location, &ours), None, "{location}");
        }
    }
}
