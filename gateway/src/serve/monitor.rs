//! The monitor: what is up, from the connection, from the streams' guard, from a survey of the services behind, and from
//! what calls observe. It writes the board. Must never be asked for anything.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use contract::route::{self, Route};
use futures_util::future::join_all;
use link::{Guard, Link, streams};
use tokio::time::Instant;

use crate::bridge::{Lanes, survey};
use crate::edge::Board;
use crate::edge::board::GATEWAY;
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
}

impl Monitor {
    pub(super) fn new(link: Link, lanes: Arc<Lanes>, board: Board, guard: Guard) -> Monitor {
        Monitor { link, guard, lanes, board }
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
            let calm = route::VITAL.iter().all(|route| self.alive(route));
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
            } else if found.contains(subject) {
                lane.pulse().beat();
            } else {
                lane.pulse().miss(Instant::now());
            }
        }
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
            let up = self.link.connected() && self.guard.up();
            self.board.set(GATEWAY, up);
            for service in server::services() {
                let own = server::has_code(service);
                let answered =
                    route::VITAL.iter().filter(|route| needs(service, own, route)).all(|r| self.alive(r));
                self.board.set(service, up && answered);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    fn alive(&self, route: &Route) -> bool {
        self.lanes.of(route).is_ok_and(|lane| lane.pulse().alive() && lane.capturer().is_none())
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
        let gateway = Gateway::start(config).await.unwrap();
        until("it is up", || gateway.up(GATEWAY) == Some(true)).await;
        let link = Link::connect(&link::Options::at(nats.url()), "test").await.unwrap();
        let delete = format!("$JS.API.STREAM.DELETE.{}", link::streams::ORDERS);
        let limit = Instant::now() + PATIENCE;
        link.request(delete, Default::default(), Default::default(), limit).await.unwrap();
        until("it is down", || gateway.up(GATEWAY) == Some(false)).await;
    }
}
