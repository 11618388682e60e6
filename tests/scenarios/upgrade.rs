//! Hand-over to a successor: what goes on, what moves, and what stays when there is none.

use crate::support::client::H1;
use crate::support::gateway::{Builder, Gateway, gateway, plain_http};
use crate::support::heir::{Heir, upgrade};
use crate::support::manager::Manager;
use crate::support::pki::Ca;

use crate::support::upstream::{Answer, Upstream, pattern};
use serde_json::json;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A gateway that is administrated by a unix socket, whose address is known to the command.
fn administrated(upstream: &Upstream) -> (Builder, PathBuf) {
    let builder = gateway().upstream(upstream.url());
    let socket = builder.path().join("admin.sock");
    let address = format!("unix:{}", socket.display());
    (builder.configure(|c| c["admin"]["address"] = address.into()), socket)
}

fn config(gateway: &Gateway) -> PathBuf {
    gateway.path().join("portcullis.yaml")
}

#[track_caller]
fn upgraded(gateway: &Gateway) -> Heir {
    let said = upgrade(&config(gateway));
    if !said.success() {
        // A successor whose answer was lost must not outlive the test.
        let log = gateway.log();
        let started = log.iter().filter(|line| line.contains("is to take over"));
        drop(started.filter_map(|line| Heir::named_in(line)).collect::<Vec<_>>());
    }
    let said = said.expect_success("upgrade").text();
    Heir::named_in(&said).unwrap_or_else(|| panic!("no process is named: {said}"))
}

/// What an upstream waits for before it answers.
#[derive(Clone, Default)]
struct Hold(Arc<(Mutex<bool>, Condvar)>);

impl Hold {
    fn wait(&self) {
        let released = self.0.0.lock().expect("no panic");
        drop(self.0.1.wait_timeout_while(released, LONG, |released| !*released).expect("no panic"));
    }

    fn release(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }
}

#[track_caller]
fn assert_left(gateway: &mut Gateway) {
    let status = gateway.process().wait(LONG).expect("the old process drains and leaves");
    assert!(status.success(), "{status}: {:#?}", gateway.log());
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_successor_serves_at_every_address_and_the_old_process_leaves() {
    let upstream = Upstream::start();
    let (builder, socket) = administrated(&upstream);
    let mut gateway = builder.start();
    let old = gateway.process().id();
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    let heir = upgraded(&gateway);
    assert_ne!(heir.0, old);
    assert_left(&mut gateway);
    assert_eq!(gateway.h2().get("/v2/").status, 200);
    assert_eq!(plain_http(gateway.health(), "GET", "/readyz").status, 200);
    assert!(socket.symlink_metadata().is_ok(), "the file belongs to the successor now");
    // And once more, by the successor.
    let second = upgraded(&gateway);
    assert!(heir.ends_within(LONG));
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    second.signal("TERM");
    assert!(second.ends_within(LONG));
    assert!(socket.symlink_metadata().is_err(), "the last one removes it");
    assert!(TcpStream::connect(gateway.address()).is_err() && TcpStream::connect(gateway.health()).is_err());
}

#[test]
fn the_signal_does_the_same_and_the_service_manager_learns_who_is_the_service() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let manager = Manager::start(builder.path());
    let builder = builder.started(|start| {
        manager.adopt(start);
        start.environment.push(("WATCHDOG_USEC", "4000000".to_owned()));
    });
    let mut gateway = builder.start();
    manager.wait_for("READY=1");
    gateway.process().signal("QUIT");
    let heir = Heir::named_in(&gateway.wait_for_log("is to take over")).expect("a process");
    // From the old process, which alone is believed until then.
    manager.wait_for(&format!("MAINPID={}", heir.0));
    let ready = manager.wait_for("READY=1");
    assert!(ready.contains(&format!("MAINPID={}", heir.0)), "{ready:?}");
    assert_left(&mut gateway);
    manager.wait_for("WATCHDOG=1");
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    while let Some(notification) = manager.next_within(Duration::from_millis(200)) {
        assert!(!notification.contains(&"STOPPING=1".to_owned()), "the service goes on: {notification:?}");
    }
}

