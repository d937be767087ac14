//! Limits on what callers can make the stock store: above a limit requests are refused, existing entries are always
//! accepted, and what is no longer needed can be removed.

use contract::inventory::v1::{AdjustStockRequest, Adjustment, GetStockRequest};
use inventory_worker::{file, remove};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::crew::Hand;
use crate::figures::get;
use crate::shop::{Shop, assert_refused, reason, until, wish};

async fn adjust(shop: &Shop, request_id: &str, lines: &[(&str, i32)]) -> Result<(), Status> {
    let line = |(product, delta): &(&str, i32)| Adjustment { product_id: (*product).into(), delta: *delta };
    let adjustments = lines.iter().map(line).collect();
    let request = AdjustStockRequest { request_id: request_id.into(), adjustments, reason: String::new() };
    shop.inventory().adjust_stock(request).await.map(drop)
}

/// Asserts that a request was refused for this limit, and that the error names it.
#[track_caller]
fn assert_full(result: Result<(), Status>, of: &str, limit: &str, variable: &str) {
    let status = result.unwrap_err();
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(
        (status.code(), info.reason.as_str()),
        (Code::ResourceExhausted, "LIMIT_REACHED"),
        "{status:?}"
    );
    assert_eq!((info.metadata["of"].as_str(), info.metadata["limit"].as_str()), (of, limit));
    assert!(status.message().contains(variable), "{status:?}");
}

async fn known(shop: &Shop, product: &str) -> bool {
    match shop.inventory().get_stock(GetStockRequest { product_id: product.to_owned() }).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(reason(&status), "NOT_FOUND");
            false
        }
    }
}

async fn figure(worker: &Hand, name: &str) -> u64 {
    let page = get(worker.http().await, "/metrics").await;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

#[tokio::test]
async fn a_change_that_names_more_products_than_there_may_be_does_nothing_at_all() {
    let shop = Shop::open().each_worker(|worker| worker.nats.max_products = 3).ready().await;
    adjust(&shop, "one", &[("a", 1), ("b", 1)]).await.unwrap();
    assert_full(
        adjust(&shop, "two", &[("a", 1), ("c", 1), ("d", 1)]).await,
        "products",
        "3",
        "GW_MAX_PRODUCTS",
    );
    assert_eq!((shop.stock("a").await, known(&shop, "c").await), ((1, 0), false));
    adjust(&shop, "two", &[("a", 1), ("c", 1)]).await.unwrap();
    assert_full(adjust(&shop, "three", &[("d", 1)]).await, "products", "3", "GW_MAX_PRODUCTS");
    // Existing products still work.
    adjust(&shop, "three", &[("a", 5), ("c", -1)]).await.unwrap();
    shop.order("a", 7).await.unwrap();
    let figures = (
        figure(&shop.workers[0], "inventory_products").await,
        figure(&shop.workers[0], "inventory_products_limit").await,
    );
    assert_eq!(figures, (3, 3));
}

#[tokio::test]
async fn an_import_of_more_products_than_there_may_be_is_refused_by_name() {
    let shop = Shop::open().each_worker(|worker| worker.nats.max_products = 2).ready().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stock.csv");
    std::fs::write(&path, "product,on_hand\na,1\nb,0\nc,2\n").unwrap();
    let error = file::import(&path, false, false, &shop.worker.nats).await.unwrap_err().to_string();
    assert!(error.contains("GW_MAX_PRODUCTS"), "{error}");
    assert!(!known(&shop, "a").await);
    std::fs::write(&path, "product,on_hand\na,1\nb,0\n").unwrap();
    file::import(&path, false, false, &shop.worker.nats).await.unwrap();
    assert!(known(&shop, "b").await, "zero units of a product are one that was named");
}

#[tokio::test]
async fn a_worker_whose_bound_is_lower_takes_all_that_happened_and_makes_no_more() {
    let mut shop = Shop::open().each_worker(|worker| worker.nats.snapshot_every = 3).ready().await;
    for number in 0..8 {
        adjust(&shop, &format!("r-{number}"), &[(&format!("p{number}"), 1)]).await.unwrap();
    }
    shop.worker.nats.max_products = 2;
    shop.worker.nats.max_adjustments = 2;
    shop.hire().await;
    shop.workers.remove(0).drain().await;
    assert_eq!(shop.stock("p7").await, (1, 0));
    assert_full(
        adjust(&shop, "new", &[("p7", 1)]).await,
        "remembered adjustments",
        "2",
        "GW_MAX_ADJUSTMENTS",
    );
    adjust(&shop, "r-7", &[("p7", 1)]).await.expect("a repeat of what was done");
    shop.order("p7", 1).await.unwrap();
}

#[tokio::test]
async fn orders_beyond_the_reservations_that_may_be_known_are_refused_and_hold_nothing() {
    let shop =
        Shop::open().each_worker(|worker| worker.nats.max_reservations = 2).stock("lamp", 9).ready().await;
    let first = shop.place(&wish("lamp", 1).id("one")).await.unwrap();
    shop.order("lamp", 1).await.unwrap();
    let third = shop.order("lamp", 1).await.map(drop);
    assert_full(third, "known reservations", "2", "GW_MAX_RESERVATIONS");
    assert_eq!(shop.place(&wish("lamp", 1).id("one")).await.unwrap(), first);
    assert_eq!(shop.stock("lamp").await, (9, 2));
}

#[tokio::test]
async fn a_product_of_which_there_is_nothing_is_removed_on_every_worker_and_for_good() {
    let mut shop =
        Shop::open().each_worker(|worker| worker.nats.snapshot_every = 2).stock("lamp", 3).ready().await;
    shop.worker.nats.max_products = 4;
    shop.hire().await;
    adjust(&shop, "one", &[("rug", 2), ("sofa", 1)]).await.unwrap();
    adjust(&shop, "two", &[("rug", -2), ("sofa", -1)]).await.unwrap();
    let nats = shop.worker.nats.clone();
    let named = |name: &str| vec![name.to_owned()];
    let refused = remove::remove(&named("lamp"), false, false, &nats).await.unwrap_err().to_string();
    assert!(refused.contains("lamp: 3 on hand, 0 reserved"), "{refused}");
    assert!(remove::remove(&named("desk"), false, false, &nats).await.is_err());
    remove::remove(&[], true, true, &nats).await.unwrap();
    assert!(known(&shop, "rug").await, "it was only asked");
    remove::remove(&named("rug"), false, false, &nats).await.unwrap();
    remove::remove(&[], true, false, &nats).await.unwrap();
    for worker in &shop.workers {
        until("both are gone", async || figure(worker, "inventory_products").await == 1).await;
    }
    // Its number belongs to another product by now, also after a restart from a snapshot.
    adjust(&shop, "three", &[("desk", 4)]).await.unwrap();
    shop.place(&wish("desk", 1).and("lamp", 1)).await.unwrap();
    let (removed, mut count) = (shop.workers[0].sequence().await, 0);
    until("a snapshot is made", async || {
        count += 1;
        adjust(&shop, &format!("more-{count}"), &[("lamp", 1)]).await.unwrap();
        figure(&shop.workers[0], "ledger_snapshot_sequence").await >= removed
    })
    .await;
    shop.hire().await;
    shop.workers.drain(..2).for_each(drop);
    assert_eq!((shop.stock("desk").await, shop.stock("lamp").await.1), ((4, 1), 1));
    assert!(!known(&shop, "rug").await);
    assert_refused(shop.order("sofa", 1).await, "INSUFFICIENT_STOCK");
}
