//! The monitor: what is up, from the connection, from reads of the record, from a survey of the services behind, and
//! from what calls observe. It writes the board. Must never be asked for anything.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use contract::route::{self, Route};
use link::streams::ORDERS;
use link::{Link, Store};
use tokio::time::Instant;

use crate::bridge::pulse::Pulse;
use crate::bridge::{Lanes, survey};
use crate::edge::Board;
use crate::edge::board::GATEWAY;
use crate::edge::server;

/// How often the board is written.
const TICK: Duration = Duration::from_millis(100);
/// Between looks, while all is there.
const CALM: Duration = Duration::from_secs(2);
/// Between looks, while something is missing.
const MISSING: Duration = Duration::from_millis(300);
/// How long a read of the record may take.
const READ: Duration = Duration::from_secs(2);
/// A service that only calls find missing gets another chance after this.
const CHANCE: Duration = Duration::from_secs(10);

/// Watches over one gateway.
pub(super) struct Monitor {
    link: Link,
    store: Store,
    /// Whether the record can be read. It was found at the start.
    record: Pulse,
    lanes: Arc<Lanes>,
    board: Board,
}

impl Monitor {
    pub(super) fn new(link: Link, lanes: Arc<Lanes>, board: Board) -> Monitor {
        let record = Pulse::default();
        record.beat();
        Monitor { store: Store::new(link.clone(), ORDERS), link, record, lanes, board }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        tokio::join!(self.survey(), self.read(), self.write());
    }

    /// Looks for the services behind.
    async fn survey(&self) {
        loop {
            if self.link.connected() {
                self.ask().await;
            }
            let calm = route::VITAL.iter().all(|route| self.alive(route));
            tokio::time::sleep(if calm { CALM } else { MISSING }).await;
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

    /// Looks for the record.
    async fn read(&self) {
        loop {
            if self.link.connected() {
                match self.store.range(Instant::now() + READ).await {
                    Ok(_) => self.record.beat(),
                    Err(error) => {
                        tracing::debug!(%error, "the record cannot be read");
                        self.record.miss(Instant::now());
                    }
                }
            }
            tokio::time::sleep(if self.record.alive() { CALM } else { MISSING }).await;
        }
    }

    async fn write(&self) {
        loop {
            let up = self.link.connected() && self.record.alive();
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
        self.lanes.of(route).is_ok_and(|lane| lane.pulse().alive())
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
        let limit = Instant::now() + CALM + CALM;
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
        let delete = format!("$JS.API.STREAM.DELETE.{ORDERS}");
        let limit = Instant::now() + PATIENCE;
        link.request(delete, Default::default(), Default::default(), limit).await.unwrap();
        until("it is down", || gateway.up(GATEWAY) == Some(false)).await;
    }
}
