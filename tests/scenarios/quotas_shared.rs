//! Limits that two gateways share through a real Redis: counted together, and what becomes of requests while it is away.

use crate::DIGEST;
use crate::support::gateway::{Gateway, gateway};
use crate::support::pki::Identity;
use crate::support::redis::Redis;
use crate::support::registry::free_address;
use crate::support::skip;
use crate::support::upstream::{Answer, Upstream};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

const MANIFEST: &str = "/v2/team/app/manifests/v1";
const UPLOAD: &str = "/v2/team/app/blobs/uploads/3f2a";

const POLICY: &str = "\
rules:
  - { name: all, subjects: [any], repositories: ['**'], actions: [pull, push, overwrite, delete], effect: allow }
limits:
";

/// Replicas: gateways with the same client CA, policy and Redis.
pub(super) struct Replicas {
    pub(super) upstream: Upstream,
    pub(super) gateways: Vec<Gateway>,
}

impl Replicas {
    pub(super) fn start(count: usize, limits: &str, redis: &Value) -> Self {
        let upstream = Upstream::start();
        let mut gateways: Vec<Gateway> = Vec::new();
        for _ in 0..count {
            let mut builder = gateway().upstream(upstream.url()).file("policy.yaml", &format!("{POLICY}{limits}"));
            if let Some(first) = gateways.first() {
                let authority = fs::read_to_string(&first.client_ca.certificate).expect("a certificate");
                builder = builder.file("client-ca.pem", &authority);
            }
            gateways.push(builder.configure(|c| c["shared_limits"]["redis"] = redis.clone()).start());
        }
        Self { upstream, gateways }
    }

    pub(super) fn client(&self, name: &str) -> Identity {
        self.gateways[0].client(name)
    }

    /// What becomes of one request, by HTTP/1.1 and HTTP/2 in turn.
    #[track_caller]
    pub(super) fn ask(&self, replica: usize, identity: &Identity, http2: bool) -> u16 {
        let [mut h1, mut h2] = self.gateways[replica].both_as(identity);
        if http2 { h2.get(MANIFEST).status } else { h1.get(MANIFEST).status }
    }
}

pub(super) fn missing() -> bool {
    !skip::have(&["redis-server", "redis-cli"])
}

fn at(redis: &Redis) -> Value {
    // Long enough for a machine that is busy with other tests.
    json!({ "address": redis.address(), "timeout": "20s" })
}

#[test]
fn two_gateways_count_together() {
    if missing() {
        return;
    }
    let redis = Redis::start();
    let limits = "  - { name: few, subjects: [any], requests: { count: 3, window: 1h } }\n";
    let replicas = Replicas::start(2, limits, &at(&redis));
    for http2 in [false, true] {
        let client = replicas.client(if http2 { "second" } else { "first" });
        for replica in [0, 1, 0] {
            assert_eq!(replicas.ask(replica, &client, http2), 200);
        }
        replicas.upstream.take();
        for replica in [0, 1] {
            let [mut h1, mut h2] = replicas.gateways[replica].both_as(&client);
            let reply = if http2 { h2.get(MANIFEST) } else { h1.get(MANIFEST) };
            reply.assert_refusal(429, "TOOMANYREQUESTS");
            let wait: u64 = reply.header("retry-after").and_then(|value| value.parse().ok()).expect("seconds");
            assert!((1..=1200).contains(&wait), "{reply:?}");
        }
        replicas.upstream.assert_untouched("a refused request");
    }
    // Every key is the gateways' own, and none stays for ever.
    let keys = redis.cli(&["--scan"]);
    assert_eq!(keys.lines().count(), 2, "{keys}");
    for key in keys.lines() {
        assert!(key.starts_with("portcullis:limit:few:requests:3/3600s:client:"), "{key}");
        let left: i64 = redis.cli(&["pttl", key]).trim().parse().expect("milliseconds");
        assert!((1..=3_600_001).contains(&left), "{key}: {left}");
    }
    // Gateways of another registry keep to themselves.
    let mut other = at(&redis);
    other["key_prefix"] = json!("other:");
    let strangers = Replicas::start(1, limits, &other);
    assert_eq!(strangers.ask(0, strangers.gateways[0].identity(), false), 200);
    assert!(redis.cli(&["--scan"]).contains("other:limit:few"));
    assert_eq!(replicas.gateways[0].metric("portcullis_shared_limits_available", &[]), Some(1.0));
}

