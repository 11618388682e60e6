//! Questions as the query of a URL, in the words of the command line.

use crate::config::TlsVersion;
use crate::config::policy::cases::{ClientFile, Texts};
use crate::identity::PeerIdentity;
use crate::policy::suite::{Circumstances, NO_ADDRESS, Request};
use crate::policy::{Policy, describe, parse_time};
use crate::telemetry::{Past, Unreadable};

use super::Answer;

/// The keys of a question.
const KEYS: &str = "decision; or method, target, subject, issuer, dns, uri, email, ip, fingerprint, \
                    spki, not_after, client, at, tls, exists";

/// Most rules times rights that one answer may go through: it holds a paragraph for each.
const MOST_FINDINGS: usize = 20_000;

/// Something to ask a policy.
#[derive(Debug)]
pub enum Question {
    /// About the decision with this id.
    Decision(String),
    /// About a request of a client by description.
    Request(Box<Described>),
}

/// A request and who sends it.
#[derive(Debug)]
pub struct Described {
    client: PeerIdentity,
    request: Request,
    address: std::net::IpAddr,
    at: Option<u64>,
    tls: TlsVersion,
    exists: Option<bool>,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It makes no sense, or asks for too much.
    #[error("{0}")]
    Senseless(String),
    /// Nothing is known of what it is about.
    #[error("{0}")]
    NotKnown(String),
}

impl Question {
    /// Reads the query of a URL, such as `method=GET&target=/v2/a/tags/list&subject=CN%3Dci-7`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(query: &str) -> Result<Self, Unanswered> {
        let senseless = |message: String| Unanswered::Senseless(message);
        let mut file = ClientFile::default();
        let (mut decision, mut method, mut target, mut address) = (None, None, None, None);
        let (mut at, mut tls, mut exists) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| senseless(format!("{key} is not percent-encoded correctly")))?;
            let list = match key {
                "format" => continue,
                "subject" => &mut file.subject,
                "issuer" => &mut file.issuer,
                "dns" => &mut file.dns,
                "uri" => &mut file.uri,
                "email" => &mut file.email,
                "ip" => &mut file.ip,
                _ => {
                    let slot = match key {
                        "decision" => &mut decision,
                        "method" => &mut method,
                        "target" => &mut target,
                        "client" => &mut address,
                        "fingerprint" => &mut file.fingerprint,
                        "spki" => &mut file.spki,
                        "not_after" => &mut file.not_after,
                        "at" => &mut at,
                        "tls" => &mut tls,
                        "exists" => &mut exists,
                        _ => {
                            return Err(senseless(format!(
                                "there is no key \"{}\"; there are: {KEYS}",
                                key.escape_debug()
                            )));
                        }
                    };
                    if slot.replace(value).is_some() {
                        return Err(senseless(format!("{key} is given more than once")));
                    }
                    continue;
                }
            };
            if let Texts::Many(texts) = list {
                texts.push(value);
            }
        }
        match (decision, method, target) {
            (Some(id), None, None)
                if file == ClientFile::default() && [&address, &at, &tls, &exists].iter().all(|key| key.is_none()) =>
            {
                Ok(Self::Decision(id.trim().to_ascii_uppercase()))
            }
            (Some(_), ..) => Err(senseless("a decision says all there is to ask: leave out the other keys".to_owned())),
            (None, Some(method), Some(target)) => {
                let request = Request::new(&method, &target).map_err(senseless)?;
                let described = Described::of(&file, request, [address, at, tls, exists]).map_err(senseless)?;
                Ok(Self::Request(Box::new(described)))
            }
            _ => Err(senseless(format!("ask by {KEYS}"))),
        }
    }

    /// The policy's answer. `find` looks for the record of a decision, `now` is in unix seconds.
    ///
    /// # Errors
    /// Why there is none.
    pub fn answer(
        self,
        policy: &Policy,
        now: u64,
        find: impl FnOnce(&str) -> Option<Past>,
    ) -> Result<Answer<'_>, Unanswered> {
        match self {
            Self::Decision(id) => {
                let past = find(&id).ok_or_else(|| {
                    Unanswered::NotKnown(format!(
                        "decision {} is none of the last ones; portcullis policy explain --decision … --log … finds it in \
                         the access log",
                        id.escape_debug()
                    ))
                })?;
                let untold = |why: Unreadable| Unanswered::NotKnown(why.to_string());
                if past.judged().is_some() {
                    bounded(policy, &past.route().map_err(untold)?)?;
                }
                Answer::replay(policy, &past).map_err(untold)
            }
            Self::Request(described) => {
                let Described { client, request, address, at, tls, exists } = *described;
                if let Ok(route) = request.route() {
                    bounded(policy, &route)?;
                }
                let circumstances = Circumstances { address, at: at.unwrap_or(now), tls, exists };
                Ok(Answer::ask(policy, Ok(client), request, circumstances))
            }
        }
    }
}

