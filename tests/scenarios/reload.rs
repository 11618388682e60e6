//! Changing everything while it runs: how a change is noticed, what follows from it, and what it leaves alone.

use super::tls_faults::s_client;
use crate::DIGEST;
use crate::support::gateway::{ALLOW_ALL, Gateway, gateway};
use crate::support::pki::{self, Ca};
use crate::support::upstream::{Answer, Upstream, pattern, pattern_sha256, sha256};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

const PULL: &str = "/v2/a/manifests/v1";
const NOTHING: &str = "rules: []\n";

#[track_caller]
fn wait_for_status(gateway: &Gateway, status: u16) -> Duration {
    let start = Instant::now();
    let mut client = gateway.h1();
    loop {
        let now = client.get(PULL).status;
        if now == status {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(5), "still {now}, not {status}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn watching() -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).configure(|c| c["reload"]["watch"] = true.into()).start();
    (upstream, gateway)
}

#[test]
fn a_change_right_after_the_start_is_noticed() {
    // The files are read before the listeners open; whoever changes one then must not be overlooked.
    for _ in 0..5 {
        let (_upstream, gateway) = watching();
        gateway.write("policy.yaml", NOTHING);
        wait_for_status(&gateway, 403);
    }
}

#[test]
fn a_renamed_and_a_rewritten_file_are_noticed() {
    let (_upstream, mut gateway) = watching();
    gateway.wait_for_log("\"serving\"");
    assert_eq!(gateway.h1().get(PULL).status, 200);
    gateway.write("policy.yaml", NOTHING);
    let after = wait_for_status(&gateway, 403);
    assert!(after < Duration::from_secs(2), "{after:?}");
    fs::write(gateway.path().join("policy.yaml"), ALLOW_ALL).expect("writable");
    wait_for_status(&gateway, 200);
    fs::remove_file(gateway.path().join("policy.yaml")).expect("it is there");
    gateway.wait_for_metric("portcullis_reload_failed", &[], |n| n >= 1.0);
    assert_eq!(gateway.h1().get(PULL).status, 200, "the last good policy stays");
    gateway.write("policy.yaml", NOTHING);
    wait_for_status(&gateway, 403);
    gateway.wait_for_metric("portcullis_reload_failed", &[], |n| n == 0.0);
}

#[test]
fn kubernetes_symlink_swap_is_noticed() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let mount = builder.path().join("mounted");
    fs::create_dir_all(mount.join("..1")).expect("writable");
    fs::write(mount.join("..1/policy.yaml"), ALLOW_ALL).expect("writable");
    symlink("..1", mount.join("..data")).expect("writable");
    symlink("..data/policy.yaml", mount.join("policy.yaml")).expect("writable");
    let gateway = builder
        .configure(|c| {
            c["policy"] = "mounted/policy.yaml".into();
            c["reload"]["watch"] = true.into();
        })
        .start();
    assert_eq!(gateway.h1().get(PULL).status, 200);
    for (generation, text, status) in [("..2", NOTHING, 403), ("..3", ALLOW_ALL, 200)] {
        fs::create_dir(mount.join(generation)).expect("writable");
        fs::write(mount.join(generation).join("policy.yaml"), text).expect("writable");
        symlink(generation, mount.join("..data_tmp")).expect("writable");
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("writable");
        wait_for_status(&gateway, status);
    }
}

#[test]
fn a_link_in_the_middle_of_others_is_noticed_when_it_is_turned() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let directory = |name: &str| {
        let path = builder.path().join(name);
        fs::create_dir(&path).expect("writable");
        path
    };
    // As certbot keeps its files: what is configured leads to what is live, and that to one of many.
    let (live, archive) = (directory("live"), directory("archive"));
    fs::write(archive.join("policy1.yaml"), ALLOW_ALL).expect("writable");
    fs::write(archive.join("policy2.yaml"), NOTHING).expect("writable");
    symlink("../archive/policy1.yaml", live.join("policy.yaml")).expect("writable");
    symlink("live/policy.yaml", builder.path().join("linked.yaml")).expect("writable");
    let gateway = builder
        .configure(|c| {
            c["policy"] = "linked.yaml".into();
            c["reload"]["watch"] = true.into();
        })
        .start();
    for (number, status) in [(2, 403), (1, 200), (2, 403)] {
        fs::remove_file(live.join("policy.yaml")).expect("writable");
        symlink(format!("../archive/policy{number}.yaml"), live.join("policy.yaml")).expect("writable");
        wait_for_status(&gateway, status);
    }
}

