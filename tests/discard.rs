//! Discarding dead letters: what is kept of them, and what happens to the stock that waited for them.

use async_nats::HeaderMap;
use nats::header::put;
use nats::{Connection, Expect, JetStreamStats, Store};
use order_streams::{DeadLetters, Discarded};
use orders::dead_letters::{discard, every};
use tokio::time::Instant;
use uuid::Uuid;

use crate::harness::http::get;
use crate::harness::roles;
use crate::harness::system::{PATIENCE, System, until};

const WHY: &str = "the test system's own, 100 % wrong — é";

async fn operator(system: &System) -> Connection {
    Connection::connect(&roles::options(&system.nats.url(), "operator"), "an operator").await.unwrap()
}

async fn discarded(link: &Connection) -> Vec<Discarded> {
    let (letters, mut all, mut from) = (DeadLetters::new(link), Vec::new(), 1);
    while let Some((sequence, record)) = letters.next_discarded(from).await.unwrap() {
        all.push(record);
        from = sequence + 1;
    }
    all
}

/// Stores a dead letter of an order's event, as a worker does.
async fn bury(system: &System, order: Uuid, event: u64) -> u64 {
    let link = Connection::connect(&roles::options(&system.nats.url(), "worker"), "a worker").await.unwrap();
    let mut headers = HeaderMap::new();
    put(&mut headers, contract::header::DEAD_LETTER_ERROR, "the ledger has no evidence for it");
    put(&mut headers, contract::header::DEAD_LETTER_SUBJECT, format!("orders.event.order_created.{order}"));
    put(&mut headers, contract::header::DEAD_LETTER_SEQUENCE, event.to_string());
    let subject = format!("{}.{order}", order_streams::DEAD_LETTER_PREFIX);
    let (store, deadline) = (Store::new(link, order_streams::DEAD_LETTERS), Instant::now() + PATIENCE);
    store.append(&subject, headers, "{}".into(), Expect::Any, deadline).await.unwrap()
}

/// Reserves an order's stock for a second, as a gateway does that dies then.
async fn hold(system: &System, order: Uuid) {
    let gateway = roles::RoleClient::of(&system.nats.url(), "gateway").await;
    let items = r#"[{"productId":"lamp","quantity":1}]"#;
    let request = format!(r#"{{"orderId":"{order}","items":{items},"ttlSeconds":1}}"#);
    let reply = gateway.client.request("reserve_inventory", request.into()).await.unwrap();
    assert!(String::from_utf8_lossy(&reply.payload).contains(r#""reserved":true"#), "{reply:?}");
}

#[tokio::test]
async fn a_discarded_dead_letter_is_gone_and_who_did_it_and_why_is_kept() {
    let system = System::builder().roles().start().await;
    let (link, order) = (operator(&system).await, Uuid::new_v4());
    for event in [7, 9, 7] {
        bury(&system, order, event).await;
    }
    let done = discard(&link, &[1, 44], WHY, "ann", false).await.unwrap();
    assert_eq!(done[0].end, Ok(vec![1, 3]), "all letters of the event go");
    assert!(done[1].end.as_ref().unwrap_err().contains("no such dead letter"), "{done:?}");
    assert_eq!(every(&link).await.unwrap(), [2]);
    let kept = discarded(&link).await;
    assert_eq!(kept.iter().map(|kept| kept.letter.id).collect::<Vec<_>>(), [1, 3]);
    let first = &kept[0];
    assert_eq!((&*first.why, &*first.by, first.letter.sequence), (WHY, "ann", Some(7)));
    assert!(first.letter.error.contains("no evidence") && first.letter.subject.ends_with(&order.to_string()));
    assert_eq!(&*first.letter.payload, b"{}");
    // The record of a discard is never taken for a dead letter: not by id, by the console, or in the count for alerts.
    let letters = DeadLetters::new(&link);
    assert_eq!(letters.get(4).await.unwrap(), None);
    assert_eq!(letters.newest(9, 99, PATIENCE).await.unwrap().len(), 1);
    let census = JetStreamStats::take(
        &link,
        &[(order_streams::DEAD_LETTERS, Some(order_streams::DISCARDED))],
        &[],
        Instant::now() + PATIENCE,
    )
    .await;
    assert_eq!(census.stream(order_streams::DEAD_LETTERS).unwrap().messages, 1);
}

#[tokio::test]
async fn a_dry_run_discards_nothing() {
    let system = System::builder().roles().start().await;
    let link = operator(&system).await;
    bury(&system, Uuid::new_v4(), 7).await;
    assert_eq!(discard(&link, &[1], WHY, "ann", true).await.unwrap()[0].end, Ok(vec![1]));
    assert_eq!((every(&link).await.unwrap(), discarded(&link).await.len()), (vec![1], 0));
}

#[tokio::test]
async fn stock_that_waited_for_a_dead_letter_is_free_once_it_is_discarded() {
    let mut system = System::builder()
        .roles()
        .stock("lamp", 1)
        .each_worker(|w| w.expiry_interval = std::time::Duration::from_millis(50))
        .start()
        .await;
    let (link, order) = (operator(&system).await, Uuid::new_v4());
    bury(&system, order, 7).await;
    hold(&system, order).await;
    let worker = system.workers[0].http().await;
    let stuck = async || get(worker, "/metrics").await.contains("\ninventory_reservations_stuck 1\n");
    until("the reservation waits for its letter", stuck).await;
    assert_eq!(system.stock("lamp").await, (1, 1));
    discard(&link, &[1], WHY, "ann", false).await.unwrap();
    // The worker that postponed it tries again after half a minute; a new one at once.
    system.add_worker().await;
    until("the stock is free", async || system.stock("lamp").await == (1, 0)).await;
}
