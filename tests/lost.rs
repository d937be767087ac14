//! Acknowledgements that are lost after the work was done, and requests that arrive after their deadline: what was done
//! is found and done once, and late requests are not processed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use contract::inventory::v1::{AdjustStockRequest, Adjustment};
use contract::orders::v1::{Order, OrderStatus};
use futures_util::StreamExt;
use futures_util::future::join_all;
use nats::{Connection, Store};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use crate::harness::proxy::Proxy;
use crate::harness::status::{assert_failure, assert_retryable};
use crate::harness::system::{PATIENCE, System, new_order, until};

/// How a publish to the ledger begins on the wire.
const APPEND: &str = "PUB inventory.ledger ";
pub const CREATED: &str = "PUB orders.event.order_created.";
pub const UPDATED: &str = "PUB orders.event.order_status_updated.";

/// A system with nine lamps, whose one gateway reaches NATS through a proxy.
pub async fn proxied_gateway() -> (System, Proxy) {
    let mut system = System::builder().gateways(1).stock("lamp", 9).start().await;
    let proxy = Proxy::to(system.nats.port()).await;
    system.gateway.nats = nats::Options::at(proxy.url());
    system.add_gateway().await;
    system.drain_gateway().await;
    (system, proxy)
}

/// A system with nine lamps, whose one worker reaches NATS through a proxy.
async fn proxied_worker() -> (System, Proxy) {
    let mut system = System::builder().workers(0).start().await;
    let proxy = Proxy::to(system.nats.port()).await;
    system.worker.nats.connection = nats::Options::at(proxy.url());
    system.add_worker().await;
    until("the gateway has found it", async || system.gateways[0].up("orders.v1.OrderService") == Some(true))
        .await;
    system.adjust("lamp", 9).await.unwrap();
    (system, proxy)
}

/// Waits until this many entries are stored, which the gateway does not learn, and then breaks its connection.
async fn stored_and_cut(system: &System, proxy: &Proxy, stream: &'static str, entries: u64) {
    proxy.muted().await;
    let link = Connection::connect(&nats::Options::at(system.nats.url()), "a witness").await.unwrap();
    let store = Store::new(link, stream);
    until("it is stored", async || store.range(Instant::now() + PATIENCE).await.unwrap().last >= entries)
        .await;
    proxy.cut();
    proxy.restore();
}

/// The subjects of everything in ORDERS.
async fn record(system: &System) -> Vec<String> {
    let link = Connection::connect(&nats::Options::at(system.nats.url()), "a witness").await.unwrap();
    let store = Store::new(link, order_streams::ORDERS);
    let range = store.range(Instant::now() + PATIENCE).await.unwrap();
    let read = |sequence| store.get(sequence, Instant::now() + PATIENCE);
    let entries = join_all((range.first..=range.last).map(read)).await;
    entries.into_iter().filter_map(|entry| Some(entry.unwrap()?.subject.to_string())).collect()
}

async fn place_in(system: &System, id: &str, limit: &str) -> Result<Order, Status> {
    let mut request = Request::new(new_order("lamp", 1).id(id).request);
    request.metadata_mut().insert("grpc-timeout", limit.parse().unwrap());
    Ok(system.untimed_orders().create_order(request).await?.into_inner().order.unwrap())
}

#[tokio::test]
async fn a_records_lost_acknowledgement_is_found_by_the_call_itself() {
    let (system, proxy) = proxied_gateway().await;
    proxy.mute_after(CREATED);
    let (placed, ()) = tokio::join!(
        place_in(&system, "one", "20S"),
        stored_and_cut(&system, &proxy, order_streams::ORDERS, 1)
    );
    let order = placed.expect("the order");
    assert_eq!(record(&system).await, [format!("orders.event.order_created.{}", order.order_id)]);
    assert_eq!((system.get(&order.order_id).await.unwrap(), system.stock("lamp").await), (order, (9, 1)));
}

#[tokio::test]
async fn an_outcome_that_is_not_known_in_time_is_said_to_be_so_and_a_repeat_finds_it() {
    let (system, proxy) = proxied_gateway().await;
    proxy.mute_after(CREATED);
    let details =
        assert_failure(place_in(&system, "one", "4S").await, Code::Unavailable, "OUTCOME_UNKNOWN", "unknown");
    assert_retryable(&details);
    let named = details.error_info().unwrap().metadata.clone();
    assert_eq!(named["request_id"], "one");
    stored_and_cut(&system, &proxy, order_streams::ORDERS, 1).await;
    until("the gateway is back", async || system.check("lamp").await.is_ok()).await;
    let order = place_in(&system, "one", "20S").await.expect("the order");
    assert_eq!((record(&system).await.len(), &order.order_id), (1, &named["order_id"]));
    assert_eq!(system.stock("lamp").await, (9, 1));
}

