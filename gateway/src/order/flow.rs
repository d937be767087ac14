//! Placing an order: check, reserve, record. Decides what each answer on the way means; how the calls travel and how
//! the record is kept is not known here.

use std::collections::HashSet;
use std::time::Duration;

use contract::inventory::v1::{Item, ItemAvailability, ReleaseInventoryRequest, ReserveInventoryRequest};
use contract::orders::v1::CheckInventoryRequest;
use contract::{Delivered, Failure, Reason};
use link::failure::RETRY;
use link::inbox::backoff;
use telemetry::Kind;
use tokio::time::{Instant, sleep};

use super::event::{Event, Last};
use super::record::{Body, Moment, Order};
use super::request::NewOrder;
use super::store::{GiveUp, Outcome, Records};
use super::violation;
use crate::bridge::Bridge;
use crate::call::Call;
use crate::waits::RELEASE;

/// How often a reservation is asked for. One that was given up before its record costs two rounds at the most: one that
/// finds the tombstone, and one in which the ledger hears of it. More than that says that something is wrong.
const ROUNDS: u32 = 6;
/// Full jitter below this between rounds; doubling.
const BACKOFF: Duration = Duration::from_millis(20);

/// What a caller is told of a contradiction; what it is, is logged.
const CONTRADICTION: &str = "the services behind contradict each other";

/// One order on its way.
pub(super) struct Flow {
    pub(super) bridge: Bridge,
    pub(super) records: Records,
    pub(super) order: NewOrder,
    pub(super) call: Call,
}

/// An order that was not placed.
pub(super) struct Stopped {
    /// Why not.
    pub(super) failure: Failure,
    /// Whether a reservation may be left that certainly no record of this call will follow.
    pub(super) holds: bool,
}

/// What is on the record after an append.
enum Recorded {
    /// The order, ours or a twin's.
    Order(Order),
    /// No order: a tombstone came first. Its sequence.
    Buried(u64),
}

