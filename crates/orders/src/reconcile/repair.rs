//! Repair: each difference is repaired on the side that has lost something. A worker repairs the stock, by its own
//! rules. A step that the record has lost goes through the status machine again. Sequences that the ledger knows are
//! never used twice. Stock of an active order is never released.

use std::time::Duration;

use contract::inventory::v1::SettleReservationRequest;
use futures_util::{StreamExt, TryStreamExt, stream};
use nats::{Expect, StoreError};
use order_streams::event::Event;
use order_streams::status::Status;
use tokio::time::Instant;
use uuid::Uuid;
use wire::{Failure, Reason};

use super::diff::Difference;
use super::scan::{ScanResult, Scanner, call, order};
use crate::typed::ask;

/// Entries that may be missing at the end of the record: they take some minutes to fill.
const MISSING: u64 = 10_000_000;
/// Entries that are written concurrently.
const TOGETHER: usize = 256;
/// Orders that are repaired concurrently.
const AT_ONCE: usize = 16;
const LIMIT: Duration = Duration::from_secs(10);

/// Writes tombstones of no order until the record reaches an entry that the ledger knows. The ledger refers to entries
/// by sequence, so no other entry may take theirs.
pub(super) async fn fill(scanner: &Scanner, newest: u64) -> anyhow::Result<()> {
    let mut end = scanner.end().await?;
    anyhow::ensure!(
        newest.saturating_sub(end) <= MISSING,
        "{} entries are missing at the end of the record: this is not the record that belongs to this ledger",
        newest - end
    );
    while end < newest {
        let one = |_| async move {
            // It has no id of its writer: nobody asks later who wrote it.
            let Event { subject, payload, .. } = Event::tombstone(Uuid::nil());
            let deadline = Instant::now() + LIMIT;
            let append =
                scanner.record.append(&subject, Default::default(), payload.into(), Expect::Any, deadline);
            match append.await {
                // Stored or not: the next read of the last sequence shows how many are still missing.
                Ok(_) | Err(StoreError::Undetermined(_)) => Ok(()),
                Err(error) => Err(error),
            }
        };
        stream::iter(end..newest).map(one).buffer_unordered(TOGETHER).try_collect::<Vec<()>>().await?;
        end = scanner.end().await?;
    }
    Ok(())
}

/// Repairs what can be repaired, and returns the outcome of each. Earlier orders get scarce stock first.
pub(super) async fn all(scanner: &Scanner, found: Vec<ScanResult>) -> Vec<(ScanResult, Result<(), String>)> {
    let mut done = Vec::with_capacity(found.len());
    let (wanting, first): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| wants(found.kind));
    let one = |found: ScanResult| async move {
        let mended = one(scanner, &found).await;
        (found, mended)
    };
    done.extend(stream::iter(first).map(one).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
    for found in wanting {
        done.push(one(found).await);
    }
    done
}

/// Whether its repair needs stock that others may need too.
fn wants(kind: Difference) -> bool {
    matches!(kind, Difference::OrderWithoutStock | Difference::NotShipped)
}

async fn one(scanner: &Scanner, found: &ScanResult) -> Result<(), String> {
    let mended = match found.kind {
        Difference::StepLost(to) => step(scanner, found, to).await,
        Difference::OtherItems => return Err("an operator has to decide which items are right".to_owned()),
        Difference::Contradiction => return Err("an operator has to decide which side is right".to_owned()),
        Difference::Unreadable => {
            return Err("its event cannot be read: see `gateway dead-letters list`".to_owned());
        }
        Difference::EndLost => Ok(()),
        Difference::NotReleased
        | Difference::StockWithoutOrder
        | Difference::EntryLost
        | Difference::NotShipped
        | Difference::OrderWithoutStock => settle(scanner, found).await,
    };
    mended.map_err(|failure| failure.message)
}

async fn settle(scanner: &Scanner, found: &ScanResult) -> Result<(), Failure> {
    let sequence = found.order.map_or(0, |order| order.last);
    let request = SettleReservationRequest {
        order_id: found.id.to_string(),
        sequence: i64::try_from(sequence).unwrap_or(i64::MAX),
    };
    ask(&scanner.bridge, &request, &call()).await.map(drop)
}

/// Writes a step again that the ledger knows and the record has lost.
async fn step(scanner: &Scanner, found: &ScanResult, to: Status) -> Result<(), Failure> {
    let seen = order(&scanner.repair, found.id).await?;
    let seen = seen.filter(|seen| found.order.is_some_and(|order| order.last == seen.last));
    let seen = seen.ok_or_else(|| Failure::new(Reason::Contention, "the order has changed; run it again"))?;
    let reason = "repeated from the ledger: the record was restored from an older backup";
    scanner.repair.advance(&seen, to, reason, &call()).await
}
