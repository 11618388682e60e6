//! Metric families whose members are resolved in advance, since looking one up by its label values costs more than
//! counting.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::telemetry::label::Label;

/// Makes families under the common prefix and registers them.
pub(super) struct Families<'r>(pub(super) &'r Registry);

impl Families<'_> {
    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(options(name, help), labels)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(options(name, help), labels)?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let options = HistogramOpts::from(options(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(options(name, help))?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(options(name, help))?)
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        let options = HistogramOpts::from(options(name, help)).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options)?)
    }

    fn register<C: Collector + Clone + 'static>(&self, family: C) -> prometheus::Result<C> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("portcullis")
}

/// One value for each label of a closed set.
pub(super) struct Table<L, M> {
    cells: Box<[M]>,
    label: PhantomData<L>,
}

impl<L: Label, M> Table<L, M> {
    /// Resolves every member, so that those never counted show as zero.
    pub(super) fn new(resolve: impl FnMut(L) -> M) -> Self {
        Self { cells: L::ALL.iter().copied().map(resolve).collect(), label: PhantomData }
    }

    pub(super) fn get(&self, label: L) -> &M {
        #[expect(clippy::expect_used, reason = "the table is made with a cell for each label of the same closed set")]
        self.cells.get(label.index()).expect("a table has a cell for every label of its set")
    }

    /// Every label with its value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (L, &M)> {
        L::ALL.iter().copied().zip(&self.cells)
    }
}

impl<L, M> fmt::Debug for Table<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("cells", &self.cells.len()).finish()
    }
}

/// The counters of a family with four closed labels, each resolved when first used: most of the thousands of
/// combinations never occur.
#[derive(Debug)]
pub(super) struct Grid<A, B, C, D> {
    family: IntCounterVec,
    cells: Table<A, Table<B, Cells<C, D>>>,
}

type Cells<C, D> = Table<C, Table<D, OnceLock<IntCounter>>>;

impl<A: Label, B: Label, C: Label, D: Label> Grid<A, B, C, D> {
    pub(super) fn new(family: IntCounterVec) -> Self {
        let cells = Table::new(|_| Table::new(|_| Table::new(|_| Table::new(|_| OnceLock::new()))));
        Self { family, cells }
    }

    pub(super) fn get(&self, a: A, b: B, c: C, d: D) -> &IntCounter {
        let cell = self.cells.get(a).get(b).get(c).get(d);
        cell.get_or_init(|| self.family.with_label_values(&[a.as_str(), b.as_str(), c.as_str(), d.as_str()]))
    }

    /// What has been counted so far, by the last two labels. A combination comes several times.
    pub(super) fn counted(&self) -> impl Iterator<Item = (C, D, u64)> {
        let inner = self.cells.iter().flat_map(|(_, table)| table.iter().flat_map(|(_, cells)| cells.iter()));
        inner.flat_map(|(c, cells)| cells.iter().filter_map(move |(d, cell)| Some((c, d, cell.get()?.get()))))
    }
}

/// Removes the members of a family of which `keep` says so by their label values.
///
/// For families labelled with names from the configuration: what the configuration no longer names must not go on
/// being reported.
pub(super) fn retain<B: MetricVecBuilder>(family: &MetricVec<B>, keep: impl Fn(&HashMap<&str, &str>) -> bool) {
    for collected in family.collect() {
        for member in collected.get_metric() {
            let labels: HashMap<_, _> = member.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            if !keep(&labels) {
                // Fails only if someone else removed it in between.
                let _ = family.remove(&labels);
            }
        }
    }
}
