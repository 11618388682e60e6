use std::time::Duration;

use super::*;
use crate::telemetry::{Ailments, Counts};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 3600;

/// A gateway at rest.
fn view() -> View {
    View {
        now: NOW,
        started: NOW - 3600,
        version: "1.2.3",
        backend: "boringssl",
        generation: 7,
        draining: false,
        refresh: Refresh::Every(10),
        listeners: vec![ListenerView {
            name: "main".to_owned(),
            address: "0.0.0.0:443".to_owned(),
            demands: "a client certificate".to_owned(),
        }],
        certificates: vec![certificate(200)],
        sources: vec![SourceView {
            name: "ca.crl".to_owned(),
            last_success: Some(NOW - 5),
            awaited: false,
            lists: vec![list(20)],
            faults: Vec::new(),
        }],
        uncovered: Vec::new(),
        uncovered_refused: true,
        expiring: Vec::new(),
        reloads: vec![reload(true, "")],
        shadow_failed: false,
        clients: ClientsView { limit: 1000, ..ClientsView::default() },
        refusals: Vec::new(),
        handshakes: Vec::new(),
        upstreams: vec![upstream(&[("127.0.0.1:5000", true)])],
        steps: Vec::new(),
        totals: Counts::default(),
        ailments: Ailments::default(),
    }
}

/// With so many of 365 days left.
fn certificate(days: i64) -> CertificateView {
    CertificateView {
        kind: "server",
        name: "main".to_owned(),
        subject: "CN=registry.example.com".to_owned(),
        not_before: NOW + (days - 365) * DAY,
        not_after: NOW + days * DAY,
    }
}

/// With so many of 30 days left.
fn list(days: i64) -> ListView {
    ListView {
        issuer: "CN=CA".to_owned(),
        standing: "in force",
        vouches: true,
        number: Some("3".to_owned()),
        entries: 2,
        this_update: NOW + (days - 30) * DAY,
        next_update: NOW + days * DAY,
        warning: Duration::from_hours(48),
    }
}

fn reload(ok: bool, report: &str) -> ReloadView {
    let (origin, report) = ("admin".to_owned(), report.to_owned());
    ReloadView { at: NOW - 60, origin, took: Duration::from_millis(3), generation: 7, ok, report }
}

fn upstream(addresses: &[(&str, bool)]) -> UpstreamView {
    UpstreamView {
        name: "registry".to_owned(),
        checked: true,
        addresses: addresses.iter().map(|(address, up)| ((*address).to_owned(), *up)).collect(),
        load: (1, 0),
        faults: vec![("connect", 12)],
    }
}

fn refusal(identity: &str) -> RefusalView {
    RefusalView {
        at: NOW - 1,
        times: 3,
        identity: identity.to_owned(),
        address: "192.0.2.7".to_owned(),
        action: "push".to_owned(),
        repository: "team-a/app".to_owned(),
        reference: "v1".to_owned(),
        reason: "denied",
        rule: "default deny".to_owned(),
        decision: Some("01HF7YAT3V0000000000000007".to_owned()),
    }
}

#[test]
fn a_gateway_at_rest_needs_no_attention() {
    let page = render(&view());
    for part in [
        "<title>Serving · Portcullis</title>",
        "generation <b>7</b>",
        "up <b>60 min</b>",
        "CN=registry.example.com",
        "in 200 days",
        "Nothing",
        "0.0.0.0:443",
        "127.0.0.1:5000",
        "connect 12",
        "content=\"10\"",
    ] {
        assert!(page.contains(part) != (part == "Nothing"), "{part}\nin\n{page}");
    }
    assert!(!page.contains("class=\"notices\""), "{page}");
}

#[test]
fn what_needs_attention_stands_at_the_top_the_worst_first() {
    let mut view = view();
    view.certificates.push(certificate(10));
    view.sources[0].lists = vec![list(-1)];
    view.sources[0].faults = vec!["it is empty".to_owned()];
    view.upstreams = vec![upstream(&[("a:1", true), ("b:1", false)]), upstream(&[("c:1", false)]), upstream(&[])];
    view.reloads.insert(0, reload(false, "policy.yaml:3: rules[0].effect: what is this?"));
    view.ailments = Ailments { audit_fails: true, access_records_lost: 5, ..Ailments::default() };
    view.uncovered = vec!["CN=Other".to_owned()];
    let found = attention::of(&view);
    let texts: Vec<&str> = found.iter().map(|item| item.text.as_str()).collect();
    for text in [
        "The server certificate of main runs out in 10 days",
        "The revocation list of CN=CA ran out 24 h ago",
        "Revocation lists: ca.crl is at fault; the last good list stays in force",
        "Upstream registry: b:1 is down",
        "Upstream registry is down",
        "Upstream registry: its name doesn't resolve",
        "The last reload failed: generation 7 stays in force",
        "The audit log can't be written",
        "5 access records could not be written since the start",
        "There is no revocation list of CN=Other: its clients are refused",
    ] {
        assert!(texts.contains(&text), "{text}\nnot in\n{texts:#?}");
    }
    assert!(found.is_sorted_by_key(|item| std::cmp::Reverse(item.level)), "{found:#?}");
    let page = render(&view);
    assert!(page.contains("<title>Needs attention") && page.contains("policy.yaml:3: rules[0].effect"), "{page}");
}

