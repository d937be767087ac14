//! Who is at the other end of a connection: what the client's certificate says, whether that still holds, and when the
//! connection is to be left. Must never know what is called.

use std::sync::Arc;
use std::time::Duration;

use contract::{Delivered, Failure, Reason};
use link::failure::RETRY;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::accept::LONGEST;
use crate::auth::{Badge, Standing};
use crate::share::{Hold, Shares, Slot};

/// What calls on a connection have whose client is believed no longer.
const HANGUP: Duration = Duration::from_secs(10);

/// A client, as far as its connection tells.
pub(super) struct Peer {
    badge: Option<Arc<Badge>>,
    standing: Option<Standing>,
    /// Where nobody is known, calls are in the connection's hand.
    hold: Option<Arc<Hold>>,
    grace: Duration,
    /// It has come of age.
    aged: CancellationToken,
    /// Its client is believed no longer.
    gone: CancellationToken,
}

impl Peer {
    /// A client with this certificate, if any. Streams end within the grace after the connection has come of age.
    pub(super) fn new(badge: Option<Arc<Badge>>, standing: Option<Standing>, grace: Duration) -> Peer {
        let hold = Shares::of_connection().take(Slot::CALLS, usize::MAX).map(Arc::new);
        let (aged, gone) = (CancellationToken::new(), CancellationToken::new());
        Peer { badge, standing, hold, grace, aged, gone }
    }

    /// What the client's certificate says.
    pub(super) fn badge(&self) -> Option<&Badge> {
        self.badge.as_deref()
    }

    /// What the connection holds of what all share.
    pub(super) fn hold(&self) -> Option<Arc<Hold>> {
        self.hold.clone()
    }

    /// The connection's shares.
    pub(super) fn shares(&self) -> Option<&Arc<Shares>> {
        self.hold.as_ref().map(|hold| hold.shares())
    }

    /// Whether the client may still call, as far as its certificate lets it in.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.standing.as_ref().map_or(Ok(()), Standing::check).map_err(Failure::from)
    }

    /// Whether a certificate lets the client in.
    pub(super) fn certified(&self) -> bool {
        self.standing.is_some()
    }

    /// Waits until the client is believed no longer.
    pub(super) async fn ended(&self) {
        match &self.standing {
            Some(standing) => standing.ended().await,
            None => std::future::pending().await,
        }
    }

    /// The connection has come of age: its streams are to end.
    pub(super) async fn part(&self) {
        self.aged.cancel();
        // The longest call has had its time, and whoever does not read will not.
        sleep(self.grace + LONGEST).await;
    }

    /// The client is believed no longer: its streams end now.
    pub(super) async fn hang_up(&self) {
        self.gone.cancel();
        sleep(HANGUP).await;
    }

    /// Why a stream has to end at once.
    pub(super) async fn unwelcome(&self) -> Failure {
        self.gone.cancelled().await;
        self.check().err().unwrap_or_else(|| self.moved())
    }

    /// Waits until a stream has to go elsewhere: each at another moment of the grace's second half, so that not all come
    /// back at once.
    pub(super) async fn leaving(&self) {
        self.aged.cancelled().await;
        let part = link::inbox::jitter(500) as f64 / 1_000.0;
        sleep(self.grace.mul_f64(0.5 + part)).await;
    }

    /// What a stream is told that has to go elsewhere.
    pub(super) fn moved(&self) -> Failure {
        Failure::new(Reason::Draining, "the connection has come of age; go on with another")
            .delivered(Delivered::No)
            .retry_after(RETRY)
    }
}
