//! Reconcile: ORDERS and ledger that no longer match, and their repair.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use contract::orders::v1::OrderStatus::{self, Cancelled, Confirmed, Shipped};
use order_streams::{INVENTORY, ORDERS, SNAPSHOTS};
use orders::reconcile::{Fate, Report, reconcile};
use tempfile::TempDir;

use crate::backup::{backup, brought_to, operator, restored, staffed, worked_off};
use crate::harness::system::{PATIENCE, System, assert_refused, new_order, until};

/// A backup in which some streams are from an older one.
fn mixed(newer: &TempDir, older: &TempDir, streams: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in order_streams::ALL {
        let from = if streams.contains(&name) { older } else { newer };
        copy(&from.path().join(name), &folder.path().join(name));
    }
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

async fn look(system: &System, mend: bool) -> Report {
    reconcile(&operator(system).await, mend, PATIENCE).await.unwrap()
}

fn kinds(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.kind.name()).collect()
}

/// A system with orders in several statuses, a backup of it, and a later one after all of them changed and others were
/// added.
async fn two_backups() -> (System, TempDir, TempDir) {
    let system = System::builder().stock("lamp", 100).start().await;
    let early = [("a", 1), ("b", 2), ("c", 4)];
    let mut orders = Vec::new();
    for (id, units) in early {
        orders.push(brought_to(&system, id, units, &[Confirmed]).await);
    }
    worked_off(&system).await;
    let older = backup(&system).await;
    system.update(&orders[0], Cancelled, "").await.unwrap();
    system.update(&orders[1], Shipped, "").await.unwrap();
    brought_to(&system, "d", 8, &[]).await;
    brought_to(&system, "e", 16, &[Confirmed, Shipped]).await;
    brought_to(&system, "f", 32, &[Cancelled]).await;
    worked_off(&system).await;
    let newer = backup(&system).await;
    (system, older, newer)
}

#[tokio::test]
async fn orders_whose_stock_was_lost_get_it_again_and_it_is_as_it_was() {
    let (system, older, newer) = two_backups().await;
    let stock = system.stock("lamp").await;
    assert_eq!(stock, (82, 12));
    let folder = mixed(&newer, &older, &[INVENTORY, SNAPSHOTS]);
    let system = staffed(restored(folder.path()).await).await;
    let lost = system.stock("lamp").await;
    assert_eq!(lost, (100, 7));

    let found = look(&system, false).await;
    let expected = ["not_released", "not_shipped", "not_shipped", "order_without_stock"];
    assert_eq!(kinds(&found), expected, "{:#?}", found.lines(false));
    assert!(!found.clean() && system.stock("lamp").await == lost, "it only looked");
    let mended = look(&system, true).await;
    assert!(mended.clean() && kinds(&mended) == expected, "{:#?}", mended.lines(false));
    assert_eq!(system.stock("lamp").await, stock);
    assert_eq!(kinds(&look(&system, true).await), [""; 0]);
}

#[tokio::test]
async fn stock_of_orders_that_were_lost_is_free_again_and_what_the_ledger_knows_is_recorded() {
    let (system, older, newer) = two_backups().await;
    let of_c = system.place(&new_order("lamp", 4).id("c")).await.unwrap();
    let folder = mixed(&newer, &older, &[ORDERS]);
    let system = staffed(restored(folder.path()).await).await;
    let found = look(&system, false).await;
    let expected = ["end_lost", "entry_lost", "entry_lost", "step_lost", "step_lost", "stock_without_order"];
    let mut names = kinds(&found);
    names.sort_unstable();
    assert_eq!(names, expected, "{:#?}", found.lines(false));
    assert_eq!(system.stock("lamp").await, (82, 12));

    let mended = look(&system, true).await;
    assert!(mended.clean(), "{:#?}", mended.lines(false));
    let status = async |id: &str| {
        let id = orders::order::request::order_id("", id).to_string();
        system.get(&id).await.map(|order| order.status())
    };
    assert_eq!((status("a").await.unwrap(), status("b").await.unwrap()), (Cancelled, Shipped));
    assert_eq!(system.get(&of_c.order_id).await.unwrap(), of_c);
    assert_refused(status("d").await, "NOT_FOUND");
    assert_eq!(system.stock("lamp").await, (82, 4));
    worked_off(&system).await;
    assert_eq!(kinds(&look(&system, true).await), [""; 0]);
    // The client retries: the order is created again.
    let order = system.place(&new_order("lamp", 8).id("d")).await.unwrap();
    assert!(order.etag.parse::<u64>().unwrap() > 14, "{order:?}");
    assert_eq!(system.stock("lamp").await, (82, 12));
    assert!(look(&system, false).await.clean());
}

