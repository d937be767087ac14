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

use crate::failures::{comes_back, told};
use crate::proxy::Proxy;
use crate::shop::{PATIENCE, Shop, until, wish};

/// How a publish to the ledger begins on the wire.
const APPEND: &str = "PUB inventory.ledger ";
pub const CREATED: &str = "PUB orders.event.order_created.";
pub const UPDATED: &str = "PUB orders.event.order_status_updated.";

/// A shop with nine lamps, whose one gateway reaches NATS through a proxy.
pub async fn proxied_gateway() -> (Shop, Proxy) {
    let mut shop = Shop::open().gateways(1).stock("lamp", 9).ready().await;
    let proxy = Proxy::to(shop.nats.port()).await;
    shop.gateway.nats = nats::Options::at(proxy.url());
    shop.open_gateway().await;
    shop.close_gateway().await;
    (shop, proxy)
}

/// A shop with nine lamps, whose one worker reaches NATS through a proxy.
async fn proxied_worker() -> (Shop, Proxy) {
    let mut shop = Shop::open().workers(0).ready().await;
    let proxy = Proxy::to(shop.nats.port()).await;
    shop.worker.nats.link = nats::Options::at(proxy.url());
    shop.hire().await;
    until("the gateway has found it", async || shop.gateways[0].up("orders.v1.OrderService") == Some(true))
        .await;
    shop.adjust("lamp", 9).await.unwrap();
    (shop, proxy)
}

/// Waits until this many entries are stored, which the gateway does not learn, and then breaks its connection.
async fn stored_and_cut(shop: &Shop, proxy: &Proxy, stream: &'static str, entries: u64) {
    proxy.muted().await;
    let link = Connection::connect(&nats::Options::at(shop.nats.url()), "a witness").await.unwrap();
    let store = Store::new(link, stream);
    until("it is stored", async || store.range(Instant::now() + PATIENCE).await.unwrap().last >= entries)
        .await;
    proxy.cut();
    proxy.mend();
}

/// The subjects of everything in ORDERS.
async fn record(shop: &Shop) -> Vec<String> {
    let link = Connection::connect(&nats::Options::at(shop.nats.url()), "a witness").await.unwrap();
    let store = Store::new(link, order_streams::ORDERS);
    let range = store.range(Instant::now() + PATIENCE).await.unwrap();
    let read = |sequence| store.get(sequence, Instant::now() + PATIENCE);
    let entries = join_all((range.first..=range.last).map(read)).await;
    entries.into_iter().filter_map(|entry| Some(entry.unwrap()?.subject.to_string())).collect()
}

async fn place_in(shop: &Shop, id: &str, limit: &str) -> Result<Order, Status> {
    let mut request = Request::new(wish("lamp", 1).id(id).request);
    request.metadata_mut().insert("grpc-timeout", limit.parse().unwrap());
    Ok(shop.patient().create_order(request).await?.into_inner().order.unwrap())
}

#[tokio::test]
async fn a_records_lost_acknowledgement_is_found_by_the_call_itself() {
    let (shop, proxy) = proxied_gateway().await;
    proxy.mute_after(CREATED);
    let (placed, ()) =
        tokio::join!(place_in(&shop, "one", "20S"), stored_and_cut(&shop, &proxy, order_streams::ORDERS, 1));
    let order = placed.expect("the order");
    assert_eq!(record(&shop).await, [format!("orders.event.order_created.{}", order.order_id)]);
    assert_eq!((shop.get(&order.order_id).await.unwrap(), shop.stock("lamp").await), (order, (9, 1)));
}

