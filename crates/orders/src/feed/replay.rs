//! History for a watch that resumes before the ring begins: read from the record until the ring continues. Each replay
//! has one task and one consumer, from a bounded pool.

use std::sync::Arc;
use std::time::Duration;

use nats::{EntryShape, StreamReader};
use order_streams::ORDERS;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::follow::event;
use super::ring::Event;
use super::{Shared, WatchPermit};
use crate::order::request::Whose;

/// The most events that wait for the watch.
const QUEUE: usize = 32;
/// How long a client may keep its replay waiting in total before it loses its permit, and how much each event that it
/// reads adds to that.
const PATIENCE: Duration = Duration::from_secs(10);
const EARNED: Duration = Duration::from_millis(5);

/// A message of a replay.
pub(super) enum ReplayEvent {
    /// An event that the watch wants.
    Event(Arc<Event>),
    /// Nothing more that it wants up to this sequence.
    Passed(u64),
    /// The ring continues from here. A replay that ends without this was given up: the client is too slow.
    Done,
}

/// Starts a replay of what follows the cursor.
pub(super) fn start(
    shared: Arc<Shared>,
    whose: Whose,
    cursor: u64,
    place: WatchPermit,
) -> mpsc::Receiver<ReplayEvent> {
    let (sender, news) = mpsc::channel(QUEUE);
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let mut tail = StreamReader::new(shared.link.clone(), ORDERS, EntryShape::Whole, cursor + 1);
        let client = Client { sender, patience: PATIENCE };
        read(&shared, &whose, cursor, &mut tail, client).await;
        drop(place);
        tail.close().await;
    });
    news
}

/// Ends when the ring continues from here, the watch is gone, or its client is too slow.
async fn read(shared: &Shared, whose: &Whose, mut cursor: u64, tail: &mut StreamReader, mut client: Client) {
    let mut entries = Vec::new();
    while !shared.ring.follows(cursor) {
        tokio::select! {
            () = tail.fill(&mut entries) => {}
            () = client.sender.closed() => return,
        }
        for entry in entries.drain(..) {
            cursor = entry.sequence;
            if let Some(event) = event(&entry, &shared.damage).filter(|event| event.is_of(whose))
                && !client.hears(ReplayEvent::Event(Arc::new(event))).await
            {
                return;
            }
        }
        if !client.hears(ReplayEvent::Passed(cursor)).await {
            return;
        }
    }
    client.hears(ReplayEvent::Done).await;
}

/// The receiver of a replay, and how much longer it may keep the replay waiting.
struct Client {
    sender: mpsc::Sender<ReplayEvent>,
    patience: Duration,
}

impl Client {
    /// Whether the message was accepted.
    async fn hears(&mut self, news: ReplayEvent) -> bool {
        let news = match self.sender.try_send(news) {
            Ok(()) => {
                self.patience = PATIENCE.min(self.patience + EARNED);
                return true;
            }
            Err(mpsc::error::TrySendError::Full(news)) => news,
            Err(mpsc::error::TrySendError::Closed(_)) => return false,
        };
        let begun = Instant::now();
        let taken = matches!(timeout(self.patience, self.sender.send(news)).await, Ok(Ok(())));
        let waited = begun.elapsed().saturating_sub(EARNED);
        self.patience = self.patience.saturating_sub(waited);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_little_now_and_then_loses_its_place_and_a_quick_one_does_not() {
        for (pause, events, keeps) in [(20 * EARNED, 100_000, false), (EARNED / 2, 20_000, true)] {
            let (sender, mut news) = mpsc::channel(QUEUE);
            tokio::spawn(async move {
                while news.recv().await.is_some() {
                    tokio::time::sleep(pause).await;
                }
            });
            let mut client = Client { sender, patience: PATIENCE };
            let (begun, mut heard) = (Instant::now(), 0);
            while heard < events && client.hears(ReplayEvent::Passed(heard)).await {
                heard += 1;
            }
            assert_eq!(heard == events, keeps, "{pause:?}: {heard}");
            assert!(keeps || begun.elapsed() < 2 * PATIENCE, "{:?}", begun.elapsed());
        }
    }
}
