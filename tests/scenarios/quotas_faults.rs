//! Limits that gateways share when something goes wrong between one of them and Redis.

use super::quotas_shared::{Replicas, missing, wait};
use crate::support::redis::Redis;
use crate::support::upstream::Answer;
use serde_json::json;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

const MANIFEST: &str = "/v2/team/app/manifests/v1";
const UPLOAD: &str = "/v2/team/app/blobs/uploads/3f2a";

/// Stands between a gateway and Redis, and may keep an answer and hang up instead.
struct Middle {
    directory: TempDir,
    swallow: Arc<AtomicBool>,
}

impl Middle {
    fn before(redis: &Redis) -> Self {
        let directory = tempfile::Builder::new().prefix("pcr-").tempdir().expect("a directory");
        let swallow = Arc::new(AtomicBool::new(false));
        let listener = UnixListener::bind(socket(directory.path())).expect("a socket");
        let (behind, inside) = (redis.socket(), Arc::clone(&swallow));
        std::thread::spawn(move || {
            for front in listener.incoming().flatten() {
                let Ok(back) = UnixStream::connect(&behind) else { continue };
                let (front_too, back_too) = (front.try_clone().expect("a clone"), back.try_clone().expect("a clone"));
                std::thread::spawn(move || pass(front_too, back_too, |_| true));
                let swallow = Arc::clone(&inside);
                std::thread::spawn(move || pass(back, front, |_| !swallow.swap(false, Ordering::SeqCst)));
            }
        });
        Self { directory, swallow }
    }

    fn address(&self) -> String {
        format!("unix://{}", socket(self.directory.path()).display())
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("middle.sock")
}

/// Passes bytes on until the end, or until some may not pass.
fn pass(mut from: UnixStream, mut to: UnixStream, may: impl Fn(&[u8]) -> bool) {
    let mut part = vec![0; 65_536];
    while let Ok(length) = from.read(&mut part) {
        if length == 0 || !may(&part[..length]) || to.write_all(&part[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_question_whose_answer_was_lost_counts_once() {
    if missing() {
        return;
    }
    let redis = Redis::start();
    let middle = Middle::before(&redis);
    let limits = "  - { name: few, subjects: [any], requests: { count: 3, window: 1h }, concurrent_uploads: 1 }\n";
    let settings = json!({ "address": middle.address(), "timeout": "20s", "on_failure": "refuse" });
    let replicas = Replicas::start(1, limits, &settings);
    replicas.upstream.answer(|_| Answer::new(202).header("Location", UPLOAD));
    let client = replicas.client("client");
    // One connection is one thread, and so one connection to Redis.
    let mut connection = replicas.gateways[0].h1_as(&client);
    assert_eq!(connection.get(MANIFEST).status, 202);
    middle.swallow.store(true, Ordering::SeqCst);
    let upload = connection.request("PATCH", UPLOAD, &[], b"x").expect("an answer");
    assert_eq!(upload.status, 202, "asked again, and its own place doesn't count against it: {upload:?}");
    assert!(!middle.swallow.load(Ordering::SeqCst), "an answer was lost");
    assert_eq!(connection.get(MANIFEST).status, 202, "the third of three");
    assert_eq!(connection.get(MANIFEST).status, 429);
}

#[test]
fn a_place_that_was_asked_for_in_vain_is_given_back() {
    if missing() {
        return;
    }
    let redis = Redis::start();
    let limits = "  - { name: writers, subjects: [any], concurrent_uploads: 1 }\n";
    let replicas = Replicas::start(2, limits, &json!({ "address": redis.address(), "timeout": "2s" }));
    replicas.upstream.answer(|_| Answer::new(202).header("Location", UPLOAD));
    let client = replicas.client("writer");
    let places = || redis.cli(&["--scan"]).lines().map(|key| redis.cli(&["zcard", key])).collect::<String>();
    let mut connection = replicas.gateways[0].h1_as(&client);
    assert_eq!(connection.request("PATCH", UPLOAD, &[], b"x").expect("an answer").status, 202);
    wait(|| places().is_empty());
    redis.freeze();
    // Redis takes the place when it goes on, long after the gateway gave up waiting.
    assert_eq!(connection.request("PATCH", UPLOAD, &[], b"x").expect("an answer").status, 202);
    redis.go_on();
    // A place that nobody gives back stays for longer than this waits.
    wait(|| {
        let status = replicas.gateways[1].h2_as(&client).request("PATCH", UPLOAD, &[], b"x").expect("an answer").status;
        status == 202
    });
    wait(|| places().is_empty());
}

#[test]
fn what_is_set_aside_for_a_transfer_is_seen_by_other_gateways_and_comes_back() {
    if missing() {
        return;
    }
    let redis = Redis::start();
    let limits = "  - { name: volume, subjects: [any], bytes: { size: 8MiB, window: 1h } }\n";
    let replicas = Replicas::start(2, limits, &json!({ "address": redis.address(), "timeout": "20s" }));
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    replicas.upstream.answer(move |_| {
        while !gate.load(Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Answer::new(200)
    });
    let client = replicas.client("reader");
    let mut connections: Vec<_> = (0..2).map(|replica| replicas.gateways[replica].h2_as(&client)).collect();
    let mut exchanges = Vec::new();
    for _ in 0..20 {
        for connection in &mut connections {
            exchanges.push(connection.open("GET", MANIFEST, &[], true).expect("opened"));
        }
    }
    let refusals = |replica: usize| {
        let labels = [("limit", "volume"), ("kind", "bytes")];
        replicas.gateways[replica].metric("portcullis_limit_refusals_total", &labels).unwrap_or_default()
    };
    wait(|| refusals(0) + refusals(1) >= 31.0);
    open.store(true, Ordering::SeqCst);
    let served = exchanges.into_iter().filter_map(|exchange| exchange.reply().ok()).filter(|reply| reply.status == 200);
    let served = served.count();
    assert!((8..=9).contains(&served), "a megabyte is set aside for each: {served}");
    wait(|| redis.cli(&["--scan"]).is_empty());
    assert_eq!(replicas.ask(1, &client, true), 200, "nothing was moved, and nothing is used up");
}
