//! Pushes of one tag through gateways that share a Redis: each waits for the one before it, wherever that came in.

use super::quotas_shared::missing;
use super::tag_races::{POLICY, Tags, manifest};
use crate::support::gateway::{Client, Gateway, gateway};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use serde_json::json;
use std::fs;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

fn replicas(upstream: &Upstream, redis: &Redis) -> [Gateway; 2] {
    let settings = json!({ "address": redis.address(), "timeout": "5s" });
    let replica = |authority: Option<&str>| {
        let builder = gateway().policy(POLICY).upstream(upstream.url());
        let builder = authority.into_iter().fold(builder, |builder, pem| builder.file("client-ca.pem", pem));
        builder.configure(|c| c["shared_limits"]["redis"] = settings.clone()).start()
    };
    let first = replica(None);
    let authority = fs::read_to_string(&first.client_ca.certificate).expect("a certificate");
    let second = replica(Some(&authority));
    [first, second]
}

#[test]
fn of_many_pushes_to_a_new_immutable_tag_through_two_gateways_one_wins() {
    if missing() {
        return;
    }
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let tags = Tags::serve(&upstream, Duration::from_millis(50));
    let gateways = replicas(&upstream, &redis);
    let identity = gateways[0].client("pusher");
    for tag in ["v1", "v2", "v3"] {
        let target = format!("/v2/app/manifests/{tag}");
        let clients: Vec<Client> =
            (0..8).flat_map(|_| gateways.iter().flat_map(|gateway| gateway.both_as(&identity))).collect();
        assert_eq!(clients.len(), 32);
        let start = Arc::new(Barrier::new(clients.len()));
        let pushes: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, mut client)| {
                let (start, target) = (start.clone(), target.clone());
                thread::spawn(move || {
                    let body = manifest(number);
                    start.wait();
                    (client.request("PUT", &target, &[("content-type", INDEX)], &body).status, body)
                })
            })
            .collect();
        let outcomes: Vec<(u16, Vec<u8>)> = pushes.into_iter().map(|push| push.join().expect("no panic")).collect();
        let statuses: Vec<u16> = outcomes.iter().map(|(status, _)| *status).collect();
        let won: Vec<_> = outcomes.into_iter().filter(|(status, _)| *status == 201).map(|(_, body)| body).collect();
        assert_eq!(won.len(), 1, "{statuses:?}");
        // On a machine that is busy with other tests some may have waited too long.
        assert!(statuses.iter().all(|status| [201, 403, 503].contains(status)), "{statuses:?}");
        assert_eq!(tags.pushed(&target), won, "what reached the upstream");
    }
    super::quotas_shared::wait(|| redis.cli(&["--scan"]).is_empty());
}

#[test]
fn without_redis_nobody_knows_who_else_pushes_and_nothing_is_pushed() {
    if missing() {
        return;
    }
    let (mut redis, upstream) = (Redis::start(), Upstream::start());
    let tags = Tags::serve(&upstream, Duration::ZERO);
    let gateways = replicas(&upstream, &redis);
    redis.stop();
    for mut client in gateways[0].both() {
        let target = "/v2/app/manifests/v1";
        let reply = client.request("PUT", target, &[("content-type", INDEX)], &manifest(1));
        reply.assert_refusal(503, "UNAVAILABLE");
        assert!(reply.message().contains("can't be found out"), "{}", reply.message());
        assert!(tags.pushed(target).is_empty());
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
