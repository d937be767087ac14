//! What a reconcile cannot read is reported, and never counts as a match.

use async_nats::HeaderMap;
use contract::header::{SERVICE_ERROR, SERVICE_ERROR_CODE};
use contract::inventory::v1::{
    ListReservationsRequest, ListReservationsResponse, Reservation, ReservationPhase,
};
use contract::route::Routed;
use futures_util::StreamExt;
use nats::header::{number, put};
use nats::{Expect, Store};
use orders::reconcile::{Report, reconcile};
use tokio::time::Instant;
use uuid::Uuid;

use crate::backup::operator;
use crate::events::forge;
use crate::harness::client::settled;
use crate::harness::system::{PATIENCE, System, until};

fn named(report: &Report) -> Vec<&str> {
    report.unread.iter().map(|unread| &*unread.what).collect()
}

#[tokio::test]
async fn entries_and_dead_letters_that_say_nothing_are_named() {
    let system = System::builder().stock("lamp", 5).each_worker(|w| w.max_deliver = 1).start().await;
    system.order("lamp", 1).await.unwrap();
    let link = operator(&system).await;
    assert!(reconcile(&link, false, PATIENCE).await.unwrap().clean());
    let event = forge(&system, Uuid::new_v4(), b"{nonsense").await;
    let letters = Store::new(link.clone(), order_streams::DEAD_LETTERS);
    let buried = async || letters.range(Instant::now() + PATIENCE).await.unwrap().last == 1;
    until("the event is a dead letter", buried).await;
    let (subject, deadline) = ("dead_letters.orders.stray", Instant::now() + PATIENCE);
    letters.append(subject, HeaderMap::new(), "{}".into(), Expect::Any, deadline).await.unwrap();
    let report = reconcile(&link, true, PATIENCE).await.unwrap();
    assert_eq!(named(&report), [format!("entry {event} of ORDERS"), "dead letter 2".to_owned()]);
    assert!(report.dead_letters == 2 && !report.clean(), "{:#?}", report.lines(false));
    assert!(report.findings.is_empty(), "{:#?}", report.lines(false));
}

/// A service that returns the first page of a ledger with a reservation of this order, and fails for the next one.
async fn half_a_ledger(system: &System, order: Uuid) {
    let nats = system.nats().await;
    let mut requests =
        nats.queue_subscribe("list_reservations", "inventory-maintenance".into()).await.unwrap();
    settled(&nats).await;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let asked = ListReservationsRequest::from_payload(&request.payload).unwrap();
            let reply = request.reply.unwrap();
            if !asked.page_token.is_empty() {
                let mut headers = HeaderMap::new();
                number(&mut headers, SERVICE_ERROR_CODE, 400);
                put(&mut headers, SERVICE_ERROR, "no such page");
                nats.publish_with_headers(reply, headers, "".into()).await.unwrap();
                continue;
            }
            let phase = ReservationPhase::Bound.into();
            let held = Reservation { order_id: order.to_string(), phase, sequence: 1, ..Default::default() };
            let next_page_token = "more".to_owned();
            let page =
                ListReservationsResponse { reservations: vec![held], next_page_token, ..Default::default() };
            let payload = ListReservationsRequest::reply_to_payload(&page).unwrap();
            nats.publish(reply, payload.into()).await.unwrap();
        }
    });
}

#[tokio::test]
async fn orders_of_missing_pages_are_not_reported_as_unreserved_and_nothing_is_repaired() {
    let mut system = System::builder().stock("lamp", 5).start().await;
    let order = system.order("lamp", 1).await.unwrap();
    system.order("lamp", 1).await.unwrap();
    system.workers.remove(0).drain().await;
    half_a_ledger(&system, Uuid::parse_str(&order.order_id).unwrap()).await;
    let report = reconcile(&operator(&system).await, true, std::time::Duration::ZERO).await.unwrap();
    assert!(named(&report).contains(&"reservations after the first 1"), "{:#?}", report.lines(false));
    assert!(!report.whole() && !report.clean());
    let without = report.findings.iter().filter(|found| found.kind.name() == "order_without_stock").count();
    assert_eq!(without, 0, "{:#?}", report.lines(false));
}
