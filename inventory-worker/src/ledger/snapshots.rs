//! Snapshots of the stock in an object store: `snapshot-<sequence>`, with the store's digest, never changed. Two are
//! kept, and the ledger is purged up to the older one.

use async_nats::jetstream;
use async_nats::jetstream::object_store::ObjectStore;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::TryStreamExt;
use link::streams::SNAPSHOT_PREFIX as PREFIX;
use link::{Link, streams};

use super::pipe::pipe;
use crate::stock::Stock;
use crate::waits::SNAPSHOT;

const KEPT: usize = 2;

/// The snapshots of the ledger.
#[derive(Clone)]
pub(super) struct Snapshots {
    context: jetstream::Context,
    objects: ObjectStore,
}

impl Snapshots {
    pub(super) async fn open(link: &Link) -> Result<Snapshots, String> {
        let context = jetstream::new(link.client().clone());
        let objects = context.get_object_store(streams::SNAPSHOT_BUCKET).await.map_err(text)?;
        Ok(Snapshots { context, objects })
    }

    /// The newest snapshot that can be read. One that can't is reported, and the one before is tried.
    pub(super) async fn newest(&self) -> Result<Option<Stock>, String> {
        let mut failure = None;
        for sequence in self.list().await? {
            match self.read(sequence).await {
                Ok(stock) => return Ok(Some(stock)),
                Err(why) => {
                    tracing::error!(sequence, why, "a snapshot cannot be read");
                    failure = Some(why);
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Writes a snapshot, and removes what is older than the second newest: snapshots, and the ledger up to there.
    /// Its bytes.
    pub(super) async fn write(&self, stock: Stock) -> Result<usize, String> {
        let name = format!("{PREFIX}{}", stock.sequence());
        let mut size = 0;
        if !self.list().await?.contains(&stock.sequence()) {
            let (mut inlet, mut outlet) = pipe();
            let writes = tokio::task::spawn_blocking(move || {
                stock.write_snapshot(&mut inlet).map_err(text)?;
                inlet.finish().map_err(text)
            });
            let put = limited(self.objects.put(name.as_str(), &mut outlet)).await;
            drop(outlet);
            let written = writes.await.map_err(text)?;
            size =
                put.map_err(|why| written.err().map_or(why.clone(), |also| format!("{why}; {also}")))?.size;
        }
        let kept = self.list().await?;
        if let Some(older) = kept.get(KEPT - 1) {
            let ledger = limited(self.context.get_stream(streams::INVENTORY)).await?;
            limited(async { ledger.purge().sequence(older + 1).await }).await?;
        }
        for gone in kept.iter().skip(KEPT) {
            self.remove(&format!("{PREFIX}{gone}")).await?;
        }
        Ok(size)
    }

    /// Removes a snapshot and what says that it was there: the library's delete leaves a note for ever.
    async fn remove(&self, name: &str) -> Result<(), String> {
        let object = limited(self.objects.info(name)).await?;
        let stream = limited(self.context.get_stream(streams::SNAPSHOTS)).await?;
        let bucket = streams::SNAPSHOT_BUCKET;
        // First what says that it is there, so that nobody finds a snapshot without its contents.
        for subject in
            [format!("$O.{bucket}.M.{}", URL_SAFE.encode(name)), format!("$O.{bucket}.C.{}", object.nuid)]
        {
            limited(async { stream.purge().filter(subject).await }).await?;
        }
        Ok(())
    }

    /// The sequences of the snapshots, the newest first.
    pub(super) async fn list(&self) -> Result<Vec<u64>, String> {
        let objects = limited(self.objects.list()).await?;
        let objects: Vec<_> = limited(objects.try_collect()).await?;
        let number =
            |object: &jetstream::object_store::ObjectInfo| object.name.strip_prefix(PREFIX)?.parse().ok();
        let mut sequences: Vec<u64> = objects.iter().filter_map(number).collect();
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        Ok(sequences)
    }

    async fn read(&self, sequence: u64) -> Result<Stock, String> {
        let mut object = limited(self.objects.get(format!("{PREFIX}{sequence}"))).await?;
        let (inlet, outlet) = pipe();
        let reads = tokio::task::spawn_blocking(move || Stock::read_snapshot(outlet));
        // Its end tells also whether the digest is right.
        let filled = limited(inlet.fill(&mut object)).await;
        let stock = reads.await.map_err(text)?;
        filled?;
        let stock = stock.map_err(text)?;
        if stock.sequence() == sequence {
            Ok(stock)
        } else {
            Err(format!("it is of sequence {}", stock.sequence()))
        }
    }
}

async fn limited<T, E: std::fmt::Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(SNAPSHOT, work).await {
        Ok(result) => result.map_err(text),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