#[test]
fn what_is_left_of_pulls_is_the_same_everywhere() {
    if missing() {
        return;
    }
    let redis = Redis::start();
    let limits = "  - { name: pulls, subjects: [any], manifest_pulls: { count: 2, window: 6h } }\n";
    let replicas = Replicas::start(2, limits, &at(&redis));
    let client = replicas.client("puller");
    let shown = |replica: usize, method: &str| {
        let reply = replicas.gateways[replica].h1_as(&client).request(method, MANIFEST, &[], b"").expect("an answer");
        assert_eq!(reply.header("ratelimit-limit"), Some("2;w=21600"), "{reply:?}");
        (reply.status, reply.header("ratelimit-remaining").unwrap_or_default().to_owned())
    };
    assert_eq!(shown(0, "HEAD"), (200, "2;w=21600".to_owned()));
    assert_eq!(shown(0, "GET"), (200, "1;w=21600".to_owned()));
    assert_eq!(shown(1, "HEAD"), (200, "1;w=21600".to_owned()));
    assert_eq!(shown(1, "GET"), (200, "0;w=21600".to_owned()));
    assert_eq!(shown(0, "GET"), (429, "0;w=21600".to_owned()));
    assert_eq!(shown(1, "HEAD"), (200, "0;w=21600".to_owned()));
}

#[test]
fn uploads_and_bytes_are_counted_together() {
    if missing() {
        return;
    }
    let redis = Redis::start();
    let limits = "  - { name: writers, subjects: [any], concurrent_uploads: 1 }\n  \
                  - { name: volume, subjects: [any], bytes: { size: 1MiB, window: 1h } }\n";
    let replicas = Replicas::start(2, limits, &at(&redis));
    replicas.upstream.answer(|request| match request.method.as_str() {
        "GET" => Answer::new(200).pattern(0, 3 << 20),
        _ => Answer::new(202).header("Location", UPLOAD),
    });
    let client = replicas.client("writer");
    let mut first = replicas.gateways[0].h1_as(&client);
    let head = format!("PATCH {UPLOAD} HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 4\r\n\r\nab");
    first.send(head.as_bytes()).expect("sent");
    wait(|| replicas.upstream.body_bytes() == 2);
    let patch = || replicas.gateways[1].h2_as(&client).request("PATCH", UPLOAD, &[], b"x").expect("an answer");
    let refused = patch();
    refused.assert_refusal(429, "TOOMANYREQUESTS");
    assert!(refused.message().contains("(limit writers)"), "{refused:?}");
    let keys = redis.cli(&["--scan"]);
    for key in keys.lines() {
        assert!(redis.cli(&["pttl", key]).trim().parse::<i64>().is_ok_and(|left| left > 0), "{key} runs out");
    }
    first.send(b"cd").expect("sent");
    assert_eq!(first.answer().expect("an answer").status, 202);
    wait(|| patch().status == 202);

    // One gateway moves the bytes, and the other refuses the next request once it is told of them.
    let blob = format!("/v2/team/app/blobs/{DIGEST}");
    assert_eq!(replicas.gateways[0].h1_as(&client).get(&blob).body.len(), 3 << 20, "a transfer is never cut");
    replicas.upstream.answer(|_| Answer::new(200));
    wait(|| {
        let reply = replicas.gateways[1].h1_as(&client).get(MANIFEST);
        reply.status == 429 && reply.message().contains("(limit volume)")
    });
}

