//! The register: the record of orders read once from end to end, and what it says of each order at last. It takes as much
//! memory as a gateway's index. Must never know what anybody makes of it.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::header::{HeaderName, HeaderValue};
use contract::Item;
use contract::subject::order;
use link::streams::ORDERS;
use link::{Link, Store, StoreError};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::credit::Entry;
use super::tail::{Shape, Tail};
use crate::order::event::{Last, Stored};
use crate::order::record::Order;
use crate::order::status::Status;

const ATTEMPT: Duration = Duration::from_secs(10);
/// Entries that cannot be read and are named at the most.
const NAMED: usize = 1_000;
/// How long nothing may come.
const QUIET: Duration = Duration::from_secs(30);

/// What the record says of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entries {
    /// The last entry.
    pub last: u64,
    /// What it says.
    pub standing: Standing,
    /// Stands for its items.
    pub items: u64,
    /// The event that shipped it, where that is known.
    pub shipped: Option<u64>,
}

/// What an order's last entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The order has this status.
    Order(Status),
    /// There is no order.
    Tombstone,
    /// Nothing that could be read.
    Unreadable,
}

/// The record, read once from end to end.
#[derive(Debug, Default)]
pub struct Register {
    /// What it says of each order at last.
    pub orders: HashMap<Uuid, Entries>,
    /// Entries that say nothing where something should be known, and why: lost ones, those of no order, and those that are
    /// the last of their order and cannot be read.
    pub unread: Vec<(u64, String)>,
    /// How many more there are than are named.
    pub more: usize,
}

/// Why there is no register.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The store.
    #[error("the record of orders cannot be read: {0}")]
    Store(#[from] StoreError),
    /// Nothing came.
    #[error("the record of orders cannot be read: nothing came for {QUIET:?}, at entry {0}")]
    Quiet(u64),
}

impl Entries {
    /// Of an entry that was read by itself.
    pub fn of(last: &Last) -> Entries {
        match last {
            Last::Tombstone(last) => {
                Entries { last: *last, standing: Standing::Tombstone, items: 0, shipped: None }
            }
            Last::Order(order) => Entries::of_order(order),
        }
    }

    fn of_order(order: &Order) -> Entries {
        let (status, last) = (order.body.status, order.last);
        let items = order.body.items.iter().map(|Item { product, quantity }| (&**product, *quantity));
        let shipped = (status == Status::Shipped).then_some(last);
        Entries { last, standing: Standing::Order(status), items: fingerprint(items), shipped }
    }

    /// Of an entry that cannot be read.
    pub fn unreadable(last: u64) -> Entries {
        Entries { last, standing: Standing::Unreadable, items: 0, shipped: None }
    }
}

/// A number that stands for items, whatever their order: a repeat may have held them in another one than is recorded.
pub fn fingerprint<'a>(items: impl Iterator<Item = (&'a str, u32)>) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let (mut items, mut hasher) = (items.collect::<Vec<_>>(), DefaultHasher::new());
    items.sort_unstable();
    items.hash(&mut hasher);
    hasher.finish()
}

/// Reads the record as far as it goes now.
pub async fn take(link: &Link) -> Result<Register, RegisterError> {
    let range = Store::new(link.clone(), ORDERS).range(Instant::now() + ATTEMPT).await?;
    let (mut orders, mut next) = (HashMap::new(), range.first.max(1));
    let (mut faults, mut more) = (Vec::new(), 0);
    let mut tail = Tail::new(link.clone(), Shape::Whole, next);
    let mut entries = Vec::new();
    while next <= range.last {
        timeout(QUIET, tail.fill(&mut entries)).await.map_err(|_| RegisterError::Quiet(next))?;
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
    // What a later entry says anew does not matter any more.
    let last = |sequence, id: &Option<Uuid>| id.is_none_or(|id| orders[&id].last == sequence);
    let unread = faults.into_iter().filter(|(sequence, id, _)| last(*sequence, id));
    let unread = unread.map(|(sequence, _, why)| (sequence, why)).collect();
    Ok(Register { orders, unread, more })
}

/// What an entry says.
enum Read {
    Entries(Uuid, Entries),
    /// Nothing of its order.
    Unreadable(Uuid, String),
    /// Not even of which order it is.
    Nothing(String),
}

type Fault = (u64, Option<Uuid>, String);

fn keep(faults: &mut Vec<Fault>, more: &mut usize, fault: Fault) {
    if faults.len() < NAMED { faults.push(fault) } else { *more += 1 }
}

fn read(entry: &Entry) -> Read {
    let Some(message) = &entry.message else { return Read::Nothing("the record has lost it".to_owned()) };
    let Some(id) = message.subject.rsplit('.').next().and_then(order) else {
        return Read::Nothing(format!("its subject names no order: {}", message.subject));
    };
    let header = |name| message.headers.as_ref()?.get(HeaderName::from_static(name)).map(HeaderValue::as_str);
    let stored = Stored { subject: &message.subject, sequence: entry.sequence, header };
    match stored.read(&message.payload) {
        Ok(last) => Read::Entries(id, Entries::of(&last)),
        Err(why) => Read::Unreadable(id, why.to_string()),
    }
}
