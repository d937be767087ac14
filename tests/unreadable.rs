//! Unreadable entries of ORDERS: they do not affect others, and they are reported.

use async_nats::HeaderMap;
use bytes::Bytes;
use contract::orders::v1::{ListOrdersRequest, Order, OrderStatus, WatchOrdersRequest};
use nats::Connection;
use order_streams::DeadLetters;
use tokio::time::timeout;
use tonic::Code;
use uuid::Uuid;

use crate::harness::http::get;
use crate::harness::system::{PATIENCE, System, new_order, reason, until};

/// Publishes an entry to ORDERS directly, with the headers of a valid one. Returns its sequence.
async fn write(system: &System, kind: &str, order: &str, first: Option<u64>, body: impl Into<Bytes>) -> u64 {
    let mut headers = HeaderMap::new();
    headers.insert("Operation-Id", Uuid::new_v4().to_string());
    headers.insert("Order-Customer", "ann");
    headers.insert("Order-Status", "ORDER_STATUS_PENDING");
    if let Some(first) = first {
        headers.insert("Order-Created-Sequence", first.to_string());
    }
    let nats = system.nats().await;
    let context = async_nats::jetstream::new(nats);
    let subject = format!("orders.event.{kind}.{order}");
    context.publish_with_headers(subject, headers, body.into()).await.unwrap().await.unwrap().sequence
}

/// All orders of a list, over its pages.
async fn list(system: &System, customer: &str, statuses: &[OrderStatus]) -> Vec<Order> {
    let (mut orders, mut token) = (Vec::new(), String::new());
    loop {
        let page = ListOrdersRequest {
            customer_id: customer.to_owned(),
            statuses: statuses.iter().map(|status| i32::from(*status)).collect(),
            page_size: 2,
            page_token: token,
        };
        let page = system.list(page).await.expect("a page");
        orders.extend(page.orders);
        token = page.next_page_token;
        if token.is_empty() {
            return orders;
        }
    }
}

async fn letters(system: &System) -> Vec<order_streams::DeadLetter> {
    let link = Connection::connect(&nats::Options::at(system.nats.url()), "a witness").await.unwrap();
    let (letters, mut all, mut from) = (DeadLetters::new(&link), Vec::new(), 1);
    while let Some(letter) = letters.next(from).await.unwrap() {
        from = letter.id + 1;
        all.push(letter);
    }
    all
}

#[tokio::test]
async fn an_entry_that_nobody_can_read_takes_no_other_order_out_of_a_list() {
    let mut system = System::builder().stock("lamp", 9).start().await;
    let (one, two) = (system.order("lamp", 1).await.unwrap(), system.order("lamp", 2).await.unwrap());
    for body in ["not an order", "{}", "\u{0}", ""] {
        write(&system, "order_created", &Uuid::new_v4().to_string(), None, body).await;
    }
    let first = two.etag.parse().unwrap();
    let spoilt = write(&system, "order_status_updated", &two.order_id, Some(first), "{\"orderId\":7}").await;
    let three = system.order("lamp", 3).await.unwrap();
    // A new gateway reads them from the stream's history.
    system.add_gateway().await;
    for _ in 0..2 {
        let expected = [three.clone(), one.clone()];
        assert_eq!(list(&system, "", &[]).await, expected);
        assert_eq!(list(&system, "ann", &[OrderStatus::Pending]).await, expected);
    }
    let status = system.get(&two.order_id).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::DataLoss, "RECORD_UNREADABLE"),
        "{status:?}"
    );
    assert!(status.message().contains(&spoilt.to_string()), "{status:?}");
    for gateway in &system.gateways {
        let page = get(gateway.http_addr(), "/metrics").await;
        let met = page.lines().find_map(|line| line.strip_prefix("gateway_record_unreadable_total "));
        assert!(met.is_some_and(|met| met.parse::<u64>().unwrap() > 0), "{met:?}");
    }
}

#[tokio::test]
async fn a_watch_goes_on_behind_an_entry_that_nobody_can_read() {
    let system = System::builder().stock("lamp", 9).start().await;
    let mut live = system.orders().watch_orders(WatchOrdersRequest::default()).await.unwrap().into_inner();
    let token = live.message().await.unwrap().unwrap().resume_token;
    write(&system, "order_created", &Uuid::new_v4().to_string(), None, "not an order").await;
    let placed = system.order("lamp", 1).await.unwrap();
    let request = WatchOrdersRequest { resume_token: token, ..Default::default() };
    let resumed = system.orders().watch_orders(request).await.unwrap().into_inner();
    for mut watch in [live, resumed] {
        let change = async {
            loop {
                if let Some(order) = watch.message().await.unwrap().unwrap().order {
                    return order;
                }
            }
        };
        assert_eq!(timeout(PATIENCE, change).await.unwrap(), placed);
    }
}

#[tokio::test]
async fn the_workers_go_on_behind_an_entry_that_is_too_large_to_be_kept_with_its_error() {
    let system = System::builder().stock("lamp", 9).start().await;
    // The largest message with these headers; those of the dead letter are longer.
    let largest = 1_048_576 - 150;
    let order = Uuid::new_v4().to_string();
    let event = write(&system, "order_created", &order, None, vec![b'x'; largest - 8]).await;
    until("it is a dead letter", async || !letters(&system).await.is_empty()).await;
    let letter = letters(&system).await.remove(0);
    assert_eq!((letter.sequence, letter.payload.len()), (Some(event), 0), "{}", letter.error);
    let order = system.place(&new_order("lamp", 1)).await.unwrap();
    system.update(&order, OrderStatus::Confirmed, "").await.unwrap();
    system.update(&order, OrderStatus::Shipped, "").await.unwrap();
    until("what came behind it is worked off", async || system.stock("lamp").await == (8, 0)).await;
}
