//! Made-up states of a server before and after a run of two orders: each kind of discrepancy is found, and nothing
//! else.

use std::sync::Arc;

use contract::inventory::v1::Item;

use super::super::basket::Basket;
use super::super::place::Outcome;
use super::*;

/// Ann orders two lamps and a desk, Bob a lamp. Ten of each are on hand, and one lamp was reserved before.
struct Fixture {
    before: Snapshot,
    orders: Vec<Order>,
    stock: Vec<(&'static str, Level)>,
    placing: Placing,
    wanted: Wanted,
}

fn items(items: &[(&str, u32)]) -> Vec<Item> {
    items.iter().map(|&(product, quantity)| Item { product_id: product.to_owned(), quantity }).collect()
}

fn order(id: &str, customer: &str, of: &[(&str, u32)]) -> Order {
    let mut order = Order {
        order_id: id.to_owned(),
        customer_id: customer.to_owned(),
        items: items(of),
        etag: "1".to_owned(),
        ..Default::default()
    };
    order.set_status(OrderStatus::Pending);
    order
}

fn level(on_hand: u32, reserved: u32) -> Level {
    Level { on_hand, reserved, available: on_hand.saturating_sub(reserved) }
}

fn placed(id: &str) -> Outcome {
    Outcome::Placed { order_id: id.to_owned() }
}

impl Fixture {
    fn new() -> Fixture {
        let basket = |id: &str, customer: &str, of: &[(&str, u32)]| Basket {
            id: id.to_owned(),
            customer: customer.to_owned(),
            items: items(of),
            unfit: Vec::new(),
        };
        let old = order("old", "zoe", &[("lamp", 1)]);
        let mut before = Snapshot::default();
        before.orders.add(old.clone(), None);
        before.stock.extend([("lamp".to_owned(), level(10, 1)), ("desk".to_owned(), level(10, 0))]);
        let ann = basket("1", "ann", &[("lamp", 2), ("desk", 1)]);
        let bob = basket("2", "bob", &[("lamp", 1)]);
        Fixture {
            before,
            orders: vec![
                old,
                order("a", "ann", &[("desk", 1), ("lamp", 2)]),
                order("b", "bob", &[("lamp", 1)]),
            ],
            stock: vec![("lamp", level(10, 4)), ("desk", level(10, 1))],
            placing: Placing {
                baskets: Arc::new(vec![ann, bob]),
                outcomes: vec![placed("a"), placed("b")],
                ..Default::default()
            },
            wanted: Wanted::from([("lamp".to_owned(), 10)]),
        }
    }

    fn report(&self) -> Report {
        let mut after = Snapshot::default();
        for order in &self.orders {
            after.orders.add(order.clone(), Some(&self.before.orders));
        }
        after.stock.extend(self.stock.iter().map(|(product, level)| ((*product).to_owned(), *level)));
        compare(&self.before, &after, &Run { placing: &self.placing, wanted: Some(&self.wanted) })
    }

