//! Scan: reads the record of orders and the ledger's reservations, and looks again at orders that seem to differ. It
//! only reads. Must not know what is done about a difference.

use std::collections::HashMap;
use std::time::Duration;

use contract::OrderReason;
use contract::inventory::v1::{ListReservationsRequest, ListReservationsResponse, Reservation};
use futures_util::{StreamExt, stream};
use nats::{Connection, Store};
use order_streams::DeadLetters;
use order_streams::entry::Last;
use order_streams::order::Order;
use order_streams::{INVENTORY, ORDERS};
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use wire::Failure;

use super::diff::{Difference, HeldReservation, judge};
use crate::feed::scan::{self, Entries, OrderState, fingerprint};
use crate::service::repair::Repair;
use crate::typed::ask;
use bridge::Bridge;
use bridge::call::CallContext;

/// Reservations of a page.
const PAGE: i32 = 1_000;
/// Orders that are looked at in one batch.
const TOGETHER: usize = 200;
/// Reads of the record at the same time.
const READS: usize = 16;
/// Pause between two looks at orders that still change.
const PAUSE: Duration = Duration::from_millis(500);
/// Timeout of one request, repeats included.
const LIMIT: Duration = Duration::from_secs(30);

/// Reads both sides.
pub(super) struct Scanner {
    pub(super) link: Connection,
    pub(super) bridge: Bridge,
    pub(super) repair: Repair,
    pub(super) record: Store,
}

/// The result of the first scan over everything.
#[derive(Default)]
pub(super) struct Overview {
    pub(super) orders: usize,
    pub(super) tombstones: usize,
    pub(super) reservations: usize,
    /// Orders that seem to differ, with the event that shipped each, if known. Some have changed meanwhile.
    pub(super) suspects: Vec<(Uuid, Option<u64>)>,
    /// The newest entry of the record that the ledger knows.
    pub(super) newest: u64,
    /// The record's last entry, read after that.
    pub(super) end: u64,
    /// Whether all of the ledger's reservations were read.
    pub(super) whole: bool,
    /// What could not be read.
    pub(super) unread: Vec<Unread>,
    /// How much more could not be read.
    pub(super) unnamed: usize,
    /// Dead letters that exist.
    pub(super) letters: usize,
}

/// The result of the second look at suspects.
#[derive(Default)]
pub(super) struct Sifted {
    /// Those that differ.
    pub(super) found: Vec<ScanResult>,
    /// How many changed during every look.
    pub(super) moving: usize,
    /// Those that could not be read.
    pub(super) unread: Vec<Unread>,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Unread {
    pub(super) fn new(what: impl Into<String>, why: impl ToString) -> Unread {
        Unread { what: what.into(), why: why.to_string() }
    }

    pub(super) fn line(&self) -> String {
        format!("not read: {}: {}", self.what, self.why)
    }

    pub(super) fn json(&self) -> String {
        json!({ "kind": "not_read", "what": self.what, "why": self.why }).to_string()
    }
}

/// A difference that persists.
pub(super) struct ScanResult {
    pub(super) id: Uuid,
    pub(super) kind: Difference,
    /// What the record says; none if it has no entry of the order.
    pub(super) order: Option<Entries>,
    /// What the ledger says.
    pub(super) held: Option<HeldReservation>,
    /// Whether the workers have not acknowledged the order's last event yet.
    pub(super) waiting: bool,
}

/// The result of a look at one order.
enum Side {
    Agrees,
    Differs(ScanResult),
    /// It differs, and a worker may be processing its last event.
    Waits(ScanResult),
    /// It changed between two reads.
    Moves(Uuid, Option<u64>),
    /// It could not be read.
    Unseen(Uuid, Option<u64>, String),
}

/// Reservations at one point in time.
#[derive(Default)]
struct Rows {
    held: HashMap<Uuid, HeldReservation>,
    acknowledged: u64,
    forgotten: u64,
    /// The ledger's time, Unix ms.
    now: u64,
}

pub(super) fn call() -> CallContext {
    CallContext::until(Instant::now() + LIMIT)
}

impl Scanner {
    pub(super) fn new(link: &Connection) -> Scanner {
        let record = Store::new(link.clone(), ORDERS);
        let bridge = Bridge::new(link.clone(), crate::served::states());
        link.clock().follow(INVENTORY);
        Scanner { link: link.clone(), bridge, repair: Repair::new(record.clone()), record }
    }

    /// Reads everything once.
    pub(super) async fn overview(&self) -> anyhow::Result<Overview> {
        let scanned = scan::take(&self.link).await?;
        let mut orders = scanned.orders;
        let tombstones = orders.values().filter(|last| last.standing == OrderState::Tombstone).count();
        let mut overview = Overview {
            orders: orders.len() - tombstones,
            tombstones,
            unnamed: scanned.more,
            ..Overview::default()
        };
        let unread = |(sequence, why)| Unread::new(format!("entry {sequence} of {ORDERS}"), why);
        overview.unread.extend(scanned.unread.into_iter().map(unread));
        self.letters(&mut overview).await;
        let (mut token, mut forgotten, now) = (String::new(), 0, self.now().await?);
        loop {
            let request =
                ListReservationsRequest { page_size: PAGE, page_token: token, ..Default::default() };
            let page = match self.ask(&request).await {
                Ok(page) => page,
                // Without the first page it is unknown whether there is a ledger.
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
        // Only if all reservations were read, an order without one is known to hold nothing.
        if !overview.whole {
            orders.clear();
        }
        let without = orders.iter().filter(|(_, order)| judge(Some(order), None, forgotten, now).is_some());
        overview.suspects.extend(without.map(|(id, order)| (*id, order.shipped)));
        overview.newest = overview.newest.max(forgotten);
        overview.end = self.end().await?;
        Ok(overview)
    }

    /// Counts the dead letters, and reports those that name no event on the record.
    async fn letters(&self, overview: &mut Overview) {
        let (letters, mut from) = (DeadLetters::new(&self.link), 1);
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
                overview.unread.push(Unread::new(what, "it does not name its event"));
                continue;
            }
            match letters.recorded(&letter).await {
                Ok(true) => {}
                Ok(false) => overview.unread.push(Unread::new(what, "its event is not on the record")),
                Err(why) => overview.unread.push(Unread::new(what, why)),
            }
        }
    }

