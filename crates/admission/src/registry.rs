//! The health registry: the state of each service, read by health checks and followed by watches. Must not depend on
//! how the state is found out.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};
use telemetry::{Exposition, Source};
use tokio::sync::watch;

/// The service that is up as long as the process responds.
pub(crate) const LIVENESS: &str = "liveness";
/// The service that stands for the whole gateway.
pub const GATEWAY: &str = "";

/// Reasons why calls cannot be served.
pub mod reason {
    /// Backend services have not been probed yet.
    pub const STARTING: &str = "starting";
    /// There is no connection to NATS.
    pub const NATS_DISCONNECTED: &str = "nats_disconnected";
    /// A stream or its consumer is missing, or lacks the configuration that correctness needs.
    pub const STREAM_UNFIT: &str = "stream_unfit";
    /// A stream has no leader or no quorum, or acknowledges nothing.
    pub const STORAGE_UNAVAILABLE: &str = "storage_unavailable";
    /// A stream's storage is full.
    pub const STORAGE_FULL: &str = "storage_full";
    /// A subject has no responders.
    pub const NO_RESPONDERS: &str = "no_responders";
    /// The service on a subject reports that it cannot serve.
    pub const SERVICE_UNABLE: &str = "service_unable";
    /// A stream captures a request subject.
    pub const SUBJECT_CAPTURED: &str = "subject_captured";
    /// A part of the program does not accept work.
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

/// Why calls cannot be served, as a text for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// One of `reason`.
    pub reason: &'static str,
    /// The text.
    pub message: String,
}

impl From<(&'static str, String)> for Finding {
    fn from((reason, message): (&'static str, String)) -> Finding {
        Finding { reason, message }
    }
}

/// Each service, and its state.
type Services = Vec<(Arc<str>, watch::Sender<HealthState>)>;

/// The health registry. Clones share it.
#[derive(Debug, Clone)]
pub struct HealthRegistry {
    /// As they were declared, and last the gateway and the liveness service.
    services: Arc<RwLock<Services>>,
    findings: Arc<Mutex<Vec<Finding>>>,
    /// For watches of an unknown service, which become those of a service that is added.
    nobody: Arc<watch::Sender<HealthState>>,
}

/// What is known of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// It is up.
    Up,
    /// It is down.
    #[default]
    Down,
    /// There is no evidence: nothing tells of it, and nobody has called it.
    Unknown,
}

impl From<bool> for Standing {
    fn from(up: bool) -> Standing {
        if up { Standing::Up } else { Standing::Down }
    }
}

impl Standing {
    /// Its name in grpc.health.v1.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Up => "SERVING",
            Standing::Down => "NOT_SERVING",
            Standing::Unknown => "UNKNOWN",
        }
    }
}

/// The state of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HealthState {
    pub(crate) standing: Standing,
    /// The process is shutting down: the state no longer changes.
    pub(crate) over: bool,
}

impl HealthRegistry {
    /// A registry with these services, the gateway and the liveness service. All but the last are down.
    pub fn new<S: AsRef<str>>(services: &[S]) -> HealthRegistry {
        let nobody = Arc::new(watch::Sender::new(HealthState::default()));
        let board = HealthRegistry { services: Arc::default(), findings: Arc::default(), nobody };
        board.replace(services);
        board.set(LIVENESS, true);
        board
    }

    /// Has these services from now on, beside the gateway and the liveness service: those that are new are down, and those
    /// that are gone are unknown. Watches follow. Ignored after `end`.
    pub fn replace<S: AsRef<str>>(&self, services: &[S]) {
        let mut known = self.services.write();
        if self.over() {
            return;
        }
        let mut before = std::mem::take(&mut *known);
        for name in services.iter().map(AsRef::as_ref).chain([GATEWAY, LIVENESS]) {
            let kept = before.iter().position(|(known, _)| **known == *name).map(|at| before.swap_remove(at));
            let down = || (Arc::from(name), watch::Sender::new(HealthState::default()));
            known.push(kept.unwrap_or_else(down));
        }
        drop(known);
        // Wakes the watches of unknown services; those of services that are gone wake because the sender is dropped.
        self.nobody.send_modify(|_| {});
    }

