//! The catalog, answered by the gateway: the registry is asked for its pages, and the client gets the repositories that
//! it may pull.
//!
//! The registry's own answer can't be passed on with names taken out: its length and its `Link` have gone out by the
//! time its body is read, and the `last` in the `Link` is the last name of the registry's page, which may be hidden. So
//! pages are read whole before anything is answered, within bounds.
//!
//! The cursor that the client gets is the last name of its own page: a name that it has just been shown. There is a next
//! page if and only if there is one more name to show, so that neither the cursor nor its presence tells of a hidden
//! repository. (Where the bounds end the search first, there is one if there is a name to go on from, else an error: all
//! that shows is that the catalog is large.) Each page ends after the one before it did, so a client that follows the
//! links comes to an end if the registry's list has one.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::header::LINK;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::context::Exchange;
use super::headers::{self, Own};
use super::refusal::Refusal;
use super::{decide, respond};
use crate::config::Authorization;
use crate::identity::ClientId;
use crate::oci::{self, Endpoint, Page, RepoName, Route, catalog_names, catalog_target};
use crate::tally::Tally;
use crate::upstream::client::{self, Answer, Wanted};

/// Names in an answer when the client doesn't say.
const DEFAULT_NAMES: u32 = 1000;
/// Names asked of the registry at a time. Registry 3 refuses more than 1000; for small pages it reads as much storage as
/// for larger ones.
const ASKED: std::ops::RangeInclusive<u32> = 100..=1000;
/// Bounds on the work for one request: what is read of the registry at a time and altogether, and how often and how long
/// it is asked. containerd gives up after 30 s without an answer.
const MAX_PAGE_BYTES: usize = 4 << 20;
const MAX_BYTES: usize = 32 << 20;
const MAX_PAGES: usize = 128;
const MAX_TIME: Duration = Duration::from_secs(10);
const MAX_PAGE_TIME: Duration = Duration::from_secs(10);
/// Requests of one client for which the registry is asked at a time: a small one makes many large ones.
const MAX_WALKS: usize = 2;
/// Names judged before other requests of the thread get their turn.
const JUDGED_AT_ONCE: usize = 256;

/// A page for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) names: Vec<RepoName>,
    /// Path and query of the page after it.
    pub(super) next: Option<String>,
}

/// The requests under way, by client. One for the process: a client's connections are spread over the threads.
static WALKS: LazyLock<Tally<ClientId>> = LazyLock::new(Tally::default);

/// The place of one of them, given back on drop.
struct Place(ClientId);

impl Place {
    fn take(client: ClientId) -> Option<Self> {
        WALKS.enter(client, MAX_WALKS).then(|| Place(client))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        WALKS.leave(&self.0);
    }
}

/// The page that the client asked for; `None` if it asked for something else.
///
/// # Errors
///
/// The client has gone, and the registry is asked no more.
pub(super) async fn collect(
    session: &mut Session,
    exchange: &mut Exchange,
) -> pingora::Result<Result<Option<Names>, Refusal>> {
    let Some(Endpoint::Catalog { page }) = exchange.route.as_ref().map(Route::endpoint) else { return Ok(Ok(None)) };
    let page = page.clone();
    let Some(_place) = Place::take(exchange.connection.client_id) else {
        return Ok(Err(Refusal::catalog_walks(MAX_WALKS)));
    };
    let client = session.req_header().clone();
    tokio::select! {
        names = walk(page, &client, exchange) => Ok(names.map(Some)),
        gone = session.read_body_or_idle(true) => match gone {
            Ok(_) => Err(super::internal("a body where there is none")),
            Err(gone) => Err(gone.into_down()),
        },
    }
}

async fn walk(page: Page<RepoName>, client: &RequestHeader, exchange: &mut Exchange) -> Result<Names, Refusal> {
    let Page { n, last } = page;
    if !exchange.is_permitted() {
        return Err(Refusal::internal("a catalog without a permit"));
    }
    let n = n.unwrap_or(DEFAULT_NAMES);
    let wanted = usize::try_from(n).unwrap_or(usize::MAX);
    let mut walk = Walk::new(n, last.map(|last| last.to_string()));
    let mut names = Vec::new();
    // One more than wanted shows that there is a next page.
    while names.len() <= wanted
        && let Some(found) = walk.next_page(client, exchange).await?
    {
        for chunk in found.chunks(JUDGED_AT_ONCE) {
            names.extend(chunk.iter().filter(|name| decide::may_pull(exchange, name)).cloned());
            tokio::task::yield_now().await;
        }
    }
    let more = names.len() > wanted || walk.is_exhausted();
    names.truncate(wanted);
    let next = names.last().filter(|_| more).map(|last| catalog_target(Some(n), Some(last.as_str())));
    if more && next.is_none() {
        // Without a name to go on from there is no next page, and to leave it out would be to say that this was all.
        log::warn!("decision {}: nothing to show within the first names of a large catalog", exchange.decision_id);
        return Err(Refusal::catalog_too_large());
    }
    Ok(Names { names, next })
}

