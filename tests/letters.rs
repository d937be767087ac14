//! Dead letters: listed, and replayed to a worker.

use contract::orders::v1::{Order, OrderStatus};
use inventory_worker::config::Serve;
use nats::Connection;
use order_streams::{DeadLetter, DeadLetters};
use orders::dead_letters::{every, replay};
use uuid::Uuid;

use crate::events::forge;
use crate::harness::system::{System, new_order, until};

async fn link(system: &System) -> Connection {
    Connection::connect(&nats::Options::at(system.nats.url()), "an operator").await.unwrap()
}

async fn letters(link: &Connection) -> Vec<DeadLetter> {
    let letters = DeadLetters::new(link);
    let mut found = Vec::new();
    for id in every(link).await.unwrap() {
        found.extend(letters.get(id).await.unwrap());
    }
    found
}

/// An order as a gateway records it, but without a reservation.
fn pending(id: Uuid) -> Vec<u8> {
    let order = Order {
        order_id: id.to_string(),
        customer_id: "ann".to_owned(),
        items: new_order("lamp", 2).request.items,
        status: OrderStatus::Pending.into(),
        create_time: Some(pbjson_types::Timestamp { seconds: 1, nanos: 0 }),
        update_time: Some(pbjson_types::Timestamp { seconds: 1, nanos: 0 }),
        ..Order::default()
    };
    serde_json::to_vec(&order).unwrap()
}

fn quick(worker: &mut Serve) {
    worker.max_deliver = 1;
}

/// A system with an order without a reservation, and its dead letter.
async fn with_a_letter() -> (System, Connection, Uuid) {
    let system = System::builder().stock("lamp", 5).each_worker(quick).start().await;
    let (link, id) = (link(&system).await, Uuid::new_v4());
    forge(&system, id, &pending(id)).await;
    until("it is a dead letter", async || letters(&link).await.len() == 1).await;
    (system, link, id)
}

/// Reserves the order's stock, as its gateway should have.
async fn reserve(system: &System, id: Uuid) {
    let request = format!(r#"{{"orderId":"{id}","items":[{{"productId":"lamp","quantity":2}}]}}"#);
    system.nats().await.request("reserve_inventory", request.into()).await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_says_what_happened_to_which_event() {
    let (_shop, link, id) = with_a_letter().await;
    let letter = letters(&link).await.remove(0);
    assert_eq!((letter.id, letter.sequence), (1, Some(1)));
    assert_eq!(letter.subject, format!("orders.event.order_created.{id}"));
    assert_eq!((&*letter.payload, letter.error.contains("no evidence")), (&*pending(id), true));
}

#[tokio::test]
async fn a_replayed_dead_letter_is_processed_and_gone_once_its_cause_is() {
    let (system, link, id) = with_a_letter().await;
    let refused = replay(&link, &[1], false).await.unwrap().remove(0).end.unwrap_err();
    assert!(refused.contains("UNSETTLED") && refused.contains("no evidence"), "{refused}");
    assert_eq!(letters(&link).await.len(), 1);
    reserve(&system, id).await;
    assert_eq!(replay(&link, &[1], false).await.unwrap().remove(0).end, Ok(vec![1]));
    assert_eq!(letters(&link).await, []);
    // The reservation is bound, so its stock can no longer be released.
    let release = format!(r#"{{"orderId":"{id}"}}"#);
    let reply = system.nats().await.request("release_inventory", release.into()).await.unwrap();
    assert!(String::from_utf8_lossy(&reply.payload).contains("ORDER_EXISTS"));
}

#[tokio::test]
async fn a_dry_run_says_what_would_come_of_it_and_changes_nothing() {
    let (system, link, id) = with_a_letter().await;
    replay(&link, &[1], true).await.unwrap().remove(0).end.unwrap_err();
    reserve(&system, id).await;
    let sequence = system.workers[0].sequence().await;
    assert_eq!(replay(&link, &[1], true).await.unwrap().remove(0).end, Ok(vec![1]));
    assert_eq!((letters(&link).await.len(), system.workers[0].sequence().await), (1, sequence));
}

#[tokio::test]
async fn poison_stays_with_its_error_and_the_other_dead_letters_go() {
    let system = System::builder().stock("lamp", 5).each_worker(quick).start().await;
    let (link, good) = (link(&system).await, Uuid::new_v4());
    forge(&system, Uuid::new_v4(), b"{nonsense").await;
    forge(&system, good, &pending(good)).await;
    until("both are dead letters", async || letters(&link).await.len() == 2).await;
    reserve(&system, good).await;
    let ids = every(&link).await.unwrap();
    let replayed = replay(&link, &ids, false).await.unwrap();
    let (left, done): (Vec<_>, Vec<_>) = replayed.iter().partition(|replayed| replayed.end.is_err());
    assert_eq!((left.len(), done.len()), (1, 1), "{replayed:?}");
    assert!(left[0].end.as_ref().unwrap_err().contains("not an order"), "{left:?}");
    let stays = letters(&link).await;
    assert_eq!(stays.iter().map(|letter| letter.id).collect::<Vec<_>>(), [left[0].id]);
}

#[tokio::test]
async fn all_dead_letters_of_an_event_go_together() {
    let (system, link, id) = with_a_letter().await;
    let js = async_nats::jetstream::new(link.client().clone());
    let stream = js.get_stream(order_streams::DEAD_LETTERS).await.unwrap();
    let first = stream.get_raw_message(1).await.unwrap();
    let twin = js.publish_with_headers(first.subject, first.headers, first.payload).await.unwrap();
    assert_eq!(twin.await.unwrap().sequence, 2);
    reserve(&system, id).await;
    let replayed = replay(&link, &[2, 1], false).await.unwrap();
    assert_eq!((replayed.len(), &replayed[0].end), (1, &Ok(vec![1, 2])));
    assert_eq!(letters(&link).await, []);
}

#[tokio::test]
async fn an_unknown_dead_letter_and_one_whose_event_has_changed_are_reported() {
    let (system, link, _) = with_a_letter().await;
    let js = async_nats::jetstream::new(link.client().clone());
    let stream = js.get_stream(order_streams::DEAD_LETTERS).await.unwrap();
    let letter = stream.get_raw_message(1).await.unwrap();
    js.publish_with_headers(letter.subject, letter.headers, "{}".into()).await.unwrap().await.unwrap();
    let replayed = replay(&link, &[2, 7], false).await.unwrap();
    assert!(replayed[0].end.as_ref().unwrap_err().contains("not on the record"), "{replayed:?}");
    assert!(replayed[1].end.as_ref().unwrap_err().contains("no such dead letter"), "{replayed:?}");
    assert_eq!((letters(&link).await.len(), system.stock("lamp").await), (2, (5, 0)));
}
