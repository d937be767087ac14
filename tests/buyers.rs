//! Orders and the stock they compete for.

use contract::orders::v1::OrderStatus;
use futures_util::future::join_all;

use crate::harness::system::{System, assert_refused, new_order, until};

#[tokio::test]
async fn fifty_buyers_share_twenty_units_exactly() {
    let system = System::builder().stock("lamp", 20).workers(4).gateways(2).start().await;
    let results = join_all((0..50).map(|_| system.order("lamp", 1))).await;
    let (placed, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(placed.len(), 20);
    refused.into_iter().for_each(|refused| assert_refused(refused, "INSUFFICIENT_STOCK"));
    assert_eq!(system.stock("lamp").await, (20, 20));
}

#[tokio::test]
async fn an_order_takes_all_its_products_or_none() {
    let system = System::builder().stock("lamp", 5).stock("rug", 1).start().await;
    let refused = system.place(&new_order("lamp", 2).and("rug", 2)).await.unwrap_err();
    assert_refused::<()>(Err(refused), "INSUFFICIENT_STOCK");
    assert_eq!((system.stock("lamp").await, system.stock("rug").await), ((5, 0), (1, 0)));
    system.place(&new_order("lamp", 5).and("rug", 1)).await.unwrap();
    assert_eq!((system.available("lamp").await, system.available("rug").await), (0, 0));
}

#[tokio::test]
async fn one_request_id_from_32_clients_is_one_order() {
    let system = System::builder().stock("lamp", 1).workers(2).gateways(2).start().await;
    let same = new_order("lamp", 1).id("once");
    let orders = join_all((0..32).map(|_| system.place(&same))).await;
    let first = orders[0].as_ref().unwrap();
    for order in &orders {
        assert_eq!(order.as_ref().unwrap().order_id, first.order_id);
    }
    assert_eq!(system.stock("lamp").await, (1, 1));
}

#[tokio::test]
async fn other_content_under_a_request_id_is_refused() {
    let system = System::builder().stock("lamp", 9).stock("rug", 9).start().await;
    let first = system.place(&new_order("lamp", 1).id("once")).await.unwrap();
    assert_refused(system.place(&new_order("lamp", 2).id("once")).await, "REQUEST_ID_REUSED");
    assert_refused(system.place(&new_order("rug", 1).id("once")).await, "REQUEST_ID_REUSED");
    assert_refused(system.place(&new_order("lamp", 1).id("once").by("bob")).await, "REQUEST_ID_REUSED");
    assert_eq!((system.stock("lamp").await, system.stock("rug").await), ((9, 1), (9, 0)));
    assert_eq!(system.get(&first.order_id).await.unwrap(), first);
}

#[tokio::test]
async fn stock_and_orders_are_read_as_they_were_just_written_elsewhere() {
    let system = System::builder().stock("lamp", 1).workers(3).gateways(2).start().await;
    system.order("lamp", 1).await.unwrap();
    for _ in 0..20 {
        // Each call goes through the next gateway, and to any worker.
        system.adjust("lamp", 1).await.unwrap();
        let order = system.order("lamp", 1).await.expect("stock that was just adjusted");
        assert_eq!(system.get(&order.order_id).await.unwrap(), order);
        assert_eq!(system.available("lamp").await, 0);
    }
}

#[tokio::test]
async fn an_order_goes_through_its_statuses_under_its_etag() {
    let system = System::builder().stock("lamp", 5).gateways(2).start().await;
    let order = system.order("lamp", 2).await.unwrap();
    assert_eq!(order.status(), OrderStatus::Pending);
    let confirmed = system.update(&order, OrderStatus::Confirmed, &order.etag).await.unwrap();
    assert_ne!(confirmed.etag, order.etag);
    assert_refused(system.update(&order, OrderStatus::Cancelled, &order.etag).await, "ETAG_MISMATCH");
    assert_refused(system.update(&order, OrderStatus::Delivered, "").await, "ILLEGAL_TRANSITION");
    let again = system.update(&order, OrderStatus::Confirmed, "").await.unwrap();
    assert_eq!(again.etag, confirmed.etag, "a repeated status changes nothing");
    system.update(&order, OrderStatus::Shipped, &confirmed.etag).await.unwrap();
    system.update(&order, OrderStatus::Delivered, "").await.unwrap();
    assert_refused(system.update(&order, OrderStatus::Cancelled, "").await, "ILLEGAL_TRANSITION");
    assert_eq!(system.get(&order.order_id).await.unwrap().status(), OrderStatus::Delivered);
}

#[tokio::test]
async fn cancelling_gives_the_stock_back_and_shipping_takes_it_out() {
    let system = System::builder().stock("lamp", 5).workers(2).start().await;
    let (cancelled, shipped) =
        (system.order("lamp", 2).await.unwrap(), system.order("lamp", 1).await.unwrap());
    assert_eq!(system.stock("lamp").await, (5, 3));
    system.update(&cancelled, OrderStatus::Cancelled, "").await.unwrap();
    until("the stock is back", async || system.stock("lamp").await == (5, 1)).await;
    system.update(&shipped, OrderStatus::Confirmed, "").await.unwrap();
    system.update(&shipped, OrderStatus::Shipped, "").await.unwrap();
    until("the stock is out", async || system.stock("lamp").await == (4, 0)).await;
}
