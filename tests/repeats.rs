//! What a client's library is told about repeating a failed call by itself, and what a repeat is known by: it never
//! makes two of one.

use contract::inventory::v1::{AdjustStockRequest, Adjustment, GetStockRequest};
use contract::orders::v1::{CreateOrderRequest, GetOrderRequest, Order, OrderStatus};
use futures_util::StreamExt;
use tonic::{Request, Status};

use crate::lost::{CREATED, UPDATED, proxied_gateway};
use crate::shop::{Shop, reason, until, wish};

/// The status of a failed call: its reason, and what libraries are told.
fn told<T: std::fmt::Debug>(result: Result<T, Status>) -> (String, Option<String>) {
    let status = result.expect_err("a failure");
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    (reason(&status), pushback.map(|pushback| pushback.to_str().unwrap().to_owned()))
}

fn expected(reason: &str, pushback: Option<&str>) -> (String, Option<String>) {
    (reason.to_owned(), pushback.map(str::to_owned))
}

async fn place(shop: &Shop, request: CreateOrderRequest, limit: &str) -> Result<Order, Status> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("grpc-timeout", limit.parse().unwrap());
    Ok(shop.patient().create_order(request).await?.into_inner().order.unwrap())
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
    for (request, pushback) in [(wish("lamp", 1), "-1"), (wish("lamp", 1).id("one"), "500")] {
        let (shop, proxy) = proxied_gateway().await;
        proxy.mute_after(CREATED);
        let placed = place(&shop, request.request, "4S").await;
        assert_eq!(told(placed), expected("OUTCOME_UNKNOWN", Some(pushback)));
    }
}

#[tokio::test]
async fn a_status_change_whose_outcome_is_unknown_may_be_repeated() {
    let (shop, proxy) = proxied_gateway().await;
    let order = shop.order("lamp", 1).await.unwrap();
    for etag in ["", &order.etag] {
        proxy.mute_after(UPDATED);
        let mut request = Request::new(contract::orders::v1::UpdateOrderStatusRequest {
            order_id: order.order_id.clone(),
            status: OrderStatus::Confirmed.into(),
            etag: etag.to_owned(),
            reason: String::new(),
        });
        request.metadata_mut().insert("grpc-timeout", "4S".parse().unwrap());
        let updated = shop.patient().update_order_status(request).await;
        if etag.is_empty() {
            assert_eq!(told(updated), expected("OUTCOME_UNKNOWN", Some("500")));
        }
        proxy.cut();
        proxy.mend();
        until("the gateway is back", async || shop.get(&order.order_id).await.is_ok()).await;
    }
    // It was made by then: the repeat found it.
    assert_eq!(shop.get(&order.order_id).await.unwrap().status(), OrderStatus::Confirmed);
}

#[tokio::test]
async fn a_call_that_reached_nobody_may_be_repeated_whatever_it_is() {
    let mut shop = Shop::open().workers(0).gateways(0).ready().await;
    shop.open_gateway().await;
    let away = || expected("NO_RESPONDERS", Some("500"));
    let stock = GetStockRequest { product_id: "lamp".to_owned() };
    assert_eq!(told(shop.inventory().get_stock(stock).await), away());
    assert_eq!(told(shop.inventory().adjust_stock(adjustment("")).await), away());
    assert_eq!(told(shop.order("lamp", 1).await), away());
    assert_eq!(told(shop.check("lamp").await), away());
}

#[tokio::test]
async fn a_call_without_an_answer_is_repeated_only_where_that_does_no_harm() {
    let mut shop = Shop::open().workers(0).gateways(0).ready().await;
    let nats = shop.nats().await;
    let mut silence = Vec::new();
    for subject in ["get_stock", "adjust_stock", "check_inventory", "reserve_inventory"] {
        let mut requests = nats.subscribe(subject).await.unwrap();
        silence.push(tokio::spawn(async move { while requests.next().await.is_some() {} }));
    }
    nats.flush().await.unwrap();
    shop.open_gateway().await;
    let adjust = async |id| {
        let mut request = Request::new(adjustment(id));
        request.metadata_mut().insert("grpc-timeout", "1S".parse().unwrap());
        shop.patient_inventory().adjust_stock(request).await
    };
    assert_eq!(told(adjust("").await), expected("DEADLINE", Some("-1")));
    assert_eq!(told(adjust("one").await), expected("DEADLINE", None));
    let of = |id: &str| wish("lamp", 1).id(id).request;
    assert_eq!(told(place(&shop, of(""), "1S").await), expected("DEADLINE", Some("-1")));
    assert_eq!(told(place(&shop, of("one"), "1S").await), expected("DEADLINE", None));
}

#[tokio::test]
async fn an_answer_that_stays_the_same_is_not_asked_for_again() {
    let shop = Shop::open().stock("lamp", 1).ready().await;
    let order = shop.order("lamp", 1).await.unwrap();
    let stale = shop.update(&order, OrderStatus::Confirmed, "77").await;
    assert_eq!(told(stale), expected("ETAG_MISMATCH", Some("-1")));
    assert_eq!(told(shop.order("lamp", 1).await), expected("INSUFFICIENT_STOCK", Some("-1")));
    let nobody = GetOrderRequest { order_id: uuid::Uuid::nil().to_string() };
    assert_eq!(told(shop.orders().get_order(nobody).await), expected("NOT_FOUND", Some("-1")));
}