#[test]
fn transfers_go_on_in_the_old_process_and_new_connections_to_the_new_one() {
    let upstream = Upstream::start();
    let held = Hold::default();
    let holding = held.clone();
    upstream.answer(move |request| match request.target.contains("/blobs/") {
        true => {
            holding.wait();
            Answer::new(200).pattern(0, 3 << 20)
        }
        false => Answer::new(200).body(b"{}"),
    });
    let (builder, _) = administrated(&upstream);
    let mut gateway = builder.configure(|c| c["drain"]["grace"] = "120s".into()).start();
    let target = format!("/v2/a/blobs/{}", crate::DIGEST);
    let mut h1 = gateway.h1();
    h1.send_request("GET", &target, &[], b"").expect("sent");
    let mut h2 = gateway.h2();
    let mut transfer = h2.open("GET", &target, &[], true).expect("a stream");
    // Both have come to the registry, which answers them when it is told to.
    wait_until("the transfers never began", || {
        upstream.requests().iter().filter(|request| request.target == target).count() == 2
    });
    // A client in the middle of a push asks all the time, and is told once not to come back.
    let mut busy = gateway.h1();
    let asking = std::thread::spawn(move || {
        loop {
            let reply = busy.request("GET", "/v2/", &[], b"").map_err(|e| e.to_string())?;
            match (reply.status, reply.header("connection")) {
                (200, Some("close")) => return Ok(()),
                // With a rest, or it would use up the requests that a connection may make.
                (200, _) => std::thread::sleep(Duration::from_millis(10)),
                _ => return Err(format!("{reply:?}")),
            }
        }
    });
    let heir = upgraded(&gateway);
    assert_eq!(asking.join().expect("no panic"), Ok(()));
    // systemd sends it to every process of a service that is to stop; it doesn't cut the transfers short.
    gateway.process().signal("TERM");
    gateway.wait_for_log("draining already");
    assert!(gateway.process().has_exited().is_none(), "the transfers are not done");
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    held.release();
    assert_eq!(h1.answer().expect("the transfer ends well").body, pattern(0, 3 << 20));
    let mut body = Vec::new();
    assert_eq!(transfer.head().expect("a head").status, 200);
    while let Some(part) = transfer.part().expect("the transfer goes on") {
        body.extend_from_slice(&part);
    }
    assert_eq!(body, pattern(0, 3 << 20));
    drop((h1, h2));
    assert_left(&mut gateway);
    assert!(heir.runs());
}

#[test]
fn the_socket_file_of_an_administration_that_moved_is_removed() {
    let upstream = Upstream::start();
    let (builder, old) = administrated(&upstream);
    let mut gateway = builder.start();
    let new = old.with_file_name("moved.sock");
    let asked = config(&gateway).with_file_name("old.yaml");
    fs::copy(config(&gateway), &asked).expect("the test directory is writable");
    gateway.change_config(|c| c["admin"]["address"] = format!("unix:{}", new.display()).into());
    let said = upgrade(&asked).expect_success("upgrade").text();
    let heir = Heir::named_in(&said).unwrap_or_else(|| panic!("no process is named: {said}"));
    assert_left(&mut gateway);
    assert!(old.symlink_metadata().is_err() && new.symlink_metadata().is_ok());
    heir.signal("TERM");
    assert!(heir.ends_within(LONG));
    assert!(new.symlink_metadata().is_err());
}

