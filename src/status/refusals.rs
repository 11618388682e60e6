//! Who was turned away lately, and why.

use super::html::Html;
use super::time::{Moment, count};
use super::view::{HandshakeView, RefusalView, View};

/// Requests, by rule.
pub(super) fn requests(html: &mut Html, view: &View) {
    html.section("denials", "Refused requests", "the last ones, alike ones together");
    if view.refusals.is_empty() {
        html.raw("<p class=\"none\">None so far.</p></section>");
        return;
    }
    html.table(&["When", "Client", "Wanted", "Reason", "Rule", "Decision"]);
    for refusal in &view.refusals {
        request(html, refusal, view.now);
    }
    html.raw("</tbody></table></section>");
}

fn request(html: &mut Html, refusal: &RefusalView, now: i64) {
    html.raw("<tr>");
    html.cell("When", |html| {
        html.text(Moment { at: refusal.at, now });
        times(html, refusal.times);
    });
    html.cell("Client", |html| {
        html.element("b", &refusal.identity).raw(" ").element("small", &refusal.address);
    });
    html.cell("Wanted", |html| {
        html.text(&refusal.action).raw(" ").element("code", &refusal.repository);
        if !refusal.reference.is_empty() {
            html.raw(" <small>").text(&refusal.reference).raw("</small>");
        }
    });
    html.cell("Reason", |html| {
        html.text(refusal.reason);
    });
    html.cell("Rule", |html| {
        html.text(&refusal.rule);
    });
    html.cell("Decision", |html| {
        if let Some(decision) = &refusal.decision {
            html.raw("<a").attribute("href", format_args!("/explain?decision={decision}")).raw(">why</a> ");
            html.raw("<small class=\"id\">").text(decision).raw("</small>");
        }
    });
    html.raw("</tr>");
}

/// Clients whose certificates were not accepted: they have no request yet.
pub(super) fn handshakes(html: &mut Html, view: &View) {
    if view.handshakes.is_empty() {
        return;
    }
    html.section("handshakes", "Refused certificates", "clients that did not get in");
    html.table(&["When", "From", "Reason", "Cause"]);
    for HandshakeView { at, times: number, address, listener, reason, detail } in &view.handshakes {
        html.raw("<tr>");
        html.cell("When", |html| {
            html.text(Moment { at: *at, now: view.now });
            times(html, *number);
        });
        html.cell("From", |html| {
            html.text(address).raw(" ").element("small", listener);
        });
        html.cell("Reason", |html| {
            html.text(reason);
        });
        html.cell("Cause", |html| {
            html.text(detail);
        });
        html.raw("</tr>");
    }
    html.raw("</tbody></table></section>");
}

fn times(html: &mut Html, times: u64) {
    if times > 1 {
        html.raw(" <span class=\"times\">× ").text(count(times)).raw("</span>");
    }
}
