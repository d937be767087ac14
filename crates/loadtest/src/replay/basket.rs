//! Orders from a CSV: one line per product, grouped by order. Must not depend on the server's rules, except for values
//! that do not fit its messages.

use std::collections::HashMap;

use contract::inventory::v1::Item;

use crate::input::{self, BadLine};

/// `time` is required but not sent: the file is sorted by time.
const COLUMNS: [&str; 5] = ["order", "customer", "product", "quantity", "time"];

/// An order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Basket {
    /// The order's id in the file, its request_id at the server.
    pub(crate) id: String,
    /// The customer.
    pub(crate) customer: String,
    /// The items, in the order of the lines.
    pub(crate) items: Vec<Item>,
    /// Fields whose value does not fit the message, such as `items[3].quantity`. Such an order is not sent.
    pub(crate) unfit: Vec<String>,
}

/// Reads orders in the order of their first lines.
pub(crate) fn read(text: &[u8]) -> Result<Vec<Basket>, Vec<BadLine>> {
    let mut baskets: Vec<Basket> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    input::rows(text, COLUMNS, |[id, customer, product, quantity, _]| {
        let quantity = Quantity::parse(quantity)?;
        if id.is_empty() {
            return Err("has no order id".to_owned());
        }
        let place = *places.entry(id.to_owned()).or_insert_with(|| {
            baskets.push(Basket::new(id, customer));
            baskets.len() - 1
        });
        let basket = &mut baskets[place];
        if basket.customer != customer {
            return Err(format!("order {id} has customer {customer} here and {} above", basket.customer));
        }
        basket.add(product, quantity);
        Ok(())
    })?;
    Ok(baskets)
}

/// A quantity in the file.
enum Quantity {
    Units(u32),
    /// A whole number, but below 0 or above what 32 bits hold.
    Unfit,
}

impl Quantity {
    fn parse(text: &str) -> Result<Quantity, String> {
        let text = text.trim();
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("the quantity {text:?} is not a whole number"));
        }
        Ok(text.parse().map_or(Quantity::Unfit, Quantity::Units))
    }
}

impl Basket {
    fn new(id: &str, customer: &str) -> Basket {
        Basket { id: id.to_owned(), customer: customer.to_owned(), items: Vec::new(), unfit: Vec::new() }
    }

    fn add(&mut self, product: &str, quantity: Quantity) {
        let quantity = match quantity {
            Quantity::Units(units) => units,
            Quantity::Unfit => {
                self.unfit.push(format!("items[{}].quantity", self.items.len()));
                0
            }
        };
        self.items.push(Item { product_id: product.to_owned(), quantity });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "order,customer,product,quantity,time\n";

    fn baskets(lines: &str) -> Vec<Basket> {
        read(format!("{HEADER}{lines}").as_bytes()).unwrap()
    }

    fn bad(lines: &str) -> Vec<BadLine> {
        read(format!("{HEADER}{lines}").as_bytes()).unwrap_err()
    }

    fn items(basket: &Basket) -> Vec<(&str, u32)> {
        basket.items.iter().map(|item| (item.product_id.as_str(), item.quantity)).collect()
    }

    #[test]
    fn lines_of_an_order_belong_together_wherever_they_stand() {
        let baskets = baskets("2,ann,lamp,1,t1\n1,bob,desk,2,t2\n2,ann,chair,3,t1\n");
        assert_eq!(baskets.iter().map(|basket| basket.id.as_str()).collect::<Vec<_>>(), ["2", "1"]);
        assert_eq!(items(&baskets[0]), [("lamp", 1), ("chair", 3)]);
        assert_eq!((baskets[1].customer.as_str(), items(&baskets[1])), ("bob", vec![("desk", 2)]));
    }

    #[test]
    fn what_the_server_judges_is_read_as_it_is() {
        let baskets = baskets("1,,lamp,0,\n1,,lamp,4000000000,\n");
        assert_eq!(items(&baskets[0]), [("lamp", 0), ("lamp", 4_000_000_000)]);
        assert!(baskets[0].unfit.is_empty());
    }

    #[test]
    fn a_quantity_that_does_not_fit_names_its_field() {
        let baskets = baskets("1,ann,lamp,1,\n1,ann,desk,-2,\n1,ann,sofa,99999999999999999999999999999,\n");
        assert_eq!(baskets[0].unfit, ["items[1].quantity", "items[2].quantity"]);
        assert_eq!(baskets[0].items.len(), 3);
    }

    #[test]
    fn all_bad_lines_are_named_at_once() {
        let bad = bad(
            "1,ann,lamp,x,t\n1,ann,lamp,1,t\n1,ann,lamp\n,ann,lamp,1,t\n1,bob,desk,1.5,t\n1,bob,desk,1,t\n",
        );
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 4, 5, 6, 7]);
        assert_eq!(bad[0].what, "the quantity \"x\" is not a whole number");
        assert_eq!(bad[4].what, "order 1 has customer bob here and ann above");
    }

    #[test]
    fn a_file_without_lines_has_no_orders() {
        assert!(baskets("").is_empty());
    }
}
