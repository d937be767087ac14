//! Machines with wrong clocks: what they reply and refuse, and that they do not affect others.

use std::time::Duration;

use contract::inventory::v1::{AdjustStockRequest, Adjustment};
use futures_util::future::join_all;
use nats::WallClock;
use serde_json::json;
use tonic::{Code, Request};
use uuid::Uuid;

use crate::harness::http::get;
use crate::harness::proxy::Proxy;
use crate::harness::status::assert_failure;
use crate::harness::system::{System, new_order, until};

const TEN: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(25 * 3_600);

/// Places an order, reads and adjusts; none of it may fail.
async fn works(system: &System) {
    let order = system.place(&new_order("lamp", 1)).await.expect("an order");
    assert_eq!(system.get(&order.order_id).await.unwrap(), order);
    for checked in join_all((0..100).map(|_| system.check("lamp"))).await {
        assert!(checked.expect("a check"));
    }
    system.adjust("lamp", 1).await.expect("an adjustment");
}

/// By how many seconds a machine's clock is ahead, by its metrics.
async fn skew(address: std::net::SocketAddr, connection: &str) -> f64 {
    let name = format!("nats_clock_skew_seconds{{connection=\"{connection}\"}} ");
    let mut skew = None;
    until("the skew is known", async || {
        let page = get(address, "/metrics").await;
        skew = page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
        skew.is_some()
    })
    .await;
    skew.unwrap()
}

#[tokio::test]
async fn a_worker_whose_clock_is_off_works_and_says_so() {
    for (wall, seconds) in
        [(WallClock::ahead(TEN), 10.0), (WallClock::behind(TEN), -10.0), (WallClock::ahead(DAY), 90_000.0)]
    {
        let system =
            System::builder().stock("lamp", 9).each_worker(|w| w.nats.connection.wall = wall).start().await;
        works(&system).await;
        let found = skew(system.workers[0].http().await, "inventory-worker").await;
        assert!((found - seconds).abs() < 3.0, "{found}");
        let name = "gateway_service_clock_skew_seconds{service=\"inventory\",instance_id=";
        let gateway = async || get(system.gateways[0].http_addr(), "/metrics").await;
        until("the gateway knows whose clock it is", async || gateway().await.contains(name)).await;
    }
}

#[tokio::test]
async fn a_gateway_whose_clock_is_off_works_and_says_so() {
    for (wall, seconds) in [(WallClock::ahead(TEN), 10.0), (WallClock::behind(TEN), -10.0)] {
        let mut system =
            System::builder().stock("lamp", 99).each_gateway(|g| g.nats.wall = wall).start().await;
        works(&system).await;
        let found = skew(system.gateways[0].http_addr(), "gateway background").await;
        assert!((found - seconds).abs() < 3.0, "{found}");
        // Another one, whose clock is right.
        system.gateway.nats.wall = WallClock::default();
        system.add_gateway().await;
        works(&system).await;
    }
}

#[tokio::test]
async fn of_two_workers_the_one_that_is_ahead_fails_no_call() {
    let mut system = System::builder().stock("lamp", 9).start().await;
    system.worker.nats.connection.wall = WallClock::ahead(TEN);
    system.add_worker().await;
    works(&system).await;
}

#[tokio::test]
async fn what_lay_in_a_queue_is_refused_although_the_clock_is_off() {
    for wall in [WallClock::ahead(TEN), WallClock::behind(TEN)] {
        let mut system = System::builder().workers(0).start().await;
        let proxy = Proxy::to(system.nats.port()).await;
        system.worker.nats.connection = nats::Options { wall, ..nats::Options::at(proxy.url()) };
        system.add_worker().await;
        until("the worker is found", async || system.adjust("lamp", 9).await.is_ok()).await;
        works(&system).await;
        proxy.hold();
        let mut request = Request::new(AdjustStockRequest {
            request_id: "late".to_owned(),
            adjustments: vec![Adjustment { product_id: "lamp".to_owned(), delta: 5 }],
            reason: String::new(),
        });
        request.metadata_mut().insert("grpc-timeout", "500m".parse().unwrap());
        let late = system.untimed_inventory().adjust_stock(request).await.expect_err("no answer in time");
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded, "{late:?}");
        // Longer than the request's deadline, and shorter than the time after which a silent connection is closed.
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.restore();
        let page = async || get(system.workers[0].http().await, "/metrics").await;
        // One request or more, as it is retried without a reply.
        let refused =
            r#"worker_requests_total{route="adjust_stock",code="DEADLINE_EXCEEDED",reason="TIMEOUT"} "#;
        until("it is refused", async || page().await.contains(refused)).await;
        assert_eq!(system.stock("lamp").await.0, 10);
    }
}

