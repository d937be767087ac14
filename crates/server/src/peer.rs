//! The client of a connection: the identity in its certificate, whether that is still trusted, and when the connection
//! has to close. Must not depend on what is called.

use std::sync::Arc;
use std::time::Duration;

use nats::failure::RETRY;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use wire::{Delivered, Failure, Reason};

use crate::auth::{PeerIdentity, Standing};
use bridge::call::LONGEST;
use bridge::share::{Share, ShareKind, Shares};

/// Time for calls on a connection whose client is no longer trusted.
const HANGUP: Duration = Duration::from_secs(10);

/// The client of a connection.
pub(super) struct Peer {
    peer_identity: Option<Arc<PeerIdentity>>,
    standing: Option<Standing>,
    /// If callers are unknown, calls count against the connection.
    hold: Option<Arc<Share>>,
    grace: Duration,
    /// Cancelled when the connection reaches its maximum age.
    aged: CancellationToken,
    /// Cancelled when its client is no longer trusted.
    gone: CancellationToken,
}

impl Peer {
    /// A client with this certificate, if any. Streams end within the grace period after the connection has reached its
    /// maximum age.
    pub(super) fn new(
        peer_identity: Option<Arc<PeerIdentity>>,
        standing: Option<Standing>,
        grace: Duration,
    ) -> Peer {
        let hold = Shares::of_connection().take(ShareKind::CALLS, usize::MAX).map(Arc::new);
        let (aged, gone) = (CancellationToken::new(), CancellationToken::new());
        Peer { peer_identity, standing, hold, grace, aged, gone }
    }

    /// The identity in the client certificate.
    pub(super) fn peer_identity(&self) -> Option<&PeerIdentity> {
        self.peer_identity.as_deref()
    }

    /// The permit of the connection.
    pub(super) fn hold(&self) -> Option<Arc<Share>> {
        self.hold.clone()
    }

    /// The connection's shares.
    pub(super) fn shares(&self) -> Option<&Arc<Shares>> {
        self.hold.as_ref().map(|hold| hold.shares())
    }

    /// Whether the client certificate is still trusted.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.standing.as_ref().map_or(Ok(()), Standing::check).map_err(Failure::from)
    }

    /// Whether the client has a certificate.
    pub(super) fn certified(&self) -> bool {
        self.standing.is_some()
    }

    /// Waits until the client is no longer trusted.
    pub(super) async fn ended(&self) {
        match &self.standing {
            Some(standing) => standing.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Ends the streams of a connection that has reached its maximum age.
    pub(super) async fn part(&self) {
        self.aged.cancel();
        // By then the longest call has ended, and clients that have not read their responses will not.
        sleep(self.grace + LONGEST).await;
    }

    /// Ends the streams of a client that is no longer trusted immediately.
    pub(super) async fn hang_up(&self) {
        self.gone.cancel();
        sleep(HANGUP).await;
    }

    /// Waits until a stream has to end immediately, and returns why.
    pub(super) async fn unwelcome(&self) -> Failure {
        self.gone.cancelled().await;
        self.check().err().unwrap_or_else(|| self.moved())
    }

    /// Waits until a stream has to move to another connection, at a random moment in the second half of the grace
    /// period, so that not all clients reconnect at once.
    pub(super) async fn leaving(&self) {
        self.aged.cancelled().await;
        let part = nats::backoff::jitter(500) as f64 / 1_000.0;
        sleep(self.grace.mul_f64(0.5 + part)).await;
    }

    /// The failure that tells a stream to move to another connection.
    pub(super) fn moved(&self) -> Failure {
        Failure::new(Reason::Draining, "the connection has reached its maximum age; continue on another one")
            .delivered(Delivered::No)
            .retry_after(RETRY)
    }
}
