//! A snapshot: the whole stock at one sequence, as JSON. Replay from a snapshot gives what replay from the start
//! gives. Kept across versions like the ledger's entries.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Adjusted, Horizon, Level, Line, Phase, Reservation, Stock};

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Snapshot<'a> {
    format: u32,
    sequence: u64,
    /// Worker and batch of the last entry.
    #[serde(default)]
    last: Option<(Uuid, u64)>,
    horizon: Horizon,
    /// Name, on hand; a product's number is its place.
    #[serde(borrow)]
    products: Vec<(std::borrow::Cow<'a, str>, u32)>,
    reservations: Vec<Row>,
    /// Request, fingerprint, time.
    adjustments: Vec<(std::borrow::Cow<'a, str>, u64, u64)>,
    /// Places of those adjustments that are certainly known callers'.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    known: Vec<usize>,
}

/// Order, phase, fence, time of the last change, items by product number.
type Row = (Uuid, Phase, u64, u64, Vec<(u32, u32)>);

/// A snapshot that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON of this shape.
    #[error("it cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// From a newer version.
    #[error("its format is {0}, and this version reads up to {FORMAT}")]
    Format(u32),
    /// Its parts contradict each other.
    #[error("it contradicts itself: {0}")]
    Contradiction(String),
}

impl Stock {
    /// Writes the snapshot.
    pub fn to_snapshot(&self) -> serde_json::Result<Vec<u8>> {
        let line = |line: &Line| (line.product, line.quantity);
        let snapshot = Snapshot {
            format: FORMAT,
            sequence: self.sequence,
            last: self.last,
            horizon: self.horizon,
            products: self
                .names
                .iter()
                .zip(&self.levels)
                .map(|(name, level)| (std::borrow::Cow::Borrowed(&**name), level.on_hand))
                .collect(),
            reservations: self
                .reservations
                .iter()
                .map(|(order, r)| (*order, r.phase, r.fence, r.changed, r.items.iter().map(line).collect()))
                .collect(),
            adjustments: self
                .adjustments
                .iter()
                .map(|(request, a)| (std::borrow::Cow::Borrowed(&**request), a.fingerprint, a.at))
                .collect(),
            known: self
                .adjustments
                .values()
                .zip(0..)
                .filter(|(a, _)| a.known)
                .map(|(_, place)| place)
                .collect(),
        };
        serde_json::to_vec(&snapshot)
    }

    /// Reads a snapshot.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Stock, Unreadable> {
        let snapshot: Snapshot<'_> = serde_json::from_slice(bytes)?;
        if snapshot.format > FORMAT {
            return Err(Unreadable::Format(snapshot.format));
        }
        let mut stock = Stock {
            sequence: snapshot.sequence,
            last: snapshot.last,
            horizon: snapshot.horizon,
            ..Stock::default()
        };
        let wrong = Unreadable::Contradiction;
        for (place, (name, on_hand)) in snapshot.products.iter().enumerate() {
            let index = stock.intern(name);
            if index as usize != place {
                return Err(wrong(format!("product {name} is there twice")));
            }
            *stock.level_mut(index).map_err(wrong)? = Level { on_hand: *on_hand, reserved: 0 };
        }
        stock.reservations.reserve(snapshot.reservations.len());
        for (order, phase, fence, changed, items) in snapshot.reservations {
            let items: Box<[Line]> =
                items.into_iter().map(|(product, quantity)| Line { product, quantity }).collect();
            for line in &items {
                stock.promise(*line).map_err(wrong)?;
            }
            if let Phase::Held { expires_at: Some(expires_at) } = phase {
                stock.expiring.insert((expires_at, order));
            }
            let reservation = Reservation { items, phase, fence, changed };
            if reservation.finished() && !reservation.items.is_empty() {
                return Err(wrong(format!("{order} is finished, and holds something")));
            }
            if stock.reservations.insert(order, reservation).is_some() {
                return Err(wrong(format!("{order} is there already")));
            }
        }
        stock.adjustments = snapshot
            .adjustments
            .into_iter()
            .zip(0..)
            .map(|((request, fingerprint, at), place)| {
                let known = snapshot.known.binary_search(&place).is_ok();
                (Box::from(&*request), Adjusted { fingerprint, at, known })
            })
            .collect();
        Ok(stock)
    }
}
