//! What a stream had before the messages in memory, for one watcher that resumes there: read until these continue. Each
//! replay has one task and one consumer, and there are few. Must not hold up its topic.

use std::sync::Arc;

use bytes::Bytes;
use nats::reader::FilteredReader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use wire::Failure;

use super::stored::Stored;
use crate::concurrency::Saturated;
use crate::patience::{PatientSender, queue};
use crate::share::{CATCHING_UP, Share, Shares};
use crate::topic::{Begin, Feed};

/// The most messages that wait for the watcher.
const QUEUE: usize = 32;

/// What a replay tells its watcher.
pub(super) enum Replayed {
    /// The next message, with its sequence.
    Message(u64, Bytes),
    /// The messages in memory continue behind this sequence. A replay that ends without this was given up: the client is
    /// too slow.
    Done(u64),
    /// It cannot go on.
    Failed(Failure),
}

/// A permit of a replay, within its caller's share.
pub(super) struct ReplayPermit {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share>,
}

impl ReplayPermit {
    pub(super) fn take(
        all: &Arc<Semaphore>,
        shares: Option<&Arc<Shares>>,
    ) -> Result<ReplayPermit, Saturated> {
        let permit = all.clone().try_acquire_owned().map_err(|_| Saturated::Gate)?;
        let share = match shares {
            // This permit counts as free: the last one may be any caller's first.
            Some(shares) => {
                let free = all.available_permits() + 1;
                Some(shares.take_fairly(CATCHING_UP, free).ok_or(Saturated::by(shares))?)
            }
            None => None,
        };
        Ok(ReplayPermit { _permit: permit, _share: share })
    }
}

/// A replay.
pub(super) struct Replay {
    pub(super) feed: Arc<Feed>,
    pub(super) stored: Arc<Stored>,
    pub(super) begin: Begin,
    /// All messages up to here were delivered.
    pub(super) cursor: u64,
    /// The stream had this sequence before the reader was opened.
    pub(super) known: u64,
}

impl Replay {
    /// Starts it.
    pub(super) fn start(self, mut reader: FilteredReader, permit: ReplayPermit) -> mpsc::Receiver<Replayed> {
        let (mut client, replayed) = queue(QUEUE);
        tokio::spawn(async move {
            if let Some(last) = self.read(&mut reader, &mut client).await {
                client.send(last).await;
            }
            drop(permit);
            reader.close().await;
        });
        replayed
    }

    /// Reads until the messages in memory continue. None: the watcher has left, or is too slow.
    async fn read(
        mut self,
        reader: &mut FilteredReader,
        client: &mut PatientSender<Replayed>,
    ) -> Option<Replayed> {
        let mut entries = Vec::new();
        loop {
            if reader.is_caught_up() {
                self.cursor = self.cursor.max(self.known);
            }
            if self.feed.ring.follows(self.cursor) {
                return Some(Replayed::Done(self.cursor));
            }
            let filled = tokio::select! {
                filled = reader.fill(&mut entries) => filled,
                () = client.closed() => return None,
            };
            for entry in entries.drain(..) {
                self.cursor = entry.sequence;
                if let Some((sequence, message)) = self.stored.message(&self.begin, entry)
                    && !client.send(Replayed::Message(sequence, message)).await
                {
                    return None;
                }
            }
            if let Err(error) = filled {
                return Some(Replayed::Failed(self.stored.failure(&error)));
            }
        }
    }
}