#[test]
fn a_directory_of_lists_that_is_replaced_is_watched_again() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let lists = builder.path().join("crls");
    let publish = |number: u32, list: String| {
        let next = lists.with_extension(format!("{number}"));
        fs::create_dir(&next).expect("writable");
        fs::write(next.join("ca.crl"), list).expect("writable");
        if lists.try_exists().expect("readable") {
            fs::remove_dir_all(&lists).expect("writable");
        }
        fs::rename(next, &lists).expect("writable");
    };
    let victim = builder.client_ca.issue(&pki::client("victim"));
    publish(1, builder.client_ca.crl().pem());
    let gateway = builder
        .configure(|c| {
            c["revocation"]["crls"] = json!([{ "directory": "crls/" }]);
            c["reload"]["watch"] = true.into();
        })
        .start();
    let mut client = gateway.h1_as(&victim);
    assert_eq!(client.get("/v2/").status, 200);
    publish(2, gateway.client_ca.crl().number(2).pem());
    gateway.wait_for_metric("portcullis_config_generation", &[], |n| n >= 2.0);
    // Within the new one, and then with another in its place.
    let third = gateway.client_ca.crl().number(3).pem();
    fs::write(lists.join("ca.new"), third).expect("writable");
    fs::rename(lists.join("ca.new"), lists.join("ca.crl")).expect("writable");
    gateway.wait_for_metric("portcullis_config_generation", &[], |n| n >= 3.0);
    publish(4, gateway.client_ca.crl().number(4).revoke(&victim.certificate).pem());
    assert!(client.is_closed_within(Duration::from_secs(5)), "the revocation wasn't noticed");
}

#[test]
fn sighup_reloads() {
    let upstream = Upstream::start();
    let mut gateway = gateway().upstream(upstream.url()).start();
    gateway.write("policy.yaml", NOTHING);
    gateway.process().signal("HUP");
    wait_for_status(&gateway, 403);
}

#[test]
fn a_revocation_is_noticed_and_ends_connections_at_once() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let list = builder.client_ca.crl().pem();
    let gateway = builder.crl(&list).configure(|c| c["reload"]["watch"] = true.into()).start();
    let mut client = gateway.h1();
    assert_eq!(client.get("/v2/").status, 200);
    let newer = gateway.client_ca.crl().number(2).revoke(&gateway.identity().certificate).pem();
    let start = Instant::now();
    gateway.write("ca.crl", newer);
    assert!(client.is_closed_within(Duration::from_secs(2)));
    assert!(start.elapsed() < Duration::from_secs(1), "after {:?}", start.elapsed());
}

#[test]
fn a_policy_change_holds_for_open_connections() {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).start();
    let mut clients = gateway.both();
    for client in &mut clients {
        assert_eq!(client.get(PULL).status, 200);
    }
    let before = gateway.generation();
    gateway.write("policy.yaml", NOTHING);
    gateway.reload_ok();
    for client in &mut clients {
        client.get(PULL).assert_refusal(403, "DENIED");
    }
    assert!(gateway.generation() > before);
    let record = gateway.wait_for_record(|r| r["status"] == 403);
    assert!(record["generation"].as_f64().is_some_and(|g| g > before), "{record}");
}

#[test]
fn a_new_server_certificate_is_shown_to_new_connections_only() {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).start();
    let mut old = gateway.h1();
    assert_eq!(old.get("/v2/").status, 200);
    let renewed = gateway.server_ca.issue(&pki::server(&["gw.test"]).attribute("OU", "renewed"));
    gateway.write("server.crt", fs::read(&renewed.chain).expect("a chain"));
    gateway.write("server.key", fs::read(&renewed.key).expect("a key"));
    gateway.reload_ok();
    assert_eq!(old.get("/v2/").status, 200);
    let shown = s_client(&gateway, Some(gateway.identity()), &[]).text();
    assert!(shown.contains("OU = renewed"), "{shown}");
}

#[test]
fn a_removed_ca_ends_its_clients_and_an_added_one_lets_its_in() {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).start();
    let other = Ca::root(&gateway.path().join("pki"), "Second CA");
    let newcomer = other.issue(&pki::client("newcomer"));
    gateway.write("client-ca.pem", gateway.client_ca.pem() + &other.pem());
    gateway.reload_ok();
    assert_eq!(gateway.h1_as(&newcomer).get("/v2/").status, 200);
    let mut leaving = gateway.h1();
    let mut leaving2 = gateway.h2();
    assert_eq!((leaving.get("/v2/").status, leaving2.get("/v2/").status), (200, 200));
    let mut staying = gateway.h1_as(&newcomer);
    assert_eq!(staying.get("/v2/").status, 200);
    upstream.take();
    gateway.write("client-ca.pem", other.pem());
    gateway.reload_ok();
    let served = leaving.request("GET", "/v2/", &[], b"").map(|reply| reply.status);
    assert!(!matches!(served, Ok(200)), "a client of a removed CA is served: {served:?}");
    let served = leaving2.request("GET", "/v2/", &[], b"").map(|reply| reply.status);
    assert!(!matches!(served, Ok(200)), "a client of a removed CA is served: {served:?}");
    upstream.assert_untouched("clients of a removed CA");
    assert_eq!(staying.get("/v2/").status, 200);
}

