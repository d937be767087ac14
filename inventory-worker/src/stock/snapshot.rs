//! A snapshot: the whole stock at one sequence, as JSON. Replay from a snapshot gives the same state as replay from the
//! start. Kept across versions like the ledger's entries. Written and read as a stream: the memory it takes besides the
//! stock itself does not grow with it.

use std::io::{BufReader, Read, Write};
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use super::{Adjusted, Level, Line, Phase, Reservation, Stock};

const FORMAT: u32 = 1;
/// A removed product has no number.
const NONE: u32 = u32::MAX;
/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// Order, phase, fence, time of the last change, items by product number.
type Row = (Uuid, Phase, u64, u64, Vec<(u32, u32)>);

/// A snapshot that cannot be used: not JSON of this shape, from a newer version, or its parts contradict each other.
#[derive(Debug, thiserror::Error)]
#[error("it cannot be read: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

impl Stock {
    /// Writes the snapshot.
    pub fn write_snapshot(&self, to: impl Write) -> serde_json::Result<()> {
        self.serialize(&mut serde_json::Serializer::new(to))
    }

    /// The snapshot.
    pub fn to_snapshot(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write_snapshot(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads a snapshot to its end.
    pub fn read_snapshot(from: impl Read) -> Result<Stock, Unreadable> {
        let mut reader = serde_json::Deserializer::from_reader(BufReader::with_capacity(BUFFER, from));
        let stock = reader.deserialize_map(Whole)?;
        reader.end()?;
        Ok(stock)
    }

    /// Reads a snapshot.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Stock, Unreadable> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let stock = reader.deserialize_map(Whole)?;
        reader.end()?;
        Ok(stock)
    }

    /// Products' numbers in a snapshot, if some were removed; else they are the same as here.
    fn numbers(&self) -> Vec<u32> {
        if self.free.is_empty() {
            return Vec::new();
        }
        let mut numbers = vec![0; self.names.len()];
        self.free.iter().for_each(|gone| numbers[*gone as usize] = NONE);
        numbers
            .iter_mut()
            .filter(|number| **number != NONE)
            .zip(0..)
            .for_each(|(number, next)| *number = next);
        numbers
    }

    /// Adds the next product of a snapshot.
    fn next_product(&mut self, (name, on_hand): (String, u32)) -> Result<(), String> {
        let next = self.names.len();
        let index = self.intern(&name);
        if index as usize != next {
            return Err(format!("product {name} is a duplicate"));
        }
        *self.level_mut(index)? = Level { on_hand, reserved: 0 };
        Ok(())
    }

    /// Adds the next reservation of a snapshot.
    fn next_reservation(&mut self, (order, phase, fence, changed, items): Row) -> Result<(), String> {
        let items: Box<[Line]> =
            items.into_iter().map(|(product, quantity)| Line { product, quantity }).collect();
        items.iter().try_for_each(|line| self.promise(*line))?;
        if let Phase::Held { expires_at: Some(expires_at) } = phase {
            self.expiring.insert((expires_at, order));
        }
        let reservation = Reservation { items, phase, fence, changed };
        if reservation.finished() && !reservation.items.is_empty() {
            return Err(format!("{order} is finished, but holds items"));
        }
        if self.reservations.insert(order, reservation).is_some() {
            return Err(format!("{order} is a duplicate"));
        }
        Ok(())
    }
}

/// A list that is generated while it is written.
struct List<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for List<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

impl Serialize for Stock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let numbers = self.numbers();
        let number = |product: u32| numbers.get(product as usize).copied().unwrap_or(product);
        let line = |line: &Line| (number(line.product), line.quantity);
        let products = || {
            let all = (0..).zip(self.names.iter().zip(&self.levels));
            let there = all.filter(|(product, _)| number(*product) != NONE);
            there.map(|(_, (name, level))| (&**name, level.on_hand))
        };
        let reservations = || {
            let row = |(order, r): (&Uuid, &Reservation)| -> Row {
                (*order, r.phase, r.fence, r.changed, r.items.iter().map(line).collect())
            };
            self.reservations.iter().map(row)
        };
        let adjustments = || self.adjustments.iter().map(|(request, a)| (&**request, a.fingerprint, a.at));
        let known =
            || self.adjustments.values().zip(0_usize..).filter(|(a, _)| a.known).map(|(_, place)| place);
        let mut snapshot = serializer.serialize_struct("Snapshot", 8)?;
        snapshot.serialize_field("format", &FORMAT)?;
        snapshot.serialize_field("sequence", &self.sequence)?;
        // Worker and batch of the last entry.
        snapshot.serialize_field("last", &self.last)?;
        snapshot.serialize_field("horizon", &self.horizon)?;
        // Name, on hand; a product's number is its index.
        snapshot.serialize_field("products", &List(products))?;
        snapshot.serialize_field("reservations", &List(reservations))?;
        // Request, fingerprint, time.
        snapshot.serialize_field("adjustments", &List(adjustments))?;
        // Indexes of the adjustments that are certainly of known callers.
        snapshot.serialize_field("known", &List(known))?;
        snapshot.end()
    }
}

