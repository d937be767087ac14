//! The entries of the ledger as they are committed, from a sequence on. Hands over what the server sends; the writer
//! has to check for missing entries, as a consumer that a purge overtook skips entries without an error.
//!
//! Entries are pushed, while the record of orders is pulled (`nats::reader`): the ledger is purged behind its snapshots, so
//! a hole is no loss but a reason to load a snapshot; the writer takes what has arrived between two appends and waits
//! for nothing, so this task reads ahead of it, within a budget of entries and bytes; and the workers' NATS role may
//! not pull from INVENTORY (deploy/nats/roles.conf).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nats::{Connection, PushReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// The most entries that wait for the writer.
const AHEAD: usize = 256;
/// The most bytes of them: an entry may have a megabyte.
const AHEAD_BYTES: u32 = 16 << 20;
const PAUSE: Duration = Duration::from_millis(200);
/// Time between two log lines about a consumer that cannot be created.
const REMIND: Duration = Duration::from_secs(10);

/// An entry that waits, with its permit.
type Waiting = (u64, Bytes, OwnedSemaphorePermit);

/// The entries from a sequence on, unread.
pub(super) struct Feed {
    entries: mpsc::Receiver<Waiting>,
    _task: Option<AbortOnDropHandle<()>>,
}

impl Feed {
    /// No entries.
    pub(super) fn nothing() -> Feed {
        Feed { entries: mpsc::channel(1).1, _task: None }
    }

    /// Entries after this sequence.
    pub(super) fn after(link: Connection, sequence: u64) -> Feed {
        let (sender, entries) = mpsc::channel(AHEAD);
        Feed { entries, _task: Some(AbortOnDropHandle::new(tokio::spawn(follow(link, sequence, sender)))) }
    }

    /// The next entry. Cancel-safe.
    pub(super) async fn next(&mut self) -> (u64, Bytes) {
        match self.entries.recv().await {
            Some((sequence, bytes, _place)) => (sequence, bytes),
            // There is no task, or it ends only when its receiver is gone.
            None => std::future::pending().await,
        }
    }
}

impl Feed {
    /// The next entry, if it has arrived.
    pub(super) fn ready(&mut self) -> Option<(u64, Bytes)> {
        self.entries.try_recv().ok().map(|(sequence, bytes, _place)| (sequence, bytes))
    }
}

async fn follow(link: Connection, mut last: u64, entries: mpsc::Sender<Waiting>) {
    let places = Arc::new(Semaphore::new(AHEAD_BYTES as usize));
    let mut said: Option<Instant> = None;
    loop {
        if let Err(error) = read(&link, &mut last, &entries, &places).await
            && said.is_none_or(|said| said.elapsed() > REMIND)
        {
            said = Some(Instant::now());
            tracing::warn!(error = %error, after = last, "the ledger's consumer failed; creating a new one");
        }
        if entries.is_closed() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads with one consumer until it fails.
async fn read(
    link: &Connection,
    last: &mut u64,
    entries: &mpsc::Sender<Waiting>,
    places: &Arc<Semaphore>,
) -> Result<(), async_nats::Error> {
    let mut reader = PushReader::open(link, order_streams::INVENTORY, *last).await?;
    while let Some((sequence, message)) = reader.next().await? {
        let payload = message.payload;
        let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX).clamp(1, AHEAD_BYTES);
        let place = places.clone().acquire_many_owned(bytes).await?;
        if entries.send((sequence, payload, place)).await.is_err() {
            return Ok(());
        }
        *last = sequence;
    }
    Ok(())
}
