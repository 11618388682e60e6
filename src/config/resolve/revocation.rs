//! Sources of revocation lists.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::address::host_and_port;
use super::{DAY, Range, Resolver, YEAR};
use crate::config::model::{self, Config};
use crate::config::settings::{CrlPlace, CrlSource, CrlUrl, Revocation};
use crate::config::units::{ByteSize, HumanDuration};
use crate::revocation::MAX_SOURCE;

/// What a URL's options are when they are not given.
const REFRESH: HumanDuration = HumanDuration::from_secs(5 * 60);
const TIMEOUT: HumanDuration = HumanDuration::from_secs(30);
const MAX_SIZE: ByteSize = ByteSize::from_mib(64);

/// The longest URL that is taken.
const MAX_URL: usize = 2048;

impl Resolver<'_> {
    pub(super) fn revocation(&mut self, config: &Config) -> Revocation {
        let model = &config.revocation;
        let mut sources = Vec::new();
        for (index, source) in model.crls.iter().enumerate() {
            let at = format!("revocation.crls[{index}]");
            if let Some(place) = self.place(&at, source) {
                self.check_options(&at, source);
                sources.push((index, CrlSource { place, issuer: source.issuer.clone() }));
            }
        }
        let names = sources.iter().map(|(index, source)| (format!("revocation.crls[{index}]"), source.name()));
        self.unique(names.collect::<Vec<_>>(), "source");
        if config.state_directory.is_none() && model.crls.iter().any(|source| source.url.is_some()) {
            self.warning(
                "state_directory",
                "without it no list outlives a restart: if a URL can't be fetched then, its clients are refused until it can \
                 (give a directory that the gateway may write)",
            );
        }
        Revocation {
            sources: sources.into_iter().map(|(_, source)| source).collect(),
            freshness: model.freshness,
            check: model.check,
            grace: self.time("revocation.grace", model.grace, Range::up_to(YEAR)),
            clock_skew: self.time("revocation.clock_skew", model.clock_skew, Range::up_to(DAY)),
            expiry_warning: self.time("revocation.expiry_warning", model.expiry_warning, Range::up_to(YEAR)),
        }
    }

    fn place(&mut self, at: &str, source: &model::CrlSource) -> Option<CrlPlace> {
        match (&source.file, &source.directory, &source.url) {
            (Some(file), None, None) => Some(CrlPlace::File(self.path(&format!("{at}.file"), file))),
            (None, Some(directory), None) => {
                Some(CrlPlace::Directory(self.path(&format!("{at}.directory"), directory)))
            }
            (None, None, Some(url)) => self.url(at, url, source).map(CrlPlace::Url),
            _ => {
                self.error(at, "give one of file, directory and url; a source of each kind is an entry of its own");
                None
            }
        }
    }

    fn url(&mut self, at: &str, url: &str, source: &model::CrlSource) -> Option<CrlUrl> {
        let parts = match parts(url) {
            Ok(parts) => parts,
            Err(message) => {
                self.error(format!("{at}.url"), message);
                return None;
            }
        };
        let refresh = Range { min: Duration::from_secs(1), max: 7 * DAY };
        let most = ByteSize(MAX_SOURCE as u64);
        let size =
            self.size(&format!("{at}.max_size"), source.max_size.unwrap_or(MAX_SIZE), ByteSize::from_kib(1), most);
        Some(CrlUrl {
            url: url.to_owned(),
            tls: parts.tls,
            host: parts.host,
            port: parts.port,
            target: parts.target.to_owned(),
            refresh: self.time(&format!("{at}.refresh"), source.refresh.unwrap_or(REFRESH), refresh),
            timeout: self.time(&format!("{at}.timeout"), source.timeout.unwrap_or(TIMEOUT), Range::WAIT),
            max_size: usize::try_from(size).unwrap_or(MAX_SOURCE),
            ca: self.optional_path(&format!("{at}.ca"), source.ca.as_deref()),
        })
    }

    /// Options that have nothing to act on are mistakes.
    fn check_options(&mut self, at: &str, source: &model::CrlSource) {
        let given = [
            ("refresh", source.refresh.is_some()),
            ("timeout", source.timeout.is_some()),
            ("max_size", source.max_size.is_some()),
            ("ca", source.ca.is_some()),
        ];
        for (key, _) in given.iter().filter(|(_, given)| *given && source.url.is_none()) {
            self.error(format!("{at}.{key}"), "this has no effect without a url; remove it");
        }
        if source.ca.is_some() && source.url.as_deref().is_some_and(|url| !url.starts_with("https:")) {
            self.error(format!("{at}.ca"), "this has no effect without an https URL; remove it, or write https");
        }
        if source.issuer.as_deref().is_some_and(|issuer| issuer.trim().is_empty()) {
            self.error(format!("{at}.issuer"), "an empty subject; write it as \"portcullis pki show\" prints it");
        }
    }
}

