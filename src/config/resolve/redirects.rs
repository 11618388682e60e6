//! Where an upstream may redirect to.

use std::net::IpAddr;

use super::Resolver;
use super::address::host_and_port;
use crate::config::model::{self, RedirectMode};
use crate::config::settings::{Redirects, StorageHost};

impl Resolver<'_> {
    pub(super) fn redirects(&mut self, at: &str, model: &model::Upstream) -> Redirects {
        let follow = model.redirects == RedirectMode::Follow;
        let mut hosts: Vec<StorageHost> = Vec::new();
        for (index, url) in model.redirect_hosts.iter().enumerate() {
            let at = format!("{at}.redirect_hosts[{index}]");
            match storage_host(url) {
                Ok(host) if hosts.contains(&host) => self.error(at, "this host is listed twice"),
                Ok(host) => {
                    if follow && host.tls && host.host.parse::<IpAddr>().is_ok() {
                        let message = "no certificate can be asked for an IP address by name; write the host's name";
                        self.error(at, message);
                    }
                    hosts.push(host);
                }
                Err(message) => self.error(at, message),
            }
        }
        if follow && model.redirect_hosts.is_empty() {
            let message = "redirects: follow needs the hosts that may be followed to; list them here";
            self.error(format!("{at}.redirect_hosts"), message);
        }
        let used = follow && hosts.iter().any(|host| host.tls);
        if model.redirect_ca.is_some() && !used {
            let message = "this has no effect without redirects: follow and a host with https; remove it";
            self.error(format!("{at}.redirect_ca"), message);
        }
        let ca = self.optional_path(&format!("{at}.redirect_ca"), model.redirect_ca.as_deref());
        Redirects { mode: model.redirects, hosts, ca }
    }
}

/// Reads `https://host[:port]` or `http://host[:port]`. The message never repeats the URL: what is wrong may be the
/// signature in it.
fn storage_host(url: &str) -> Result<StorageHost, &'static str> {
    const FORMS: &str =
        "this is no host; write https://host or http://host, with a port if it isn't 443 or 80, and nothing after it";
    let (scheme, authority) = url.split_once("://").ok_or(FORMS)?;
    let tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(FORMS),
    };
    let (host, port) = host_and_port(authority.strip_suffix('/').unwrap_or(authority)).ok_or(FORMS)?;
    Ok(StorageHost { tls, host, port: port.unwrap_or(StorageHost::default_port(tls)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_origins() {
        let read = |url: &str| storage_host(url).map(|host| host.to_string());
        assert_eq!(read("https://Bucket.S3.example.com").as_deref(), Ok("https://bucket.s3.example.com"));
        assert_eq!(read("https://storage.example.com:443/").as_deref(), Ok("https://storage.example.com"));
        assert_eq!(read("http://minio:9000").as_deref(), Ok("http://minio:9000"));
        assert_eq!(read("http://[::1]:9000").as_deref(), Ok("http://[::1]:9000"));
        for url in [
            "storage.example.com",
            "ftp://storage.example.com",
            "https://",
            "https://user@storage.example.com",
            "https://storage.example.com/bucket",
            "https://storage.example.com?x",
            "https://storage.example.com:0",
            "https://*.example.com",
            "unix:///run/storage.sock",
        ] {
            assert!(read(url).is_err(), "{url}");
        }
    }
}
