//! The gateway's other side: which upstream, which address, and what becomes of upstreams that misbehave.

use crate::DIGEST;
use crate::support::gateway::{Builder, Gateway, gateway};
use crate::support::pki::{self, Ca};
use crate::support::registry::free_address;
use crate::support::reply::Reply;
use crate::support::tls::acceptor;
use crate::support::upstream::{Answer, Upstream};
use serde_json::json;
use std::time::{Duration, Instant};

const PULL: &str = "/v2/a/manifests/v1";

#[track_caller]
fn assert_unavailable(reply: &Reply) {
    assert!((502..=504).contains(&reply.status), "{reply:?}");
    assert_eq!(reply.code(), "UNAVAILABLE", "{reply:?}");
}

fn start(upstream: &Upstream, change: impl FnOnce(&mut serde_json::Value)) -> Gateway {
    gateway().upstream(upstream.url()).with_upstream(change).start()
}

#[test]
fn several_addresses_are_used_in_turn() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let gateway = start(&first, |u| u["urls"] = json!([first.url(), second.url()]));
    let mut client = gateway.h1();
    for _ in 0..10 {
        assert_eq!(client.get(PULL).status, 200);
    }
    assert_eq!((first.take().len(), second.take().len()), (5, 5));
}

#[test]
fn health_checks_take_an_address_out_and_back_in() {
    let first = Upstream::start();
    let address = free_address();
    let checked = json!({
        "enabled": true, "interval": "100ms", "timeout": "100ms", "unhealthy_after": 2, "healthy_after": 1,
    });
    let gateway = start(&first, |u| {
        u["urls"] = json!([first.url(), format!("http://{address}")]);
        u["health_check"] = checked;
    });
    let labels = [("upstream", "registry"), ("address", &address.to_string())];
    gateway.wait_for_metric("portcullis_upstream_healthy", &labels, |n| n == 0.0);
    let mut client = gateway.h1();
    for _ in 0..6 {
        assert_eq!(client.get(PULL).status, 200, "a dead address is not used");
    }
    let second = Upstream::start_on(&address.to_string());
    gateway.wait_for_metric("portcullis_upstream_healthy", &labels, |n| n == 1.0);
    for _ in 0..6 {
        assert_eq!(client.get(PULL).status, 200);
    }
    assert!(second.requests().iter().any(|r| r.target == PULL), "the address is used again");
    assert!(first.requests().iter().any(|r| r.target == "/v2/"), "checks ask for /v2/");
}

#[test]
fn a_head_of_a_registry_that_is_away_is_answered_like_a_get() {
    let gateway = gateway().upstream(format!("http://{}", free_address())).start();
    for method in ["GET", "HEAD"] {
        for mut client in gateway.both() {
            assert_eq!(client.request(method, PULL, &[], b"").status, 502, "{} {method}", client.version());
        }
    }
}

#[test]
fn readiness_follows_the_upstreams() {
    let upstream = Upstream::start();
    let address = upstream.address();
    let gateway = start(&upstream, |u| {
        u["health_check"] = json!({ "enabled": true, "interval": "100ms", "timeout": "100ms", "unhealthy_after": 1 });
    });
    let ready = || crate::support::gateway::plain_http(gateway.health(), "GET", "/readyz").status;
    assert_eq!(ready(), 200);
    drop(upstream);
    let labels = [("upstream", "registry"), ("address", &address.to_string())];
    gateway.wait_for_metric("portcullis_upstream_healthy", &labels, |n| n == 0.0);
    assert_eq!(crate::support::gateway::plain_http(gateway.health(), "GET", "/livez").status, 200);
}

#[test]
fn an_upstream_that_refuses_connections_is_unavailable() {
    let gateway = gateway().upstream(format!("http://{}", free_address())).start();
    for method in ["GET", "PUT"] {
        for mut client in gateway.both() {
            assert_unavailable(&client.request(method, PULL, &[], b""));
        }
    }
    gateway.wait_for_metric("portcullis_upstream_errors_total", &[("kind", "connect")], |n| n >= 4.0);
    gateway.wait_for_record(|r| r["outcome"] == "upstream_connect" && r["decision"] == "allow");
}

#[test]
fn a_name_that_does_not_resolve_is_unavailable_and_no_reason_not_to_start() {
    let gateway = gateway().upstream("http://registry.invalid:5000").start();
    assert_unavailable(&gateway.h1().get(PULL));
}

