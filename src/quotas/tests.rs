use std::task::{Context, Poll, Waker};

use super::*;
use crate::config::policy::PolicyFile;
use crate::identity::{Attribute, Description, PeerIdentity};
use crate::policy;

const REQUEST: Demand = Demand { manifest: None, upload: false, bytes: None };
const PULL: Demand = Demand { manifest: Some(Pull::Take), upload: false, bytes: None };
const HEAD: Demand = Demand { manifest: Some(Pull::Look), upload: false, bytes: None };
const UPLOAD: Demand = Demand { manifest: None, upload: true, bytes: None };

/// Limits in force, and the clients they are about.
struct Limits {
    policy: Policy,
    quotas: Quotas,
    metrics: Metrics,
}

const GROUPS: &str = "groups:\n  ci: [{ subject: { O: CI } }]\n  lab: [{ subject: { OU: lab } }]\n  \
                      trusted: [{ subject: { CN: 'trusted*' } }]\nlimits:\n";

fn policy_of(limits: &str) -> Policy {
    let file: PolicyFile = serde_yaml::from_str(&format!("{GROUPS}{limits}")).expect("YAML");
    policy::compile(&file).expect("a policy")
}

fn limits(limits: &str) -> Limits {
    let metrics = Metrics::new("0", "test").expect("families");
    let policy = policy_of(limits);
    let quotas = Quotas::new(&policy, None, None, &metrics);
    Limits { policy, quotas, metrics }
}

impl Limits {
    fn reload(&mut self, limits: &str) {
        self.policy = policy_of(limits);
        self.quotas = Quotas::new(&self.policy, Some(&self.quotas), None, &self.metrics);
    }

    fn ask(&self, client: &PeerIdentity, demand: Demand) -> Result<Grant, Refused> {
        let standing = self.policy.standing(client);
        let asked = std::pin::pin!(self.quotas.admit(&self.policy, &standing, client.client_id(), demand));
        // Without Redis nobody waits.
        match asked.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(grant)) => Ok(grant),
            Poll::Ready(Err(Denied::Refused(refused))) => Err(refused),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refused(&self, client: &PeerIdentity, demand: Demand) -> (String, LimitKind) {
        let refused = self.ask(client, demand).expect_err("no room");
        assert!(refused.wait > Duration::ZERO);
        (refused.limit.to_string(), refused.kind)
    }
}

