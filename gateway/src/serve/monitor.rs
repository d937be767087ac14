//! The monitor: what is up, from the connection, from the streams' guard, from a survey of the services behind, and from
//! what calls observe. It writes the board. Must never be asked for anything.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contract::route::{self, Route};
use futures_util::future::join_all;
use link::{Guard, Link, streams};
use tokio::time::Instant;

use crate::bridge::{Lanes, survey};
use crate::edge::Board;
use crate::edge::board::{Finding, GATEWAY, reason};
use crate::edge::server;
use crate::waits::SURVEYS;

/// How often the board is written.
const TICK: Duration = Duration::from_millis(100);
/// Between looks, while something is missing.
const MISSING: Duration = Duration::from_millis(300);
/// A service that only calls find missing gets another chance after this.
const CHANCE: Duration = Duration::from_secs(10);

/// Watches over one gateway.
pub(super) struct Monitor {
    link: Link,
    guard: Guard,
    lanes: Arc<Lanes>,
    board: Board,
    /// The services behind were asked once.
    asked: AtomicBool,
}

impl Monitor {
    pub(super) fn new(link: Link, lanes: Arc<Lanes>, board: Board, guard: Guard) -> Monitor {
        Monitor { link, guard, lanes, board, asked: AtomicBool::new(false) }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        tokio::join!(self.survey(), self.captures(), self.write());
    }

    /// Looks for the services behind.
    async fn survey(&self) {
        loop {
            if self.link.connected() {
                self.ask().await;
            }
            let calm = route::VITAL.iter().all(|route| self.obstacle(route).is_none());
            tokio::time::sleep(if calm { SURVEYS } else { MISSING }).await;
        }
    }

    async fn ask(&self) {
        let lanes =
            || route::VITAL.iter().filter_map(|route| Some((route.subject, self.lanes.of(route).ok()?)));
        let wanted: HashSet<&str> =
            lanes().filter(|(_, lane)| !lane.nest()).map(|(subject, _)| subject).collect();
        let found = survey::served(&self.link, &wanted).await;
        if !self.link.connected() {
            return;
        }
        for (subject, lane) in lanes() {
            if lane.nest() {
                lane.pulse().forgive(Instant::now(), CHANCE);
            } else if found.able.contains(subject) || found.unable.contains(subject) {
                lane.pulse().beat();
                lane.disable(!found.able.contains(subject));
            } else {
                lane.pulse().miss(Instant::now());
            }
        }
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Looks for streams that have begun to capture a subject that requests go to.
    async fn captures(&self) {
        loop {
            tokio::time::sleep(SURVEYS).await;
            if !self.link.connected() {
                continue;
            }
            let looks = self.lanes.all().map(|(subject, lane)| async move {
                (subject, lane, streams::capturer(&self.link, subject).await)
            });
            for (subject, lane, found) in join_all(looks).await {
                match found {
                    Ok(stream) => lane.capture(subject, stream),
                    Err(error) => {
                        tracing::debug!(subject, %error, "whether a stream captures it is not known")
                    }
                }
            }
        }
    }

    async fn write(&self) {
        loop {
            let mut findings = self.around();
            let up = findings.is_empty();
            let obstacles: Vec<(&Route, Finding)> = match up {
                true => {
                    route::VITAL.iter().filter_map(|route| Some((*route, self.obstacle(route)?))).collect()
                }
                // What is behind NATS and the streams is not known then.
                false => Vec::new(),
            };
            for service in server::services() {
                let own = server::has_code(service);
                let answered = !obstacles.iter().any(|(route, _)| needs(service, own, route));
                self.board.set(service, up && answered);
            }
            self.board.set(GATEWAY, up && obstacles.is_empty());
            findings.extend(obstacles.into_iter().map(|(_, finding)| finding));
            self.board.explain(findings);
            tokio::time::sleep(TICK).await;
        }
    }

    /// Why no call at all can be served.
    fn around(&self) -> Vec<Finding> {
        if !self.link.connected() {
            return vec![(reason::NATS_DISCONNECTED, self.link.absence()).into()];
        }
        self.guard.troubles(&[streams::ORDERS, streams::INVENTORY]).into_iter().map(Finding::from).collect()
    }

    /// Why a route's calls cannot be served.
    fn obstacle(&self, route: &Route) -> Option<Finding> {
        let (lane, subject) = (self.lanes.of(route).ok()?, route.subject);
        if let Some(stream) = lane.capturer() {
            let message = format!("the stream {stream} captures the subject {subject}");
            return Some((reason::SUBJECT_CAPTURED, message).into());
        }
        if !lane.pulse().alive() {
            let asked = self.asked.load(Ordering::Relaxed) || lane.nest();
            let reason = if asked { reason::NO_RESPONDERS } else { reason::STARTING };
            return Some((reason, format!("nobody answers on {subject}")).into());
        }
        let unable =
            || (reason::SERVICE_UNABLE, format!("whoever answers on {subject} says that it cannot serve"));
        lane.unable().then(|| unable().into())
    }
}

/// A service needs its own routes; the one with code also those that the gateway keeps to itself.
fn needs(service: &str, own: bool, route: &Route) -> bool {
    route.service == service || (own && route.internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gateway;
    use crate::config::Serve;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn nats() -> local_nats::Server {
        tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap()
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let limit = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < limit, "waited too long until {what}");
            tokio::time::sleep(TICK).await;
        }
    }

    #[tokio::test]
    async fn services_of_nestjs_are_up_although_no_survey_finds_them() {
        let nats = nats().await;
        let mut config = Serve::at(nats.url());
        config.threads = 1;
        // An operator's routes are nobody's: no call needs them.
        config.nest_subjects = route::VITAL.iter().map(|route| route.subject.to_owned()).collect();
        let gateway = Gateway::start(config).await.unwrap();
        let up = || server::services().iter().all(|name| gateway.up(name) == Some(true));
        until("all is up", up).await;
        let limit = Instant::now() + SURVEYS + SURVEYS;
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
        // No survey looks for their services, and there are none here.
        config.nest_subjects = route::VITAL.iter().map(|route| route.subject.to_owned()).collect();
        let gateway = Gateway::start(config).await.unwrap();
        until("it is up", || gateway.up(GATEWAY) == Some(true)).await;
        let link = Link::connect(&link::Options::at(nats.url()), "test").await.unwrap();
        let delete = format!("$JS.API.STREAM.DELETE.{}", link::streams::ORDERS);
        let limit = Instant::now() + PATIENCE;
        link.request(delete, Default::default(), Default::default(), limit).await.unwrap();
        until("it is down", || gateway.up(GATEWAY) == Some(false)).await;
    }
}
