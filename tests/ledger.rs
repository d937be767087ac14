//! The ledger with competing workers, restarts and purges.

use futures_util::TryStreamExt as _;
use inventory_worker::config::Nats;
use inventory_worker::ledger::Ledger;
use inventory_worker::stock::Command;
use nats::{Connection, Store};
use tokio::time::Instant;

use crate::harness::proxy::Proxy;
use crate::harness::system::{PATIENCE, System, assert_refused, new_order, until};

/// The test's own handle of the ledger, besides the workers'.
async fn ledger(system: &System) -> (Connection, Ledger) {
    inventory_worker::open(&system.worker.nats, 64).await.unwrap()
}

async fn count(ledger: &Ledger, product: &str, units: u32) {
    ledger.submit(Command::Count(vec![(product.into(), units)]), Instant::now() + PATIENCE).await.unwrap();
}

/// The ledger's first remaining sequence.
async fn begins(link: &Connection) -> u64 {
    Store::new(link.clone(), order_streams::INVENTORY).range(Instant::now() + PATIENCE).await.unwrap().first
}

#[tokio::test]
async fn a_worker_that_a_purge_overtook_loads_anew_and_decides_on_no_hole() {
    let mut system = System::builder().workers(0).each_worker(|w| w.nats.snapshot_every = 20).start().await;
    let proxy = Proxy::to(system.nats.port()).await;
    let (link, writer) = ledger(&system).await;
    count(&writer, "lamp", 5).await;
    let direct = std::mem::replace(&mut system.worker.nats.connection, nats::Options::at(proxy.url()));
    system.add_worker().await;
    system.worker.nats.connection = direct;
    system.add_gateway().await;
    assert_eq!(system.stock("lamp").await, (5, 0));
    let seen = system.workers[0].sequence().await;

    proxy.cut();
    count(&writer, "rug", 7).await;
    count(&writer, "lamp", 0).await;
    until("the ledger is purged past the worker", async || {
        count(&writer, "sofa", 1).await;
        begins(&link).await > seen + 3
    })
    .await;
    proxy.restore();
    until("the worker is back", async || system.workers[0].sequence().await > seen).await;
    until("its requests reach it again", async || system.check("rug").await.is_ok()).await;
    assert_eq!((system.stock("lamp").await, system.stock("rug").await), ((0, 0), (7, 0)));
    assert_refused(system.order("lamp", 1).await, "INSUFFICIENT_STOCK");
    let (_link, replayed) = ledger(&system).await;
    assert_eq!(*writer.stock(), *replayed.stock());
}

#[tokio::test]
async fn a_worker_that_restarts_from_a_snapshot_has_the_same_stock() {
    let mut system =
        System::builder().stock("lamp", 500).each_worker(|w| w.nats.snapshot_every = 10).start().await;
    let (link, witness) = ledger(&system).await;
    until("the ledger begins with a snapshot", async || {
        system.order("lamp", 1).await.unwrap();
        begins(&link).await > 1
    })
    .await;
    let before = system.stock("lamp").await;
    system.workers.remove(0).kill();
    system.add_worker().await;
    assert_eq!(system.stock("lamp").await, before);
    witness.catch_up(Instant::now() + PATIENCE).await.unwrap();
    let (_link, restarted) = ledger(&system).await;
    assert_eq!(*witness.stock(), *restarted.stock(), "replay and snapshot");
}

#[tokio::test]
async fn a_ledger_that_begins_after_its_snapshot_is_refused() {
    let system = System::builder().workers(0).gateways(0).start().await;
    let (link, writer) = ledger(&system).await;
    for units in 0..5 {
        count(&writer, "lamp", units).await;
    }
    let stream =
        async_nats::jetstream::new(link.client().clone()).get_stream(order_streams::INVENTORY).await.unwrap();
    stream.purge().sequence(4).await.unwrap();
    let error = inventory_worker::open(&system.worker.nats, 64).await.err().expect("a refusal").to_string();
    assert!(error.contains("begins at 4"), "{error}");
}

#[tokio::test]
async fn writers_that_compete_commit_every_change_once() {
    let system = System::builder().workers(0).gateways(0).start().await;
    let mut writers = Vec::new();
    for _ in 0..4 {
        writers.push(ledger(&system).await);
    }
    let adjust = |writer: usize, change: usize| Command::Adjust {
        request: format!("{writer}-{change}").into(),
        lines: vec![("lamp".into(), 1)],
        reason: "".into(),
    };
    let deadline = Instant::now() + PATIENCE;
    let changes = writers.iter().enumerate().flat_map(|(index, (_, writer))| {
        (0..100).map(move |change| writer.submit(adjust(index, change), deadline))
    });
    futures_util::future::try_join_all(changes).await.unwrap();
    for (_, writer) in &writers {
        writer.catch_up(deadline).await.unwrap();
        assert_eq!(writer.stock().level("lamp").unwrap().on_hand, 400);
    }
}

