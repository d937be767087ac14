//! Compares the server's state before and after the run with its replies. Pure: other files read the state.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use contract::orders::v1::{Order, OrderStatus};

use super::discrepancy::Discrepancy;
use super::place::Placing;
use super::readback::sorted;
use super::snapshot::{Level, Levels, Snapshot, Units, sum};
use super::stock::Wanted;
use crate::table::{duration, grouped};

/// How many discrepancies are printed.
const PRINTED: usize = 20;

/// What was done between the two readings of the server.
pub(crate) struct Run<'a> {
    /// The orders and their outcomes.
    pub(crate) placing: &'a Placing,
    /// The stock that was set before the first reading.
    pub(crate) wanted: Option<&'a Wanted>,
}

/// What an audit found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    found: Vec<Discrepancy>,
    /// Orders that a reply named.
    named: usize,
    /// New orders that no reply named, but that match an order without a reply.
    late: usize,
    /// Products that were compared.
    products: usize,
    /// Products that others changed meanwhile, whose growth is not checked.
    touched: usize,
    waited: Duration,
}

/// Runs the audit.
pub(crate) fn compare(before: &Snapshot, after: &Snapshot, run: &Run<'_>) -> Report {
    let mut audit = Audit { before, after, run, placed: Units::new(), touched: BTreeSet::new() };
    let mut report = Report { named: run.placing.placed().count(), ..Report::default() };
    let named = audit.answers(&mut report);
    audit.list(&named, &mut report);
    audit.settings(&mut report);
    audit.products(&mut report);
    report
}

struct Audit<'a> {
    before: &'a Snapshot,
    after: &'a Snapshot,
    run: &'a Run<'a>,
    /// Units of the orders that this run placed.
    placed: Units,
    /// Products of orders that others placed or changed.
    touched: BTreeSet<&'a str>,
}

impl<'a> Audit<'a> {
    /// Every reply has to name a different order, which has to be listed. Returns the orders with their request_ids.
    fn answers(&mut self, report: &mut Report) -> HashMap<&'a str, &'a str> {
        let mut named: HashMap<&str, &str> = HashMap::new();
        for (basket, order) in self.run.placing.placed() {
            if let Some(first) = named.insert(order, &basket.id) {
                report.found.push(Discrepancy::Shared {
                    order: order.clone(),
                    first: first.to_owned(),
                    second: basket.id.clone(),
                });
                continue;
            }
            if !self.after.orders.has(order) {
                let request_id = basket.id.clone();
                report.found.push(Discrepancy::Unlisted { order: order.clone(), request_id });
            }
            if !self.before.orders.has(order) {
                sum(&mut self.placed, &basket.items);
            }
        }
        named
    }

    /// Every new order in the list has to be named by a reply, or its request had no reply. No order may leave the
    /// list.
    fn list(&mut self, named: &HashMap<&str, &str>, report: &mut Report) {
        let mut unsure = self.unsure();
        let after = &self.after.orders;
        for order in &after.new {
            let ours = named.contains_key(order.order_id.as_str());
            let late = !ours && take(&mut unsure, order);
            if late {
                report.late += 1;
                sum(&mut self.placed, &order.items);
            }
            if !ours && !late {
                report.found.push(Discrepancy::Stranger {
                    order: order.order_id.clone(),
                    customer: order.customer_id.clone(),
                    items: order.items.len(),
                });
            }
            if !(ours || late) || order.status() != OrderStatus::Pending {
                self.touch(order);
            }
        }
        for order in &after.changed {
            self.touch(order);
        }
        report.found.extend(after.twice.iter().map(|order| Discrepancy::Twice { order: order.clone() }));
        let gone = self.before.orders.etags.keys().filter(|order| !after.has(order));
        report.found.extend(gone.map(|order| Discrepancy::Gone { order: order.clone() }));
    }

    fn touch(&mut self, order: &'a Order) {
        self.touched.extend(order.items.iter().map(|item| item.product_id.as_str()));
    }

