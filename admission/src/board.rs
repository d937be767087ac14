//! The board: which service is up, as health checks read it and watches follow it. Must never know how it is found
//! out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use telemetry::{Page, Source};
use tokio::sync::watch;

/// The service that is up as long as the process answers.
pub const LIVENESS: &str = "liveness";
/// The service that stands for the whole gateway.
pub const GATEWAY: &str = "";

/// Kinds of findings: why calls cannot be served.
pub mod reason {
    /// Services behind have not been asked yet.
    pub const STARTING: &str = "starting";
    /// There is no connection to NATS.
    pub const NATS_DISCONNECTED: &str = "nats_disconnected";
    /// A stream, or its consumer, is missing, or not as correctness needs it.
    pub const STREAM_UNFIT: &str = "stream_unfit";
    /// A stream has no leader or no quorum, or acknowledges nothing.
    pub const STORAGE_UNAVAILABLE: &str = "storage_unavailable";
    /// A stream takes no more.
    pub const STORAGE_FULL: &str = "storage_full";
    /// Nobody answers on a subject.
    pub const NO_RESPONDERS: &str = "no_responders";
    /// Whoever answers on a subject says that it cannot serve.
    pub const SERVICE_UNABLE: &str = "service_unable";
    /// A stream captures a subject that requests go to.
    pub const SUBJECT_CAPTURED: &str = "subject_captured";
    /// A part of the program does not take work.
    pub const NOT_READY: &str = "not_ready";

    pub(super) const ALL: [&str; 9] = [
        STARTING,
        NATS_DISCONNECTED,
        STREAM_UNFIT,
        STORAGE_UNAVAILABLE,
        STORAGE_FULL,
        NO_RESPONDERS,
        SERVICE_UNABLE,
        SUBJECT_CAPTURED,
        NOT_READY,
    ];
}

/// Why calls cannot be served, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// One of `reason`.
    pub reason: &'static str,
    /// What it is about.
    pub message: String,
}

impl From<(&'static str, String)> for Finding {
    fn from((reason, message): (&'static str, String)) -> Finding {
        Finding { reason, message }
    }
}

/// Which services are up. Clones share it.
#[derive(Debug, Clone)]
pub struct Board {
    services: Arc<[(&'static str, watch::Sender<Standing>)]>,
    findings: Arc<Mutex<Vec<Finding>>>,
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
        let nobody = Arc::new(watch::Sender::new(Standing::default()));
        let board = Board { services: board, findings: Arc::default(), nobody };
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

    /// Says why something is down. What is new is logged, and what is over.
    pub fn explain(&self, findings: Vec<Finding>) {
        let mut known = self.explained();
        for finding in findings.iter().filter(|finding| !known.contains(finding)) {
            let Finding { reason, message } = finding;
            if *reason != reason::STARTING {
                tracing::warn!(target: "health", reason, "not serving: {message}");
            }
        }
        if findings.is_empty() && !known.is_empty() {
            tracing::info!(target: "health", "serving");
        }
        *known = findings;
    }

    /// Why something is down.
    pub fn findings(&self) -> Vec<Finding> {
        self.explained().clone()
    }

    fn explained(&self) -> MutexGuard<'_, Vec<Finding>> {
        // Nothing panics while it is held.
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether calls can be served, and why not: figures by these names.
    pub fn readiness(&self, page: &mut Page, ready: &'static str, not_ready: &'static str) {
        let help = "Whether calls can be served now, as health and /healthz say.";
        page.flag(ready, help, &[], self.up(GATEWAY) == Some(true));
        let findings = self.explained();
        for reason in reason::ALL {
            let found = findings.iter().any(|finding| finding.reason == reason);
            page.flag(not_ready, "Why calls cannot be served now.", &[("reason", reason)], found);
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
        self.readiness(page, "gateway_ready", "gateway_not_ready");
    }
}