/// The way through the registry's pages.
struct Walk {
    /// Names to ask for; `None` leaves it to the registry.
    n: Option<u32>,
    /// Where the next page begins; the registry's own cursors are followed as they are.
    after: Option<String>,
    ended: bool,
    pages: usize,
    bytes: usize,
    began: Instant,
}

impl Walk {
    fn new(wanted: u32, after: Option<String>) -> Self {
        let n = wanted.saturating_add(1).clamp(*ASKED.start(), *ASKED.end());
        Walk { n: Some(n), after, ended: false, pages: 0, bytes: 0, began: Instant::now() }
    }

    /// Whether a bound was reached before the end.
    fn is_exhausted(&self) -> bool {
        !self.ended && (self.pages >= MAX_PAGES || self.bytes >= MAX_BYTES || self.began.elapsed() >= MAX_TIME)
    }

    /// The names of the next page; `None` at the end of the list or of what may be done for one request.
    async fn next_page(
        &mut self,
        client: &RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<Option<Vec<RepoName>>, Refusal> {
        while !self.ended && !self.is_exhausted() {
            self.pages += 1;
            let target = catalog_target(self.n, self.after.as_deref());
            let answer = ask(&target, client, exchange).await?;
            self.bytes += answer.body.len();
            match answer.head.status.as_u16() {
                200 => return self.read(&answer).map(Some).map_err(|what| unreadable(exchange, what)),
                // The registry's own limit is lower.
                400 if self.n.is_some() => self.n = None,
                _ => return Err(refused(&answer, exchange)),
            }
        }
        Ok(None)
    }

    fn read(&mut self, answer: &Answer) -> Result<Vec<RepoName>, String> {
        let mut next = None;
        for link in answer.head.headers.get_all(LINK) {
            let link = link.to_str().map_err(|e| e.to_string())?;
            next = next.or(oci::next_cursor(link).map_err(|e| e.to_string())?);
        }
        if next.is_some() && next == self.after {
            return Err("the Link of a page leads to the page itself".to_owned());
        }
        self.ended = next.is_none();
        self.after = next;
        catalog_names(&answer.body).map_err(|e| format!("no catalog: {e}"))
    }
}

/// Asks the upstream, and another address of it if one can't be reached.
async fn ask(target: &str, client: &RequestHeader, exchange: &mut Exchange) -> Result<Answer, Refusal> {
    let patience = exchange.upstream.as_ref().map_or(MAX_PAGE_TIME, |u| u.settings().timeouts.first_byte);
    let until = Instant::now() + patience.min(MAX_PAGE_TIME);
    let left = || until.saturating_duration_since(Instant::now());
    loop {
        let internal = |_| Refusal::internal("a request to the upstream could not be made");
        let own = Own { method: "GET", accept: "application/json", target };
        let request = headers::own_request(&own, client, exchange).map_err(internal)?;
        let address = exchange.next_address().map_err(|error| failed(exchange, &error))?;
        exchange.expect_request_body(false);
        match client::ask(address.peer(), request, Wanted::Whole(MAX_PAGE_BYTES), left()).await {
            Ok(answer) => {
                exchange.connected(false);
                exchange.answered(answer.head.status.as_u16(), Instant::now());
                return Ok(answer);
            }
            // Asking twice does no harm. An address that stays silent uses up the time for another.
            Err(error) if !left().is_zero() && exchange.connect_failed() => {
                log::debug!("decision {}: upstream {}: {error}", exchange.decision_id, address.label());
            }
            Err(error) => return Err(failed(exchange, &error)),
        }
    }
}

/// The request has been read whole, so the client's connection is as good as before.
fn failed(exchange: &Exchange, error: &Error) -> Refusal {
    let outcome = exchange.outcome().unwrap_or_else(|| exchange.outcome_of(error));
    match respond::answer(outcome, error) {
        Some(refusal) => Refusal { close: false, ..refusal },
        None => Refusal::internal("the client's error while asking the upstream"),
    }
}

fn unreadable(exchange: &Exchange, what: String) -> Refusal {
    let refusal = failed(exchange, &Error::explain(ErrorType::InvalidHTTPHeader, what).into_up());
    Refusal { message: "the registry did not answer with a catalog".to_owned(), ..refusal }
}

/// A status other than success. What it says to a client that shows the registry credentials of its own is passed on.
fn refused(answer: &Answer, exchange: &Exchange) -> Refusal {
    let upstream = exchange.upstream.as_ref();
    let own_credentials = upstream.is_some_and(|u| u.settings().authorization == Authorization::Pass);
    match answer.head.status.as_u16() {
        401 if own_credentials => Refusal::unauthorized(&answer.head),
        403 if own_credentials => Refusal::denied_upstream(),
        404 | 405 => Refusal::no_catalog(),
        status => unreadable(exchange, format!("status {status} for a page of the catalog")),
    }
}
