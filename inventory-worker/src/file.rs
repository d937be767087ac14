//! Stock on hand as a CSV file: `product,on_hand`. An import is absolute: what was counted. Bad lines are listed with
//! their numbers, and nothing is imported then, unless they may be skipped.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use contract::limits::{ON_HAND, is_product_id};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::config::Nats;
use crate::ledger::{Denial, Ledger};
use crate::stock::{Command, Refusal};
use crate::worker;

/// Products of one fact: well under the server's max_payload.
const CHUNK: usize = 5_000;
const LIMIT: Duration = Duration::from_secs(30);
/// Bad lines that are shown.
const SHOWN: usize = 50;

/// A count: the line it is from, the product, and its units.
type Counted = (u64, Box<str>, u32);

/// A line that cannot be imported.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, the header being 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Imports a file, and says on stdout what it did.
pub async fn import(file: &Path, skip_bad: bool, nats: &Nats) -> anyhow::Result<()> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (mut counted, mut bad) = read(&text)?;
    let (_link, ledger) = worker::open(nats, 64).await?;
    ledger.catch_up(Instant::now() + LIMIT).await?;
    {
        let stock = ledger.stock();
        counted.retain(|(line, product, on_hand)| {
            let reserved = stock.level(product).unwrap_or_default().reserved;
            let why = format!(
                "{product}: {reserved} are reserved, more than the {on_hand} on hand; ship or cancel first"
            );
            if reserved > *on_hand {
                bad.push(BadLine { line: *line, why });
            }
            reserved <= *on_hand
        });
    }
    bad.sort_by_key(|bad| bad.line);
    for BadLine { line, why } in bad.iter().take(SHOWN) {
        eprintln!("{}:{line}: {why}", file.display());
    }
    if bad.len() > SHOWN {
        eprintln!("… and {} more bad lines", bad.len() - SHOWN);
    }
    if !bad.is_empty() && !skip_bad {
        anyhow::bail!("{} bad lines; nothing was imported (--skip-bad imports the others)", bad.len());
    }
    append(&ledger, counted).await?;
    println!("bad lines skipped: {}", bad.len());
    Ok(())
}

async fn append(ledger: &Ledger, counted: Vec<Counted>) -> anyhow::Result<()> {
    let bar = progress(counted.len() as u64);
    for chunk in counted.chunks(CHUNK) {
        let lines = chunk.iter().map(|(_, product, on_hand)| (product.clone(), *on_hand)).collect();
        match ledger.submit(Command::Count(lines), Instant::now() + LIMIT).await {
            Ok(_) => bar.inc(chunk.len() as u64),
            Err(Denial::Failed(failure)) => {
                anyhow::bail!("{failure}; imported so far: {}; run it again", bar.position())
            }
            Err(Denial::Refused(Refusal::BelowReserved(products))) => {
                let names: Vec<_> = products.iter().map(|short| &*short.product).collect();
                anyhow::bail!(
                    "meanwhile more was reserved than is on hand: {}; run it again",
                    names.join(", ")
                );
            }
            Err(Denial::Refused(refusal)) => anyhow::bail!("refused: {refusal:?}"),
        }
    }
    bar.finish_and_clear();
    println!("products imported: {}", counted.len());
    Ok(())
}

/// Writes the stock on hand of every product.
pub async fn export(file: &Path, nats: &Nats) -> anyhow::Result<()> {
    let (_link, ledger) = worker::open(nats, 64).await?;
    ledger.catch_up(Instant::now() + LIMIT).await?;
    let mut writer =
        csv::Writer::from_path(file).with_context(|| format!("cannot write {}", file.display()))?;
    writer.write_record(["product", "on_hand"])?;
    let mut count = 0_u64;
    for (product, level) in ledger.stock().products_after(None) {
        writer.write_record([product, &level.on_hand.to_string()])?;
        count += 1;
    }
    writer.flush()?;
    println!("products exported: {count}");
    Ok(())
}

/// The counts of a file, and its bad lines.
pub fn read(text: &[u8]) -> anyhow::Result<(Vec<Counted>, Vec<BadLine>)> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text);
    let header = reader.headers().context("the file has no first line")?;
    if !header.iter().eq(["product", "on_hand"]) {
        anyhow::bail!(
            "the first line must be `product,on_hand`, not `{}`",
            header.iter().collect::<Vec<_>>().join(",")
        );
    }
    let (mut counted, mut bad, mut seen) = (Vec::new(), Vec::new(), HashMap::<Box<str>, u64>::new());
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                bad.push(BadLine { line, why: error.to_string() });
                continue;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        match count(&record, &seen) {
            Ok((product, on_hand)) => {
                seen.insert(product.clone(), line);
                counted.push((line, product, on_hand));
            }
            Err(why) => bad.push(BadLine { line, why }),
        }
    }
    Ok((counted, bad))
}

fn count(record: &csv::StringRecord, seen: &HashMap<Box<str>, u64>) -> Result<(Box<str>, u32), String> {
    let (Some(product), Some(on_hand), 2) = (record.get(0), record.get(1), record.len()) else {
        return Err(format!("has {} columns, not 2", record.len()));
    };
    if !is_product_id(product) {
        return Err(format!("{product:?} is not a product id: [A-Za-z0-9][A-Za-z0-9._:/-]{{0,63}}"));
    }
    if let Some(line) = seen.get(product) {
        return Err(format!("{product} is in line {line} already"));
    }
    match on_hand.parse::<u32>() {
        Ok(units) if units <= ON_HAND => Ok((product.into(), units)),
        _ => Err(format!("on_hand is {on_hand:?}, and must be 0 to 2147483647")),
    }
}

fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} products {elapsed}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_named_by_their_numbers() {
        let text = b"product,on_hand\nlamp,3\nlamp,4\n*,1\nrug,-1\nrug\nsofa,99999999999\ntable,0\n";
        let (counted, bad) = read(text).unwrap();
        assert_eq!(counted, [(2, "lamp".into(), 3), (8, "table".into(), 0)]);
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    }

    #[test]
    fn another_header_is_refused() {
        assert!(read(b"sku,count\nlamp,3\n").unwrap_err().to_string().contains("`product,on_hand`"));
        assert!(read(b"").is_err());
    }
}
