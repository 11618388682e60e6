//! Upload sessions belong to the client that opened them.

use crate::support::gateway::{Builder, Gateway, gateway};
use crate::support::pki;
use crate::support::upstream::{Answer, Upstream};
use std::fs;

const START: &str = "/v2/team/app/blobs/uploads/";
const SESSION: &str = "/v2/team/app/blobs/uploads/3f2a-77";
const DIGEST: &str = crate::DIGEST;

/// Answers as a registry does: every answer about an upload names it, under the host it was asked by.
fn registry() -> Upstream {
    let upstream = Upstream::start();
    upstream.answer(|request| {
        let status = match request.method.as_str() {
            "POST" | "PATCH" => 202,
            "PUT" => 201,
            _ => 204,
        };
        let host = request.header("host").unwrap_or_default();
        let location = match status {
            201 => format!("https://{host}/v2/team/app/blobs/{DIGEST}"),
            _ => format!("https://{host}{SESSION}?_state=Ab-_9"),
        };
        Answer::new(status).header("Location", &location).header("Docker-Upload-UUID", "3f2a-77")
    });
    upstream
}

fn bound(upstream: &Upstream) -> Builder {
    gateway().upstream(upstream.url()).bound_uploads()
}

/// Starts an upload as `ci-7`; where it goes on.
fn started(gateway: &Gateway, upstream: &Upstream) -> String {
    let reply = gateway.h1().request("POST", START, &[], b"").expect("an answer");
    assert_eq!((reply.status, reply.header("docker-upload-uuid")), (202, Some("3f2a-77")), "{reply:?}");
    assert_eq!(upstream.only().line(), format!("POST {START}"));
    reply.header("location").expect("a location").to_owned()
}

fn tag(location: &str) -> &str {
    location.split_once("_bind=").expect("a bound location").1
}

#[test]
fn every_address_of_a_session_carries_the_tag_and_the_registry_never_sees_it() {
    let upstream = registry();
    let gateway = bound(&upstream).start();
    let location = started(&gateway, &upstream);
    assert!(location.starts_with(&format!("{SESSION}?_state=Ab-_9&_bind=")), "{location}");
    assert!(
        tag(&location).len() >= 22 && tag(&location).bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    );
    for mut client in gateway.both() {
        for method in ["GET", "HEAD", "PATCH", "DELETE"] {
            let body: &[u8] = if method == "PATCH" { b"layer" } else { b"" };
            let reply = client.request(method, &location, &[], body);
            assert!(matches!(reply.status, 202 | 204), "{} {method}: {reply:?}", client.version());
            assert_eq!(reply.header("location"), Some(location.as_str()), "{method}: the same session, the same tag");
            assert_eq!(upstream.only().line(), format!("{method} {SESSION}?_state=Ab-_9"));
        }
        // Clients append the digest; some sort the query anew.
        let digest = DIGEST.replace(':', "%3A");
        let sorted = format!("{SESSION}?_bind={}&_state=Ab-_9&digest={digest}", tag(&location));
        for target in [format!("{location}&digest={DIGEST}"), sorted] {
            let reply = client.request("PUT", &target, &[], b"");
            assert_eq!(reply.status, 201, "{reply:?}");
            assert_eq!(reply.header("location"), Some(format!("/v2/team/app/blobs/{DIGEST}").as_str()));
            assert_eq!(upstream.only().line(), format!("PUT {SESSION}?_state=Ab-_9&digest={digest}"));
        }
    }
}

#[test]
fn the_session_of_another_client_is_unknown() {
    let upstream = registry();
    let gateway = bound(&upstream).start();
    let location = started(&gateway, &upstream);
    let own = started(&gateway, &upstream);
    assert_eq!(own, location);
    // It may do everything, and knows everything about the session.
    let other = gateway.client("ci-8");
    for mut client in gateway.both_as(&other) {
        for method in ["GET", "HEAD", "PATCH", "PUT", "DELETE"] {
            let target = if method == "PUT" { format!("{location}&digest={DIGEST}") } else { location.clone() };
            let reply = client.request(method, &target, &[], b"");
            if method == "HEAD" {
                assert_eq!(reply.status, 404);
            } else {
                reply.assert_refusal(404, "BLOB_UPLOAD_UNKNOWN");
            }
        }
        // Its own tag of the same session is another one, and opens it for nobody else.
        let reply = client.request("POST", START, &[], b"");
        let theirs = reply.header("location").expect("a location").to_owned();
        assert_ne!(tag(&theirs), tag(&location));
        assert_eq!(upstream.take().len(), 1);
        gateway
            .h1()
            .request("PATCH", &theirs, &[], b"x")
            .expect("an answer")
            .assert_refusal(404, "BLOB_UPLOAD_UNKNOWN");
    }
    upstream.assert_untouched("sessions of others");
    let record = gateway.wait_for_record(|r| r["method"] == "DELETE" && r["status"] == 404);
    assert_eq!((record["decision"].as_str(), record["outcome"].as_str()), (Some("deny"), Some("denied")), "{record}");
}

