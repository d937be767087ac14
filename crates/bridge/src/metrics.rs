//! Metrics of routes: the results of attempts, kept per thread. Must not depend on payloads.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use catalog::Route;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use telemetry::{Counter, Exposition, Histogram, Source};
use tokio::time::Instant;

use super::latency::{HedgeEvidence, Latency};

/// The metrics of one thread: of every route that a catalog or a call has. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct BridgeMetrics(Arc<Mutex<HashMap<Key, Weak<RouteMetrics>>>>);

/// Path and subject.
type Key = (String, String);

/// The metrics of the routes of one catalog, by path.
#[derive(Debug, Clone)]
pub(super) struct CatalogMetrics(Arc<HashMap<String, Arc<RouteMetrics>, RandomState>>);

/// The metrics of one route.
#[derive(Debug)]
pub(super) struct RouteMetrics {
    subject: String,
    pub(super) attempts: Counter,
    pub(super) retries: Counter,
    pub(super) hedges: Counter,
    pub(super) hedges_won: Counter,
    pub(super) absent: Counter,
    pub(super) timeouts: Counter,
    pub(super) early: Counter,
    pub(super) shed: Counter,
    pub(super) messages: Counter,
    pub(super) skipped: Counter,
    pub(super) slow: Counter,
    pub(super) left_out: Counter,
    pub(super) times: Histogram,
    /// The usual response time.
    pub(super) usual: Latency,
    /// Evidence that a request is lost.
    pub(super) signs: HedgeEvidence,
}

impl BridgeMetrics {
    /// The metrics of these routes: those that are known go on.
    pub(super) fn of(&self, routes: &[Arc<Route>]) -> CatalogMetrics {
        let mut known = self.0.lock();
        known.retain(|_, metrics| metrics.strong_count() > 0);
        let mut metrics = |route: &Arc<Route>| {
            let key = (route.path.clone(), route.subject.to_string());
            let metrics = known.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
                let metrics = Arc::new(RouteMetrics::new(key.1.clone()));
                known.insert(key, Arc::downgrade(&metrics));
                metrics
            });
            (route.path.clone(), metrics)
        };
        CatalogMetrics(Arc::new(routes.iter().map(&mut metrics).collect()))
    }
}

impl CatalogMetrics {
    pub(super) fn of(&self, route: &Route) -> Option<&RouteMetrics> {
        self.0.get(&route.path).map(|metrics| &**metrics)
    }
}

impl RouteMetrics {
    fn new(subject: String) -> RouteMetrics {
        RouteMetrics {
            subject,
            attempts: Counter::default(),
            retries: Counter::default(),
            hedges: Counter::default(),
            hedges_won: Counter::default(),
            absent: Counter::default(),
            timeouts: Counter::default(),
            early: Counter::default(),
            shed: Counter::default(),
            messages: Counter::default(),
            skipped: Counter::default(),
            slow: Counter::default(),
            left_out: Counter::default(),
            times: Histogram::times(),
            usual: Latency::default(),
            signs: HedgeEvidence::new(Instant::now()),
        }
    }
}

impl Source for BridgeMetrics {
    fn collect(&self, page: &mut Exposition) {
        let known: Vec<_> = self.0.lock().values().filter_map(Weak::upgrade).collect();
        for metrics in known {
            let route = [("route", metrics.subject.as_str())];
            let counts = [
                (
                    "gateway_route_attempts_total",
                    "Requests sent to a subject, including retries and hedges.",
                    &metrics.attempts,
                ),
                ("gateway_route_retries_total", "Requests that were retries.", &metrics.retries),
                (
                    "gateway_route_hedges_total",
                    "Requests that were hedges: sent while an earlier one was unanswered for far longer than usual.",
                    &metrics.hedges,
                ),
                (
                    "gateway_route_hedges_won_total",
                    "Hedges that were answered before the earlier request.",
                    &metrics.hedges_won,
                ),
                ("gateway_route_no_responders_total", "Requests that found no responders.", &metrics.absent),
                (
                    "gateway_route_timeouts_total",
                    "Requests without a reply within the timeout of the attempt.",
                    &metrics.timeouts,
                ),
                (
                    "gateway_route_early_refusals_total",
                    "Requests that a service refused as too late although they had time left.",
                    &metrics.early,
                ),
                (
                    "gateway_route_shed_total",
                    "Calls refused by the route's concurrency limit.",
                    &metrics.shed,
                ),
                (
                    "gateway_route_messages_total",
                    "Messages of streams that clients have taken.",
                    &metrics.messages,
                ),
                (
                    "gateway_route_skipped_total",
                    "Messages of a subscription that subscribers did not get, because they violate the contract.",
                    &metrics.skipped,
                ),
                (
                    "gateway_route_slow_clients_total",
                    "Streams that ended because their client read more slowly than their messages came.",
                    &metrics.slow,
                ),
                (
                    "gateway_route_metadata_left_out_total",
                    "Values of metadata in replies that callers did not get: not valid, or too many bytes.",
                    &metrics.left_out,
                ),
            ];
            for (name, help, count) in counts {
                page.counter(name, help, &route, count.get());
            }
            let help = "Time from a request to its reply.";
            page.histogram("gateway_route_duration_seconds", help, &route, &metrics.times);
        }
    }
}
