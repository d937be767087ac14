//! The states of all routes of a catalog, and what goes on in the next one: a route that it still has keeps its limits, its
//! retry budget, its liveness and its counts. Must not depend on when catalogs change.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use catalog::{Catalog, Encoding, Route};
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use telemetry::{Exposition, Source};
use wire::{Failure, Reason};

use crate::flow::StreamBytes;
use crate::route_state::{Limits, RouteState};

/// The states of the routes of one catalog. Immutable: the next catalog has states of its own, which share what their
/// common routes have learned.
#[derive(Debug)]
pub struct RouteStates {
    catalog: Arc<Catalog>,
    states: HashMap<String, Arc<RouteState>, RandomState>,
    learned: Learned,
}

/// What the routes of all catalogs of a gateway have learned. Clones share it. It keeps no state alive: a state ends with
/// the last catalog and the last call that has it.
#[derive(Debug, Clone)]
pub struct Learned(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    states: Mutex<HashMap<Key, Weak<RouteState>>>,
    stream_bytes: Arc<StreamBytes>,
    /// How many states there have been.
    count: AtomicUsize,
}

/// Routes that are equal in this reach the same service in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    path: String,
    subject: String,
    queue_group: String,
    kind: &'static str,
    settings: String,
    json: bool,
    nest: bool,
}

impl RouteStates {
    /// The states of these routes of a catalog, which have learned nothing yet.
    pub fn new<'a>(
        catalog: Arc<Catalog>,
        routes: impl IntoIterator<Item = &'a Arc<Route>>,
        limits: &Limits,
    ) -> RouteStates {
        Learned::new(limits.clone()).states(catalog, routes)
    }

    /// The states of these routes of another catalog. Routes that are the same keep what they have learned; their limits
    /// get the new sizes.
    #[must_use]
    pub fn next<'a>(
        &self,
        catalog: Arc<Catalog>,
        routes: impl IntoIterator<Item = &'a Arc<Route>>,
    ) -> RouteStates {
        self.learned.states(catalog, routes)
    }

    /// The state of one route, and nothing else of the catalog.
    pub(crate) fn only(&self, route: &Route) -> RouteStates {
        let state = self.states.get(&route.path).map(|state| (route.path.clone(), state.clone()));
        let catalog = Arc::default();
        RouteStates { catalog, states: state.into_iter().collect(), learned: self.learned.clone() }
    }

    /// What is served.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// What the routes of all catalogs have learned.
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// What waits for the clients of all streams.
    pub fn stream_bytes(&self) -> &Arc<StreamBytes> {
        self.learned.stream_bytes()
    }

    /// The route of the rpc at this path.
    ///
    /// # Errors
    /// If the catalog has none.
    pub fn route(&self, path: &str) -> Result<&Arc<Route>, Failure> {
        self.catalog.route(path).ok_or_else(|| unserved(path))
    }

    /// The state of a route.
    ///
    /// # Errors
    /// If the route is none of those that the states were made of.
    pub fn of(&self, route: &Route) -> Result<&RouteState, Failure> {
        self.states.get(&route.path).map(|state| &**state).ok_or_else(|| unserved(&route.path))
    }

    /// Every route's state with its subject or template.
    pub fn all(&self) -> impl Iterator<Item = (&str, &RouteState)> {
        self.states.values().map(|state| (state.name(), &**state))
    }

    /// These states replace those of another catalog: what is left of the others ends with their calls.
    pub fn replace(&self, others: &RouteStates) {
        others.states.values().for_each(|state| state.retire(true));
        self.states.values().for_each(|state| state.retire(false));
    }
}

fn unserved(path: &str) -> Failure {
    let failure = Failure::new(Reason::Internal, "the gateway does not serve this route");
    failure.because(format_args!("no route state for {path}"))
}

impl Learned {
    /// Nothing yet.
    pub(crate) fn new(limits: Limits) -> Learned {
        let count = AtomicUsize::new(0);
        Learned(Arc::new(Inner { limits, states: Mutex::default(), stream_bytes: Arc::default(), count }))
    }

    /// The states of these routes of a catalog: those that are known, with the catalog's limits, and new ones.
    pub(crate) fn states<'a>(
        &self,
        catalog: Arc<Catalog>,
        routes: impl IntoIterator<Item = &'a Arc<Route>>,
    ) -> RouteStates {
        let Inner { limits, states, count, .. } = &*self.0;
        let mut known = states.lock();
        known.retain(|_, state| state.strong_count() > 0);
        let mut state = |route: &Arc<Route>| {
            let key = Key {
                path: route.path.clone(),
                subject: route.subject.to_string(),
                queue_group: route.queue_group.clone(),
                kind: route.kind.name(),
                settings: route.kind.settings(),
                json: route.encoding == Encoding::Json,
                nest: limits.nest(route),
            };
            if let Some(state) = known.get(&key).and_then(Weak::upgrade) {
                state.resize(limits.of(route));
                return (route.path.clone(), state);
            }
            let state = Arc::new(RouteState::new(count.fetch_add(1, Ordering::Relaxed), route, limits));
            known.insert(key, Arc::downgrade(&state));
            (route.path.clone(), state)
        };
        let states = routes.into_iter().map(&mut state).collect();
        RouteStates { catalog, states, learned: self.clone() }
    }

    /// What waits for the clients of all streams.
    pub(crate) fn stream_bytes(&self) -> &Arc<StreamBytes> {
        &self.0.stream_bytes
    }
}

impl Source for Learned {
    fn collect(&self, page: &mut Exposition) {
        let held = self.stream_bytes().held() as f64;
        page.gauge(
            "gateway_stream_bytes",
            "Bytes of messages that wait for the clients of streams.",
            &[],
            held,
        );
        let states: Vec<_> = self.0.states.lock().values().filter_map(Weak::upgrade).collect();
        for state in states {
            let route = [("route", state.name())];
            let [inside, room] = state.level().map(|count| count as f64);
            page.gauge("gateway_route_in_flight", "Calls in flight of a route.", &route, inside);
            let help = "Replies that violate the contract.";
            page.counter("gateway_route_violations_total", help, &route, state.violations());
            // Another route may have its subject now.
            if state.retired() {
                continue;
            }
            page.gauge("gateway_route_limit", "The route's current concurrency limit.", &route, room);
            // Other routes need no service.
            if state.may_be_stored() {
                continue;
            }
            if state.liveness().known() || state.announced() {
                let help = "Whether a service responds on the subject and does not report that it cannot serve. Not there while \
                            nothing is known.";
                let up = state.liveness().alive() && !state.unable();
                page.flag("gateway_route_up", help, &route, up);
            }
            let captured = state.capturer().is_some();
            page.flag("gateway_route_captured", "Whether a stream captures the subject.", &route, captured);
        }
    }
}