impl Described {
    /// Reads the client and the circumstances: its address, the time, the TLS version, whether tags exist.
    fn of(file: &ClientFile, request: Request, circumstances: [Option<String>; 4]) -> Result<Self, String> {
        let [address, at, tls, exists] = circumstances;
        let address = address.map_or(Ok(NO_ADDRESS), |text| text.parse());
        let tls = match tls.as_deref() {
            None | Some("1.3") => TlsVersion::Tls13,
            Some("1.2") => TlsVersion::Tls12,
            Some(_) => return Err("tls must be 1.2 or 1.3".to_owned()),
        };
        let exists = exists.map(|text| text.parse()).transpose();
        let mut faults = Vec::new();
        let client = describe(file, "", &|_| Err(String::new()), &mut faults);
        Ok(Self {
            client: client.ok_or_else(|| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?,
            request,
            address: address.map_err(|_| "client must be an IP address".to_owned())?,
            at: at.map(|text| parse_time(&text)).transpose()?,
            tls,
            exists: exists.map_err(|_| "exists must be true or false".to_owned())?,
        })
    }
}

/// Refuses a question whose answer would be a book.
fn bounded(policy: &Policy, route: &crate::oci::Route) -> Result<(), Unanswered> {
    let rights: usize = route.accesses().iter().map(|access| access.tags.len().max(1)).sum();
    if policy.rules().len().saturating_mul(rights) <= MOST_FINDINGS {
        return Ok(());
    }
    let message = "this policy has too many rules for a page about all of them: ask portcullis policy explain";
    Err(Unanswered::Senseless(message.to_owned()))
}

/// Decodes `%XX`. A plus is a plus: browsers are refused here, and programs that encode write `%20`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_from_a_query() {
        let Ok(Question::Decision(id)) = Question::parse("decision=01hf7yat3v0000000000000007&format=json") else {
            panic!("a decision")
        };
        assert_eq!(id, "01HF7YAT3V0000000000000007");
        let query = "method=PUT&target=/v2/a/manifests/v1%3Fx&subject=CN%3Dci-7&subject=OU%3Da+b&dns=x.example&client=192.0.2.7";
        let Ok(Question::Request(asked)) = Question::parse(query) else { panic!("a request") };
        assert_eq!(asked.client.label(), "CN=ci-7");
        assert_eq!(asked.client.attributes("OU").collect::<Vec<_>>(), ["a+b"]);
        assert_eq!(
            (asked.request.target.as_str(), asked.address.to_string()),
            ("/v2/a/manifests/v1?x", "192.0.2.7".to_owned())
        );
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (query, why) in [
            ("", "ask by decision"),
            ("method=GET&subject=CN%3Dx", "ask by decision"),
            ("method=GET&target=/v2/", "a client needs a name"),
            ("method=GET&target=/v2/&subjekt=CN%3Dx", "no key \"subjekt\""),
            ("method=GET&method=PUT", "more than once"),
            ("method=GET&target=/v2/&subject=x", "must be an attribute"),
            ("method=GET&target=/v2/&dns=x&client=here", "IP address"),
            ("method=GET&target=x&dns=x", "no URL or path"),
            ("decision=x&dns=x", "says all there is to ask"),
            ("dns=%zz", "percent-encoded"),
            ("method=GET&target=/v2/&dns=x&at=now", "is no time"),
            ("method=GET&target=/v2/&dns=x&tls=1.1", "tls must be"),
            ("method=GET&target=/v2/&dns=x&exists=maybe", "exists must be"),
            ("decision=x&exists=true", "says all there is to ask"),
        ] {
            match Question::parse(query) {
                Err(Unanswered::Senseless(message)) => assert!(message.contains(why), "{query}: {message}"),
                other => panic!("{query}: {other:?}"),
            }
        }
    }
}
