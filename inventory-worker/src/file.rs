//! Stock on hand as a CSV file: `product,on_hand`. An import sets absolute numbers, as counted. Invalid lines are
//! listed with their numbers, and nothing is imported then, unless they may be skipped. Messages go to standard error,
//! as standard output may be the file.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use cli::rows::{rows, shown};
use contract::limits::{ON_HAND, is_product_id};
use indicatif::{ProgressBar, ProgressStyle};
use nats::{Connection, NO_LEADER, PermissionViolation};
use tokio::time::Instant;

use crate::config::Nats;
use crate::endpoint::refusal;
use crate::ledger::{Denial, Ledger, LedgerError};
use crate::stock::{Command, Refusal};
use crate::worker;

/// The first line.
const HEADER: [&str; 2] = ["product", "on_hand"];
/// Products of one fact: well under the server's max_payload.
const CHUNK: usize = 5_000;
const LIMIT: Duration = Duration::from_secs(30);
/// The most invalid lines that are shown.
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

/// Opens the ledger for a command, and says whose command it is where NATS does not permit it.
async fn open(nats: &Nats) -> anyhow::Result<(Connection, Ledger)> {
    let opened = worker::open(nats, 64).await;
    opened.map_err(|error| {
        if error.is::<PermissionViolation>() {
            return error.context("this command is for the role operator");
        }
        match error.downcast_ref::<LedgerError>() {
            Some(LedgerError::Slow | LedgerError::Store(_) | LedgerError::Snapshots(_)) => {
                anyhow::anyhow!("{error}; {NO_LEADER}")
            }
            _ => error,
        }
    })
}

/// Imports a file, or standard input, and reports the result. With `if_empty`, does nothing if there are products
/// already.
pub async fn import(file: &Path, skip_bad: bool, if_empty: bool, nats: &Nats) -> anyhow::Result<()> {
    let text = cli::file::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (mut counted, mut bad) = read(&text).with_context(|| format!("cannot use {}", file.display()))?;
    let lines = counted.len() + bad.len();
    let (_link, ledger) = open(nats).await?;
    ledger.catch_up(Instant::now() + LIMIT).await?;
    let products = ledger.stock().products();
    if if_empty && products > 0 {
        cli::note!("the stock has {products} products already; nothing was imported");
        return Ok(());
    }
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
        cli::note!("{}:{line}: {why}", file.display());
    }
    if bad.len() > SHOWN {
        cli::note!("… and {} more bad lines", bad.len() - SHOWN);
    }
    if !bad.is_empty() && !skip_bad {
        anyhow::bail!("{} bad lines; nothing was imported (--skip-bad imports the others)", bad.len());
    }
    append(&ledger, &counted).await?;
    cli::note!("lines read: {lines}; products imported: {}; bad lines skipped: {}", counted.len(), bad.len());
    Ok(())
}

