//! Looking: the record of orders from one side, the ledger's reservations from the other, and what of a difference is
//! still one on a closer look. It only reads; must never know what is done about what it finds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use contract::inventory::v1::{ListReservationsRequest, ListReservationsResponse, Reservation};
use contract::{Failure, Reason};
use futures_util::{StreamExt, stream};
use link::streams::{INVENTORY, ORDERS};
use link::{Letters, Link, Store};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::judge::{Held, Kind, judge};
use super::report::Unread;
use crate::bridge::{Bridge, Lanes};
use crate::call::Call;
use crate::feed::register::{self, Entries, fingerprint};
use crate::order::clerk::Clerk;
use crate::order::event::Last;

/// Reservations of a page.
const PAGE: i32 = 1_000;
/// Orders that are looked at together.
const TOGETHER: usize = 200;
/// Reads of the record at the same time.
const READS: usize = 16;
/// Between two looks at what is on its way.
const PAUSE: Duration = Duration::from_millis(500);
/// What an answer may take, repeats included.
const LIMIT: Duration = Duration::from_secs(30);

/// Sees both sides.
pub(super) struct Eyes {
    pub(super) link: Link,
    pub(super) bridge: Bridge,
    pub(super) clerk: Clerk,
    pub(super) record: Store,
}

/// What the first look over everything says.
#[derive(Default)]
pub(super) struct Overview {
    pub(super) orders: usize,
    pub(super) reservations: usize,
    /// Orders that seem to differ, with the event that shipped each, where it is known. Some have moved on meanwhile.
    pub(super) suspects: Vec<(Uuid, Option<u64>)>,
    /// The newest entry of the record that the ledger knows.
    pub(super) newest: u64,
    /// The record's last entry, read after that.
    pub(super) end: u64,
    /// Whether all of the ledger's reservations were seen.
    pub(super) whole: bool,
    /// What could not be read.
    pub(super) unread: Vec<Unread>,
    /// How much more there is of that.
    pub(super) unnamed: usize,
    /// Dead letters that are there.
    pub(super) letters: usize,
}

/// What became of suspects.
#[derive(Default)]
pub(super) struct Sifted {
    /// Those that differ.
    pub(super) found: Vec<Found>,
    /// How many never stood still.
    pub(super) moving: usize,
    /// Those that could not be looked at.
    pub(super) unread: Vec<Unread>,
}

/// A difference that is none of a moment.
pub(super) struct Found {
    pub(super) id: Uuid,
    pub(super) kind: Kind,
    /// What the record says; nothing where it has no entry of the order.
    pub(super) order: Option<Entries>,
    /// What the ledger says.
    pub(super) held: Option<Held>,
    /// Whether the workers have not acknowledged the order's last event yet.
    pub(super) waiting: bool,
}

/// An order on a closer look.
enum Sight {
    Agrees,
    Differs(Found),
    /// It differs, and its last event may be on its way through a worker.
    Waits(Found),
    /// It changed between two reads.
    Moves(Uuid, Option<u64>),
    /// It could not be looked at.
    Unseen(Uuid, Option<u64>, String),
}

/// Reservations of one moment.
#[derive(Default)]
struct Rows {
    held: HashMap<Uuid, Held>,
    acknowledged: u64,
    forgotten: u64,
    /// The ledger's time of day, unix ms.
    now: u64,
}

pub(super) fn call() -> Call {
    Call::until(Instant::now() + LIMIT)
}

impl Eyes {
    pub(super) fn new(link: &Link) -> Eyes {
        let record = Store::new(link.clone(), ORDERS);
        let bridge = Bridge::new(link.clone(), Arc::new(Lanes::default()));
        link.clock().follow(INVENTORY);
        Eyes { link: link.clone(), bridge, clerk: Clerk::new(record.clone()), record }
    }

