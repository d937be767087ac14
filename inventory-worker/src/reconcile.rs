//! Reconcile: brings an order's reservation in line with the record after one of the two was lost or restored. Reads
//! the record itself and submits what the record says; the rules decide. Stock of an active order is never released.

use contract::OrderReason;
use contract::orders::v1::OrderStatus;
use tokio::time::Instant;
use uuid::Uuid;
use wire::{Delivered, Failure, Reason};

use crate::ledger::{Denial, Ledger};
use crate::orders::{FoundEntry, Last, Orders};
use crate::stock::{Command, Phase, Release, Reservation};

/// Orders change meanwhile; more rounds than an order has statuses mean that something is wrong.
const ROUNDS: u32 = 8;

/// Reconciles reservations with the record.
#[derive(Clone)]
pub struct Reconciler {
    ledger: Ledger,
    orders: Orders,
}

/// The parts of a reservation that are needed here.
#[derive(Clone, Copy)]
struct ReservationHold {
    phase: Phase,
    fence: u64,
    newest: u64,
}

impl ReservationHold {
    fn of(reservation: &Reservation) -> ReservationHold {
        ReservationHold { phase: reservation.phase, fence: reservation.fence, newest: reservation.newest() }
    }

    fn holds(&self) -> bool {
        matches!(self.phase, Phase::Held { .. } | Phase::Bound { .. })
    }
}

/// Why a reservation was not reconciled.
pub enum Unsettled {
    /// The rules or the ledger refused.
    Denied(Denial),
    /// Any other failure.
    Failed(Failure),
}

impl From<Denial> for Unsettled {
    fn from(denial: Denial) -> Unsettled {
        Unsettled::Denied(denial)
    }
}

impl From<Failure> for Unsettled {
    fn from(failure: Failure) -> Unsettled {
        Unsettled::Failed(failure)
    }
}

impl From<nats::StoreError> for Unsettled {
    fn from(error: nats::StoreError) -> Unsettled {
        Unsettled::Failed(nats::failure::of_store(&error))
    }
}

impl Reconciler {
    /// Reconciles the reservations of this ledger with this record.
    pub fn new(ledger: Ledger, orders: Orders) -> Reconciler {
        Reconciler { ledger, orders }
    }

    /// Reconciles the reservation of an order whose last entry on the record is `seen`; 0 for none.
    pub async fn reconcile(&self, order: Uuid, seen: u64, deadline: Instant) -> Result<(), Unsettled> {
        let mut found = self.orders.find(order, deadline).await?;
        if found.last.sequence() != seen {
            return Err(again("the order has changed; look again").into());
        }
        for _ in 0..ROUNDS {
            let left = self.act(order, &found, deadline).await?;
            let now = self.orders.find(order, deadline).await?;
            // Read again: an order that was cancelled meanwhile would keep stock if the consumer is past that event.
            if now.last.sequence() == left {
                return Ok(());
            }
            found = now;
        }
        Err(again("the order keeps changing; repeat").into())
    }

    /// Does what the record requires, and returns the sequence of the last entry afterwards.
    async fn act(&self, order: Uuid, found: &FoundEntry, deadline: Instant) -> Result<u64, Unsettled> {
        self.ledger.catch_up(deadline).await?;
        let (hold, floor) = {
            let stock = self.ledger.stock();
            (stock.reservation(&order).map(ReservationHold::of), stock.horizon().floor)
        };
        match found.last {
            Last::Order(OrderStatus::Pending | OrderStatus::Confirmed, event) => {
                self.reserve(order, found, deadline).await?;
                self.submit(Command::Bind(order, event), deadline).await?;
            }
            Last::Order(OrderStatus::Cancelled | OrderStatus::Expired, event) => match hold {
                Some(hold) if hold.holds() || matches!(hold.phase, Phase::Shipped { .. }) => {
                    self.submit(Command::Cancel(order, event), deadline).await?;
                }
                _ => {}
            },
            Last::Order(OrderStatus::Shipped | OrderStatus::Delivered, _) => {
                let event = self.orders.shipped(order, found, deadline).await?;
                self.ship(order, event, hold, floor, found, deadline).await?;
            }
            Last::Order(OrderStatus::Unspecified, event) => {
                let why = format!("the event {event} has no status");
                return Err(Failure::new(OrderReason::Unsettled, why).delivered(Delivered::Yes).into());
            }
            Last::Nothing | Last::Tombstone(_) => {
                return match hold {
                    Some(hold) => self.disown(order, hold, found.last.sequence(), deadline).await,
                    None => Ok(found.last.sequence()),
                };
            }
        }
        Ok(found.last.sequence())
    }

