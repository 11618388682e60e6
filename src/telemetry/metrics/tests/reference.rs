//! docs/metrics.md is written from the families and from the docs of the closed enums; a test keeps the two equal.

use std::fmt::Write as _;
use std::path::Path;

use prometheus::proto::MetricType;

use super::{
    CertificateKind, EndReason, HandshakeResult, HttpVersion, LimitKind, Outcome, SharedFault, Unanswered,
    UpstreamFault, populated,
};
use crate::telemetry::AdminRefusal;
use crate::telemetry::audit::Event;
use crate::telemetry::content::{DigestCheck, RedirectResult};
use crate::telemetry::label::{Label, RouteLabel, StatusClass};
use crate::telemetry::shadow::ShadowResult;

const HEAD: &str = "\
# Metrics

What `/metrics` on the health listener tells (`health.address`, plain HTTP, Prometheus' text format). No client, repository or
path is ever a label: values come from the lists below, or from the configuration. What to watch, and at which alert to do
what: [monitoring.md](monitoring.md).

This page is written from the source (`UPDATE_REFERENCE=1 cargo test --lib reference`).

| metric | kind | labels | what it tells |
|---|---|---|---|
";

/// The label, where it is, and its values as a table.
type LabelTable = (&'static str, &'static str, fn() -> String);

/// The tables below the list of metrics: which label of which metrics, and what its values mean.
const VALUES: &[LabelTable] = &[
    ("outcome", "of `portcullis_requests_total`, and `outcome` in access records", table::<Outcome>),
    ("route", "of everything about requests", table::<RouteLabel>),
    ("status", "of `portcullis_requests_total`", table::<StatusClass>),
    ("result", "of `portcullis_handshakes_total`", table::<HandshakeResult>),
    ("reason", "of `portcullis_connections_ended_total`, and `end_reason` in access records", table::<EndReason>),
    ("result", "of `portcullis_shadow_decisions_total`", table::<ShadowResult>),
    ("protocol", "of `portcullis_connections_total`", table::<HttpVersion>),
    ("kind", "of `portcullis_upstream_errors_total`", table::<UpstreamFault>),
    ("reason", "of `portcullis_admin_refusals_total`", table::<AdminRefusal>),
    ("result", "of `portcullis_digest_checks_total`", table::<DigestCheck>),
    ("result", "of `portcullis_upstream_redirects_total`", table::<RedirectResult>),
    ("result", "of `portcullis_shadow_decisions_total`", table::<ShadowResult>),
    ("event", "of `portcullis_audit_records_total`, and in the audit log", table::<Event>),
    ("kind", "of `portcullis_limit_refusals_total`", table::<LimitKind>),
    ("cause", "of `portcullis_shared_limits_errors_total`", table::<SharedFault>),
    ("treatment", "of `portcullis_shared_limits_unanswered_total`", table::<Unanswered>),
    ("kind", "of `portcullis_certificate_expiry_timestamp_seconds`", table::<CertificateKind>),
];

fn table<L: Label>() -> String {
    let rows = L::ALL.iter().map(|label| format!("| `{}` | {} |\n", label.as_str(), plain(label.about())));
    format!("| value | meaning |\n|---|---|\n{}", rows.collect::<String>())
}

/// Links between items of the source mean nothing on a page.
fn plain(doc: &str) -> String {
    doc.replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}

fn reference() -> String {
    let metrics = populated();
    let mut text = HEAD.to_owned();
    let mut families = metrics.registry.gather();
    families.sort_by(|a, b| a.name().cmp(b.name()));
    for family in families {
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            _ => "histogram",
        };
        let member = family.get_metric().first().expect("populated");
        let labels: Vec<String> = member.get_label().iter().map(|pair| format!("`{}`", pair.name())).collect();
        let _ = writeln!(text, "| `{}` | {kind} | {} | {} |", family.name(), labels.join(", "), plain(family.help()));
    }
    text.push_str("\nA histogram `x` is three series: `x_bucket`, `x_sum` and `x_count`.\n");
    for (label, place, values) in VALUES {
        let _ = write!(text, "\n## `{label}` {place}\n\n{}", values());
    }
    text
}

#[test]
fn the_page_about_metrics_is_what_the_source_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, reference()).expect("docs/metrics.md is written");
    }
    let page = std::fs::read_to_string(path).expect("docs/metrics.md");
    assert!(page == reference(), "metrics have changed: run UPDATE_REFERENCE=1 cargo test --lib reference");
}