    /// Looks at everything once.
    pub(super) async fn overview(&self) -> anyhow::Result<Overview> {
        let register = register::take(&self.link).await?;
        let mut orders = register.orders;
        let mut overview = Overview { orders: orders.len(), unnamed: register.more, ..Overview::default() };
        let unread = |(sequence, why)| Unread::new(format!("entry {sequence} of {ORDERS}"), why);
        overview.unread.extend(register.unread.into_iter().map(unread));
        self.letters(&mut overview).await;
        let (mut token, mut forgotten, now) = (String::new(), 0, self.now().await?);
        loop {
            let request =
                ListReservationsRequest { page_size: PAGE, page_token: token, ..Default::default() };
            let page = match self.ask(&request).await {
                Ok(page) => page,
                // Without the first page it is not known that there is a ledger.
                Err(failure) if overview.reservations == 0 => return Err(failure.into()),
                Err(failure) => {
                    let what = format!("reservations after the first {}", overview.reservations);
                    overview.unread.push(Unread::new(what, failure));
                    break;
                }
            };
            forgotten = forgotten.max(number(page.forgotten));
            for reservation in &page.reservations {
                let (id, held) = match read(reservation) {
                    Ok(read) => read,
                    Err(why) => {
                        let what = format!("the reservation of {:?}", reservation.order_id);
                        overview.unread.push(Unread::new(what, why));
                        continue;
                    }
                };
                let order = orders.remove(&id);
                overview.reservations += 1;
                overview.newest = overview.newest.max(held.newest());
                if judge(order.as_ref(), Some(&held), forgotten, now).is_some() {
                    overview.suspects.push((id, order.and_then(|order| order.shipped)));
                }
            }
            token = page.next_page_token;
            if token.is_empty() {
                overview.whole = true;
                break;
            }
        }
        // Of an order that nothing was seen of, only who has seen all can say that nothing is held for it.
        if !overview.whole {
            orders.clear();
        }
        let without = orders.iter().filter(|(_, order)| judge(Some(order), None, forgotten, now).is_some());
        overview.suspects.extend(without.map(|(id, order)| (*id, order.shipped)));
        overview.newest = overview.newest.max(forgotten);
        overview.end = self.end().await?;
        Ok(overview)
    }

    /// Counts the dead letters, and names those that say nothing of an event.
    async fn letters(&self, overview: &mut Overview) {
        let (letters, mut from) = (Letters::new(&self.link), 1);
        loop {
            let letter = match letters.next(from).await {
                Ok(None) => return,
                Ok(Some(letter)) => letter,
                Err(why) => {
                    return overview.unread.push(Unread::new(format!("dead letters from {from} on"), why));
                }
            };
            from = letter.id + 1;
            overview.letters += 1;
            let what = format!("dead letter {}", letter.id);
            if letter.sequence.is_none() {
                overview.unread.push(Unread::new(what, "it does not say which event it is of"));
                continue;
            }
            match letters.recorded(&letter).await {
                Ok(true) => {}
                Ok(false) => overview.unread.push(Unread::new(what, "its event is not on record")),
                Err(why) => overview.unread.push(Unread::new(what, why)),
            }
        }
    }

    /// The ledger's time of day, in which reservations end: this machine's clock may be off.
    async fn now(&self) -> anyhow::Result<u64> {
        Store::new(self.link.clone(), INVENTORY).range(Instant::now() + LIMIT).await?;
        Ok(self.link.clock().unix_ms())
    }

    /// The record's last entry.
    pub(super) async fn end(&self) -> anyhow::Result<u64> {
        Ok(self.record.range(Instant::now() + LIMIT).await?.last)
    }

    /// Looks at suspects until each agrees, differs for good, or has had its time.
    pub(super) async fn sift(&self, suspects: Vec<(Uuid, Option<u64>)>, patience: Duration) -> Sifted {
        let until = Instant::now() + patience;
        let (mut open, mut sifted) = (suspects, Sifted::default());
        loop {
            let last = Instant::now() >= until;
            let mut still = Vec::new();
            for together in open.chunks(TOGETHER) {
                for sight in self.look(together).await {
                    match sight {
                        Sight::Agrees => {}
                        Sight::Differs(differs) => sifted.found.push(differs),
                        Sight::Waits(waits) if last => sifted.found.push(waits),
                        Sight::Waits(waits) => still.push((waits.id, waits.order.and_then(|o| o.shipped))),
                        Sight::Moves(..) if last => sifted.moving += 1,
                        Sight::Unseen(id, _, why) if last => {
                            sifted.unread.push(Unread::new(format!("order {id}"), why));
                        }
                        Sight::Moves(id, shipped) | Sight::Unseen(id, shipped, _) => {
                            still.push((id, shipped));
                        }
                    }
                }
            }
            if last || still.is_empty() {
                let last = |found: &Found| found.order.map_or(0, |order| order.last);
                sifted.found.sort_by_key(|found| (found.kind.name(), last(found), found.id));
                return sifted;
            }
            open = still;
            sleep(PAUSE).await;
        }
    }

