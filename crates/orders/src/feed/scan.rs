//! Scan: reads the record of orders once from end to end, and keeps the last state of each order. Takes as much memory
//! as a gateway's index. Must not depend on its users.

use std::collections::HashMap;
use std::time::Duration;

use contract::Item;
use nats::{Connection, EntryShape, NO_LEADER, Store, StoreError, StreamEntry, StreamReader};
use order_streams::ORDERS;
use order_streams::entry::{Entry, Last};
use order_streams::order::Order;
use order_streams::status::Status;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

const ATTEMPT: Duration = Duration::from_secs(10);
/// The most unreadable entries that are listed.
const NAMED: usize = 1_000;
/// How long the scan waits for the next entry.
const QUIET: Duration = Duration::from_secs(30);

/// What the record says of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entries {
    /// The last entry.
    pub last: u64,
    /// What it says.
    pub standing: OrderState,
    /// A fingerprint of its items.
    pub items: u64,
    /// The event that shipped it, if known.
    pub shipped: Option<u64>,
}

/// What an order's last entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderState {
    /// The order has this status.
    Order(Status),
    /// There is no order.
    Tombstone,
    /// The entry cannot be read.
    Unreadable,
}

/// The record, read once from end to end.
#[derive(Debug, Default)]
pub struct Scan {
    /// The last state of each order.
    pub orders: HashMap<Uuid, Entries>,
    /// Entries whose content is missing here, and why: lost ones, those that belong to no order, and unreadable ones
    /// that are the last of their order.
    pub unread: Vec<(u64, String)>,
    /// How many more there are than are listed.
    pub more: usize,
}

/// Why the scan failed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The store failed.
    #[error("the record of orders cannot be read: {0}")]
    Store(#[from] StoreError),
    /// No entry arrived in time.
    #[error(
        "the record of orders cannot be read: no entry arrived for {QUIET:?}, at entry {next} ({why}); {NO_LEADER}"
    )]
    Quiet {
        /// The entry.
        next: u64,
        /// What became of the last consumer.
        why: String,
    },
}

impl Entries {
    /// From an entry that was read on its own.
    pub fn of(last: &Last) -> Entries {
        match last {
            Last::Tombstone(last) => {
                Entries { last: *last, standing: OrderState::Tombstone, items: 0, shipped: None }
            }
            Last::Order(order) => Entries::of_order(order),
        }
    }

    fn of_order(order: &Order) -> Entries {
        let (status, last) = (order.body.status, order.last);
        let items = order.body.items.iter().map(|Item { product, quantity }| (&**product, *quantity));
        let shipped = (status == Status::Shipped).then_some(last);
        Entries { last, standing: OrderState::Order(status), items: fingerprint(items), shipped }
    }

    /// For an entry that cannot be read.
    pub fn unreadable(last: u64) -> Entries {
        Entries { last, standing: OrderState::Unreadable, items: 0, shipped: None }
    }
}

/// A hash of the items in any order: a repeat may have reserved them in another order than is recorded.
pub fn fingerprint<'a>(items: impl Iterator<Item = (&'a str, u32)>) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let (mut items, mut hasher) = (items.collect::<Vec<_>>(), DefaultHasher::new());
    items.sort_unstable();
    items.hash(&mut hasher);
    hasher.finish()
}

/// Reads the record up to its current end.
pub async fn take(link: &Connection) -> Result<Scan, ScanError> {
    let range = Store::new(link.clone(), ORDERS).range(Instant::now() + ATTEMPT).await?;
    let (mut orders, mut next) = (HashMap::new(), range.first.max(1));
    let (mut faults, mut more) = (Vec::new(), 0);
    let mut tail = StreamReader::new(link.clone(), ORDERS, EntryShape::Whole, next);
    let mut entries = Vec::new();
    while next <= range.last {
        if timeout(QUIET, tail.fill(&mut entries)).await.is_err() {
            return Err(ScanError::Quiet { next, why: tail.broken().to_owned() });
        }
        for entry in entries.drain(..) {
            next = entry.sequence + 1;
            let (id, mut read) = match read(&entry) {
                Read::Entries(id, entries) => (id, entries),
                Read::Unreadable(id, why) => {
                    keep(&mut faults, &mut more, (entry.sequence, Some(id), why));
                    (id, Entries::unreadable(entry.sequence))
                }
                Read::Nothing(why) => {
                    keep(&mut faults, &mut more, (entry.sequence, None, why));
                    continue;
                }
            };
            let before = orders.get(&id).and_then(|before: &Entries| before.shipped);
            read.shipped = read.shipped.or(before);
            orders.insert(id, read);
        }
    }
    tail.close().await;
    // An unreadable entry does not matter if a later one of its order was read.
    let last = |sequence, id: &Option<Uuid>| id.is_none_or(|id| orders[&id].last == sequence);
    let unread = faults.into_iter().filter(|(sequence, id, _)| last(*sequence, id));
    let unread = unread.map(|(sequence, _, why)| (sequence, why)).collect();
    Ok(Scan { orders, unread, more })
}

/// What an entry says.
enum Read {
    Entries(Uuid, Entries),
    /// The entry of this order cannot be read.
    Unreadable(Uuid, String),
    /// Not even its order is known.
    Nothing(String),
}

type Fault = (u64, Option<Uuid>, String);

fn keep(faults: &mut Vec<Fault>, more: &mut usize, fault: Fault) {
    if faults.len() < NAMED { faults.push(fault) } else { *more += 1 }
}

fn read(entry: &StreamEntry) -> Read {
    let Some(message) = &entry.message else { return Read::Nothing("the record has lost it".to_owned()) };
    let parsed = Entry::parse(entry.sequence, &message.subject, message.headers.as_ref(), &message.payload);
    match parsed.and_then(|entry| Ok((entry.id, entry.last()?))) {
        Ok((id, last)) => Read::Entries(id, Entries::of(&last)),
        Err(damaged) => match damaged.order {
            Some(id) => Read::Unreadable(id, damaged.to_string()),
            None => Read::Nothing(damaged.damage.to_string()),
        },
    }
}
