//! The status page: how the gateway is, for people who would rather look than read.
//!
//! One page without script, rendered from a [`View`] of plain values: it knows nothing of where they come from. All of them
//! may hold what clients chose, so text gets into the page through [`Html::text`] alone, which escapes it, and markup is
//! constant. Should anything slip through, the page's policy lets a browser run no script, fetch nothing and send no form.

mod attention;
mod chart;
mod clients;
mod html;
mod material;
mod refusals;
mod time;
mod view;

use std::sync::LazyLock;

use data_encoding::BASE64;
use sha2::{Digest as _, Sha256};

pub use view::{
    CertificateView, ClientView, ClientsView, HandshakeView, ListView, ListenerView, Refresh, RefusalView, ReloadView,
    SourceView, UpstreamView, View,
};

use self::attention::Attention;
use self::html::Html;
use crate::telemetry::{Fate, Step};

/// A gate in the colour of the state.
macro_rules! icon {
    ($colour:literal) => {
        concat!(
            "<link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E",
            "%3Cpath d='M3 15V6a5 5 0 0 1 10 0v9M6.3 3v12M9.7 3v12M3 7h10M3 11h10' fill='none' stroke='",
            $colour,
            "' stroke-width='1.7'/%3E%3C/svg%3E\">"
        )
    };
}
/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// Somebody should look at it within the day.
    Warn,
    /// Clients can't work, or soon won't.
    Bad,
}

const STYLE: &str = include_str!("style.css");

/// What a browser may do for the page: show it, with its own style and icon. Nothing else, whatever the page holds.
#[must_use]
pub fn policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let style = BASE64.encode(&Sha256::digest(STYLE));
        format!(
            "default-src 'none'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        )
    });
    &POLICY
}

/// The page.
#[must_use]
pub fn render(view: &View) -> String {
    let mut html = Html::default();
    let attention = attention::of(view);
    let level = attention.iter().map(|item| item.level).max().unwrap_or(Level::Good);
    head(&mut html, view, level);
    html.raw("<body>");
    banner(&mut html, view, level);
    html.raw("<main>");
    notices(&mut html, &attention);
    tiles(&mut html, view);
    html.raw("<div class=\"charts\">");
    chart::requests(&mut html, &view.steps);
    chart::latency(&mut html, &view.steps);
    chart::transfer(&mut html, &view.steps);
    html.raw("</div>");
    material::upstreams(&mut html, view);
    refusals::requests(&mut html, view);
    refusals::handshakes(&mut html, view);
    clients::connected(&mut html, view);
    material::certificates(&mut html, view);
    material::lists(&mut html, view);
    clients::expiring(&mut html, view);
    material::reloads(&mut html, view);
    material::listeners(&mut html, view);
    html.raw("</main><footer><p>More: <a href=\"/config\">configuration in force</a> · <a href=\"/revocation\">revocation</a>. ");
    html.raw("Figures are of this process, since its start. Times are UTC.</p></footer></body></html>\n");
    html.finish()
}

fn head(html: &mut Html, view: &View, level: Level) {
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\"><meta name=\"robots\" content=\"noindex\">");
    if let Refresh::Every(seconds) = view.refresh {
        html.raw("<meta http-equiv=\"refresh\"").attribute("content", seconds).raw(">");
    }
    html.raw("<title>").text(state(view, level)).raw(" · Portcullis</title>");
    html.raw(match level {
        Level::Good => icon!("%231a7f4b"),
        Level::Warn => icon!("%23b26a00"),
        Level::Bad => icon!("%23c0362c"),
    });
    html.raw("<style>").raw(STYLE).raw("</style></head>");
}

fn state(view: &View, level: Level) -> &'static str {
    match level {
        _ if view.draining => "Draining",
        Level::Good => "Serving",
        Level::Warn => "Serving, look soon",
        Level::Bad => "Needs attention",
    }
}

