//! Data of the previous build is read by this one.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream::Config};
use contract::orders::v1::{ListOrdersRequest, Order, OrderStatus};
use inventory_worker::stock::{Command, Draft, Entry, Stock, key};
use serde::Deserialize;

use crate::harness::system::{System, assert_refused, new_order, until};

#[derive(Deserialize)]
struct Line {
    sequence: u64,
    subject: String,
    headers: BTreeMap<String, Vec<String>>,
    payload: String,
}

#[derive(Deserialize)]
struct Expected {
    orders: Vec<Order>,
    stock: BTreeMap<String, (u32, u32)>,
}

fn file(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/first/");
    std::fs::read_to_string(format!("{folder}{name}")).unwrap()
}

/// A nats-server with the data of the first build, without gateways and workers.
async fn left_by_the_first_build() -> System {
    let system = System::builder().workers(0).gateways(0).start().await;
    let link = nats::Connection::connect(&system.worker.nats.connection, "a fixture").await.unwrap();
    order_streams::open(&link, 1, true).await.unwrap();
    let js = jetstream::new(link.client().clone());
    for name in order_streams::ALL {
        let lines: Vec<Line> =
            file(&format!("{name}.jsonl")).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let config = js.get_stream(name).await.unwrap().cached_info().config.clone();
        let first_sequence = lines.first().map(|line| line.sequence);
        js.delete_stream(name).await.unwrap();
        js.create_stream(Config { first_sequence, ..config }).await.unwrap();
        for line in lines {
            let mut headers = HeaderMap::new();
            for (name, values) in &line.headers {
                values.iter().for_each(|value| headers.append(name.as_str(), value.as_str()));
            }
            let ack = js.publish_with_headers(line.subject, headers, line.payload.into()).await.unwrap();
            // Snapshots have gaps where older ones were removed.
            assert!(ack.await.unwrap().sequence == line.sequence || name == order_streams::SNAPSHOTS);
        }
    }
    system
}

#[tokio::test]
async fn orders_and_stock_of_the_build_before_are_served_as_it_left_them() {
    let mut system = left_by_the_first_build().await;
    system.add_worker().await;
    system.add_gateway().await;
    let expected: Expected = serde_json::from_str(&file("expected.json")).unwrap();
    for order in &expected.orders {
        assert_eq!(&system.get(&order.order_id).await.unwrap(), order);
    }
    let listed = system.list(ListOrdersRequest::default()).await.unwrap().orders;
    assert_eq!(listed.iter().rev().cloned().collect::<Vec<_>>(), expected.orders);
    let stock = async || {
        let mut stock = BTreeMap::new();
        for product in expected.stock.keys() {
            stock.insert(product.clone(), system.stock(product).await);
        }
        stock
    };
    assert_eq!(stock().await, expected.stock);
    // The recreated consumer gets every event again: nothing is done twice.
    let js = jetstream::new(system.nats().await);
    until("all events are worked off again", async || {
        let orders = js.get_stream(order_streams::ORDERS).await.unwrap();
        let info = orders.consumer_info("inventory-worker").await.unwrap();
        info.num_pending == 0 && info.num_ack_pending == 0
    })
    .await;
    assert_eq!(stock().await, expected.stock);
}

#[tokio::test]
async fn orders_of_the_build_before_go_on_under_their_etags() {
    let mut system = left_by_the_first_build().await;
    system.add_worker().await;
    system.add_gateway().await;
    let expected: Expected = serde_json::from_str(&file("expected.json")).unwrap();
    let with = |status| expected.orders.iter().find(|order| order.status() == status).unwrap();
    let (pending, confirmed) = (with(OrderStatus::Pending), with(OrderStatus::Confirmed));
    assert_refused(system.update(confirmed, OrderStatus::Shipped, "1").await, "ETAG_MISMATCH");
    system.update(confirmed, OrderStatus::Shipped, &confirmed.etag).await.unwrap();
    system.update(pending, OrderStatus::Cancelled, &pending.etag).await.unwrap();
    until("the sofa of the late bird is free, and a lamp and a rug have left", async || {
        let stock = (system.stock("sofa").await, system.stock("lamp").await, system.stock("rug").await);
        stock == ((10, 1), (98, 1), (47, 1))
    })
    .await;
    // The id is still known: the same request finds its order.
    let repeated = new_order("lamp", 1).and("rug", 1).id("upgrade-0").by("Zoë ✓");
    assert_eq!(&system.place(&repeated).await.unwrap(), &expected.orders[1]);
}

/// The fact that the rules decide for an adjustment of 5 lamps under a key, if any.
fn adjust(stock: &Stock, key: &str) -> Option<serde_json::Value> {
    let adjust = Command::Adjust { request: key.into(), lines: vec![("lamp".into(), 5)], reason: "".into() };
    let mut draft = Draft::over(stock, 2);
    draft.decide(&adjust).unwrap().then(|| serde_json::to_value(&draft.facts()[0]).unwrap())
}

#[test]
fn adjustments_of_the_build_before_are_known_again_and_those_after_are_known_to_it() {
    let known = key::of("jwt:ann", "count-1");
    let shaped = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, b"anonymous").to_string();
    let old = |request: &str| serde_json::json!({"adjusted": {"request": request, "lines": [["lamp", 5]]}});
    let facts = [&*known, "count-1", &shaped].map(old);
    let entry = serde_json::json!({"worker": uuid::Uuid::nil(), "batch": 1, "at": 1, "facts": facts});
    let mut stock = Stock::default();
    stock.apply(1, &serde_json::from_value::<Entry>(entry).unwrap()).unwrap();
    let stock = Stock::from_snapshot(&stock.to_snapshot().unwrap()).unwrap();
    for (principal, id) in [("jwt:ann", "count-1"), ("", "count-1"), ("", &*shaped)] {
        assert_eq!(adjust(&stock, &key::of(principal, id)), None, "{principal} {id}");
    }
    // A worker of the previous build finds the entries of this one under the key that it looks for.
    for (principal, id) in [("jwt:ann", "count-2"), ("", "count-2")] {
        let key = key::of(principal, id);
        assert_eq!(adjust(&stock, &key).unwrap()["adjusted"]["request"], *key);
        assert!(principal.is_empty() == (*key == *id));
    }
}

#[test]
fn what_is_certainly_anothers_is_not_taken_for_an_old_adjustment_of_ones_own() {
    let known = key::of("jwt:ann", "count-1");
    let facts = [adjust(&Stock::default(), &known).unwrap()];
    let entry = serde_json::json!({"worker": uuid::Uuid::nil(), "batch": 1, "at": 1, "facts": facts});
    let mut stock = Stock::default();
    stock.apply(1, &serde_json::from_value::<Entry>(entry).unwrap()).unwrap();
    let stock = Stock::from_snapshot(&stock.to_snapshot().unwrap()).unwrap();
    assert_eq!(adjust(&stock, &known), None);
    assert!(adjust(&stock, &key::of("", &known)).is_some());
}
