//! `stock remove`: removes named products, or all of which nothing is on hand and nothing is reserved. The rules decide
//! whether a product may be removed.

use std::time::Duration;

use contract::limits::is_product_id;
use tokio::time::Instant;

use crate::config::Nats;
use crate::endpoint::refusal;
use crate::ledger::{Denial, Ledger};
use crate::stock::{Command, Level, Refusal};
use crate::worker;

/// Products of one fact: well under the server's max_payload.
const CHUNK: usize = 5_000;
const LIMIT: Duration = Duration::from_secs(30);
/// How often the removal is retried if others change products meanwhile.
const ROUNDS: u32 = 8;

/// Removes products. A dry run lists them on standard output; the result goes to standard error.
pub async fn remove(products: &[String], zero: bool, dry_run: bool, nats: &Nats) -> anyhow::Result<()> {
    let (_link, ledger) = worker::open(nats, 64).await?;
    ledger.catch_up(Instant::now() + LIMIT).await?;
    let wanted = if zero { all(&ledger) } else { named(&ledger, products)? };
    if dry_run {
        wanted.iter().for_each(|product| cli::say!("{product}"));
        cli::note!("products that would be removed: {}", wanted.len());
        return Ok(());
    }
    let removed =
        if zero { removed_of_all(&ledger, wanted).await? } else { removed(&ledger, &wanted).await? };
    cli::note!("products removed: {removed}");
    Ok(())
}

/// The empty products.
fn all(ledger: &Ledger) -> Vec<Box<str>> {
    let stock = ledger.stock();
    let empty = stock.products_after(None).filter(|(_, level)| *level == Level::default());
    empty.map(|(product, _)| product.into()).collect()
}

/// The named products. An invalid or unknown one is an error before anything is removed.
fn named(ledger: &Ledger, products: &[String]) -> anyhow::Result<Vec<Box<str>>> {
    let stock = ledger.stock();
    let unknown = products.iter().filter(|product| !is_product_id(product) || stock.level(product).is_none());
    let unknown: Vec<&str> = unknown.map(String::as_str).collect();
    if !unknown.is_empty() {
        anyhow::bail!("no such product: {}; nothing was removed", unknown.join(", "));
    }
    let mut products: Vec<Box<str>> = products.iter().map(|product| product.as_str().into()).collect();
    products.sort_unstable();
    products.dedup();
    Ok(products)
}

/// Removes these products; each chunk completely or not at all.
async fn removed(ledger: &Ledger, products: &[Box<str>]) -> anyhow::Result<usize> {
    let mut removed = 0;
    for chunk in products.chunks(CHUNK) {
        match ledger.submit(Command::Remove(chunk.to_vec()), Instant::now() + LIMIT).await {
            Ok(_) => removed += chunk.len(),
            Err(denial) => anyhow::bail!("{}; removed: {removed}", refusal::failure(denial, "").message),
        }
    }
    Ok(removed)
}

/// Removes all that stay empty; those that are filled meanwhile are kept.
async fn removed_of_all(ledger: &Ledger, mut wanted: Vec<Box<str>>) -> anyhow::Result<usize> {
    let (mut removed, mut round) = (0, 0);
    while let Some(chunk) = (!wanted.is_empty()).then(|| wanted.split_off(wanted.len().saturating_sub(CHUNK)))
    {
        match ledger.submit(Command::Remove(chunk.clone()), Instant::now() + LIMIT).await {
            Ok(_) => removed += chunk.len(),
            Err(Denial::Refused(Refusal::InStock(filled))) if round < ROUNDS => {
                round += 1;
                let filled: std::collections::HashSet<_> =
                    filled.iter().map(|short| &short.product).collect();
                wanted.extend(chunk.iter().filter(|product| !filled.contains(product)).cloned());
            }
            Err(denial) => anyhow::bail!("{}; removed: {removed}", refusal::failure(denial, "").message),
        }
    }
    Ok(removed)
}
