//! What the checks of `gateway doctor` share: the connection, the catalog, and what the server says of our user. Must not
//! decide what is wrong.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, Route};
use nats::inspect::{self, UserInfo};
use nats::{Connection, Monitor, WallClock};
use tokio::time::Instant;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What the checks know.
pub(super) struct Examination {
    pub(super) link: Connection,
    pub(super) catalog: Arc<Catalog>,
    pub(super) orders: bool,
    pub(super) as_operator: bool,
    pub(super) max_request_bytes: usize,
    pub(super) inbox_prefix: String,
    pub(super) monitor: Option<Monitor>,
    /// The end of the whole.
    pub(super) deadline: Instant,
    /// Our user, or why nothing is known of it.
    pub(super) user: Result<UserInfo, String>,
    pub(super) skew: Option<Skew>,
    /// Whether the account has JetStream, or why that is not known.
    pub(super) jetstream: Result<bool, String>,
}

/// How far this machine's clock and the server's are apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Skew {
    pub(super) apart: Duration,
    pub(super) ahead: bool,
    /// The possible error.
    pub(super) error: Duration,
}

impl Examination {
    /// When an answer to a request of now is due.
    pub(super) fn limit(&self) -> Instant {
        self.deadline.min(Instant::now() + ANSWER)
    }

    /// The routes that are used: those of the order system itself are not without it.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.catalog.routes().iter().filter(|route| self.orders || !route.internal)
    }

    /// How much time is left.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Asks the server about our user and its account.
    pub(super) async fn acquaint(&mut self, wall: WallClock) {
        let (asked, before) = (Instant::now(), wall.unix_ms());
        self.user = UserInfo::read(&self.link, self.limit()).await.map_err(|why| why.to_string());
        if let Ok(user) = &self.user {
            // The server read its clock at some time between the two.
            let half = asked.elapsed() / 2;
            let ours = before.saturating_add(u64::try_from(half.as_millis()).unwrap_or(u64::MAX));
            let apart = Duration::from_millis(ours.abs_diff(user.server_unix_ms));
            self.skew = Some(Skew { apart, ahead: ours > user.server_unix_ms, error: half });
        }
        let has = inspect::has_jetstream(&self.link, self.limit()).await;
        self.jetstream = has.map_err(|why| why.to_string());
    }
}