#[test]
fn an_upload_begun_before_is_finished_after() {
    let upstream = Upstream::start();
    let session = "/v2/team/app/blobs/uploads/3f2a-77";
    upstream.answer(move |request| match request.method.as_str() {
        "PUT" => Answer::new(201),
        _ => Answer::new(202).header("Location", &format!("{session}?_state=a")),
    });
    let (builder, _) = administrated(&upstream);
    let gateway = builder.bound_uploads().start();
    let started = gateway.h1().request("POST", "/v2/team/app/blobs/uploads/", &[], b"").expect("an answer");
    let location = started.header("location").expect("a location").to_owned();
    let _heir = upgraded(&gateway);
    let sent = gateway.h1().request("PATCH", &location, &[], b"layer").expect("an answer");
    assert_eq!(sent.status, 202, "{sent:?}");
    assert_eq!(sent.header("location"), Some(location.as_str()), "the same session, the same tag");
    let done = gateway.h2().request("PUT", &format!("{location}&digest={}", crate::DIGEST), &[], b"");
    assert_eq!(done.expect("an answer").status, 201);
}

#[test]
fn a_broken_configuration_leaves_everything_as_it_was() {
    let upstream = Upstream::start();
    let (builder, socket) = administrated(&upstream);
    let mut gateway = builder.start();
    let mut open = gateway.h1();
    let good = fs::read_to_string(gateway.path().join("policy.yaml")).expect("the policy");
    gateway.write("policy.yaml", "rules: [{ name: everyone, subject: [any] }]");
    let refused = upgrade(&config(&gateway));
    assert_eq!(refused.code, Some(4), "{}", refused.all());
    assert!(refused.stderr.contains("policy.yaml:1") && refused.stderr.contains("goes on"), "{}", refused.all());
    let heir = Heir::named_in(&gateway.wait_for_log("is to take over")).expect("a process");
    assert!(heir.ends_within(LONG));
    assert!(socket.symlink_metadata().is_ok() && gateway.process().has_exited().is_none());
    assert_eq!(open.get("/v2/").status, 200, "the connection is still there");
    assert_eq!(gateway.h2().get("/v2/").status, 200);
    assert_eq!(plain_http(gateway.health(), "GET", "/readyz").status, 200);
    assert_eq!(gateway.metric("portcullis_upgrades_total", &[("result", "failed")]), Some(1.0));
    // Nor does an address that somebody else has.
    let (_holder, taken) = crate::support::manager::listening();
    gateway.write("policy.yaml", &good);
    gateway.change_config(|c| c["listeners"][0]["addresses"] = json!(["127.0.0.1:0", taken]));
    let refused = upgrade(&config(&gateway));
    assert_eq!(refused.code, Some(4), "{}", refused.all());
    assert!(refused.stderr.contains(&format!("{taken} is in use by ")), "{}", refused.all());
    assert_eq!(open.get("/v2/").status, 200, "the connection is still there");
    gateway.change_config(|c| c["listeners"][0]["addresses"] = json!(["127.0.0.1:0"]));
    let _heir = upgraded(&gateway);
    drop(open);
    assert_left(&mut gateway);
}

#[test]
fn a_successor_that_would_shut_clients_out_for_want_of_a_list_declines() {
    let (upstream, lists) = (Upstream::start(), Upstream::start());
    let (builder, _) = administrated(&upstream);
    let other = Ca::root(&builder.pki(), "Other CA");
    let list = builder.client_ca.crl().pem();
    lists.answer(move |_| Answer::new(200).body(list.as_bytes()));
    let url = format!("{}/ca.crl", lists.url());
    let crls = |urls: &[&str]| urls.iter().map(|url| json!({ "url": url, "timeout": "1s" })).collect::<Vec<_>>();
    let mut gateway = builder.configure(|c| c["revocation"]["crls"] = crls(&[&url]).into()).start();
    let mut open = gateway.h1();
    assert_eq!(open.get("/v2/").status, 200);
    // The list is in the memory of the process that serves, and nowhere else.
    lists.answer(|_| Answer::new(503));
    let refused = upgrade(&config(&gateway));
    assert_eq!(refused.code, Some(4), "{}", refused.all());
    for part in ["no revocation list in force", "Test Client CA", "state_directory", "goes on"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.all());
    }
    assert_eq!(open.get("/v2/").status, 200, "the connection is still there");
    assert_eq!(gateway.h2().get("/v2/").status, 200, "and new ones are let in");
    // An authority whose clients nobody lets in now is no reason to stay.
    let list = gateway.client_ca.crl().pem();
    lists.answer(move |request| match request.target.as_str() {
        "/ca.crl" => Answer::new(200).body(list.as_bytes()),
        _ => Answer::new(503),
    });
    gateway.write("client-ca.pem", gateway.client_ca.pem() + &other.pem());
    let dead = format!("{}/other.crl", lists.url());
    gateway.change_config(|c| c["revocation"]["crls"] = crls(&[&url, &dead]).into());
    let _heir = upgraded(&gateway);
    assert_eq!(gateway.h2().get("/v2/").status, 200);
    drop(open);
    assert_left(&mut gateway);
}

