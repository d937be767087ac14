//! Console data about calls and routes: current gauges, counters of the last minute, durations of the last five. Must
//! not contain callers.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::{Catalog, Route};
use serde_json::{Value, json};
use telemetry::Exposition;
use tokio::time::Instant;

use crate::serve::window::{CALLS, View, Windows};

/// Status codes of failures of the system. All other codes are about the request.
const OURS: [&str; 6] =
    ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNKNOWN", "DATA_LOSS"];

/// Results of calls: all, failed (the system's fault), refused (the request's fault), and the reasons.
#[derive(Default)]
struct Ended {
    calls: f64,
    failed: f64,
    refused: f64,
    reasons: BTreeMap<(String, String), f64>,
}

impl Ended {
    fn add(&mut self, code: &str, reason: &str, count: f64) {
        self.calls += count;
        if code == "OK" || count <= 0.0 {
            return;
        }
        *if OURS.contains(&code) { &mut self.failed } else { &mut self.refused } += count;
        *self.reasons.entry((reason.to_owned(), code.to_owned())).or_default() += count;
    }

    fn reasons(&self) -> Vec<Value> {
        let reason = |((reason, code), count): (&(String, String), &f64)| json!({ "reason": reason, "code": code, "ours": OURS.contains(&code.as_str()), "count": count });
        self.reasons.iter().map(reason).collect()
    }
}

/// The calls of every rpc and their results, in the order of their declarations.
pub(super) fn methods(catalog: &Catalog, page: &Exposition, view: &View) -> Vec<Value> {
    let rpcs = catalog.services().iter().flat_map(|service| &service.rpcs).filter(|rpc| !rpc.internal);
    rpcs.map(|rpc| method(page, view, rpc.name())).collect()
}

fn method(page: &Exposition, view: &View, name: &str) -> Value {
    let (mut start, mut minute) = (Ended::default(), Ended::default());
    for (labels, count) in page.numbers(CALLS) {
        if let [method, code, reason] = labels[..]
            && method == name
        {
            start.add(code, reason, count);
        }
    }
    for (labels, count) in view.counts(CALLS) {
        if let [method, code, reason] = labels
            && method == name
        {
            minute.add(code, reason, count);
        }
    }
    let ms = |share| view.quantile("gateway_call_duration_seconds", name, share).map(|time| time * 1e3);
    json!({
        "name": name,
        "in_flight": page.number("gateway_calls_in_flight", &[("method", name)]),
        "p50_ms": ms(0.5),
        "p99_ms": ms(0.99),
        "rate": view.rate(minute.calls),
        "failed_rate": view.rate(minute.failed),
        "refused_rate": view.rate(minute.refused),
        "minute": {
            "calls": minute.calls,
            "failed": minute.failed,
            "refused": minute.refused,
            "reasons": minute.reasons(),
        },
        // Since the start of the gateway.
        "calls": start.calls,
        "failed": start.failed + start.refused,
        "reasons": start.reasons(),
    })
}

/// The attempts of every route and their results. Whether it has responders is unknown while NATS is disconnected.
pub(super) fn routes(catalog: &Catalog, page: &Exposition, view: &View, connected: bool) -> Vec<Value> {
    let state = |route: &Arc<Route>| state(page, view, route.subject.as_str(), &route.queue_group, connected);
    catalog.serving_routes().map(state).collect()
}

fn state(page: &Exposition, view: &View, subject: &str, queue_group: &str, connected: bool) -> Value {
    let label = [("route", subject)];
    let number = |name: &str| page.number(&format!("gateway_route_{name}"), &label);
    let ms = |share| view.quantile("gateway_route_duration_seconds", subject, share).map(|time| time * 1e3);
    let minute = |name: &str| view.count(&format!("gateway_route_{name}"), subject);
    let attempts = minute("attempts_total");
    json!({
        "subject": subject,
        "queue_group": queue_group,
        "up": connected.then(|| number("up") > 0.0),
        "captured": number("captured") > 0.0,
        "in_flight": number("in_flight"),
        "limit": number("limit"),
        "p50_ms": ms(0.5),
        "p99_ms": ms(0.99),
        "rate": view.rate(attempts),
        "minute": {
            "attempts": attempts,
            "retries": minute("retries_total"),
            "no_responders": minute("no_responders_total"),
            "timeouts": minute("timeouts_total"),
            "shed": minute("shed_total"),
        },
        // Since the start of the gateway.
        "attempts": number("attempts_total"),
        "retries": number("retries_total"),
        "no_responders": number("no_responders_total"),
        "timeouts": number("timeouts_total"),
        "shed": number("shed_total"),
    })
}

/// Calls and failures per second, for each second of the last minute, so that a page that is opened now has a history.
pub(super) fn history(windows: &Windows, now: Instant) -> Vec<Value> {
    let failed = |labels: &[String]| labels.get(1).is_some_and(|code| OURS.contains(&code.as_str()));
    let history = windows.history(CALLS, now, [|_| true, failed]);
    let point = |(ago, [calls, failed]): (std::time::Duration, [f64; 2])| json!({ "ms_ago": ago.as_millis() as u64, "calls": calls, "failed": failed });
    history.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_wrongly_is_refused_and_what_we_could_not_do_failed() {
        let mut ended = Ended::default();
        for (code, reason, count) in [
            ("OK", "", 5.0),
            ("FAILED_PRECONDITION", "INSUFFICIENT_STOCK", 2.0),
            ("UNAVAILABLE", "NO_RESPONDERS", 1.0),
            ("UNAVAILABLE", "STORAGE_UNAVAILABLE", 0.0),
        ] {
            ended.add(code, reason, count);
        }
        assert_eq!((ended.calls, ended.failed, ended.refused), (8.0, 1.0, 2.0));
        assert_eq!(ended.reasons().len(), 2, "what did not happen is no reason");
    }
}
