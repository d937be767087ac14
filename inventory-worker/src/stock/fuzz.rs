//! Properties that hold for any ledger and any snapshot that is not refused: no product has more reserved than on hand,
//! exactly what active reservations hold is reserved, and a snapshot equals the replay. Run by the fuzzers in fuzz/,
//! and on their corpus in every test run.

use std::collections::BTreeMap;

use contract::Item;
use contract::limits::ON_HAND;
use uuid::Uuid;

use super::{Command, Draft, Entry, Horizon, Stock};

const PRODUCTS: [&str; 3] = ["lamp", "rug", "sofa"];
/// Bytes of a command.
const COMMAND: usize = 6;

/// A snapshot, or lines of entries, or commands of six bytes each, as it begins.
///
/// # Panics
///
/// If a property does not hold.
pub fn ledger(data: &[u8]) {
    if data.starts_with(b"{\"format\"") {
        if let Ok(mut stock) = Stock::from_snapshot(data) {
            sound(&stock);
            let next = Entry { worker: Uuid::nil(), batch: 1, previous: None, at: 1, facts: Vec::new() };
            let last = stock.sequence() == u64::MAX;
            let follows = stock.apply(stock.sequence().wrapping_add(1), &next).is_ok();
            assert_eq!(follows, !last, "no number comes twice");
        }
    } else if data.starts_with(b"{") {
        replayed(data);
    } else {
        decided(data);
    }
}

/// Entries that anybody may have written, up to the first that is refused.
fn replayed(lines: &[u8]) {
    let mut stock = Stock::default();
    for line in lines.split(|b| *b == b'\n').take(64) {
        let Ok(entry) = serde_json::from_slice::<Entry>(line) else { return };
        let written = serde_json::to_vec(&entry).expect("an entry that was read can be written");
        assert_eq!(serde_json::from_slice::<Entry>(&written).ok().as_ref(), Some(&entry));
        if stock.apply(stock.sequence() + 1, &entry).is_err() {
            return;
        }
        sound(&stock);
    }
}

/// Commands, each by itself: what the rules permit is no contradiction, and its encoding replays to the same state.
fn decided(bytes: &[u8]) {
    let mut stock = Stock::default();
    for (at, bytes) in bytes.as_chunks::<COMMAND>().0.iter().take(256).enumerate() {
        let mut draft = Draft::over(&stock, at as u64);
        if draft.decide(&command(*bytes)) != Ok(true) {
            continue;
        }
        let facts = draft.facts();
        let batch = at as u64;
        let entry = Entry { worker: Uuid::nil(), batch, previous: stock.last_entry(), at: batch, facts };
        let written = serde_json::to_vec(&entry).expect("an entry can be written");
        let read: Entry = serde_json::from_slice(&written).expect("what was written can be read");
        let mut other = stock.clone();
        stock.apply(stock.sequence() + 1, &entry).expect("what the rules permit is no contradiction");
        other.apply(other.sequence() + 1, &read).expect("nor is it after it was encoded");
        assert!(stock == other, "the replayed entry differs from the decision");
    }
    sound(&stock);
    assert!(stock.products_after(None).all(|(_, level)| level.on_hand <= ON_HAND));
}

/// Few products and orders, so that they meet.
fn command([kind, order, product, amount, event, more]: [u8; COMMAND]) -> Command {
    let (order, event) = (Uuid::from_u128((order % 4).into()), u64::from(event));
    let name = |number: u8| Box::<str>::from(PRODUCTS[usize::from(number) % PRODUCTS.len()]);
    match kind % 11 {
        0 | 1 => {
            let mut items = vec![Item { product: name(product), quantity: u32::from(amount % 8) + 1 }];
            if more % 2 == 1 {
                // Another product: no request that is read has one twice.
                items.push(Item { product: name(product % 3 + 1), quantity: 1 });
            }
            Command::Reserve { order, items, expires_at: (more > 99).then_some(event) }
        }
        2 => Command::Bind(order, event),
        3 => Command::Cancel(order, event),
        4 => Command::Ship(order, event),
        5 => Command::Expire(order, event),
        6 => Command::Drop(order, event),
        7 => Command::Disown(order, event),
        8 => {
            let delta = i32::from(amount.cast_signed()) << (more % 25);
            Command::Adjust {
                request: event.to_string().into(),
                lines: vec![(name(product), delta)],
                reason: "".into(),
            }
        }
        9 => Command::Count(vec![(name(product), u32::from(amount) << (more % 25))]),
        _ => Command::Forget(Horizon { before: amount.into(), floor: event }),
    }
}

/// Checks the properties of a stock, also after a snapshot.
fn sound(stock: &Stock) {
    let mut promised = BTreeMap::<&str, u64>::new();
    for order in stock.orders() {
        stock
            .items(order)
            .for_each(|(product, units)| *promised.entry(product).or_default() += u64::from(units));
    }
    for (product, level) in stock.products_after(None) {
        assert!(level.reserved <= level.on_hand, "{product}: {level:?}");
        let held = promised.remove(product).unwrap_or_default();
        assert_eq!(
            u64::from(level.reserved),
            held,
            "{product}: the reserved units differ from those that orders hold"
        );
    }
    assert!(promised.is_empty(), "unknown products are held: {promised:?}");
    let snapshot = stock.to_snapshot().expect("a snapshot can be written");
    let read = Stock::from_snapshot(&snapshot).expect("a snapshot of ours can be read");
    assert!(read == *stock, "a snapshot reads back as another stock");
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzers_found_and_began_with_still_holds() {
        crate::replay::each("ledger", super::ledger);
    }
}
