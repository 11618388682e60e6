//! Revocation lists behind URLs: what a server may do, and what a restart begins with.

use crate::support::gateway::{Builder, Gateway, gateway};
use crate::support::pki::{self, Ca, Identity};
use crate::support::process;
use crate::support::upstream::{Answer, Recorded, Upstream};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A server of lists. What it answers can be changed while it runs.
struct Server {
    upstream: Upstream,
    answer: Arc<Mutex<Answer>>,
}

impl Server {
    fn start(answer: Answer) -> Self {
        Self::on(Upstream::start(), answer)
    }

    fn on(upstream: Upstream, answer: Answer) -> Self {
        let answer = Arc::new(Mutex::new(answer));
        let inside = Arc::clone(&answer);
        upstream.answer(move |_| inside.lock().expect("no test panicked").clone());
        Self { upstream, answer }
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock().expect("no test panicked") = answer;
    }

    fn url(&self) -> String {
        format!("{}/ca.crl", self.upstream.url())
    }

    /// Waits until it has been asked `times` times since now, so that what it answers now has been seen.
    fn wait_until_asked(&self, times: usize) {
        self.upstream.take();
        let wanted = move |requests: &[Recorded]| requests.len() >= times;
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while !wanted(&self.upstream.requests()) {
            assert!(std::time::Instant::now() < end, "the gateway doesn't ask any more");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn list(bytes: impl AsRef<[u8]>) -> Answer {
    Answer::new(200).header("Content-Type", "application/pkix-crl").body(bytes.as_ref())
}

/// A gateway whose only list is behind a URL that is asked once a second.
fn with_url(builder: Builder, url: &str) -> Builder {
    builder.configure(|c| c["revocation"]["crls"] = json!([{ "url": url, "refresh": "1s", "timeout": "1s" }]))
}

fn is_served(gateway: &Gateway, identity: &Identity) -> bool {
    crate::support::client::H1::connect(&gateway.tls_as(identity))
        .map_err(std::io::Error::other)
        .and_then(|mut client| client.request("GET", "/v2/", &[], b""))
        .is_ok_and(|reply| reply.status == 200)
}

#[track_caller]
fn wait_for_entries(gateway: &Gateway, entries: f64) {
    gateway.wait_for_metric("portcullis_crl_entries", &[], |n| (n - entries).abs() < 0.5);
}

#[test]
fn a_list_is_fetched_at_the_start_and_again_when_it_changes() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    let server = Server::start(list(builder.client_ca.crl().pem()).header("ETag", "\"one\""));
    let gateway = with_url(builder, &server.url()).start();
    let victim = gateway.client("victim");
    let mut idle = gateway.both_as(&victim);
    let mut others = gateway.both();
    for client in idle.iter_mut().chain(&mut others) {
        assert_eq!(client.get("/v2/").status, 200, "{}", client.version());
    }
    // The same list again is no reload.
    let generation = gateway.generation();
    server.set(Answer::new(304));
    server.wait_until_asked(2);
    let asked = server.upstream.requests();
    assert!(asked.iter().any(|r| r.header("if-none-match") == Some("\"one\"")), "{asked:#?}");
    assert!((gateway.generation() - generation).abs() < 0.5, "a reload for nothing");
    server.set(list(gateway.client_ca.crl().number(2).revoke(&victim.certificate).pem()));
    wait_for_entries(&gateway, 1.0);
    for client in idle {
        assert!(client.has_ended_within(Duration::from_secs(5)), "the connection of the revoked stays");
    }
    assert!(!is_served(&gateway, &victim));
    for client in &mut others {
        assert_eq!(client.get("/v2/").status, 200, "{}: others stay connected", client.version());
    }
    gateway.wait_for_metric("portcullis_change_to_effect_seconds_count", &[], |n| n >= 1.0);
    gateway.wait_for_metric("portcullis_crl_last_success_timestamp_seconds", &[("source", &server.url())], |n| n > 0.0);
}

#[test]
fn a_reload_asks_at_once() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    let server = Server::start(list(builder.client_ca.crl().pem()));
    let mut gateway =
        with_url(builder, &server.url()).configure(|c| c["revocation"]["crls"][0]["refresh"] = "168h".into()).start();
    let victim = gateway.client("victim");
    assert!(is_served(&gateway, &victim));
    for (number, order) in [(2, "admin"), (3, "SIGHUP")] {
        let serials = (2..=number).fold(gateway.client_ca.crl(), |list, serial| list.serial(&format!("0{serial}")));
        server.set(list(serials.number(number).revoke(&victim.certificate).pem()));
        match order {
            "admin" => gateway.reload_ok(),
            _ => gateway.process().signal("HUP"),
        }
        gateway.wait_for_metric("portcullis_crl_number", &[], |n| (n - number as f64).abs() < 0.5);
        assert!(!is_served(&gateway, &victim), "{order}");
    }
}

#[test]
fn whatever_a_server_does_the_last_good_list_stays() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    let victim = builder.client_ca.issue(&pki::client("victim"));
    let good = builder.client_ca.crl().number(2).revoke(&victim.certificate).pem();
    let older = builder.client_ca.crl().number(1).pem();
    let foreign = Ca::root(&builder.pki(), "Test Client CA").crl().number(9).pem();
    let page = Answer::new(200).header("Content-Type", "text/html").body(b"<html><body>Please log in</body></html>");
    let faults: Vec<(&str, Answer, &str)> = vec![
        ("an error", Answer::new(500), "fetch_status"),
        ("not found", Answer::new(404), "fetch_status"),
        ("no content", Answer::new(204), "fetch_status"),
        (
            "nobody asked whether it changed",
            Answer::raw(b"HTTP/1.1 206 Partial\r\nContent-Length: 0\r\n\r\n"),
            "fetch_status",
        ),
        ("a redirect", Answer::new(302).header("Location", "http://other.invalid/ca.crl"), "fetch_redirect"),
        ("a page", page, "malformed"),
        ("nothing in it", list(""), "empty"),
        ("a list of another", list(&foreign), "bad_signature"),
        ("an older list", list(&older), "older"),
        ("cut off", list(&good).cut_after(200), "fetch_broken"),
        ("half a list", list(&good[..good.len() / 2]), "malformed"),
        ("no HTTP", Answer::raw(b"220 mail.example.com ESMTP\r\n"), "fetch_broken"),
        ("too much", Answer::new(200).pattern(0, 3 << 20), "fetch_too_large"),
        ("too much, without saying so", Answer::new(200).pattern(0, 3 << 20).chunked(), "fetch_too_large"),
        ("too slow", list(&good).slowly(10, Duration::from_millis(300)), "fetch_timeout"),
        ("no answer", list(&good).delay(Duration::from_secs(3)), "fetch_timeout"),
        ("compressed", list(&good).header("Content-Encoding", "gzip"), "fetch_broken"),
    ];
    let server = Server::start(list(&good));
    let gateway =
        with_url(builder, &server.url()).configure(|c| c["revocation"]["crls"][0]["max_size"] = "2MiB".into()).start();
    let mut stays = gateway.both();
    assert!(!is_served(&gateway, &victim));
    for (what, answer, kind) in faults {
        server.set(answer);
        gateway.wait_for_metric("portcullis_crl_errors_total", &[("fault", kind)], |n| n >= 1.0);
        gateway.wait_for_metric("portcullis_crl_failed", &[], |n| n >= 1.0);
        assert!(!is_served(&gateway, &victim), "{what}: the revoked client is served");
        assert!(is_served(&gateway, gateway.identity()), "{what}: a good client is refused");
        for client in &mut stays {
            assert_eq!(client.get("/v2/").status, 200, "{what}: {}", client.version());
        }
        server.set(list(&good));
        gateway.wait_for_metric("portcullis_crl_failed", &[], |n| n == 0.0);
    }
}

