//! History for a watch that resumes behind the ring: read from the record until the ring goes on. One task and one
//! consumer each, from a bounded pool.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::Shared;
use super::live::event;
use super::ring::Event;
use super::tail::{Shape, Tail};
use crate::order::request::Whose;

/// Events that wait for the watch at the most.
const QUEUE: usize = 32;
/// How long a client may take for one event until its place in the pool goes to another.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a replay says.
pub(super) enum News {
    /// An event that the watch wants.
    Event(Arc<Event>),
    /// Nothing more that it wants up to this sequence.
    Passed(u64),
    /// The ring goes on from here. A replay that ends without it was given up: the client is too slow.
    Done,
}

/// Starts a replay of what is behind the cursor.
pub(super) fn start(
    shared: Arc<Shared>,
    whose: Whose,
    cursor: u64,
    place: OwnedSemaphorePermit,
) -> mpsc::Receiver<News> {
    let (sender, news) = mpsc::channel(QUEUE);
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let mut tail = Tail::new(shared.link.clone(), Shape::Whole, cursor + 1);
        read(&shared, &whose, cursor, &mut tail, &sender).await;
        drop(place);
        tail.close().await;
    });
    news
}

/// Ends when the ring goes on, the watch is gone, or its client takes nothing.
async fn read(shared: &Shared, whose: &Whose, mut cursor: u64, tail: &mut Tail, sender: &mpsc::Sender<News>) {
    let mut entries = Vec::new();
    while !shared.ring.follows(cursor) {
        tokio::select! {
            () = tail.fill(&mut entries) => {}
            () = sender.closed() => return,
        }
        for entry in entries.drain(..) {
            cursor = entry.sequence;
            if let Some(event) = event(&entry).filter(|event| event.is_of(whose))
                && !say(sender, News::Event(Arc::new(event))).await
            {
                return;
            }
        }
        if !say(sender, News::Passed(cursor)).await {
            return;
        }
    }
    say(sender, News::Done).await;
}

/// Whether it was taken.
async fn say(sender: &mpsc::Sender<News>, news: News) -> bool {
    matches!(timeout(PATIENCE, sender.send(news)).await, Ok(Ok(())))
}
