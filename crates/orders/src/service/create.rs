//! CreateOrder: check, reserve, record. Decides what each answer means. Must not know how calls are sent or how the
//! record is stored. A twin is a concurrent call with the same request id.

use std::collections::HashSet;
use std::time::Duration;

use contract::OrderReason;
use contract::inventory::v1::{Item, ItemAvailability, ReleaseInventoryRequest, ReserveInventoryRequest};
use contract::orders::v1::CheckInventoryRequest;
use nats::backoff::backoff;
use nats::failure::RETRY;
use order_streams::entry::Last;
use order_streams::order::{Moment, Order};
use telemetry::SpanRole;
use tokio::time::{Instant, sleep};
use wire::{Delivered, Failure, Reason};

use super::store::{GiveUp, Outcome, Records};
use crate::order::event;
use crate::order::request::NewOrder;
use crate::order::violation;
use crate::typed::ask;
use crate::waits::RELEASE;
use bridge::Bridge;
use bridge::call::CallContext;

/// How often a reservation is requested. One that was given up before its record costs at most two rounds: one finds
/// the tombstone, and in one the ledger learns of it. More rounds mean that something is wrong.
const ROUNDS: u32 = 6;
/// Full jitter below this between rounds; doubling.
const BACKOFF: Duration = Duration::from_millis(20);

/// The message for the caller; the contradiction itself is logged.
const CONTRADICTION: &str = "the services behind the gateway contradict each other";

/// One order that is being created.
pub(super) struct CreateOrder {
    pub(super) bridge: Bridge,
    pub(super) records: Records,
    pub(super) order: NewOrder,
    pub(super) call: CallContext,
}

/// An order that was not placed.
pub(super) struct Stopped {
    /// Why not.
    pub(super) failure: Failure,
    /// Whether a reservation may be left for which this call will certainly record no order.
    pub(super) holds: bool,
}

/// What is on the record after an append.
enum Recorded {
    /// The order, ours or a twin's.
    Order(Order),
    /// No order: a tombstone came first. Its sequence.
    Buried(u64),
}