struct Parts<'u> {
    tls: bool,
    host: String,
    port: u16,
    target: &'u str,
}

/// Reads `http://host[:port]/path[?query]`, or the same with https.
fn parts(url: &str) -> Result<Parts<'_>, &'static str> {
    const FORMS: &str = "this is no URL of a list; write http://host/path or https://host/path";
    if url.len() > MAX_URL {
        return Err("this URL is longer than 2048 characters");
    }
    let (tls, rest) = match url.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(("ldap" | "ldaps", _)) => return Err("lists are not fetched by LDAP; most CAs publish them by http, too"),
        Some(("file", _)) => return Err("for a file write file: and its path"),
        _ => return Err(FORMS),
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("this URL holds credentials; lists are public, and what a URL holds shows in logs and metrics");
    }
    if !target.starts_with('/') {
        return Err(FORMS);
    }
    if target.contains('#') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("path and query may only hold printable ASCII and no '#'; write other characters as %XX");
    }
    let (host, port) = host_and_port(authority).ok_or(FORMS)?;
    if tls && host.parse::<IpAddr>().is_ok() {
        return Err("this URL holds an IP address, for which no certificate can be verified by name; write a name");
    }
    Ok(Parts { tls, host, port: port.unwrap_or(if tls { 443 } else { 80 }), target })
}

impl CrlUrl {
    /// The Host header of its requests.
    #[must_use]
    pub fn host_header(&self) -> String {
        let host = if self.host.parse::<Ipv6Addr>().is_ok() { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_by_their_parts() {
        for (url, tls, host, port, target) in [
            ("http://pki.example.com/ca.crl", false, "pki.example.com", 80, "/ca.crl"),
            ("https://PKI.example.com/a/b?cmd=crl&x=%20", true, "pki.example.com", 443, "/a/b?cmd=crl&x=%20"),
            ("http://127.0.0.1:8080/", false, "127.0.0.1", 8080, "/"),
            ("http://[::1]:8080/x", false, "::1", 8080, "/x"),
        ] {
            let parts = parts(url).unwrap_or_else(|e| panic!("{url}: {e}"));
            assert_eq!((parts.tls, parts.host.as_str(), parts.port, parts.target), (tls, host, port, target), "{url}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        for (url, said) in [
            ("pki.example.com/ca.crl", "write http://"),
            ("ftp://pki.example.com/ca.crl", "write http://"),
            ("ldap://pki.example.com/cn=x", "LDAP"),
            ("file:///etc/ca.crl", "write file:"),
            ("http://user:secret@pki.example.com/ca.crl", "credentials"),
            ("http://pki.example.com", "write http://"),
            ("http://pki.example.com?x", "write http://"),
            ("http:///ca.crl", "write http://"),
            ("http://pki.example.com:0/ca.crl", "write http://"),
            ("http://pki.example.com/ca.crl#x", "no '#'"),
            ("http://pki.example.com/a b", "printable"),
            ("http://pki.example.com/a\r\nX: 1", "printable"),
            ("https://10.0.0.1/ca.crl", "IP address"),
        ] {
            let message = parts(url).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert!(message.contains(said), "{url}: {message}");
            assert!(!message.contains("secret"));
        }
    }
}