/// The stock of a snapshot. Its fields come in the order in which they are written.
struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Stock;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a snapshot")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stock, A::Error> {
        let (mut stock, mut keys, mut seen) = (Stock::default(), Vec::new(), Vec::new());
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "format" => match map.next_value::<u32>()? {
                    0..=FORMAT => {}
                    format => {
                        let why =
                            format!("its format is {format}, but this version reads only up to {FORMAT}");
                        return Err(A::Error::custom(why));
                    }
                },
                "sequence" => stock.sequence = map.next_value()?,
                "last" => stock.last = map.next_value()?,
                "horizon" => stock.horizon = map.next_value()?,
                "products" => map.next_value_seed(each(|product| stock.next_product(product)))?,
                "reservations" => map.next_value_seed(each(|row| stock.next_reservation(row)))?,
                "adjustments" => {
                    map.next_value_seed(each(|(request, fingerprint, at): (String, _, _)| {
                        let key = Arc::<str>::from(request);
                        keys.push(key.clone());
                        stock.adjustments.insert(key, Adjusted { fingerprint, at, known: false });
                        Ok(())
                    }))?
                }
                "known" => map.next_value_seed(each(|place: usize| {
                    let key = keys.get(place).ok_or_else(|| format!("there is no adjustment {place}"))?;
                    stock.adjustments.get_mut(key).into_iter().for_each(|adjusted| adjusted.known = true);
                    Ok(())
                }))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            seen.push(field);
        }
        for field in ["format", "sequence", "horizon", "products", "reservations", "adjustments"] {
            if !seen.iter().any(|seen| seen == field) {
                return Err(A::Error::missing_field(field));
            }
        }
        Ok(stock)
    }
}

/// A list whose elements are handled while it is read.
struct Each<T, F>(F, PhantomData<T>);

fn each<T, F: FnMut(T) -> Result<(), String>>(take: F) -> Each<T, F> {
    Each(take, PhantomData)
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), String>> DeserializeSeed<'de> for Each<T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), String>> Visitor<'de> for Each<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            (self.0)(element).map_err(|why| A::Error::custom(format!("it contradicts itself: {why}")))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::{Entry, Fact};

    fn stock(facts: Vec<Fact>) -> Stock {
        let mut stock = Stock::default();
        stock.apply(1, &Entry { worker: Uuid::nil(), batch: 1, previous: None, at: 1, facts }).unwrap();
        stock
    }

    #[test]
    fn a_snapshot_has_no_place_for_products_that_were_removed() {
        let names = ["lamp", "rug", "sofa"].map(Box::<str>::from);
        let counted = names.iter().map(|name| (name.clone(), u32::from(&**name == "sofa") * 7)).collect();
        let order = Uuid::from_u128(1);
        let items = vec![("sofa".into(), 2)];
        let stock = stock(vec![
            Fact::Counted { lines: counted },
            Fact::Reserved { order, items, expires_at: None, fence: 0 },
            Fact::Removed { products: names[..2].to_vec() },
        ]);
        let written = stock.to_snapshot().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(json["products"], serde_json::json!([["sofa", 7]]));
        let read = Stock::read_snapshot(written.as_slice()).unwrap();
        assert!(read == stock && read.items(&order).eq([("sofa", 2)]));
    }

    #[test]
    fn a_snapshot_is_read_as_it_comes() {
        let lines = (0..50_000).map(|number| (format!("p{number}").into(), 1)).collect();
        let written = stock(vec![Fact::Counted { lines }]).to_snapshot().unwrap();
        let middle = written.len() / 2;
        let (mut spoilt, mut read) = (written.clone(), 0);
        spoilt[middle] = b'\x01';
        let counting = Counting { bytes: &spoilt, read: &mut read };
        Stock::read_snapshot(counting).unwrap_err();
        assert!((middle..=middle + BUFFER).contains(&read), "{read} of {} bytes, {middle}", written.len());
    }

    struct Counting<'a> {
        bytes: &'a [u8],
        read: &'a mut usize,
    }

    impl Read for Counting<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let count = self.bytes.read(to)?;
            *self.read += count;
            Ok(count)
        }
    }
}
