//! Order events that cannot be processed, and a system that restarts with its state.

use async_nats::HeaderMap;
use contract::orders::v1::{ListOrdersRequest, Order, OrderStatus};
use nats::{Connection, Expect, Store};
use tokio::time::Instant;
use uuid::Uuid;

use crate::harness::system::{PATIENCE, System, until};

/// Publishes an event to ORDERS that no gateway would write.
pub async fn forge(system: &System, id: Uuid, payload: &[u8]) -> u64 {
    let link = Connection::connect(&nats::Options::at(system.nats.url()), "a forger").await.unwrap();
    let subject = format!("orders.event.order_created.{id}");
    let (store, deadline) = (Store::new(link, order_streams::ORDERS), Instant::now() + PATIENCE);
    store.append(&subject, HeaderMap::new(), payload.to_vec().into(), Expect::Any, deadline).await.unwrap()
}

/// The last dead letter of an order.
async fn dead_letter(system: &System, id: Uuid) -> Option<async_nats::jetstream::message::StreamMessage> {
    let link = Connection::connect(&nats::Options::at(system.nats.url()), "an operator").await.unwrap();
    let store = Store::new(link, order_streams::DEAD_LETTERS);
    store
        .last(&format!("{}.{id}", order_streams::DEAD_LETTER_PREFIX), Instant::now() + PATIENCE)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_event_that_is_no_order_becomes_a_dead_letter_and_the_next_one_is_worked_off() {
    let system = System::builder().stock("lamp", 5).start().await;
    let id = Uuid::new_v4();
    let sequence = forge(&system, id, b"{nonsense").await;
    let order = system.order("lamp", 2).await.unwrap();
    system.update(&order, OrderStatus::Cancelled, "").await.unwrap();
    until("the order after it is worked off", async || system.stock("lamp").await == (5, 0)).await;
    until("the dead letter is stored", async || dead_letter(&system, id).await.is_some()).await;
    let letter = dead_letter(&system, id).await.unwrap();
    assert_eq!(&*letter.payload, b"{nonsense");
    assert_eq!(letter.headers.get("Dead-Letter-Sequence").unwrap().as_str(), sequence.to_string());
    assert!(letter.headers.get("Dead-Letter-Error").unwrap().as_str().contains("not an order"));
}

#[tokio::test]
async fn an_event_with_very_long_words_becomes_a_dead_letter_as_well() {
    let system = System::builder().stock("lamp", 5).start().await;
    let id = Uuid::new_v4();
    let payload = format!(r#"{{"orderId":"{}"}}"#, "x".repeat(700_000));
    forge(&system, id, payload.as_bytes()).await;
    until("the dead letter is stored", async || dead_letter(&system, id).await.is_some()).await;
    let letter = dead_letter(&system, id).await.unwrap();
    assert_eq!(letter.payload.len(), payload.len());
    let error = letter.headers.get("Dead-Letter-Error").unwrap().as_str();
    assert!(error.contains("the event xxx") && error.len() < 2_000, "{} bytes", error.len());
}

#[tokio::test]
async fn without_a_place_for_dead_letters_nothing_is_dropped_and_others_go_on() {
    let system = System::builder().stock("lamp", 5).each_worker(|w| w.max_deliver = 2).start().await;
    let nats = system.nats().await;
    let context = async_nats::jetstream::new(nats);
    let config = context.get_stream(order_streams::DEAD_LETTERS).await.unwrap().cached_info().config.clone();
    context.delete_stream(order_streams::DEAD_LETTERS).await.unwrap();
    let id = Uuid::new_v4();
    forge(&system, id, b"{nonsense").await;
    let order = system.order("lamp", 2).await.unwrap();
    system.update(&order, OrderStatus::Cancelled, "").await.unwrap();
    until("the order after it is worked off", async || system.stock("lamp").await == (5, 0)).await;
    let consumer = async || {
        let orders = context.get_stream(order_streams::ORDERS).await.unwrap();
        orders.consumer_info("inventory-worker").await.unwrap()
    };
    until("only the bad one is left", async || consumer().await.num_ack_pending == 1).await;
    context.create_stream(config).await.unwrap();
    until("it is stored when it can be", async || dead_letter(&system, id).await.is_some()).await;
    until("the consumer is through", async || consumer().await.num_ack_pending == 0).await;
}

#[tokio::test]
async fn an_order_without_a_reservation_is_a_dead_letter_after_its_last_delivery() {
    let system = System::builder().each_worker(|w| w.max_deliver = 3).start().await;
    let id = Uuid::new_v4();
    let order = Order { order_id: id.to_string(), status: OrderStatus::Pending.into(), ..Order::default() };
    forge(&system, id, &serde_json::to_vec(&order).unwrap()).await;
    until("the dead letter is stored", async || dead_letter(&system, id).await.is_some()).await;
    let letter = dead_letter(&system, id).await.unwrap();
    assert!(letter.headers.get("Dead-Letter-Error").unwrap().as_str().contains("no evidence"));
}

#[tokio::test]
async fn everything_is_there_again_after_all_of_it_was_killed() {
    let mut system = System::builder().stock("lamp", 5).workers(2).start().await;
    let order = system.order("lamp", 2).await.unwrap();
    system.workers.drain(..).for_each(crate::harness::worker::WorkerThread::kill);
    system.nats.kill();
    system.drain_gateway().await;
    system.nats.restart().expect("the nats-server again");
    system.add_worker().await;
    system.add_gateway().await;
    assert_eq!(system.get(&order.order_id).await.unwrap(), order);
    assert_eq!(system.list(ListOrdersRequest::default()).await.unwrap().orders, [order]);
    assert_eq!(system.stock("lamp").await, (5, 2));
}