#[test]
fn a_gateway_without_any_list_refuses_until_one_comes() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    let other = Ca::root(&builder.pki(), "Other CA");
    let bundle = builder.client_ca.pem() + &other.pem();
    let good = builder.client_ca.crl().pem();
    let server = Server::start(Answer::new(503));
    let mut gateway =
        with_url(builder.file("client-ca.pem", &bundle).file("other.crl", &other.crl().pem()), &server.url())
            .configure(|c| {
                let sources = c["revocation"]["crls"].as_array_mut().expect("a list");
                sources.push(json!({ "file": "other.crl" }));
            })
            .start();
    assert!(!is_served(&gateway, gateway.identity()), "no list: nobody knows who is revoked");
    assert!(is_served(&gateway, &other.issue(&pki::client("x"))), "the issuer with a list");
    gateway.wait_for_log("status 503");
    server.set(list(good));
    wait_for_entries(&gateway, 0.0);
    gateway.wait_for_metric("portcullis_crl_failed", &[("source", &server.url())], |n| n == 0.0);
    assert!(is_served(&gateway, gateway.identity()), "the list is there");
}

/// Stops a gateway, and starts another with the same files.
#[track_caller]
fn restart(gateway: Gateway) -> Gateway {
    gateway.restart().unwrap_or_else(|log| panic!("the gateway did not start again:\n{log}"))
}

