//! Retries: what client libraries are told about retrying a failed call by themselves, and that a retry is recognised
//! and never done twice.

use contract::inventory::v1::{AdjustStockRequest, Adjustment, GetStockRequest};
use contract::orders::v1::{CreateOrderRequest, GetOrderRequest, Order, OrderStatus};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tonic::{Request, Status};

use crate::backup::operator;
use crate::harness::client::settled;
use crate::harness::system::{PATIENCE, System, new_order, reason, until};
use crate::lost::{CREATED, UPDATED, proxied_gateway};

/// The reason of a failed call, and its retry pushback for client libraries.
fn status_of<T: std::fmt::Debug>(result: Result<T, Status>) -> (String, Option<String>) {
    let status = result.expect_err("a failure");
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    (reason(&status), pushback.map(|pushback| pushback.to_str().unwrap().to_owned()))
}

fn expected(reason: &str, pushback: Option<&str>) -> (String, Option<String>) {
    (reason.to_owned(), pushback.map(str::to_owned))
}

async fn place(system: &System, request: CreateOrderRequest, limit: &str) -> Result<Order, Status> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("grpc-timeout", limit.parse().unwrap());
    Ok(system.untimed_orders().create_order(request).await?.into_inner().order.unwrap())
}

fn adjustment(request_id: &str) -> AdjustStockRequest {
    AdjustStockRequest {
        request_id: request_id.to_owned(),
        adjustments: vec![Adjustment { product_id: "lamp".to_owned(), delta: 1 }],
        reason: String::new(),
    }
}

#[tokio::test]
async fn an_order_whose_outcome_is_unknown_is_repeated_by_a_library_only_under_the_callers_own_request_id() {
    for (request, pushback) in [(new_order("lamp", 1), "-1"), (new_order("lamp", 1).id("one"), "500")] {
        let (system, proxy) = proxied_gateway().await;
        proxy.mute_after(CREATED);
        let placed = place(&system, request.request, "4S").await;
        assert_eq!(status_of(placed), expected("OUTCOME_UNKNOWN", Some(pushback)));
    }
}

#[tokio::test]
async fn a_status_change_whose_outcome_is_unknown_may_be_repeated() {
    let (system, proxy) = proxied_gateway().await;
    let order = system.order("lamp", 1).await.unwrap();
    for etag in ["", &order.etag] {
        proxy.mute_after(UPDATED);
        let mut request = Request::new(contract::orders::v1::UpdateOrderStatusRequest {
            order_id: order.order_id.clone(),
            status: OrderStatus::Confirmed.into(),
            etag: etag.to_owned(),
            reason: String::new(),
        });
        request.metadata_mut().insert("grpc-timeout", "4S".parse().unwrap());
        let updated = system.untimed_orders().update_order_status(request).await;
        if etag.is_empty() {
            assert_eq!(status_of(updated), expected("OUTCOME_UNKNOWN", Some("500")));
        }
        proxy.cut();
        proxy.restore();
        until("the gateway is back", async || system.get(&order.order_id).await.is_ok()).await;
    }
    // The update was made by then, and the retry found it.
    assert_eq!(system.get(&order.order_id).await.unwrap().status(), OrderStatus::Confirmed);
}

#[tokio::test]
async fn a_call_that_reached_nobody_may_be_repeated_whatever_it_is() {
    let mut system = System::builder().workers(0).gateways(0).start().await;
    system.add_gateway().await;
    let away = || expected("NO_RESPONDERS", Some("500"));
    let stock = GetStockRequest { product_id: "lamp".to_owned() };
    assert_eq!(status_of(system.inventory().get_stock(stock).await), away());
    assert_eq!(status_of(system.inventory().adjust_stock(adjustment("")).await), away());
    assert_eq!(status_of(system.order("lamp", 1).await), away());
    assert_eq!(status_of(system.check("lamp").await), away());
}

#[tokio::test]
async fn a_call_without_an_answer_is_repeated_only_where_that_does_no_harm() {
    let mut system = System::builder().workers(0).gateways(0).start().await;
    let nats = system.nats().await;
    let mut silence = Vec::new();
    for subject in ["get_stock", "adjust_stock", "check_inventory", "reserve_inventory"] {
        let mut requests = nats.subscribe(subject).await.unwrap();
        silence.push(tokio::spawn(async move { while requests.next().await.is_some() {} }));
    }
    settled(&nats).await;
    system.add_gateway().await;
    let adjust = async |id| {
        let mut request = Request::new(adjustment(id));
        request.metadata_mut().insert("grpc-timeout", "1S".parse().unwrap());
        system.untimed_inventory().adjust_stock(request).await
    };
    assert_eq!(status_of(adjust("").await), expected("DEADLINE", Some("-1")));
    assert_eq!(status_of(adjust("one").await), expected("DEADLINE", None));
    let of = |id: &str| new_order("lamp", 1).id(id).request;
    assert_eq!(status_of(place(&system, of(""), "1S").await), expected("DEADLINE", Some("-1")));
    assert_eq!(status_of(place(&system, of("one"), "1S").await), expected("DEADLINE", None));
}

