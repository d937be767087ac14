//! Thousands of callers that cancel their calls: whenever they do, an order is complete or absent, and the stock adds
//! up.

use std::collections::HashMap;
use std::error::Error as _;
use std::time::Duration;

use contract::orders::v1::{Order, OrderStatus};
use futures_util::{StreamExt, stream};
use tonic::{Code, Request, Status, TimeoutExpired};

use crate::harness::http::get;
use crate::harness::system::{System, new_order, order_id, reason, until};

const CALLS: u64 = 5_000;
const AT_ONCE: usize = 96;

async fn system() -> System {
    // Reservations without an order expire soon.
    let hasty = |worker: &mut inventory_worker::config::Serve| {
        worker.reservation_ttl = Duration::from_secs(2);
        worker.expiry_interval = Duration::from_millis(100);
    };
    System::builder().stock("lamp", 100_000).stock("rug", 100_000).each_worker(hasty).start().await
}

fn request(number: u64) -> contract::orders::v1::CreateOrderRequest {
    new_order("lamp", 1).and("rug", 2).id(&format!("call-{number}")).request
}

/// Spread evenly below `most`, and the same in every run.
fn spread(number: u64, most: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % most
}

/// Asserts that every order is complete or absent, and that exactly their units are reserved. Returns the number of
/// orders.
async fn adds_up(system: &System) -> u64 {
    let get = |number| async move { read(system, &order_id(&format!("call-{number}"))).await };
    let mut orders = 0;
    let mut found = stream::iter(0..CALLS).map(get).buffer_unordered(AT_ONCE);
    while let Some(found) = found.next().await {
        match found {
            Ok(order) => {
                assert!(whole(&order), "{order:?}");
                orders += 1;
            }
            Err(status) => assert_eq!(status.code(), Code::NotFound, "{status:?}"),
        }
    }
    let held = u32::try_from(orders).unwrap();
    until("what has no order is released", async || system.stock("lamp").await.1 == held).await;
    assert_eq!(
        (system.stock("lamp").await, system.stock("rug").await),
        ((100_000, held), (100_000, 2 * held))
    );
    orders
}

/// Reads an order, on a new connection if the previous one was closed.
async fn read(system: &System, id: &str) -> Result<Order, Status> {
    for _ in 0..10 {
        match system.get(id).await {
            Err(status) if closed(&status) => {}
            answer => return answer,
        }
    }
    system.get(id).await
}

/// Whether the client's own timer expired first, with CANCELLED.
fn timer(status: &Status) -> bool {
    let end = status.source().and_then(|transport| transport.source());
    end.is_some_and(|end| end.is::<TimeoutExpired>())
}

/// Whether the connection was closed, which is no status of the gateway: on a busy machine more resets arrive at once
/// than a connection may have (`too_many_resets`). That is the gateway's limit for them.
fn closed(status: &Status) -> bool {
    status.source().is_some() && !timer(status)
}

/// The code of a failed call, where overload and closed connections count as UNAVAILABLE.
fn code_of(status: &Status) -> Code {
    match status {
        status if timer(status) => Code::DeadlineExceeded,
        status if closed(status) || reason(status) == "OVERLOADED" => Code::Unavailable,
        status => status.code(),
    }
}

fn whole(order: &Order) -> bool {
    let items: Vec<_> = order.items.iter().map(|item| (item.product_id.as_str(), item.quantity)).collect();
    items == [("lamp", 1), ("rug", 2)] && order.status() == OrderStatus::Pending && order.customer_id == "ann"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_leave_whole_orders_or_none() {
    let mut system = system().await;
    let leave = |number| {
        let mut client = system.orders();
        async move {
            let patience = Duration::from_micros(spread(number, 60_000));
            // Dropped at the timeout, which resets the stream.
            tokio::time::timeout(patience, client.create_order(request(number)))
                .await
                .is_ok_and(|answer| answer.is_ok())
        }
    };
    let mut stayed = stream::iter(0..CALLS).map(leave).buffer_unordered(AT_ONCE);
    let mut answered = 0;
    while let Some(answer) = stayed.next().await {
        answered += u64::from(answer);
    }
    drop(stayed);
    let orders = adds_up(&system).await;
    // More orders than answers: some calls were in flight when their callers hung up.
    assert!(answered < CALLS && orders > answered, "{answered} answered, {orders} orders");
    // The drain succeeds, so nothing is in flight.
    system.drain_gateway().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_of_any_length_leave_whole_orders_or_none() {
    let system = system().await;
    let call = |number| {
        let mut client = system.orders();
        async move {
            let mut request = Request::new(request(number));
            let limit = format!("{}m", 1 + spread(number, 200));
            request.metadata_mut().insert("grpc-timeout", limit.parse().unwrap());
            client.create_order(request).await.map_or_else(|status| code_of(&status), |_| Code::Ok)
        }
    };
    let mut calls = stream::iter(0..CALLS).map(call).buffer_unordered(AT_ONCE);
    let mut codes: HashMap<Code, u64> = HashMap::new();
    while let Some(code) = calls.next().await {
        *codes.entry(code).or_default() += 1;
    }
    drop(calls);
    let orders = adds_up(&system).await;
    let of = |code| codes.get(&code).copied().unwrap_or(0);
    // An unknown outcome at the deadline is UNAVAILABLE (OUTCOME_UNKNOWN). Calls that were shed count as that here.
    let known = of(Code::Ok) + of(Code::DeadlineExceeded) + of(Code::Unavailable);
    assert_eq!((known, of(Code::DeadlineExceeded) > 0), (CALLS, true), "{codes:?}");
    assert!(orders >= of(Code::Ok), "{orders} orders, {codes:?}");
    // Some were in flight at the gateway when they ended. The client's timer may have reset them first.
    let page = get(system.gateways[0].http_addr(), "/metrics").await;
    let ended = |line: &&str| {
        let end = ["DEADLINE_EXCEEDED", "CANCELLED"].iter().any(|code| line.contains(code));
        line.starts_with("gateway_calls_total{") && line.contains("CreateOrder") && end
    };
    assert!(page.lines().any(|line| ended(&line)), "{page}");
}
