//! History for a watch that resumes before the ring begins: read from the record until the ring continues. Each replay
//! has one task and one consumer, from a bounded pool.

use std::sync::Arc;

use bridge::patience::{PatientSender, queue};
use nats::{EntryShape, StreamReader};
use order_streams::ORDERS;
use tokio::sync::mpsc;

use super::follow::event;
use super::ring::Event;
use super::{Shared, WatchPermit};
use crate::order::request::Whose;

/// The most events that wait for the watch.
const QUEUE: usize = 32;

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
    let (client, news) = queue(QUEUE);
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let mut tail = StreamReader::new(shared.link.clone(), ORDERS, EntryShape::Whole, cursor + 1);
        read(&shared, &whose, cursor, &mut tail, client).await;
        drop(place);
        tail.close().await;
    });
    news
}

/// Ends when the ring continues from here, the watch is gone, or its client is too slow.
async fn read(
    shared: &Shared,
    whose: &Whose,
    mut cursor: u64,
    tail: &mut StreamReader,
    mut client: PatientSender<ReplayEvent>,
) {
    let mut entries = Vec::new();
    while !shared.ring.follows(cursor) {
        tokio::select! {
            () = tail.fill(&mut entries) => {}
            () = client.closed() => return,
        }
        for entry in entries.drain(..) {
            cursor = entry.sequence;
            if let Some(event) = event(&entry, &shared.damage).filter(|event| event.is_of(whose))
                && !client.send(ReplayEvent::Event(Arc::new(event))).await
            {
                return;
            }
        }
        if !client.send(ReplayEvent::Passed(cursor)).await {
            return;
        }
    }
    client.send(ReplayEvent::Done).await;
}
