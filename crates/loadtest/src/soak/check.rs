//! Checks that the streams of a soak agree with its history. Pure: other files read the streams.

use std::collections::{BTreeMap, BTreeSet};

use contract::orders::v1::{Order, OrderStatus};
use inventory_worker::stock::{Entry, Fact, Stock};
use order_streams::status::{Status, Step, step};

use super::history::{Book, End};
use super::load::PRODUCTS;
use super::record::Row;
use super::watch::Seen;

/// One check, and what it found.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) count: usize,
    pub(crate) wrong: Vec<String>,
}

/// An order's events, oldest first.
type Orders = BTreeMap<String, Vec<(u64, Order)>>;

/// The input of the checks.
pub(crate) struct Evidence<'a> {
    pub(crate) book: &'a Book,
    /// ORDERS as each replica has it.
    pub(crate) orders: &'a [Vec<Row>],
    /// INVENTORY as each replica has it.
    pub(crate) ledger: &'a [Vec<Row>],
    /// INVENTORY from its first entry on, including purged ones.
    pub(crate) whole: &'a [Row],
    pub(crate) watched: &'a [Vec<Seen>],
}

/// All checks.
pub(crate) fn all(evidence: &Evidence<'_>) -> Vec<Check> {
    let record = evidence.orders.first().map(Vec::as_slice).unwrap_or_default();
    let mut checks = vec![equal("replicas of ORDERS are equal", evidence.orders)];
    checks.push(equal("replicas of INVENTORY are equal", evidence.ledger));
    let (orders, created) = histories(record);
    checks.push(created);
    checks.push(legal(&orders));
    checks.push(acknowledged(evidence.book, &orders));
    checks.push(updates(evidence.book, &orders));
    checks.push(undone(evidence.book, &orders));
    let (stock, replayed) = replay(evidence.whole);
    checks.push(replayed);
    checks.push(conserved(&stock, evidence.whole, &orders));
    checks.push(adjusted(evidence.book, evidence.whole));
    checks.push(watched(record, evidence.watched));
    let violations = evidence.book.violations.clone();
    let count = evidence.book.kinds.values().sum::<u64>();
    checks.push(Check {
        name: "every result of a call is in the truth table",
        count: usize::try_from(count).unwrap_or(0),
        wrong: violations,
    });
    checks
}

fn equal(name: &'static str, replicas: &[Vec<Row>]) -> Check {
    let mut wrong = Vec::new();
    let Some((first, others)) = replicas.split_first() else {
        return Check { name, count: 0, wrong: vec!["nothing was read".to_owned()] };
    };
    for (number, other) in others.iter().enumerate() {
        if other.len() != first.len() {
            wrong.push(format!("node0 has {} entries, node{} has {}", first.len(), number + 1, other.len()));
        }
        let differs = first.iter().zip(other).filter(|(one, two)| one != two);
        wrong.extend(
            differs.take(3).map(|(one, _)| format!("{} differs on node{}", one.sequence, number + 1)),
        );
    }
    Check { name, count: first.len(), wrong }
}

/// Groups the events by order. Each order has to be created once, under the id of its request.
fn histories(record: &[Row]) -> (Orders, Check) {
    let (mut orders, mut wrong) = (Orders::new(), Vec::new());
    for row in record {
        let Some((kind, id)) =
            row.subject.strip_prefix("orders.event.").and_then(|rest| rest.split_once('.'))
        else {
            continue;
        };
        match serde_json::from_slice::<Order>(&row.payload) {
            Ok(order) if order.order_id == id => {
                let events = orders.entry(id.to_owned()).or_default();
                if (kind == "order_created") != events.is_empty() {
                    wrong.push(format!("{id}: {kind} at {} as event {}", row.sequence, events.len() + 1));
                }
                events.push((row.sequence, order));
            }
            other => wrong.push(format!("{} is not an event of order {id}: {other:?}", row.sequence)),
        }
    }
    let count = orders.len();
    (orders, Check { name: "one order_created per request", count, wrong })
}