impl CreateOrder {
    /// Refuses an order that cannot be filled before anything is written. Skipped under the caller's own request id:
    /// the order may exist, or a twin of this call may be about to record it with that very stock.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        if !self.order.made {
            return Ok(());
        }
        let request = CheckInventoryRequest { items: self.items() };
        let reply = ask(&self.bridge, &request, &self.call).await?;
        let told: HashSet<&str> = reply.items.iter().map(|item| item.product_id.as_str()).collect();
        let whole = request.items.iter().all(|item| told.contains(item.product_id.as_str()));
        if !whole || reply.items.len() != request.items.len() {
            return Err(violation("the check was answered for other items", CONTRADICTION));
        }
        if reply.available { Ok(()) } else { Err(insufficient(reply.items)) }
    }

    /// Reserves and records. Has to run to its end even if the caller leaves.
    pub(super) async fn place(&self) -> Result<Order, Stopped> {
        // The newest tombstone that was found after a reservation.
        let mut buried = 0;
        for round in 0..ROUNDS {
            if round > 0 {
                self.pause(round - 1).await;
            }
            let fence = match self.reserve().await {
                Ok(fence) => fence,
                Err(refusal) if refusal.is(Reason::Contention) && round + 1 < ROUNDS => continue,
                Err(refusal) => {
                    let holds = may_hold(&refusal);
                    return self.refused(refusal).await.map_err(|failure| Stopped { failure, holds });
                }
            };
            if fence >= buried {
                match self.record(fence).await? {
                    Recorded::Order(order) => return self.replay(order).map_err(Stopped::empty),
                    // A newer reservation, ours or a twin's, may already expect the tombstone: reserve first.
                    Recorded::Buried(tombstone) => buried = tombstone,
                }
            } else if let Err(failure) = self.ask_release(&self.call).await {
                // The ledger does not know the tombstone yet; a release tells it.
                tracing::debug!(order = %self.order.id, %failure, "a tombstoned reservation was not released");
            }
            if self.call.over() {
                break;
            }
        }
        let message = "the reservation ended before the order was recorded; repeat with the same request_id";
        let failure = Failure::new(OrderReason::ReservationExpired, message).delivered(Delivered::No);
        // If anything is reserved under this id by now, it is a twin's.
        Err(Stopped::empty(failure.retry_after(RETRY)))
    }

    /// Reserves the stock; returns the fence, the sequence that the record has to expect.
    async fn reserve(&self) -> Result<u64, Failure> {
        let request = ReserveInventoryRequest {
            order_id: self.order.id.to_string(),
            items: self.items(),
            ttl_seconds: None,
        };
        let reply = ask(&self.bridge, &request, &self.call).await?;
        match u64::try_from(reply.fence) {
            Ok(fence) if reply.reserved && reply.order_id == request.order_id => Ok(fence),
            _ => Err(violation("the answer to the reservation is invalid", CONTRADICTION)),
        }
    }

    /// A refusal may concern our own order, if it was recorded and shipped long ago.
    async fn refused(&self, refusal: Failure) -> Result<Order, Failure> {
        if refusal.is(OrderReason::RequestIdReused) {
            return Err(reused());
        }
        let finished = refusal.is(OrderReason::OrderFinished);
        if !finished && !refusal.is(OrderReason::InsufficientStock) {
            return Err(refusal);
        }
        match self.records.read(self.order.id, &self.call).await? {
            Some(Last::Order(order)) => self.replay(order),
            Some(Last::Tombstone(_)) | None if finished => Err(violation(
                "the inventory has the order as finished, the record has no such order",
                CONTRADICTION,
            )),
            Some(Last::Tombstone(_)) | None => Err(refusal),
        }
    }

    /// Records the order after this sequence, unless another entry came first.
    async fn record(&self, fence: u64) -> Result<Recorded, Stopped> {
        let body = self.order.placed(Moment::now());
        let call = self.call.under("publish order_created", SpanRole::Producer);
        let event = event::created(&body, &call).map_err(|error| {
            let failure = Failure::new(Reason::Internal, "the order cannot be encoded").because(error);
            Stopped { failure, holds: true }
        })?;
        match self.records.append(body.id, event, fence, &call).await {
            Ok(Outcome::Stored(sequence)) => {
                Ok(Recorded::Order(Order { body, first: sequence, last: sequence }))
            }
            Ok(Outcome::Overtaken) => match self.records.read(body.id, &self.call).await {
                Ok(Some(Last::Order(order))) => Ok(Recorded::Order(order)),
                Ok(Some(Last::Tombstone(tombstone))) => Ok(Recorded::Buried(tombstone)),
                // A new leader may be briefly behind: nothing newer is known.
                Ok(None) => Ok(Recorded::Buried(fence)),
                Err(failure) => Err(Stopped::empty(failure)),
            },
            Err(GiveUp::Never(failure)) => Err(Stopped { failure, holds: true }),
            Err(GiveUp::Open(failure)) => Err(Stopped::empty(failure)),
        }
    }

    /// The order's current state, if it is the order that was requested. Its stock stays reserved.
    fn replay(&self, order: Order) -> Result<Order, Failure> {
        if self.order.asks_for(&order.body) {
            return Ok(order);
        }
        Err(reused())
    }

    /// Releases a reservation for which no order will be recorded.
    pub(super) async fn release(&self) {
        let call = CallContext { deadline: Instant::now() + RELEASE, ..self.call.clone() };
        for repeat in 0.. {
            match self.ask_release(&call).await {
                Ok(()) => return,
                // A twin recorded the order meanwhile: the stock belongs to it.
                Err(failure) if failure.is(OrderReason::OrderExists) => return,
                Err(failure) if failure.is(Reason::NatsDisconnected) && !call.over() => {
                    sleep(backoff(10 * BACKOFF, repeat, RELEASE / 10)).await;
                }
                Err(failure) => {
                    tracing::info!(order = %self.order.id, %failure, "a reservation was not released: it will expire");
                    return;
                }
            }
        }
    }

    async fn ask_release(&self, call: &CallContext) -> Result<(), Failure> {
        let request = ReleaseInventoryRequest {
            order_id: self.order.id.to_string(),
            reason: "the order was not recorded".to_owned(),
        };
        ask(&self.bridge, &request, call).await.map(|_| ())
    }

    async fn pause(&self, round: u32) {
        sleep(backoff(BACKOFF, round, 10 * BACKOFF)).await;
    }

    fn items(&self) -> Vec<Item> {
        self.order.items.iter().map(Into::into).collect()
    }
}

impl Stopped {
    fn empty(failure: Failure) -> Stopped {
        Stopped { failure, holds: false }
    }
}

/// Whether a reservation may exist despite the error: its answer was lost or invalid. Releasing one that does not exist
/// costs nothing.
fn may_hold(refusal: &Failure) -> bool {
    refusal.is(Reason::ContractViolation) || refusal.certainty() == Delivered::Unknown
}

fn reused() -> Failure {
    let message = "the request_id was already used for another customer or other items";
    Failure::new(OrderReason::RequestIdReused, message).delivered(Delivered::Yes)
}

/// Worded as the workers' refusal, so that a caller need not know who refused.
fn insufficient(items: Vec<ItemAvailability>) -> Failure {
    let short = items
        .into_iter()
        .filter(|item| item.available < item.requested)
        .map(|item| (item.product_id, format!("wanted {}, available {}", item.requested, item.available)));
    contract::reason::stock(OrderReason::InsufficientStock, short).delivered(Delivered::Yes)
}
