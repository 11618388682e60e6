//! Everything that can happen to a file of revocation lists while a gateway watches it: no revocation is forgotten, and no
//! good client locked out.

use super::tls_faults::s_client;
use crate::support::client::H1;
use crate::support::gateway::{Gateway, gateway};
use crate::support::pki::Identity;
use crate::support::skip;
use crate::support::upstream::Upstream;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A gateway that watches its files, whose list revokes one client; and that client.
fn start() -> (Upstream, Gateway, Identity) {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let victim = builder.client_ca.issue(&crate::support::pki::client("victim"));
    let list = builder.client_ca.crl().number(1).revoke(&victim.certificate).pem();
    let gateway = builder.crl(&list).configure(|c| c["reload"] = serde_json::json!({ "watch": true })).start();
    (upstream, gateway, victim)
}

/// The next list: it revokes the same client, and `number` others, by which it is told from the one before.
fn next(gateway: &Gateway, victim: &Identity, number: u64) -> String {
    let list = gateway.client_ca.crl().number(number).revoke(&victim.certificate);
    (0..number).fold(list, |list, other| list.serial(&format!("0A{other:06X}"))).pem()
}

#[track_caller]
fn wait_for_number(gateway: &Gateway, number: f64) {
    gateway.wait_for_metric("portcullis_crl_number", &[], |n| (n - number).abs() < 0.5);
}

fn is_served(gateway: &Gateway, identity: &Identity) -> bool {
    H1::connect(&gateway.tls_as(identity))
        .map_err(std::io::Error::other)
        .and_then(|mut client| client.request("GET", "/v2/", &[], b""))
        .is_ok_and(|reply| reply.status == 200)
}

/// Tries again and again, while `work` is done, whether the revoked is refused and the good one served.
#[track_caller]
fn under_watch(gateway: &Gateway, victim: &Identity, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let mut stays = gateway.both();
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut rounds = 0;
            while rounds == 0 || !done.load(Ordering::SeqCst) {
                assert!(!is_served(gateway, victim), "the revocation was forgotten");
                assert!(is_served(gateway, gateway.identity()), "a good client is locked out");
                for client in &mut stays {
                    assert_eq!(client.get("/v2/").status, 200, "an open connection of a good client");
                }
                rounds += 1;
            }
        });
        work();
        done.store(true, Ordering::SeqCst);
        if let Err(panic) = watch.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn replaced_by_renaming_in_place_and_by_half() {
    let (_upstream, gateway, victim) = start();
    let file = gateway.path().join("ca.crl");
    under_watch(&gateway, &victim, || {
        gateway.write("ca.crl", next(&gateway, &victim, 2));
        wait_for_number(&gateway, 2.0);
        fs::write(&file, next(&gateway, &victim, 3)).expect("writable");
        wait_for_number(&gateway, 3.0);
        // As a slow copy does it: the gateway sees the first half and must not take it for all.
        let list = next(&gateway, &victim, 4);
        let (first, second) = list.split_at(list.len() / 2);
        fs::write(&file, first).expect("writable");
        gateway.wait_for_metric("portcullis_crl_failed", &[], |n| n >= 1.0);
        wait_for_number(&gateway, 3.0);
        let mut open = OpenOptions::new().append(true).open(&file).expect("writable");
        open.write_all(second.as_bytes()).expect("writable");
        drop(open);
        wait_for_number(&gateway, 4.0);
        gateway.wait_for_metric("portcullis_crl_failed", &[], |n| n == 0.0);
    });
    gateway.wait_for_metric("portcullis_change_to_effect_seconds_count", &[], |n| n >= 3.0);
}

#[test]
fn deleted_and_there_again() {
    let (_upstream, gateway, victim) = start();
    under_watch(&gateway, &victim, || {
        fs::remove_file(gateway.path().join("ca.crl")).expect("it is there");
        gateway.wait_for_metric("portcullis_crl_failed", &[], |n| n >= 1.0);
        gateway.write("ca.crl", next(&gateway, &victim, 2));
        wait_for_number(&gateway, 2.0);
    });
}

#[test]
fn unreadable() {
    let (_upstream, gateway, victim) = start();
    let file = gateway.path().join("ca.crl");
    fs::set_permissions(&file, Permissions::from_mode(0o000)).expect("it is ours");
    if File::open(&file).is_ok() {
        // The superuser reads everything.
        skip::skipped_as_root();
        return;
    }
    under_watch(&gateway, &victim, || {
        gateway.reload();
        gateway.wait_for_metric("portcullis_crl_errors_total", &[("fault", "unreadable")], |n| n >= 1.0);
        gateway.write("ca.crl", next(&gateway, &victim, 2));
        wait_for_number(&gateway, 2.0);
    });
}

