//! Expiry of reservations whose order is not placed, and what may still happen to them.

use std::time::Duration;

use async_nats::HeaderMap;
use contract::inventory::v1::{Item, ReserveInventoryRequest, ReserveInventoryResponse};
use contract::orders::v1::Order;
use contract::route::Routed;
use futures_util::StreamExt as _;
use nats::{Connection, Expect, Store, StoreError};
use tokio::time::Instant;
use uuid::Uuid;

use crate::harness::client::settled;
use crate::harness::system::{PATIENCE, System, assert_refused, new_order, until};

/// Reserves as a gateway does, and does nothing more.
pub async fn reserve(system: &System, order_id: Uuid, product: &str, ttl: u32) -> ReserveInventoryResponse {
    let items = vec![Item { product_id: product.to_owned(), quantity: 1 }];
    let request = ReserveInventoryRequest { order_id: order_id.to_string(), items, ttl_seconds: Some(ttl) };
    let payload = request.to_payload().unwrap();
    let reply = system.nats().await.request("reserve_inventory", payload.into()).await.unwrap();
    ReserveInventoryRequest::reply_from_payload(&reply.payload).unwrap()
}

/// Records an order as a gateway does, with `fence` as the expected sequence.
async fn record(system: &System, order_id: Uuid, fence: u64) -> Result<u64, StoreError> {
    let link = Connection::connect(&nats::Options::at(system.nats.url()), "a late gateway").await.unwrap();
    let order = Order { order_id: order_id.to_string(), ..Order::default() };
    let payload = serde_json::to_vec(&order).unwrap().into();
    let (subject, filter) =
        (format!("orders.event.order_created.{order_id}"), format!("orders.*.*.{order_id}"));
    let expect = Expect::LastOf { filter: &filter, sequence: fence };
    let deadline = Instant::now() + PATIENCE;
    Store::new(link, order_streams::ORDERS)
        .append(&subject, HeaderMap::new(), payload, expect, deadline)
        .await
}

#[tokio::test]
async fn a_reservation_without_an_order_ends_and_its_belated_record_fails() {
    let system = System::builder()
        .stock("lamp", 1)
        .workers(2)
        .each_worker(|w| w.expiry_interval = Duration::from_millis(50))
        .start()
        .await;
    let id = orders::order::request::order_id("", "late");
    let reservation = reserve(&system, id, "lamp", 1).await;
    assert_eq!((reservation.fence, system.stock("lamp").await), (0, (1, 1)));
    until("the reservation has ended", async || system.stock("lamp").await == (1, 0)).await;

    assert!(matches!(record(&system, id, 0).await, Err(StoreError::Conflict { .. })));
    let order = system.place(&new_order("lamp", 1).id("late")).await.expect("the client's retry");
    assert_eq!(order.order_id, id.to_string());
    assert_refused(system.order("lamp", 1).await, "INSUFFICIENT_STOCK");
    assert_eq!(system.stock("lamp").await, (1, 1));
}

#[tokio::test]
async fn an_order_keeps_its_stock_when_its_reservation_would_have_ended() {
    let system = System::builder()
        .stock("lamp", 1)
        .each_worker(|w| {
            (w.reservation_ttl, w.expiry_interval) = (Duration::from_secs(1), Duration::from_millis(50))
        })
        .start()
        .await;
    let order = system.order("lamp", 1).await.unwrap();
    // Past the end of the reservation.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(system.stock("lamp").await, (1, 1));
    assert_eq!(system.get(&order.order_id).await.unwrap(), order);
}

#[tokio::test]
async fn a_retry_after_a_lost_answer_gets_the_first_order_although_the_stock_is_gone() {
    let system = System::builder().stock("lamp", 1).gateways(2).start().await;
    let retried = new_order("lamp", 1).id("lost");
    let nats = system.nats().await;
    let mut requests = nats.subscribe("reserve_inventory").await.unwrap();
    settled(&nats).await;
    // The caller cancels once its reservation was sent; what it started is finished without it.
    tokio::select! {
        _ = system.place(&retried) => {}
        request = requests.next() => drop(request.expect("a reservation")),
    }
    let order = system.place(&retried).await.expect("the retry");
    assert_eq!(system.place(&retried).await.unwrap(), order);
    assert_refused(system.order("lamp", 1).await, "INSUFFICIENT_STOCK");
    assert_eq!(system.stock("lamp").await, (1, 1));
}

#[tokio::test]
async fn a_second_caller_with_other_items_neither_gets_nor_frees_the_first_ones_stock() {
    let system = System::builder().stock("lamp", 1).stock("rug", 1).gateways(2).start().await;
    let id = orders::order::request::order_id("", "shared");
    reserve(&system, id, "lamp", 0).await;
    assert_refused(system.place(&new_order("rug", 1).id("shared")).await, "REQUEST_ID_REUSED");
    assert_eq!((system.stock("lamp").await, system.stock("rug").await), ((1, 1), (1, 0)));
    let order = system.place(&new_order("lamp", 1).id("shared")).await.expect("the first caller's order");
    assert_eq!(order.order_id, id.to_string());
    assert_eq!(system.stock("lamp").await, (1, 1));
}

#[tokio::test]
async fn stock_of_a_living_order_is_not_released_on_request() {
    let system = System::builder().stock("lamp", 1).start().await;
    let order = system.order("lamp", 1).await.unwrap();
    let payload = format!(r#"{{"orderId":"{}","reason":"mine"}}"#, order.order_id);
    let reply = system.nats().await.request("release_inventory", payload.into()).await.unwrap();
    assert!(String::from_utf8_lossy(&reply.payload).contains("ORDER_EXISTS"));
    assert_eq!(system.stock("lamp").await, (1, 1));
}

#[tokio::test]
async fn a_released_reservation_can_be_made_again() {
    let system = System::builder().stock("lamp", 1).start().await;
    let id = Uuid::new_v4();
    let nats = system.nats().await;
    for round in 0..3 {
        let reservation = reserve(&system, id, "lamp", 0).await;
        assert_eq!(reservation.fence > 0, round > 0);
        for _ in 0..2 {
            let payload = format!(r#"{{"orderId":"{id}"}}"#);
            let reply = nats.request("release_inventory", payload.into()).await.unwrap();
            assert!(String::from_utf8_lossy(&reply.payload).contains(r#""released":true"#));
        }
        assert_eq!(system.stock("lamp").await, (1, 0));
    }
}
