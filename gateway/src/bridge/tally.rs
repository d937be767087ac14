//! Tallies: what the attempts of each route came to, kept by each thread for itself. Must never know a payload.

use std::collections::HashMap;
use std::sync::Arc;

use contract::Route;
use foldhash::fast::RandomState;
use telemetry::{Count, Page, Source, Spread};
use tokio::time::Instant;

use super::lane::Lanes;
use super::usual::{Signs, Usual};

/// The tallies of one thread. Clones share them.
#[derive(Debug, Clone)]
pub struct Tallies(Arc<HashMap<&'static str, Tally, RandomState>>);

/// The tally of one route.
#[derive(Debug)]
pub(super) struct Tally {
    subject: &'static str,
    pub(super) attempts: Count,
    pub(super) retries: Count,
    pub(super) hedges: Count,
    pub(super) hedges_won: Count,
    pub(super) absent: Count,
    pub(super) timeouts: Count,
    pub(super) early: Count,
    pub(super) shed: Count,
    pub(super) times: Spread,
    /// What an answer usually takes.
    pub(super) usual: Usual,
    /// What says that a request is lost.
    pub(super) signs: Signs,
}

impl Tallies {
    /// Empty ones.
    pub(super) fn new(routes: &[&'static Route]) -> Tallies {
        let tally = |route: &&'static Route| (route.path, Tally::new(route.subject));
        Tallies(Arc::new(routes.iter().map(tally).collect()))
    }

    pub(super) fn of(&self, route: &Route) -> Option<&Tally> {
        self.0.get(route.path)
    }
}

impl Tally {
    fn new(subject: &'static str) -> Tally {
        Tally {
            subject,
            attempts: Count::default(),
            retries: Count::default(),
            hedges: Count::default(),
            hedges_won: Count::default(),
            absent: Count::default(),
            timeouts: Count::default(),
            early: Count::default(),
            shed: Count::default(),
            times: Spread::times(),
            usual: Usual::default(),
            signs: Signs::new(Instant::now()),
        }
    }
}

impl Source for Tallies {
    fn tell(&self, page: &mut Page) {
        for tally in self.0.values() {
            let route = [("route", tally.subject)];
            let counts = [
                (
                    "gateway_route_attempts_total",
                    "Requests sent to a subject, repeats and hedges included.",
                    &tally.attempts,
                ),
                ("gateway_route_retries_total", "Repeats among them.", &tally.retries),
                (
                    "gateway_route_hedges_total",
                    "Hedges among them: requests sent while an earlier one went unanswered far longer than usual.",
                    &tally.hedges,
                ),
                (
                    "gateway_route_hedges_won_total",
                    "Hedges that were answered before what they followed.",
                    &tally.hedges_won,
                ),
                ("gateway_route_no_responders_total", "Requests that nobody was there for.", &tally.absent),
                (
                    "gateway_route_timeouts_total",
                    "Requests without a reply in the attempt's time.",
                    &tally.timeouts,
                ),
                (
                    "gateway_route_early_refusals_total",
                    "Requests that a service refused as too late although they had time left.",
                    &tally.early,
                ),
                ("gateway_route_shed_total", "Calls turned away by the route's gate.", &tally.shed),
            ];
            for (name, help, count) in counts {
                page.count(name, help, &route, count.get());
            }
            let help = "Time from a request to its reply.";
            page.spread("gateway_route_duration_seconds", help, &route, &tally.times);
        }
    }
}

impl Source for Lanes {
    fn tell(&self, page: &mut Page) {
        for (subject, lane) in self.all() {
            let route = [("route", subject)];
            let [inside, room] = lane.level().map(|count| count as f64);
            page.level("gateway_route_in_flight", "Calls of a route that have not ended.", &route, inside);
            page.level("gateway_route_limit", "How many the route's gate lets in now.", &route, room);
            page.flag(
                "gateway_route_up",
                "Whether somebody answers on the subject, and can serve as far as it tells.",
                &route,
                lane.pulse().alive() && !lane.unable(),
            );
            let captured = lane.capturer().is_some();
            page.flag("gateway_route_captured", "Whether a stream captures the subject.", &route, captured);
            let help = "Replies that do not fit the contract.";
            page.count("gateway_route_violations_total", help, &route, lane.violations());
        }
    }
}
