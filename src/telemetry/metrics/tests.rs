mod reference;

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::oci::RouteKind;
use crate::telemetry::record::samples;
use crate::telemetry::{CertificateKind, LimitKind, Outcome, SharedFault, Unanswered, UpstreamFault};

fn metrics() -> Metrics {
    Metrics::new("1.2.3", "boringssl").expect("the families are consistent")
}

fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.render().expect("renders");
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Metrics in which every family has a member.
fn populated() -> Metrics {
    let metrics = metrics();
    metrics.request(&samples::record());
    metrics.upstream("registry").set_health([("127.0.0.1:5000", true)]);
    metrics.limit("everybody").refused(LimitKind::Requests);
    metrics.shared("redis.internal:6379").set_available(true);
    metrics.publish(&Published {
        certificates: vec![CertificateExpiry {
            kind: CertificateKind::Server,
            name: "a".to_owned(),
            subject: String::new(),
            not_before: 0,
            not_after: 1,
        }],
        crls: vec![CrlState {
            source: "a.crl".to_owned(),
            entries: 1,
            this_update: Some(1),
            next_update: Some(2),
            number: Some(3),
            last_success: Some(4),
            failed: false,
        }],
        upstreams: vec!["registry".to_owned()],
        limits: vec!["everybody".to_owned()],
        redis: Some("redis.internal:6379".to_owned()),
        ..Published::default()
    });
    metrics.crl_error("a.crl", "empty");
    metrics
}

#[test]
fn every_family_follows_the_naming_convention() {
    let metrics = populated();
    for family in metrics.registry.gather() {
        let name = family.name();
        let counter = matches!(family.get_field_type(), prometheus::proto::MetricType::COUNTER);
        assert!(name.starts_with("portcullis_"), "{name}");
        assert_eq!(counter, name.ends_with("_total"), "{name}");
        assert!(family.help().ends_with('.'), "{name}");
        assert!(!family.get_metric().is_empty(), "{name}");
    }
}

#[test]
fn a_request_is_counted_with_its_route_method_status_and_outcome() {
    let metrics = metrics();
    metrics.request(&samples::record());
    let series = "portcullis_requests_total{method=\"GET\",outcome=\"proxied\",route=\"blob\",status=\"2xx\"}";
    assert_eq!(value(&metrics, series), Some(1.0));
    assert_eq!(value(&metrics, "portcullis_response_size_bytes_sum{route=\"blob\"}"), Some(4096.0));
    assert_eq!(value(&metrics, "portcullis_request_seconds_count{route=\"blob\"}"), Some(1.0));
    assert_eq!(value(&metrics, "portcullis_request_seconds_count{route=\"manifest\"}"), Some(0.0));
}

#[test]
fn a_client_cannot_make_series() {
    let metrics = metrics();
    let lines = |metrics: &Metrics| metrics.render().expect("renders").lines().count();
    for attempt in 0..100 {
        let mut record = samples::record();
        record.method = format!("BREW{attempt}").as_str().into();
        record.repository = Some(format!("repository-{attempt}").as_str().into());
        record.status = Some(600 + attempt);
        metrics.request(&record);
    }
    let before = lines(&metrics);
    for attempt in 100..200 {
        let mut record = samples::record();
        record.method = format!("BREW{attempt}").as_str().into();
        record.status = Some(600 + attempt);
        metrics.request(&record);
    }
    assert_eq!(lines(&metrics), before);
    assert!(!metrics.render().expect("renders").contains("repository-"));
}

#[test]
fn connections_open_and_end() {
    let metrics = metrics();
    metrics.handshake(HandshakeResult::Resumed, Duration::from_millis(3));
    metrics.handshake(HandshakeResult::Timeout, Duration::from_secs(10));
    let open = metrics.connection_opened(HttpVersion::Http2);
    drop(metrics.connection_opened(HttpVersion::Http11));
    metrics.connection_ended(EndReason::Revoked);
    assert_eq!(value(&metrics, "portcullis_connections"), Some(1.0));
    drop(open);
    assert_eq!(value(&metrics, "portcullis_connections"), Some(0.0));
    assert_eq!(value(&metrics, "portcullis_connections_total{protocol=\"HTTP/2\"}"), Some(1.0));
    assert_eq!(value(&metrics, "portcullis_connections_ended_total{reason=\"revoked\"}"), Some(1.0));
    assert_eq!(value(&metrics, "portcullis_handshakes_total{result=\"timeout\"}"), Some(1.0));
    // A deadline says nothing about how long handshakes take.
    assert_eq!(value(&metrics, "portcullis_handshake_seconds_count"), Some(1.0));
}