/// A client with these attributes.
fn client(subject: &[(&'static str, &str)]) -> PeerIdentity {
    let subject = subject.iter().map(|(name, value)| Attribute { name: (*name).into(), value: (*value).to_owned() });
    PeerIdentity::described(Description { subject: subject.collect(), ..Description::default() })
}

#[test]
fn each_client_has_the_whole_of_a_limit_per_identity() {
    let limits = limits("- { name: few, subjects: [any], requests: { count: 2, window: 1h } }");
    let (one, other) = (client(&[("CN", "one")]), client(&[("CN", "other")]));
    for _ in 0..2 {
        limits.ask(&one, REQUEST).expect("room");
    }
    assert_eq!(limits.refused(&one, REQUEST), ("few".to_owned(), LimitKind::Requests));
    limits.ask(&other, REQUEST).expect("another client has its own");
}

#[test]
fn a_group_has_a_limit_per_group_together_and_another_group_its_own() {
    let limits = limits("- { name: teams, subjects: [ci, lab], per: group, requests: { count: 2, window: 1h } }");
    let (one, other) = (client(&[("O", "CI"), ("CN", "1")]), client(&[("O", "CI"), ("CN", "2")]));
    let lab = client(&[("OU", "lab")]);
    limits.ask(&one, REQUEST).expect("room");
    limits.ask(&other, REQUEST).expect("room");
    assert_eq!(limits.refused(&one, REQUEST).0, "teams");
    assert_eq!(limits.refused(&other, REQUEST).0, "teams");
    limits.ask(&lab, REQUEST).expect("another group has its own");
    let both = client(&[("O", "CI"), ("OU", "lab")]);
    assert_eq!(limits.refused(&both, REQUEST).0, "teams", "whoever is in two groups counts in both");
    for _ in 0..10 {
        limits.ask(&client(&[("O", "Other")]), REQUEST).expect("the limit isn't about this client");
    }
    let all = limits_of_all();
    all.ask(&one, REQUEST).expect("room");
    assert_eq!(all.refused(&lab, REQUEST).0, "all", "any per group is all clients together");
}

fn limits_of_all() -> Limits {
    limits("- { name: all, subjects: [any], per: group, requests: { count: 1, window: 1h } }")
}

#[test]
fn a_refused_request_uses_up_nothing_of_any_limit() {
    let limits = limits(
        "- { name: wide, subjects: [any], requests: { count: 3, window: 1h } }\n\
         - { name: narrow, subjects: [any], manifest_pulls: { count: 1, window: 1h } }",
    );
    let one = client(&[("CN", "one")]);
    limits.ask(&one, PULL).expect("room");
    for _ in 0..5 {
        assert_eq!(limits.refused(&one, PULL), ("narrow".to_owned(), LimitKind::ManifestPulls));
    }
    for _ in 0..2 {
        limits.ask(&one, REQUEST).expect("what was refused isn't counted");
    }
    assert_eq!(limits.refused(&one, REQUEST).0, "wide");
}

#[test]
fn a_head_shows_what_is_left_and_takes_nothing() {
    let limits = limits(
        "- { name: many, subjects: [any], manifest_pulls: { count: 100, window: 6h } }\n\
         - { name: some, subjects: [any], manifest_pulls: { count: 2, window: 1h } }",
    );
    let one = client(&[("CN", "one")]);
    let left = |demand| limits.ask(&one, demand).expect("room").left().map(|left| (left.quota.amount, left.remaining));
    assert_eq!(left(HEAD), Some((2, 2)), "the limit that leaves least is shown");
    assert_eq!(left(PULL), Some((2, 1)));
    assert_eq!(left(PULL), Some((2, 0)));
    assert_eq!(left(HEAD), Some((2, 0)), "HEAD is never refused");
    let refused = limits.ask(&one, PULL).expect_err("no room");
    assert_eq!(refused.left.map(|left| left.remaining), Some(0));
    assert_eq!(left(REQUEST), None);
}

#[test]
fn uploads_have_places_until_they_end() {
    let limits = limits("- { name: writers, subjects: [any], concurrent_uploads: 2 }");
    let one = client(&[("CN", "one")]);
    let first = limits.ask(&one, UPLOAD).expect("room");
    let second = limits.ask(&one, UPLOAD).expect("room");
    let refused = limits.ask(&one, UPLOAD).expect_err("no room");
    assert_eq!((refused.kind, refused.places), (LimitKind::ConcurrentUploads, Some(2)));
    limits.ask(&one, PULL).expect("a pull needs no place");
    drop(first);
    let third = limits.ask(&one, UPLOAD).expect("room again");
    drop((second, third));
}

#[test]
fn bytes_are_charged_as_they_flow_and_the_next_request_waits() {
    let limits = limits("- { name: volume, subjects: [any], bytes: { size: 4MiB, window: 1h } }");
    let (one, other) = (client(&[("CN", "one")]), client(&[("CN", "other")]));
    let mut transfer = limits.ask(&one, REQUEST).expect("room");
    for _ in 0..10 {
        transfer.moved(1 << 20);
    }
    assert_eq!(limits.refused(&one, REQUEST), ("volume".to_owned(), LimitKind::Bytes));
    let refused = limits.ask(&one, REQUEST).expect_err("no room");
    assert!(refused.wait > Duration::from_secs(3600), "what was used beyond the limit is paid off first");
    limits.ask(&other, REQUEST).expect("another client has its own");
    let mut small = limits.ask(&other, REQUEST).expect("room");
    small.moved(1000);
    drop(small);
    limits.ask(&other, REQUEST).expect("and some of it is left");
}

#[test]
fn many_transfers_at_once_are_let_in_only_as_far_as_there_is_room() {
    let limits = limits("- { name: volume, subjects: [any], bytes: { size: 16MiB, window: 1h } }");
    let one = client(&[("CN", "one")]);
    let transfers: Vec<Grant> = (0..100).filter_map(|_| limits.ask(&one, REQUEST).ok()).collect();
    assert!((16..=17).contains(&transfers.len()), "a megabyte is set aside for each: {}", transfers.len());
    drop(transfers);
    let small = Demand { bytes: Some(1000), ..REQUEST };
    let transfers: Vec<Grant> = (0..100).filter_map(|_| limits.ask(&one, small).ok()).collect();
    assert_eq!(transfers.len(), 100, "what wasn't used came back, and no more is set aside than is needed");
}

#[test]
fn what_came_back_by_itself_is_not_given_back_again() {
    let limits = limits("- { name: volume, subjects: [any], bytes: { size: 8MiB, window: 1s } }");
    let one = client(&[("CN", "one")]);
    let idle: Vec<Grant> = (0..8).map(|_| limits.ask(&one, REQUEST).expect("room")).collect();
    std::thread::sleep(Duration::from_millis(1100));
    let mut transfer = limits.ask(&one, REQUEST).expect("room");
    transfer.moved(1 << 30);
    drop(idle);
    let refused = limits.ask(&one, REQUEST).expect_err("no room");
    assert!(refused.wait > Duration::from_secs(100), "{refused:?}");
}

#[test]
fn exceptions_are_for_members_beyond_doubt_and_limits_for_whoever_may_be_one() {
    let excepting = limits("- { name: few, subjects: [any], except: [trusted], requests: { count: 1, window: 1h } }");
    let trusted = client(&[("CN", "trusted-1")]);
    for _ in 0..5 {
        excepting.ask(&trusted, REQUEST).expect("excepted");
    }
    let doubtful = client(&[("CN", "trusted-1"), ("CN", "guest"), ("O", "x")]);
    excepting.ask(&doubtful, REQUEST).expect("room");
    assert_eq!(excepting.refused(&doubtful, REQUEST).0, "few", "two common names are no exception");
    let limiting = limits("- { name: few, subjects: [trusted], requests: { count: 1, window: 1h } }");
    limiting.ask(&doubtful, REQUEST).expect("room");
    assert_eq!(limiting.refused(&doubtful, REQUEST).0, "few", "a second common name leads around no limit");
}

#[test]
fn counts_outlive_a_reload_that_leaves_the_limit_as_it_was() {
    let few = "- { name: few, subjects: [any], requests: { count: 2, window: 1h }, concurrent_uploads: 1 }";
    let mut limits = limits(few);
    let one = client(&[("CN", "one")]);
    limits.ask(&one, REQUEST).expect("room");
    let upload = limits.ask(&one, UPLOAD).expect("room");
    limits.reload(&format!("- {{ name: other, subjects: [ci], requests: {{ count: 9, window: 1h }} }}\n{few}"));
    assert_eq!(limits.refused(&one, REQUEST).0, "few", "in another place, and the same");
    limits.reload("- { name: few, subjects: [any], requests: { count: 3, window: 1h }, concurrent_uploads: 1 }");
    limits.ask(&one, REQUEST).expect("other numbers begin anew");
    assert_eq!(limits.refused(&one, UPLOAD).1, LimitKind::ConcurrentUploads, "uploads under way stay counted");
    drop(upload);
    limits.ask(&one, UPLOAD).expect("room again");
}

#[test]
fn clients_in_the_clothes_of_others_do_not_use_up_what_is_theirs() {
    let limits = limits("- { name: few, subjects: [any], requests: { count: 1, window: 1h } }");
    let uris = vec!["spiffe://corp.example/ci".to_owned()];
    let victim = PeerIdentity::described(Description { uris, ..Description::default() });
    let pretender = client(&[("CN", "spiffe://corp.example/ci")]);
    limits.ask(&pretender, REQUEST).expect("room");
    assert_eq!(limits.refused(&pretender, REQUEST).0, "few");
    limits.ask(&victim, REQUEST).expect("the victim has its own");
}
