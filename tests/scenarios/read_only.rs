//! Times in which nothing may be written.

use crate::DIGEST;
use crate::support::gateway::gateway;
use crate::support::upstream::{Answer, Upstream};
use serde_json::json;

#[test]
fn a_read_only_gateway_lets_nothing_be_written_until_told_otherwise() {
    let upstream = Upstream::start();
    upstream.answer(|_| Answer::new(200).header("Content-Type", "application/json").body(br#"{"repositories":["a"]}"#));
    let mut gateway = gateway().upstream(upstream.url()).start();
    let manifest = "/v2/team/app/manifests/v1";
    let writes = [
        ("PUT", manifest.to_owned()),
        ("DELETE", manifest.to_owned()),
        ("DELETE", format!("/v2/team/app/blobs/{DIGEST}")),
        ("POST", "/v2/team/app/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/team/app/blobs/uploads/?mount={DIGEST}&from=lib/base")),
        ("PATCH", "/v2/team/app/blobs/uploads/3f2a?_state=x".to_owned()),
        ("PUT", format!("/v2/team/app/blobs/uploads/3f2a?_state=x&digest={DIGEST}")),
        ("GET", "/v2/team/app/blobs/uploads/3f2a".to_owned()),
        ("DELETE", "/v2/team/app/blobs/uploads/3f2a".to_owned()),
    ];
    let reads = [
        ("GET", "/v2/".to_owned()),
        ("GET", "/v2/_catalog".to_owned()),
        ("GET", manifest.to_owned()),
        ("HEAD", format!("/v2/team/app/blobs/{DIGEST}")),
        ("GET", "/v2/team/app/tags/list".to_owned()),
        ("GET", format!("/v2/team/app/referrers/{DIGEST}")),
    ];
    let mut clients = gateway.both();
    for (settings, message) in [
        (json!({ "enabled": true }), "the registry is read-only at the moment"),
        (
            json!({ "enabled": true, "message": "moving until 14:00; \"pulls\" work" }),
            "moving until 14:00; \"pulls\" work",
        ),
    ] {
        gateway.change_config(|c| c["read_only"] = settings);
        gateway.reload_ok();
        for client in &mut clients {
            for (method, target) in &writes {
                let reply = client.request(method, target, &[], b"");
                reply.assert_refusal(403, "DENIED");
                assert!(reply.message().starts_with(message), "{method} {target}: {}", reply.message());
                assert!(reply.message().contains("(rule: read-only; decision "), "{}", reply.message());
            }
            upstream.assert_untouched("nothing is written");
            for (method, target) in &reads {
                assert_eq!(client.request(method, target, &[], b"").status, 200, "{method} {target}");
            }
            assert!(!upstream.take().is_empty());
        }
    }
    let record = gateway.wait_for_record(|r| r["outcome"] == "read_only");
    assert_eq!(
        (&record["decision"], &record["rule"], &record["status"]),
        (&"deny".into(), &"read-only".into(), &403.into())
    );
    let refused = gateway.metric("portcullis_requests_total", &[("outcome", "read_only")]);
    assert!(refused.is_some_and(|count| count >= 36.0), "{refused:?}");
    gateway.change_config(|c| c["read_only"]["enabled"] = false.into());
    gateway.reload_ok();
    for client in &mut clients {
        assert_eq!(client.request("PUT", manifest, &[], b"{}").status, 200, "{}", client.version());
    }
}

#[test]
fn a_message_that_nobody_could_read_is_refused() {
    let mut gateway = gateway().upstream("http://127.0.0.1:9").start();
    for message in ["", " ", "two\nlines", &"x".repeat(600)] {
        gateway.change_config(|c| c["read_only"] = json!({ "enabled": true, "message": message }));
        let told = gateway.reload_refused();
        assert!(told.contains("read_only.message"), "{told}");
    }
}
