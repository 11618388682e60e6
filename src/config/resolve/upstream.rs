//! Upstreams.

use std::net::IpAddr;

use super::address::{Scheme, endpoint, is_host_header, is_host_name};
use super::{Range, Resolver, count};
use crate::config::model;
use crate::config::settings::{
    Authorization, Credentials, Endpoint, HealthCheck, KeyPair, Upstream, UpstreamLimits, UpstreamTimeouts, UpstreamTls,
};
use crate::config::units::Shown;
use crate::oci::RepoName;

impl Resolver<'_> {
    pub(super) fn upstreams(&mut self, models: &[model::Upstream]) -> Vec<Upstream> {
        let upstreams: Vec<_> = models.iter().enumerate().map(|(index, model)| self.upstream(index, model)).collect();
        let each = || upstreams.iter().enumerate();
        let names = each().map(|(index, upstream)| (format!("upstreams[{index}].name"), upstream.name.clone()));
        self.unique(names, "name");
        self.unique(each().flat_map(|(index, upstream)| listed(index, "hosts", &upstream.hosts)), "host");
        let prefixes = each().flat_map(|(index, upstream)| listed(index, "repositories", &upstream.repositories));
        self.unique(prefixes, "repository prefix");
        upstreams
    }

    fn upstream(&mut self, index: usize, model: &model::Upstream) -> Upstream {
        let at = format!("upstreams[{index}]");
        self.check_name(&format!("{at}.name"), &model.name);
        if model.host.as_deref().is_some_and(|host| !is_host_header(host)) {
            self.error(format!("{at}.host"), "this is no host; write a name or address, with a port if it needs one");
        }
        let (scheme, endpoints) = self.endpoints(&at, &model.urls);
        Upstream {
            name: model.name.clone(),
            tls: self.upstream_tls(&at, &model.tls, scheme, &endpoints),
            authorization: self.authorization(&at, model, scheme, &endpoints),
            endpoints,
            host: model.host.clone(),
            verify_digests: model.verify_digests,
            redirects: self.redirects(&at, model),
            hosts: self.hosts(&at, &model.hosts),
            repositories: self.repositories(&at, &model.repositories),
            timeouts: self.timeouts(&at, &model.timeouts),
            limits: UpstreamLimits {
                max_connections: count(model.limits.max_connections),
                max_pending: count(model.limits.max_pending),
            },
            health_check: self.health_check(&at, &model.health_check),
        }
    }

    /// The endpoints, and the scheme that all of them have; none if a URL is faulty.
    fn endpoints(&mut self, at: &str, urls: &[String]) -> (Option<Scheme>, Vec<Endpoint>) {
        let mut endpoints = Vec::new();
        let mut schemes = Vec::new();
        for (index, url) in urls.iter().enumerate() {
            match endpoint(url) {
                Ok((scheme, endpoint)) => {
                    if endpoints.contains(&endpoint) {
                        self.error(format!("{at}.urls[{index}]"), "this address is listed twice");
                    }
                    schemes.push(scheme);
                    endpoints.push(endpoint);
                }
                Err(message) => self.error(format!("{at}.urls[{index}]"), message),
            }
        }
        let first = schemes.first().copied();
        if schemes.iter().any(|&scheme| Some(scheme) != first) {
            let message = "these are of several schemes; make an upstream of each, or give all the same";
            self.error(format!("{at}.urls"), message);
        }
        (first.filter(|_| endpoints.len() == urls.len()), endpoints)
    }

    fn upstream_tls(
        &mut self,
        at: &str,
        model: &model::UpstreamTls,
        scheme: Option<Scheme>,
        endpoints: &[Endpoint],
    ) -> Option<UpstreamTls> {
        let at = format!("{at}.tls");
        let model::UpstreamTls { ca, certificate, key, server_name } = model;
        let set = [("ca", ca.is_some()), ("certificate", certificate.is_some()), ("key", key.is_some())];
        let set = set.into_iter().chain([("server_name", server_name.is_some())]);
        if scheme? != Scheme::Https {
            for (name, _) in set.filter(|(_, set)| *set) {
                self.error(
                    format!("{at}.{name}"),
                    "this has no effect without an https URL; remove it, or write https",
                );
            }
            return None;
        }
        if server_name.as_deref().is_some_and(|name| !is_host_name(name)) {
            self.error(format!("{at}.server_name"), "this is no DNS name");
        }
        let address =
            |endpoint: &Endpoint| matches!(endpoint, Endpoint::Tcp { host, .. } if host.parse::<IpAddr>().is_ok());
        if server_name.is_none() && endpoints.iter().any(address) {
            let message =
                "a URL holds an IP address, for which no certificate can be asked by name; give the name to verify";
            self.error(format!("{at}.server_name"), message);
        }
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(KeyPair {
                certificate: self.path(&format!("{at}.certificate"), certificate),
                key: self.path(&format!("{at}.key"), key),
            }),
            (None, None) => None,
            (Some(_), None) => {
                self.error(format!("{at}.key"), "the certificate needs its private key");
                None
            }
            (None, Some(_)) => {
                self.error(format!("{at}.certificate"), "the private key needs its certificate");
                None
            }
        };
        Some(UpstreamTls {
            ca: self.optional_path(&format!("{at}.ca"), ca.as_deref()),
            client,
            server_name: server_name.as_ref().map(|name| name.to_ascii_lowercase()),
        })
    }

    fn authorization(
        &mut self,
        at: &str,
        model: &model::Upstream,
        scheme: Option<Scheme>,
        endpoints: &[Endpoint],
    ) -> Authorization {
        let in_clear = scheme == Some(Scheme::Http) && endpoints.iter().any(|endpoint| !is_local(endpoint));
        if in_clear && model.authorization != model::Authorization::Drop {
            let message = "passwords or tokens go over the network in clear; use https, or drop them";
            self.warning(format!("{at}.authorization"), message);
        }
        let credentials = match (&model.credentials, model.authorization) {
            (Some(_), model::Authorization::Pass | model::Authorization::Drop) => {
                let message = "these are not used; set authorization: replace, or remove them";
                self.error(format!("{at}.credentials"), message);
                None
            }
            (None, model::Authorization::Replace) => {
                let message = "authorization: replace needs a username and a password_file here";
                self.error(format!("{at}.credentials"), message);
                None
            }
            (Some(credentials), _) => self.credentials(&format!("{at}.credentials"), credentials),
            (None, _) => None,
        };
        match (model.authorization, credentials) {
            (model::Authorization::Pass, _) => Authorization::Pass,
            (_, Some(credentials)) => Authorization::Replace(credentials),
            (_, None) => Authorization::Drop,
        }
    }

    fn credentials(&mut self, at: &str, model: &model::Credentials) -> Option<Credentials> {
        let username = &model.username;
        if username.is_empty() || username.contains(':') || username.chars().any(char::is_control) {
            // RFC 7617: a user-id with a colon can't be told from its password.
            let message = "this is no user name; HTTP Basic allows neither an empty one nor ':' or control characters";
            self.error(format!("{at}.username"), message);
        }
        let at = format!("{at}.password_file");
        let password_file = self.path(&at, &model.password_file);
        match (self.secrets)(&password_file) {
            Ok(file) => {
                if file.exposed {
                    let message = "every user of this machine can read the password; make the file's mode 0600";
                    self.warning(&at, message);
                }
                Some(Credentials { username: username.clone(), password: file.secret, password_file })
            }
            Err(message) => {
                self.error(at, format!("\"{}\": {message}", password_file.display()));
                None
            }
        }
    }

    fn hosts(&mut self, at: &str, hosts: &[String]) -> Vec<String> {
        for (index, host) in hosts.iter().enumerate() {
            if !is_host_name(host) && host.parse::<IpAddr>().is_err() {
                let message = "is no host; write a name or address without a port";
                self.error(format!("{at}.hosts[{index}]"), format!("{} {message}", Shown(host)));
            }
        }
        hosts.iter().map(|host| host.to_ascii_lowercase()).collect()
    }

    fn repositories(&mut self, at: &str, prefixes: &[String]) -> Vec<String> {
        for (index, prefix) in prefixes.iter().enumerate() {
            // Whole segments of a name are a name themselves.
            if RepoName::parse(trimmed(prefix)).is_err() {
                let message =
                    "is no repository prefix; write whole segments of a-z, 0-9, '.', '_' and '-', such as team-a";
                self.error(format!("{at}.repositories[{index}]"), format!("{} {message}", Shown(prefix)));
            }
        }
        prefixes.iter().map(|prefix| trimmed(prefix).to_owned()).collect()
    }

    fn timeouts(&mut self, at: &str, model: &model::UpstreamTimeouts) -> UpstreamTimeouts {
        let mut wait = |name: &str, value| self.time(&format!("{at}.timeouts.{name}"), value, Range::WAIT);
        UpstreamTimeouts {
            connect: wait("connect", model.connect),
            first_byte: wait("first_byte", model.first_byte),
            idle: wait("idle", model.idle),
            pool_idle: wait("pool_idle", model.pool_idle),
        }
    }

    fn health_check(&mut self, at: &str, model: &model::HealthCheck) -> Option<HealthCheck> {
        let at = format!("{at}.health_check");
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if !model.path.starts_with('/') || !model.path.bytes().all(plain) {
            self.error(format!("{at}.path"), "this is no path of a URL; it starts with /, as /v2/ does");
        }
        if model.timeout > model.interval {
            let message = format!("this must be no longer than the interval ({})", model.interval);
            self.error(format!("{at}.timeout"), message);
        }
        let check = HealthCheck {
            path: model.path.clone(),
            interval: self.time(&format!("{at}.interval"), model.interval, Range::WAIT),
            timeout: self.time(&format!("{at}.timeout"), model.timeout, Range::WAIT),
            unhealthy_after: model.unhealthy_after,
            healthy_after: model.healthy_after,
        };
        model.enabled.then_some(check)
    }
}

/// The values of a list of an upstream, each with its path.
fn listed(index: usize, key: &str, values: &[String]) -> Vec<(String, String)> {
    let values = values.iter().enumerate();
    values.map(|(inner, value)| (format!("upstreams[{index}].{key}[{inner}]"), value.clone())).collect()
}

fn trimmed(prefix: &str) -> &str {
    prefix.strip_suffix('/').unwrap_or(prefix)
}

/// Whether what is sent to `endpoint` stays on this machine.
fn is_local(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Unix(_) => true,
        Endpoint::Tcp { host, .. } => {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
        }
    }
}