#[test]
fn a_restart_without_network_begins_with_the_last_good_list() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    let victim = builder.client_ca.issue(&pki::client("victim"));
    let good = builder.client_ca.crl().number(2).revoke(&victim.certificate).pem();
    let server = Server::start(list(&good).header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"));
    let address = server.upstream.address().to_string();
    let url = server.url();
    let gateway = with_url(builder, &url).configure(|c| c["state_directory"] = "state".into()).start();
    assert!(!is_served(&gateway, &victim) && is_served(&gateway, gateway.identity()));
    let copies = || std::fs::read_dir(gateway.path().join("state/crls")).map_or(0, Iterator::count);
    wait_until("the copy is kept", || copies() == 2);
    drop(server);
    let gateway = restart(gateway);
    assert!(!is_served(&gateway, &victim), "the revocation was forgotten");
    assert!(is_served(&gateway, gateway.identity()), "a good client is locked out");
    gateway.wait_for_metric("portcullis_crl_errors_total", &[("fault", "fetch_connect")], |n| n >= 1.0);
    // The network is back: the server is asked whether anything is new.
    let server = Server::on(Upstream::start_on(&address), Answer::new(304));
    gateway.wait_for_metric("portcullis_crl_failed", &[("source", &url)], |n| n == 0.0);
    let asked = server.upstream.wait_for(|request| request.has("if-modified-since"));
    assert_eq!(asked.header("if-modified-since"), Some("Thu, 01 Jan 2026 00:00:00 GMT"));
    assert!(!is_served(&gateway, &victim) && is_served(&gateway, gateway.identity()));
    // And a newer list replaces the copy.
    server.set(list(gateway.client_ca.crl().number(3).pem()));
    wait_for_entries(&gateway, 0.0);
    assert!(is_served(&gateway, &victim));
}

#[test]
fn a_restart_beside_a_broken_file_begins_with_the_last_good_list() {
    for (what, content) in [("empty", Some("")), ("a page", Some("<html>")), ("deleted", None)] {
        let registry = Upstream::start();
        let builder = gateway().upstream(registry.url());
        let victim = builder.client_ca.issue(&pki::client("victim"));
        let good = builder.client_ca.crl().number(2).revoke(&victim.certificate).pem();
        let gateway = builder.crl(&good).configure(|c| c["state_directory"] = "state".into()).start();
        wait_until("the copy is kept", || {
            std::fs::read_dir(gateway.path().join("state/crls")).map_or(0, Iterator::count) == 2
        });
        match content {
            Some(content) => gateway.write("ca.crl", content),
            None => std::fs::remove_file(gateway.path().join("ca.crl")).expect("it is there"),
        }
        let gateway = restart(gateway);
        assert!(!is_served(&gateway, &victim), "{what}: the revocation was forgotten");
        assert!(is_served(&gateway, gateway.identity()), "{what}: a good client is locked out");
        gateway.wait_for_metric("portcullis_crl_failed", &[], |n| n >= 1.0);
    }
}

#[test]
fn a_damaged_copy_is_said_and_what_the_server_has_counts() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    let victim = builder.client_ca.issue(&pki::client("victim"));
    let good = builder.client_ca.crl().number(2).revoke(&victim.certificate).pem();
    let server = Server::start(list(&good).header("ETag", "\"one\""));
    let gateway = with_url(builder, &server.url()).configure(|c| c["state_directory"] = "state".into()).start();
    let copies = gateway.path().join("state/crls");
    let copy = || {
        let mut entries = std::fs::read_dir(&copies).ok()?.flatten().map(|entry| entry.path());
        entries.find(|path| path.extension().is_some_and(|e| e == "crl"))
    };
    wait_until("the copy is kept", || copy().is_some());
    std::fs::write(copy().expect("there"), "garbage").expect("writable");
    let gateway = restart(gateway);
    wait_for_entries(&gateway, 1.0);
    assert!(!is_served(&gateway, &victim) && is_served(&gateway, gateway.identity()));
}

