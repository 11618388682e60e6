//! Who is connected, and whose certificate runs out.

use std::time::Duration;

use super::Level;
use super::html::Html;
use super::time::{Moment, away, count, count_of};
use super::view::{ClientView, View};
use crate::telemetry::ExpiringClient;

/// Clients with certificates that near their end that are shown.
const MOST_EXPIRING: usize = 20;

/// When a certificate's end is spoken of here.
const SOON: i64 = Duration::from_hours(24).as_secs().cast_signed();

/// Live connections by client.
pub(super) fn connected(html: &mut Html, view: &View) {
    let clients = &view.clients;
    let note = match clients.connections {
        0 => "nobody is connected".to_owned(),
        1 => "1 connection".to_owned(),
        many if clients.total() == 1 => format!("{} connections of 1 client", count_of(many)),
        many => format!("{} connections of {} clients", count_of(many), count_of(clients.total())),
    };
    html.section("clients", "Connected clients", note);
    if !clients.clients.is_empty() {
        html.table(&["Client", "Connections", "Requests", "Newest from", "Certificate ends"]);
        for client in &clients.clients {
            row(html, client, view.now);
        }
        html.raw("</tbody></table>");
    }
    if clients.others > 0 {
        html.raw("<p class=\"none\">and ").text(count_of(clients.others)).raw(" clients with fewer connections</p>");
    }
    html.raw("</section>");
}

fn row(html: &mut Html, client: &ClientView, now: i64) {
    html.raw("<tr>");
    html.cell("Client", |html| {
        html.element("b", &client.identity);
    });
    html.cell("Connections", |html| {
        html.text(count_of(client.connections));
    });
    html.cell("Requests", |html| {
        html.text(count(client.requests));
    });
    html.cell("Newest from", |html| {
        html.text(&client.address).raw(" ").element("small", &client.listener);
    });
    html.cell("Certificate ends", |html| {
        let level = if client.not_after - now < SOON { Level::Warn.class() } else { "" };
        html.raw("<span").class(&[level]).raw(">").text(away(client.not_after - now)).raw("</span>");
    });
    html.raw("</tr>");
}

/// Clients that still come with a certificate that runs out soon.
pub(super) fn expiring(html: &mut Html, view: &View) {
    if view.expiring.is_empty() {
        return;
    }
    html.section("expiring", "Clients to renew", "their certificates run out soon, and they still come");
    html.table(&["Client", "Runs out", "Serial", "Last seen"]);
    for ExpiringClient { label, serial, not_after, last_seen, .. } in view.expiring.iter().take(MOST_EXPIRING) {
        html.raw("<tr>");
        html.cell("Client", |html| {
            html.element("b", label);
        });
        html.cell("Runs out", |html| {
            let level = if not_after - view.now < SOON { Level::Bad } else { Level::Warn };
            html.raw("<span").class(&[level.class()]).raw(">").text(away(not_after - view.now)).raw("</span>");
        });
        html.cell("Serial", |html| {
            html.element("code", serial);
        });
        html.cell("Last seen", |html| {
            html.text(Moment { at: *last_seen, now: view.now });
        });
        html.raw("</tr>");
    }
    html.raw("</tbody></table>");
    let more = view.expiring.len().saturating_sub(MOST_EXPIRING);
    if more > 0 {
        html.raw("<p class=\"none\">and ")
            .text(count_of(more))
            .raw(" more: <a href=\"/revocation\">all of them</a></p>");
    }
    html.raw("</section>");
}