#[tokio::test]
async fn a_tombstone_that_was_lost_blocks_nobody_after_the_repair() {
    let system = System::builder().stock("lamp", 5).start().await;
    let id = orders::order::request::order_id("", "late");
    let older = backup(&system).await;
    let nats = system.nats().await;
    let reserve =
        format!(r#"{{"orderId":"{id}","items":[{{"productId":"lamp","quantity":1}}],"ttlSeconds":0}}"#);
    for _ in 0..2 {
        nats.request("reserve_inventory", reserve.clone().into()).await.unwrap();
        nats.request("release_inventory", format!(r#"{{"orderId":"{id}"}}"#).into()).await.unwrap();
    }
    nats.request("reserve_inventory", reserve.into()).await.unwrap();
    let folder = mixed(&backup(&system).await, &older, &[ORDERS]);
    let system = staffed(restored(folder.path()).await).await;
    let mended = look(&system, true).await;
    assert!(mended.clean() && mended.findings.len() == 2, "{:#?}", mended.lines(false));
    assert_eq!((system.stock("lamp").await, look(&system, true).await.findings.len()), ((5, 0), 0));
    system.place(&new_order("lamp", 5).id("late")).await.expect("an order under the id");
}

#[tokio::test]
async fn an_order_for_which_there_is_not_enough_is_named_and_left_and_nothing_is_taken_from_another() {
    let (system, older, newer) = two_backups().await;
    drop(system);
    let folder = mixed(&newer, &older, &[INVENTORY, SNAPSHOTS]);
    let system = staffed(restored(folder.path()).await).await;
    // One unit fewer than the orders need.
    system.adjust("lamp", -72).await.unwrap();
    let report = look(&system, true).await;
    let left: Vec<_> = report.findings.iter().filter(|finding| finding.fate != Fate::Mended).collect();
    assert!(left.len() == 1 && !report.clean(), "{:#?}", report.lines(false));
    assert!(matches!(&left[0].fate, Fate::Left(why) if why.contains("lamp: wanted")), "{left:?}");
    let c = orders::order::request::order_id("", "c").to_string();
    assert_eq!(system.get(&c).await.unwrap().status(), Confirmed);
    let (on_hand, reserved) = system.stock("lamp").await;
    assert!(reserved >= 4, "{on_hand} {reserved}");
}

#[tokio::test]
async fn a_request_to_reconcile_an_order_cannot_free_stock_that_belongs_to_one() {
    let system = System::builder().stock("lamp", 9).start().await;
    let order = system.order("lamp", 2).await.unwrap();
    let held = orders::order::request::order_id("", "held");
    let nats = system.nats().await;
    let reserve = format!(r#"{{"orderId":"{held}","items":[{{"productId":"lamp","quantity":3}}]}}"#);
    nats.request("reserve_inventory", reserve.into()).await.unwrap();
    let settle = async |id: &str, sequence: u64| {
        let request = format!(r#"{{"orderId":"{id}","sequence":"{sequence}"}}"#);
        let reply = nats.request("settle_reservation", request.into()).await.unwrap();
        String::from_utf8_lossy(&reply.payload).into_owned()
    };
    let said = settle(&order.order_id, order.etag.parse().unwrap()).await;
    assert!(said.contains("RESERVATION_PHASE_BOUND"), "{said}");
    // A request that claims the order does not exist, from a caller with a different view.
    assert!(settle(&order.order_id, 0).await.contains("CONTENTION"));
    // The order may still be recorded.
    let said = settle(&held.to_string(), 0).await;
    assert!(said.contains("RESERVATION_PHASE_HELD"), "{said}");
    assert_eq!(system.stock("lamp").await, (9, 5));
}

#[tokio::test]
async fn on_a_healthy_system_that_is_busy_nothing_is_found() {
    let system = Arc::new(System::builder().workers(2).stock("lamp", 1_000_000).start().await);
    let (stop, placed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let customers = (0..8).map(|customer| {
        let (system, stop, placed) = (system.clone(), stop.clone(), placed.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let number = placed.fetch_add(1, Ordering::Relaxed);
                let steps: &[OrderStatus] =
                    if number % 2 == 0 { &[Confirmed, Shipped] } else { &[Cancelled] };
                brought_to(&system, &format!("{customer}-{number}"), 1, steps).await;
            }
        })
    });
    let customers: Vec<_> = customers.collect();
    for round in 1..=3 {
        until("there is load", async || placed.load(Ordering::Relaxed) > 100 * round).await;
        let report = look(&system, round == 3).await;
        assert!(report.findings.is_empty() && report.clean(), "{:#?}", report.lines(false));
        assert!(report.orders > 50, "{report:?}");
    }
    stop.store(true, Ordering::Relaxed);
    for customer in customers {
        customer.await.unwrap();
    }
}