impl Flow {
    /// Refuses a hopeless order before anything is written. Only for a new request id is that final, and asked for: under
    /// the caller's own, the order may exist, or a twin of this call may be about to record it with that very stock.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        if !self.order.made {
            return Ok(());
        }
        let request = CheckInventoryRequest { items: self.items() };
        let reply = self.bridge.ask(&request, &self.call).await?;
        let told: HashSet<&str> = reply.items.iter().map(|item| item.product_id.as_str()).collect();
        let whole = request.items.iter().all(|item| told.contains(item.product_id.as_str()));
        if !whole || reply.items.len() != request.items.len() {
            return Err(violation("a check was answered for other items", CONTRADICTION));
        }
        if reply.available { Ok(()) } else { Err(insufficient(reply.items)) }
    }

    /// Reserves and records. To be run to its end, whatever happens to the caller.
    pub(super) async fn place(&self) -> Result<Order, Stopped> {
        // The newest tombstone that was found behind a reservation.
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
                    // Another reservation may be behind the tombstone already, ours or a twin's: look first.
                    Recorded::Buried(tombstone) => buried = tombstone,
                }
            } else if let Err(failure) = self.ask_release(&self.call).await {
                // The ledger has not heard of the tombstone; a release names it.
                tracing::debug!(order = %self.order.id, %failure, "a tombstoned reservation was not released");
            }
            if self.call.over() {
                break;
            }
        }
        let message = "the reservation ended before the order was recorded; repeat with the same request_id";
        let failure = Failure::new(Reason::ReservationExpired, message).delivered(Delivered::No);
        // What is reserved under this id by now, if anything is, is a twin's.
        Err(Stopped::empty(failure.retry_after(RETRY)))
    }

    /// The sequence that the record has to expect.
    async fn reserve(&self) -> Result<u64, Failure> {
        let request = ReserveInventoryRequest {
            order_id: self.order.id.to_string(),
            items: self.items(),
            ttl_seconds: None,
        };
        let reply = self.bridge.ask(&request, &self.call).await?;
        match u64::try_from(reply.fence) {
            Ok(fence) if reply.reserved && reply.order_id == request.order_id => Ok(fence),
            _ => Err(violation("a reservation was answered with nonsense", CONTRADICTION)),
        }
    }

    /// A refusal may be about our own order: recorded long ago, its reservation long shipped.
    async fn refused(&self, refusal: Failure) -> Result<Order, Failure> {
        if refusal.is(Reason::RequestIdReused) {
            return Err(reused());
        }
        let finished = refusal.is(Reason::OrderFinished);
        if !finished && !refusal.is(Reason::InsufficientStock) {
            return Err(refusal);
        }
        match self.records.read(self.order.id, &self.call).await? {
            Some(Last::Order(order)) => self.replay(order),
            Some(Last::Tombstone(_)) | None if finished => Err(violation(
                "the stock knows the order as finished, the record does not know it",
                CONTRADICTION,
            )),
            Some(Last::Tombstone(_)) | None => Err(refusal),
        }
    }

    /// Records the order behind this sequence, unless something else is there already.
    async fn record(&self, fence: u64) -> Result<Recorded, Stopped> {
        let body = Body::place(&self.order, Moment::now());
        let call = self.call.under("publish order_created", Kind::Producer);
        let event = Event::created(&body, &call).map_err(|error| {
            let failure = Failure::new(Reason::Internal, "the order cannot be written").because(error);
            Stopped { failure, holds: true }
        })?;
        match self.records.append(body.id, event, fence, &call).await {
            Ok(Outcome::Stored(sequence)) => {
                Ok(Recorded::Order(Order { body, first: sequence, last: sequence }))
            }
            Ok(Outcome::Overtaken) => match self.records.read(body.id, &self.call).await {
                Ok(Some(Last::Order(order))) => Ok(Recorded::Order(order)),
                Ok(Some(Last::Tombstone(tombstone))) => Ok(Recorded::Buried(tombstone)),
                // A new leader that is a moment behind: nothing newer is known.
                Ok(None) => Ok(Recorded::Buried(fence)),
                Err(failure) => Err(Stopped::empty(failure)),
            },
            Err(GiveUp::Never(failure)) => Err(Stopped { failure, holds: true }),
            Err(GiveUp::Open(failure)) => Err(Stopped::empty(failure)),
        }
    }

    /// The order as it is now, if it is the one that was asked for. Its stock stays where it is: it is the order's.
    fn replay(&self, order: Order) -> Result<Order, Failure> {
        if order.body.answers(&self.order) {
            return Ok(order);
        }
        Err(reused())
    }

    /// Gives back a reservation that no record will follow.
    pub(super) async fn release(&self) {
        let call = Call { deadline: Instant::now() + RELEASE, ..self.call.clone() };
        for repeat in 0.. {
            match self.ask_release(&call).await {
                Ok(()) => return,
                // A twin recorded it meanwhile: the stock is the order's.
                Err(failure) if failure.is(Reason::OrderExists) => return,
                Err(failure) if failure.is(Reason::NatsDisconnected) && !call.over() => {
                    sleep(backoff(10 * BACKOFF, repeat, RELEASE / 10)).await;
                }
                Err(failure) => {
                    tracing::info!(order = %self.order.id, %failure, "a reservation is left to its expiry");
                    return;
                }
            }
        }
    }

    async fn ask_release(&self, call: &Call) -> Result<(), Failure> {
        let request = ReleaseInventoryRequest {
            order_id: self.order.id.to_string(),
            reason: "the order was not recorded".to_owned(),
        };
        self.bridge.ask(&request, call).await.map(|_| ())
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

/// Whether a reservation may have been made all the same: its answer was lost, or made no sense. Giving back one that
/// was not costs nothing.
fn may_hold(refusal: &Failure) -> bool {
    let delivered = refusal.metadata.get("delivered").map(String::as_str);
    let certain = [Delivered::No, Delivered::Yes].map(|delivered| Some(delivered.name()));
    refusal.is(Reason::ContractViolation) || !certain.contains(&delivered)
}

fn reused() -> Failure {
    let message = "the request_id stands for an order of another customer or with other items";
    Failure::new(Reason::RequestIdReused, message).delivered(Delivered::Yes)
}

/// In the words of the workers' own refusal, so that a caller need not know who refused.
fn insufficient(items: Vec<ItemAvailability>) -> Failure {
    let short = items
        .into_iter()
        .filter(|item| item.available < item.requested)
        .map(|item| (item.product_id, format!("wanted {}, available {}", item.requested, item.available)));
    Failure::stock(Reason::InsufficientStock, short).delivered(Delivered::Yes)
}