#[test]
fn a_head_without_a_record_is_counted_as_a_malformed_request() {
    let metrics = metrics();
    metrics.head_refused();
    let series = "portcullis_requests_total{method=\"other\",outcome=\"malformed\",route=\"none\",status=\"4xx\"}";
    assert_eq!(value(&metrics, series), Some(1.0));
}

#[test]
fn what_a_generation_no_longer_names_is_no_longer_told() {
    let metrics = metrics();
    let certificate = |name: &str, not_after| CertificateExpiry {
        kind: CertificateKind::Server,
        name: name.to_owned(),
        subject: String::new(),
        not_before: not_after - 3,
        not_after,
    };
    let crl = |source: &str, next_update| CrlState {
        source: source.to_owned(),
        entries: 7,
        next_update,
        failed: true,
        ..CrlState::default()
    };
    metrics.publish(&Published {
        generation: 1,
        certificates: vec![certificate("old", 1)],
        crls: vec![crl("old.crl", Some(5))],
        ..Published::default()
    });
    metrics.publish(&Published {
        generation: 2,
        certificates: vec![certificate("main", 30), certificate("main", 10), certificate("main", 20)],
        crls: vec![crl("new.crl", None)],
        ..Published::default()
    });
    let text = metrics.render().expect("renders");
    assert!(!text.contains("\"old"), "{text}");
    assert!(!text.contains("crl_expiry_timestamp_seconds{"), "no nextUpdate is not the year 1970");
    assert_eq!(value(&metrics, "portcullis_config_generation"), Some(2.0));
    assert_eq!(value(&metrics, "portcullis_crl_failed{source=\"new.crl\"}"), Some(1.0));
    let expiry = "portcullis_certificate_expiry_timestamp_seconds{kind=\"server\",name=\"main\"}";
    assert_eq!(value(&metrics, expiry), Some(10.0), "the earliest expiry counts");
    let start = expiry.replace("expiry", "start");
    assert_eq!(value(&metrics, &start), Some(7.0), "and the start is of the same certificate");
}

#[test]
fn generations_share_the_series_of_an_upstream_until_none_names_it() {
    let metrics = metrics();
    let old = metrics.upstream("registry");
    let new = metrics.upstream("registry");
    old.fault(UpstreamFault::Connect);
    new.fault(UpstreamFault::Connect);
    new.set_health([("10.0.0.1:5000", true), ("10.0.0.2:5000", false)]);
    new.set_health([("10.0.0.2:5000", true)]);
    metrics.publish(&Published { upstreams: vec!["registry".to_owned()], ..Published::default() });
    let faults = "portcullis_upstream_errors_total{kind=\"connect\",upstream=\"registry\"}";
    assert_eq!(value(&metrics, faults), Some(2.0));
    let healthy = |address| format!("portcullis_upstream_healthy{{address=\"{address}\",upstream=\"registry\"}}");
    assert_eq!(value(&metrics, &healthy("10.0.0.2:5000")), Some(1.0));
    assert_eq!(value(&metrics, &healthy("10.0.0.1:5000")), None);

    metrics.publish(&Published::default());
    old.fault(UpstreamFault::Connect);
    assert!(!metrics.render().expect("renders").contains("registry"));
}

#[test]
fn a_failed_reload_shows_until_one_succeeds() {
    let metrics = metrics();
    metrics.reload(ReloadResult::Failed, UNIX_EPOCH + Duration::from_secs(5));
    assert_eq!(value(&metrics, "portcullis_reload_failed"), Some(1.0));
    assert_eq!(value(&metrics, "portcullis_last_reload_timestamp_seconds"), Some(0.0));
    metrics.reload(ReloadResult::Published, UNIX_EPOCH + Duration::from_secs(9));
    assert_eq!(value(&metrics, "portcullis_reload_failed"), Some(0.0));
    assert_eq!(value(&metrics, "portcullis_last_reload_timestamp_seconds"), Some(9.0));
}

#[test]
fn outcomes_and_routes_all_have_a_counter() {
    let metrics = metrics();
    for outcome in Outcome::ALL {
        for kind in RouteKind::ALL {
            let mut record = samples::record();
            (record.outcome, record.route) = (*outcome, Some(kind));
            metrics.request(&record);
        }
    }
    let text = metrics.render().expect("renders");
    let counted = text.lines().filter(|line| line.starts_with("portcullis_requests_total{") && line.ends_with(" 1"));
    assert_eq!(counted.count(), Outcome::ALL.len() * RouteKind::ALL.len());
}