fn legal(orders: &Orders) -> Check {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (id, events) in orders {
        for two in events.windows(2) {
            count += 1;
            let status = |order: &Order| Status::from_wire(order.status);
            let change = status(&two[0].1).zip(status(&two[1].1)).map(|(from, to)| step(from, to));
            if change != Some(Ok(Step::Change)) || two[0].1.items != two[1].1.items {
                wrong.push(format!("{id}: {:?} after {:?}", two[1].1.status(), two[0].1.status()));
            }
        }
    }
    Check { name: "every change of status is legal", count, wrong }
}

fn acknowledged(book: &Book, orders: &Orders) -> Check {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (id, create) in &book.creates {
        for end in &create.ends {
            let End::Ok(etag) = end else { continue };
            count += 1;
            let mut wanted = create.items.clone();
            wanted.sort_unstable();
            match orders.get(id).map(|events| (events, items(&events[0].1))) {
                None => wrong.push(format!("{id} was acknowledged at {etag}, but is not there")),
                Some((_, had)) if had != wanted => {
                    wrong.push(format!("{id} has {had:?} instead of {wanted:?}"))
                }
                Some((events, _)) if !events.iter().any(|(sequence, _)| sequence == etag) => {
                    wrong.push(format!("{id} has no event {etag}"));
                }
                Some(_) => {}
            }
        }
    }
    Check { name: "no acknowledged order is lost", count, wrong }
}

fn items(order: &Order) -> Vec<(String, u32)> {
    let mut items: Vec<_> = order.items.iter().map(|item| (item.product_id.clone(), item.quantity)).collect();
    items.sort_unstable();
    items
}

fn updates(book: &Book, orders: &Orders) -> Check {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for update in &book.updates {
        let End::Ok(etag) = update.end else { continue };
        count += 1;
        let events = orders.get(&update.order_id).map(Vec::as_slice).unwrap_or_default();
        let Some(at) =
            events.iter().position(|(sequence, order)| *sequence == etag && order.status() == update.to)
        else {
            wrong.push(format!(
                "{}: {:?} was acknowledged at {etag}, but is not there",
                update.order_id, update.to
            ));
            continue;
        };
        // Repeating a status changes nothing, and the etag stays.
        let before = at.checked_sub(1).map(|before| events[before].0);
        if update.from.is_some_and(|from| from != etag && Some(from) != before) {
            wrong.push(format!("{}: {etag} does not follow {:?}", update.order_id, update.from));
        }
    }
    Check { name: "every acknowledged update is there, after its expected etag", count, wrong }
}

/// Orders whose attempts were all refused or not delivered must not exist.
fn undone(book: &Book, orders: &Orders) -> Check {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (id, create) in &book.creates {
        let never = |end: &End| matches!(end, End::Refused(_) | End::Not);
        if !create.ends.is_empty() && create.ends.iter().all(never) {
            count += 1;
            if orders.contains_key(id) {
                wrong.push(format!("{id} exists, although its attempts ended with {:?}", create.ends));
            }
        }
    }
    Check { name: "orders reported as not placed were not placed", count, wrong }
}

/// Replays the ledger from its first entry. The stock's invariants have to hold after each.
fn replay(ledger: &[Row]) -> (Stock, Check) {
    let (mut stock, mut wrong) = (Stock::default(), Vec::new());
    for row in ledger {
        let applied = serde_json::from_slice::<Entry>(&row.payload)
            .map_err(|error| error.to_string())
            .and_then(|entry| stock.apply(row.sequence, &entry).map_err(|error| error.to_string()));
        if let Err(error) = applied {
            wrong.push(format!("{}: {error}", row.sequence));
            break;
        }
        for (product, level) in stock.products_after(None) {
            if level.reserved > level.on_hand {
                wrong.push(format!("{}: {product} has {level:?}", row.sequence));
            }
        }
    }
    (stock, Check { name: "0 <= reserved <= on hand after every entry", count: ledger.len(), wrong })
}

