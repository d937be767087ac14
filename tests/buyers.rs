//! Orders and the stock they compete for.

use contract::orders::v1::OrderStatus;
use futures_util::future::join_all;

use crate::shop::{Shop, assert_refused, until, wish};

#[tokio::test]
async fn fifty_buyers_share_twenty_units_exactly() {
    let shop = Shop::open().stock("lamp", 20).workers(4).gateways(2).ready().await;
    let results = join_all((0..50).map(|_| shop.order("lamp", 1))).await;
    let (placed, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(placed.len(), 20);
    refused.into_iter().for_each(|refused| assert_refused(refused, "INSUFFICIENT_STOCK"));
    assert_eq!(shop.stock("lamp").await, (20, 20));
}

#[tokio::test]
async fn an_order_takes_all_its_products_or_none() {
    let shop = Shop::open().stock("lamp", 5).stock("rug", 1).ready().await;
    let refused = shop.place(&wish("lamp", 2).and("rug", 2)).await.unwrap_err();
    assert_refused::<()>(Err(refused), "INSUFFICIENT_STOCK");
    assert_eq!((shop.stock("lamp").await, shop.stock("rug").await), ((5, 0), (1, 0)));
    shop.place(&wish("lamp", 5).and("rug", 1)).await.unwrap();
    assert_eq!((shop.available("lamp").await, shop.available("rug").await), (0, 0));
}

#[tokio::test]
async fn one_request_id_from_32_clients_is_one_order() {
    let shop = Shop::open().stock("lamp", 1).workers(2).gateways(2).ready().await;
    let wish = wish("lamp", 1).id("once");
    let orders = join_all((0..32).map(|_| shop.place(&wish))).await;
    let first = orders[0].as_ref().unwrap();
    for order in &orders {
        assert_eq!(order.as_ref().unwrap().order_id, first.order_id);
    }
    assert_eq!(shop.stock("lamp").await, (1, 1));
}

#[tokio::test]
async fn other_content_under_a_request_id_is_refused() {
    let shop = Shop::open().stock("lamp", 9).stock("rug", 9).ready().await;
    let first = shop.place(&wish("lamp", 1).id("once")).await.unwrap();
    assert_refused(shop.place(&wish("lamp", 2).id("once")).await, "REQUEST_ID_REUSED");
    assert_refused(shop.place(&wish("rug", 1).id("once")).await, "REQUEST_ID_REUSED");
    assert_refused(shop.place(&wish("lamp", 1).id("once").by("bob")).await, "REQUEST_ID_REUSED");
    assert_eq!((shop.stock("lamp").await, shop.stock("rug").await), ((9, 1), (9, 0)));
    assert_eq!(shop.get(&first.order_id).await.unwrap(), first);
}

#[tokio::test]
async fn stock_and_orders_are_read_as_they_were_just_written_elsewhere() {
    let shop = Shop::open().stock("lamp", 1).workers(3).gateways(2).ready().await;
    shop.order("lamp", 1).await.unwrap();
    for _ in 0..20 {
        // Each call goes through the next gateway, and to any worker.
        shop.adjust("lamp", 1).await.unwrap();
        let order = shop.order("lamp", 1).await.expect("stock that was just adjusted");
        assert_eq!(shop.get(&order.order_id).await.unwrap(), order);
        assert_eq!(shop.available("lamp").await, 0);
    }
}

#[tokio::test]
async fn an_order_goes_through_its_statuses_under_its_etag() {
    let shop = Shop::open().stock("lamp", 5).gateways(2).ready().await;
    let order = shop.order("lamp", 2).await.unwrap();
    assert_eq!(order.status(), OrderStatus::Pending);
    let confirmed = shop.update(&order, OrderStatus::Confirmed, &order.etag).await.unwrap();
    assert_ne!(confirmed.etag, order.etag);
    assert_refused(shop.update(&order, OrderStatus::Cancelled, &order.etag).await, "ETAG_MISMATCH");
    assert_refused(shop.update(&order, OrderStatus::Delivered, "").await, "ILLEGAL_TRANSITION");
    let again = shop.update(&order, OrderStatus::Confirmed, "").await.unwrap();
    assert_eq!(again.etag, confirmed.etag, "a repeated status changes nothing");
    shop.update(&order, OrderStatus::Shipped, &confirmed.etag).await.unwrap();
    shop.update(&order, OrderStatus::Delivered, "").await.unwrap();
    assert_refused(shop.update(&order, OrderStatus::Cancelled, "").await, "ILLEGAL_TRANSITION");
    assert_eq!(shop.get(&order.order_id).await.unwrap().status(), OrderStatus::Delivered);
}

#[tokio::test]
async fn cancelling_gives_the_stock_back_and_shipping_takes_it_out() {
    let shop = Shop::open().stock("lamp", 5).workers(2).ready().await;
    let (cancelled, shipped) = (shop.order("lamp", 2).await.unwrap(), shop.order("lamp", 1).await.unwrap());
    assert_eq!(shop.stock("lamp").await, (5, 3));
    shop.update(&cancelled, OrderStatus::Cancelled, "").await.unwrap();
    until("the stock is back", async || shop.stock("lamp").await == (5, 1)).await;
    shop.update(&shipped, OrderStatus::Confirmed, "").await.unwrap();
    shop.update(&shipped, OrderStatus::Shipped, "").await.unwrap();
    until("the stock is out", async || shop.stock("lamp").await == (4, 0)).await;
}