#[test]
fn an_upstream_can_be_replaced() {
    let (old, new) = (Upstream::start(), Upstream::start());
    let mut gateway = gateway().upstream(old.url()).start();
    let mut client = gateway.h1();
    assert_eq!(client.get("/v2/").status, 200);
    gateway.change_config(|c| c["upstreams"][0]["urls"] = json!([new.url()]));
    gateway.reload_ok();
    assert_eq!(client.get("/v2/").status, 200);
    assert_eq!((old.take().len(), new.take().len()), (1, 1));
}

#[test]
fn what_cannot_change_while_running_is_said() {
    let upstream = Upstream::start();
    let mut gateway = gateway().upstream(upstream.url()).start();
    gateway.change_config(|c| {
        c["threads"] = 1.into();
        c["listeners"][0]["addresses"] = json!(["127.0.0.1:0", "127.0.0.2:0"]);
    });
    gateway.reload();
    // Each in a line of its own, and the log is written behind the answer.
    for key in ["threads", "listeners[0].addresses"] {
        let said = gateway.wait_for_log(&format!("warning: {key}: "));
        assert!(said.contains("next start"), "{said}");
    }
    assert_eq!(gateway.h1().get("/v2/").status, 200);
}

/// Writes every file anew, in turn good and different, and reloads.
fn churn(gateway: &Gateway, round: u64) {
    gateway.write("policy.yaml", format!("# round {round}\n{ALLOW_ALL}"));
    let server = gateway.server_ca.issue(&pki::server(&["gw.test"]));
    gateway.write("server.crt", fs::read(&server.chain).expect("a chain"));
    gateway.write("server.key", fs::read(&server.key).expect("a key"));
    gateway.write("client-ca.pem", format!("# round {round}\n{}", gateway.client_ca.pem()));
    gateway.write("ca.crl", gateway.client_ca.crl().number(round + 2).serial(&format!("{round:04X}")).pem());
    let config = fs::read_to_string(gateway.path().join("portcullis.yaml")).expect("the configuration");
    gateway.write("portcullis.yaml", format!("# round {round}\n{config}"));
    gateway.reload_ok();
}

#[test]
fn a_push_and_a_pull_survive_fifty_reloads_of_everything() {
    const SIZE: u64 = 24 << 20;
    let upstream = Upstream::start();
    upstream.answer(|request| match request.method.as_str() {
        "GET" => Answer::new(200).pattern(0, SIZE).slowly(128 * 1024, Duration::from_millis(20)),
        _ => Answer::new(202),
    });
    let builder = gateway().upstream(upstream.url());
    let list = builder.client_ca.crl().pem();
    let gateway = builder.crl(&list).start();
    let before = gateway.generation();
    let blob = format!("/v2/a/blobs/{DIGEST}");
    std::thread::scope(|scope| {
        let mut puller = gateway.h1();
        let pull = scope
            .spawn(move || puller.request("GET", &blob, &[], b"").map(|reply| (reply.status, sha256(&reply.body))));
        let mut pusher = gateway.h2();
        let push = scope.spawn(move || {
            let mut upload = pusher.open("PATCH", "/v2/a/blobs/uploads/1?_state=x", &[], false)?;
            let piece = 128 * 1024_u64;
            for at in (0..SIZE).step_by(128 * 1024) {
                let size = usize::try_from(piece).unwrap_or(0);
                upload.send(pattern(at, size).into(), at + piece == SIZE)?;
                std::thread::sleep(Duration::from_millis(20));
            }
            upload.reply().map(|reply| reply.status)
        });
        for round in 0..50 {
            churn(&gateway, round);
        }
        let wanted = pattern_sha256(SIZE);
        let (status, digest) = pull.join().expect("no panic").expect("a whole answer");
        assert_eq!((status, digest), (200, wanted.clone()));
        assert_eq!(push.join().expect("no panic").expect("an answer"), 202);
        assert_eq!(upstream.wait_for(|r| r.method == "PATCH").body_sha256, wanted);
    });
    assert!(gateway.generation() >= before + 50.0, "{} reloads took place", gateway.generation() - before);
}
