//! What clients are called, and how the registry hears of it.

use http::HeaderName;

use super::Resolver;
use crate::config::model::{self, ClientName};
use crate::config::settings::Headers;
use crate::identity::{NameKind, NameOrder};

/// Fields that a request for a registry has anyway. A client's own words must not be taken for the gateway's, nor the
/// gateway's break the request.
const TAKEN: [&str; 17] = [
    "authorization",
    "client-cert",
    "client-cert-chain",
    "connection",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "pragma",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-request-id",
];

/// Beginnings of such fields.
const TAKEN_PREFIXES: [&str; 11] = [
    "accept",
    "cache-",
    "content-",
    "docker-",
    "if-",
    "oci-",
    "proxy-",
    "trace",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

impl Resolver<'_> {
    pub(super) fn client_names(&mut self, model: &[ClientName]) -> NameOrder {
        const AT: &str = "clients.identity";
        if model.is_empty() {
            self.error(AT, "is empty; name at least one kind of name, or remove the key");
        }
        let names = model.iter().enumerate();
        self.unique(names.map(|(i, name)| (format!("{AT}[{i}]"), format!("{name:?}"))), "kind");
        if let Some(end) = model.iter().position(|name| *name == ClientName::Fingerprint)
            && end + 1 < model.len()
        {
            self.warning(AT, "every certificate has a fingerprint: what stands after it is never used");
        }
        NameOrder(model.iter().map(|name| kind(*name)).collect())
    }

    pub(super) fn headers(&mut self, model: &model::Headers) -> Headers {
        const AT: &str = "headers.identity";
        let identity = model.identity.as_deref().and_then(|text| {
            let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(|_| !text.contains('_'));
            let Some(name) = name else {
                self.error(AT, "no name of a header; use letters, digits and '-', such as X-Client-Identity");
                return None;
            };
            if TAKEN.contains(&name.as_str()) || TAKEN_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix)) {
                self.error(AT, format!("{text} has a meaning of its own; use another name, such as X-Client-Identity"));
                return None;
            }
            Some(name)
        });
        Headers { client_cert: model.client_cert, identity }
    }
}

fn kind(name: ClientName) -> NameKind {
    match name {
        ClientName::Spiffe => NameKind::Spiffe,
        ClientName::SubjectCn => NameKind::SubjectCn,
        ClientName::Uri => NameKind::Uri,
        ClientName::Dns => NameKind::Dns,
        ClientName::Email => NameKind::Email,
        ClientName::Ip => NameKind::Ip,
        ClientName::Subject => NameKind::Subject,
        ClientName::Fingerprint => NameKind::Fingerprint,
    }
}