    /// Looks at some orders: at the record, at the ledger, and at the record again. What is the same both times was so
    /// when the ledger was read.
    async fn look(&self, orders: &[(Uuid, Option<u64>)]) -> Vec<Sight> {
        let before = self.entries(orders).await;
        let rows = match self.rows(orders).await {
            Ok(rows) => rows,
            Err(why) => {
                let unseen = |(id, shipped): &(Uuid, _)| Sight::Unseen(*id, *shipped, why.to_string());
                return orders.iter().map(unseen).collect();
            }
        };
        let (after, mut sights) = (self.entries(orders).await, Vec::with_capacity(orders.len()));
        for ((id, shipped), both) in orders.iter().zip(before.into_iter().zip(after)) {
            let (before, order) = match both {
                (Ok(before), Ok(order)) => (before, order),
                (Err(why), _) | (_, Err(why)) => {
                    sights.push(Sight::Unseen(*id, *shipped, why.to_string()));
                    continue;
                }
            };
            if before != order {
                sights.push(Sight::Moves(*id, *shipped));
                continue;
            }
            let held = rows.held.get(id).copied();
            let Some(kind) = judge(order.as_ref(), held.as_ref(), rows.forgotten, rows.now) else {
                sights.push(Sight::Agrees);
                continue;
            };
            let waiting = order.is_some_and(|order| order.last > rows.acknowledged);
            let found = Found { id: *id, kind, order, held, waiting };
            sights.push(if waiting { Sight::Waits(found) } else { Sight::Differs(found) });
        }
        sights
    }

    async fn entries(&self, orders: &[(Uuid, Option<u64>)]) -> Vec<Result<Option<Entries>, Failure>> {
        let read = |(id, shipped): (Uuid, Option<u64>)| async move {
            let entries = match self.clerk.read(id, &call()).await {
                Ok(last) => last.as_ref().map(Entries::of),
                // An event that is none: which one does not matter, as nobody can mend it here.
                Err(failure) if failure.is(Reason::RecordUnreadable) => Some(Entries::unreadable(0)),
                Err(failure) => return Err(failure),
            };
            Ok(entries.map(|entries| Entries { shipped: entries.shipped.or(shipped), ..entries }))
        };
        stream::iter(orders.iter().copied()).map(read).buffered(READS).collect().await
    }

    async fn rows(&self, orders: &[(Uuid, Option<u64>)]) -> anyhow::Result<Rows> {
        let ids: Vec<String> = orders.iter().map(|(id, _)| id.to_string()).collect();
        let (mut rows, mut token) = (Rows { acknowledged: u64::MAX, ..Rows::default() }, String::new());
        loop {
            let request =
                ListReservationsRequest { order_ids: ids.clone(), page_token: token, ..Default::default() };
            let page = self.ask(&request).await?;
            for reservation in &page.reservations {
                // One that names no order was named before, and is none of these.
                if let Ok((id, held)) = read(reservation) {
                    rows.held.insert(id, held);
                }
            }
            rows.acknowledged = rows.acknowledged.min(number(page.acknowledged));
            rows.forgotten = rows.forgotten.max(number(page.forgotten));
            token = page.next_page_token;
            if token.is_empty() {
                rows.now = self.now().await?;
                return Ok(rows);
            }
        }
    }

    async fn ask(&self, request: &ListReservationsRequest) -> Result<ListReservationsResponse, Failure> {
        self.bridge.ask(request, &call()).await
    }
}

fn read(reservation: &Reservation) -> anyhow::Result<(Uuid, Held)> {
    let id = Uuid::try_parse(&reservation.order_id)?;
    let items = reservation.items.iter().map(|item| (&*item.product_id, item.quantity));
    let ms = |at: &pbjson_types::Timestamp| {
        number(at.seconds)
            .saturating_mul(1_000)
            .saturating_add(u64::try_from(at.nanos / 1_000_000).unwrap_or(0))
    };
    let held = Held {
        phase: reservation.phase(),
        items: fingerprint(items),
        fence: number(reservation.fence),
        sequence: number(reservation.sequence),
        expires: reservation.expires_at.as_ref().map(ms),
    };
    Ok((id, held))
}

fn number(sequence: i64) -> u64 {
    u64::try_from(sequence).unwrap_or(0)
}

/// The last entry as the record has it, for a step that has to be written again.
pub(super) async fn order(clerk: &Clerk, id: Uuid) -> Result<Option<crate::order::record::Order>, Failure> {
    Ok(match clerk.read(id, &call()).await? {
        Some(Last::Order(order)) => Some(order),
        Some(Last::Tombstone(_)) | None => None,
    })
}
