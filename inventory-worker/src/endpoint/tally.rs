//! What requests came to, by route. Must never know what a request is about.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{HeaderValue, Message};
use contract::failure::{code_name, label, ours};
use contract::{Failure, header};
use telemetry::{Count, Page, Quota, Source, Spread};

use super::WORDS;

/// The tallies of a worker's endpoints.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    begun: Count,
    ended: Count,
    routes: HashMap<&'static str, Tally>,
}

#[derive(Debug)]
struct Tally {
    ok: Count,
    times: Spread,
    /// By code and reason.
    failed: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// As ADR-32 tells it.
    last: Mutex<String>,
    lines: Quota,
}

/// What came of the requests of a route.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// The last failure: `number:text`.
    pub(super) last: String,
    /// Time that all of them took.
    pub(super) nanos: u64,
}

impl Tallies {
    pub(super) fn new(subjects: &[&'static str]) -> Tallies {
        let tally = |subject: &&'static str| (*subject, Tally::new());
        Tallies { routes: subjects.iter().map(tally).collect(), ..Tallies::default() }
    }

    /// A request was taken.
    pub(super) fn begin(&self) {
        self.begun.one();
    }

    /// It is answered.
    pub(super) fn end(&self, subject: &str, failure: Option<&Failure>, took: Duration, request: &Message) {
        self.ended.one();
        let Some(tally) = self.routes.get(subject) else { return };
        tally.times.took(took);
        tally.log(subject, failure, took, request);
        let Some(failure) = failure else { return tally.ok.one() };
        let end = (code_name(failure.code), label(&failure.domain, &failure.reason));
        *lock(&tally.failed).entry(end).or_default() += 1;
        let text: String = failure.message.chars().take(WORDS).collect();
        *lock(&tally.last) = format!("{}:{text}", failure.number());
    }

    /// What came of a route's requests so far.
    pub(super) fn seen(&self, subject: &str) -> Seen {
        let Some(tally) = self.routes.get(subject) else { return Seen::default() };
        let failures = lock(&tally.failed).values().sum();
        let nanos = Duration::try_from_secs_f64(tally.times.look().sum).unwrap_or_default().as_nanos();
        Seen {
            requests: tally.ok.get() + failures,
            failures,
            last: lock(&tally.last).clone(),
            nanos: u64::try_from(nanos).unwrap_or(u64::MAX),
        }
    }
}

impl Tally {
    fn new() -> Tally {
        let (ok, times) = (Count::default(), Spread::times());
        Tally { ok, times, failed: Mutex::default(), last: Mutex::default(), lines: Quota::default() }
    }

    /// A line at debug; at warn, and a bounded number of them, where the failure is not the caller's. It is the only one
    /// about a request: whatever fails on the way hands its cause on. A field that nobody knows is left out.
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
        let (code, reason) = (code_name(failure.code), label(&failure.domain, &failure.reason));
        let known = |key| failure.metadata.get(key).map(String::as_str);
        let (delivered, order_id, cause) = (known("delivered"), known("order_id"), failure.cause.as_deref());
        if warns {
            tracing::warn!(target: "inventory_worker::request", subject, code, reason, delivered, took_us, request_id, trace_id, order_id, cause, "the request failed");
        } else {
            tracing::debug!(target: "inventory_worker::request", subject, code, reason, delivered, took_us, request_id, trace_id, order_id, cause, "the request failed");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source for Tallies {
    fn tell(&self, page: &mut Page) {
        // Read in this order, it never falls below zero.
        let ended = self.ended.get();
        let in_hand = self.begun.get().saturating_sub(ended) as f64;
        page.level("worker_requests_in_hand", "Requests that are being worked on.", &[], in_hand);
        for (subject, tally) in &self.routes {
            let route = ("route", *subject);
            let help = "Time from taking a request to its reply.";
            page.spread("worker_request_duration_seconds", help, &[route], &tally.times);
            let (name, help) =
                ("worker_requests_total", "Requests that were answered, by status code and reason.");
            page.count(name, help, &[route, ("code", "OK"), ("reason", "")], tally.ok.get());
            for ((code, reason), count) in &*lock(&tally.failed) {
                page.count(name, help, &[route, ("code", code), ("reason", reason)], *count);
            }
        }
    }
}