#[track_caller]
pub(super) fn wait(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "it does not become so");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Redis goes and comes back; while it is away, requests of a gateway come out with `first` twice, and then with `then`.
fn stopped_and_started(on_failure: &str, first: u16, then: u16, treatment: &str) {
    if missing() {
        return;
    }
    let mut redis = Redis::start();
    let mut settings = at(&redis);
    settings["on_failure"] = json!(on_failure);
    let limits = "  - { name: few, subjects: [any], requests: { count: 2, window: 1h } }\n";
    let mut replicas = Replicas::start(2, limits, &settings);
    let client = replicas.client("client");
    assert_eq!(replicas.ask(0, &client, false), 200);
    assert_eq!(replicas.ask(1, &client, true), 200);
    assert_eq!(replicas.ask(0, &client, true), 429);

    redis.stop();
    for round in 0..5 {
        let expected = if round == 0 { first } else { then };
        for replica in [0, 1] {
            let [mut h1, mut h2] = replicas.gateways[replica].both_as(&client);
            for reply in [h1.get(MANIFEST), h2.get(MANIFEST)] {
                assert_eq!(reply.status, expected, "{reply:?}");
                if expected == 503 {
                    reply.assert_refusal(503, "UNAVAILABLE");
                    assert_eq!(reply.header("retry-after"), Some("5"), "{reply:?}");
                }
            }
        }
    }
    for gateway in &replicas.gateways {
        gateway.wait_for_metric("portcullis_shared_limits_available", &[], |value| value == 0.0);
        let treated = [("treatment", treatment)];
        gateway.wait_for_metric("portcullis_shared_limits_unanswered_total", &treated, |count| count == 10.0);
        gateway.wait_for_metric("portcullis_shared_limits_errors_total", &[("cause", "connect")], |count| count >= 1.0);
        let said = gateway.log().iter().filter(|line| line.contains("gives no answer")).count();
        assert_eq!(said, 1, "once, however many requests there are: {:#?}", gateway.log());
    }

    // It comes back, without what it knew.
    redis.start_again();
    let probes = [replicas.client("probe-0"), replicas.client("probe-1")];
    for (gateway, other) in replicas.gateways.iter_mut().zip(&probes) {
        wait(|| {
            let _ = gateway.h1_as(other).get(MANIFEST);
            gateway.metric("portcullis_shared_limits_available", &[]) == Some(1.0)
        });
        gateway.wait_for_log("answers again");
    }
    assert_eq!(replicas.ask(1, &client, false), 200);
    assert_eq!(replicas.ask(0, &client, true), 200);
    assert_eq!(replicas.ask(1, &client, true), 429, "counted together again");
}

#[test]
fn each_gateway_counts_alone_while_redis_is_away() {
    stopped_and_started("allow", 200, 429, "allowed");
}

#[test]
fn requests_are_refused_while_redis_is_away_if_they_must() {
    stopped_and_started("refuse", 503, 503, "refused");
}

#[test]
fn nobody_waits_for_a_redis_that_stands_still() {
    if missing() {
        return;
    }
    let redis = Redis::start();
    let settings = json!({ "address": redis.address(), "timeout": "300ms" });
    let limits = "  - { name: few, subjects: [any], requests: { count: 1000, window: 1h } }\n";
    let replicas = Replicas::start(1, limits, &settings);
    let gateway = &replicas.gateways[0];
    let client = replicas.client("client");
    wait(|| replicas.ask(0, &client, false) == 200);
    redis.freeze();
    let mut connection = gateway.h1_as(&client);
    let start = Instant::now();
    for _ in 0..50 {
        assert_eq!(connection.get(MANIFEST).status, 200);
    }
    // Fifty deadlines would be fifteen seconds: one request finds out, the others go on.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    gateway.wait_for_metric("portcullis_shared_limits_errors_total", &[("cause", "timeout")], |count| count >= 1.0);
    redis.go_on();
    wait(|| {
        connection.get(MANIFEST);
        gateway.metric("portcullis_shared_limits_available", &[]) == Some(1.0)
    });
}

