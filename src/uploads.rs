//! Ties upload sessions to the identity that opened them.
//!
//! A registry signs the state of an upload, not who it belongs to: whoever may push to the repository and learns a
//! session's address could append to a layer, complete or cancel it. So every address of a session that the gateway
//! hands out carries a tag over the session and the client, and a request for a session must show the right one.
//! Nothing is stored: replicas with the same key accept each other's tags, and a tag lives as long as the session.
//!
//! The client is its issuer and its names, as the policy sees it, and not its key or serial number: a certificate that
//! is renewed in the middle of a push doesn't end it.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::identity::{PeerIdentity, Unusable};

/// Octets of a tag, of the 32 that HMAC-SHA-256 makes; 16 would do (RFC 2104 §5), these leave no bits over in base64.
const TAG_OCTETS: usize = 18;

/// What a tag is made for: keeps it from meaning anything else that this key might sign one day.
const PURPOSE: &[u8] = b"portcullis upload session 1";

/// Makes and checks the tags of upload sessions. Whoever knows its key can make the tags of any client.
#[derive(Clone)]
pub struct Binder(Hmac<Sha256>);

/// An upload session, as registries tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session<'a> {
    /// The upstream's name in the configuration.
    pub upstream: &'a str,
    /// The repository.
    pub repository: &'a str,
    /// The session's identifier.
    pub id: &'a str,
}

impl Binder {
    /// A binder with this key, which may be of any length from 32 octets.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        let mut block = [0; 64];
        for (octet, derived) in block.iter_mut().zip(Sha256::digest(key)) {
            *octet = derived;
        }
        // A key of the hash's block size is the one length for which the constructor can't fail.
        Binder(Hmac::new(&block.into()))
    }

    /// The tag that `identity` must show for `session`; `None` for an identity without a certificate.
    #[must_use]
    pub fn tag(&self, session: &Session<'_>, identity: &PeerIdentity) -> Option<String> {
        let mac = self.mac(session, identity)?.finalize().into_bytes();
        mac.get(..TAG_OCTETS).map(|tag| BASE64URL_NOPAD.encode(tag))
    }

    /// Whether `tag` is the one that `identity` was given for `session`. Takes as long for a near miss as for a far one.
    #[must_use]
    pub fn is_right(&self, session: &Session<'_>, identity: &PeerIdentity, tag: &str) -> bool {
        let Ok(tag) = BASE64URL_NOPAD.decode(tag.as_bytes()) else { return false };
        let right = |mac: Hmac<Sha256>| mac.verify_truncated_left(&tag).is_ok();
        // A shorter tag would be compared over its own length only.
        tag.len() == TAG_OCTETS && self.mac(session, identity).is_some_and(right)
    }

    fn mac(&self, session: &Session<'_>, identity: &PeerIdentity) -> Option<Hmac<Sha256>> {
        let mut mac = self.0.clone();
        let mut parts = Parts(&mut mac);
        parts.add(PURPOSE);
        parts.add(session.upstream.as_bytes());
        parts.add(session.repository.as_bytes());
        parts.add(session.id.as_bytes());
        // Two authorities may vouch for one name; they mean two clients.
        parts.add(identity.path.first()?.issuer.as_bytes());
        let PeerIdentity { subject, dns, uris, emails, ips, .. } = identity;
        let subject = subject.iter().flat_map(|attribute| [attribute.name.to_string(), attribute.value.clone()]);
        parts.add_all(subject.collect());
        // The order of alternative names means nothing, and a renewal may change it.
        let ips = ips.iter().map(ToString::to_string).collect();
        for mut names in [dns.clone(), uris.clone(), emails.clone(), ips] {
            names.sort_unstable();
            parts.add_all(names);
        }
        // Names that can't be read can't tell two clients apart; their keys do.
        let doubtful = identity.unusable != Unusable::default();
        parts.add(if doubtful { &identity.spki } else { &[] });
        Some(mac)
    }
}

impl fmt::Debug for Binder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Binder([redacted])")
    }
}

/// Feeds parts with their lengths, so that the end of one can't pass for the beginning of the next.
struct Parts<'m>(&'m mut Hmac<Sha256>);

impl Parts<'_> {
    fn add(&mut self, part: &[u8]) {
        self.count(part.len());
        self.0.update(part);
    }

    fn add_all(&mut self, parts: Vec<String>) {
        self.count(parts.len());
        for part in parts {
            self.add(part.as_bytes());
        }
    }

    fn count(&mut self, number: usize) {
        self.0.update(&(number as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
