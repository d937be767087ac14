//! Facts: what happened to the stock, and their encoding in the ledger. Replaying them needs neither rules nor a clock.
//! Entries stay in the ledger across versions: fields may be added, but never renamed or given another meaning.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Horizon, Release};

/// One append to the ledger: facts that happened together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The worker that wrote it.
    pub worker: Uuid,
    /// The worker's number for it, so that it recognises its own entry.
    pub batch: u64,
    /// The entry before it, as its writer knew it: the number alone does not prove the contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<(Uuid, u64)>,
    /// JetStream's time as its writer knew it, Unix ms. Earlier versions used the worker's clock.
    pub at: u64,
    /// What happened, in this order.
    pub facts: Vec<Fact>,
}

/// Something that happened. Events and tombstones are sequences on ORDERS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fact {
    /// Units were promised to an order.
    Reserved {
        /// The order.
        order: Uuid,
        /// Product and units.
        items: Vec<(Box<str>, u32)>,
        /// When it expires without an order, Unix ms; `None`: when it is released.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
        /// The sequence that the order's record has to expect.
        #[serde(default)]
        fence: u64,
    },
    /// The order exists.
    Bound {
        /// The order.
        order: Uuid,
        /// The event that caused it.
        event: u64,
    },
    /// The units are available again.
    Released {
        /// The order.
        order: Uuid,
        /// The cause.
        by: Release,
    },
    /// The units have left.
    Shipped {
        /// The order.
        order: Uuid,
        /// The event that caused it.
        event: u64,
    },
    /// Stock on hand was changed.
    Adjusted {
        /// The change's key.
        request: Box<str>,
        /// Product and change.
        lines: Vec<(Box<str>, i32)>,
        /// The reason given.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        reason: Box<str>,
        /// Whether `request` is certainly a known caller's key: earlier builds did not record that.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        known: bool,
    },
    /// Stock on hand was counted.
    Counted {
        /// Product and units.
        lines: Vec<(Box<str>, u32)>,
    },
    /// Products of which nothing was on hand or reserved were removed. Versions that do not know this fact stop at it.
    Removed {
        /// The products.
        products: Vec<Box<str>>,
    },
    /// Ids that were finished before the horizon were dropped.
    Forgot(Horizon),
}

/// A hash of an adjustment's content, independent of the order of its lines.
pub fn fingerprint(lines: &[(Box<str>, i32)], reason: &str) -> u64 {
    let mut sorted: Vec<_> = lines.iter().collect();
    sorted.sort_unstable();
    digest(sorted.into_iter(), reason)
}

/// All valid fingerprints of a content: snapshots of an earlier version have that of its lines in the given order.
pub fn fingerprints(lines: &[(Box<str>, i32)], reason: &str) -> [u64; 2] {
    [fingerprint(lines, reason), digest(lines.iter(), reason)]
}

fn digest<'a>(lines: impl Iterator<Item = &'a (Box<str>, i32)>, reason: &str) -> u64 {
    let mut hash = Sha256::new();
    for (product, delta) in lines {
        hash.update((product.len() as u64).to_le_bytes());
        hash.update(product.as_bytes());
        hash.update(delta.to_le_bytes());
    }
    hash.update(reason.as_bytes());
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adjustment_is_known_by_its_lines_in_whatever_order_also_from_a_snapshot_of_before() {
        let lines = |pairs: [(&str, i32); 2]| pairs.map(|(product, delta)| (Box::from(product), delta));
        let (given, turned) = (lines([("rug", 1), ("lamp", 2)]), lines([("lamp", 2), ("rug", 1)]));
        assert_eq!(fingerprint(&given, "why"), fingerprint(&turned, "why"));
        let before = digest(given.iter(), "why");
        assert!(before != fingerprint(&given, "why") && fingerprints(&given, "why").contains(&before));
        assert_ne!(fingerprint(&given, "why"), fingerprint(&lines([("lamp", 1), ("rug", 2)]), "why"));
    }
}