#[test]
fn a_list_that_is_played_back_after_a_restart_vouches_for_nobody() {
    for damaged in [false, true] {
        let registry = Upstream::start();
        let builder = gateway().upstream(registry.url());
        let victim = builder.client_ca.issue(&pki::client("victim"));
        let newer = builder.client_ca.crl().number(5).revoke(&victim.certificate).pem();
        let older = builder.client_ca.crl().number(4).pem();
        let gateway = builder.crl(&newer).configure(|c| c["state_directory"] = "state".into()).start();
        let numbers = gateway.path().join("state/crl-numbers");
        wait_until("the numbers and the copy are kept", || {
            let copies = std::fs::read_dir(gateway.path().join("state/crls")).map_or(0, Iterator::count);
            numbers.metadata().is_ok() && copies == 2
        });
        // Somebody puts the list of yesterday back, and removes what reminds of today's.
        gateway.write("ca.crl", &older);
        if damaged {
            // The copy still tells.
            std::fs::write(&numbers, "garbage").expect("writable");
        } else {
            std::fs::remove_dir_all(gateway.path().join("state/crls")).expect("it is there");
        }
        let mut gateway = restart(gateway);
        assert!(!is_served(&gateway, &victim), "damaged: {damaged}: the revocation was forgotten");
        assert_eq!(is_served(&gateway, gateway.identity()), damaged, "without a good list nobody knows");
        gateway.wait_for_metric("portcullis_crl_errors_total", &[("fault", "older")], |n| n >= 1.0);
        if damaged {
            gateway.wait_for_log("the highest CRL numbers can't be used");
            wait_until("the numbers are written anew", || {
                std::fs::read_to_string(&numbers).is_ok_and(|text| text.ends_with("# end\n"))
            });
        }
        gateway.write("ca.crl", gateway.client_ca.crl().number(6).pem());
        gateway.reload_ok();
        assert!(is_served(&gateway, gateway.identity()), "damaged: {damaged}: a newer list sets it right");
    }
}

#[test]
fn a_source_holds_the_lists_of_its_issuer_alone() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    let other = Ca::root(&builder.pki(), "Other CA");
    let bundle = builder.client_ca.pem() + &other.pem();
    let lists = builder.client_ca.crl().pem() + &other.crl().pem();
    let gateway = builder
        .file("client-ca.pem", &bundle)
        .crl(&lists)
        .configure(|c| c["revocation"]["crls"][0]["issuer"] = "CN=Other CA".into())
        .start();
    assert!(is_served(&gateway, &other.issue(&pki::client("x"))));
    assert!(!is_served(&gateway, gateway.identity()), "a list of another issuer than the one named counts");
    gateway.wait_for_metric("portcullis_crl_errors_total", &[], |n| n >= 1.0);
}

#[test]
fn https_is_verified() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    let web = Ca::root(&builder.pki(), "Web CA");
    let acceptor = crate::support::tls::acceptor(&web.issue(&pki::server(&["localhost"])), None);
    let good = builder.client_ca.crl().pem();
    let server = Server::on(Upstream::start_tls(acceptor), list(good));
    let mut gateway = with_url(builder.file("web-ca.pem", &web.pem()), &server.url())
        .configure(|c| c["revocation"]["crls"][0]["ca"] = "web-ca.pem".into())
        .start();
    assert!(is_served(&gateway, gateway.identity()));
    // Without the CA the server isn't believed; the list stays while it is good.
    gateway.change_config(|c| c["revocation"]["crls"][0]["ca"] = json!(null));
    gateway.reload();
    gateway.wait_for_metric("portcullis_crl_errors_total", &[("fault", "fetch_tls")], |n| n >= 1.0);
    assert!(is_served(&gateway, gateway.identity()));
}

#[test]
fn check_fetches_and_says_what_is_wrong() {
    let registry = Upstream::start();
    let builder = gateway().upstream(registry.url());
    let soon = super::revocation_live::time_in(Duration::from_secs(600));
    let good = builder.client_ca.crl().last_update("20260101000000Z").next_update(&soon).pem();
    let server = Server::start(Answer::new(404));
    let builder = with_url(builder, &server.url());
    let file = builder.write_config().to_string_lossy().into_owned();
    let check = || {
        let arguments = ["check", "--config", &file];
        process::run(env!("CARGO_BIN_EXE_portcullis"), &arguments, b"", Duration::from_secs(20))
    };
    let finished = check();
    assert_eq!(finished.code, Some(1), "{}", finished.all());
    for part in ["revocation.crls[0].url", "status 404", "no list of", "Test Client CA", "state_directory"] {
        assert!(finished.all().contains(part), "{part}: {}", finished.all());
    }
    server.set(list(good));
    let finished = check();
    assert_eq!(finished.code, Some(0), "{}", finished.all());
    assert!(finished.all().contains("runs out in"), "{}", finished.all());
    assert!(!builder.path().join("state").join("crls").try_exists().unwrap_or(true), "check writes nothing");
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < end, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}
