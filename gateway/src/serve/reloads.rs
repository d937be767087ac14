//! The reloads of contracts, as they are asked for and told: results, the digest and the age of what is served. Must not
//! read anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use catalog::Catalog;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use telemetry::{Exposition, Source};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The results of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The new contracts are served.
    Taken,
    /// They are the same.
    Unchanged,
    /// They cannot be read, or something is wrong with them.
    Invalid,
    /// They break clients of those that are served.
    Breaking,
    /// NATS did not answer, so that it is unknown what they are.
    Unavailable,
}

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Taken, "taken"),
    (Outcome::Unchanged, "unchanged"),
    (Outcome::Invalid, "invalid"),
    (Outcome::Breaking, "breaking"),
    (Outcome::Unavailable, "unavailable"),
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
    /// Of those that come from a bucket, the digest of each set, by name.
    bucket: BTreeMap<String, String>,
    /// Why the contracts that were read last are not served.
    refused: Option<Outcome>,
}

impl Reloads {
    /// None yet.
    pub(super) fn new(catalog: &Catalog) -> Reloads {
        let latest =
            Latest { digest: digest(catalog), since: Instant::now(), bucket: BTreeMap::new(), refused: None };
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

    /// Resolves when the contracts are to be read again.
    pub(super) async fn asked(&self) {
        self.0.asked.notified().await;
    }

    /// Whether the contracts of this digest are served.
    pub(super) fn serves(&self, digest: &str) -> bool {
        self.0.latest.lock().digest == digest
    }

    /// What /healthz tells of them.
    pub(super) fn told(&self) -> Value {
        let latest = self.0.latest.lock();
        json!({
            "digest": latest.digest,
            "bucket": latest.bucket,
            "age_seconds": latest.since.elapsed().as_secs(),
            "refused": latest.refused.map(name),
        })
    }

    /// What is served has these sets of a bucket.
    pub(super) fn follows(&self, bucket: BTreeMap<String, String>) {
        self.0.latest.lock().bucket = bucket;
    }

    /// A reload has ended like this; `taken`: the digest of what is served now.
    pub(super) fn ended(&self, outcome: Outcome, taken: Option<String>) {
        let place = OUTCOMES.iter().position(|(known, _)| *known == outcome);
        if let Some(count) = place.and_then(|place| self.0.counts.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut latest = self.0.latest.lock();
        latest.refused = match outcome {
            Outcome::Taken | Outcome::Unchanged => None,
            Outcome::Invalid | Outcome::Breaking => Some(outcome),
            // Nothing was read: what was read last counts.
            Outcome::Unavailable => latest.refused,
        };
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

/// The digest of everything that a catalog was read from.
pub(super) fn digest(catalog: &Catalog) -> String {
    let mut digest = Sha256::new();
    for pool in catalog.descriptors() {
        let set = pool.encode_to_vec();
        digest.update((set.len() as u64).to_be_bytes());
        digest.update(set);
    }
    digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
