//! A parsed item: a product id and a quantity within their limits. An `Item` is always valid.

use std::collections::HashMap;

use crate::inventory::v1 as pb;
use crate::limits::{ITEMS, QUANTITY, Reader};

/// A quantity of one product.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// The product.
    pub product: Box<str>,
    /// Units, 1 to 1,000,000.
    pub quantity: u32,
}

impl Item {
    /// Product and units.
    pub fn line(&self) -> (&str, u32) {
        (&self.product, self.quantity)
    }

    /// Parses 1 to 500 items, each product once; all field violations go to the reader.
    pub fn read_all(reader: &mut Reader, field: &str, items: &[pb::Item]) -> Option<Vec<Item>> {
        if !ITEMS.contains(&items.len()) {
            reader.fault(field, format!("must have 1 to 500 items, not {}", items.len()));
            return None;
        }
        let mut seen = HashMap::with_capacity(items.len());
        let mut valid = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let product = reader.product_id(format!("{field}[{index}].product_id"), &item.product_id);
            if let (Some(_), Some(first)) = (&product, seen.insert(item.product_id.as_str(), index)) {
                reader
                    .fault(format!("{field}[{index}].product_id"), format!("is already in {field}[{first}]"));
            }
            let quantity = QUANTITY.contains(&item.quantity);
            if !quantity {
                reader.fault(format!("{field}[{index}].quantity"), "must be 1 to 1,000,000");
            }
            if let (Some(product), true) = (product, quantity) {
                valid.push(Item { product, quantity: item.quantity });
            }
        }
        (valid.len() == items.len()).then_some(valid)
    }
}

/// Whether two lists have the same value for each product, in any order: the same items, or the same changes. A list
/// has each product once.
pub fn same<'a, V: Ord>(
    one: impl Iterator<Item = (&'a str, V)> + Clone,
    other: impl Iterator<Item = (&'a str, V)> + Clone,
) -> bool {
    // They mostly have the same order.
    one.clone().eq(other.clone()) || sorted(one) == sorted(other)
}

fn sorted<'a, V: Ord>(lines: impl Iterator<Item = (&'a str, V)>) -> Vec<(&'a str, V)> {
    let mut lines: Vec<_> = lines.collect();
    lines.sort_unstable();
    lines
}

impl From<&Item> for pb::Item {
    fn from(item: &Item) -> pb::Item {
        pb::Item { product_id: item.product.to_string(), quantity: item.quantity }
    }
}
