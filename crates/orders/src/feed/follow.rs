//! The two tasks of a feed: one fills the ring from the end of the record, the other fills the index from the history
//! and then from the ring.

use std::sync::Arc;

use nats::{EntryShape, StreamEntry, StreamReader};
use order_streams::ORDERS;
use order_streams::entry::{Entry, Mark};

use super::index::MissingEntry;
use super::ring::Event;
use super::shared::Shared;
use crate::order::damage::Damage;

/// Entries of the ring that the index takes at once.
const BATCH: u64 = 1_024;

/// Fills the ring for ever.
pub(super) async fn fill_ring(shared: Arc<Shared>, from: u64) {
    let mut tail = StreamReader::new(shared.link.clone(), ORDERS, EntryShape::Whole, from);
    let mut entries = Vec::new();
    loop {
        tail.fill(&mut entries).await;
        shared.ring.push(entries.drain(..).map(|entry| event(&entry, &shared.damage)));
    }
}

/// Fills the index for ever: from the history until the ring continues from there, then from the ring. If the ring has
/// moved past it, from the history again.
pub(super) async fn fill_index(shared: Arc<Shared>, mut applied: u64) {
    let mut head = shared.ring.head();
    loop {
        head.borrow_and_update();
        match shared.ring.behind(applied, BATCH) {
            None => applied = read_history(&shared, applied).await,
            Some(events) if events.is_empty() => {
                // An error means that the feed is gone, and this task with it.
                let _ = head.changed().await;
            }
            Some(events) => {
                let marks = events.iter().map(|event| event.as_ref().map(|event| &event.mark));
                applied = shared.apply((applied + 1..).zip(marks));
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn read_history(shared: &Shared, mut applied: u64) -> u64 {
    let mut tail = StreamReader::new(shared.link.clone(), ORDERS, EntryShape::Headers, applied + 1);
    let mut entries = Vec::new();
    while !shared.ring.follows(applied) {
        tail.fill(&mut entries).await;
        let marks: Vec<_> =
            entries.drain(..).map(|entry| (entry.sequence, mark(&entry, &shared.damage))).collect();
        applied = shared.apply(marks.iter().map(|(sequence, mark)| (*sequence, mark.as_ref())));
    }
    tail.close().await;
    tracing::info!(applied, "the index of orders is built");
    applied
}

impl Shared {
    /// Applies entries to the index, and returns the last sequence that it includes.
    fn apply<'a>(&self, marks: impl Iterator<Item = (u64, Option<&'a Mark>)>) -> u64 {
        let mut index = self.index.write();
        for (sequence, mark) in marks {
            if let Err(MissingEntry) = index.apply(sequence, mark) {
                // The reader continues after what is applied, so nothing is left out.
                tracing::error!(sequence, applied = index.applied(), "an entry does not follow the last");
                break;
            }
        }
        let applied = index.applied();
        drop(index);
        self.applied.send_replace(applied);
        applied
    }
}

/// The change in an entry; none for a tombstone, and for an entry that is lost or cannot be read.
pub(super) fn event(entry: &StreamEntry, damage: &Damage) -> Option<Event> {
    let payload = &entry.message.as_ref()?.payload;
    mark(entry, damage).map(|mark| Event::new(entry.sequence, mark, payload))
}

fn mark(entry: &StreamEntry, damage: &Damage) -> Option<Mark> {
    let message = entry.message.as_ref()?;
    let parsed = Entry::parse(entry.sequence, &message.subject, message.headers.as_ref(), &message.payload);
    parsed.and_then(|entry| entry.mark()).unwrap_or_else(|error| {
        damage.note(entry.sequence, &error);
        None
    })
}