#[test]
fn a_list_that_has_run_out_is_no_reason_to_decline() {
    let (upstream, lists) = (Upstream::start(), Upstream::start());
    let (builder, _) = administrated(&upstream);
    let soon = super::revocation_live::time_in(Duration::from_secs(4));
    let list = builder.client_ca.crl().last_update("20260101000000Z").next_update(&soon).pem();
    lists.answer(move |_| Answer::new(200).body(list.as_bytes()));
    let url = format!("{}/ca.crl", lists.url());
    let builder = builder.configure(|c| {
        c["revocation"]["crls"] = json!([{ "url": url, "timeout": "1s" }]);
        c["revocation"]["clock_skew"] = "0s".into();
    });
    let mut gateway = builder.start();
    let served = || H1::connect(&gateway.tls()).map(|mut client| client.request("GET", "/v2/", &[], b"").is_ok());
    wait_until("the list is in force", || served().unwrap_or(false));
    lists.answer(|_| Answer::new(503));
    wait_until("the list runs out", || !served().unwrap_or(false));
    let _heir = upgraded(&gateway);
    assert_left(&mut gateway);
}

/// A gateway started by a link to its program, which can be turned to another one.
fn linked(upstream: &Upstream) -> (Gateway, PathBuf) {
    let (builder, _) = administrated(upstream);
    let link = builder.path().join("portcullis");
    symlink(env!("CARGO_BIN_EXE_portcullis"), &link).expect("the test directory is writable");
    let gateway = builder.started(|start| start.binary = Some(link.clone())).start();
    (gateway, link)
}

fn turn(link: &Path, script: &str) {
    let program = link.with_extension("sh");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("the test directory is writable");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("the test directory is writable");
    let staged = link.with_extension("new");
    symlink(program, &staged).expect("the test directory is writable");
    fs::rename(staged, link).expect("the test directory is writable");
}

#[test]
fn the_program_that_is_there_now_is_started_and_may_be_none() {
    let upstream = Upstream::start();
    let (gateway, link) = linked(&upstream);
    turn(&link, "exit 7");
    let refused = upgrade(&config(&gateway));
    assert_eq!(refused.code, Some(4), "{}", refused.all());
    assert!(refused.stderr.contains("exit status: 7"), "{}", refused.all());
    fs::remove_file(&link).expect("the test directory is writable");
    let refused = upgrade(&config(&gateway));
    assert!(refused.code == Some(4) && refused.stderr.contains("can't be started"), "{}", refused.all());
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    // Nor is one that says that it is ready, and ends: its word is a message on its standard input.
    for (script, why) in [
        ("printf '\"ready\"' >&0; exit 9", "exit status: 9"),
        ("printf '{\"serving\":{\"admin\":true}}' >&0; exec sleep 1000", "without having been told"),
    ] {
        turn(&link, script);
        let refused = upgrade(&config(&gateway));
        assert!(refused.code == Some(4) && refused.stderr.contains(why), "{}", refused.all());
        assert_eq!(gateway.h1().get("/v2/").status, 200);
        assert_eq!(plain_http(gateway.health(), "GET", "/readyz").status, 200);
    }
    // One that is a gateway, with a mark that it was this one.
    turn(&link, &format!("touch \"${{0%.sh}}.ran\"\nexec {} \"$@\"", env!("CARGO_BIN_EXE_portcullis")));
    let _heir = upgraded(&gateway);
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    let mut names = fs::read_dir(gateway.path()).expect("the test directory").flatten();
    assert!(names.any(|entry| entry.file_name().to_string_lossy().ends_with(".ran")));
}

