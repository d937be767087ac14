//! The worker's access to the stream ORDERS: an order's last entry, and tombstones. Must not write orders: the gateway
//! does.

use std::time::Duration;

use contract::orders::v1::OrderStatus;
use contract::{Item, subject};
use nats::backoff::backoff;
use nats::{Connection, Expect, Guard, Store, StoreError};
use order_streams::entry::{DamagedEntry, Entry, EntryKind};
use order_streams::event::Event;
use tokio::time::Instant;
use uuid::Uuid;

use crate::waits::BURY;

/// Reads orders and appends tombstones.
#[derive(Clone)]
pub struct Orders {
    store: Store,
}

/// The last entry of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// There is none.
    Nothing,
    /// A tombstone, with its sequence.
    Tombstone(u64),
    /// The order, with the sequence of its last event.
    Order(OrderStatus, u64),
}

/// The last entry of an order, with its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundEntry {
    /// The entry.
    pub last: Last,
    /// The items ordered; empty without an order.
    pub items: Vec<Item>,
    /// The sequence of the order's first event; 0 without an order.
    first: u64,
}

impl Last {
    /// Its sequence; 0 for none.
    pub fn sequence(self) -> u64 {
        match self {
            Last::Nothing => 0,
            Last::Tombstone(sequence) | Last::Order(_, sequence) => sequence,
        }
    }
}

impl Orders {
    /// Orders over this connection. No tombstone is written while the guard finds a stream mismatch.
    pub fn new(link: Connection, guard: Guard) -> Orders {
        Orders { store: Store::new(link, order_streams::ORDERS).guarded(guard) }
    }

    /// Appends a tombstone if the order's last entry is still `expected`, and returns the last entry: the tombstone, or
    /// the entry that came first. Another worker's tombstone serves as well as our own.
    pub async fn bury(&self, order: Uuid, expected: u64, deadline: Instant) -> Result<Last, StoreError> {
        let filter = subject::entries(order);
        let (mut open, mut attempt) = (false, 0);
        loop {
            let tombstone = Event::tombstone(order);
            let (headers, payload) = (tombstone.header_map(), tombstone.payload.into());
            let expect = Expect::LastOf { filter: &filter, sequence: expected };
            let until = deadline.min(Instant::now() + BURY);
            let trouble = match self.store.append(&tombstone.subject, headers, payload, expect, until).await {
                Ok(sequence) => return Ok(Last::Tombstone(sequence)),
                Err(StoreError::Conflict { .. }) => match self.last(order, until).await {
                    // A conflict that shows nothing newer proves nothing (docs/protocol.md#fence-and-tombstone):
                    // repeat.
                    Ok(last) if last.sequence() == expected || last == Last::Nothing => {
                        StoreError::Undetermined("wrong last sequence, but no newer entry".to_owned())
                    }
                    Ok(last) => return Ok(last),
                    Err(error) => error,
                },
                Err(
                    error @ (StoreError::Undetermined(_)
                    | StoreError::Unavailable(_)
                    | StoreError::Disconnected),
                ) => error,
                Err(error) => return Err(error),
            };
            let pause = backoff(Duration::from_millis(10), attempt, Duration::from_millis(500));
            open |= matches!(trouble, StoreError::Undetermined(_));
            if Instant::now() + pause >= deadline {
                return Err(if open { StoreError::Undetermined(trouble.to_string()) } else { trouble });
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn last(&self, order: Uuid, deadline: Instant) -> Result<Last, StoreError> {
        let Some(message) = self.store.last(&subject::entries(order), deadline).await? else {
            return Ok(Last::Nothing);
        };
        let entry = Entry::of(&message).map_err(damaged)?;
        match entry.kind {
            EntryKind::Tombstone => Ok(Last::Tombstone(entry.sequence)),
            EntryKind::Created | EntryKind::Updated | EntryKind::Unknown(_) => {
                Ok(Last::Order(entry.content().map_err(damaged)?.status(), entry.sequence))
            }
        }
    }

    /// An order's last entry, read from the leader.
    pub async fn find(&self, order: Uuid, deadline: Instant) -> Result<FoundEntry, StoreError> {
        let nothing = |last| FoundEntry { last, items: Vec::new(), first: 0 };
        let Some(message) = self.store.last(&subject::entries(order), deadline).await? else {
            return Ok(nothing(Last::Nothing));
        };
        let entry = Entry::of(&message).map_err(damaged)?;
        if entry.kind == EntryKind::Tombstone {
            return Ok(nothing(Last::Tombstone(entry.sequence)));
        }
        let (status, items) = entry.items().map_err(damaged)?;
        // If the header is damaged, the search for an earlier event finds this one at least.
        let first = entry.first().unwrap_or(entry.sequence);
        Ok(FoundEntry { last: Last::Order(status, entry.sequence), items, first })
    }

    /// The event that shipped an order whose status is SHIPPED or DELIVERED: it need not be the last one.
    pub async fn shipped(
        &self,
        order: Uuid,
        found: &FoundEntry,
        deadline: Instant,
    ) -> Result<u64, StoreError> {
        let (filter, mut from) = (subject::entries(order), found.first);
        while let Some(message) = self.store.next(&filter, from, deadline).await? {
            let entry = Entry::of(&message).map_err(damaged)?;
            let is_event = entry.kind != EntryKind::Tombstone;
            if is_event && entry.content().map_err(damaged)?.status() == OrderStatus::Shipped {
                return Ok(entry.sequence);
            }
            from = entry.sequence + 1;
        }
        Err(strange(found.last.sequence(), "its order has no event that shipped it"))
    }

    /// The last sequence of the record, read from the leader.
    pub async fn end(&self, deadline: Instant) -> Result<u64, StoreError> {
        self.store.range(deadline).await.map(|range| range.last)
    }
}

fn damaged(entry: DamagedEntry) -> StoreError {
    strange(entry.sequence, &entry.damage.to_string())
}

fn strange(sequence: u64, why: &str) -> StoreError {
    StoreError::Unexpected(format!("the event {sequence}: {why}"))
}
