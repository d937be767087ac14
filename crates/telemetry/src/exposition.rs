//! Registry and exposition: all metrics of a service at one moment, by name and labels, in Prometheus' format. Metrics
//! with the same name and labels are added up, so that each thread may keep its own. Must not depend on how a metric is
//! measured.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{self, Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use tokio::runtime::Handle;

use crate::metrics::{Histogram, HistogramSnapshot};

/// The media type of the exposition format.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A source of metrics.
pub trait Source: Send + Sync {
    /// Writes the source's metrics to the exposition.
    fn collect(&self, page: &mut Exposition);
}

impl<S: Source> Source for Arc<S> {
    fn collect(&self, page: &mut Exposition) {
        (**self).collect(page);
    }
}

/// For sources that the registry must not keep alive.
impl<S: Source> Source for Weak<S> {
    fn collect(&self, page: &mut Exposition) {
        if let Some(source) = self.upgrade() {
            source.collect(page);
        }
    }
}

/// The registry of a service's metric sources.
#[derive(Default)]
pub struct Registry {
    sources: RwLock<Vec<Box<dyn Source>>>,
}

/// All metrics at one moment.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<&'static str, Family>,
}

/// A metric's labels: names and values.
pub type Labels<'a> = [(&'static str, &'a str)];

type Key = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: MetricType,
    lines: BTreeMap<Key, Value>,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(f64),
    Histogram(HistogramSnapshot),
}

impl Registry {
    /// A registry with the metrics of the build and the process.
    pub fn new(build: &'static str, version: &'static str, revision: &'static str) -> Registry {
        let registry = Registry::default();
        registry.add(Build { name: build, version, revision });
        registry
    }

    /// Adds a source.
    pub fn add(&self, source: impl Source + 'static) {
        self.sources.write().push(Box::new(source));
    }

    /// Collects the metrics of all sources.
    pub fn page(&self) -> Exposition {
        let mut page = Exposition::default();
        let sources = self.sources.read();
        sources.iter().for_each(|source| source.collect(&mut page));
        page
    }
}