#[test]
fn a_second_request_is_refused_and_an_order_to_stop_ends_the_first() {
    let upstream = Upstream::start();
    let (mut gateway, link) = linked(&upstream);
    turn(&link, "exec sleep 1000");
    let file = config(&gateway);
    let first = std::thread::spawn(move || upgrade(&file));
    let hanging = Heir::named_in(&gateway.wait_for_log("is to take over")).expect("a process");
    let second = upgrade(&config(&gateway));
    assert_eq!(second.code, Some(4), "{}", second.all());
    assert!(second.stderr.contains("under way"), "{}", second.all());
    gateway.process().signal("QUIT");
    gateway.wait_for_log("no hand-over: a hand-over is under way");
    assert_eq!(gateway.h1().get("/v2/").status, 200);
    gateway.process().signal("TERM");
    assert_left(&mut gateway);
    assert!(hanging.ends_within(LONG), "nobody would serve what it holds");
    let first = first.join().expect("no panic");
    assert!(first.code == Some(4) && first.stderr.contains("stopping"), "{}", first.all());
}

#[test]
fn threads_and_addresses_may_change() {
    let upstream = Upstream::start();
    let (builder, _) = administrated(&upstream);
    // On addresses of this test alone, whose ports nobody else is given.
    let own = |last: u8| format!("127.83.7.{last}:{}", 20_000 + std::process::id() % 20_000);
    let (removed, kept, added) = (own(1), own(2), own(3));
    let addresses = json!([removed, kept]);
    let mut gateway = builder.configure(|c| c["listeners"][0]["addresses"] = addresses).start();
    let mut heirs = Vec::new();
    for (threads, addresses) in [(1, json!([kept, added])), (4, json!([kept, added])), (2, json!([kept]))] {
        gateway.change_config(|c| {
            c["threads"] = threads.into();
            c["listeners"][0]["addresses"] = addresses.clone();
        });
        let before = heirs.last().map(|heir: &Heir| heir.0);
        heirs.push(upgraded(&gateway));
        match before {
            Some(_) => assert!(heirs[heirs.len() - 2].ends_within(LONG)),
            None => assert_left(&mut gateway),
        }
        for address in addresses.as_array().expect("a list") {
            let mut tls = gateway.tls();
            tls.address = address.as_str().and_then(|text| text.parse().ok()).expect("an address");
            // Enough for every queue to be met.
            for _ in 0..12 {
                let reply =
                    H1::connect(&tls).and_then(|mut h1| h1.request("GET", "/v2/", &[], b"").map_err(|e| e.to_string()));
                assert_eq!(reply.map(|reply| reply.status), Ok(200), "{address} with {threads} threads");
            }
        }
        assert!(TcpStream::connect(&removed).is_err(), "it went with the old process");
    }
    wait_until("the address that was removed is still open", || TcpStream::connect(&added).is_err());
}

#[test]
fn without_an_admin_listener_the_command_names_the_signal() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url()).configure(|c| c["admin"]["address"] = json!(null));
    let said = upgrade(&builder.write_config());
    assert!(said.code == Some(3) && said.stderr.contains("SIGQUIT"), "{:?} {}", said.code, said.all());
    let (builder, socket) = administrated(&upstream);
    let said = upgrade(&builder.write_config());
    let named = said.stderr.contains(&format!("unix:{}", socket.display()));
    assert!(said.code == Some(3) && named, "{:?} {}", said.code, said.all());
    let said = upgrade(&builder.path().join("nowhere.yaml"));
    assert_eq!(said.code, Some(1), "{}", said.all());
}