#[tokio::test]
async fn an_outcome_that_is_not_known_in_time_is_said_to_be_so_and_a_repeat_finds_it() {
    let (shop, proxy) = proxied_gateway().await;
    proxy.mute_after(CREATED);
    let details = told(place_in(&shop, "one", "4S").await, Code::Unavailable, "OUTCOME_UNKNOWN", "unknown");
    comes_back(&details);
    let named = details.error_info().unwrap().metadata.clone();
    assert_eq!(named["request_id"], "one");
    stored_and_cut(&shop, &proxy, order_streams::ORDERS, 1).await;
    until("the gateway is back", async || shop.check("lamp").await.is_ok()).await;
    let order = place_in(&shop, "one", "20S").await.expect("the order");
    assert_eq!((record(&shop).await.len(), &order.order_id), (1, &named["order_id"]));
    assert_eq!(shop.stock("lamp").await, (9, 1));
}

#[tokio::test]
async fn a_status_changes_lost_acknowledgement_is_found_by_the_call_itself() {
    let (shop, proxy) = proxied_gateway().await;
    let order = shop.order("lamp", 1).await.unwrap();
    proxy.mute_after(UPDATED);
    let update = shop.update(&order, OrderStatus::Confirmed, &order.etag);
    let (updated, ()) = tokio::join!(update, stored_and_cut(&shop, &proxy, order_streams::ORDERS, 2));
    assert_eq!(updated.expect("the update").status(), OrderStatus::Confirmed);
    assert_eq!(record(&shop).await.len(), 2);
}

#[tokio::test]
async fn a_reservations_lost_acknowledgement_is_found_by_its_worker() {
    let (shop, proxy) = proxied_worker().await;
    proxy.mute_after(APPEND);
    let (placed, ()) = tokio::join!(
        place_in(&shop, "one", "20S"),
        stored_and_cut(&shop, &proxy, order_streams::INVENTORY, 2)
    );
    let order = placed.expect("the order");
    assert_eq!((record(&shop).await.len(), shop.stock("lamp").await), (1, (9, 1)));
    assert_eq!(shop.place(&wish("lamp", 1).id("one")).await.unwrap(), order);
}

#[tokio::test]
async fn an_adjustments_lost_acknowledgement_is_found_and_it_is_made_once() {
    let (shop, proxy) = proxied_worker().await;
    let request = AdjustStockRequest {
        request_id: "delivery-7".to_owned(),
        adjustments: vec![Adjustment { product_id: "lamp".to_owned(), delta: 5 }],
        reason: String::new(),
    };
    proxy.mute_after(APPEND);
    let mut client = shop.inventory();
    let (adjusted, ()) = tokio::join!(
        client.adjust_stock(request.clone()),
        stored_and_cut(&shop, &proxy, order_streams::INVENTORY, 2)
    );
    adjusted.expect("the adjustment");
    shop.inventory().adjust_stock(request).await.expect("a repeat");
    assert_eq!(shop.stock("lamp").await, (14, 0));
}

#[tokio::test]
async fn a_request_that_arrives_after_its_deadline_is_refused_before_it_begins() {
    let (shop, proxy) = proxied_worker().await;
    let nats = shop.nats().await;
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
        proxy.mend();
    };
    let (reply, ()) = tokio::join!(request, late);
    let answer: Value = serde_json::from_slice(&reply.unwrap().payload).unwrap();
    assert_eq!(
        (&answer["code"], &answer["details"][0]["reason"]),
        (&json!(4), &json!("TIMEOUT")),
        "{answer}"
    );
    assert_eq!(shop.stock("lamp").await, (9, 0));
}

#[tokio::test]
async fn what_was_asked_while_disconnected_is_not_sent_after_the_reconnect() {
    let mut shop = Shop::open().workers(0).ready().await;
    let proxy = Proxy::to(shop.nats.port()).await;
    shop.gateway.nats = nats::Options::at(proxy.url());
    shop.open_gateway().await;
    shop.close_gateway().await;
    let nats = shop.nats().await;
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
    until("the gateway knows", async || shop.gateways[0].up("") == Some(false)).await;
    for call in join_all((0..50).map(|_| shop.check("lamp"))).await {
        told(call, Code::Unavailable, "NATS_DISCONNECTED", "no");
    }
    proxy.mend();
    until("a call gets through", async || shop.check("lamp").await.is_ok()).await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
}
