//! The Redis that replicas share.

use std::path::PathBuf;

use super::address::host_and_port;
use super::{Range, Resolver};
use crate::config::model::{self, Redis};
use crate::config::settings::{Endpoint, SharedRedis};

/// Redis' port unless it is told otherwise.
const PORT: u16 = 6379;
/// Longest prefix of keys.
const MAX_PREFIX: usize = 64;

impl Resolver<'_> {
    pub(super) fn shared_limits(&mut self, model: &model::SharedLimits) -> Option<SharedRedis> {
        const AT: &str = "shared_limits.redis";
        let redis = model.redis.as_ref()?;
        let address = address(&redis.address).map_err(|message| self.error(format!("{AT}.address"), message)).ok();
        let (endpoint, database) = address.unwrap_or((Endpoint::Unix(PathBuf::new()), 0));
        let fine = |c: char| c.is_ascii_graphic();
        if redis.key_prefix.is_empty() || redis.key_prefix.len() > MAX_PREFIX || !redis.key_prefix.chars().all(fine) {
            let message = format!("must be 1 to {MAX_PREFIX} printable ASCII characters without spaces");
            self.error(format!("{AT}.key_prefix"), message);
        }
        if redis.username.is_some() && redis.password_file.is_none() {
            self.error(format!("{AT}.username"), "a user logs in with a password: name a password_file, too");
        }
        let (password, password_file) = self.redis_password(redis, &format!("{AT}.password_file"));
        let range = Range { max: super::MINUTE, ..Range::WAIT };
        Some(SharedRedis {
            endpoint,
            database,
            username: redis.username.clone(),
            password,
            password_file,
            timeout: self.time(&format!("{AT}.timeout"), redis.timeout, range),
            key_prefix: redis.key_prefix.clone(),
            on_failure: redis.on_failure,
        })
    }

    fn redis_password(&mut self, redis: &Redis, at: &str) -> (Option<crate::config::Secret<String>>, Option<PathBuf>) {
        let Some(file) = self.optional_path(at, redis.password_file.as_deref()) else { return (None, None) };
        match (self.secrets)(&file) {
            Ok(read) => {
                if read.exposed {
                    self.warning(at, "every user of this machine can read the password; make the file's mode 0600");
                }
                (Some(read.secret), Some(file))
            }
            Err(message) => {
                self.error(at, format!("\"{}\": {message}", file.display()));
                (None, Some(file))
            }
        }
    }
}

/// Reads `redis://host[:port][/database]` or `unix:///path[?db=database]`. Never repeats the address: what is wrong may be
/// the password in it.
fn address(text: &str) -> Result<(Endpoint, u16), &'static str> {
    const FORMS: &str = "this is no address of a Redis; write redis://host:port or unix:///path/to/socket";
    const DATABASE: &str = "the database is a number from 0 to 65535, as in redis://host:port/2";
    let number = |text: &str| text.parse::<u16>().map_err(|_| DATABASE);
    if text.starts_with("rediss:") {
        return Err(
            "TLS to Redis is not spoken; use unix:///path/to/socket, a network of your own, or a tunnel such as stunnel",
        );
    }
    if let Some(rest) = text.strip_prefix("unix://") {
        let (path, database) = match rest.split_once('?') {
            Some((path, query)) => (path, number(query.strip_prefix("db=").ok_or(DATABASE)?)?),
            None => (rest, 0),
        };
        if !path.starts_with('/') || path.contains('\0') || path.ends_with('/') {
            return Err("the path to the socket is absolute, as in unix:///run/redis/redis.sock");
        }
        return Ok((Endpoint::Unix(PathBuf::from(path)), database));
    }
    let rest = text.strip_prefix("redis://").ok_or(FORMS)?;
    if rest.contains('@') {
        return Err("credentials don't belong in an address; use username and password_file");
    }
    let (authority, database) = match rest.split_once('/') {
        Some((authority, "")) => (authority, 0),
        Some((authority, database)) => (authority, number(database)?),
        None => (rest, 0),
    };
    let (host, port) = host_and_port(authority).ok_or(FORMS)?;
    Ok((Endpoint::Tcp { host, port: port.unwrap_or(PORT) }, database))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_or_sockets_with_a_database() {
        let tcp = |host: &str, port| Endpoint::Tcp { host: host.to_owned(), port };
        for (text, expected) in [
            ("redis://localhost", (tcp("localhost", 6379), 0)),
            ("redis://Redis.internal:6380/2", (tcp("redis.internal", 6380), 2)),
            ("redis://[::1]:6379/", (tcp("::1", 6379), 0)),
            ("unix:///run/redis.sock", (Endpoint::Unix("/run/redis.sock".into()), 0)),
            ("unix:///run/redis.sock?db=15", (Endpoint::Unix("/run/redis.sock".into()), 15)),
        ] {
            assert_eq!(address(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_repeated() {
        for (text, said) in [
            ("rediss://localhost", "TLS to Redis is not spoken"),
            ("redis://:s3cret@localhost", "password_file"),
            ("localhost:6379", "redis://host:port"),
            ("redis://", "redis://host:port"),
            ("redis://a/b", "the database is a number"),
            ("unix://run/redis.sock", "absolute"),
            ("unix:///run/redis.sock?x=1", "the database is a number"),
        ] {
            let Err(message) = address(text) else { panic!("{text}") };
            assert!(message.contains(said) && !message.contains("s3cret"), "{text}: {message}");
        }
    }
}