    /// How many orders of each content may exist without a reply that says so.
    fn unsure(&self) -> HashMap<Content<'a>, usize> {
        let placing = self.run.placing;
        let mut unsure = HashMap::new();
        for (basket, _) in placing.baskets.iter().zip(&placing.outcomes).filter(|(_, end)| end.unsure()) {
            *unsure.entry((basket.customer.as_str(), sorted(&basket.items))).or_default() += 1;
        }
        unsure
    }

    /// The stock has to be what it was set to.
    fn settings(&self, report: &mut Report) {
        for (product, &wanted) in self.run.wanted.into_iter().flatten() {
            let on_hand = self.before.stock.get(product).map_or(0, |level| level.on_hand);
            if on_hand != wanted {
                report.found.push(Discrepancy::NotSet { product: product.clone(), wanted, on_hand });
            }
        }
    }

    fn products(&self, report: &mut Report) {
        let (before, after) = (&self.before.stock, &self.after.stock);
        let held = &self.after.orders.held;
        let all: BTreeSet<&String> =
            before.keys().chain(after.keys()).chain(self.placed.keys()).chain(held.keys()).collect();
        report.products = all.len();
        for product in all {
            let level = |levels: &Levels| levels.get(product).copied().unwrap_or_default();
            let (before, after) = (level(before), level(after));
            report.found.extend(below_zero(product, after));
            let held = held.get(product).copied().unwrap_or_default();
            if held > u64::from(after.reserved) {
                let (product, reserved) = (product.clone(), after.reserved);
                report.found.push(Discrepancy::Uncovered { product, held, reserved });
            }
            if self.touched.contains(product.as_str()) {
                report.touched += 1;
            } else {
                let placed = self.placed.get(product).copied().unwrap_or_default();
                report.found.extend(growth(product, before, after, placed));
            }
        }
    }
}

/// Who ordered what.
type Content<'a> = (&'a str, Vec<(&'a str, u32)>);

/// Takes one of the orders without a reply that has this order's content.
fn take<'a>(unsure: &mut HashMap<Content<'a>, usize>, order: &'a Order) -> bool {
    match unsure.get_mut(&(order.customer_id.as_str(), sorted(&order.items))) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}

fn below_zero(product: &str, level: Level) -> Option<Discrepancy> {
    let Level { on_hand, reserved, available } = level;
    let product = product.to_owned();
    match on_hand.checked_sub(reserved) {
        None => Some(Discrepancy::Oversold { product, on_hand, reserved }),
        Some(left) if left != available => {
            Some(Discrepancy::Available { product, on_hand, reserved, available })
        }
        Some(_) => None,
    }
}

/// Placing orders must not change on_hand, and must reserve exactly what was placed.
fn growth(product: &str, before: Level, after: Level, placed: u64) -> impl Iterator<Item = Discrepancy> {
    let on_hand = (before.on_hand != after.on_hand).then(|| Discrepancy::OnHand {
        product: product.to_owned(),
        before: before.on_hand,
        after: after.on_hand,
    });
    let reserved = (u64::from(after.reserved) != u64::from(before.reserved) + placed).then(|| {
        let (before, after) = (before.reserved, after.reserved);
        Discrepancy::Reserved { product: product.to_owned(), before, after, placed }
    });
    on_hand.into_iter().chain(reserved)
}

impl Report {
    /// Whether nothing was found.
    pub(crate) fn clean(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether something was found that may go away by itself.
    pub(crate) fn may_pass(&self) -> bool {
        self.found.iter().any(Discrepancy::may_pass)
    }

    /// Prepends discrepancies found elsewhere, and sets the time that was waited.
    pub(crate) fn prepend(&mut self, found: Vec<Discrepancy>, waited: Duration) {
        self.found.splice(0..0, found);
        self.waited = waited;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: usize| grouped(count as u64);
        writeln!(f, "audit: {} orders read back, {} products", count(self.named), count(self.products))?;
        if self.late > 0 {
            let late = count(self.late);
            writeln!(f, "audit: {late} orders without a reply exist, and count as placed")?;
        }
        if self.touched > 0 {
            let touched = count(self.touched);
            writeln!(
                f,
                "audit: {touched} products not compared with before: others placed or changed orders of them"
            )?;
        }
        if !self.waited.is_zero() {
            writeln!(
                f,
                "audit: waited {} for reservations to expire and the list to catch up",
                duration(self.waited)
            )?;
        }
        for discrepancy in self.found.iter().take(PRINTED) {
            writeln!(f, "  {discrepancy}")?;
        }
        if self.found.len() > PRINTED {
            writeln!(f, "  and {} more", count(self.found.len() - PRINTED))?;
        }
        match self.found.len() {
            0 => writeln!(f, "audit: clean"),
            1 => writeln!(f, "audit: FAILED, 1 discrepancy"),
            found => writeln!(f, "audit: FAILED, {} discrepancies", count(found)),
        }
    }
}

#[cfg(test)]
mod tests;