#[test]
fn a_silent_upstream_times_out() {
    let upstream = Upstream::start();
    upstream.answer(|_| Answer::new(200).delay(Duration::from_secs(5)));
    let gateway = start(&upstream, |u| u["timeouts"] = json!({ "first_byte": "500ms" }));
    for mut client in gateway.both() {
        let start = Instant::now();
        assert_unavailable(&client.get(PULL));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
    gateway.wait_for_record(|r| r["outcome"] == "upstream_timeout");
}

#[test]
fn a_stalled_download_times_out() {
    let upstream = Upstream::start();
    upstream.answer(|_| Answer::new(200).pattern(0, 1000).slowly(500, Duration::from_secs(5)));
    let gateway = start(&upstream, |u| u["timeouts"] = json!({ "idle": "500ms" }));
    for mut client in gateway.both() {
        let start = Instant::now();
        let outcome = match &mut client {
            crate::support::gateway::Client::H1(c) => c.request("GET", PULL, &[], b"").map_err(|e| e.to_string()),
            crate::support::gateway::Client::H2(c) => c.request("GET", PULL, &[], b""),
        };
        assert!(outcome.is_err(), "half a body must not look whole: {outcome:?}");
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    for chunked in [false, true] {
        let upstream = Upstream::start();
        upstream.answer(move |_| {
            let answer = Answer::new(200).pattern(0, 100_000).cut_after(50_000);
            if chunked { answer.chunked() } else { answer }
        });
        let gateway = start(&upstream, |_| {});
        for mut client in gateway.both() {
            let outcome = match &mut client {
                crate::support::gateway::Client::H1(c) => c.request("GET", PULL, &[], b"").map_err(|e| e.to_string()),
                crate::support::gateway::Client::H2(c) => c.request("GET", PULL, &[], b""),
            };
            assert!(outcome.is_err(), "chunked {chunked}: {:?}", outcome.map(|reply| reply.body.len()));
        }
        gateway.wait_for_record(|r| r["outcome"] == "upstream_error");
    }
}

#[test]
fn an_answer_that_is_no_http_is_unavailable() {
    for raw in ["nonsense\r\n\r\n", "", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let upstream = Upstream::start();
        upstream.answer(move |_| Answer::raw(raw.as_bytes()));
        let gateway = start(&upstream, |_| {});
        assert_unavailable(&gateway.h1().request("PUT", PULL, &[], b"{}").expect("an answer"));
        assert_eq!(upstream.take().len(), 1, "a push is never sent twice ({raw:?})");
    }
}

#[test]
fn connections_are_kept_and_a_closed_one_costs_no_push() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, |_| {});
    let mut client = gateway.h1();
    for _ in 0..20 {
        assert_eq!(client.get(PULL).status, 200);
    }
    assert!(upstream.accepted() <= 2, "{} connections for 20 requests in a row", upstream.accepted());
    upstream.answer(|_| Answer::new(202).close());
    for _ in 0..20 {
        let reply = client.request("POST", "/v2/a/blobs/uploads/", &[], b"").expect("an answer");
        assert_eq!(reply.status, 202);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn too_many_at_once_are_refused_and_the_rest_served() {
    let upstream = Upstream::start();
    upstream.answer(|_| Answer::new(200).delay(Duration::from_millis(500)).body(b"{}"));
    let gateway = start(&upstream, |u| u["limits"] = json!({ "max_connections": 2, "max_pending": 1 }));
    let replies: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| gateway.h1().get(PULL))).collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    let served = replies.iter().filter(|reply| reply.status == 200).count();
    assert!((2..=4).contains(&served), "{served} served");
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.status, 503, "{reply:?}");
        assert_eq!(reply.code(), "UNAVAILABLE", "{reply:?}");
    }
    gateway.wait_for_record(|r| r["outcome"] == "upstream_busy");
    assert_eq!(gateway.h1().get(PULL).status, 200, "served again afterwards");
}

/// A gateway in front of a TLS upstream; `change` gets the upstream's settings.
fn tls_upstream(name: &str, wants_client: bool, change: impl FnOnce(&mut serde_json::Value)) -> (Upstream, Gateway) {
    let builder: Builder = gateway();
    let directory = builder.pki();
    let ca = Ca::root(&directory, "Upstream CA");
    let server = ca.issue(&pki::server(&[name]));
    let own = ca.issue(&pki::client("gateway"));
    let upstream = Upstream::start_tls(acceptor(&server, wants_client.then_some(ca.certificate.as_path())));
    let other = Ca::root(&directory, "Other CA");
    let (certificate, key) = (own.chain.to_string_lossy().into_owned(), own.key.to_string_lossy().into_owned());
    let builder = builder.file("upstream-ca.pem", &ca.pem()).file("other-ca.pem", &other.pem());
    let gateway = builder
        .upstream(upstream.url())
        .with_upstream(|u| {
            u["tls"] = json!({ "ca": "upstream-ca.pem" });
            if wants_client {
                u["tls"]["certificate"] = certificate.into();
                u["tls"]["key"] = key.into();
            }
            change(u);
        })
        .start();
    (upstream, gateway)
}

