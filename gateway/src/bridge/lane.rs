//! Lanes: what the calls of one route share, over all threads of a gateway: places in flight, the retry budget, the
//! pulse and the count of violations. Must never know a payload.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use contract::{Failure, Reason, Route};
use foldhash::fast::RandomState;

use super::budget::Budget;
use super::pulse::Pulse;
use crate::gate::{Full, Gate, Place};
use crate::share::{Shares, Slot};

/// How lanes are run.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls in flight per route.
    pub in_flight: usize,
    /// Subjects whose services are NestJS: they are spoken to in its envelope.
    pub nest: Vec<String>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { in_flight: 1_024, nest: Vec::new() }
    }
}

/// One lane per route.
#[derive(Debug)]
pub struct Lanes {
    lanes: HashMap<&'static str, (&'static str, Lane), RandomState>,
}

/// What the calls of one route share.
#[derive(Debug)]
pub struct Lane {
    /// For calls that are passed on.
    outer: Arc<Gate>,
    /// For calls of the gateway itself: a flood of the others leaves them alone.
    inner: Arc<Gate>,
    nest: bool,
    budget: Budget,
    pulse: Pulse,
    violations: AtomicU64,
    /// The stream that captures the subject.
    capturer: RwLock<Option<String>>,
    captured: AtomicBool,
    /// Whoever answers says that it cannot serve.
    unable: AtomicBool,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes::new(contract::route::ALL, &Limits::default())
    }
}

impl Lanes {
    /// Lanes for these routes.
    pub fn new(routes: &[&'static Route], limits: &Limits) -> Lanes {
        let lane = |(number, route): (usize, &&'static Route)| {
            (route.path, (route.subject, Lane::new(number, route, limits)))
        };
        Lanes { lanes: routes.iter().enumerate().map(lane).collect() }
    }

    /// The lane of a route.
    pub fn of(&self, route: &Route) -> Result<&Lane, Failure> {
        self.lanes.get(route.path).map(|(_, lane)| lane).ok_or_else(|| {
            let failure = Failure::new(Reason::Internal, "the gateway does not serve this route");
            failure.because(format_args!("no lane for {}", route.path))
        })
    }
}

impl Lanes {
    /// Every lane with its subject.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Lane)> {
        self.lanes.values().map(|(subject, lane)| (*subject, lane))
    }
}

impl Lane {
    fn new(number: usize, route: &Route, limits: &Limits) -> Lane {
        let nest = route.json && limits.nest.iter().any(|subject| subject == route.subject);
        let pulse = Pulse::default();
        if nest {
            // No survey finds it, so it is taken to be there until calls say otherwise.
            pulse.beat();
        }
        Lane {
            outer: Gate::new(limits.in_flight, Slot::route(number, false)),
            inner: Gate::new(limits.in_flight, Slot::route(number, true)),
            nest,
            budget: Budget::new(),
            pulse,
            violations: AtomicU64::new(0),
            capturer: RwLock::default(),
            captured: AtomicBool::new(false),
            unable: AtomicBool::new(false),
        }
    }

    /// A place for a call that is passed on.
    pub(super) fn enter(&self, shares: Option<&Arc<Shares>>) -> Result<Place, Full> {
        self.place(&self.outer, shares)
    }

    /// A place for a call of the gateway itself.
    pub(super) fn enter_inside(&self, shares: Option<&Arc<Shares>>) -> Result<Place, Full> {
        self.place(&self.inner, shares)
    }

    fn place(&self, gate: &Arc<Gate>, shares: Option<&Arc<Shares>>) -> Result<Place, Full> {
        let place = gate.enter(shares)?;
        self.budget.earn();
        Ok(place)
    }

    /// A hedge was answered where what it followed was not.
    pub(super) fn hedge_won(&self) {
        self.budget.refund();
    }

    /// A hedge was lost with the connection.
    pub(super) fn hedge_lost(&self) {
        self.budget.return_lost();
    }

    /// Whether the budget allows a repeat, or a hedge; it is paid then.
    pub(super) fn retry(&self) -> bool {
        self.budget.spend()
    }

    /// Counts a reply that does not fit, and returns how many there were.
    pub(super) fn violation(&self) -> u64 {
        self.violations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many replies did not fit.
    pub(super) fn violations(&self) -> u64 {
        self.violations.load(Ordering::Relaxed)
    }

    /// Whether a stream captures the subject, and which. It would answer requests in the service's place, so there are none.
    pub fn capture(&self, subject: &str, stream: Option<String>) {
        let mut known = self.capturer.write().unwrap_or_else(PoisonError::into_inner);
        match &stream {
            Some(stream) if known.as_ref() != Some(stream) => {
                tracing::error!(
                    subject,
                    stream,
                    "a stream captures a subject that requests go to; none are sent"
                );
            }
            None if known.is_some() => tracing::info!(subject, "no stream captures the subject any more"),
            _ => {}
        }
        self.captured.store(stream.is_some(), Ordering::Relaxed);
        *known = stream;
    }

    /// The stream that captures the subject.
    pub fn capturer(&self) -> Option<String> {
        if !self.captured.load(Ordering::Relaxed) {
            return None;
        }
        self.capturer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether all who answer say that they cannot serve.
    pub fn disable(&self, unable: bool) {
        self.unable.store(unable, Ordering::Relaxed);
    }

    /// Whether all who answer say that they cannot serve.
    pub fn unable(&self) -> bool {
        self.unable.load(Ordering::Relaxed)
    }

    /// How many calls are in flight, and how many may be.
    pub fn level(&self) -> [usize; 2] {
        [self.outer.inside() + self.inner.inside(), self.outer.size()]
    }

    /// Whether the service behind is NestJS: it answers no survey.
    pub fn nest(&self) -> bool {
        self.nest
    }

    /// Whether somebody answers on this route.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }
}
