//! Route state: what the calls of one route share across all threads of a gateway: concurrency limits, the retry
//! budget, liveness and the count of contract violations. Must not depend on payloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_nats::Subject;
use catalog::{Durable, Encoding, Envelope, Kind, Route};
use parking_lot::RwLock;

use super::budget::RetryBudget;
use super::liveness::Liveness;
use crate::concurrency::{ConcurrencyLimit, Permit, Saturated};
use crate::share::{ShareKind, Shares};
use crate::storage::StorageCache;

/// Settings of routes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls in flight per route.
    pub in_flight: usize,
    /// Subjects of NestJS services: requests to them use the NestJS envelope.
    pub nestjs: Vec<String>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { in_flight: 1_024, nestjs: Vec::new() }
    }
}

impl Limits {
    /// How many calls of a route may be in flight.
    pub(crate) fn of(&self, route: &Route) -> usize {
        route.max_in_flight.unwrap_or(self.in_flight)
    }

    /// Whether requests of a route use the NestJS envelope.
    pub(crate) fn nest(&self, route: &Route) -> bool {
        let configured = || {
            route.encoding == Encoding::Json
                && self.nestjs.iter().any(|subject| subject == route.subject.as_str())
        };
        route.envelope.map_or_else(configured, |envelope| envelope == Envelope::Nest)
    }
}

/// The state of one route.
#[derive(Debug)]
pub struct RouteState {
    /// The subject or template, as metrics name the route.
    name: String,
    /// All its subjects.
    pattern: String,
    /// The subject, if it is the same for all requests.
    fixed: Option<Subject>,
    /// Whether a stream may store what is sent there: there are no replies that it could give in place of a service.
    stored: bool,
    /// The limit of pass-through calls.
    outer: Arc<ConcurrencyLimit>,
    /// The limit of the gateway's own calls, which a flood of pass-through calls does not affect.
    inner: Arc<ConcurrencyLimit>,
    nest: bool,
    assumed: bool,
    budget: RetryBudget,
    liveness: Liveness,
    storage: StorageCache,
    violations: AtomicU64,
    /// The stream that captures the subject, if any.
    capturer: RwLock<Option<String>>,
    captured: AtomicBool,
    /// Whether all services report that they cannot serve.
    unable: AtomicBool,
    /// Whether discovery finds its services while they are there.
    announced: AtomicBool,
    /// Whether no catalog has the route any longer.
    retired: AtomicBool,
}

impl RouteState {
    /// `number`: a number of its own.
    pub(crate) fn new(number: usize, route: &Route, limits: &Limits) -> RouteState {
        let (nest, in_flight) = (limits.nest(route), limits.of(route));
        let subject = route.subject.as_str();
        let liveness = Liveness::default();
        let assumed = nest && route.trusted;
        if assumed {
            // Discovery does not find it, so it is assumed to be up until calls show otherwise.
            liveness.up();
        }
        RouteState {
            name: subject.to_owned(),
            pattern: route.subject.pattern(),
            fixed: route.subject.is_fixed().then(|| subject.into()),
            stored: !route.kind.asks(),
            outer: match route.kind {
                Kind::Subscribe(_)
                | Kind::RequestMany(_)
                | Kind::EmitDurable(Durable { streams: true, .. }) => {
                    ConcurrencyLimit::fixed(in_flight, ShareKind::route(number, false).lasting())
                }
                _ => ConcurrencyLimit::new(in_flight, ShareKind::route(number, false)),
            },
            inner: ConcurrencyLimit::new(in_flight, ShareKind::route(number, true)),
            nest,
            assumed,
            budget: RetryBudget::new(),
            liveness,
            storage: StorageCache::default(),
            violations: AtomicU64::new(0),
            capturer: RwLock::default(),
            captured: AtomicBool::new(false),
            unable: AtomicBool::new(false),
            announced: AtomicBool::new(route.trusted && !nest),
            retired: AtomicBool::new(false),
        }
    }

    /// Changes the maximum of calls in flight.
    pub(crate) fn resize(&self, in_flight: usize) {
        self.outer.resize(in_flight);
        self.inner.resize(in_flight);
    }

