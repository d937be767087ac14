//! Reload of contracts: they are read again when their files or their bucket change, or a signal asks for it, and replace what is served as
//! a whole. What is wrong, or breaks clients, changes nothing. Must not touch a call.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, Finding};
use catalog_bucket::Mark;
use catalog_sources::Fingerprint;
use nats::Connection;
use tokio::time::{sleep, timeout};

use super::bucket::{BucketReader, Unread};
use super::reloads::{Outcome, digest};
use super::shared::{Shared, coded};
use crate::contracts::{self, Outside};
use server::Served;

/// Interval between two looks at the files, and at the bucket. They are read when two looks have found the same change: a file that is just
/// being written is not.
const LOOK: Duration = Duration::from_secs(2);
/// How long reading may take: a disk may hang.
const READ: Duration = Duration::from_secs(60);
/// Minimum interval between two reloads, however often one is asked for.
const PAUSE: Duration = Duration::from_millis(250);
/// Problems that are logged.
const SHOWN: usize = 20;

/// The state of all sources: another state is another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceState {
    pub(super) files: Fingerprint,
    pub(super) bucket: Mark,
}

/// Reads the contracts again.
pub(super) struct Reloader {
    shared: Arc<Shared>,
    bucket: Option<BucketReader>,
    /// The state of the sources that were read last.
    read: SourceState,
}

impl Reloader {
    /// Over this connection, if it is up; without it, what was read before stays.
    pub(super) fn new(shared: Arc<Shared>, link: &Connection, read: SourceState) -> Reloader {
        let bucket = shared.config.bucket.catalog_bucket.map(|name| BucketReader::new(link.clone(), name));
        Reloader { shared, bucket, read }
    }

    /// Looks at the sources until it is dropped.
    pub(super) async fn run(mut self) {
        let (mut seen, mut open) = (self.read, false);
        loop {
            let asked = tokio::select! {
                () = sleep(LOOK) => false,
                () = self.shared.reloads.asked() => true,
            };
            let sources = self.shared.config.sources.clone();
            let Some(files) = blocking(move || sources.fingerprint()).await else { continue };
            let known = match &mut self.bucket {
                Some(bucket) => bucket.mark().await,
                None => Some(None),
            };
            // Unknown: as it was.
            let bucket = known.unwrap_or(seen.bucket);
            let now = SourceState { files, bucket };
            let settled = std::mem::replace(&mut seen, now) == now;
            if asked || (open && known.is_some()) || (settled && now != self.read) {
                // Without an answer of NATS, the first look that has one tries again.
                open = !self.reload().await;
                if !open {
                    self.read = now;
                }
                sleep(PAUSE).await;
            }
        }
    }

    /// Reads everything again, and takes or refuses it; whether it could be read.
    async fn reload(&mut self) -> bool {
        let outside = match &mut self.bucket {
            None => Ok(None),
            Some(bucket) => match bucket.sets().await {
                Ok(sets) => Ok(Some(self.shared.config.bucket.outside(sets))),
                Err(Unread::Away) => {
                    self.shared.reloads.ended(Outcome::Unavailable, None);
                    return false;
                }
                Err(Unread::Wrong(why)) => Err(why),
            },
        };
        match outside {
            Ok(outside) => self.judge(outside).await,
            Err(why) => self.refuse(Outcome::Invalid, &why),
        }
        true
    }

    async fn judge(&self, outside: Option<Outside>) {
        let Shared { config, reloads, .. } = &*self.shared;
        let (sources, orders) = (config.sources.clone(), config.orders());
        let bucket = outside.as_ref().map(Outside::digests).unwrap_or_default();
        let read = move || match outside {
            Some(outside) => contracts::with(&sources, &outside, orders),
            None => contracts::read(&sources, orders),
        };
        let read = move || read().map(|catalog| (digest(&catalog), catalog));
        let read = blocking(read).await.unwrap_or_else(|| Err(anyhow::anyhow!("they could not be read")));
        let (digest, catalog) = match read {
            Ok(read) => read,
            Err(error) => return self.refuse(Outcome::Invalid, &error.to_string()),
        };
        let before = self.shared.current.served();
        if reloads.serves(&digest) {
            reloads.follows(bucket);
            reloads.ended(Outcome::Unchanged, None);
            tracing::info!(digest, "the contracts have not changed");
            return;
        }
        let breaks = before.catalog().breaking(&catalog);
        if !breaks.is_empty() && !config.allow_breaking {
            return self.refuse(Outcome::Breaking, &lines(&breaks));
        }
        if let Err(error) = self.take(&before, &catalog) {
            return self.refuse(Outcome::Invalid, &format!("{error:#}"));
        }
        let known = before.catalog().warnings();
        let news = catalog.warnings().iter().filter(|warning| !known.contains(warning));
        news.take(SHOWN).for_each(|warning| tracing::warn!("{warning}"));
        let (routes, services) = (catalog.routes().len(), catalog.services().len());
        tracing::info!(digest, routes, services, breaking = breaks.len(), "new contracts are served");
        reloads.follows(bucket);
        reloads.ended(Outcome::Taken, Some(digest));
    }

    /// Serves this catalog.
    fn take(&self, before: &Served, catalog: &Arc<Catalog>) -> anyhow::Result<()> {
        let Shared { config, current, board, .. } = &*self.shared;
        config.check_rules(catalog)?;
        contracts::ready_on(catalog, &config.ready_on)?;
        let states = before.states().next(catalog.clone(), catalog.serving_routes());
        let served = Served::new(Arc::new(states), coded(config), config.access.reflection)?;
        let names = served.names().to_vec();
        current.replace(served);
        board.replace(&names);
        Ok(())
    }

    fn refuse(&self, outcome: Outcome, problems: &str) {
        self.shared.reloads.ended(outcome, None);
        let count = problems.lines().count();
        let shown = problems.lines().take(SHOWN).collect::<Vec<_>>().join("\n");
        let why = match outcome {
            Outcome::Breaking => "they break clients (--allow-breaking takes them nevertheless)",
            _ => "something is wrong with them",
        };
        tracing::error!(problems = count, "new contracts are not served: {why}:\n{shown}");
    }
}

/// The result of work that blocks; none if it took too long, or panicked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    timeout(READ, tokio::task::spawn_blocking(work)).await.ok()?.ok()
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
}
