//! The status page: what it shows of a gateway that works, in HTML and in a real browser.

use crate::support::chromium::{self, Chromium, Look};
use crate::support::gateway::{Gateway, gateway, plain_http};
use crate::support::pki::{self, Ca};
use crate::support::skip;
use crate::support::tls::PATIENCE;
use crate::support::upstream::{Answer, Upstream};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use super::revocation_live::time_in;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

const POLICY: &str = r#"
rules:
  - {name: readers, subjects: [any], repositories: ["public/**"], actions: [pull], effect: allow}
  - {name: no-archive, subjects: [any], repositories: ["public/archive/**"], actions: [push, overwrite], effect: deny}
"#;

/// A name that would be a script, if it were not escaped.
const HOSTILE: &str = "<script>alert(1)</script>";

/// The same as a client is called: what has a meaning in names is marked.
const SHOWN: &str = r"CN=\<script\>alert(1)\</script\>";

fn page(gateway: &Gateway) -> String {
    let reply = plain_http(gateway.admin(), "GET", "/");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    reply.text()
}

/// The text of one part of the page.
#[track_caller]
fn part<'a>(page: &'a str, id: &str) -> &'a str {
    let begin = page.find(&format!("<section id=\"{id}\">")).unwrap_or_else(|| panic!("no {id} in {page}"));
    let part = &page[begin..];
    &part[..part.find("</section>").expect("the part ends")]
}

#[track_caller]
fn holds(page: &str, id: &str, texts: &[&str]) {
    let part = part(page, id);
    for text in texts {
        assert!(part.contains(text), "{text}\nnot in\n{part}");
    }
}