    /// The ledger's time, by which reservations expire: this machine's clock may be wrong.
    async fn now(&self) -> anyhow::Result<u64> {
        Store::new(self.link.clone(), INVENTORY).range(Instant::now() + LIMIT).await?;
        Ok(self.link.clock().unix_ms())
    }

    /// The record's last entry.
    pub(super) async fn end(&self) -> anyhow::Result<u64> {
        Ok(self.record.range(Instant::now() + LIMIT).await?.last)
    }

    /// Looks at suspects until each agrees, differs persistently, or has run out of time.
    pub(super) async fn sift(&self, suspects: Vec<(Uuid, Option<u64>)>, patience: Duration) -> Sifted {
        let until = Instant::now() + patience;
        let (mut open, mut sifted) = (suspects, Sifted::default());
        loop {
            let last = Instant::now() >= until;
            let mut still = Vec::new();
            for together in open.chunks(TOGETHER) {
                for sight in self.look(together).await {
                    match sight {
                        Side::Agrees => {}
                        Side::Differs(differs) => sifted.found.push(differs),
                        Side::Waits(waits) if last => sifted.found.push(waits),
                        Side::Waits(waits) => still.push((waits.id, waits.order.and_then(|o| o.shipped))),
                        Side::Moves(..) if last => sifted.moving += 1,
                        Side::Unseen(id, _, why) if last => {
                            sifted.unread.push(Unread::new(format!("order {id}"), why));
                        }
                        Side::Moves(id, shipped) | Side::Unseen(id, shipped, _) => {
                            still.push((id, shipped));
                        }
                    }
                }
            }
            if last || still.is_empty() {
                let last = |found: &ScanResult| found.order.map_or(0, |order| order.last);
                sifted.found.sort_by_key(|found| (found.kind.name(), last(found), found.id));
                return sifted;
            }
            open = still;
            sleep(PAUSE).await;
        }
    }

    /// Reads some orders from the record, then from the ledger, and from the record again. An entry that is the same
    /// both times was current when the ledger was read.
    async fn look(&self, orders: &[(Uuid, Option<u64>)]) -> Vec<Side> {
        let before = self.entries(orders).await;
        let rows = match self.rows(orders).await {
            Ok(rows) => rows,
            Err(why) => {
                let unseen = |(id, shipped): &(Uuid, _)| Side::Unseen(*id, *shipped, why.to_string());
                return orders.iter().map(unseen).collect();
            }
        };
        let (after, mut sights) = (self.entries(orders).await, Vec::with_capacity(orders.len()));
        for ((id, shipped), both) in orders.iter().zip(before.into_iter().zip(after)) {
            let (before, order) = match both {
                (Ok(before), Ok(order)) => (before, order),
                (Err(why), _) | (_, Err(why)) => {
                    sights.push(Side::Unseen(*id, *shipped, why.to_string()));
                    continue;
                }
            };
            if before != order {
                sights.push(Side::Moves(*id, *shipped));
                continue;
            }
            let held = rows.held.get(id).copied();
            let Some(kind) = judge(order.as_ref(), held.as_ref(), rows.forgotten, rows.now) else {
                sights.push(Side::Agrees);
                continue;
            };
            let waiting = order.is_some_and(|order| order.last > rows.acknowledged);
            let found = ScanResult { id: *id, kind, order, held, waiting };
            sights.push(if waiting { Side::Waits(found) } else { Side::Differs(found) });
        }
        sights
    }

    async fn entries(&self, orders: &[(Uuid, Option<u64>)]) -> Vec<Result<Option<Entries>, Failure>> {
        let read = |(id, shipped): (Uuid, Option<u64>)| async move {
            let entries = match self.repair.read(id, &call()).await {
                Ok(last) => last.as_ref().map(Entries::of),
                // Which entry it is does not matter, as it cannot be repaired here.
                Err(failure) if failure.is(OrderReason::RecordUnreadable) => Some(Entries::unreadable(0)),
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
                // One without a valid order id was reported before, and is none of these.
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
        ask(&self.bridge, request, &call()).await
    }
}

fn read(reservation: &Reservation) -> anyhow::Result<(Uuid, HeldReservation)> {
    let id = Uuid::try_parse(&reservation.order_id)?;
    let items = reservation.items.iter().map(|item| (&*item.product_id, item.quantity));
    let ms = |at: &pbjson_types::Timestamp| {
        number(at.seconds)
            .saturating_mul(1_000)
            .saturating_add(u64::try_from(at.nanos / 1_000_000).unwrap_or(0))
    };
    let held = HeldReservation {
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

/// The order's current state on the record, for a step that has to be written again.
pub(super) async fn order(repair: &Repair, id: Uuid) -> Result<Option<Order>, Failure> {
    Ok(match repair.read(id, &call()).await? {
        Some(Last::Order(order)) => Some(order),
        Some(Last::Tombstone(_)) | None => None,
    })
}
