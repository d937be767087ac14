//! UpdateOrderStatus: one status change, guarded by the order's etag.

use contract::OrderReason;
use order_streams::entry::Last;
use order_streams::order::{Moment, Order};
use order_streams::status::{IllegalTransition, Step, step};
use tokio::time::sleep;
use uuid::Uuid;
use wire::{Delivered, Failure, Reason};

use nats::backoff::backoff;
use nats::failure::RETRY;
use telemetry::SpanRole;

use super::store::{GiveUp, Outcome, Records};
use crate::order::event;
use crate::order::request::Change;
use crate::order::tenancy;
use bridge::call::CallContext;

/// How often an order that others change at the same time is read again.
const ROUNDS: u32 = 8;
/// Full jitter below this between rounds; doubling.
const BACKOFF: std::time::Duration = std::time::Duration::from_millis(5);

/// The order's current state; NOT_FOUND if at most a tombstone is on the record, or if the caller may not see the
/// order.
pub(super) async fn get(records: &Records, id: Uuid, call: &CallContext) -> Result<Order, Failure> {
    let order = match records.read(id, call).await? {
        Some(Last::Order(order)) => Some(order),
        Some(Last::Tombstone(_)) | None => None,
    };
    tenancy::visible(order, id, call)
}

/// Takes a step. A status that the order has already succeeds with any etag: a repeat whose first answer was lost looks
/// like that. Otherwise a stale etag is reported before an illegal step, as the caller saw an old state of the order.
pub(super) async fn update(records: &Records, change: &Change, call: &CallContext) -> Result<Order, Failure> {
    for round in 0..ROUNDS {
        let order = get(records, change.id, call).await?;
        let allowed = step(order.body.status, change.to);
        if allowed == Ok(Step::Nothing) {
            return Ok(order);
        }
        let etag = order.etag();
        if change.etag.as_deref().is_some_and(|expected| expected != etag) {
            return Err(stale(&etag));
        }
        allowed.map_err(illegal)?;
        let body = order.body.step(change.to, &change.reason, Moment::now());
        let writes = call.under("publish order_status_updated", SpanRole::Producer);
        let event = event::updated(&body, order.first, &writes).map_err(|error| {
            let failure = Failure::new(Reason::Internal, "the order cannot be encoded");
            failure.delivered(Delivered::No).because(error)
        })?;
        match records.append(change.id, event, order.last, &writes).await {
            Ok(Outcome::Stored(last)) => return Ok(Order { body, first: order.first, last }),
            Ok(Outcome::Overtaken) => sleep(backoff(BACKOFF, round, 20 * BACKOFF)).await,
            Err(GiveUp::Never(failure) | GiveUp::Open(failure)) => return Err(failure),
        }
    }
    Err(Failure::new(Reason::Contention, "concurrent changes of the order prevented this one; repeat")
        .delivered(Delivered::No)
        .retry_after(RETRY))
}

fn stale(etag: &str) -> Failure {
    Failure::new(OrderReason::EtagMismatch, "the order changed since its etag was read; read it again")
        .delivered(Delivered::No)
        .with("etag", etag)
}

fn illegal(step: IllegalTransition) -> Failure {
    let (from, to) = (step.from, step.to);
    Failure::new(
        OrderReason::IllegalTransition,
        format!("an order cannot go from {} to {}", from.word(), to.word()),
    )
    .delivered(Delivered::No)
    .with("from", from.name())
    .with("to", to.name())
}
