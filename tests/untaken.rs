//! Responses that are not read: a client with a closed flow-control window holds no more memory than its share, keeps
//! its permits, and its connection is closed in the end.

use std::time::Duration;

use bytes::Bytes;
use contract::orders::v1::{CheckInventoryRequest, ListOrdersRequest};
use prost_reflect::prost::Message as _;
use tokio::time::Instant;
use tonic::Code;

use crate::harness::frames::{self, DATA, END_HEADERS, END_STREAM, End, HEADERS, INITIAL_WINDOW, Line};
use crate::harness::http::get;
use crate::harness::status::{assert_failure, assert_retryable};
use crate::harness::system::{PATIENCE, System, new_order, until};

const CHECK: &str = "/orders.v1.OrderService/CheckInventory";
const LIST: &str = "/orders.v1.OrderService/ListOrders";

fn limit() -> Instant {
    Instant::now() + PATIENCE
}

/// A connection whose flow-control window is 0.
async fn closed_window(system: &System) -> Line {
    Line::open(system.gateways[0].grpc_addr(), &frames::setting(INITIAL_WINDOW, 0)).await.unwrap()
}

/// Calls on this stream, and waits for the response headers. True if that was the whole response.
async fn call(line: &mut Line, stream: u32, path: &str, message: &[u8]) -> bool {
    let begun = line.seen[usize::from(HEADERS)];
    let head = frames::frame(HEADERS, END_HEADERS, stream, &frames::head(path, &[]));
    let message = frames::message(false, message.len(), message);
    let mut frames: Vec<_> =
        message.chunks(16_000).map(|part| frames::frame(DATA, 0, stream, part)).collect();
    frames.push(frames::frame(DATA, END_STREAM, stream, &[]));
    line.room.open(stream);
    line.send(&[head, frames.concat()].concat(), limit(), true).await.unwrap();
    assert_eq!(line.until(limit(), |seen| seen[usize::from(HEADERS)] > begun).await, Ok(true));
    !line.room.has(stream)
}

/// A request whose response has more than 30,000 bytes.
fn wide() -> Bytes {
    let product = |n| format!("a-product-with-a-name-as-long-as-it-may-be-just-to-fill-it-{n:04}");
    let many = (1..500).fold(new_order(&product(0), 1), |order, n| order.and(&product(n), 1));
    CheckInventoryRequest { items: many.request.items }.encode_to_vec().into()
}

async fn unread(system: &System) -> f64 {
    let page = get(system.gateways[0].http_addr(), "/metrics").await;
    let line = page.lines().find(|line| line.starts_with("gateway_answer_bytes ")).expect("the figure");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn answers_that_are_not_taken_are_held_to_a_share_and_others_are_served() {
    let small = |config: &mut gateway::config::Serve| {
        (config.limits.max_request_bytes, config.limits.max_reply_bytes) = (64 << 10, 64 << 10);
        config.limits.max_buffered_bytes = 1 << 20;
    };
    let system = System::builder().stock("lamp", 9).each_gateway(small).start().await;
    let mut line = closed_window(&system).await;
    let (wide, mut open) = (wide(), 0);
    // A quarter of a MiB, and the response that exceeds it.
    while !call(&mut line, 2 * open + 1, CHECK, &wide).await {
        open += 1;
        assert!(open < 20, "{} bytes are held", unread(&system).await);
    }
    assert!((5..10).contains(&open), "{open}");
    assert!(unread(&system).await > 256.0 * 1024.0);
    assert!(system.check("lamp").await.unwrap());
    drop(line);
    until("all is given back", async || unread(&system).await == 0.0).await;
}

#[tokio::test]
async fn a_list_keeps_its_permit_until_it_is_read() {
    let system = System::builder()
        .stock("lamp", 9)
        .each_gateway(|config| config.limits.max_in_flight = 4)
        .start()
        .await;
    system.order("lamp", 1).await.unwrap();
    let mut line = closed_window(&system).await;
    let request = ListOrdersRequest::default().encode_to_vec();
    for number in 0..4 {
        // A refused call has its whole response in the headers.
        if call(&mut line, 2 * number + 1, LIST, &request).await {
            break;
        }
    }
    let list = || system.list(ListOrdersRequest::default());
    assert_retryable(&assert_failure(list().await, Code::ResourceExhausted, "OVERLOADED", "no"));
    drop(line);
    until("the places are free", async || list().await.is_ok()).await;
}

#[tokio::test]
async fn a_connection_on_which_an_answer_lies_for_long_is_ended() {
    let system = System::builder().stock("lamp", 9).start().await;
    let mut line = closed_window(&system).await;
    assert!(!call(&mut line, 1, CHECK, &wide()).await);
    // 35 to 40 s, and 10 s for other calls.
    let begun = Instant::now();
    let end = loop {
        match line.hear(begun + Duration::from_secs(120)).await {
            Ok(true) => line.settle(limit()).await.unwrap(),
            Ok(false) => panic!("it lasts"),
            Err(end) => break end,
        }
    };
    assert!(begun.elapsed() > Duration::from_secs(25), "{:?}", begun.elapsed());
    assert_eq!(end, End::Goodbye(0));
    assert!(system.check("lamp").await.unwrap());
}
