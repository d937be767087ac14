//! The server's state: all orders and all stock. Must not depend on which orders this run placed.

use std::collections::{BTreeMap, HashMap};

use contract::inventory::v1::Item;
use contract::orders::v1::{Order, OrderStatus};

use crate::bar::counter;
use crate::server::{GivenUp, Server};

/// The stock of one product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) on_hand: u32,
    pub(crate) reserved: u32,
    pub(crate) available: u32,
}

/// The stock of all products.
pub(crate) type Levels = BTreeMap<String, Level>;

/// Units by product.
pub(crate) type Units = BTreeMap<String, u64>;

/// All orders and all stock. They are not read at one instant: they are consistent only while no orders are placed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) orders: Listing,
    pub(crate) stock: Levels,
}

/// All orders, with only the etag of those that existed before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// The etag of every order.
    pub(crate) etags: HashMap<String, String>,
    /// Orders that the earlier listing does not have.
    pub(crate) new: Vec<Order>,
    /// Orders that have another etag in the earlier listing.
    pub(crate) changed: Vec<Order>,
    /// Units held by orders that are neither shipped nor cancelled.
    pub(crate) held: Units,
    /// Orders listed more than once.
    pub(crate) twice: Vec<String>,
}

impl Snapshot {
    /// Reads everything. Orders are kept whole if they are new or changed since an earlier listing.
    pub(crate) async fn read(server: &Server, earlier: Option<&Listing>) -> Result<Snapshot, GivenUp> {
        let mut orders = Listing::default();
        let (mut token, counter) = (String::new(), counter("orders"));
        loop {
            let (page, next) = server.orders(&token).await?;
            counter.inc(page.len() as u64);
            for order in page {
                orders.add(order, earlier);
            }
            let Some(next) = next else { break };
            token = next;
        }
        counter.finish_and_clear();
        Ok(Snapshot { orders, stock: levels(server).await? })
    }

    /// How many products have more units reserved than orders hold.
    pub(crate) fn loose(&self) -> usize {
        let held = |product: &String| self.orders.held.get(product).copied().unwrap_or_default();
        self.stock.iter().filter(|(product, level)| u64::from(level.reserved) > held(product)).count()
    }
}

impl Listing {
    /// Adds an order as it was listed.
    pub(crate) fn add(&mut self, order: Order, earlier: Option<&Listing>) {
        if self.etags.insert(order.order_id.clone(), order.etag.clone()).is_some() {
            self.twice.push(order.order_id);
            return;
        }
        if matches!(order.status(), OrderStatus::Pending | OrderStatus::Confirmed) {
            sum(&mut self.held, &order.items);
        }
        let Some(earlier) = earlier else { return };
        match earlier.etags.get(&order.order_id) {
            None => self.new.push(order),
            Some(etag) if *etag != order.etag => self.changed.push(order),
            Some(_) => (),
        }
    }

    /// Whether the order is listed.
    pub(crate) fn has(&self, order_id: &str) -> bool {
        self.etags.contains_key(order_id)
    }
}

/// Adds the units of some items.
pub(crate) fn sum(units: &mut Units, items: &[Item]) {
    for item in items {
        match units.get_mut(&item.product_id) {
            Some(sum) => *sum += u64::from(item.quantity),
            None => {
                units.insert(item.product_id.clone(), item.quantity.into());
            }
        }
    }
}

/// Reads the stock of all products.
pub(crate) async fn levels(server: &Server) -> Result<Levels, GivenUp> {
    let (mut levels, mut token) = (Levels::new(), String::new());
    let counter = counter("stock");
    loop {
        let (page, next) = server.stock(&token).await?;
        counter.inc(page.len() as u64);
        levels.extend(page.into_iter().map(|stock| {
            let level =
                Level { on_hand: stock.on_hand, reserved: stock.reserved, available: stock.available };
            (stock.product_id, level)
        }));
        let Some(next) = next else { break };
        token = next;
    }
    counter.finish_and_clear();
    Ok(levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: &str, etag: &str, status: OrderStatus) -> Order {
        let items = vec![Item { product_id: "lamp".to_owned(), quantity: 2 }];
        let mut order = Order { order_id: id.to_owned(), etag: etag.to_owned(), items, ..Default::default() };
        order.set_status(status);
        order
    }

    #[test]
    fn a_listing_keeps_what_the_earlier_one_has_not() {
        let mut earlier = Listing::default();
        earlier.add(order("a", "1", OrderStatus::Pending), None);
        earlier.add(order("b", "2", OrderStatus::Pending), None);
        let mut later = Listing::default();
        for (id, etag) in [("a", "1"), ("b", "3"), ("c", "4"), ("c", "4")] {
            later.add(order(id, etag, OrderStatus::Confirmed), Some(&earlier));
        }
        let ids = |orders: &[Order]| orders.iter().map(|o| o.order_id.clone()).collect::<Vec<_>>();
        assert_eq!((ids(&later.new), ids(&later.changed)), (vec!["c".to_owned()], vec!["b".to_owned()]));
        assert_eq!((later.twice.as_slice(), later.held["lamp"]), (["c".to_owned()].as_slice(), 6));
    }

    #[test]
    fn stock_is_loose_where_no_open_order_holds_it() {
        let mut snapshot = Snapshot::default();
        snapshot.orders.add(order("a", "1", OrderStatus::Pending), None);
        snapshot.orders.add(order("b", "2", OrderStatus::Cancelled), None);
        let mut loose = |reserved| {
            snapshot.stock.insert("lamp".to_owned(), Level { on_hand: 9, reserved, available: 9 - reserved });
            snapshot.loose()
        };
        assert_eq!((loose(2), loose(4)), (0, 1));
    }
}
