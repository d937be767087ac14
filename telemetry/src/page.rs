//! The page: all figures of a service at one moment, by name and labels, as Prometheus reads them. Figures of the same
//! name and labels are added up, so that each thread may keep its own. Must never know how a figure came to be.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use tokio::runtime::Handle;

use crate::figure::{Spread, Spreads};

/// The media type of a page's text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Something that has figures.
pub trait Source: Send + Sync {
    /// Writes them on a page.
    fn tell(&self, page: &mut Page);
}

impl<S: Source> Source for Arc<S> {
    fn tell(&self, page: &mut Page) {
        (**self).tell(page);
    }
}

/// For what the book must not keep alive.
impl<S: Source> Source for Weak<S> {
    fn tell(&self, page: &mut Page) {
        if let Some(source) = self.upgrade() {
            source.tell(page);
        }
    }
}

/// The sources of a service.
#[derive(Default)]
pub struct Book {
    sources: RwLock<Vec<Box<dyn Source>>>,
}

/// All figures at one moment.
#[derive(Debug, Default)]
pub struct Page {
    families: BTreeMap<&'static str, Family>,
}

/// A figure's labels: names and values.
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
    Spread(Spreads),
}

impl Book {
    /// A book that has the figures of the process already.
    pub fn new(build: &'static str, version: &'static str, revision: &'static str) -> Book {
        let book = Book::default();
        book.add(Build { name: build, version, revision });
        book
    }

    /// Adds a source.
    pub fn add(&self, source: impl Source + 'static) {
        self.sources.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// Asks all of them.
    pub fn page(&self) -> Page {
        let mut page = Page::default();
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        sources.iter().for_each(|source| source.tell(&mut page));
        page
    }
}

impl Page {
    /// A count that only grows.
    pub fn count(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, value: u64) {
        self.put(name, help, MetricType::COUNTER, labels, Value::Number(value as f64));
    }

    /// A level, which goes up and down.
    pub fn level(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, value: f64) {
        self.put(name, help, MetricType::GAUGE, labels, Value::Number(value));
    }

    /// Whether something holds, as 1 and 0.
    pub fn flag(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, value: bool) {
        self.level(name, help, labels, f64::from(u8::from(value)));
    }

    /// How values spread.
    pub fn spread(&mut self, name: &'static str, help: &'static str, labels: &Labels<'_>, value: &Spread) {
        self.put(name, help, MetricType::HISTOGRAM, labels, Value::Spread(value.look()));
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
            (Value::Spread(sum), Value::Spread(more)) => sum.add(&more),
            // Two kinds under one name: the first stays.
            (Value::Number(_), Value::Spread(_)) | (Value::Spread(_), Value::Number(_)) => {}
        }
    }

    /// A number on the page; 0 where it is not there.
    pub fn number(&self, name: &str, labels: &Labels<'_>) -> f64 {
        match self.families.get(name).and_then(|family| family.lines.get(&key(labels))) {
            Some(Value::Number(number)) => *number,
            Some(Value::Spread(_)) | None => 0.0,
        }
    }

    /// A quantile of a spread on the page; none where it has no values.
    pub fn quantile(&self, name: &str, labels: &Labels<'_>, share: f64) -> Option<f64> {
        match self.families.get(name)?.lines.get(&key(labels))? {
            Value::Spread(spread) => spread.quantile(share),
            Value::Number(_) => None,
        }
    }

    /// The numbers under a name, with their labels' values in the order of their names on the page.
    pub fn numbers(&self, name: &str) -> impl Iterator<Item = (Vec<&str>, f64)> {
        let lines = self.families.get(name).into_iter().flat_map(|family| &family.lines);
        lines.filter_map(|(key, value)| match value {
            Value::Number(number) => Some((key.iter().map(|(_, value)| value.as_str()).collect(), *number)),
            Value::Spread(_) => None,
        })
    }

    /// The spreads under a name, with their labels' values in the order of their names on the page.
    pub fn spreads(&self, name: &str) -> impl Iterator<Item = (Vec<&str>, &Spreads)> {
        let lines = self.families.get(name).into_iter().flat_map(|family| &family.lines);
        lines.filter_map(|(key, value)| match value {
            Value::Spread(spread) => Some((key.iter().map(|(_, value)| value.as_str()).collect(), spread)),
            Value::Number(_) => None,
        })
    }

    /// The page as Prometheus reads it, with the figures of the process.
    pub fn text(self) -> String {
        let mut families: Vec<MetricFamily> = self.families.into_iter().map(family).collect();
        families.extend(ProcessCollector::for_self().collect());
        let mut text = Vec::new();
        // It fails only for a family without a line, and there is none.
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(%error, "the figures cannot be written");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Value {
    fn zero(&self) -> Value {
        match self {
            Value::Number(_) => Value::Number(0.0),
            Value::Spread(spread) => Value::Spread(Spreads {
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
        Value::Spread(spread) => metric.set_histogram(histogram(&spread)),
    }
    metric
}

fn histogram(spread: &Spreads) -> Histogram {
    let mut below = 0;
    let bucket = |(bound, count): (&f64, &u64)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(spread.bounds.iter().zip(&spread.buckets).map(bucket).collect());
    histogram.set_sample_count(spread.count());
    histogram.set_sample_sum(spread.sum);
    histogram
}

/// What runs here.
struct Build {
    name: &'static str,
    version: &'static str,
    /// The commit, by the name that Prometheus's own programs have for it.
    revision: &'static str,
}

impl Source for Build {
    fn tell(&self, page: &mut Page) {
        let labels = [("version", self.version), ("revision", self.revision)];
        page.level(
            self.name,
            "Always 1: which version runs, and which commit it was built from.",
            &labels,
            1.0,
        );
    }
}

/// The tasks of a runtime.
pub struct Tasks(pub Handle);

impl Source for Tasks {
    fn tell(&self, page: &mut Page) {
        let alive = self.0.metrics().num_alive_tasks() as f64;
        page.level("runtime_tasks", "Asynchronous tasks that are alive.", &[], alive);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Thread(u64);

    impl Source for Thread {
        fn tell(&self, page: &mut Page) {
            page.count("calls_total", "Calls.", &[("method", "a")], self.0);
            let times = Spread::times();
            times.took(Duration::from_millis(self.0));
            page.spread("call_seconds", "Times.", &[("method", "a")], &times);
        }
    }

    #[test]
    fn figures_of_threads_are_added_up_and_read_as_prometheus_does() {
        let book = Book::new("build_info", "1.2.3", "0a1b2c");
        book.add(Thread(3));
        book.add(Thread(4));
        let page = book.page();
        assert_eq!(page.number("calls_total", &[("method", "a")]), 7.0);
        assert!(page.quantile("call_seconds", &[("method", "a")], 0.5).is_some());
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
        let mut page = Page::default();
        page.count("calls_total", "Calls.", &[("method", "a\"}\nb\\")], 1);
        let text = page.text();
        assert!(text.contains(r#"calls_total{method="a\"}\nb\\"} 1"#), "{text}");
    }
}
