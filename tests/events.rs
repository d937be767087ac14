//! Order events that cannot be processed, and a system that restarts with its state.

use async_nats::HeaderMap;
use contract::orders::v1::{ListOrdersRequest, Order, OrderStatus};
use nats::{Connection, Expect, Store};
use tokio::time::Instant;
use uuid::Uuid;

use crate::shop::{PATIENCE, Shop, until};

/// Publishes an event to ORDERS that no gateway would write.
pub async fn forge(shop: &Shop, id: Uuid, payload: &[u8]) -> u64 {
    let link = Connection::connect(&nats::Options::at(shop.nats.url()), "a forger").await.unwrap();
    let subject = format!("orders.event.order_created.{id}");
    let (store, deadline) = (Store::new(link, order_streams::ORDERS), Instant::now() + PATIENCE);
    store.append(&subject, HeaderMap::new(), payload.to_vec().into(), Expect::Any, deadline).await.unwrap()
}

/// The last dead letter of an order.
async fn dead_letter(shop: &Shop, id: Uuid) -> Option<async_nats::jetstream::message::StreamMessage> {
    let link = Connection::connect(&nats::Options::at(shop.nats.url()), "an operator").await.unwrap();
    let store = Store::new(link, order_streams::DEAD_LETTERS);
    store
        .last(&format!("{}.{id}", order_streams::DEAD_LETTER_PREFIX), Instant::now() + PATIENCE)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_event_that_is_no_order_becomes_a_dead_letter_and_the_next_one_is_worked_off() {
    let shop = Shop::open().stock("lamp", 5).ready().await;
    let id = Uuid::new_v4();
    let sequence = forge(&shop, id, b"{nonsense").await;
    let order = shop.order("lamp", 2).await.unwrap();
    shop.update(&order, OrderStatus::Cancelled, "").await.unwrap();
    until("the order after it is worked off", async || shop.stock("lamp").await == (5, 0)).await;
    until("the dead letter is stored", async || dead_letter(&shop, id).await.is_some()).await;
    let letter = dead_letter(&shop, id).await.unwrap();
    assert_eq!(&*letter.payload, b"{nonsense");
    assert_eq!(letter.headers.get("Dead-Letter-Sequence").unwrap().as_str(), sequence.to_string());
    assert!(letter.headers.get("Dead-Letter-Error").unwrap().as_str().contains("not an order"));
}

#[tokio::test]
async fn an_event_with_very_long_words_becomes_a_dead_letter_as_well() {
    let shop = Shop::open().stock("lamp", 5).ready().await;
    let id = Uuid::new_v4();
    let payload = format!(r#"{{"orderId":"{}"}}"#, "x".repeat(700_000));
    forge(&shop, id, payload.as_bytes()).await;
    until("the dead letter is stored", async || dead_letter(&shop, id).await.is_some()).await;
    let letter = dead_letter(&shop, id).await.unwrap();
    assert_eq!(letter.payload.len(), payload.len());
    let error = letter.headers.get("Dead-Letter-Error").unwrap().as_str();
    assert!(error.contains("the event xxx") && error.len() < 2_000, "{} bytes", error.len());
}

#[tokio::test]
async fn without_a_place_for_dead_letters_nothing_is_dropped_and_others_go_on() {
    let shop = Shop::open().stock("lamp", 5).each_worker(|w| w.max_deliver = 2).ready().await;
    let nats = shop.nats().await;
    let context = async_nats::jetstream::new(nats);
    let config = context.get_stream(order_streams::DEAD_LETTERS).await.unwrap().cached_info().config.clone();
    context.delete_stream(order_streams::DEAD_LETTERS).await.unwrap();
    let id = Uuid::new_v4();
    forge(&shop, id, b"{nonsense").await;
    let order = shop.order("lamp", 2).await.unwrap();
    shop.update(&order, OrderStatus::Cancelled, "").await.unwrap();
    until("the order after it is worked off", async || shop.stock("lamp").await == (5, 0)).await;
    let consumer = async || {
        let orders = context.get_stream(order_streams::ORDERS).await.unwrap();
        orders.consumer_info("inventory-worker").await.unwrap()
    };
    until("only the bad one is left", async || consumer().await.num_ack_pending == 1).await;
    context.create_stream(config).await.unwrap();
    until("it is stored when it can be", async || dead_letter(&shop, id).await.is_some()).await;
    until("the consumer is through", async || consumer().await.num_ack_pending == 0).await;
}

#[tokio::test]
async fn an_order_without_a_reservation_is_a_dead_letter_after_its_last_delivery() {
    let shop = Shop::open().each_worker(|w| w.max_deliver = 3).ready().await;
    let id = Uuid::new_v4();
    let order = Order { order_id: id.to_string(), status: OrderStatus::Pending.into(), ..Order::default() };
    forge(&shop, id, &serde_json::to_vec(&order).unwrap()).await;
    until("the dead letter is stored", async || dead_letter(&shop, id).await.is_some()).await;
    let letter = dead_letter(&shop, id).await.unwrap();
    assert!(letter.headers.get("Dead-Letter-Error").unwrap().as_str().contains("no evidence"));
}

#[tokio::test]
async fn everything_is_there_again_after_all_of_it_was_killed() {
    let mut shop = Shop::open().stock("lamp", 5).workers(2).ready().await;
    let order = shop.order("lamp", 2).await.unwrap();
    shop.workers.drain(..).for_each(crate::crew::Hand::kill);
    shop.nats.kill();
    shop.close_gateway().await;
    shop.nats.restart().expect("the nats-server again");
    shop.hire().await;
    shop.open_gateway().await;
    assert_eq!(shop.get(&order.order_id).await.unwrap(), order);
    assert_eq!(shop.list(ListOrdersRequest::default()).await.unwrap().orders, [order]);
    assert_eq!(shop.stock("lamp").await, (5, 2));
}
