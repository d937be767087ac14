//! An operator's requests: `redeliver_event`, `list_reservations`, `settle_reservation`. Only parses requests and
//! builds answers: the rules decide what may be changed.

use std::sync::Arc;

use contract::OrderReason;
use contract::inventory::v1::{
    Item, ListReservationsRequest, ListReservationsResponse, RedeliverEventRequest, RedeliverEventResponse,
    Reservation, ReservationPhase, SettleReservationRequest, SettleReservationResponse,
};
use contract::limits::{PAGE_SIZE, Reader};
use uuid::Uuid;
use wire::{Delivered, Failure, Reason};

pub use super::context::Upkeep;
use super::context::{Inventory, RequestContext};
use super::reserve::timestamp;
use super::{page, refusal};
use crate::ledger::Denial;
use crate::reconcile::Unsettled;
use crate::stock::{Phase, Refusal, Release, Stock};

/// Approximate bytes of a page's reservations: far below the maximum of a message.
const PAGE_BYTES: usize = 256 * 1_024;

/// Processes an event again.
pub async fn redeliver(
    inventory: Arc<Inventory>,
    request: RedeliverEventRequest,
    context: RequestContext,
) -> Result<RedeliverEventResponse, Failure> {
    let mut reader = Reader::default();
    let sequence = u64::try_from(request.sequence).ok().filter(|sequence| *sequence > 0);
    if sequence.is_none() {
        reader.fault("sequence", "must be 1 or more");
    }
    let sequence = reader.finish(sequence).map_err(Failure::invalid)?;
    inventory.upkeep.events.redeliver(sequence, request.validate_only, context.deadline).await?;
    Ok(RedeliverEventResponse { sequence: request.sequence })
}

/// A page of reservations, or those of some orders.
pub async fn list(
    inventory: Arc<Inventory>,
    request: ListReservationsRequest,
    context: RequestContext,
) -> Result<ListReservationsResponse, Failure> {
    let (wanted, size, after) = read(&request).map_err(Failure::invalid)?;
    // Read before the stock, which therefore reflects what was acknowledged.
    let acknowledged = inventory.upkeep.floor.read_until(context.deadline).await.ok_or_else(|| {
        Failure::new(Reason::StorageUnavailable, "the consumer's acknowledgement floor cannot be read now")
            .delivered(Delivered::No)
            .retry_after(nats::failure::RETRY)
    })?;
    inventory.ledger.catch_up(context.deadline).await?;
    let (orders, more) = match wanted {
        Some(orders) => (orders, false),
        None => next(&inventory.ledger.stock(), after, size),
    };
    let stock = inventory.ledger.stock();
    let (mut reservations, mut bytes, mut last) = (Vec::new(), 0, None);
    let mut rest = orders.iter();
    for order in rest.by_ref() {
        last = Some(*order);
        if let Some(reservation) = of_order(&stock, order) {
            bytes += 160 + reservation.items.iter().map(|item| 48 + item.product_id.len()).sum::<usize>();
            reservations.push(reservation);
        }
        if bytes > PAGE_BYTES {
            break;
        }
    }
    let more = more || rest.next().is_some();
    let next_page_token = last.filter(|_| more).map(page::token_of).unwrap_or_default();
    Ok(ListReservationsResponse {
        reservations,
        next_page_token,
        acknowledged: number(acknowledged),
        forgotten: number(stock.horizon().floor),
    })
}

pub(super) type Wanted = (Option<Vec<Uuid>>, usize, Option<Uuid>);

pub(super) fn read(request: &ListReservationsRequest) -> Result<Wanted, Vec<wire::FieldViolation>> {
    let mut reader = Reader::default();
    let size = reader.page_size("page_size", request.page_size);
    let after = page::after(&mut reader, &request.page_token, page::order, "ListReservations");
    let ids = &request.order_ids;
    if ids.len() > PAGE_SIZE {
        reader.fault("order_ids", format!("must be at most 1,000 ids, not {}", ids.len()));
        return reader.finish(None);
    }
    let mut orders: Vec<Uuid> = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        orders.extend(reader.order_id(&format!("order_ids[{index}]"), id));
    }
    orders.sort_unstable();
    if let Some(Some(after)) = after {
        orders.retain(|order| *order > after);
    }
    let wanted = (!ids.is_empty()).then_some(orders);
    reader.finish(size.zip(after).map(|(size, after)| (wanted, size, after)))
}

/// The orders of the next page in ascending order, and whether there are more.
fn next(stock: &Stock, after: Option<Uuid>, size: usize) -> (Vec<Uuid>, bool) {
    let behind = |order: &&Uuid| after.is_none_or(|after| **order > after);
    let mut orders: Vec<Uuid> = stock.orders().filter(behind).copied().collect();
    let more = orders.len() > size;
    if more {
        orders.select_nth_unstable(size);
        orders.truncate(size);
    }
    orders.sort_unstable();
    (orders, more)
}

/// Brings a reservation in line with the record.
pub async fn settle(
    inventory: Arc<Inventory>,
    request: SettleReservationRequest,
    context: RequestContext,
) -> Result<SettleReservationResponse, Failure> {
    let mut reader = Reader::default();
    let order = reader.order_id("order_id", &request.order_id);
    let seen = u64::try_from(request.sequence).ok();
    if seen.is_none() {
        reader.fault("sequence", "must be 0 or more");
    }
    let (order, seen) = reader.finish(order.zip(seen)).map_err(Failure::invalid)?;
    context.span.note("order.id", &order);
    inventory.upkeep.settler.reconcile(order, seen, context.deadline).await.map_err(|unsettled| {
        match unsettled {
            Unsettled::Denied(Denial::Refused(Refusal::Behind)) => {
                let why = "the ledger contradicts the record of the order";
                Failure::new(OrderReason::Unsettled, why).delivered(Delivered::Yes)
            }
            Unsettled::Denied(denial) => refusal::failure(denial, &request.order_id),
            Unsettled::Failed(failure) => failure.with("order_id", &request.order_id),
        }
    })?;
    Ok(SettleReservationResponse { reservation: of_order(&inventory.ledger.stock(), &order) })
}

fn of_order(stock: &Stock, order: &Uuid) -> Option<Reservation> {
    let reservation = stock.reservation(order)?;
    let phase = match reservation.phase {
        Phase::Held { .. } => ReservationPhase::Held,
        Phase::Bound { .. } => ReservationPhase::Bound,
        Phase::Shipped { .. } => ReservationPhase::Shipped,
        Phase::Released { by: Release::Cancelled(_) } => ReservationPhase::Cancelled,
        Phase::Released { by: Release::Tombstone(_) } => ReservationPhase::Buried,
        Phase::Released { by: Release::Duplicate(_) } => ReservationPhase::Duplicate,
    };
    let item = |(product, quantity): (&str, u32)| Item { product_id: product.to_owned(), quantity };
    let expires_at = match reservation.phase {
        Phase::Held { expires_at } => expires_at.map(timestamp),
        _ => None,
    };
    Some(Reservation {
        order_id: order.to_string(),
        phase: phase.into(),
        items: stock.items(order).map(item).collect(),
        fence: number(reservation.fence),
        sequence: number(reservation.phase.sequence()),
        expires_at,
    })
}

fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}