    /// Sets whether a service is up. Ignored after `end`.
    pub fn set(&self, service: &str, up: bool) {
        self.stand(service, up.into());
    }

    /// Sets what is known of a service. Ignored after `end`.
    pub fn stand(&self, service: &str, standing: Standing) {
        self.with(service, |sender| {
            sender.send_if_modified(|state| {
                let changes = state.standing != standing && !state.over;
                state.standing = if changes { standing } else { state.standing };
                changes
            })
        });
    }

    /// Sets the findings. New findings are logged, and so is the end of all.
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

    /// The current findings.
    pub fn findings(&self) -> Vec<Finding> {
        self.explained().clone()
    }

    fn explained(&self) -> MutexGuard<'_, Vec<Finding>> {
        self.findings.lock()
    }

    /// Writes metrics under these names: whether calls can be served, and the reasons why not.
    pub fn readiness(&self, page: &mut Exposition, ready: &'static str, not_ready: &'static str) {
        let help = "Whether calls can be served, as reported by health and /healthz.";
        page.flag(ready, help, &[], self.up(GATEWAY) == Some(true));
        let findings = self.explained();
        for reason in reason::ALL {
            let found = findings.iter().any(|finding| finding.reason == reason);
            page.flag(not_ready, "Whether this reason prevents serving calls.", &[("reason", reason)], found);
        }
    }

    /// Whether a service is known to be up; `None` if there is no such service.
    pub fn up(&self, service: &str) -> Option<bool> {
        self.standing(service).map(|standing| standing == Standing::Up)
    }

    /// What is known of a service; `None` if there is no such service.
    pub fn standing(&self, service: &str) -> Option<Standing> {
        self.with(service, |sender| sender.borrow().standing)
    }

    /// Every service, and what is known of it.
    pub fn all(&self) -> Vec<(Arc<str>, Standing)> {
        self.services.read().iter().map(|(name, sender)| (name.clone(), sender.borrow().standing)).collect()
    }

    /// Follows a service. The flag is `false` if the service is unknown: every change then may have made it known. A
    /// service that becomes unknown closes the channel.
    pub(crate) fn follow(&self, service: &str) -> (bool, watch::Receiver<HealthState>) {
        // Before the look-up, so that no service is added in between without a change.
        let nobody = self.nobody.subscribe();
        match self.with(service, watch::Sender::subscribe) {
            Some(standing) => (true, standing),
            None => (false, nobody),
        }
    }

    /// Begins the shutdown: all services but liveness are down, and watches end.
    pub fn end(&self) {
        // Held until the end, so that no service is added meanwhile.
        let services = self.services.write();
        for (name, sender) in services.iter() {
            let alive = **name == *LIVENESS;
            sender.send_modify(|state| {
                let standing = if alive { state.standing } else { Standing::Down };
                *state = HealthState { standing, over: true };
            });
        }
        self.nobody.send_modify(|standing| standing.over = true);
    }

    /// Whether the process is shutting down.
    pub fn over(&self) -> bool {
        self.nobody.borrow().over
    }

    fn with<T>(&self, service: &str, ask: impl FnOnce(&watch::Sender<HealthState>) -> T) -> Option<T> {
        let services = self.services.read();
        services.iter().find(|(name, _)| **name == *service).map(|(_, sender)| ask(sender))
    }
}

impl Source for HealthRegistry {
    fn collect(&self, page: &mut Exposition) {
        for (name, standing) in self.all().iter().filter(|(_, standing)| *standing != Standing::Unknown) {
            page.flag(
                "gateway_service_up",
                "Whether grpc.health.v1 reports a service as SERVING. Not there while it is UNKNOWN.",
                &[("service", &**name)],
                *standing == Standing::Up,
            );
        }
        self.readiness(page, "gateway_ready", "gateway_not_ready");
    }
}
