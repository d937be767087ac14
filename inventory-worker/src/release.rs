//! Releases a reservation without an order: by a tombstone on ORDERS, whose compare-and-set decides between "order
//! recorded" and "reservation released", independent of clocks. Used by expiry and by `release_inventory`.

use contract::orders::v1::OrderStatus;
use telemetry::Span;
use tokio::time::Instant;
use uuid::Uuid;
use wire::{Delivered, Failure, Reason};

use crate::ledger::{Denial, Ledger};
use crate::orders::{Last, Orders};
use crate::stock::{Command, Phase, Release};

/// Releases reservations.
#[derive(Clone)]
pub struct Releaser {
    ledger: Ledger,
    orders: Orders,
}

/// The outcome for a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// It no longer holds anything, or never did.
    Gone,
    /// Its order exists, with this status since this event.
    Living(OrderStatus, u64),
    /// Its order exists; the ledger knows already.
    Settled,
}

/// A tombstone may be older than the current reservation; then the next round writes a newer one.
const ROUNDS: u32 = 8;

impl Releaser {
    /// Releases reservations of this ledger.
    pub fn new(ledger: Ledger, orders: Orders) -> Releaser {
        Releaser { ledger, orders }
    }

    /// The same, for work under this span.
    #[must_use]
    pub fn under(&self, span: &Span) -> Releaser {
        Releaser { ledger: self.ledger.under(span), orders: self.orders.clone() }
    }

    /// Releases an order's reservation if no order was recorded for it.
    pub async fn release(&self, order: Uuid, deadline: Instant) -> Result<ReleaseOutcome, Failure> {
        for _ in 0..ROUNDS {
            self.ledger.catch_up(deadline).await?;
            let reservation = self.ledger.stock().reservation(&order).map(|held| (held.phase, held.fence));
            let fence = match reservation {
                None | Some((Phase::Released { by: Release::Tombstone(_) }, _)) => {
                    return Ok(ReleaseOutcome::Gone);
                }
                Some((Phase::Held { .. }, fence)) => fence,
                Some((Phase::Bound { .. } | Phase::Shipped { .. } | Phase::Released { .. }, _)) => {
                    return Ok(ReleaseOutcome::Settled);
                }
            };
            let last = self.orders.bury(order, fence, deadline).await;
            match last.map_err(|error| nats::failure::of_store(&error))? {
                Last::Tombstone(tombstone) => {
                    self.submit(Command::Expire(order, tombstone), deadline).await?
                }
                Last::Order(status, event) => return Ok(ReleaseOutcome::Living(status, event)),
                Last::Nothing => {}
            }
        }
        Err(Failure::new(Reason::Contention, "the reservation keeps being renewed; repeat")
            .delivered(Delivered::Yes)
            .retry_after(nats::failure::RETRY))
    }

    /// Applies the status of an existing order to the ledger. `Ok(false)`: that is left to the consumer.
    pub async fn apply_status(
        &self,
        order: Uuid,
        status: OrderStatus,
        event: u64,
        acknowledged: u64,
        deadline: Instant,
    ) -> Result<bool, Failure> {
        let command = match status {
            OrderStatus::Pending | OrderStatus::Confirmed => Command::Bind(order, event),
            OrderStatus::Cancelled | OrderStatus::Expired => Command::Cancel(order, event),
            OrderStatus::Shipped | OrderStatus::Delivered if acknowledged >= event => {
                Command::Drop(order, event)
            }
            OrderStatus::Shipped | OrderStatus::Delivered | OrderStatus::Unspecified => return Ok(false),
        };
        self.submit(command, deadline).await.map(|()| true)
    }

    async fn submit(&self, command: Command, deadline: Instant) -> Result<(), Failure> {
        match self.ledger.submit(command, deadline).await {
            // Refused: the ledger has changed meanwhile, and its current state decides.
            Ok(_) | Err(Denial::Refused(_)) => Ok(()),
            Err(Denial::Failed(failure)) => Err(failure),
        }
    }
}
