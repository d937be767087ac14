//! Reads every placed order back, and compares it with the request. Must not depend on stock.

use contract::inventory::v1::Item;
use contract::orders::v1::Order;
use futures_util::{StreamExt as _, stream};

use super::basket::Basket;
use super::discrepancy::Discrepancy;
use super::place::Placing;
use crate::bar::bar;
use crate::server::Server;
use crate::trouble::Verdict;

/// Reads all placed orders, several concurrently. A server that cannot be read is an error; an order that cannot be
/// read is a discrepancy.
pub(crate) async fn all(
    server: &Server,
    placing: &Placing,
    readers: u16,
) -> anyhow::Result<Vec<Discrepancy>> {
    let placed: Vec<(&Basket, &String)> = placing.placed().collect();
    let bar = bar(placed.len(), "read back");
    let checks = placed.into_iter().map(|(basket, order_id)| {
        let bar = bar.clone();
        async move {
            let found = one(server, basket, order_id).await;
            bar.inc(1);
            found
        }
    });
    let mut checks = stream::iter(checks).buffered(readers.into());
    let mut found = Vec::new();
    while let Some(discrepancy) = checks.next().await {
        found.extend(discrepancy?);
    }
    bar.finish_and_clear();
    Ok(found)
}

async fn one(server: &Server, basket: &Basket, order_id: &str) -> anyhow::Result<Option<Discrepancy>> {
    match server.order(order_id).await {
        Ok(order) if order.order_id != order_id => Ok(Some(Discrepancy::Unreadable {
            order: order_id.to_owned(),
            request_id: basket.id.clone(),
            why: format!("the reply has order {}", order.order_id),
        })),
        Ok(order) => Ok(difference(basket, &order)),
        Err(given_up) if given_up.last.verdict() == Verdict::Repeat => Err(given_up.into()),
        Err(given_up) => Ok(Some(Discrepancy::Unreadable {
            order: order_id.to_owned(),
            request_id: basket.id.clone(),
            why: given_up.to_string(),
        })),
    }
}

/// How an order differs from the request, if it does.
fn difference(basket: &Basket, order: &Order) -> Option<Discrepancy> {
    let what = if order.customer_id != basket.customer {
        format!("customer {} instead of {}", order.customer_id, basket.customer)
    } else if sorted(&order.items) != sorted(&basket.items) {
        format!("other items: {} instead of {}", order.items.len(), basket.items.len())
    } else {
        return None;
    };
    Some(Discrepancy::Other { order: order.order_id.clone(), request_id: basket.id.clone(), what })
}

/// The items sorted, as their order has no meaning.
pub(crate) fn sorted(items: &[Item]) -> Vec<(&str, u32)> {
    let mut items: Vec<_> = items.iter().map(|item| (item.product_id.as_str(), item.quantity)).collect();
    items.sort_unstable();
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(product: &str, quantity: u32) -> Item {
        Item { product_id: product.to_owned(), quantity }
    }

    fn differs(customer: &str, items: Vec<Item>) -> bool {
        let basket = Basket {
            id: "1".to_owned(),
            customer: "ann".to_owned(),
            items: vec![item("lamp", 1), item("desk", 2)],
            unfit: Vec::new(),
        };
        difference(&basket, &Order { customer_id: customer.to_owned(), items, ..Default::default() })
            .is_some()
    }

    #[test]
    fn another_customer_or_other_items_are_a_discrepancy() {
        assert!(!differs("ann", vec![item("desk", 2), item("lamp", 1)]));
        assert!(differs("bob", vec![item("lamp", 1), item("desk", 2)]));
        assert!(differs("ann", vec![item("lamp", 1), item("desk", 3)]));
        assert!(differs("ann", vec![item("lamp", 1)]));
    }
}
