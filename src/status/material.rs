//! What the gateway serves with: registries, certificates, revocation lists, reloads, listeners.

use std::time::Duration;

use super::Level;
use super::attention::CERTIFICATE_WARNING;
use super::html::Html;
use super::time::{Moment, ago, away, count, count_of, date};
use super::view::{ReloadView, SourceView, UpstreamView, View, time_left};

/// The registries and how they are.
pub(super) fn upstreams(html: &mut Html, view: &View) {
    html.section("upstreams", "Upstreams", "registries behind the gateway");
    html.table(&["Upstream", "State", "Addresses", "In use", "Waiting", "Errors so far"]);
    for upstream in &view.upstreams {
        html.raw("<tr>");
        html.cell("Upstream", |html| {
            html.element("b", &upstream.name);
        });
        html.cell("State", |html| state(html, upstream));
        html.cell("Addresses", |html| {
            for (address, healthy) in &upstream.addresses {
                html.raw("<span").class(&["address", if *healthy { "" } else { "bad" }]).raw(">").text(address);
                html.raw(if *healthy { "</span> " } else { " down</span> " });
            }
        });
        html.cell("In use", |html| {
            html.text(upstream.load.0);
        });
        html.cell("Waiting", |html| {
            html.text(upstream.load.1);
        });
        html.cell("Errors so far", |html| {
            if upstream.faults.is_empty() {
                html.text("none");
            }
            for (position, (fault, number)) in upstream.faults.iter().enumerate() {
                html.raw(if position == 0 { "" } else { ", " })
                    .text(fault.replace('_', " "))
                    .raw(" ")
                    .text(count(*number));
            }
        });
        html.raw("</tr>");
    }
    html.raw("</tbody></table></section>");
}

fn state(html: &mut Html, upstream: &UpstreamView) {
    let level = upstream.level();
    let word = match (level, upstream.checked) {
        (Level::Good, true) => "up",
        (Level::Good, false) => "not checked",
        (Level::Warn, _) => "partly down",
        (Level::Bad, _) if upstream.addresses.is_empty() => "no address",
        (Level::Bad, _) => "down",
    };
    html.raw("<span").class(&["badge", level.class()]).raw(">").text(word).raw("</span>");
}

/// Certificates of the configuration, the next to end first.
pub(super) fn certificates(html: &mut Html, view: &View) {
    html.section("certificates", "Certificates", "of the configuration, with the time left");
    html.table(&["For", "Subject", "Ends", "Left"]);
    let mut certificates: Vec<_> = view.certificates.iter().collect();
    certificates.sort_by_key(|certificate| certificate.not_after);
    for certificate in certificates {
        let (begin, end) = (certificate.not_before, certificate.not_after);
        html.raw("<tr>");
        html.cell("For", |html| {
            html.text(certificate.kind.replace('_', " ")).raw(" ").element("small", &certificate.name);
        });
        html.cell("Subject", |html| {
            html.element("b", &certificate.subject);
        });
        html.cell("Ends", |html| {
            html.text(date(end));
        });
        html.cell("Left", |html| left(html, (begin, end, view.now), CERTIFICATE_WARNING));
        html.raw("</tr>");
    }
    html.raw("</tbody></table></section>");
}