/// Waits until the page holds a text.
#[track_caller]
fn wait_for(gateway: &Gateway, text: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let page = page(gateway);
        if page.contains(text) {
            return page;
        }
        assert!(Instant::now() < end, "{text}\nnever in\n{page}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A gateway that has seen something of everything: a pull, denials, a client that is revoked, one whose certificate runs
/// out soon, a registry that is down, a list that nears its end, and a reload that failed.
fn eventful() -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    upstream.answer(|_| Answer::new(200).body(b"{}"));
    let builder = gateway().upstream(upstream.url()).upstream("http://127.0.0.1:1").policy(POLICY);
    let revoked = builder.client_ca.issue(&pki::client("laptop-3").serial("0666"));
    let hostile = builder.client_ca.issue(&pki::bare_client(HOSTILE));
    let short = builder.client_ca.issue(&pki::client("short").valid("20260101000000Z", &time_in(3 * DAY - HOUR)));
    let other = Ca::root(&builder.pki(), "Other CA");
    let bundle = builder.client_ca.pem() + &other.pem();
    let list = builder.client_ca.crl().number(41).serial("0666");
    let list = list.last_update("20260101000000Z").next_update(&time_in(13 * HOUR - HOUR / 2)).pem();
    let builder = builder.file("client-ca.pem", &bundle).crl(&list).configure(|c| {
        c["upstreams"][1]["name"] = "mirror".into();
        c["upstreams"][1]["repositories"] = json!(["mirror"]);
        c["upstreams"][1]["health_check"] = json!({ "interval": "100ms", "timeout": "50ms", "unhealthy_after": 1 });
    });
    let gateway = builder.start();
    for _ in 0..20 {
        assert_eq!(gateway.h1().get("/v2/public/app/manifests/v1").status, 200);
    }
    let mut open = gateway.h2_as(&hostile);
    for _ in 0..3 {
        assert_eq!(open.get("/v2/secret/app/manifests/v1").status, 403);
    }
    assert_eq!(
        gateway.h1().request("PUT", "/v2/public/archive/manifests/v1", &[], b"x").expect("an answer").status,
        403
    );
    assert_eq!(gateway.h1_as(&short).get("/v2/public/app/manifests/v1").status, 200);
    assert!(refused(&gateway, &revoked), "it is revoked");
    gateway.write("policy.yaml", POLICY.replace("effect: deny", "effect: perhaps"));
    gateway.reload_refused();
    gateway.wait_for_metric("portcullis_upstream_healthy", &[("upstream", "mirror")], |n| n < 0.5);
    (upstream, gateway)
}

/// Whether the client gets no answer.
fn refused(gateway: &Gateway, identity: &pki::Identity) -> bool {
    match crate::support::client::H1::connect(&gateway.tls_as(identity)) {
        Ok(mut client) => client.request("GET", "/v2/", &[], b"").is_err(),
        Err(_) => true,
    }
}

#[test]
fn the_page_shows_what_goes_on_and_what_is_wrong() {
    let (_upstream, gateway) = eventful();
    let mut live = gateway.h2_as(&gateway.client("deployer"));
    assert_eq!(live.get("/v2/public/app/manifests/v1").status, 200);
    let page = wait_for(&gateway, "sa/deployer");
    holds(
        &page,
        "denials",
        &[r"CN=\&lt;script\&gt;alert(1)\&lt;/script\&gt;", "× 3", "pull", "secret/app", "denied", "default deny"],
    );
    holds(&page, "denials", &["push", "public/archive", "no-archive", "/explain?decision="]);
    holds(&page, "handshakes", &["revoked", "127.0.0.1", "main"]);
    holds(&page, "clients", &["sa/deployer", "main", "in "]);
    holds(
        &page,
        "upstreams",
        &["registry", "mirror", "127.0.0.1:1 down", ">down</span>", "health check", "not checked"],
    );
    holds(&page, "certificates", &["CN=gw.test", "server", "CN=Test Client CA", "client ca", "days"]);
    holds(&page, "revocation", &["ca.crl", "in force", "41", "in 12 h", "CN=Other CA", "are refused"]);
    holds(&page, "expiring", &["sa/short", "in 2 days"]);
    holds(&page, "reloads", &["failed", "policy.yaml:", "effect", "generation 1", "start"]);
    holds(
        &page,
        "listeners",
        &[&gateway.address().to_string(), &gateway.health().to_string(), &gateway.admin().to_string()],
    );
    for notice in
        ["Upstream mirror is down", "The last reload failed: generation 1 stays in force", "No list of CN=Other CA"]
    {
        assert!(page.contains(notice), "{notice}\nnot in\n{page}");
    }
    assert!(!page.contains("<script"), "{page}");
    // What the page leads to: the words of `policy explain`.
    let (_, rest) = part(&page, "denials").split_once("/explain?decision=").expect("a link");
    let id = rest.split('"').next().expect("the link ends");
    let why = plain_http(gateway.admin(), "GET", &format!("/explain?decision={id}"));
    assert!(why.text().contains("refused"), "{}", why.text());
}

#[test]
fn charts_and_figures_follow_the_traffic_within_seconds() {
    let upstream = Upstream::start();
    upstream.answer(|_| Answer::new(200).body(&[7; 100_000]));
    let gateway = gateway().upstream(upstream.url()).start();
    let calm = page(&gateway);
    assert!(calm.contains("0 so far") && !calm.contains("class=\"area s1\" d=\"M"), "{calm}");
    let mut client = gateway.h1();
    for _ in 0..50 {
        assert_eq!(client.get("/v2/a/manifests/v1").status, 200);
    }
    let busy = wait_for(&gateway, "50 so far");
    for drawn in ["class=\"area s1\" d=\"M", "class=\"line s1\" d=\"M", "4.8 MiB out"] {
        assert!(busy.contains(drawn), "{drawn}\nnot in\n{busy}");
    }
}

#[test]
fn a_reload_that_works_ends_the_complaint() {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).policy(POLICY).start();
    gateway.write("policy.yaml", "rules: 7");
    gateway.reload_refused();
    assert!(page(&gateway).contains("The last reload failed"));
    gateway.write("policy.yaml", POLICY);
    gateway.reload_ok();
    let page = page(&gateway);
    assert!(!page.contains("The last reload failed"), "{page}");
    holds(&page, "reloads", &["generation 2", "in force", "failed", "policy.yaml:1", "admin"]);
}