#[test]
fn nothing_that_a_client_chose_becomes_markup() {
    let hostile = "CN=<script>alert(1)</script>\"'&";
    let mut view = view();
    view.refusals = vec![RefusalView {
        repository: hostile.to_owned(),
        reference: hostile.to_owned(),
        rule: hostile.to_owned(),
        action: hostile.to_owned(),
        address: hostile.to_owned(),
        decision: Some(hostile.to_owned()),
        ..refusal(hostile)
    }];
    view.handshakes = vec![HandshakeView {
        at: NOW,
        times: 1,
        address: hostile.to_owned(),
        listener: hostile.to_owned(),
        reason: "unknown_ca",
        detail: hostile.to_owned(),
    }];
    view.clients.clients = vec![ClientView {
        identity: hostile.to_owned(),
        address: hostile.to_owned(),
        listener: hostile.to_owned(),
        connections: 1,
        requests: 1,
        not_after: NOW,
    }];
    view.certificates[0].subject = hostile.to_owned();
    view.certificates[0].name = hostile.to_owned();
    view.sources[0].name = hostile.to_owned();
    view.sources[0].faults = vec![hostile.to_owned()];
    view.sources[0].lists[0].issuer = hostile.to_owned();
    view.uncovered = vec![hostile.to_owned()];
    view.reloads = vec![ReloadView { origin: hostile.to_owned(), ..reload(false, hostile) }];
    view.upstreams[0].name = hostile.to_owned();
    view.upstreams[0].addresses = vec![(hostile.to_owned(), false)];
    let calm = render(&self::view());
    let page = render(&view);
    assert!(page.matches("&lt;script&gt;alert(1)&lt;/script&gt;").count() > 15, "{page}");
    assert!(!page.contains("<script") && !calm.contains("<script"), "{page}");
    assert!(!page.contains("'&\"") && !page.contains("\"'&"), "{page}");
}

#[test]
fn the_page_is_whole_without_anything_from_elsewhere() {
    let page = render(&view());
    for part in ["http://", "https://", "src=", "@import", "url(", " style=", "onload"] {
        let found = page.replace("http://www.w3.org/2000/svg", "").contains(part);
        assert!(!found, "{part}\nin\n{page}");
    }
    let style = page.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>")).expect("a style").0;
    let hash = BASE64.encode(&Sha256::digest(style));
    assert!(policy().contains(&format!("style-src 'sha256-{hash}'")) && policy().starts_with("default-src 'none'"));
}

#[test]
fn the_browser_is_told_when_to_ask_again() {
    for (query, refresh) in [
        ("", Refresh::Every(10)),
        ("refresh=off", Refresh::Off),
        ("x=1&refresh=2", Refresh::Every(2)),
        ("refresh=1", Refresh::Every(10)),
        ("refresh=99999999999", Refresh::Every(10)),
    ] {
        assert_eq!(Refresh::parse(query), refresh, "{query}");
    }
    assert!(!render(&View { refresh: Refresh::Off, ..view() }).contains("http-equiv"));
}

#[test]
fn refusals_tell_who_what_and_by_which_rule() {
    let page = render(&View { refusals: vec![refusal("CN=ci-7")], ..view() });
    for part in ["CN=ci-7", "team-a/app", "default deny", "× 3", "/explain?decision=01HF7YAT3V0000000000000007"] {
        assert!(page.contains(part), "{part}\nnot in\n{page}");
    }
}

/// A quarter of an hour of work, with a fault in the middle.
fn busy() -> Vec<Step> {
    let step = |number: u64| {
        let failing = (90..100).contains(&number);
        let counts = Counts::made(&[
            (Fate::Served, if failing { 20 } else { 200 + (number * 37) % 90 }),
            (Fate::Refused, (number * 13) % 17),
            (Fate::Broken, (number * 7) % 5),
            (Fate::Failed, if failing { 150 } else { 0 }),
        ]);
        Step { time: Duration::from_secs(5), counts }
    };
    (0..180).map(step).collect()
}

#[test]
fn a_page_full_of_everything_stays_small() {
    let mut full = View { steps: busy(), ..view() };
    full.refusals = (0..30).map(|number| refusal(&format!("CN=client-{number}"))).collect();
    full.certificates = (1..12).map(|month| certificate(month * 30)).collect();
    full.certificates.push(certificate(9));
    let page = render(&full);
    assert_eq!(full.steps.len(), 180);
    assert!(page.matches("v-").count() > 300, "every step is drawn");
    assert!(page.len() < 128 * 1024, "{} bytes", page.len());
}