impl Exposition {
    /// Adds a counter.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, value: u64) {
        self.put(name, help, MetricType::COUNTER, labels, Value::Number(value as f64));
    }

    /// Adds a gauge.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, value: f64) {
        self.put(name, help, MetricType::GAUGE, labels, Value::Number(value));
    }

    /// Adds a gauge that is 1 or 0.
    pub fn flag(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, value: bool) {
        self.gauge(name, help, labels, f64::from(u8::from(value)));
    }

    /// Adds a histogram.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &Labels<'_>,
        value: &Histogram,
    ) {
        self.put(name, help, MetricType::HISTOGRAM, labels, Value::Histogram(value.snapshot()));
    }

    fn put(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        labels: &Labels<'_>,
        value: Value,
    ) {
        let family =
            self.families.entry(name).or_insert_with(|| Family { help, kind, lines: BTreeMap::new() });
        let line = family.lines.entry(key(labels)).or_insert_with(|| value.zero());
        match (line, value) {
            (Value::Number(sum), Value::Number(more)) => *sum += more,
            (Value::Histogram(sum), Value::Histogram(more)) => sum.add(&more),
            // Two types under one name: the first is kept.
            (Value::Number(_), Value::Histogram(_)) | (Value::Histogram(_), Value::Number(_)) => {}
        }
    }

    /// The value of a counter or gauge; 0 if it is absent.
    pub fn number(&self, name: &str, labels: &Labels<'_>) -> f64 {
        match self.families.get(name).and_then(|family| family.lines.get(&key(labels))) {
            Some(Value::Number(number)) => *number,
            Some(Value::Histogram(_)) | None => 0.0,
        }
    }

    /// The values under a name, each with its label values, ordered by label name.
    pub fn numbers(&self, name: &str) -> impl Iterator<Item = (Vec<&str>, f64)> {
        let lines = self.families.get(name).into_iter().flat_map(|family| &family.lines);
        lines.filter_map(|(key, value)| match value {
            Value::Number(number) => Some((key.iter().map(|(_, value)| value.as_str()).collect(), *number)),
            Value::Histogram(_) => None,
        })
    }

    /// The histograms under a name, each with its label values, ordered by label name.
    pub fn histograms(&self, name: &str) -> impl Iterator<Item = (Vec<&str>, &HistogramSnapshot)> {
        let lines = self.families.get(name).into_iter().flat_map(|family| &family.lines);
        lines.filter_map(|(key, value)| match value {
            Value::Histogram(spread) => Some((key.iter().map(|(_, value)| value.as_str()).collect(), spread)),
            Value::Number(_) => None,
        })
    }

    /// The metrics in Prometheus' text format, with those of the process.
    pub fn text(self) -> String {
        let mut families: Vec<MetricFamily> = self.families.into_iter().map(family).collect();
        families.extend(ProcessCollector::for_self().collect());
        let mut text = Vec::new();
        // It fails only for a family without metrics, and there is none.
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(%error, "cannot encode the metrics");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Value {
    fn zero(&self) -> Value {
        match self {
            Value::Number(_) => Value::Number(0.0),
            Value::Histogram(spread) => Value::Histogram(HistogramSnapshot {
                bounds: spread.bounds.clone(),
                buckets: vec![0; spread.buckets.len()],
                sum: 0.0,
            }),
        }
    }
}

fn key(labels: &Labels<'_>) -> Key {
    labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

fn family((name, Family { help, kind, lines }): (&'static str, Family)) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(lines.into_iter().map(|(key, value)| metric(kind, key, value)).collect());
    family
}

fn metric(kind: MetricType, key: Key, value: Value) -> Metric {
    let label = |(name, value): (&'static str, String)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value);
        label
    };
    let mut metric = Metric::default();
    metric.set_label(key.into_iter().map(label).collect());
    match value {
        Value::Number(number) if kind == MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(number);
            metric.set_counter(counter);
        }
        Value::Number(number) => {
            let mut gauge = Gauge::default();
            gauge.set_value(number);
            metric.set_gauge(gauge);
        }
        Value::Histogram(spread) => metric.set_histogram(histogram(&spread)),
    }
    metric
}

fn histogram(snapshot: &HistogramSnapshot) -> proto::Histogram {
    let mut below = 0;
    let bucket = |(bound, count): (&f64, &u64)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        bucket
    };
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(snapshot.bounds.iter().zip(&snapshot.buckets).map(bucket).collect());
    histogram.set_sample_count(snapshot.count());
    histogram.set_sample_sum(snapshot.sum);
    histogram
}

/// Build information.
struct Build {
    name: &'static str,
    version: &'static str,
    /// The commit, under the label that Prometheus' own programs use.
    revision: &'static str,
}

impl Source for Build {
    fn collect(&self, page: &mut Exposition) {
        let labels = [("version", self.version), ("revision", self.revision)];
        page.gauge(self.name, "Always 1; labels give the version and the commit of the build.", &labels, 1.0);
    }
}

/// The metrics of a runtime's tasks.
pub struct Tasks(pub Handle);

impl Source for Tasks {
    fn collect(&self, page: &mut Exposition) {
        let alive = self.0.metrics().num_alive_tasks() as f64;
        page.gauge("runtime_tasks", "Tasks alive in the async runtime.", &[], alive);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Thread(u64);

    impl Source for Thread {
        fn collect(&self, page: &mut Exposition) {
            page.counter("calls_total", "Calls.", &[("method", "a")], self.0);
            let times = Histogram::times();
            times.observe_time(Duration::from_millis(self.0));
            page.histogram("call_seconds", "Times.", &[("method", "a")], &times);
        }
    }

    #[test]
    fn figures_of_threads_are_added_up_and_read_as_prometheus_does() {
        let registry = Registry::new("build_info", "1.2.3", "0a1b2c");
        registry.add(Thread(3));
        registry.add(Thread(4));
        let page = registry.page();
        assert_eq!(page.number("calls_total", &[("method", "a")]), 7.0);
        assert!(page.histograms("call_seconds").any(|(_, times)| times.quantile(0.5).is_some()));
        let text = page.text();
        for line in [
            "# TYPE calls_total counter",
            "calls_total{method=\"a\"} 7",
            "call_seconds_bucket{method=\"a\",le=\"0.005\"} 2",
            "call_seconds_bucket{method=\"a\",le=\"0.0025\"} 0",
            "call_seconds_bucket{method=\"a\",le=\"+Inf\"} 2",
            "call_seconds_sum{method=\"a\"} 0.007",
            "build_info{version=\"1.2.3\",revision=\"0a1b2c\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn what_a_label_says_cannot_break_a_line() {
        let mut page = Exposition::default();
        page.counter("calls_total", "Calls.", &[("method", "a\"}\nb\\")], 1);
        let text = page.text();
        assert!(text.contains(r#"calls_total{method="a\"}\nb\\"} 1"#), "{text}");
    }
}
