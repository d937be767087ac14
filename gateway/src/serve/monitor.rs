//! The health monitor: derives what is up from the connection, the stream guard, service discovery and the results of
//! calls, and writes the health registry. Nothing else may call it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use catalog::Route;
use futures_util::future::join_all;
use nats::{Connection, Guard, streams};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::shared::{Shared, coded};
use crate::contracts::is_compiled_in;
use crate::waits::DISCOVERY_INTERVAL;
use bridge::{RouteStates, discovery};
use server::registry::{Finding, GATEWAY, Standing, reason};
use server::{Current, HealthRegistry, Served};

/// Interval between two updates of the health registry.
const TICK: Duration = Duration::from_millis(100);
/// Interval between discovery requests while a service is missing.
const MISSING: Duration = Duration::from_millis(300);
/// How long services that are not known are looked for at that interval: they may never be found.
const NEW: Duration = Duration::from_secs(30);
/// A service that only calls can find missing is assumed to be back after this.
const CHANCE: Duration = Duration::from_secs(10);

/// The health monitor of a gateway.
pub(super) struct Monitor {
    link: Connection,
    guard: Guard,
    current: Current,
    board: HealthRegistry,
    /// The services with code.
    coded: &'static [&'static str],
    /// The services without which the gateway itself is not ready.
    ready_on: Vec<Arc<str>>,
    /// Cancelled when every thread serves.
    serving: CancellationToken,
    view: Mutex<Option<Arc<View>>>,
}

/// What is monitored of one catalog.
struct View {
    /// The number of what is served.
    number: u64,
    states: Arc<RouteStates>,
    services: Vec<MonitoredService>,
    /// The routes that they need.
    routes: Vec<Arc<Route>>,
    /// When this began.
    since: Instant,
    /// Whether a discovery request was completed.
    asked: AtomicBool,
}

/// A service whose health is written.
struct MonitoredService {
    name: Arc<str>,
    /// Whether it has code.
    coded: bool,
    /// Whether it belongs to the order system, which needs its streams. Others need their routes alone.
    streams: bool,
}

impl Monitor {
    pub(super) fn new(link: Connection, shared: &Shared) -> Monitor {
        let Shared { guard, current, board, serving, ready_on, .. } = shared;
        Monitor {
            link,
            guard: guard.clone(),
            current: current.clone(),
            board: board.clone(),
            coded: coded(&shared.config),
            ready_on: ready_on.clone(),
            serving: serving.clone(),
            view: Mutex::default(),
        }
    }

    /// What is monitored now.
    fn view(&self) -> Arc<View> {
        let number = self.current.look().number();
        let mut view = self.view.lock();
        if let Some(view) = view.as_ref().filter(|view| view.number == number) {
            return view.clone();
        }
        let new = Arc::new(View::new(&self.current.served(), self.coded));
        *view = Some(new.clone());
        new
    }

    /// The same, for another registry and other threads.
    #[cfg(test)]
    pub(super) fn of(self, board: HealthRegistry, serving: CancellationToken) -> Monitor {
        Monitor { board, serving, ..self }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        tokio::join!(self.discover(), self.captures(), self.write());
    }

    /// Discovers the services.
    async fn discover(&self) {
        let mut changes = self.current.changes();
        loop {
            let view = self.view();
            if self.link.connected() {
                self.ask(&view).await;
            }
            let new = view.since.elapsed() < NEW;
            let missing = |route| view.obstacle(route).is_some() || (new && view.unknown(route));
            let calm = !view.routes.iter().any(|route| missing(route));
            // Routes that are new have not been asked for.
            let _ = timeout(if calm { DISCOVERY_INTERVAL } else { MISSING }, changes.changed()).await;
        }
    }

    async fn ask(&self, view: &View) {
        let states = || {
            view.routes
                .iter()
                .filter_map(|route| view.states.of(route).ok())
                .map(|state| (state.pattern(), state))
        };
        let wanted: HashSet<&str> =
            states().filter(|(_, state)| !state.nestjs()).map(|(subject, _)| subject).collect();
        let found = discovery::served(&self.link, &wanted).await;
        if !self.link.connected() {
            return;
        }
        for (subject, state) in states() {
            if found.able.contains(subject) || found.unable.contains(subject) {
                state.announce();
                state.liveness().up();
                state.disable(!found.able.contains(subject));
            } else if state.announced() {
                state.liveness().down(Instant::now());
            } else if state.assumed() {
                state.liveness().decay(Instant::now(), CHANCE);
            } else {
                // Only calls tell of it.
                state.liveness().forget(Instant::now(), CHANCE);
            }
        }
        view.asked.store(true, Ordering::Relaxed);
    }

    /// Looks for streams that capture the subject of a route.
    async fn captures(&self) {
        loop {
            tokio::time::sleep(DISCOVERY_INTERVAL).await;
            if !self.link.connected() {
                continue;
            }
            let states = self.current.served().states().clone();
            let asked = states.all().filter(|(_, state)| !state.may_be_stored());
            let looks = asked.map(|(subject, state)| async move {
                (subject, state, streams::capturer(&self.link, state.pattern()).await)
            });
            for (subject, state, found) in join_all(looks).await {
                match found {
                    Ok(stream) => state.capture(subject, stream),
                    Err(error) => {
                        tracing::debug!(subject, %error, "cannot check whether a stream captures the subject")
                    }
                }
            }
        }
    }

