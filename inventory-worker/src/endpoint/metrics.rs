//! Metrics and log lines of requests, by route. Must not depend on the content of requests.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_nats::{HeaderValue, Message};
use contract::OrderReason;
use contract::header;
use parking_lot::{Mutex, MutexGuard};
use telemetry::{Counter, Exposition, Histogram, LineQuota, Source};
use wire::failure::{code_name, ours};
use wire::reason::label;
use wire::{Delivered, Failure};

/// The most characters of an error's text: it may contain parts of the request.
pub(super) const WORDS: usize = 512;

/// The metrics of a worker's endpoints.
#[derive(Debug, Default)]
pub(super) struct EndpointMetrics {
    begun: Counter,
    ended: Counter,
    routes: HashMap<&'static str, RequestMetrics>,
}

#[derive(Debug)]
struct RequestMetrics {
    ok: Counter,
    times: Histogram,
    /// By code and reason.
    failed: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// The last failure in the form of ADR-32.
    last: Mutex<String>,
    lines: LineQuota,
}

/// The totals of a route.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// The last failure: `number:text`.
    pub(super) last: String,
    /// Time that all requests took.
    pub(super) nanos: u64,
}

impl EndpointMetrics {
    pub(super) fn new(subjects: &[&'static str]) -> EndpointMetrics {
        let metrics = |subject: &&'static str| (*subject, RequestMetrics::new());
        EndpointMetrics { routes: subjects.iter().map(metrics).collect(), ..EndpointMetrics::default() }
    }

    /// Counts an accepted request.
    pub(super) fn begin(&self) {
        self.begun.increment();
    }

    /// Counts its answer.
    pub(super) fn end(&self, subject: &str, failure: Option<&Failure>, took: Duration, request: &Message) {
        self.ended.increment();
        let Some(metrics) = self.routes.get(subject) else { return };
        metrics.times.observe_time(took);
        metrics.log(subject, failure, took, request);
        let Some(failure) = failure else { return metrics.ok.increment() };
        let end = (code_name(failure.code), label(OrderReason::NAMES, &failure.domain, &failure.reason));
        *lock(&metrics.failed).entry(end).or_default() += 1;
        let text: String = failure.message.chars().take(WORDS).collect();
        *lock(&metrics.last) = format!("{}:{text}", failure.number());
    }

    /// The totals of a route so far.
    pub(super) fn seen(&self, subject: &str) -> Seen {
        let Some(metrics) = self.routes.get(subject) else { return Seen::default() };
        let failures = lock(&metrics.failed).values().sum();
        let nanos = Duration::try_from_secs_f64(metrics.times.snapshot().sum).unwrap_or_default().as_nanos();
        Seen {
            requests: metrics.ok.get() + failures,
            failures,
            last: lock(&metrics.last).clone(),
            nanos: u64::try_from(nanos).unwrap_or(u64::MAX),
        }
    }
}

impl RequestMetrics {
    fn new() -> RequestMetrics {
        let (ok, times) = (Counter::default(), Histogram::times());
        RequestMetrics {
            ok,
            times,
            failed: Mutex::default(),
            last: Mutex::default(),
            lines: LineQuota::default(),
        }
    }

    /// Logs a line at debug; at warn, rate-limited, if the caller did not cause the failure. It is the only line about
    /// a request: errors on the way pass their cause on. Unknown fields are left out.
    fn log(&self, subject: &str, failure: Option<&Failure>, took: Duration, request: &Message) {
        let warns = failure.is_some_and(|failure| ours(failure.code)) && self.lines.take();
        if !warns && !tracing::enabled!(target: "inventory_worker::request", tracing::Level::DEBUG) {
            return;
        }
        let header = |name| request.headers.as_ref()?.get(name).map(HeaderValue::as_str);
        let request_id = header(header::REQUEST_ID);
        let trace_id = header(header::TRACEPARENT).and_then(telemetry::trace::trace_id);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let Some(failure) = failure else {
            tracing::debug!(target: "inventory_worker::request", subject, code = "OK", took_us, request_id, trace_id);
            return;
        };
        let (code, reason) =
            (code_name(failure.code), label(OrderReason::NAMES, &failure.domain, &failure.reason));
        let known = |key| failure.metadata.get(key).map(String::as_str);
        let delivered = failure.delivered.map(Delivered::name);
        let (order_id, cause) = (known("order_id"), failure.cause.as_deref());
        if warns {
            tracing::warn!(target: "inventory_worker::request", subject, code, reason, delivered, took_us, request_id, trace_id, order_id, cause, "the request failed");
        } else {
            tracing::debug!(target: "inventory_worker::request", subject, code, reason, delivered, took_us, request_id, trace_id, order_id, cause, "the request failed");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl Source for EndpointMetrics {
    fn collect(&self, page: &mut Exposition) {
        // Read in this order, it never falls below zero.
        let ended = self.ended.get();
        let in_hand = self.begun.get().saturating_sub(ended) as f64;
        page.gauge("worker_requests_in_hand", "Requests in progress.", &[], in_hand);
        for (subject, metrics) in &self.routes {
            let route = ("route", *subject);
            let help = "Time from accepting a request to its reply.";
            page.histogram("worker_request_duration_seconds", help, &[route], &metrics.times);
            let (name, help) = ("worker_requests_total", "Answered requests, by status code and reason.");
            page.counter(name, help, &[route, ("code", "OK"), ("reason", "")], metrics.ok.get());
            for ((code, reason), count) in &*lock(&metrics.failed) {
                page.counter(name, help, &[route, ("code", code), ("reason", reason)], *count);
            }
        }
    }
}
