//! Requests and what they transfer.

use prometheus::core::Metric as _;
use prometheus::{Histogram, IntCounter};

use super::SECONDS;
use super::family::{Families, Grid, Table};
use crate::telemetry::label::{MethodLabel, RouteLabel, StatusClass};
use crate::telemetry::outcome::Outcome;
use crate::telemetry::record::AccessRecord;
use crate::telemetry::shadow::ShadowResult;
use crate::telemetry::traffic::{Counts, Fate};

/// From a manifest to a layer of a machine-learning image: 1 KiB to 16 GiB.
const BYTES: &[f64] = &[
    1024.0,
    16_384.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
    17_179_869_184.0,
];

#[derive(Debug)]
pub(super) struct RequestFamilies {
    requests: Grid<RouteLabel, MethodLabel, StatusClass, Outcome>,
    seconds: Table<RouteLabel, Histogram>,
    request_sizes: Table<RouteLabel, Histogram>,
    response_sizes: Table<RouteLabel, Histogram>,
    request_bytes: IntCounter,
    response_bytes: IntCounter,
    shadow: Table<ShadowResult, IntCounter>,
}

impl RequestFamilies {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        let by_route = |name, help, buckets| {
            let family = families.histograms(name, help, &["route"], buckets)?;
            prometheus::Result::Ok(Table::new(|route: RouteLabel| family.with_label_values(&[route.as_str()])))
        };
        let shadow = families.counters(
            "shadow_decisions_total",
            "Requests that the shadow policy was asked about, by how its decision stands to the one in force.",
            &["result"],
        )?;
        Ok(Self {
            shadow: Table::new(|result: ShadowResult| shadow.with_label_values(&[result.as_str()])),
            requests: Grid::new(families.counters(
                "requests_total",
                "Requests by kind of route, method, class of the status sent, and how they ended.",
                &["route", "method", "status", "outcome"],
            )?),
            seconds: by_route("request_seconds", "Time from the complete head of a request to its end.", SECONDS)?,
            request_sizes: by_route("request_size_bytes", "Size of the body a client sent.", BYTES)?,
            response_sizes: by_route("response_size_bytes", "Size of the body sent to a client.", BYTES)?,
            request_bytes: families
                .counter("request_bytes_total", "Bytes of request bodies received so far, of open transfers too.")?,
            response_bytes: families
                .counter("response_bytes_total", "Bytes of response bodies sent so far, of open transfers too.")?,
        })
    }

    pub(super) fn finished(&self, record: &AccessRecord) {
        let route = RouteLabel::from(record.route);
        let method = MethodLabel::from(record.method.as_str());
        self.requests.get(route, method, StatusClass::from(record.status), record.outcome).inc();
        if let Some(shadow) = &record.shadow {
            self.shadow.get(shadow.result).inc();
        }
        self.seconds.get(route).observe(record.duration.as_secs_f64());
        self.request_sizes.get(route).observe(approximate(record.bytes_in));
        self.response_sizes.get(route).observe(approximate(record.bytes_out));
    }

    pub(super) fn head_refused(&self) {
        self.requests.get(RouteLabel::None, MethodLabel::Other, StatusClass::ClientError, Outcome::Malformed).inc();
    }

    /// Everything counted so far.
    pub(super) fn totals(&self) -> Counts {
        let mut totals =
            Counts { received: self.request_bytes.get(), sent: self.response_bytes.get(), ..Counts::default() };
        self.requests.counted().for_each(|(status, outcome, count)| totals.add(Fate::of(outcome, status), count));
        for (_, histogram) in self.seconds.iter() {
            let metric = histogram.metric();
            let histogram = metric.get_histogram();
            let bounded = histogram.get_bucket().iter().map(prometheus::proto::Bucket::cumulative_count);
            let mut below = 0;
            for (count, upto) in totals.buckets.iter_mut().zip(bounded.chain([histogram.get_sample_count()])) {
                *count += upto.saturating_sub(below);
                below = upto;
            }
        }
        totals
    }

    pub(super) fn received(&self, bytes: usize) {
        self.request_bytes.inc_by(widened(bytes));
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.response_bytes.inc_by(widened(bytes));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a histogram of sizes doesn't need the last byte of 2^53")]
fn approximate(bytes: u64) -> f64 {
    bytes as f64
}

fn widened(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
