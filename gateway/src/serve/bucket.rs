//! Contracts of a bucket, as a gateway reads them: at start, and again while it serves. Must not decide what is served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use catalog::Catalog;
use catalog_bucket::{ActiveSet, Bucket, BucketError, BucketName, Mark};
use nats::Connection;
use tokio::time::{Instant, sleep};

use crate::config::Serve;
use crate::contracts;

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(5);
/// How long reading all sets may take.
const READ: Duration = Duration::from_secs(30);
/// How long the start waits for JetStream to answer: a cluster that elects leaders does soon.
const START: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);

/// What a gateway starts with.
pub(super) struct Beginning {
    pub(super) catalog: Arc<Catalog>,
    /// The state of the bucket, if there is one, before it was read.
    pub(super) mark: Mark,
    /// The digests of its sets, by name.
    pub(super) digests: BTreeMap<String, String>,
}

/// What is served at start.
///
/// # Errors
/// What is wrong with the contracts; NATS cannot be reached, or there is no such bucket.
pub(super) async fn start(config: &Serve) -> anyhow::Result<Beginning> {
    let Some(name) = config.bucket.catalog_bucket else {
        return Ok(Beginning { catalog: config.catalog()?, mark: None, digests: BTreeMap::new() });
    };
    let link = Connection::connect(&config.nats, "gateway contracts").await?;
    let bucket = Bucket::new(link.clone(), name);
    let (mark, sets) = link.permitted(patient(&bucket)).await.context("--catalog-bucket")??;
    if sets.is_empty() {
        tracing::warn!("the bucket {name} has no contract yet: push one with `gateway catalog push`");
    }
    let outside = config.bucket.outside(sets);
    let catalog = contracts::with(&config.sources, &outside, config.orders())?;
    config.check_rules(&catalog)?;
    catalog.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(Beginning { catalog, mark, digests: outside.digests() })
}

/// Reads the bucket, and waits for a JetStream that does not answer yet.
async fn patient(bucket: &Bucket) -> Result<(Mark, Vec<ActiveSet>), BucketError> {
    let deadline = Instant::now() + START;
    loop {
        match read(bucket, deadline).await {
            Err(error) if error.is_temporary() && Instant::now() + PAUSE < deadline => sleep(PAUSE).await,
            read => return read,
        }
    }
}

/// The state before the sets are read: a change meanwhile is another one.
async fn read(bucket: &Bucket, deadline: Instant) -> Result<(Mark, Vec<ActiveSet>), BucketError> {
    let mark = bucket.mark(deadline.min(Instant::now() + LOOK)).await?;
    Ok((mark, bucket.active(deadline).await?))
}

/// Why there are no sets.
#[derive(Debug)]
pub(super) enum Unread {
    /// NATS does not answer. It was logged.
    Away,
    /// What is there cannot be used.
    Wrong(String),
}

/// Reads the bucket again and again.
pub(super) struct BucketReader {
    bucket: Bucket,
    /// Whether it was logged that it cannot be read.
    away: bool,
}

impl BucketReader {
    pub(super) fn new(link: Connection, name: BucketName) -> BucketReader {
        BucketReader { bucket: Bucket::new(link, name), away: false }
    }

    /// The state of the bucket; none if it cannot be read now. Once, that is logged.
    pub(super) async fn mark(&mut self) -> Option<Mark> {
        match self.bucket.mark(Instant::now() + LOOK).await {
            Ok(mark) => {
                if std::mem::take(&mut self.away) {
                    tracing::info!("the bucket {} can be read again", self.bucket.name());
                }
                Some(mark)
            }
            Err(error) => {
                self.away(&error);
                None
            }
        }
    }

    /// The sets that are active now.
    pub(super) async fn sets(&mut self) -> Result<Vec<ActiveSet>, Unread> {
        match self.bucket.active(Instant::now() + READ).await {
            Ok(sets) => Ok(sets),
            Err(error) if error.is_temporary() => {
                self.away(&error);
                Err(Unread::Away)
            }
            Err(error) => Err(Unread::Wrong(error.to_string())),
        }
    }

    fn away(&mut self, error: &BucketError) {
        if !std::mem::replace(&mut self.away, true) {
            let why = error.to_string();
            tracing::warn!(why, "contracts cannot be read again: what is served stays");
        }
    }
}