    async fn write(&self) {
        self.serving.cancelled().await;
        loop {
            let (mut findings, connected, view) = (self.around(), self.link.connected(), self.view());
            let up = findings.is_empty();
            let obstacles: Vec<(&Arc<Route>, Finding)> = match connected {
                true => view.routes.iter().filter_map(|route| Some((route, view.obstacle(route)?))).collect(),
                // Without NATS the state of services is unknown.
                false => Vec::new(),
            };
            for service in &view.services {
                let MonitoredService { name, coded, streams } = service;
                let answered = !obstacles.iter().any(|(route, _)| needs(name, *coded, route));
                let up = answered && if *streams { up } else { connected };
                let unheard = connected && answered && view.unheard(service);
                self.board.stand(name, if unheard { Standing::Unknown } else { up.into() });
            }
            let counts = |route: &Route| self.ready_on.iter().any(|service| **service == *route.service);
            // What it was told to wait for has to be known, unless only calls can tell of it: they come when it is ready.
            let waits = |route: &Route| counts(route) && view.unknown(route) && !view.nestjs(route);
            let ready = !obstacles.iter().any(|(route, _)| counts(route))
                && !view.routes.iter().any(|route| waits(route));
            self.board.set(GATEWAY, up && ready);
            if up {
                findings.extend(obstacles.into_iter().map(|(_, finding)| finding));
            }
            self.board.explain(findings);
            tokio::time::sleep(TICK).await;
        }
    }

    /// Why no calls at all can be served.
    fn around(&self) -> Vec<Finding> {
        if !self.link.connected() {
            return vec![(reason::NATS_DISCONNECTED, self.link.absence()).into()];
        }
        self.guard.troubles().into_iter().map(Finding::from).collect()
    }
}

impl View {
    fn new(served: &Served, coded: &[&str]) -> View {
        let service = |name: &Arc<str>| MonitoredService {
            name: name.clone(),
            coded: coded.contains(&&**name),
            streams: is_compiled_in(name),
        };
        let internal = |route: &&Arc<Route>| route.kind.asks() && (!route.internal || !coded.is_empty());
        View {
            number: served.number(),
            states: served.states().clone(),
            services: served.names().iter().map(service).collect(),
            routes: served.catalog().serving_routes().filter(internal).cloned().collect(),
            since: Instant::now(),
            asked: AtomicBool::new(false),
        }
    }

    /// Whether nothing is known of a route: discovery has never found a service, and no call has.
    fn unknown(&self, route: &Route) -> bool {
        self.states.of(route).is_ok_and(|state| !state.announced() && !state.liveness().known())
    }

    /// Whether discovery never finds the route's services.
    fn nestjs(&self, route: &Route) -> bool {
        self.states.of(route).is_ok_and(|state| state.nestjs())
    }

    /// Whether nothing is known of a service.
    fn unheard(&self, service: &MonitoredService) -> bool {
        let mut own =
            self.routes.iter().filter(|route| needs(&service.name, service.coded, route)).peekable();
        own.peek().is_some() && own.all(|route| self.unknown(route))
    }

    /// Why a route's calls cannot be served.
    fn obstacle(&self, route: &Route) -> Option<Finding> {
        let (state, subject) = (self.states.of(route).ok()?, &route.subject);
        if let Some(stream) = state.capturer() {
            let message = format!("the stream {stream} captures the subject {subject}");
            return Some((reason::SUBJECT_CAPTURED, message).into());
        }
        if !state.liveness().alive() && !self.unknown(route) {
            let asked = self.asked.load(Ordering::Relaxed) || state.nestjs();
            let reason = if asked { reason::NO_RESPONDERS } else { reason::STARTING };
            return Some((reason, format!("no responders on {subject}")).into());
        }
        let unable =
            || (reason::SERVICE_UNABLE, format!("every service on {subject} reports that it cannot serve"));
        state.unable().then(|| unable().into())
    }
}

/// A service needs its own routes; the order service also needs the internal routes.
fn needs(service: &str, own: bool, route: &Route) -> bool {
    route.service == service || (own && route.internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gateway;
    use crate::config::Serve;
    use orders::service::api::SERVICE;
    use server::grpc;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn nats() -> local_nats::Server {
        tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap()
    }

    /// The subjects of all routes that clients' calls need.
    fn nestjs() -> Vec<String> {
        orders::served::contract().serving_routes().map(|route| route.subject.to_string()).collect()
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let limit = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < limit, "waited too long until {what}");
            tokio::time::sleep(TICK).await;
        }
    }

    #[tokio::test]
    async fn services_of_nestjs_are_up_although_discovery_does_not_find_them() {
        let nats = nats().await;
        let mut config = Serve::at(nats.url());
        config.threads = 1;
        // Routes for operators belong to no service: no call needs them.
        config.nest_subjects = nestjs();
        let gateway = Gateway::start(config).await.unwrap();
        let up = || {
            grpc::services(&orders::served::contract(), &[SERVICE])
                .iter()
                .all(|name| gateway.up(name) == Some(true))
        };
        until("all is up", up).await;
        let limit = Instant::now() + DISCOVERY_INTERVAL + DISCOVERY_INTERVAL;
        while Instant::now() < limit {
            assert!(up());
            tokio::time::sleep(TICK).await;
        }
    }

    #[tokio::test]
    async fn a_gateway_whose_record_is_gone_is_not_up() {
        let nats = nats().await;
        let mut config = Serve::at(nats.url());
        config.threads = 1;
        // Discovery does not look for these services, and there are none here.
        config.nest_subjects = nestjs();
        let gateway = Gateway::start(config).await.unwrap();
        until("it is up", || gateway.up(GATEWAY) == Some(true)).await;
        let link = Connection::connect(&nats::Options::at(nats.url()), "test").await.unwrap();
        let delete = format!("$JS.API.STREAM.DELETE.{}", order_streams::ORDERS);
        let limit = Instant::now() + PATIENCE;
        link.request(delete, Default::default(), Default::default(), limit).await.unwrap();
        until("it is down", || gateway.up(GATEWAY) == Some(false)).await;
    }
}
