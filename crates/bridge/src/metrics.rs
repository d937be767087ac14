//! Metrics of routes: the results of attempts, kept per thread. Must not depend on payloads.

use std::collections::HashMap;
use std::sync::Arc;

use catalog::Route;
use foldhash::fast::RandomState;
use telemetry::{Counter, Exposition, Histogram, Source};
use tokio::time::Instant;

use super::latency::{HedgeEvidence, Latency};
use super::route_state::RouteStates;

/// The metrics of one thread. Clones share them.
#[derive(Debug, Clone)]
pub struct BridgeMetrics(Arc<HashMap<String, RouteMetrics, RandomState>>);

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
    pub(super) skipped: Counter,
    pub(super) slow: Counter,
    pub(super) times: Histogram,
    /// The usual response time.
    pub(super) usual: Latency,
    /// Evidence that a request is lost.
    pub(super) signs: HedgeEvidence,
}

impl BridgeMetrics {
    /// New metrics, all zero.
    pub(super) fn new(routes: &[Arc<Route>]) -> BridgeMetrics {
        let metrics = |route: &Arc<Route>| (route.path.clone(), RouteMetrics::new(route.subject.to_string()));
        BridgeMetrics(Arc::new(routes.iter().map(metrics).collect()))
    }

    pub(super) fn of(&self, route: &Route) -> Option<&RouteMetrics> {
        self.0.get(&route.path)
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
            skipped: Counter::default(),
            slow: Counter::default(),
            times: Histogram::times(),
            usual: Latency::default(),
            signs: HedgeEvidence::new(Instant::now()),
        }
    }
}

impl Source for BridgeMetrics {
    fn collect(&self, page: &mut Exposition) {
        for metrics in self.0.values() {
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
                    "gateway_route_skipped_total",
                    "Messages of a subscription that subscribers did not get, because they violate the contract.",
                    &metrics.skipped,
                ),
                (
                    "gateway_route_slow_clients_total",
                    "Subscribers whose stream ended because they read more slowly than messages came.",
                    &metrics.slow,
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

impl Source for RouteStates {
    fn collect(&self, page: &mut Exposition) {
        for (subject, state) in self.all() {
            let route = [("route", subject)];
            let [inside, room] = state.level().map(|count| count as f64);
            page.gauge("gateway_route_in_flight", "Calls in flight of a route.", &route, inside);
            page.gauge("gateway_route_limit", "The route's current concurrency limit.", &route, room);
            // Other routes need no service.
            if !state.may_be_stored() {
                page.flag(
                    "gateway_route_up",
                    "Whether a service responds on the subject and does not report that it cannot serve.",
                    &route,
                    state.liveness().alive() && !state.unable(),
                );
                let captured = state.capturer().is_some();
                page.flag(
                    "gateway_route_captured",
                    "Whether a stream captures the subject.",
                    &route,
                    captured,
                );
            }
            let help = "Replies that violate the contract.";
            page.counter("gateway_route_violations_total", help, &route, state.violations());
        }
    }
}