/// A bar for the time left of a lifetime, and the time in words.
fn left(html: &mut Html, (begin, end, now): (i64, i64, i64), warning: Duration) {
    let level = time_left(begin, end, now, warning);
    let lifetime = end.saturating_sub(begin).max(1);
    // What is left at all can be seen.
    let least = if end > now { 2 } else { 0 };
    let percent = (end.saturating_sub(now).saturating_mul(100) / lifetime).clamp(least, 100);
    html.raw("<svg class=\"left\" viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
    html.raw("<rect class=\"track\" width=\"100\" height=\"6\"/><rect").class(&[level.class()]);
    html.attribute("width", percent).raw(" height=\"6\"/></svg><span").class(&[level.class()]).raw(">");
    html.text(away(end - now)).raw("</span>");
}

/// Revocation lists, by source.
pub(super) fn lists(html: &mut Html, view: &View) {
    html.section("revocation", "Revocation lists", "with the time left");
    if view.sources.is_empty() {
        html.raw("<p class=\"none\">Revocation is not checked: revocation.crls names no source.</p></section>");
        return;
    }
    html.table(&["Source", "Issuer", "Number", "Entries", "Ends", "Left"]);
    for source in &view.sources {
        source_rows(html, source, view.now);
    }
    html.raw("</tbody></table>");
    for issuer in &view.uncovered {
        html.raw("<p")
            .class(&["note", if view.uncovered_refused { "bad" } else { "warn" }])
            .raw(">No list of ")
            .text(issuer);
        html.raw(if view.uncovered_refused {
            ": certificates that it signed are refused.</p>"
        } else {
            ": nothing that it signed is revoked.</p>"
        });
    }
    html.raw("</section>");
}

fn source_rows(html: &mut Html, source: &SourceView, now: i64) {
    let about = |html: &mut Html| {
        html.element("code", &source.name);
        match source.last_success {
            Some(at) => html.raw(" <small>last good ").text(ago(now - at)).raw("</small>"),
            None if source.awaited => html.raw(" <small>not fetched yet</small>"),
            None => html.raw(" <small class=\"bad\">never good so far</small>"),
        };
        for fault in &source.faults {
            html.raw("<p class=\"warn\">").text(fault).raw("</p>");
        }
    };
    if source.lists.is_empty() {
        html.raw("<tr>").cell("Source", about).raw("<td class=\"none\" colspan=\"5\">no list</td></tr>");
    }
    for list in &source.lists {
        html.raw("<tr>").cell("Source", about);
        html.cell("Issuer", |html| {
            html.element("b", &list.issuer).raw(" ").element("small", list.standing);
        });
        html.cell("Number", |html| {
            html.text(list.number.as_deref().unwrap_or("none"));
        });
        html.cell("Entries", |html| {
            html.text(count_of(list.entries));
        });
        html.cell("Ends", |html| {
            html.text(Moment { at: list.next_update, now });
        });
        html.cell("Left", |html| left(html, (list.this_update, list.next_update, now), list.warning));
        html.raw("</tr>");
    }
}

/// Reloads, with what was found in the files.
pub(super) fn reloads(html: &mut Html, view: &View) {
    html.section("reloads", "Reloads", format_args!("generation {} is in force", view.generation));
    html.raw("<ol class=\"reloads\">");
    for ReloadView { at, origin, took, generation, ok, report } in &view.reloads {
        let level = if *ok { Level::Good } else { Level::Bad };
        html.raw("<li><p>").text(Moment { at: *at, now: view.now }).raw(" <span").class(&["badge", level.class()]);
        html.raw(if *ok { ">in force</span> " } else { ">failed</span> " });
        html.raw("generation ").text(generation).raw(" <small>").text(origin).raw(", ");
        html.text(super::time::seconds(took.as_secs_f64())).raw("</small></p>");
        if !report.trim().is_empty() {
            html.raw("<pre>").text(report.trim()).raw("</pre>");
        }
        html.raw("</li>");
    }
    html.raw("</ol></section>");
}

/// Where the gateway listens.
pub(super) fn listeners(html: &mut Html, view: &View) {
    html.section("listeners", "Listeners", "");
    html.table(&["Listener", "Address", "Asks for"]);
    for listener in &view.listeners {
        html.raw("<tr>");
        html.cell("Listener", |html| {
            html.element("b", &listener.name);
        });
        html.cell("Address", |html| {
            html.element("code", &listener.address);
        });
        html.cell("Asks for", |html| {
            html.text(&listener.demands);
        });
        html.raw("</tr>");
    }
    html.raw("</tbody></table></section>");
}