async fn append(ledger: &Ledger, counted: &[Counted]) -> anyhow::Result<()> {
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
                    "meanwhile more units were reserved than were counted: {}; imported so far: {}; run it again",
                    names.join(", "),
                    bar.position()
                );
            }
            Err(denial) => {
                anyhow::bail!("{}; imported so far: {}", refusal::failure(denial, "").message, bar.position())
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Writes the stock on hand of every product to a file, or to standard output.
pub async fn export(file: &Path, nats: &Nats) -> anyhow::Result<()> {
    let (_link, ledger) = open(nats).await?;
    ledger.catch_up(Instant::now() + LIMIT).await?;
    let stock = ledger.stock();
    let mut count = 0_u64;
    let written = cli::file::write(file, |out| {
        writeln!(out, "{}", HEADER.join(","))?;
        for (product, level) in stock.products_after(None) {
            writeln!(out, "{product},{}", level.on_hand)?;
            count += 1;
        }
        Ok(())
    });
    written.with_context(|| format!("cannot write {}", file.display()))?;
    cli::note!("products exported: {count}");
    Ok(())
}

/// The counts of a file, and its bad lines.
pub fn read(text: &[u8]) -> anyhow::Result<(Vec<Counted>, Vec<BadLine>)> {
    let mut rows = rows(text).map_err(anyhow::Error::msg)?;
    let header =
        rows.next().context("the file has no first line")?.1.map_err(|why| format!("(a line that {why})"));
    let header = header.map(|fields| fields.iter().map(|field| field.trim().to_owned()).collect::<Vec<_>>());
    if !header.as_ref().is_ok_and(|header| header.iter().eq(HEADER)) {
        let found = header.map_or_else(|why| why, |fields| shown(&fields.join(",")));
        anyhow::bail!("the first line must be `product,on_hand`, not {found}");
    }
    let (mut counted, mut bad, mut seen) = (Vec::new(), Vec::new(), HashMap::<Box<str>, u64>::new());
    for (line, row) in rows {
        match row.and_then(|fields| count(&fields, &seen)) {
            Ok((product, on_hand)) => {
                seen.insert(product.clone(), line);
                counted.push((line, product, on_hand));
            }
            Err(why) => bad.push(BadLine { line, why }),
        }
    }
    Ok((counted, bad))
}

fn count(fields: &[String], seen: &HashMap<Box<str>, u64>) -> Result<(Box<str>, u32), String> {
    let [product, on_hand] = fields else {
        return Err(format!("has {} columns, not 2", fields.len()));
    };
    let (product, on_hand) = (product.trim(), on_hand.trim());
    if !is_product_id(product) {
        return Err(format!("{} is not a product id: [A-Za-z0-9][A-Za-z0-9._:/-]{{0,63}}", shown(product)));
    }
    if let Some(line) = seen.get(product) {
        return Err(format!("{product} is already in line {line}"));
    }
    match on_hand.parse::<u32>() {
        Ok(units) if units <= ON_HAND => Ok((product.into(), units)),
        _ => Err(format!("on_hand is {}, but must be 0 to 2147483647", shown(on_hand))),
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
    fn a_stray_quote_costs_its_own_line_and_every_line_is_counted() {
        let mut text = "product,on_hand\n".to_owned();
        for line in 2..=1_001 {
            text += &match line {
                300 => "\"product-300,1\n".to_owned(),
                700 => "product-700,\"1\n".to_owned(),
                line => format!("product-{line},1\n"),
            };
        }
        let (counted, bad) = read(text.as_bytes()).unwrap();
        assert_eq!(counted.len(), 998);
        let expected = [(300, "a quote that is not closed"), (700, "a quote that is not closed")];
        for (bad, (line, why)) in bad.iter().zip(expected) {
            assert!(bad.line == line && bad.why.contains(why), "{bad:?}");
        }
    }

    #[test]
    fn files_of_other_systems_are_read() {
        let expected = [("lamp", 3), ("rug", 4)];
        for text in [
            "\u{feff}product,on_hand\r\nlamp,3\r\n\r\nrug,4",
            "product,on_hand\rlamp,3\rrug,4\r",
            "\"product\" , \"on_hand\"\n lamp , 3 \n\"rug\",\"4\"\n",
        ] {
            let (counted, bad) = read(text.as_bytes()).unwrap();
            let counted: Vec<_> = counted.iter().map(|(_, product, units)| (&**product, *units)).collect();
            assert!(counted == expected && bad.is_empty(), "{text:?}: {counted:?} {bad:?}");
        }
    }

    #[test]
    fn what_is_shown_of_a_bad_line_is_short() {
        let text = format!("product,on_hand\n{},1\nrug,{}\nr\0g,1\n", "x".repeat(5_000), "9".repeat(5_000));
        let (_, bad) = read(text.as_bytes()).unwrap();
        assert!(bad.len() == 3 && bad.iter().all(|bad| bad.why.len() < 200), "{bad:?}");
    }

    #[test]
    fn another_header_is_refused() {
        assert!(read(b"sku,count\nlamp,3\n").unwrap_err().to_string().contains("`product,on_hand`"));
        assert!(read(b"").is_err());
    }
}
