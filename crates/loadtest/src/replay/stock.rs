//! The stock to start from: read from a CSV, and set on the server by adjustments. Must not depend on orders.

use std::collections::BTreeMap;

use anyhow::Context as _;
use contract::inventory::v1::{AdjustStockRequest, Adjustment};
use contract::limits::{ADJUSTMENTS, ON_HAND};
use uuid::Uuid;

use super::snapshot::{self, Levels};
use crate::bar::bar;
use crate::input::{self, BadLine};
use crate::server::Server;

const COLUMNS: [&str; 2] = ["product", "on_hand"];

/// Units on hand by product.
pub(crate) type Wanted = BTreeMap<String, u32>;

/// Reads the wanted stock.
pub(crate) fn read(text: &[u8]) -> Result<Wanted, Vec<BadLine>> {
    let mut wanted = Wanted::new();
    input::rows(text, COLUMNS, |[product, units]| {
        let units = units.trim();
        let on_hand = units.parse().ok().filter(|on_hand| *on_hand <= ON_HAND);
        let on_hand =
            on_hand.ok_or_else(|| format!("on_hand {units:?} is not a number from 0 to {ON_HAND}"))?;
        match wanted.insert(product.to_owned(), on_hand) {
            Some(_) => Err(format!("product {product} already has a line above")),
            None => Ok(()),
        }
    })?;
    Ok(wanted)
}

/// Sets the stock on hand. Products that are not in the file keep theirs.
pub(crate) async fn set(server: &Server, wanted: &Wanted) -> anyhow::Result<()> {
    let adjustments = adjustments(&snapshot::levels(server).await?, wanted);
    let bar = bar(adjustments.len(), "stock");
    // A new id in each run, as the adjustments differ; the same id in each attempt, so that it is applied once.
    let run = Uuid::new_v4().simple();
    for (chunk, adjustments) in adjustments.chunks(*ADJUSTMENTS.end()).enumerate() {
        let request = AdjustStockRequest {
            request_id: format!("replay-{run}-{chunk}"),
            adjustments: adjustments.to_vec(),
            reason: "loadtest replay".to_owned(),
        };
        let first = &adjustments[0].product_id;
        server
            .adjust(&request)
            .await
            .with_context(|| format!("the adjustments starting with product {first}"))?;
        bar.inc(adjustments.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

fn adjustments(levels: &Levels, wanted: &Wanted) -> Vec<Adjustment> {
    let difference = |(product, on_hand): (&String, &u32)| {
        let now = levels.get(product).map_or(0, |level| level.on_hand);
        let delta = i32::try_from(i64::from(*on_hand) - i64::from(now)).ok()?;
        (delta != 0).then(|| Adjustment { product_id: product.clone(), delta })
    };
    wanted.iter().filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Level;
    use super::*;

    #[test]
    fn only_differences_are_sent() {
        let level = |on_hand| Level { on_hand, reserved: 0, available: on_hand };
        let levels = Levels::from([("a", 5), ("b", 5), ("c", 5)].map(|(p, n)| (p.to_owned(), level(n))));
        let wanted =
            Wanted::from([("a", 5), ("b", 2), ("d", ON_HAND), ("e", 0)].map(|(p, n)| (p.to_owned(), n)));
        let deltas: Vec<_> =
            adjustments(&levels, &wanted).into_iter().map(|a| (a.product_id, a.delta)).collect();
        assert_eq!(deltas, [("b".to_owned(), -3), ("d".to_owned(), i32::MAX)]);
    }

    #[test]
    fn bad_lines_are_named() {
        let bad =
            read("product,on_hand\na,1\nb,-1\na,2\nc,2147483648\nd,2147483647\n".as_bytes()).unwrap_err();
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [3, 4, 5]);
    }
}
