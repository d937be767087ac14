//! Reservations: `reserve_inventory` and `release_inventory`.

use std::sync::Arc;
use std::time::Duration;

use contract::Item;
use contract::OrderReason;
use contract::inventory::v1::{
    ReleaseInventoryRequest, ReleaseInventoryResponse, ReserveInventoryRequest, ReserveInventoryResponse,
};
use contract::limits::{Reader, TTL_SECONDS};
use uuid::Uuid;
use wire::{Delivered, Failure, FieldViolation, Reason};

use super::context::{Inventory, RequestContext};
use super::refusal;
use crate::ledger::Decision;
use crate::release::ReleaseOutcome;
use crate::stock::{Amounts, Command, Stock};

/// Reserves all items of an order, or none.
pub async fn reserve(
    inventory: Arc<Inventory>,
    request: ReserveInventoryRequest,
    context: RequestContext,
) -> Result<ReserveInventoryResponse, Failure> {
    let (order, items) = read(&request).map_err(Failure::invalid)?;
    context.span.note("order.id", &order);
    let ttl = match request.ttl_seconds {
        None => inventory.ttl,
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(seconds.into())),
    };
    let expires_at = ttl.map(|ttl| {
        inventory.ledger.clock().unix_ms().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    });
    let share = inventory.share(&context, |stock| added(stock, &order)).await;
    let share = share.map_err(|failure| failure.with("order_id", order.to_string()))?;
    let command = Command::Reserve { order, items, expires_at };
    let answer = inventory.ledger.submit(command, context.deadline).await;
    share.settle(&answer);
    let failed = |denial| refusal::failure(denial, &request.order_id).with("order_id", &request.order_id);
    match answer.map_err(failed)? {
        Decision::Reserved { expires_at, fence } => Ok(ReserveInventoryResponse {
            order_id: request.order_id,
            reserved: true,
            expires_at: expires_at.map(timestamp),
            fence: i64::try_from(fence).unwrap_or(i64::MAX),
        }),
        Decision::Done | Decision::Levels(_) => {
            Err(Failure::new(Reason::Internal, "the ledger lost the reservation"))
        }
    }
}

/// What a reservation would add to what the stock keeps.
fn added(stock: &Stock, order: &Uuid) -> Amounts {
    Amounts { reservations: usize::from(stock.reservation(order).is_none()), ..Amounts::default() }
}

/// Parses the order and its items, and checks the limit of the holding time.
pub(super) fn read(request: &ReserveInventoryRequest) -> Result<(Uuid, Vec<Item>), Vec<FieldViolation>> {
    let mut reader = Reader::default();
    let order = reader.order_id("order_id", &request.order_id);
    let items = Item::read_all(&mut reader, "items", &request.items);
    if request.ttl_seconds.is_some_and(|seconds| seconds > TTL_SECONDS) {
        reader.fault("ttl_seconds", "must be at most 86,400");
    }
    reader.finish(order.zip(items))
}

/// Releases a reservation, unless its order exists.
pub async fn release(
    inventory: Arc<Inventory>,
    request: ReleaseInventoryRequest,
    context: RequestContext,
) -> Result<ReleaseInventoryResponse, Failure> {
    let (order, reason) = read_release(&request).map_err(Failure::invalid)?;
    context.span.note("order.id", &order);
    let released = inventory.releaser.release(order, context.deadline).await;
    match released.map_err(|failure| failure.with("order_id", order.to_string()))? {
        ReleaseOutcome::Gone => {
            tracing::debug!(%order, reason = &*reason, "released");
            Ok(ReleaseInventoryResponse { order_id: request.order_id, released: true })
        }
        ReleaseOutcome::Living(..) | ReleaseOutcome::Settled => Err(Failure::new(
            OrderReason::OrderExists,
            format!("the order {order} exists: cancel it to release its stock"),
        )
        .with("order_id", order.to_string())
        .delivered(Delivered::Yes)),
    }
}

/// Parses what to release, and the reason.
pub(super) fn read_release(
    request: &ReleaseInventoryRequest,
) -> Result<(Uuid, Box<str>), Vec<FieldViolation>> {
    let mut reader = Reader::default();
    let order = reader.order_id("order_id", &request.order_id);
    let reason = reader.reason("reason", &request.reason);
    reader.finish(order.zip(reason))
}

pub(super) fn timestamp(unix_ms: u64) -> pbjson_types::Timestamp {
    pbjson_types::Timestamp {
        seconds: i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(unix_ms % 1_000).unwrap_or(0) * 1_000_000,
    }
}
