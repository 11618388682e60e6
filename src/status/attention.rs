//! What somebody should look at, at the top of the page.

use std::time::Duration;

use super::Level;
use super::time::{away, count};
use super::view::{View, time_left};

/// One thing to look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attention {
    pub(super) level: Level,
    pub(super) text: String,
    /// Where on the page there is more.
    pub(super) place: &'static str,
}

/// How long before its end a certificate of the configuration is spoken of.
pub(super) const CERTIFICATE_WARNING: Duration = Duration::from_hours(14 * 24);

/// Everything to look at, the worst first.
pub(super) fn of(view: &View) -> Vec<Attention> {
    let mut all = Vec::new();
    upstreams(view, &mut all);
    material(view, &mut all);
    control(view, &mut all);
    records(view, &mut all);
    all.sort_by_key(|item| std::cmp::Reverse(item.level));
    all
}

fn upstreams(view: &View, all: &mut Vec<Attention>) {
    const PLACE: &str = "#upstreams";
    for upstream in &view.upstreams {
        let level = upstream.level();
        let text = match level {
            Level::Good => continue,
            _ if upstream.addresses.is_empty() => format!("Upstream {}: its name doesn't resolve", upstream.name),
            Level::Bad => format!("Upstream {} is down", upstream.name),
            Level::Warn => {
                let down: Vec<&str> =
                    upstream.addresses.iter().filter(|(_, up)| !up).map(|(address, _)| address.as_str()).collect();
                format!("Upstream {}: {} is down", upstream.name, down.join(", "))
            }
        };
        all.push(Attention { level, text, place: PLACE });
    }
}

fn material(view: &View, all: &mut Vec<Attention>) {
    for certificate in &view.certificates {
        let level = time_left(certificate.not_before, certificate.not_after, view.now, CERTIFICATE_WARNING);
        if level > Level::Good {
            let ends = ends(certificate.not_after - view.now);
            let text = format!("The {} certificate of {} {ends}", certificate.kind.replace('_', " "), certificate.name);
            all.push(Attention { level, text, place: "#certificates" });
        }
    }
    const LISTS: &str = "#revocation";
    for source in &view.sources {
        if !source.faults.is_empty() {
            let text = format!("Revocation lists: {} is at fault; the last good list stays in force", source.name);
            all.push(Attention { level: Level::Warn, text, place: LISTS });
        }
        for list in source.lists.iter().filter(|list| list.vouches) {
            let level = time_left(list.this_update, list.next_update, view.now, list.warning);
            if level > Level::Good {
                let text = format!("The revocation list of {} {}", list.issuer, ends(list.next_update - view.now));
                all.push(Attention { level, text, place: LISTS });
            }
        }
    }
    if view.uncovered_refused {
        let refused = view.uncovered.iter().map(|issuer| Attention {
            level: Level::Bad,
            text: format!("There is no revocation list of {issuer}: its clients are refused"),
            place: LISTS,
        });
        all.extend(refused);
    }
}

fn ends(left: i64) -> String {
    if left < 0 { format!("ran out {}", away(left)) } else { format!("runs out {}", away(left)) }
}

fn control(view: &View, all: &mut Vec<Attention>) {
    const PLACE: &str = "#reloads";
    if view.reloads.first().is_some_and(|last| !last.ok) {
        let text = format!("The last reload failed: generation {} stays in force", view.generation);
        all.push(Attention { level: Level::Bad, text, place: PLACE });
    }
    if view.shadow_failed {
        let text = "The shadow policy's file is at fault: an older one is evaluated, or none".to_owned();
        all.push(Attention { level: Level::Warn, text, place: PLACE });
    }
    if view.draining {
        let text = "The gateway is leaving: it takes no more connections".to_owned();
        all.push(Attention { level: Level::Warn, text, place: "#clients" });
    }
}

fn records(view: &View, all: &mut Vec<Attention>) {
    let ailments = &view.ailments;
    let mut note = |level, applies: bool, text: String| {
        if applies {
            all.push(Attention { level, text, place: "#reloads" });
        }
    };
    note(Level::Bad, ailments.audit_fails, "The audit log can't be written".to_owned());
    note(Level::Warn, ailments.state_fails, "The state directory can't be written: a restart forgets".to_owned());
    let lost = |what, number| format!("{} {what} could not be written since the start", count(number));
    note(Level::Warn, ailments.access_records_lost > 0, lost("access records", ailments.access_records_lost));
    note(Level::Warn, ailments.log_messages_lost > 0, lost("messages of the log", ailments.log_messages_lost));
}
