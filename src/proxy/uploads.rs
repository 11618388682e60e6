//! Upload sessions of the client, and those of others (see [`crate::uploads`]).

use http::Uri;

use super::context::Exchange;
use super::refusal::Refusal;
use crate::oci::{self, Endpoint, Route};
use crate::uploads::Session;

/// What the access record names as the rule when a client asks for a session that isn't its own.
const RULE: &str = "upload session of another client";

/// Refuses a request for an upload session without the tag that this client was given for it, by the answer for a session
/// that doesn't exist: whether it does is nobody else's business.
pub(super) fn check(exchange: &mut Exchange) -> Result<(), Refusal> {
    let Some(Endpoint::Upload { binding, .. }) = exchange.route.as_ref().map(Route::endpoint) else { return Ok(()) };
    let Some(binder) = &exchange.snapshot.uploads else { return Ok(()) };
    let session = exchange.route.as_ref().and_then(|route| session(route, exchange));
    let right = session
        .zip(binding.as_deref())
        .is_some_and(|(session, tag)| binder.is_right(&session, &exchange.connection.identity, tag));
    if right {
        return Ok(());
    }
    exchange.deny(Some(RULE.into()));
    Err(Refusal::unknown_upload(&exchange.decision_id.to_string()))
}

/// `location` with this client's tag, if it leads to an upload session and the request is one that may be told of it.
///
/// Whatever host it names: a registry may know itself by another name of this gateway than the client does.
pub(super) fn bind(location: &str, exchange: &Exchange) -> Option<String> {
    let binder =
        exchange.snapshot.uploads.as_ref().filter(|_| exchange.route.as_ref().is_some_and(Route::is_upload))?;
    let (route, separator) = upload(location)?;
    let tag = binder.tag(&session(&route, exchange)?, &exchange.connection.identity)?;
    Some(format!("{location}{separator}{}={tag}", oci::BINDING))
}

/// The upload session that `location` leads to, and what goes between it and one more parameter.
fn upload(location: &str) -> Option<(Route, char)> {
    let uri: Uri = location.parse().ok().filter(|_| !location.contains('#'))?;
    let route = oci::route("GET", uri.path(), uri.query()).ok()?;
    matches!(route.endpoint(), Endpoint::Upload { .. }).then(|| (route, if uri.query().is_some() { '&' } else { '?' }))
}

fn session<'a>(route: &'a Route, exchange: &'a Exchange) -> Option<Session<'a>> {
    let Endpoint::Upload { repository, session, .. } = route.endpoint() else { return None };
    let upstream = exchange.upstream.as_ref()?;
    Some(Session { upstream: upstream.name(), repository: repository.as_str(), id: session.as_str() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_of_upload_sessions_are_told_from_others() {
        for (location, separator) in [
            ("/v2/team/app/blobs/uploads/3f2a", '?'),
            ("/v2/team/app/blobs/uploads/3f2a?_state=x%3D&unknown=1", '&'),
            ("/v2/team/app/blobs/uploads/3f2a?", '&'),
            ("https://other.example:5000/v2/team/app/blobs/uploads/3f2a?_state=x", '&'),
        ] {
            let found = upload(location).map(|(route, separator)| {
                (route.repository().map(ToString::to_string), route.reference().map(str::to_owned), separator)
            });
            assert_eq!(found, Some((Some("team/app".to_owned()), Some("3f2a".to_owned()), separator)), "{location}");
        }
        for location in [
            "/v2/team/app/blobs/sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "/v2/team/app/blobs/uploads/",
            "/v2/team/../app/blobs/uploads/3f2a",
            "/v2/team/app/blobs/uploads/3f2a#?_state=x",
            "https://storage.example/bucket/3f2a?signature=x",
            "not a uri",
            "",
        ] {
            assert!(upload(location).is_none(), "{location}");
        }
    }
}
