//! Client certificates that near their end: each is named once a day, while its client still comes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::identity::PeerIdentity;

/// Certificates that are remembered at most. More are not named until others are gone.
const MOST: usize = 4096;

/// How often a certificate is named, in seconds.
const DAY: i64 = 24 * 3600;

/// A client that doesn't come any more is forgotten after so many seconds: it may have a new certificate.
const FORGET: i64 = 2 * DAY;

/// The certificates that were seen in handshakes and run out soon.
#[derive(Debug, Default)]
pub struct Expiring(Mutex<HashMap<[u8; 32], ExpiringClient>>);

/// A client whose certificate runs out soon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiringClient {
    /// The client in one printable line.
    pub label: String,
    /// The certificate's serial number.
    pub serial: String,
    /// When it runs out, in unix seconds.
    pub not_after: i64,
    /// When the client was last here, in unix seconds.
    pub last_seen: i64,
    said: i64,
}

impl Expiring {
    /// A client has come at `now` (unix seconds). Its certificate is named if it runs out within `warning`, unless that
    /// has been said within a day; the line is returned, too.
    pub fn note(&self, identity: &PeerIdentity, warning: Duration, now: i64) -> Option<String> {
        let leaf = identity.path.first()?;
        let left = leaf.not_after.saturating_sub(now);
        if left > i64::try_from(warning.as_secs()).unwrap_or(i64::MAX) || warning.is_zero() {
            return None;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&identity.fingerprint) {
            known.retain(|_, client| client.is_current(now));
            if known.len() >= MOST {
                return None;
            }
        }
        let client = known.entry(identity.fingerprint).or_insert_with(|| ExpiringClient {
            label: identity.label().to_owned(),
            serial: leaf.serial.to_string(),
            not_after: leaf.not_after,
            last_seen: now,
            said: i64::MIN,
        });
        client.last_seen = now;
        if now.saturating_sub(client.said) < DAY {
            return None;
        }
        client.said = now;
        let when = humantime::format_duration(Duration::from_secs(u64::try_from(left).unwrap_or(0) / 60 * 60));
        let line = format!("the certificate of {} (serial {}) runs out in {when}", client.label, client.serial);
        drop(known);
        log::warn!("{line}");
        Some(line)
    }

    /// Those that still come and have not run out, the next to run out first.
    #[must_use]
    pub fn clients(&self, now: i64) -> Vec<ExpiringClient> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, client| client.is_current(now));
        let mut clients: Vec<_> = known.values().cloned().collect();
        drop(known);
        clients.sort_by(|a, b| (a.not_after, &a.label).cmp(&(b.not_after, &b.label)));
        clients
    }
}

impl ExpiringClient {
    fn is_current(&self, now: i64) -> bool {
        self.not_after >= now && now.saturating_sub(self.last_seen) < FORGET
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::LeafRules;
    use crate::identity::testing::TestCertificate;

    /// 2034-01-01, when the test certificates run out.
    const END: i64 = 2_019_686_400;
    const WARNING: Duration = Duration::from_hours(14 * 24);

    fn identity() -> PeerIdentity {
        let path = [TestCertificate::client().der(), TestCertificate::authority().der()];
        let path: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        PeerIdentity::from_path(&path, &LeafRules::default()).expect("a good path")
    }

    #[test]
    fn a_certificate_is_named_once_a_day_while_it_is_used() {
        let (expiring, client) = (Expiring::default(), identity());
        assert_eq!(expiring.note(&client, WARNING, END - 15 * DAY), None, "early");
        assert_eq!(expiring.clients(END - 15 * DAY), []);
        let line = expiring.note(&client, WARNING, END - 10 * DAY).expect("said");
        assert!(line.contains("runs out in 10days"), "{line}");
        assert_eq!(expiring.note(&client, WARNING, END - 10 * DAY + 1), None, "said already");
        assert!(expiring.note(&client, WARNING, END - 9 * DAY).is_some(), "the next day");
        let clients = expiring.clients(END - 9 * DAY + 5);
        assert_eq!(clients.iter().map(|c| (c.not_after, c.last_seen)).collect::<Vec<_>>(), [(END, END - 9 * DAY)]);
        assert_eq!(expiring.clients(END - 6 * DAY), [], "it doesn't come any more");
        assert_eq!(expiring.note(&client, Duration::ZERO, END - DAY), None, "switched off");
    }

    #[test]
    fn memory_is_bounded() {
        let (expiring, mut client) = (Expiring::default(), identity());
        for number in 0..MOST + 100 {
            client.fingerprint[..8].copy_from_slice(&(number as u64).to_be_bytes());
            expiring.note(&client, WARNING, END - DAY);
        }
        assert_eq!(expiring.clients(END - DAY).len(), MOST);
        // Those that have not come for a while make room.
        client.fingerprint[..8].copy_from_slice(&u64::MAX.to_be_bytes());
        assert!(expiring.note(&client, Duration::from_hours(100 * 24), END - DAY + FORGET).is_some());
    }
}