#[test]
fn a_session_without_its_very_tag_is_unknown() {
    let upstream = registry();
    let gateway = bound(&upstream).start();
    let location = started(&gateway, &upstream);
    let (bare, tag) = location.split_once("&_bind=").expect("a bound location");
    let mut flipped = tag.to_owned();
    flipped.replace_range(..1, if tag.starts_with('A') { "B" } else { "A" });
    for mut client in gateway.both() {
        for query in [
            String::new(),
            "&_bind=".to_owned(),
            format!("&_bind={flipped}"),
            format!("&_bind={}", &tag[..tag.len() - 4]),
            format!("&_bind={tag}AAAA"),
            format!("&_bind=%20{tag}"),
            format!("&bind={tag}"),
        ] {
            let reply = client.request("PATCH", &format!("{bare}{query}"), &[], b"x");
            reply.assert_refusal(404, "BLOB_UPLOAD_UNKNOWN");
        }
        // A tag is for one session of one repository.
        for target in [SESSION.replace("3f2a", "3f2b"), SESSION.replace("team/app", "team/other")] {
            let reply = client.request("PATCH", &format!("{target}?_state=x&_bind={tag}"), &[], b"x");
            reply.assert_refusal(404, "BLOB_UPLOAD_UNKNOWN");
        }
        client.request("PATCH", &format!("{location}&_bind={tag}"), &[], b"x").assert_refusal(400, "NAME_INVALID");
    }
    upstream.assert_untouched("sessions without their tag");
}

#[test]
fn a_renewed_certificate_goes_on_and_so_does_everybody_after_a_reload() {
    let upstream = registry();
    let gateway = bound(&upstream).start();
    let location = started(&gateway, &upstream);
    let renewed = gateway.client_ca.issue(&pki::client("ci-7").serial("0BADCAFE"));
    gateway.reload_ok();
    for identity in [&renewed, gateway.identity()] {
        for mut client in gateway.both_as(identity) {
            assert_eq!(client.request("PATCH", &location, &[], b"x").status, 202);
        }
    }
    assert_eq!(upstream.take().len(), 4);
    // The same names with one more are not the same client.
    let more = gateway.client_ca.issue(&pki::client("ci-7").san("DNS:ci-7.example.com"));
    let reply = gateway.h1_as(&more).request("PATCH", &location, &[], b"x").expect("an answer");
    reply.assert_refusal(404, "BLOB_UPLOAD_UNKNOWN");
    upstream.assert_untouched("another client");
}

#[test]
fn replicas_with_one_key_accept_each_others_sessions() {
    let upstream = registry();
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";
    let first =
        bound(&upstream).file("uploads.key", key).configure(|c| c["uploads"]["key_file"] = "uploads.key".into());
    let client_ca = fs::read_to_string(&first.client_ca.certificate).expect("a certificate");
    let replica = || bound(&upstream).file("client-ca.pem", &client_ca).file("uploads.key", key);
    let first = first.start();
    let second = replica().configure(|c| c["uploads"]["key_file"] = "uploads.key".into()).start();
    let stranger = replica().start();
    let location = started(&first, &upstream);
    let patch =
        |gateway: &Gateway| gateway.h1_as(first.identity()).request("PATCH", &location, &[], b"x").expect("an answer");
    assert_eq!(patch(&second).status, 202);
    assert_eq!(upstream.take().len(), 1);
    patch(&stranger).assert_refusal(404, "BLOB_UPLOAD_UNKNOWN");
    upstream.assert_untouched("a replica with a key of its own");
}

#[test]
fn binding_can_be_switched_off() {
    let upstream = registry();
    let gateway = bound(&upstream).configure(|c| c["uploads"]["bind"] = false.into()).start();
    let location = started(&gateway, &upstream);
    assert_eq!(location, format!("{SESSION}?_state=Ab-_9"));
    let other = gateway.client("ci-8");
    for mut client in gateway.both_as(&other) {
        // A tag from before is no harm.
        let reply = client.request("PATCH", &format!("{location}&_bind=x"), &[], b"x");
        assert_eq!((reply.status, reply.header("location")), (202, Some(location.as_str())));
        assert_eq!(upstream.only().line(), format!("PATCH {SESSION}?_state=Ab-_9"));
    }
}

#[test]
fn a_location_keeps_the_host_that_is_not_ours() {
    let upstream = Upstream::start();
    let gateway = bound(&upstream).start();
    let other = format!("https://other.example{SESSION}?_state=x");
    let storage = "https://storage.example/bucket/3f2a?signature=x";
    for (location, tagged) in [(other.as_str(), true), (storage, false), (SESSION, true)] {
        let answer = Answer::new(202).header("Location", location);
        upstream.answer(move |_| answer.clone());
        for mut client in gateway.both() {
            let reply = client.request("POST", START, &[], b"");
            let seen = reply.header("location").expect("a location");
            assert!(seen.starts_with(location) && seen.contains("_bind=") == tagged, "{location}: {seen}");
        }
    }
}

#[test]
fn a_key_file_without_a_key_is_named() {
    let upstream = Upstream::start();
    for (content, said) in [("short", "neither base64 nor hexadecimal"), ("00ff", "2 bytes"), ("", "empty")] {
        let builder = bound(&upstream).file("uploads.key", content);
        let log = builder.configure(|c| c["uploads"]["key_file"] = "uploads.key".into()).try_start().err();
        let log = log.expect("no key, no start");
        assert!(log.contains("uploads.key_file") && log.contains(said), "{content:?}: {log}");
    }
}
