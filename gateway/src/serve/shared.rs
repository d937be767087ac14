//! What the threads of a gateway share. Must not start anything.

use std::sync::Arc;

use admission::MemoryBudget;
use nats::Guard;
use telemetry::{Registry, Tracer};
use tokio_util::sync::CancellationToken;

use super::descriptors::DescriptorBudget;
use super::reloads::Reloads;
use super::work::InHand;
use crate::config::Serve;
use orders::service::Places;
use orders::service::api::SERVICE;
use server::security::TlsAndAuth;
use server::supervisor::Supervisor;
use server::{Current, HealthRegistry};

/// What the threads share.
pub(super) struct Shared {
    pub(super) config: Serve,
    /// The services without which the gateway itself is not ready.
    pub(super) ready_on: Vec<Arc<str>>,
    /// What is served.
    pub(super) current: Current,
    /// When it was read again, and with which result.
    pub(super) reloads: Reloads,
    /// Checks that the streams match the expected configuration.
    pub(super) guard: Guard,
    pub(super) places: Arc<Places>,
    /// Connection limits.
    pub(super) room: DescriptorBudget,
    /// The memory budget of requests.
    pub(super) budget: MemoryBudget,
    pub(super) secure: TlsAndAuth,
    pub(super) board: HealthRegistry,
    /// The metrics of all threads.
    pub(super) registry: Arc<Registry>,
    pub(super) tracer: Tracer,
    /// The work in flight of each thread.
    pub(super) work: InHand,
    /// Supervises the threads and the background tasks.
    pub(super) supervisor: Supervisor,
    /// Cancelled when every thread serves: before that, no service is up.
    pub(super) serving: CancellationToken,
    /// Cancelled to drain: calls in flight finish, new ones are refused.
    pub(super) drain: CancellationToken,
    /// Cancelled to stop all threads.
    pub(super) abort: CancellationToken,
    /// Cancelled when ORDERS is no longer the stream that this gateway started with.
    pub(super) lost: CancellationToken,
}

/// The services with code.
pub(super) fn coded(config: &Serve) -> &'static [&'static str] {
    if config.orders() { &[SERVICE] } else { &[] }
}

impl Shared {
    /// What a thread needs to start.
    pub(super) fn spawning(&self) -> (&Supervisor, CancellationToken) {
        (&self.supervisor, self.abort.clone())
    }
}