#[tokio::test]
async fn reads_and_refusals_are_answered_while_another_writer_never_rests() {
    let system = System::builder().stock("lamp", 1).start().await;
    let (_link, busy) = ledger(&system).await;
    let writer = tokio::spawn(async move {
        loop {
            count(&busy, "rug", 1).await;
        }
    });
    for _ in 0..50 {
        assert_eq!(system.stock("lamp").await, (1, 0));
        assert_refused(system.order("lamp", 2).await, "INSUFFICIENT_STOCK");
    }
    system.order("lamp", 1).await.expect("a commit among the others");
    writer.abort();
}

#[tokio::test]
async fn two_snapshots_are_kept_and_the_others_leave_nothing() {
    let system =
        System::builder().workers(0).gateways(0).each_worker(|w| w.nats.snapshot_every = 5).start().await;
    let (link, writer) = ledger(&system).await;
    until("several snapshots were made and removed", async || {
        count(&writer, "lamp", 1).await;
        begins(&link).await > 30
    })
    .await;
    let js = async_nats::jetstream::new(link.client().clone());
    until("what is left are two, each a name and its contents", async || {
        let stream = js.get_stream(order_streams::SNAPSHOTS).await.unwrap();
        stream.cached_info().state.subjects_count == 4
    })
    .await;
}

#[tokio::test]
async fn a_ledger_that_lost_its_end_is_refused() {
    let system =
        System::builder().workers(0).gateways(0).each_worker(|w| w.nats.snapshot_every = 5).start().await;
    let (link, writer) = ledger(&system).await;
    until("there is a snapshot", async || {
        count(&writer, "lamp", 1).await;
        begins(&link).await > 1
    })
    .await;
    let js = async_nats::jetstream::new(link.client().clone());
    let config = js.get_stream(order_streams::INVENTORY).await.unwrap().cached_info().config.clone();
    js.delete_stream(order_streams::INVENTORY).await.unwrap();
    js.create_stream(config).await.unwrap();
    let error = inventory_worker::open(&system.worker.nats, 64).await.err().expect("a refusal").to_string();
    assert!(error.contains("its end was lost, or it was created again"), "{error}");
}

#[tokio::test]
async fn streams_that_correctness_cannot_use_are_refused_by_field() {
    let system = System::builder().workers(0).gateways(0).start().await;
    let js = async_nats::jetstream::new(system.nats().await);
    let config = |name: &str, subject: &str| async_nats::jetstream::stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        allow_direct: true,
        ..Default::default()
    };
    js.create_stream(config("INVENTORY", "inventory.ledger")).await.unwrap();
    let open =
        async |nats: &Nats| inventory_worker::open(nats, 64).await.err().expect("a refusal").to_string();
    let error = open(&system.worker.nats).await;
    assert!(error.contains("INVENTORY") && error.contains("discard"), "{error}");
    js.delete_stream("INVENTORY").await.unwrap();
    js.create_stream(config("EVERYTHING", "check_inventory")).await.unwrap();
    let error = open(&system.worker.nats).await;
    assert!(error.contains("EVERYTHING") && error.contains("check_inventory"), "{error}");
}

#[tokio::test]
async fn a_worker_told_to_stop_finishes_what_it_took() {
    let mut system = System::builder().stock("lamp", 1_000).start().await;
    let proxy = Proxy::to(system.nats.port()).await;
    system.worker.nats.connection = nats::Options::at(proxy.url());
    system.add_worker().await;
    let leaver = system.workers.pop().unwrap();
    // Its first append is not acknowledged, so its requests stay in flight.
    proxy.hold_after("PUB inventory.ledger ");
    let place = |number: u32| {
        let (mut client, order) = (system.orders(), new_order("lamp", 1).id(&format!("order-{number}")));
        tokio::spawn(async move { client.create_order(order.request).await })
    };
    let orders: Vec<_> = (0..100).map(place).collect();
    until("the worker has taken several", async || leaver.in_flight().await >= 10).await;
    tokio::join!(leaver.drain(), async { proxy.restore() });
    for order in orders {
        order.await.unwrap().expect("an order");
    }
    assert_eq!(system.stock("lamp").await, (1_000, 100));
}

/// As if the consumer's server were lost: the library notices after ten seconds.
#[tokio::test]
async fn workers_whose_consumers_are_gone_read_from_the_leader() {
    let system = System::builder().workers(2).stock("lamp", 1_000).start().await;
    let js = async_nats::jetstream::new(system.nats().await);
    let ledger = js.get_stream("INVENTORY").await.unwrap();
    let names: Vec<String> = ledger.consumer_names().try_collect().await.unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
    for name in names {
        ledger.delete_consumer(&name).await.unwrap();
    }
    let orders = futures_util::future::join_all((0..40).map(|_| system.order("lamp", 1))).await;
    assert!(orders.iter().all(Result::is_ok), "{:?}", orders.iter().find(|order| order.is_err()));
    assert_eq!(system.stock("lamp").await, (1_000, 40));
}