#[test]
fn one_late_answer_takes_redis_away_for_nobody() {
    if missing() {
        return;
    }
    let redis = Redis::start();
    let settings = json!({ "address": redis.address(), "timeout": "2s" });
    let limits = "  - { name: few, subjects: [any], requests: { count: 1, window: 1h } }\n";
    let replicas = Replicas::start(2, limits, &settings);
    let gateway = &replicas.gateways[0];
    let (late, other) = (replicas.client("late"), replicas.client("other"));
    assert_eq!(replicas.ask(1, &other, false), 200);
    redis.freeze();
    assert_eq!(replicas.ask(0, &late, false), 200, "counted here instead");
    gateway.wait_for_metric("portcullis_shared_limits_errors_total", &[("cause", "timeout")], |count| count == 1.0);
    redis.go_on();
    assert_eq!(gateway.metric("portcullis_shared_limits_available", &[]), Some(1.0));
    assert_eq!(replicas.ask(0, &other, true), 429, "what the other gateway counted holds");
}

#[test]
fn an_error_about_one_key_is_about_nobody_else() {
    if missing() {
        return;
    }
    let redis = Redis::start();
    let limits = "  - { name: few, subjects: [any], requests: { count: 1, window: 1h } }\n";
    let replicas = Replicas::start(2, limits, &at(&redis));
    let (odd, other) = (replicas.client("odd"), replicas.client("other"));
    assert_eq!(replicas.ask(1, &odd, false), 200);
    let key = redis.cli(&["--scan"]).trim().to_owned();
    redis.cli(&["del", &key]);
    redis.cli(&["lpush", &key, "no number"]);
    assert_eq!(replicas.ask(1, &other, false), 200);
    let gateway = &replicas.gateways[0];
    assert_eq!(replicas.ask(0, &odd, false), 200, "counted here instead");
    assert_eq!(replicas.ask(0, &odd, true), 429, "and that counts");
    gateway.wait_for_metric("portcullis_shared_limits_errors_total", &[("cause", "answer")], |count| count == 2.0);
    assert_eq!(gateway.metric("portcullis_shared_limits_available", &[]), Some(1.0));
    assert_eq!(replicas.ask(0, &other, true), 429, "what the other gateway counted holds");
}

#[test]
fn a_redis_on_a_port_with_a_password_and_a_database_will_do() {
    if missing() {
        return;
    }
    let port = free_address().port();
    let redis = Redis::start_with(&["--port", &port.to_string(), "--bind", "127.0.0.1", "--requirepass", "s3cret"]);
    let upstream = Upstream::start();
    let limits = format!("{POLICY}  - {{ name: few, subjects: [any], requests: {{ count: 1, window: 1h }} }}\n");
    let builder = gateway().upstream(upstream.url()).file("policy.yaml", &limits).file("redis-password", "s3cret\n");
    let address = format!("redis://127.0.0.1:{port}/3");
    let settings = json!({ "address": address, "password_file": "redis-password", "timeout": "20s" });
    let gateway = builder.configure(|c| c["shared_limits"]["redis"] = settings).start();
    assert_eq!(gateway.h1().get(MANIFEST).status, 200);
    assert_eq!(gateway.h2().get(MANIFEST).status, 429);
    let keys = redis.cli(&["-a", "s3cret", "--no-auth-warning", "-n", "3", "--scan"]);
    assert!(keys.contains("portcullis:limit:few"), "{keys}");
    assert!(!gateway.log().join("\n").contains("s3cret"));

    // The wrong password is a Redis that doesn't answer.
    gateway.write("redis-password", "wrong\n");
    gateway.reload_ok();
    assert_eq!(gateway.h1().get(MANIFEST).status, 200, "on_failure: allow is the default");
    gateway.wait_for_metric("portcullis_shared_limits_available", &[], |value| value == 0.0);
    assert!(!gateway.log().join("\n").contains("s3cret"));
}
