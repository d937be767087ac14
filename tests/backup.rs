//! Backup of all state into files, and restore.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use contract::orders::v1::{ListOrdersRequest, Order, OrderStatus};
use futures_util::future::join_all;
use nats::Connection;
use orders::backup::{load, save};
use orders::reconcile::reconcile;
use tempfile::TempDir;

use crate::harness::system::{PATIENCE, System, new_order, until};

/// An operator's connection to a system's nats-server.
pub async fn operator(system: &System) -> Connection {
    Connection::connect(&system.worker.nats.connection, "an operator").await.unwrap()
}

/// A backup of a system's present state.
pub async fn backup(system: &System) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    save(&operator(system).await, folder.path(), true).await.unwrap();
    folder
}

/// A system on an empty nats-server, restored from the folder, without workers and gateways.
pub async fn restored(folder: &Path) -> System {
    let system = System::builder().workers(0).gateways(0).start().await;
    load(&operator(&system).await, folder, None).await.unwrap();
    system
}

/// Starts a worker and a gateway.
pub async fn staffed(mut system: System) -> System {
    system.add_worker().await;
    system.add_gateway().await;
    system
}

/// All orders, the newest first.
pub async fn orders(system: &System) -> Vec<Order> {
    let (mut orders, mut request) =
        (Vec::new(), ListOrdersRequest { page_size: 1_000, ..Default::default() });
    loop {
        let page = system.list(request.clone()).await.unwrap();
        orders.extend(page.orders);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return orders;
        }
    }
}

/// Places an order and updates its status.
pub async fn brought_to(system: &System, id: &str, units: u32, steps: &[OrderStatus]) -> Order {
    let mut order = system.place(&new_order("lamp", units).id(id)).await.unwrap();
    for status in steps {
        order = system.update(&order, *status, &order.etag).await.unwrap();
    }
    order
}

/// Units of orders that hold their stock.
fn promised(orders: &[Order]) -> u32 {
    let living = [OrderStatus::Pending, OrderStatus::Confirmed];
    let items = orders.iter().filter(|order| living.contains(&order.status())).flat_map(|order| &order.items);
    items.map(|item| item.quantity).sum()
}

/// Waits until the workers have processed every event.
pub async fn worked_off(system: &System) {
    let js = async_nats::jetstream::new(system.nats().await);
    until("all events are worked off", async || {
        let orders = js.get_stream(order_streams::ORDERS).await.unwrap();
        let info = orders.consumer_info("inventory-worker").await.unwrap();
        info.num_pending == 0 && info.num_ack_pending == 0
    })
    .await;
}

#[tokio::test]
async fn a_restored_system_has_equal_orders_and_stock_and_goes_on() {
    use OrderStatus::{Cancelled, Confirmed, Shipped};
    let system =
        System::builder().stock("lamp", 100).each_worker(|w| w.nats.snapshot_every = 5).start().await;
    for (id, steps) in
        [("a", &[][..]), ("b", &[Confirmed, Shipped]), ("c", &[Cancelled]), ("d", &[Confirmed])]
    {
        brought_to(&system, id, 2, steps).await;
    }
    worked_off(&system).await;
    let (before, stock) = (orders(&system).await, system.stock("lamp").await);
    let folder = backup(&system).await;
    drop(system);

    let system = staffed(restored(folder.path()).await).await;
    assert_eq!((orders(&system).await, system.stock("lamp").await), (before.clone(), stock));
    let report = reconcile(&operator(&system).await, false, PATIENCE).await.unwrap();
    assert!(report.clean(), "{report:?}");
    assert_eq!((report.orders, report.reservations), (4, 4));
    // Etags and request ids from before are still valid.
    system.update(&before[0], Shipped, &before[0].etag).await.unwrap();
    let again = system.place(&new_order("lamp", 2).id("a")).await.unwrap();
    assert_eq!(again, before[3]);
    system.order("lamp", 1).await.unwrap();
}

