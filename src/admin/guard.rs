//! Who may administer: what a connection must prove, and what a request must carry.

use std::fmt;

use data_encoding::BASE64;
use sha2::{Digest as _, Sha256};

use super::http::Stream;
use crate::config::{AdminAddress, AdminToken, Secret};
use crate::identity::PeerIdentity;
use crate::telemetry::{AdminRefusal, HandshakeResult};
use crate::tls::{self, Acceptor, Front, HandshakeFailure};

/// What the admin listener demands. Of one generation, like everything that is served with. By default it demands nothing.
#[derive(Debug, Default)]
pub struct Guard {
    token: Option<Secret<[u8; 32]>>,
    transport: Transport,
    names: Vec<String>,
    /// Nobody is let in.
    closed: bool,
}

/// How the admin listener is spoken to.
#[derive(Default)]
pub enum Transport {
    /// Plain HTTP.
    #[default]
    Plain,
    /// TLS, without asking for a certificate.
    Shown(Front),
    /// TLS, with a certificate of the client that leads to a root and is not revoked.
    Proven(Acceptor),
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Shown(_) => "Shown",
            Self::Proven(_) => "Proven",
        })
    }
}

/// Why nobody is let in, and what there is to say of it. Holds nothing of a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TurnedAway {
    pub(super) why: AdminRefusal,
    pub(super) detail: String,
}

impl Guard {
    /// Of `names` one is what a client that proves itself must be called; of none, any will do.
    #[must_use]
    pub fn new(token: Option<&AdminToken>, transport: Transport, names: Vec<String>) -> Self {
        let token = token.map(|token| Secret::new(hash(token.secret.expose().as_bytes())));
        Self { token, transport, names, closed: false }
    }

    /// Lets nobody in: of a configuration without administration, whose listener stays bound until the next start.
    #[must_use]
    pub fn closed() -> Self {
        Self { closed: true, ..Self::default() }
    }

    /// Whether it may stand before this address: one that other machines reach needs TLS and a proof.
    pub(super) fn suffices_for(&self, address: &AdminAddress) -> bool {
        let proves = match &self.transport {
            Transport::Plain => false,
            Transport::Shown(_) => self.token.is_some(),
            Transport::Proven(_) => true,
        };
        !self.closed && (proves || address.is_local())
    }

    /// Whether whoever connects knows by a certificate whom it speaks to.
    pub(super) fn is_tls(&self) -> bool {
        !matches!(self.transport, Transport::Plain)
    }

    /// Lets a connection in, by TLS if that is asked for. `None` if the client just went away.
    pub(super) async fn secure(&self, io: Box<dyn Stream>) -> Result<Option<Box<dyn Stream>>, TurnedAway> {
        match &self.transport {
            Transport::Plain => Ok(Some(io)),
            Transport::Shown(front) => match front.accept(io).await {
                Ok(stream) => Ok(Some(Box::new(stream))),
                Err(failure) => failed(&failure),
            },
            Transport::Proven(acceptor) => match Box::pin(tls::accept(acceptor, io)).await {
                Ok(accepted) => {
                    self.check_name(&accepted.identity)?;
                    Ok(Some(Box::new(accepted.stream)))
                }
                Err(failure) => failed(&failure),
            },
        }
    }

    fn check_name(&self, identity: &PeerIdentity) -> Result<(), TurnedAway> {
        let label = identity.label();
        if self.names.is_empty() || self.names.iter().any(|name| name == label) {
            return Ok(());
        }
        let detail = format!("{label} is not in admin.tls.client_names");
        Err(TurnedAway { why: AdminRefusal::Name, detail })
    }

    /// Judges what a request carries in `Authorization`.
    pub(super) fn admit(&self, authorization: Option<&Secret<Vec<u8>>>) -> Result<(), TurnedAway> {
        let Some(wanted) = &self.token else { return Ok(()) };
        let Some(given) = authorization else {
            return Err(TurnedAway { why: AdminRefusal::NoToken, detail: "no token".to_owned() });
        };
        let given = token_of(given.expose()).map(|token| hash(&token));
        // In the same time wherever they differ; and what could be learned by the time is a hash.
        let differs = |given: [u8; 32]| given.iter().zip(wanted.expose()).fold(0, |all, (a, b)| all | (a ^ b)) != 0;
        if given.is_none_or(differs) {
            return Err(TurnedAway { why: AdminRefusal::WrongToken, detail: "a wrong token".to_owned() });
        }
        Ok(())
    }
}

fn failed<T>(failure: &HandshakeFailure) -> Result<Option<T>, TurnedAway> {
    match failure.result {
        HandshakeResult::Disconnected => Ok(None),
        result => Err(TurnedAway { why: AdminRefusal::Handshake, detail: format!("{result}: {}", failure.detail) }),
    }
}

/// The token in the value of `Authorization`: `Bearer` (RFC 6750 §2.1), or the password of `Basic` (RFC 7617), which is
/// what a browser asks its user for.
fn token_of(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_at_checked(value.iter().position(|byte| *byte == b' ')?)?;
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        Some(rest.to_vec())
    } else if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = BASE64.decode(rest).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        pair.get(colon + 1..).map(<[u8]>::to_vec)
    } else {
        None
    }
}

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn guard(transport: Transport, with_token: bool) -> Guard {
        let token = AdminToken { secret: Secret::new(TOKEN.to_owned()), file: "token".into() };
        Guard::new(with_token.then_some(&token), transport, Vec::new())
    }

    fn admit(value: Option<&str>) -> Result<(), AdminRefusal> {
        let value = value.map(|value| Secret::new(value.as_bytes().to_vec()));
        guard(Transport::Plain, true).admit(value.as_ref()).map_err(|turned_away| turned_away.why)
    }

    #[test]
    fn a_token_comes_as_a_bearer_or_as_a_password() {
        let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair.as_bytes()));
        for good in [
            format!("Bearer {TOKEN}"),
            format!("bearer  {TOKEN} "),
            basic(&format!(":{TOKEN}")),
            basic(&format!("me:{TOKEN}")),
        ] {
            assert_eq!(admit(Some(&good)), Ok(()), "{good}");
        }
        for wrong in [
            "".to_owned(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            TOKEN.to_owned(),
            format!("Bearer {TOKEN}0"),
            format!("Bearer {}", TOKEN.trim_start_matches('0')),
            format!("Bearer {}", TOKEN.to_uppercase()),
            format!("Basic {TOKEN}"),
            format!("Token {TOKEN}"),
            basic(TOKEN),
            basic(&format!("{TOKEN}:")),
        ] {
            assert_eq!(admit(Some(&wrong)), Err(AdminRefusal::WrongToken), "{wrong}");
        }
        assert_eq!(admit(None), Err(AdminRefusal::NoToken));
        assert_eq!(guard(Transport::Plain, false).admit(None), Ok(()));
        assert!(!format!("{:?}", guard(Transport::Plain, true)).contains("01234"));
    }

    #[test]
    fn what_others_reach_is_not_served_without_a_guard() {
        let local = AdminAddress::Tcp("127.0.0.1:1".parse().expect("an address"));
        let open = AdminAddress::Tcp("0.0.0.0:1".parse().expect("an address"));
        for with_token in [false, true] {
            let plain = guard(Transport::Plain, with_token);
            assert!(plain.suffices_for(&local) && !plain.suffices_for(&open));
        }
        assert!(!Guard::closed().suffices_for(&local), "what the files switch off is off");
    }
}