    /// Reserves an order's items until its next event, unless they are reserved already.
    async fn reserve(&self, order: Uuid, found: &FoundEntry, deadline: Instant) -> Result<(), Unsettled> {
        let command = Command::Reserve { order, items: found.items.clone(), expires_at: None };
        self.submit(command, deadline).await
    }

    /// Ships the stock of a shipped order. If the id was processed and forgotten since, the units have left already.
    async fn ship(
        &self,
        order: Uuid,
        event: u64,
        hold: Option<ReservationHold>,
        floor: u64,
        found: &FoundEntry,
        deadline: Instant,
    ) -> Result<(), Unsettled> {
        let left = match hold.map(|hold| hold.phase) {
            None => event <= floor,
            Some(Phase::Shipped { .. } | Phase::Released { by: Release::Duplicate(_) }) => true,
            Some(_) => false,
        };
        if left {
            return Ok(());
        }
        // Fails if other items than the order's are held.
        self.reserve(order, found, deadline).await?;
        self.submit(Command::Ship(order, event), deadline).await
    }

    /// Releases what is held for no order, after a tombstone that is newer than all that the ledger knows of it. A
    /// reservation that has not expired may still get its order, unless the tombstone that its record expects is lost.
    async fn disown(
        &self,
        order: Uuid,
        hold: ReservationHold,
        last: u64,
        deadline: Instant,
    ) -> Result<u64, Unsettled> {
        let ended = match hold.phase {
            Phase::Held { expires_at } => {
                expires_at.is_some_and(|at| at <= self.ledger.clock().unix_ms()) || hold.fence > last
            }
            Phase::Bound { .. } => true,
            Phase::Released { .. } | Phase::Shipped { .. } => hold.newest > last,
        };
        if !ended {
            return Ok(last);
        }
        let tombstone = if last > hold.newest {
            last
        } else {
            let end = self.orders.end(deadline).await?;
            if end < hold.newest {
                return Err(short(end, hold.newest).into());
            }
            match self.orders.bury(order, last, deadline).await? {
                Last::Tombstone(tombstone) => tombstone,
                // Another entry came first; the next round reads it.
                Last::Order(..) | Last::Nothing => return Ok(last),
            }
        };
        match hold.phase {
            Phase::Held { .. } => self.submit(Command::Expire(order, tombstone), deadline).await?,
            Phase::Bound { .. } => self.submit(Command::Disown(order, tombstone), deadline).await?,
            Phase::Released { .. } | Phase::Shipped { .. } => {}
        }
        Ok(tombstone)
    }

    async fn submit(&self, command: Command, deadline: Instant) -> Result<(), Unsettled> {
        self.ledger.submit(command, deadline).await?;
        Ok(())
    }
}

/// The record would reuse sequences that the ledger knows, so a tombstone with one of them proves nothing.
fn short(end: u64, known: u64) -> Failure {
    let why = format!("the record ends at entry {end}, but the ledger knows entry {known}: its end was lost");
    Failure::new(OrderReason::Unsettled, why).delivered(Delivered::Yes)
}

fn again(why: &str) -> Failure {
    Failure::new(Reason::Contention, why).delivered(Delivered::Yes).retry_after(nats::failure::RETRY)
}