#[tokio::test]
async fn a_backup_under_load_is_whole_and_reconciled_record_and_stock_agree() {
    let small = |worker: &mut inventory_worker::config::Serve| {
        (worker.nats.snapshot_every, worker.reservation_ttl) = (50, Duration::from_secs(5));
    };
    let system = Arc::new(System::builder().stock("lamp", 1_000_000).each_worker(small).start().await);
    let (stop, placed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let customers = (0..8).map(|customer| {
        let (system, stop, placed) = (system.clone(), stop.clone(), placed.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let number = placed.fetch_add(1, Ordering::Relaxed);
                let steps: &[OrderStatus] = match (customer + number) % 4 {
                    0 => &[],
                    1 => &[OrderStatus::Confirmed, OrderStatus::Shipped],
                    2 => &[OrderStatus::Cancelled],
                    _ => &[OrderStatus::Confirmed],
                };
                brought_to(&system, &format!("{customer}-{number}"), 1 + number as u32 % 3, steps).await;
            }
        })
    });
    let customers: Vec<_> = customers.collect();
    until("there is load", async || placed.load(Ordering::Relaxed) > 300).await;
    let folder = backup(&system).await;
    stop.store(true, Ordering::Relaxed);
    join_all(customers).await.into_iter().for_each(|customer| customer.unwrap());
    drop(system);

    let system = staffed(restored(folder.path()).await).await;
    let link = operator(&system).await;
    let report = reconcile(&link, true, PATIENCE).await.unwrap();
    assert!(report.clean(), "{:#?}", report.lines(false));
    let report = reconcile(&link, false, PATIENCE).await.unwrap();
    assert!(report.clean() && report.findings.is_empty(), "{:#?}", report.lines(false));
    let orders = orders(&system).await;
    assert!(orders.len() > 200, "{}", orders.len());
    let ended = async || system.stock("lamp").await.1 == promised(&orders);
    until("what was merely held, for orders that were about to be recorded, has ended", ended).await;
    let report = reconcile(&link, false, PATIENCE).await.unwrap();
    assert!(report.clean() && report.findings.is_empty(), "{:#?}", report.lines(false));
    system.order("lamp", 1).await.unwrap();
}

#[tokio::test]
async fn nothing_that_exists_is_overwritten() {
    let system = System::builder().stock("lamp", 9).start().await;
    system.order("lamp", 2).await.unwrap();
    let folder = backup(&system).await;
    let error = load(&operator(&system).await, folder.path(), None).await.unwrap_err().to_string();
    assert!(error.contains("ORDERS, OBJ_inventory-snapshots, INVENTORY, DEAD_LETTERS exist"), "{error}");
    assert!(error.contains("nats stream rm ORDERS -f"), "{error}");
    assert_eq!((system.stock("lamp").await, orders(&system).await.len()), ((9, 2), 1));
    let error = save(&operator(&system).await, folder.path(), false).await.unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
}

async fn orders_there(link: &Connection) -> Option<()> {
    nats::backup::exists(link, order_streams::ORDERS).await.unwrap().then_some(())
}

#[tokio::test]
async fn a_backup_that_is_damaged_or_incomplete_is_refused_and_what_is_to_be_removed_is_named() {
    let system = System::builder().stock("lamp", 9).start().await;
    system.order("lamp", 2).await.unwrap();
    let folder = backup(&system).await;
    let empty = System::builder().workers(0).gateways(0).start().await;
    let link = operator(&empty).await;
    let refused = async || format!("{:#}", load(&link, folder.path(), None).await.unwrap_err());

    let ledger = std::fs::read_dir(folder.path().join("INVENTORY")).unwrap().map(|file| file.unwrap().path());
    let archive = ledger.into_iter().find(|file| file.to_string_lossy().ends_with(".s2")).unwrap();
    let whole = std::fs::read(&archive).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&archive, damaged).unwrap();
    let damaged = refused().await;
    assert!(damaged.contains("is damaged") && orders_there(&link).await.is_none(), "{damaged}");
    // Without the digests, the server detects it.
    std::fs::remove_file(folder.path().join("SHA256SUMS")).unwrap();
    std::fs::write(&archive, &whole[..middle]).unwrap();
    let half = refused().await;
    assert!(half.contains("cannot restore INVENTORY"), "{half}");
    assert!(half.contains("nats stream rm ORDERS -f; nats stream rm OBJ_inventory-snapshots -f"), "{half}");
    std::fs::remove_file(&archive).unwrap();
    assert!(refused().await.contains("INVENTORY is not in the backup"), "{}", refused().await);
}

#[tokio::test]
async fn the_files_are_those_of_the_nats_command() {
    let system = System::builder().stock("lamp", 9).start().await;
    let folder = backup(&system).await;
    let sums = std::fs::read_to_string(folder.path().join("SHA256SUMS")).unwrap();
    for stream in order_streams::ALL {
        let text = std::fs::read(folder.path().join(stream).join("backup.json")).unwrap();
        let meta: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(meta["config"]["name"], stream);
        assert!(meta["state"]["last_seq"].is_u64(), "{meta}");
        assert_eq!(sums.lines().filter(|line| line.contains(&format!("  {stream}/stream."))).count(), 1);
    }
    let mut check = std::process::Command::new("sha256sum");
    check.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(folder.path());
    assert!(check.status().unwrap().success());
}