/// Reserves a lamp for some seconds.
async fn reserve(system: &System, seconds: u32) {
    let items = json!([{"productId": "lamp", "quantity": 1}]);
    let request = json!({"orderId": Uuid::new_v4(), "items": items, "ttlSeconds": seconds}).to_string();
    let reply = system.nats().await.request("reserve_inventory", request.into()).await.unwrap();
    assert!(String::from_utf8_lossy(&reply.payload).contains(r#""reserved":true"#), "{reply:?}");
}

#[tokio::test]
async fn a_reservation_ends_when_it_has_to_whatever_the_workers_clocks_say() {
    for makes in [WallClock::ahead(DAY), WallClock::behind(DAY)] {
        let builder =
            System::builder().stock("lamp", 2).each_worker(|w| w.expiry_interval = Duration::from_millis(20));
        let mut system = builder.each_worker(|w| w.nats.connection.wall = makes).start().await;
        reserve(&system, 600).await;
        // A worker whose clock is off as far in either direction.
        for other in [WallClock::ahead(DAY), WallClock::behind(DAY)] {
            system.worker.nats.connection.wall = other;
            system.add_worker().await;
        }
        reserve(&system, 2).await;
        assert_eq!(system.stock("lamp").await, (2, 2), "not before");
        until("the short one has ended", async || system.stock("lamp").await == (2, 1)).await;
    }
}

#[tokio::test]
async fn a_service_that_calls_everything_late_is_asked_no_more_often_than_one_that_is_away() {
    let system = System::builder().workers(0).start().await;
    let client = system.nats().await;
    let answer = json!({"code": 4, "message": "late", "details": [{
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TIMEOUT", "domain": "orders.gateway",
        "metadata": {"delivered": "no"},
    }]});
    let count = crate::harness::service::serve(&system, move |_| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Service-Error-Code", "504");
        headers.insert("Nats-Service-Error", "late");
        Some((headers, answer.to_string().into()))
    })
    .await;
    assert_failure(system.check("lamp").await, Code::DeadlineExceeded, "TIMEOUT", "no");
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 4);
    join_all((0..100).map(|_| system.check("lamp"))).await;
    let asked = count.load(std::sync::atomic::Ordering::SeqCst);
    assert!(asked <= 101 + 101 / 5 + 10, "{asked}");
    drop(client);
}

#[tokio::test]
async fn an_operator_whose_clock_is_off_finds_no_reservation_over_that_is_not() {
    let system = System::builder().stock("lamp", 9).start().await;
    let id = Uuid::new_v4();
    let reserve =
        json!({"orderId": id, "ttlSeconds": 3_600, "items": [{"productId": "lamp", "quantity": 2}]});
    let nats = system.nats().await;
    nats.request("reserve_inventory", reserve.to_string().into()).await.unwrap();
    assert_eq!(system.stock("lamp").await, (9, 2));
    for wall in [WallClock::ahead(DAY), WallClock::behind(DAY)] {
        let options = nats::Options { wall, ..system.gateway.nats.clone() };
        let link = nats::Connection::connect(&options, "operator").await.unwrap();
        let report = orders::reconcile::reconcile(&link, true, TEN).await.unwrap();
        assert!(report.clean() && report.findings.is_empty(), "{:#?}", report.lines(false));
    }
    assert_eq!(system.stock("lamp").await, (9, 2));
}
