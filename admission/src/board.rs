//! The board: which service is up, as health checks read it and watches follow it. Must never know how it is found
//! out.

use std::sync::Arc;

use telemetry::{Page, Source};
use tokio::sync::watch;

/// The service that is up as long as the process answers.
pub const LIVENESS: &str = "liveness";
/// The service that stands for the whole gateway.
pub const GATEWAY: &str = "";

/// Which services are up. Clones share it.
#[derive(Debug, Clone)]
pub struct Board {
    services: Arc<[(&'static str, watch::Sender<Standing>)]>,
    /// For those who watch a service that is not there.
    nobody: Arc<watch::Sender<Standing>>,
}

/// How a service stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// It is up.
    pub up: bool,
    /// The process ends: nothing will change any more.
    pub over: bool,
}

impl Board {
    /// A board with these services, the gateway and the liveness. All but the last are down.
    pub fn new(services: &[&'static str]) -> Board {
        let down = |name| (name, watch::Sender::new(Standing::default()));
        let board: Arc<[_]> = services.iter().copied().chain([GATEWAY, LIVENESS]).map(down).collect();
        let board = Board { services: board, nobody: Arc::new(watch::Sender::new(Standing::default())) };
        board.set(LIVENESS, true);
        board
    }

    /// Says whether a service is up. After the end nothing changes.
    pub fn set(&self, service: &str, up: bool) {
        if let Some(sender) = self.sender(service) {
            sender.send_if_modified(|standing| {
                let changes = standing.up != up && !standing.over;
                standing.up = if changes { up } else { standing.up };
                changes
            });
        }
    }

    /// Whether a service is up; nothing if there is no such service.
    pub fn up(&self, service: &str) -> Option<bool> {
        Some(self.sender(service)?.borrow().up)
    }

    /// Every service, and whether it is up.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.services.iter().map(|(name, sender)| (*name, sender.borrow().up))
    }

    /// Follows a service. `false` goes with one that is not there.
    pub fn follow(&self, service: &str) -> (bool, watch::Receiver<Standing>) {
        match self.sender(service) {
            Some(sender) => (true, sender.subscribe()),
            None => (false, self.nobody.subscribe()),
        }
    }

    /// The process ends: all is down but the liveness, and watches end.
    pub fn end(&self) {
        for (name, sender) in self.services.iter() {
            sender.send_modify(|standing| {
                *standing = Standing { up: standing.up && *name == LIVENESS, over: true };
            });
        }
        self.nobody.send_modify(|standing| standing.over = true);
    }

    /// Whether the process ends.
    pub fn over(&self) -> bool {
        self.nobody.borrow().over
    }

    fn sender(&self, service: &str) -> Option<&watch::Sender<Standing>> {
        self.services.iter().find(|(name, _)| *name == service).map(|(_, sender)| sender)
    }
}

impl Source for Board {
    fn tell(&self, page: &mut Page) {
        for (name, up) in self.all() {
            page.flag(
                "gateway_service_up",
                "What grpc.health.v1 says of a service.",
                &[("service", name)],
                up,
            );
        }
    }
}