#[tokio::test]
async fn an_answer_that_stays_the_same_is_not_asked_for_again() {
    let system = System::builder().stock("lamp", 1).start().await;
    let order = system.order("lamp", 1).await.unwrap();
    let stale = system.update(&order, OrderStatus::Confirmed, "77").await;
    assert_eq!(status_of(stale), expected("ETAG_MISMATCH", Some("-1")));
    assert_eq!(status_of(system.order("lamp", 1).await), expected("INSUFFICIENT_STOCK", Some("-1")));
    let nobody = GetOrderRequest { order_id: uuid::Uuid::nil().to_string() };
    assert_eq!(status_of(system.orders().get_order(nobody).await), expected("NOT_FOUND", Some("-1")));
}

#[tokio::test]
async fn the_same_items_in_another_order_under_one_request_id_are_the_same_order() {
    let system = System::builder().stock("lamp", 9).stock("rug", 9).start().await;
    let placed = system.place(&new_order("rug", 2).and("lamp", 1).id("one")).await.unwrap();
    let again = system.place(&new_order("lamp", 1).and("rug", 2).id("one")).await.unwrap();
    assert_eq!(again, placed, "with its items as they were recorded");
    assert_eq!((system.stock("lamp").await, system.stock("rug").await), ((9, 1), (9, 2)));
    let other = system.place(&new_order("lamp", 2).and("rug", 1).id("one")).await;
    assert_eq!(status_of(other), expected("REQUEST_ID_REUSED", Some("-1")));
    // Once shipped, the order is no longer in the ledger, only in ORDERS.
    let confirmed = system.update(&placed, OrderStatus::Confirmed, "").await.unwrap();
    system.update(&confirmed, OrderStatus::Shipped, "").await.unwrap();
    until("it has left", async || system.stock("rug").await == (7, 0)).await;
    let shipped = system.place(&new_order("lamp", 1).and("rug", 2).id("one")).await.unwrap();
    assert_eq!((&shipped.order_id, shipped.status()), (&placed.order_id, OrderStatus::Shipped));
}

#[tokio::test]
async fn a_reservation_is_known_by_its_items_and_its_order_however_they_are_written() {
    let system = System::builder().stock("lamp", 9).stock("rug", 9).start().await;
    let nats = system.nats().await;
    let id = uuid::Uuid::new_v4().to_string();
    let (lamp, rug) =
        (json!({"productId": "lamp", "quantity": 1}), json!({"productId": "rug", "quantity": 2}));
    for (order, items) in [(id.clone(), [&rug, &lamp]), (id.to_uppercase(), [&lamp, &rug])] {
        let payload = json!({"orderId": order, "items": items}).to_string();
        let reply = nats.request("reserve_inventory", payload.into()).await.unwrap();
        let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
        assert_eq!((&reply["reserved"], &reply["orderId"]), (&json!(true), &json!(order)), "{reply}");
    }
    assert_eq!((system.stock("lamp").await, system.stock("rug").await), ((9, 1), (9, 2)));
}

#[tokio::test]
async fn the_same_adjustments_in_another_order_under_one_request_id_are_made_once() {
    let system = System::builder().start().await;
    let line = |product: &str, delta| Adjustment { product_id: product.to_owned(), delta };
    let with = |adjustments| AdjustStockRequest { adjustments, ..adjustment("one") };
    for lines in [[line("rug", 2), line("lamp", 1)], [line("lamp", 1), line("rug", 2)]] {
        system.inventory().adjust_stock(with(lines.to_vec())).await.unwrap();
    }
    assert_eq!((system.stock("lamp").await, system.stock("rug").await), ((1, 0), (2, 0)));
    let other = with(vec![line("lamp", 2), line("rug", 1)]);
    assert_eq!(
        status_of(system.inventory().adjust_stock(other).await),
        expected("REQUEST_ID_REUSED", Some("-1"))
    );
}

#[tokio::test]
async fn an_order_whose_items_are_held_in_another_order_agrees_with_its_reservation() {
    let system = System::builder().stock("lamp", 9).stock("rug", 9).start().await;
    let nats = system.nats().await;
    let id = orders::order::request::order_id("", "one").to_string();
    let items = json!([{"productId": "rug", "quantity": 2}, {"productId": "lamp", "quantity": 1}]);
    nats.request("reserve_inventory", json!({"orderId": id, "items": items}).to_string().into())
        .await
        .unwrap();
    let placed = system.place(&new_order("lamp", 1).and("rug", 2).id("one")).await.unwrap();
    assert_eq!(placed.order_id, id);
    let report = orders::reconcile::reconcile(&operator(&system).await, false, PATIENCE).await.unwrap();
    assert!(report.clean(), "{:#?}", report.lines(false));
}