#[test]
fn a_directory_or_a_link_to_nowhere_in_its_place() {
    let (_upstream, gateway, victim) = start();
    let file = gateway.path().join("ca.crl");
    under_watch(&gateway, &victim, || {
        fs::remove_file(&file).expect("it is there");
        fs::create_dir(&file).expect("writable");
        gateway.reload();
        gateway.wait_for_metric("portcullis_crl_errors_total", &[("fault", "unreadable")], |n| n >= 1.0);
        fs::remove_dir(&file).expect("it is empty");
        gateway.write("ca.crl", next(&gateway, &victim, 2));
        wait_for_number(&gateway, 2.0);
        // Nobody can read these, not even the superuser.
        for (target, errors) in [("ca.crl", 2.0), ("nowhere", 3.0)] {
            fs::remove_file(&file).expect("it is there");
            std::os::unix::fs::symlink(target, &file).expect("writable");
            gateway.reload();
            gateway.wait_for_metric("portcullis_crl_errors_total", &[("fault", "unreadable")], |n| n >= errors);
        }
        gateway.write("ca.crl", next(&gateway, &victim, 3));
        wait_for_number(&gateway, 3.0);
    });
}

#[test]
fn a_file_of_200_mb_fills_no_memory() {
    let (_upstream, gateway, victim) = start();
    gateway.reset_peak();
    let before = gateway.rss_kib();
    under_watch(&gateway, &victim, || {
        // Sparse: it has the size, not the blocks.
        let staged = gateway.path().join("large");
        File::create(&staged).and_then(|file| file.set_len(200 << 20)).expect("writable");
        fs::rename(staged, gateway.path().join("ca.crl")).expect("writable");
        gateway.wait_for_metric("portcullis_crl_failed", &[], |n| n >= 1.0);
        gateway.write("ca.crl", next(&gateway, &victim, 2));
        wait_for_number(&gateway, 2.0);
    });
    let grown = gateway.peak_kib().saturating_sub(before) / 1024;
    assert!(grown < 64, "memory grew by {grown} MiB");
}

#[test]
fn replaced_a_hundred_times_in_ten_seconds() {
    let (_upstream, gateway, victim) = start();
    // Every second one is broken in one way or another.
    let mut contents: Vec<Vec<u8>> = Vec::new();
    for number in 2..=51 {
        let good = next(&gateway, &victim, number).into_bytes();
        let bad = match number % 4 {
            0 => Vec::new(),
            1 => good[..good.len() / 3].to_vec(),
            2 => b"<html>not now</html>".to_vec(),
            _ => gateway.client_ca.crl().number(number - 2).pem().into_bytes(),
        };
        contents.extend([bad, good]);
    }
    under_watch(&gateway, &victim, || {
        let begun = Instant::now();
        for (number, content) in (1_u32..).zip(&contents) {
            gateway.write("ca.crl", content);
            std::thread::sleep((Duration::from_millis(100) * number).saturating_sub(begun.elapsed()));
        }
    });
    wait_for_number(&gateway, 51.0);
    assert_eq!(gateway.metric("portcullis_crl_failed", &[]), Some(0.0));
    let shown = s_client(&gateway, Some(&victim), &[]);
    assert!(shown.all().contains("SSL alert number 44"), "{}", shown.all());
}

#[test]
fn open_connections_keep_no_old_generation_in_memory() {
    const ENTRIES: u64 = 100_000;
    let (_upstream, gateway, victim) = start();
    let next = |number: u64| {
        let list = gateway.client_ca.crl().number(number).revoke(&victim.certificate);
        let list = (0..ENTRIES).fold(list, |list, other| list.serial(&format!("0{number:X}{other:014X}")));
        gateway.write("ca.crl", list.pem());
        wait_for_number(&gateway, number as f64);
    };
    let mut clients = Vec::new();
    let mut grown = Vec::new();
    for number in 2..15 {
        next(number);
        for mut client in gateway.both() {
            assert_eq!(client.get("/v2/").status, 200);
            clients.push(client);
        }
        grown.push(gateway.rss_kib());
    }
    // An index of this size has 2 MiB. The allocator has what it works with after the first few.
    let (early, late) = (grown[4], grown[12]);
    assert!(late < early + 6 * 1024, "eight generations later: {grown:?} KiB");
    for client in &mut clients {
        assert_eq!(client.get("/v2/").status, 200, "{}", client.version());
    }
}