fn facts(ledger: &[Row]) -> impl Iterator<Item = Fact> {
    ledger
        .iter()
        .filter_map(|row| serde_json::from_slice::<Entry>(&row.payload).ok())
        .flat_map(|entry| entry.facts)
}

/// On hand has to be what was added less what was shipped, and reserved what open orders hold.
fn conserved(stock: &Stock, ledger: &[Row], orders: &Orders) -> Check {
    let (mut on_hand, mut reserved) = (BTreeMap::<String, i64>::new(), BTreeMap::<String, i64>::new());
    for fact in facts(ledger) {
        if let Fact::Adjusted { lines, .. } = fact {
            lines.iter().for_each(|(product, delta)| {
                *on_hand.entry(product.to_string()).or_default() += i64::from(*delta)
            });
        }
    }
    for order in orders.values().filter_map(|events| events.last()).map(|(_, order)| order) {
        for (product, quantity) in items(order) {
            let units = i64::from(quantity);
            match order.status() {
                OrderStatus::Pending | OrderStatus::Confirmed => {
                    *reserved.entry(product).or_default() += units
                }
                OrderStatus::Shipped | OrderStatus::Delivered => {
                    *on_hand.entry(product).or_default() -= units
                }
                OrderStatus::Cancelled | OrderStatus::Expired | OrderStatus::Unspecified => {}
            }
        }
    }
    let mut wrong = Vec::new();
    for (product, _) in PRODUCTS {
        let level = stock.level(product).unwrap_or_default();
        let wanted = [&on_hand, &reserved].map(|units| units.get(product).copied().unwrap_or_default());
        let found = [level.on_hand, level.reserved].map(i64::from);
        if wanted != found {
            wrong.push(format!("{product}: on hand and reserved are {found:?}, expected {wanted:?}"));
        }
    }
    Check { name: "stock is conserved", count: PRODUCTS.len(), wrong }
}

fn adjusted(book: &Book, ledger: &[Row]) -> Check {
    let (mut made, mut wrong) = (BTreeSet::new(), Vec::new());
    for fact in facts(ledger) {
        if let Fact::Adjusted { request, .. } = fact
            && !made.insert(request.to_string())
        {
            wrong.push(format!("{request} was applied twice"));
        }
    }
    for (request, adjustment) in &book.adjustments {
        let acknowledged = adjustment.ends.iter().any(|end| matches!(end, End::Ok(_)));
        let never = adjustment.ends.iter().all(|end| matches!(end, End::Refused(_) | End::Not));
        let told = (acknowledged && !made.contains(request)) || (never && made.contains(request));
        if told {
            let what = format!("{} of {}", adjustment.delta, adjustment.product);
            wrong.push(format!(
                "{request}, {what}: attempts ended with {:?}, applied: {}",
                adjustment.ends,
                made.contains(request)
            ));
        }
    }
    Check { name: "every adjustment is applied once or not at all", count: book.adjustments.len(), wrong }
}

/// Every watch has to see every event once, in order.
fn watched(record: &[Row], watched: &[Vec<Seen>]) -> Check {
    let event = |row: &Row| row.subject.starts_with("orders.event.");
    let wanted: Vec<Seen> = record
        .iter()
        .filter(|row| event(row))
        .filter_map(|row| {
            let order: Order = serde_json::from_slice(&row.payload).ok()?;
            Some(Seen { sequence: row.sequence, order_id: order.order_id, status: order.status })
        })
        .collect();
    let mut wrong = Vec::new();
    for (number, seen) in watched.iter().enumerate() {
        if *seen == wanted {
            continue;
        }
        let at = seen
            .iter()
            .zip(&wanted)
            .position(|(one, two)| one != two)
            .unwrap_or(seen.len().min(wanted.len()));
        let (one, two) = (seen.get(at), wanted.get(at));
        let lengths = (seen.len(), wanted.len());
        wrong.push(format!("watch {number}: {lengths:?} events; at {at} it saw {one:?} instead of {two:?}"));
    }
    Check { name: "watches saw every event once, in order", count: wanted.len(), wrong }
}
