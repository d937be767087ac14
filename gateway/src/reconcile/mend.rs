//! Mending: each difference is put to the side that knows less. The stock is a worker's, who decides by its own rules;
//! a step that the record has lost goes through the status machine again; and numbers that the ledger knows are never
//! used twice. Stock of an order that lives is never given back.

use std::time::Duration;

use contract::inventory::v1::SettleReservationRequest;
use contract::{Failure, Reason, subject};
use futures_util::{StreamExt, TryStreamExt, stream};
use link::{Expect, StoreError};
use tokio::time::Instant;
use uuid::Uuid;

use super::eyes::{Eyes, Found, call, order};
use super::judge::Kind;
use crate::order::status::Status;

/// Entries that may be missing at the end of the record: they take some minutes to fill.
const MISSING: u64 = 10_000_000;
/// Entries on their way at the same time.
const TOGETHER: usize = 256;
/// Orders that are mended at the same time.
const AT_ONCE: usize = 16;
const LIMIT: Duration = Duration::from_secs(10);

/// Writes tombstones of no order until the record reaches an entry that the ledger knows. An entry's number stands in
/// the ledger for what it said: another entry must never have it.
pub(super) async fn fill(eyes: &Eyes, newest: u64) -> anyhow::Result<()> {
    let mut end = eyes.end().await?;
    anyhow::ensure!(
        newest.saturating_sub(end) <= MISSING,
        "{} entries are missing at the end of the record: this is not the record that belongs to this ledger",
        newest - end
    );
    while end < newest {
        let one = |_| async move {
            let nobody = Uuid::nil();
            let subject = format!("{}{nobody}", subject::TOMBSTONE);
            let payload = format!(r#"{{"orderId":"{nobody}"}}"#).into();
            let deadline = Instant::now() + LIMIT;
            match eyes.record.append(&subject, Default::default(), payload, Expect::Any, deadline).await {
                // Stored or not: the next look at the end says how many are missing yet.
                Ok(_) | Err(StoreError::Undetermined(_)) => Ok(()),
                Err(error) => Err(error),
            }
        };
        stream::iter(end..newest).map(one).buffer_unordered(TOGETHER).try_collect::<Vec<()>>().await?;
        end = eyes.end().await?;
    }
    Ok(())
}

/// Mends what can be mended, and says of each what came of it. The first in line gets scarce stock first.
pub(super) async fn all(eyes: &Eyes, found: Vec<Found>) -> Vec<(Found, Result<(), String>)> {
    let mut done = Vec::with_capacity(found.len());
    let (wanting, first): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| wants(found.kind));
    let one = |found: Found| async move {
        let mended = one(eyes, &found).await;
        (found, mended)
    };
    done.extend(stream::iter(first).map(one).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
    for found in wanting {
        done.push(one(found).await);
    }
    done
}

/// Whether it needs stock that others may want as well.
fn wants(kind: Kind) -> bool {
    matches!(kind, Kind::OrderWithoutStock | Kind::NotShipped)
}

async fn one(eyes: &Eyes, found: &Found) -> Result<(), String> {
    let mended = match found.kind {
        Kind::StepLost(to) => step(eyes, found, to).await,
        Kind::OtherItems => return Err("which items are right is for a person to say".to_owned()),
        Kind::Contradiction => return Err("which side is right is for a person to say".to_owned()),
        Kind::Unreadable => return Err("its event is no order: see `gateway dead-letters list`".to_owned()),
        Kind::EndLost => Ok(()),
        Kind::NotReleased
        | Kind::StockWithoutOrder
        | Kind::EntryLost
        | Kind::NotShipped
        | Kind::OrderWithoutStock => settle(eyes, found).await,
    };
    mended.map_err(|failure| failure.message)
}

async fn settle(eyes: &Eyes, found: &Found) -> Result<(), Failure> {
    let sequence = found.order.map_or(0, |order| order.last);
    let request = SettleReservationRequest {
        order_id: found.id.to_string(),
        sequence: i64::try_from(sequence).unwrap_or(i64::MAX),
    };
    eyes.bridge.ask(&request, &call()).await.map(drop)
}

/// Writes a step again that the ledger knows and the record has lost.
async fn step(eyes: &Eyes, found: &Found, to: Status) -> Result<(), Failure> {
    let seen = order(&eyes.clerk, found.id).await?;
    let seen = seen.filter(|seen| found.order.is_some_and(|order| order.last == seen.last));
    let seen = seen.ok_or_else(|| Failure::new(Reason::Contention, "the order moved on; run it again"))?;
    let reason = "as the stock's ledger has it: the record was restored from before";
    eyes.clerk.advance(&seen, to, reason, &call()).await
}
