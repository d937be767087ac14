//! Limits on what callers can make the stock store: above a limit requests are refused, existing entries are always
//! accepted, and what is no longer needed can be removed.

use contract::inventory::v1::{AdjustStockRequest, Adjustment, GetStockRequest};
use inventory_worker::{file, remove};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::http::get;
use crate::harness::system::{System, assert_refused, new_order, reason, until};
use crate::harness::worker::WorkerThread;

async fn adjust(system: &System, request_id: &str, lines: &[(&str, i32)]) -> Result<(), Status> {
    let line = |(product, delta): &(&str, i32)| Adjustment { product_id: (*product).into(), delta: *delta };
    let adjustments = lines.iter().map(line).collect();
    let request = AdjustStockRequest { request_id: request_id.into(), adjustments, reason: String::new() };
    system.inventory().adjust_stock(request).await.map(drop)
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

async fn known(system: &System, product: &str) -> bool {
    match system.inventory().get_stock(GetStockRequest { product_id: product.to_owned() }).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(reason(&status), "NOT_FOUND");
            false
        }
    }
}

async fn figure(worker: &WorkerThread, name: &str) -> u64 {
    let page = get(worker.http().await, "/metrics").await;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

#[tokio::test]
async fn a_change_that_names_more_products_than_there_may_be_does_nothing_at_all() {
    let system = System::builder().each_worker(|worker| worker.nats.max_products = 3).start().await;
    adjust(&system, "one", &[("a", 1), ("b", 1)]).await.unwrap();
    assert_full(
        adjust(&system, "two", &[("a", 1), ("c", 1), ("d", 1)]).await,
        "products",
        "3",
        "GW_MAX_PRODUCTS",
    );
    assert_eq!((system.stock("a").await, known(&system, "c").await), ((1, 0), false));
    adjust(&system, "two", &[("a", 1), ("c", 1)]).await.unwrap();
    assert_full(adjust(&system, "three", &[("d", 1)]).await, "products", "3", "GW_MAX_PRODUCTS");
    // Existing products still work.
    adjust(&system, "three", &[("a", 5), ("c", -1)]).await.unwrap();
    system.order("a", 7).await.unwrap();
    let figures = (
        figure(&system.workers[0], "inventory_products").await,
        figure(&system.workers[0], "inventory_products_limit").await,
    );
    assert_eq!(figures, (3, 3));
}

#[tokio::test]
async fn an_import_of_more_products_than_there_may_be_is_refused_by_name() {
    let system = System::builder().each_worker(|worker| worker.nats.max_products = 2).start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stock.csv");
    std::fs::write(&path, "product,on_hand\na,1\nb,0\nc,2\n").unwrap();
    let error = file::import(&path, false, false, &system.worker.nats).await.unwrap_err().to_string();
    assert!(error.contains("GW_MAX_PRODUCTS"), "{error}");
    assert!(!known(&system, "a").await);
    std::fs::write(&path, "product,on_hand\na,1\nb,0\n").unwrap();
    file::import(&path, false, false, &system.worker.nats).await.unwrap();
    assert!(known(&system, "b").await, "zero units of a product are one that was named");
}

#[tokio::test]
async fn a_worker_whose_bound_is_lower_takes_all_that_happened_and_makes_no_more() {
    let mut system = System::builder().each_worker(|worker| worker.nats.snapshot_every = 3).start().await;
    for number in 0..8 {
        adjust(&system, &format!("r-{number}"), &[(&format!("p{number}"), 1)]).await.unwrap();
    }
    system.worker.nats.max_products = 2;
    system.worker.nats.max_adjustments = 2;
    system.add_worker().await;
    system.workers.remove(0).drain().await;
    assert_eq!(system.stock("p7").await, (1, 0));
    assert_full(
        adjust(&system, "new", &[("p7", 1)]).await,
        "remembered adjustments",
        "2",
        "GW_MAX_ADJUSTMENTS",
    );
    adjust(&system, "r-7", &[("p7", 1)]).await.expect("a repeat of what was done");
    system.order("p7", 1).await.unwrap();
}

#[tokio::test]
async fn orders_beyond_the_reservations_that_may_be_known_are_refused_and_hold_nothing() {
    let system = System::builder()
        .each_worker(|worker| worker.nats.max_reservations = 2)
        .stock("lamp", 9)
        .start()
        .await;
    let first = system.place(&new_order("lamp", 1).id("one")).await.unwrap();
    system.order("lamp", 1).await.unwrap();
    let third = system.order("lamp", 1).await.map(drop);
    assert_full(third, "known reservations", "2", "GW_MAX_RESERVATIONS");
    assert_eq!(system.place(&new_order("lamp", 1).id("one")).await.unwrap(), first);
    assert_eq!(system.stock("lamp").await, (9, 2));
}

#[tokio::test]
async fn a_product_of_which_there_is_nothing_is_removed_on_every_worker_and_for_good() {
    let mut system =
        System::builder().each_worker(|worker| worker.nats.snapshot_every = 2).stock("lamp", 3).start().await;
    system.worker.nats.max_products = 4;
    system.add_worker().await;
    adjust(&system, "one", &[("rug", 2), ("sofa", 1)]).await.unwrap();
    adjust(&system, "two", &[("rug", -2), ("sofa", -1)]).await.unwrap();
    let nats = system.worker.nats.clone();
    let named = |name: &str| vec![name.to_owned()];
    let refused = remove::remove(&named("lamp"), false, false, &nats).await.unwrap_err().to_string();
    assert!(refused.contains("lamp: 3 on hand, 0 reserved"), "{refused}");
    assert!(remove::remove(&named("desk"), false, false, &nats).await.is_err());
    remove::remove(&[], true, true, &nats).await.unwrap();
    assert!(known(&system, "rug").await, "it was only asked");
    remove::remove(&named("rug"), false, false, &nats).await.unwrap();
    remove::remove(&[], true, false, &nats).await.unwrap();
    for worker in &system.workers {
        until("both are gone", async || figure(worker, "inventory_products").await == 1).await;
    }
    // Its number belongs to another product by now, also after a restart from a snapshot.
    adjust(&system, "three", &[("desk", 4)]).await.unwrap();
    system.place(&new_order("desk", 1).and("lamp", 1)).await.unwrap();
    let (removed, mut count) = (system.workers[0].sequence().await, 0);
    until("a snapshot is made", async || {
        count += 1;
        adjust(&system, &format!("more-{count}"), &[("lamp", 1)]).await.unwrap();
        figure(&system.workers[0], "ledger_snapshot_sequence").await >= removed
    })
    .await;
    system.add_worker().await;
    system.workers.drain(..2).for_each(drop);
    assert_eq!((system.stock("desk").await, system.stock("lamp").await.1), ((4, 1), 1));
    assert!(!known(&system, "rug").await);
    assert_refused(system.order("sofa", 1).await, "INSUFFICIENT_STOCK");
}