    /// Whether the route is no longer served: only calls that began before are left.
    pub(crate) fn retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Whether the route is no longer served from now on.
    pub(crate) fn retire(&self, retired: bool) {
        self.retired.store(retired, Ordering::Relaxed);
    }

    /// The subject or template.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The subject of the route, which is cheap to clone; none if it depends on the request.
    pub(super) fn fixed(&self) -> Option<&Subject> {
        self.fixed.as_ref()
    }

    /// All subjects of the route, as NATS writes them.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether a stream may store what is sent there.
    pub fn may_be_stored(&self) -> bool {
        self.stored
    }

    /// A permit for a pass-through call.
    pub(super) fn enter(&self, shares: Option<&Arc<Shares>>) -> Result<Permit, Saturated> {
        self.place(&self.outer, shares)
    }

    /// A permit for a call of the gateway itself.
    pub(super) fn enter_inside(&self, shares: Option<&Arc<Shares>>) -> Result<Permit, Saturated> {
        self.place(&self.inner, shares)
    }

    fn place(&self, gate: &Arc<ConcurrencyLimit>, shares: Option<&Arc<Shares>>) -> Result<Permit, Saturated> {
        let place = gate.enter(shares)?;
        self.budget.earn();
        Ok(place)
    }

    /// A hedge was answered before the earlier request.
    pub(super) fn hedge_won(&self) {
        self.budget.refund();
    }

    /// A hedge was lost with the connection.
    pub(super) fn hedge_lost(&self) {
        self.budget.return_lost();
    }

    /// Spends the cost of a retry or a hedge, if the budget allows it.
    pub(super) fn retry(&self) -> bool {
        self.budget.spend()
    }

    /// Counts a reply that violates the contract, and returns the total.
    pub(super) fn violation(&self) -> u64 {
        self.violations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The number of replies that violated the contract.
    pub(super) fn violations(&self) -> u64 {
        self.violations.load(Ordering::Relaxed)
    }

    /// Sets the stream that captures the subject, if any. It would acknowledge requests in place of the service, so
    /// none are sent.
    pub fn capture(&self, subject: &str, stream: Option<String>) {
        let mut known = self.capturer.write();
        match &stream {
            Some(stream) if known.as_ref() != Some(stream) => {
                tracing::error!(
                    subject,
                    stream,
                    "a stream captures the subject of a route; requests to it are not sent"
                );
            }
            None if known.is_some() => tracing::info!(subject, "no stream captures the subject any longer"),
            _ => {}
        }
        self.captured.store(stream.is_some(), Ordering::Relaxed);
        *known = stream;
    }

    /// The stream that captures the subject, if any.
    pub fn capturer(&self) -> Option<String> {
        if !self.captured.load(Ordering::Relaxed) {
            return None;
        }
        self.capturer.read().clone()
    }

    /// Whether all services report that they cannot serve.
    pub fn disable(&self, unable: bool) {
        self.unable.store(unable, Ordering::Relaxed);
    }

    /// Whether all services report that they cannot serve.
    pub fn unable(&self) -> bool {
        self.unable.load(Ordering::Relaxed)
    }

    /// The number of calls in flight, and the limit.
    pub fn level(&self) -> [usize; 2] {
        [self.outer.inside() + self.inner.inside(), self.outer.size()]
    }

    /// Whether the route is taken for up until calls show otherwise: compiled in, and of a service that discovery does not
    /// find.
    pub fn assumed(&self) -> bool {
        self.assumed
    }

    /// Discovery has found a service, so that from now on its absence says something.
    pub fn announce(&self) {
        self.announced.store(true, Ordering::Relaxed);
    }

    /// Whether discovery has ever found a service.
    pub fn announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed)
    }

    /// Whether the service is NestJS, which does not support discovery.
    pub fn nestjs(&self) -> bool {
        self.nest
    }

    /// What is known of the stream that stores the route's messages.
    pub(super) fn storage(&self) -> &StorageCache {
        &self.storage
    }

    /// The liveness of the route.
    pub fn liveness(&self) -> &Liveness {
        &self.liveness
    }
}