/// How the page is looked at: a phone and a desk, in the light and in the dark, with scripts and without.
const LOOKS: [(&str, Look); 4] = [
    ("phone-light", Look { width: 360, height: 780, dark: false, scripts: true }),
    ("phone-dark", Look { width: 360, height: 780, dark: true, scripts: false }),
    ("desk-light", Look { width: 1440, height: 900, dark: false, scripts: false }),
    ("desk-dark", Look { width: 1440, height: 900, dark: true, scripts: true }),
];

#[test]
fn a_browser_shows_it_on_a_phone_and_a_desk_light_and_dark_and_fetches_nothing_else() {
    if !skip::have(&["chromium"]) {
        return;
    }
    let (_upstream, gateway) = eventful();
    let mut live = gateway.h2_as(&gateway.client("deployer"));
    assert_eq!(live.get("/v2/public/app/manifests/v1").status, 200);
    wait_for(&gateway, "sa/deployer");
    let url = format!("http://{}/", gateway.admin());
    let mut browser = Chromium::start();
    let mut pictures = Vec::new();
    for (name, look) in LOOKS {
        browser.open(&url, look);
        let text = browser.text();
        for shown in [SHOWN, "default deny", "no-archive", "sa/deployer", "Upstream mirror is down", "Needs attention"]
        {
            assert!(text.contains(shown), "{name}: {shown}\nnot in\n{text}");
        }
        assert_eq!(browser.evaluate("document.scripts.length"), json!(0), "{name}");
        let width = browser.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)");
        assert_eq!(width, json!(look.width), "{name}: it is wider than the screen");
        let ground = browser.evaluate("getComputedStyle(document.body).backgroundColor");
        let ground = ground.as_str().expect("a colour").to_owned();
        assert_eq!(is_dark(&ground), look.dark, "{name}: {ground}");
        let drawn = browser.evaluate("document.querySelector('path.area.s1').getBoundingClientRect().width > 0");
        assert_eq!(drawn, json!(true), "{name}: the chart is drawn");
        let picture = browser.picture(false);
        // A screen of one colour takes two kilobytes.
        assert!(picture.len() > 15_000, "{name}: {} bytes", picture.len());
        chromium::keep(name, &picture);
        let tall = Look { height: browser.height(), ..look };
        browser.open(&url, tall);
        chromium::keep(&format!("{name}-whole"), &browser.picture(false));
        pictures.push(picture);
    }
    pictures.dedup();
    assert_eq!(pictures.len(), LOOKS.len(), "each look is another picture");
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    let foreign: Vec<_> = browser
        .asked()
        .into_iter()
        .filter(|asked| *asked != url && !asked.starts_with("data:image/svg+xml,"))
        .collect();
    assert_eq!(foreign, Vec::<String>::new(), "the page fetches something");
}

/// Whether a colour, as `rgb(r, g, b)`, is nearer to black.
fn is_dark(colour: &str) -> bool {
    let numbers = colour.trim_start_matches("rgb(").trim_end_matches(')').split(',');
    numbers.filter_map(|number| number.trim().parse::<u32>().ok()).sum::<u32>() < 3 * 128
}

#[test]
fn the_browser_follows_by_itself_until_it_is_told_to_hold() {
    if !skip::have(&["chromium"]) {
        return;
    }
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).policy(POLICY).start();
    let mut browser = Chromium::start();
    let look = Look { width: 1000, height: 800, dark: false, scripts: false };
    let url = format!("http://{}/", gateway.admin());
    browser.open(&format!("{url}?refresh=2"), look);
    assert!(browser.text().contains("None so far"), "{}", browser.text());
    assert_eq!(gateway.h1().get("/v2/secret/manifests/v1").status, 403);
    browser.wait_for_reload();
    let end = Instant::now() + PATIENCE;
    while !browser.text().contains("default deny") {
        assert!(Instant::now() < end, "{}", browser.text());
        browser.wait_for_reload();
    }
    browser.open(&format!("{url}?refresh=off"), look);
    assert_eq!(browser.evaluate("document.querySelector('meta[http-equiv]')"), Value::Null);
    // A link of the page is no request on behalf of another one.
    browser.evaluate("document.querySelector('#denials a').click()");
    browser.wait_for_reload();
    assert!(browser.text().contains("refused by default deny"), "{}", browser.text());
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}
