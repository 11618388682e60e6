//! The audit log of a running gateway.

use crate::support::gateway::{Client, Gateway, gateway};
use crate::support::process::{self, Finished};
use crate::support::registry::Registry;
use crate::support::skip;
use crate::support::skopeo::{certificates, image, skopeo};
use crate::support::upstream::{Answer, Upstream};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

const POLICY: &str = "
rules:
  - { name: all, subjects: [any], repositories: ['team/**'], actions: [pull, push, overwrite, delete], effect: allow }
";

fn portcullis(arguments: &[&str]) -> Finished {
    process::run(env!("CARGO_BIN_EXE_portcullis"), arguments, b"", LONG)
}

fn upstream() -> Upstream {
    let upstream = Upstream::start();
    upstream.answer(|request| match request.method.as_str() {
        "GET" | "HEAD" => Answer::new(200).header("Content-Type", "application/json").body(b"{}"),
        "DELETE" => Answer::new(202),
        _ => Answer::new(201),
    });
    upstream
}

fn start(url: String, settings: Value) -> Gateway {
    gateway().upstream(url).policy(POLICY).configure(|c| c["audit_log"] = settings).start()
}

fn file(gateway: &Gateway) -> PathBuf {
    gateway.path().join("audit.log")
}

fn records_of(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Waits until the log has a record.
#[track_caller]
fn wait_for(gateway: &Gateway, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + LONG;
    loop {
        let text = fs::read_to_string(file(gateway)).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        if let Some(record) = records_of(whole).into_iter().find(|record| wanted(record)) {
            return record;
        }
        assert!(Instant::now() < end, "no such record in\n{text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn push(client: &mut Client, repository: &str) -> u16 {
    let body = b"{}";
    let headers = [("Content-Type", "application/vnd.oci.image.manifest.v1+json"), ("Content-Length", "2")];
    client.request("PUT", &format!("/v2/{repository}/manifests/v1"), &headers, body).status
}

fn events(records: &[Value], event: &str) -> usize {
    records.iter().filter(|record| record["event"] == event).count()
}

#[test]
fn it_tells_of_pushes_deletions_refusals_and_orders_and_of_nothing_else() {
    let upstream = upstream();
    let mut gateway = start(upstream.url(), json!({ "path": "audit.log" }));
    for mut client in gateway.both() {
        assert_eq!(client.get("/v2/team/a/manifests/v1").status, 200);
        assert_eq!(push(&mut client, "team/a"), 201, "{}", client.version());
        assert_eq!(client.request("DELETE", "/v2/team/a/manifests/v1", &[], b"").status, 202);
        assert_eq!(push(&mut client, "other/a"), 403);
        assert_eq!(client.get("/v2/other/a/manifests/v1").status, 403);
    }
    gateway.reload_ok();
    gateway.process().signal("TERM");
    assert!(gateway.process().wait(LONG).is_some_and(|status| status.success()));

    let text = fs::read_to_string(file(&gateway)).expect("there is a log");
    let records = records_of(&text);
    for (event, count) in [("started", 1), ("begun", 4), ("done", 4), ("refused", 4), ("admin", 2), ("stopped", 1)] {
        assert_eq!(events(&records, event), count, "{event} in\n{text}");
    }
    assert_eq!(records.len(), 16, "{text}");
    let done = records.iter().find(|r| r["event"] == "done" && r["action"] == "delete").expect("a deletion");
    assert_eq!(
        (&done["status"], &done["repository"], &done["reference"]),
        (&json!(202), &json!("team/a"), &json!("v1"))
    );
    assert_eq!(done["identity"], "spiffe://corp.example/ns/test/sa/ci-7");
    let refused = records.iter().find(|r| r["event"] == "refused").expect("a refusal");
    assert_eq!((&refused["status"], &refused["outcome"]), (&json!(403), &json!("denied")));
    let reload = records.iter().find(|r| r["action"] == "reload").expect("the reload");
    assert_eq!((&reload["origin"], &reload["ok"]), (&json!("admin"), &json!(true)));

    let path = file(&gateway).to_string_lossy().into_owned();
    let verified = portcullis(&["audit", "verify", &path]);
    assert_eq!(verified.code, Some(0), "{}", verified.all());
    assert!(
        verified.text().contains("16 record(s) of 1 process(es): nothing is missing or changed"),
        "{}",
        verified.all()
    );
    // Somebody takes the refusals out.
    let without: String = text
        .lines()
        .filter(|line| !line.contains(r#""event":"refused""#))
        .fold(String::new(), |all, line| all + line + "\n");
    fs::write(file(&gateway), without).expect("writable");
    let verified = portcullis(&["audit", "verify", &path]);
    assert_eq!(verified.code, Some(4), "{}", verified.all());
    assert!(verified.text().contains("are missing before this one"), "{}", verified.all());
}

#[test]
fn on_a_full_disk_pushes_are_refused_and_pulls_go_on() {
    let upstream = upstream();
    let builder = gateway().upstream(upstream.url()).policy(POLICY);
    std::os::unix::fs::symlink("/dev/full", builder.path().join("audit.log")).expect("writable");
    let mut gateway = builder.configure(|c| c["audit_log"] = json!({ "path": "audit.log" })).start();
    gateway.wait_for_metric("portcullis_audit_failed", &[], |n| n > 0.5);
    let mut clients = gateway.both();
    for client in &mut clients {
        assert_eq!(client.get("/v2/team/a/manifests/v1").status, 200, "{} pulls", client.version());
        upstream.take();
        assert_eq!(push(client, "team/a"), 503, "{} pushes", client.version());
        assert_eq!(client.request("DELETE", "/v2/team/a/manifests/v1", &[], b"").status, 503);
        assert_eq!(client.request("POST", "/v2/team/a/blobs/uploads/", &[("Content-Length", "0")], b"").status, 503);
        upstream.assert_untouched("what can't be recorded isn't done");
        assert_eq!(client.get("/v2/other/a/manifests/v1").status, 403, "a refusal is given");
    }
    // logrotate moves the log and sends SIGHUP; there the disk has room.
    fs::remove_file(file(&gateway)).expect("it is a link");
    gateway.process().signal("HUP");
    gateway.wait_for_metric("portcullis_audit_failed", &[], |n| n < 0.5);
    for client in &mut clients {
        assert_eq!(push(client, "team/a"), 201, "{} pushes again", client.version());
    }
    let refused = wait_for(&gateway, |record| record["event"] == "refused");
    assert_eq!(refused["repository"], "other/a", "what was refused meanwhile isn't forgotten");
    wait_for(&gateway, |record| record["event"] == "done");
    let verified = portcullis(&["audit", "verify", &file(&gateway).to_string_lossy()]);
    assert_eq!(verified.code, Some(0), "{}", verified.all());
}

#[test]
fn refuse_all_and_allow_do_as_they_say() {
    for (on_failure, pull, pushed) in [("refuse_all", 503, 503), ("allow", 200, 201)] {
        let upstream = upstream();
        let builder = gateway().upstream(upstream.url()).policy(POLICY);
        std::os::unix::fs::symlink("/dev/full", builder.path().join("audit.log")).expect("writable");
        let gateway =
            builder.configure(|c| c["audit_log"] = json!({ "path": "audit.log", "on_failure": on_failure })).start();
        gateway.wait_for_metric("portcullis_audit_failed", &[], |n| n > 0.5);
        for mut client in gateway.both() {
            assert_eq!(client.get("/v2/team/a/manifests/v1").status, pull, "{on_failure}");
            assert_eq!(push(&mut client, "team/a"), pushed, "{on_failure}");
        }
    }
}

#[test]
fn a_push_of_a_real_client_can_be_read_from_it() {
    if !skip::have(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start();
    let gateway = start(registry.url(), json!({ "path": "audit.log", "sync": true }));
    let home = tempfile::tempdir().expect("a temporary directory");
    let certs = home.path().join("certs");
    certificates(&certs, &gateway.server_ca.certificate, gateway.identity());
    image(&home.path().join("image"), b"audited");
    let layout = format!("oci:{}:latest", home.path().join("image").display());
    let remote = format!("docker://localhost:{}/team/app:v1", gateway.address().port());
    let copy = ["copy", "--insecure-policy", "--dest-cert-dir", &certs.to_string_lossy(), &layout, &remote];
    skopeo(home.path(), &copy).expect_success("pushing");
    let done = wait_for(&gateway, |r| r["event"] == "done" && r["route"] == "manifest");
    assert_eq!((&done["status"], &done["reference"]), (&json!(201), &json!("v1")));
    let text = fs::read_to_string(file(&gateway)).expect("there is a log");
    let records = records_of(&text);
    assert_eq!(events(&records, "begun"), events(&records, "done"), "{text}");
    assert!(events(&records, "begun") >= 5, "two blobs and a manifest:\n{text}");
}

#[test]
fn a_log_that_cannot_be_opened_is_named() {
    let upstream = Upstream::start();
    let builder =
        gateway().upstream(upstream.url()).configure(|c| c["audit_log"]["path"] = "/nowhere/audit.log".into());
    let file = builder.write_config().to_string_lossy().into_owned();
    let finished = portcullis(&["serve", "--config", &file]);
    assert_eq!(finished.code, Some(3), "{}", finished.all());
    assert!(finished.all().contains("/nowhere/audit.log"), "{}", finished.all());
}
