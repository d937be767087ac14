//! Reload of contracts: they are read again when their files change or a signal asks for it, and replace what is served as
//! a whole. What is wrong, or breaks clients, changes nothing. Must not touch a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use catalog::{Catalog, Finding};
use catalog_sources::Fingerprint;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use telemetry::{Exposition, Source};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::shared::{Shared, coded};
use crate::contracts;
use server::Served;

/// Interval between two looks at the files. They are read when two looks have found the same change: a file that is just
/// being written is not.
const LOOK: Duration = Duration::from_secs(2);
/// How long reading may take: a disk may hang.
const READ: Duration = Duration::from_secs(60);
/// Minimum interval between two reloads, however often one is asked for.
const PAUSE: Duration = Duration::from_millis(250);
/// Problems that are logged.
const SHOWN: usize = 20;

/// The results of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The new contracts are served.
    Taken,
    /// They are the same.
    Unchanged,
    /// They cannot be read, or something is wrong with them.
    Invalid,
    /// They break clients of those that are served.
    Breaking,
}

const OUTCOMES: [(Outcome, &str); 4] = [
    (Outcome::Taken, "taken"),
    (Outcome::Unchanged, "unchanged"),
    (Outcome::Invalid, "invalid"),
    (Outcome::Breaking, "breaking"),
];

/// The reloads of a gateway. Clones share them.
#[derive(Debug, Clone)]
pub struct Reloads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    asked: Notify,
    counts: [AtomicU64; OUTCOMES.len()],
    latest: Mutex<Latest>,
}

#[derive(Debug)]
struct Latest {
    /// Of the contracts that are served, in hexadecimal.
    digest: String,
    /// When they were taken.
    since: Instant,
    /// Why the contracts that were read last are not served.
    refused: Option<Outcome>,
}

impl Reloads {
    /// None yet.
    pub(super) fn new(catalog: &Catalog) -> Reloads {
        let latest = Latest { digest: digest(catalog), since: Instant::now(), refused: None };
        Reloads(Arc::new(Inner {
            asked: Notify::new(),
            counts: Default::default(),
            latest: Mutex::new(latest),
        }))
    }

    /// Asks for the contracts to be read again. Several that come at once are one.
    pub fn ask(&self) {
        self.0.asked.notify_one();
    }

    /// What /healthz tells of them.
    pub(super) fn told(&self) -> Value {
        let latest = self.0.latest.lock();
        json!({
            "digest": latest.digest,
            "age_seconds": latest.since.elapsed().as_secs(),
            "refused": latest.refused.map(name),
        })
    }

    fn ended(&self, outcome: Outcome, taken: Option<String>) {
        let place = OUTCOMES.iter().position(|(known, _)| *known == outcome);
        if let Some(count) = place.and_then(|place| self.0.counts.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut latest = self.0.latest.lock();
        latest.refused = matches!(outcome, Outcome::Invalid | Outcome::Breaking).then_some(outcome);
        if let Some(digest) = taken {
            (latest.digest, latest.since) = (digest, Instant::now());
        }
    }
}

impl Source for Reloads {
    fn collect(&self, page: &mut Exposition) {
        for ((_, result), count) in OUTCOMES.iter().zip(&self.0.counts) {
            let help = "How often contracts were read again, by result.";
            let count = count.load(Ordering::Relaxed);
            page.counter("gateway_catalog_reloads_total", help, &[("result", result)], count);
        }
        let latest = self.0.latest.lock();
        let help = "The digest of the contracts that are served.";
        page.gauge("gateway_catalog_info", help, &[("digest", &latest.digest)], 1.0);
        let help = "How long these contracts have been served.";
        page.gauge("gateway_catalog_age_seconds", help, &[], latest.since.elapsed().as_secs_f64());
        let help = "Whether the contracts that were read last were refused, so that older ones are served.";
        page.flag("gateway_catalog_refused", help, &[], latest.refused.is_some());
    }
}

fn name(outcome: Outcome) -> &'static str {
    OUTCOMES.iter().find(|(known, _)| *known == outcome).map_or("", |(_, name)| name)
}

/// Reads the contracts again.
pub(super) struct Reloader {
    shared: Arc<Shared>,
    /// The state of the files that were read last.
    read: Fingerprint,
}

impl Reloader {
    pub(super) fn new(shared: Arc<Shared>, read: Fingerprint) -> Reloader {
        Reloader { shared, read }
    }

    /// Looks at the files until it is dropped.
    pub(super) async fn run(mut self) {
        let mut seen = self.read;
        loop {
            let asked = tokio::select! {
                () = sleep(LOOK) => false,
                () = self.shared.reloads.0.asked.notified() => true,
            };
            let sources = self.shared.config.sources.clone();
            let Some(now) = blocking(move || sources.fingerprint()).await else { continue };
            let settled = std::mem::replace(&mut seen, now) == now;
            if asked || (settled && now != self.read) {
                self.read = now;
                self.reload().await;
                sleep(PAUSE).await;
            }
        }
    }

    async fn reload(&self) {
        let Shared { config, reloads, .. } = &*self.shared;
        let (sources, orders) = (config.sources.clone(), config.orders());
        let read = move || contracts::read(&sources, orders).map(|catalog| (digest(&catalog), catalog));
        let read = blocking(read).await.unwrap_or_else(|| Err(anyhow::anyhow!("they could not be read")));
        let (digest, catalog) = match read {
            Ok(read) => read,
            Err(error) => return self.refuse(Outcome::Invalid, &error.to_string()),
        };
        let before = self.shared.current.served();
        if digest == reloads.0.latest.lock().digest {
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
        reloads.ended(Outcome::Taken, Some(digest));
    }

    /// Serves this catalog.
    fn take(&self, before: &Served, catalog: &Arc<Catalog>) -> anyhow::Result<()> {
        let Shared { config, current, board, .. } = &*self.shared;
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

/// The digest of everything that a catalog was read from.
fn digest(catalog: &Catalog) -> String {
    let mut digest = Sha256::new();
    for pool in catalog.descriptors() {
        let set = pool.encode_to_vec();
        digest.update((set.len() as u64).to_be_bytes());
        digest.update(set);
    }
    digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
