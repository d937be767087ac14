//! An order's reservation, brought in line with the record after one of the two was lost or restored. It reads the
//! record itself, and submits what the record says; the rules decide. Stock of an order that lives is never given back.

use contract::orders::v1::OrderStatus;
use contract::{Delivered, Failure, Reason};
use tokio::time::Instant;
use uuid::Uuid;

use crate::ledger::{Denial, Ledger};
use crate::orders::{Found, Last, Orders};
use crate::stock::{Command, Phase, Release, Reservation};

/// Orders move on meanwhile; more rounds than an order has statuses say that something is wrong.
const ROUNDS: u32 = 8;

/// Settles reservations.
#[derive(Clone)]
pub struct Settler {
    ledger: Ledger,
    orders: Orders,
}

/// What is held for an order, as far as it matters here.
#[derive(Clone, Copy)]
struct Hold {
    phase: Phase,
    fence: u64,
    newest: u64,
}

impl Hold {
    fn of(reservation: &Reservation) -> Hold {
        Hold { phase: reservation.phase, fence: reservation.fence, newest: reservation.newest() }
    }

    fn holds(&self) -> bool {
        matches!(self.phase, Phase::Held { .. } | Phase::Bound { .. })
    }
}

/// Why a reservation is not settled.
pub enum Unsettled {
    /// The rules, or the ledger.
    Denied(Denial),
    /// Anything else.
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

impl From<link::StoreError> for Unsettled {
    fn from(error: link::StoreError) -> Unsettled {
        Unsettled::Failed(link::failure::of_store(&error))
    }
}

impl Settler {
    /// Settles reservations of this ledger by this record.
    pub fn new(ledger: Ledger, orders: Orders) -> Settler {
        Settler { ledger, orders }
    }

    /// Settles the reservation of an order whose last entry on the record is `seen`; 0 for none.
    pub async fn settle(&self, order: Uuid, seen: u64, deadline: Instant) -> Result<(), Unsettled> {
        let mut found = self.orders.find(order, deadline).await?;
        if found.last.sequence() != seen {
            return Err(again("the order moved on; look again").into());
        }
        for _ in 0..ROUNDS {
            let left = self.act(order, &found, deadline).await?;
            let now = self.orders.find(order, deadline).await?;
            // A reservation that was made for an order that was cancelled meanwhile, after the consumer had seen that.
            if now.last.sequence() == left {
                return Ok(());
            }
            found = now;
        }
        Err(again("the order moves on all the time; repeat").into())
    }

    /// Does what the record asks for, and returns the sequence of its last entry then.
    async fn act(&self, order: Uuid, found: &Found, deadline: Instant) -> Result<u64, Unsettled> {
        self.ledger.catch_up(deadline).await?;
        let (hold, floor) = {
            let stock = self.ledger.stock();
            (stock.reservation(&order).map(Hold::of), stock.horizon().floor)
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
                return Err(Failure::new(Reason::Unsettled, why).delivered(Delivered::Yes).into());
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

    /// Holds an order's items until its next event, unless it does.
    async fn reserve(&self, order: Uuid, found: &Found, deadline: Instant) -> Result<(), Unsettled> {
        let command = Command::Reserve { order, items: found.items.clone(), expires_at: None };
        self.submit(command, deadline).await
    }

    /// Has what was shipped leave. An id that was worked off and forgotten since has left already.
    async fn ship(
        &self,
        order: Uuid,
        event: u64,
        hold: Option<Hold>,
        floor: u64,
        found: &Found,
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
        // Other items than the order's never leave in its name.
        self.reserve(order, found, deadline).await?;
        self.submit(Command::Ship(order, event), deadline).await
    }

    /// Gives back what is held for no order, behind a tombstone that is newer than all that the ledger knows of it.
    /// What has not ended yet may still get its order, unless the tombstone that its record has to expect is lost.
    async fn disown(&self, order: Uuid, hold: Hold, last: u64, deadline: Instant) -> Result<u64, Unsettled> {
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
                // Somebody was first; the next round sees who.
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

/// Numbers that the ledger knows would come again: a tombstone with one of them says nothing.
fn short(end: u64, known: u64) -> Failure {
    let why =
        format!("the record ends at {end}, and the ledger knows its entry {known}: it has lost its end");
    Failure::new(Reason::Unsettled, why).delivered(Delivered::Yes)
}

fn again(why: &str) -> Failure {
    Failure::new(Reason::Contention, why).delivered(Delivered::Yes).retry_after(link::failure::RETRY)
}
