//! Counts the outcomes of the orders, and prints the table. Must not check the counts.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::place::{Outcome, Placing};
use super::snapshot::Listing;
use crate::table::{Table, duration, grouped};

/// Orders by outcome.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    placed: u64,
    replayed: u64,
    refused: Counts,
    rejected: Counts,
    unfit: Counts,
    failed: Counts,
}

/// Orders with one outcome, by reason or by field. An order with several invalid fields counts once for each.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    orders: u64,
    by: BTreeMap<String, u64>,
}

impl Counts {
    fn add(&mut self, reasons: impl IntoIterator<Item = String>) {
        self.orders += 1;
        let mut reasons: Vec<String> = reasons.into_iter().collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            *self.by.entry(reason).or_default() += 1;
        }
    }

    fn rows(&self, table: &mut Table, label: &str, remark: &str) {
        table.row(label, grouped(self.orders), remark);
        table.parts(&self.by);
    }
}

impl Tally {
    /// Counts. An order that was listed before the run counts as replayed.
    pub(crate) fn of(placing: &Placing, before: &Listing) -> Tally {
        let mut tally = Tally::default();
        for outcome in &placing.outcomes {
            match outcome {
                Outcome::Placed { order_id } if before.has(order_id) => tally.replayed += 1,
                Outcome::Placed { .. } => tally.placed += 1,
                Outcome::Refused { reason, .. } => tally.refused.add([reason.clone()]),
                Outcome::Rejected(fields) => tally.rejected.add(fields.iter().map(|field| normal(field))),
                Outcome::Unfit(fields) => tally.unfit.add(fields.iter().map(|field| normal(field))),
                Outcome::Failed(kind) => tally.failed.add([kind.clone()]),
            }
        }
        tally
    }

    /// The table, with the rate, and how often calls were repeated and why.
    pub(crate) fn table(&self, placing: &Placing, repeats: &BTreeMap<String, u64>) -> Table {
        let mut table = Table::default();
        table.row("orders", grouped(placing.outcomes.len() as u64), "");
        table.row("placed", grouped(self.placed), "new");
        table.row("replayed", grouped(self.replayed), "existed already");
        self.refused.rows(&mut table, "refused", "");
        self.rejected.rows(&mut table, "rejected", "by field");
        if self.unfit.orders > 0 {
            self.unfit.rows(&mut table, "not sent", "quantity below 0 or above 32 bits");
        }
        self.failed.rows(&mut table, "failed", "");
        table.row("retries", grouped(repeats.values().sum()), "");
        table.parts(repeats);
        speed(placing, &mut table);
        table
    }
}

fn speed(placing: &Placing, table: &mut Table) {
    let sent = placing.latencies.len();
    let rate = sent as f64 / placing.took.as_secs_f64().max(f64::EPSILON);
    table.row("orders/s", format!("{rate:.0}"), format!("{} for {sent} sent", duration(placing.took)));
    let Some(histogram) = histogram(&placing.latencies) else { return };
    let at = |quantile| duration(Duration::from_micros(histogram.value_at_quantile(quantile)));
    table.row(
        "p50",
        at(0.5),
        "closed loop: every caller waits for its reply, so a slow server gets fewer calls",
    );
    table.row("p99", at(0.99), "per order, including retries and the pauses between them");
    table.row("max", at(1.0), "");
}

/// The histogram's upper bound: more than any --budget.
const LONGEST: Duration = Duration::from_secs(2 * 86_400);

/// Microseconds with three digits; `None` without orders.
fn histogram(latencies: &[Duration]) -> Option<Histogram<u64>> {
    let longest = u64::try_from(LONGEST.as_micros()).ok()?;
    let mut histogram = Histogram::new_with_max(longest, 3).ok().filter(|_| !latencies.is_empty())?;
    for latency in latencies {
        histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }
    Some(histogram)
}

/// A field's path without list indices: `items[3].quantity` becomes `items[].quantity`.
fn normal(field: &str) -> String {
    let mut parts = field.split('[');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_digit());
        text.push('[');
        text.push_str(if rest.starts_with(']') { rest } else { part });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lose_their_places_and_nothing_else() {
        let fields = ["items[3].quantity", "items[120].lots[7]", "items", "address2", "map[7a]"];
        assert_eq!(
            fields.map(normal),
            ["items[].quantity", "items[].lots[]", "items", "address2", "map[7a]"]
        );
    }

    #[test]
    fn every_order_is_counted_where_it_belongs() {
        let placed = |id: &str| Outcome::Placed { order_id: id.to_owned() };
        let refused = |reason: &str| Outcome::Refused { reason: reason.to_owned(), unsure: false };
        let fields = |fields: &[&str]| fields.iter().map(|&field| field.to_owned()).collect();
        let placing = Placing {
            outcomes: vec![
                placed("old"),
                placed("new"),
                refused("INSUFFICIENT_STOCK"),
                refused("INSUFFICIENT_STOCK"),
                Outcome::Rejected(fields(&["items[0].quantity", "items[1].quantity", "customer_id"])),
                Outcome::Unfit(fields(&["items[0].quantity"])),
                Outcome::Failed("Unavailable TRANSPORT".to_owned()),
            ],
            ..Default::default()
        };
        let mut before = Listing::default();
        before.etags.insert("old".to_owned(), "1".to_owned());
        let tally = Tally::of(&placing, &before);
        assert_eq!((tally.placed, tally.replayed, tally.refused.by["INSUFFICIENT_STOCK"]), (1, 1, 2));
        assert_eq!((tally.rejected.orders, tally.rejected.by["items[].quantity"]), (1, 1));
        assert_eq!((tally.unfit.orders, tally.failed.orders), (1, 1));
        let text = tally.table(&placing, &BTreeMap::new()).to_string();
        assert!(text.contains("INSUFFICIENT_STOCK") && text.contains("not sent"), "{text}");
    }

    #[test]
    fn quantiles_are_of_all_orders() {
        let latencies: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        let histogram = histogram(&latencies).unwrap();
        assert!((49_900..=50_100).contains(&histogram.value_at_quantile(0.5)));
    }
}
