//! The monitor: what is up, from the connection, from a survey of the services behind, and from what calls observe.
//! It writes the board. Must never be asked for anything.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use contract::route::{self, Route};
use link::Link;
use tokio::time::Instant;

use crate::bridge::Lanes;
use crate::bridge::survey;
use crate::edge::Board;
use crate::edge::board::GATEWAY;
use crate::edge::server;
use crate::feed::Feed;

/// How often the board is written.
const TICK: Duration = Duration::from_millis(100);
/// Between surveys, while everybody is there.
const CALM: Duration = Duration::from_secs(2);
/// Between surveys, while somebody is missing.
const MISSING: Duration = Duration::from_millis(300);

/// Watches over one gateway.
pub(super) struct Monitor {
    link: Link,
    lanes: Arc<Lanes>,
    feed: Arc<Feed>,
    board: Board,
}

impl Monitor {
    pub(super) fn new(link: Link, lanes: Arc<Lanes>, feed: Arc<Feed>, board: Board) -> Monitor {
        Monitor { link, lanes, feed, board }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut next = Instant::now();
        loop {
            if self.link.connected() && Instant::now() >= next {
                self.survey().await;
                let calm = route::ALL.iter().all(|route| self.alive(route));
                next = Instant::now() + if calm { CALM } else { MISSING };
            }
            self.write();
            tokio::time::sleep(TICK).await;
        }
    }

    async fn survey(&self) {
        let wanted: HashSet<&str> = route::ALL.iter().map(|route| route.subject).collect();
        let found = survey::served(&self.link, &wanted).await;
        if !self.link.connected() {
            return;
        }
        for route in route::ALL {
            let Ok(lane) = self.lanes.of(route) else { continue };
            if found.contains(route.subject) {
                lane.pulse().beat();
            } else {
                lane.pulse().miss(Instant::now());
            }
        }
    }

    fn write(&self) {
        let connected = self.link.connected();
        self.board.set(GATEWAY, connected);
        for service in server::services() {
            let own = server::has_code(service);
            let answered =
                route::ALL.iter().filter(|route| needs(service, own, route)).all(|r| self.alive(r));
            self.board.set(service, connected && answered && (!own || self.feed.ready()));
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
