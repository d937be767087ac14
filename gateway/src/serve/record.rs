//! Whether ORDERS is still the stream that this gateway began with. One that was removed and made anew, or that lost
//! its end, makes everything untrue that is known of it. Must never mend that: the next start does.

use std::sync::Arc;
use std::time::Duration;

use link::streams::ORDERS;
use link::{Link, Store};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::feed::Feed;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(2);
/// A leader that is a moment behind, or none any more, may say that the record ends earlier than it does; for as long as
/// this, even elections do not last.
const PATIENCE: Duration = Duration::from_secs(30);

/// The record as it was at the start.
pub(super) struct Record {
    store: Store,
    identity: String,
}

impl Record {
    pub(super) fn new(link: Link, identity: String) -> Record {
        Record { store: Store::new(link, ORDERS), identity }
    }

    /// Looks for ever, or until the record is another; then `lost` is cancelled.
    pub(super) async fn watch(self, feed: Arc<Feed>, lost: CancellationToken) {
        let mut since = None;
        loop {
            sleep(PAUSE).await;
            let known = feed.known();
            // What cannot be read, the monitor says.
            let Ok((identity, range)) = self.store.identity(Instant::now() + LOOK).await else { continue };
            let other = identity != self.identity;
            let short = (range.last < known).then(|| *since.get_or_insert_with(Instant::now));
            if other || short.is_some_and(|since| since.elapsed() > PATIENCE) {
                let last = range.last;
                tracing::error!(
                    known,
                    last,
                    other,
                    "ORDERS was made anew, or lost its end; this gateway ends"
                );
                lost.cancel();
                return;
            }
            if short.is_none() {
                since = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use link::Streams;
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
        // Nothing is wrong with the first.
        assert!(timeout(2 * PAUSE, gateway.lost()).await.is_err());
        let link = Link::connect(&link::Options::at(nats.url()), "test").await.unwrap();
        let delete = format!("$JS.API.STREAM.DELETE.{ORDERS}");
        link.request(delete, Default::default(), Default::default(), Instant::now() + LOOK).await.unwrap();
        Streams::open(&link, 1, true).await.unwrap();
        timeout(PATIENCE, gateway.lost()).await.expect("it ends");
    }
}