#[test]
fn an_upstream_behind_tls_is_served() {
    let (upstream, gateway) = tls_upstream("localhost", false, |_| {});
    for mut client in gateway.both() {
        assert_eq!(client.get(PULL).status, 200);
    }
    assert_eq!(upstream.take().len(), 2);
}

#[test]
fn the_gateway_shows_its_own_certificate_to_the_upstream() {
    let (upstream, gateway) = tls_upstream("localhost", true, |_| {});
    assert_eq!(gateway.h1().get(PULL).status, 200);
    assert_eq!(upstream.take().len(), 1);
}

#[test]
fn an_upstream_of_another_ca_or_name_gets_nothing() {
    let (upstream, gateway) = tls_upstream("localhost", false, |u| u["tls"]["ca"] = "other-ca.pem".into());
    assert_unavailable(&gateway.h1().get(PULL));
    upstream.assert_untouched("an upstream of another CA");
    let (upstream, gateway) = tls_upstream("other.example", false, |_| {});
    assert_unavailable(&gateway.h1().get(PULL));
    upstream.assert_untouched("an upstream of another name");
    gateway.wait_for_metric("portcullis_upstream_errors_total", &[("kind", "tls")], |n| n >= 1.0);
    let (upstream, gateway) =
        tls_upstream("other.example", false, |u| u["tls"]["server_name"] = "other.example".into());
    assert_eq!(gateway.h1().get(PULL).status, 200, "the name to expect can be set");
    assert_eq!(upstream.take().len(), 1);
}

#[test]
fn an_upstream_by_address_needs_the_name_to_verify() {
    let builder = gateway().upstream("https://127.0.0.1:5000");
    let Err(log) = builder.try_start() else { panic!("nobody could be verified") };
    assert!(log.contains("upstreams[0].tls.server_name"), "{log}");
}

#[test]
fn an_upstream_may_be_a_unix_socket() {
    let builder = gateway();
    let upstream = Upstream::start_unix(&builder.path().join("registry.sock"));
    let gateway = builder.upstream(upstream.url()).start();
    for mut client in gateway.both() {
        assert_eq!(client.get(PULL).status, 200);
        let body = vec![5_u8; 300_000];
        let reply = client.request("PATCH", "/v2/a/blobs/uploads/1?_state=x", &[], &body);
        assert_eq!(reply.status, 200);
    }
    assert_eq!(upstream.take().iter().map(|r| r.body_length).sum::<u64>(), 600_000);
}

#[test]
fn repositories_choose_their_upstream_by_whole_segments() {
    let (default, team) = (Upstream::start(), Upstream::start());
    let gateway = gateway()
        .upstream(default.url())
        .upstream(team.url())
        .configure(|c| c["upstreams"][1]["repositories"] = json!(["team", "lib/base"]))
        .start();
    for mut client in gateway.both() {
        for (repository, to_team) in [
            ("team", true),
            ("team/app", true),
            ("team-evil/app", false),
            ("lib/base/x", true),
            ("lib", false),
            ("lib/other", false),
        ] {
            assert_eq!(client.get(&format!("/v2/{repository}/tags/list")).status, 200);
            assert_eq!(
                (default.take().len(), team.take().len()),
                (usize::from(!to_team), usize::from(to_team)),
                "{repository}"
            );
        }
    }
}

#[test]
fn a_mount_never_crosses_upstreams() {
    let (default, team) = (Upstream::start(), Upstream::start());
    let gateway = gateway()
        .upstream(default.url())
        .upstream(team.url())
        .configure(|c| c["upstreams"][1]["repositories"] = json!(["team"]))
        .start();
    let target = format!("/v2/team/app/blobs/uploads/?mount={DIGEST}&from=lib/base");
    assert_eq!(gateway.h1().request("POST", &target, &[], b"").expect("an answer").status, 200);
    // Each registry has its own `lib/base`; what was authorized is that of the default upstream.
    default.assert_untouched("a push to another upstream");
    assert_eq!(team.only().line(), "POST /v2/team/app/blobs/uploads/");
}

#[test]
fn hosts_choose_their_upstream() {
    let (default, other) = (Upstream::start(), Upstream::start());
    let gateway = gateway()
        .upstream(default.url())
        .upstream(other.url())
        .configure(|c| c["upstreams"][1]["hosts"] = json!(["localhost"]))
        .start();
    assert_eq!(gateway.h1().get(PULL).status, 200);
    let tls = gateway.tls().name(Some("localhost"));
    let mut client = crate::support::client::H1::connect(&tls).expect("a connection");
    client.send(format!("GET {PULL} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).expect("sent");
    assert_eq!(client.answer().expect("an answer").status, 200);
    assert_eq!((default.take().len(), other.take().len()), (1, 1));
}
