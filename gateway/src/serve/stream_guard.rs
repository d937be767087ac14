//! Checks that ORDERS is still the stream that this gateway started with. If it was recreated or truncated, the index
//! of orders is invalid. Must not repair that: the next start does.

use std::sync::Arc;
use std::time::Duration;

use nats::{Connection, Store};
use order_streams::ORDERS;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use orders::feed::Feed;

/// Interval between two checks.
const PAUSE: Duration = Duration::from_secs(2);
/// Timeout of a check.
const LOOK: Duration = Duration::from_secs(2);
/// A leader that lags, or has just lost its leadership, may report an earlier last sequence; this lasts longer than any
/// election.
const PATIENCE: Duration = Duration::from_secs(30);

/// ORDERS as it was at the start.
pub(super) struct StreamGuard {
    store: Store,
    identity: String,
}

impl StreamGuard {
    pub(super) fn new(link: Connection, identity: String) -> StreamGuard {
        StreamGuard { store: Store::new(link, ORDERS), identity }
    }

    /// Checks until it is dropped. Cancels `lost` when ORDERS is found to be another stream.
    pub(super) async fn watch(self, feed: Arc<Feed>, lost: CancellationToken) {
        let mut since = None;
        loop {
            sleep(PAUSE).await;
            let known = feed.known();
            // The monitor reports a stream that cannot be read.
            let Ok((identity, range)) = self.store.identity(Instant::now() + LOOK).await else { continue };
            let other = identity != self.identity;
            let short = (range.last < known).then(|| *since.get_or_insert_with(Instant::now));
            if other || short.is_some_and(|since| since.elapsed() > PATIENCE) {
                let last = range.last;
                tracing::error!(known, last, other, "ORDERS was recreated or truncated; the gateway exits");
                lost.cancel();
                return std::future::pending().await;
            }
            if short.is_none() {
                since = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::Gateway;
    use crate::config::Serve;

    #[tokio::test]
    async fn a_gateway_whose_record_was_made_anew_ends() {
        let nats = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
        let mut config = Serve::at(nats.url());
        config.threads = 1;
        let gateway = Gateway::start(config).await.unwrap();
        // The original stream passes.
        assert!(timeout(2 * PAUSE, gateway.lost()).await.is_err());
        let link = Connection::connect(&nats::Options::at(nats.url()), "test").await.unwrap();
        let delete = format!("$JS.API.STREAM.DELETE.{ORDERS}");
        link.request(delete, Default::default(), Default::default(), Instant::now() + LOOK).await.unwrap();
        order_streams::open(&link, 1, true).await.unwrap();
        timeout(PATIENCE, gateway.lost()).await.expect("it ends");
    }
}
