//! Workers that receive requests and never reply, as behind a frozen node: callers get the reply of another worker by a
//! hedged request, and requests that must not be repeated are sent once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract::inventory::v1::{AdjustStockRequest, Adjustment};
use contract::orders::v1::CreateOrderRequest;
use futures_util::StreamExt;
use tonic::Request;

use crate::harness::client::settled;
use crate::harness::http;
use crate::harness::system::{System, new_order, until};

/// Adds a member to a queue group that never replies. Returns its count of requests.
async fn swallow(system: &System, subject: &'static str, group: &str) -> Arc<AtomicUsize> {
    let nats = system.nats().await;
    let mut requests = nats.queue_subscribe(subject, group.to_owned()).await.unwrap();
    settled(&nats).await;
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while requests.next().await.is_some() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        drop(nats);
    });
    count
}

fn within(request: CreateOrderRequest, seconds: u64) -> Request<CreateOrderRequest> {
    let mut request = Request::new(request);
    request.set_timeout(Duration::from_secs(seconds));
    request
}

#[tokio::test]
async fn a_worker_that_never_answers_beside_one_that_does_fails_no_order() {
    let system = System::builder().stock("lamp", 1_000).start().await;
    // The gateway thread of this connection first has to learn the usual latency.
    let mut orders = system.untimed_orders();
    orders.create_order(within(new_order("lamp", 1).request, 10)).await.expect("the first order");
    let checks = swallow(&system, "check_inventory", "inventory-check").await;
    let reservations = swallow(&system, "reserve_inventory", "inventory-reserve").await;
    for _ in 0..25 {
        orders.create_order(within(new_order("lamp", 1).request, 10)).await.expect("an order");
    }
    assert_eq!(system.stock("lamp").await, (1_000, 26));
    let swallowed = [checks, reservations].map(|count| count.load(Ordering::Relaxed));
    assert!(swallowed.iter().all(|count| *count > 0), "{swallowed:?}");
    let page = http::get(system.gateways[0].http_addr(), "/metrics").await;
    for subject in ["check_inventory", "reserve_inventory"] {
        let hedges = format!("gateway_route_hedges_won_total{{route=\"{subject}\"}} ");
        let won = page.lines().find_map(|line| line.strip_prefix(&hedges)).expect("the figure");
        assert!(won.parse::<f64>().unwrap() > 0.0, "{subject}");
    }
}

#[tokio::test]
async fn a_change_without_a_request_id_is_sent_once_and_one_with_it_again() {
    let mut system = System::builder().stock("lamp", 10).start().await;
    let count = swallow(&system, "adjust_stock", "inventory-stock").await;
    system.workers.pop().unwrap().drain().await;
    let mut inventory = system.untimed_inventory();
    for (request_id, hedged) in [("", false), ("x", true)] {
        count.store(0, Ordering::Relaxed);
        let adjustments = vec![Adjustment { product_id: "lamp".to_owned(), delta: 1 }];
        let (request_id, reason) = (request_id.to_owned(), String::new());
        let mut request = Request::new(AdjustStockRequest { request_id, adjustments, reason });
        request.set_timeout(Duration::from_secs(2));
        inventory.adjust_stock(request).await.unwrap_err();
        until("it was sent", async || count.load(Ordering::Relaxed) > 0).await;
        assert_eq!(count.load(Ordering::Relaxed) > 1, hedged);
    }
}