fn banner(html: &mut Html, view: &View, level: Level) {
    html.raw("<header><div class=\"name\"><svg class=\"gate\" viewBox=\"0 0 16 16\" aria-hidden=\"true\">");
    html.raw("<path d=\"M3 15V6a5 5 0 0 1 10 0v9M6.3 3v12M9.7 3v12M3 7h10M3 11h10\"/></svg><h1>Portcullis</h1>");
    html.raw("<span")
        .class(&["badge", level.class()])
        .raw(">")
        .text(state(view, level))
        .raw("</span></div><p class=\"meta\">");
    html.raw("<span>generation <b>").text(view.generation).raw("</b></span>");
    html.raw("<span>up <b>").text(time::span(view.now - view.started)).raw("</b></span>");
    html.raw("<span>").text(view.version).raw(" (").text(view.backend).raw(")</span>");
    html.raw("<span>as of ").element("b", time::Moment { at: view.now, now: view.now }).raw("</span>");
    match view.refresh {
        Refresh::Every(seconds) => {
            html.raw("<span>anew every ").text(seconds).raw(" s · <a href=\"/?refresh=off\">hold</a></span>");
        }
        Refresh::Off => {
            html.raw("<span>held · <a href=\"/\">go on</a></span>");
        }
    }
    html.raw("</p></header>");
}

fn notices(html: &mut Html, attention: &[Attention]) {
    if attention.is_empty() {
        return;
    }
    html.raw("<ul class=\"notices\">");
    for item in attention {
        html.raw("<li").class(&[item.level.class()]).raw("><a").attribute("href", item.place).raw(">");
        html.text(&item.text).raw("</a></li>");
    }
    html.raw("</ul>");
}

/// Over how many of the last steps the figures at the top are taken: a minute.
const FIGURES: usize = 12;

fn tiles(html: &mut Html, view: &View) {
    let last = Step::sum(view.steps.iter().rev().take(FIGURES));
    let counts = &last.counts;
    let rate = |fate| time::rate(last.per_second(counts.requests(fate)));
    html.raw("<ul class=\"tiles\">");
    let mut tile = |name: &str, value: &str, unit: &str, note: &str, level: Option<Level>| {
        html.raw("<li").class(&[level.map_or("", Level::class)]).raw(">").element("span", name);
        html.raw("<b>").text(value).raw("<small>").text(unit).raw("</small></b>").element("em", note).raw("</li>");
    };
    let total = |fate| format!("{} so far", time::count(view.totals.requests(fate)));
    let is_there = |fate, level| (counts.requests(fate) > 0).then_some(level);
    let quantile = |share| counts.quantile(share).map_or_else(|| "–".to_owned(), time::seconds);
    tile("Served", &rate(Fate::Served), "/s", &total(Fate::Served), None);
    tile("Refused", &rate(Fate::Refused), "/s", &total(Fate::Refused), is_there(Fate::Refused, Level::Warn));
    tile("Failed", &rate(Fate::Failed), "/s", &total(Fate::Failed), is_there(Fate::Failed, Level::Bad));
    tile("Latency, half", &quantile(0.5), "", "last minute", None);
    tile("Latency, 99 %", &quantile(0.99), "", "last minute", None);
    let clients = match view.clients.total() {
        1 => format!("of {}, 1 client", time::count_of(view.clients.limit)),
        many => format!("of {}, {} clients", time::count_of(view.clients.limit), time::count_of(many)),
    };
    tile("Connections", &view.clients.connections.to_string(), "", &clients, None);
    let sent = time::bytes(last.per_second(counts.sent()));
    tile("To clients", &sent, "/s", "pulled, last minute", None);
    let received = time::bytes(last.per_second(counts.received()));
    tile("From clients", &received, "/s", "pushed, last minute", None);
    html.raw("</ul>");
}

impl Level {
    /// The name of the style, and what it is called in words.
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

#[cfg(test)]
mod tests;