#[tokio::test]
async fn a_status_changes_lost_acknowledgement_is_found_by_the_call_itself() {
    let (system, proxy) = proxied_gateway().await;
    let order = system.order("lamp", 1).await.unwrap();
    proxy.mute_after(UPDATED);
    let update = system.update(&order, OrderStatus::Confirmed, &order.etag);
    let (updated, ()) = tokio::join!(update, stored_and_cut(&system, &proxy, order_streams::ORDERS, 2));
    assert_eq!(updated.expect("the update").status(), OrderStatus::Confirmed);
    assert_eq!(record(&system).await.len(), 2);
}

#[tokio::test]
async fn a_reservations_lost_acknowledgement_is_found_by_its_worker() {
    let (system, proxy) = proxied_worker().await;
    proxy.mute_after(APPEND);
    let (placed, ()) = tokio::join!(
        place_in(&system, "one", "20S"),
        stored_and_cut(&system, &proxy, order_streams::INVENTORY, 2)
    );
    let order = placed.expect("the order");
    assert_eq!((record(&system).await.len(), system.stock("lamp").await), (1, (9, 1)));
    assert_eq!(system.place(&new_order("lamp", 1).id("one")).await.unwrap(), order);
}

#[tokio::test]
async fn an_adjustments_lost_acknowledgement_is_found_and_it_is_made_once() {
    let (system, proxy) = proxied_worker().await;
    let request = AdjustStockRequest {
        request_id: "delivery-7".to_owned(),
        adjustments: vec![Adjustment { product_id: "lamp".to_owned(), delta: 5 }],
        reason: String::new(),
    };
    proxy.mute_after(APPEND);
    let mut client = system.inventory();
    let (adjusted, ()) = tokio::join!(
        client.adjust_stock(request.clone()),
        stored_and_cut(&system, &proxy, order_streams::INVENTORY, 2)
    );
    adjusted.expect("the adjustment");
    system.inventory().adjust_stock(request).await.expect("a repeat");
    assert_eq!(system.stock("lamp").await, (14, 0));
}

#[tokio::test]
async fn a_request_that_arrives_after_its_deadline_is_refused_before_it_begins() {
    let (system, proxy) = proxied_worker().await;
    let nats = system.nats().await;
    proxy.hold();
    let deadline = Duration::from_millis(300);
    let unix = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + deadline).as_millis();
    let mut headers = HeaderMap::new();
    headers.insert("Request-Deadline", unix.to_string());
    let items = json!({"orderId": uuid::Uuid::new_v4(), "items": [{"productId": "lamp", "quantity": 1}]});
    let request = nats.request_with_headers("reserve_inventory", headers, items.to_string().into());
    let late = async {
        // The worker's clock follows JetStream's, as precisely as replies on a busy machine permit.
        tokio::time::sleep(deadline + Duration::from_secs(1)).await;
        proxy.restore();
    };
    let (reply, ()) = tokio::join!(request, late);
    let answer: Value = serde_json::from_slice(&reply.unwrap().payload).unwrap();
    assert_eq!(
        (&answer["code"], &answer["details"][0]["reason"]),
        (&json!(4), &json!("TIMEOUT")),
        "{answer}"
    );
    assert_eq!(system.stock("lamp").await, (9, 0));
}

#[tokio::test]
async fn what_was_asked_while_disconnected_is_not_sent_after_the_reconnect() {
    let mut system = System::builder().workers(0).start().await;
    let proxy = Proxy::to(system.nats.port()).await;
    system.gateway.nats = nats::Options::at(proxy.url());
    system.add_gateway().await;
    system.drain_gateway().await;
    let nats = system.nats().await;
    let mut requests = nats.subscribe("check_inventory").await.unwrap();
    let (count, counter) = (Arc::new(AtomicUsize::new(0)), nats.clone());
    let counted = count.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer =
                json!({"available": true, "items": [{"productId": "lamp", "requested": 1, "available": 1}]});
            let _ = counter.publish(request.reply.unwrap(), answer.to_string().into()).await;
        }
    });
    proxy.cut();
    until("the gateway knows", async || system.gateways[0].up("") == Some(false)).await;
    for call in join_all((0..50).map(|_| system.check("lamp"))).await {
        assert_failure(call, Code::Unavailable, "NATS_DISCONNECTED", "no");
    }
    proxy.restore();
    until("a call gets through", async || system.check("lamp").await.is_ok()).await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
}