    fn found(change: impl FnOnce(&mut Fixture)) -> Vec<Discrepancy> {
        let mut fixture = Fixture::new();
        change(&mut fixture);
        fixture.report().found
    }
}

fn lamp() -> String {
    "lamp".to_owned()
}

#[test]
fn a_run_that_did_what_it_said_is_clean() {
    let report = Fixture::new().report();
    assert!(report.clean(), "{report}");
    assert_eq!((report.named, report.products, report.touched, report.late), (2, 2, 0, 0));
}

#[test]
fn a_second_run_is_clean_without_growth() {
    let mut fixture = Fixture::new();
    for order in &fixture.orders[1..] {
        fixture.before.orders.add(order.clone(), None);
    }
    fixture.before.stock.extend(fixture.stock.iter().map(|(product, level)| ((*product).to_owned(), *level)));
    let report = fixture.report();
    assert!(report.clean(), "{report}");
}

#[test]
fn units_reserved_for_nobody_are_found_and_may_pass() {
    let mut fixture = Fixture::new();
    fixture.stock[0].1 = level(10, 5);
    let report = fixture.report();
    assert_eq!(report.found, [Discrepancy::Reserved { product: lamp(), before: 1, after: 5, placed: 3 }]);
    assert!(report.may_pass());
}

#[test]
fn an_order_without_its_stock_is_found() {
    let found = Fixture::found(|fixture| fixture.stock[0].1 = level(10, 3));
    assert_eq!(
        found,
        [
            Discrepancy::Uncovered { product: lamp(), held: 4, reserved: 3 },
            Discrepancy::Reserved { product: lamp(), before: 1, after: 3, placed: 3 },
        ]
    );
}

#[test]
fn stock_that_left_the_shelves_is_found() {
    let found = Fixture::found(|fixture| fixture.stock[0].1 = level(9, 4));
    assert_eq!(found, [Discrepancy::OnHand { product: lamp(), before: 10, after: 9 }]);
}

#[test]
fn more_reserved_than_there_is_is_found() {
    let found = Fixture::found(|fixture| {
        fixture.before.stock.insert(lamp(), level(3, 1));
        fixture.wanted.insert(lamp(), 3);
        fixture.stock[0].1 = level(3, 4);
    });
    assert_eq!(found, [Discrepancy::Oversold { product: lamp(), on_hand: 3, reserved: 4 }]);
}

#[test]
fn an_availability_that_does_not_add_up_is_found() {
    let found = Fixture::found(|fixture| fixture.stock[0].1.available = 7);
    let expected = Discrepancy::Available { product: lamp(), on_hand: 10, reserved: 4, available: 7 };
    assert_eq!(found, [expected]);
}

#[test]
fn stock_that_was_not_set_is_found() {
    let found = Fixture::found(|fixture| {
        fixture.wanted.insert(lamp(), 12);
    });
    assert_eq!(found, [Discrepancy::NotSet { product: lamp(), wanted: 12, on_hand: 10 }]);
}

#[test]
fn a_placed_order_that_is_not_listed_is_found_and_may_pass() {
    let mut fixture = Fixture::new();
    fixture.orders.pop();
    let report = fixture.report();
    let expected = Discrepancy::Unlisted { order: "b".to_owned(), request_id: "2".to_owned() };
    assert_eq!(report.found, [expected]);
    assert!(report.may_pass());
}

#[test]
fn a_second_order_of_one_request_is_found_and_its_products_are_left_out() {
    let mut fixture = Fixture::new();
    fixture.orders.push(order("b2", "bob", &[("lamp", 1)]));
    fixture.stock[0].1 = level(10, 5);
    let report = fixture.report();
    let expected = Discrepancy::Stranger { order: "b2".to_owned(), customer: "bob".to_owned(), items: 1 };
    assert_eq!((report.found.as_slice(), report.touched), ([expected].as_slice(), 1));
    assert!(!report.may_pass());
}

#[test]
fn an_order_listed_twice_or_no_more_is_found() {
    let found = Fixture::found(|fixture| fixture.orders.push(fixture.orders[2].clone()));
    assert_eq!(found, [Discrepancy::Twice { order: "b".to_owned() }]);
    let found = Fixture::found(|fixture| {
        fixture.orders.remove(0);
    });
    assert_eq!(found, [Discrepancy::Gone { order: "old".to_owned() }]);
}

#[test]
fn one_order_for_two_requests_is_found() {
    let found = Fixture::found(|fixture| {
        fixture.placing.outcomes[1] = placed("a");
        fixture.orders.pop();
        fixture.stock[0].1 = level(10, 3);
    });
    let (first, second) = ("1".to_owned(), "2".to_owned());
    assert_eq!(found, [Discrepancy::Shared { order: "a".to_owned(), first, second }]);
}

#[test]
fn an_order_without_an_answer_that_is_there_counts_as_placed() {
    let unsure = Outcome::Refused { reason: "INSUFFICIENT_STOCK".to_owned(), unsure: true };
    for outcome in [Outcome::Failed("Unavailable OUTCOME_UNKNOWN".to_owned()), unsure] {
        let mut fixture = Fixture::new();
        fixture.placing.outcomes[1] = outcome;
        let report = fixture.report();
        assert!(report.clean(), "{report}");
        assert_eq!((report.named, report.late), (1, 1));
    }
}

#[test]
fn an_order_without_an_answer_that_is_not_there_is_no_discrepancy() {
    let found = Fixture::found(|fixture| {
        fixture.placing.outcomes[1] = Outcome::Failed("Unavailable OUTCOME_UNKNOWN".to_owned());
        fixture.orders.pop();
        fixture.stock[0].1 = level(10, 3);
    });
    assert_eq!(found, []);
}

#[test]
fn an_order_that_was_refused_for_sure_must_not_be_there() {
    let found = Fixture::found(|fixture| {
        fixture.placing.outcomes[1] =
            Outcome::Refused { reason: "INSUFFICIENT_STOCK".to_owned(), unsure: false };
    });
    assert_eq!(
        found,
        [Discrepancy::Stranger { order: "b".to_owned(), customer: "bob".to_owned(), items: 1 }]
    );
}

#[test]
fn products_that_others_changed_are_not_compared() {
    let mut fixture = Fixture::new();
    fixture.orders[0].etag = "2".to_owned();
    fixture.orders[0].set_status(OrderStatus::Cancelled);
    fixture.stock[0].1 = level(10, 3);
    let report = fixture.report();
    assert!(report.clean(), "{report}");
    assert_eq!(report.touched, 1);
}

#[test]
fn the_first_twenty_discrepancies_are_printed_and_the_rest_is_counted() {
    let twice = (0..25).map(|n| Discrepancy::Twice { order: format!("order-{n}") }).collect();
    let text = Report { found: twice, ..Report::default() }.to_string();
    assert!(text.contains("order-19 ") && !text.contains("order-20 "), "{text}");
    assert!(text.contains("and 5 more") && text.contains("FAILED, 25 discrepancies"), "{text}");
}
