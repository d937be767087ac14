//! Changes under a running system: streams that are removed, edited or recreated, a consumer, and a stream that
//! captures requests. They are noticed within seconds, nothing is acknowledged meanwhile, and the system recovers once
//! they are undone.

use std::time::Duration;

use contract::inventory::v1::GetStockRequest;
use futures_util::StreamExt;
use nats::{Connection, Store};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::status::{assert_failure, assert_retryable};
use crate::harness::system::{PATIENCE, System, new_order, until};

/// Replies have to come within this even on a busy machine. All attempts of a call would take 20 s.
const SOON: Duration = Duration::from_secs(10);

/// A stream, one of its fields, and a change to it.
type Edit = (&'static str, &'static str, fn(&mut Value));

/// A request to the JetStream API.
async fn api(system: &System, request: &str, body: Value) -> Value {
    let reply =
        system.nats().await.request(format!("$JS.API.{request}"), body.to_string().into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert!(answer["error"].is_null(), "{request}: {answer}");
    answer
}

/// Changes a stream's configuration, and returns the previous one.
async fn edit(system: &System, stream: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut config = api(system, &format!("STREAM.INFO.{stream}"), json!({})).await["config"].take();
    let before = config.clone();
    change(&mut config);
    api(system, &format!("STREAM.UPDATE.{stream}"), config).await;
    before
}

async fn healthz(address: std::net::SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.starts_with("HTTP/1.0 200")
}

/// Waits until gateway and worker are healthy, or until they are not.
async fn say(system: &System, well: bool) {
    let (worker, gateway) = (system.workers[0].http().await, &system.gateways[0]);
    until(&format!("the gateway says {well}"), async || {
        let names = ["", "orders.v1.OrderService", "inventory.v1.InventoryService"];
        names.iter().all(|name| gateway.up(name) == Some(well)) && healthz(gateway.http_addr()).await == well
    })
    .await;
    until(&format!("the worker says {well}"), async || healthz(worker).await == well).await;
    let port = format!("http://{}", system.workers[0].health().await);
    let channel = Channel::from_shared(port).unwrap().connect_lazy();
    until(&format!("its health port says {well}"), async || {
        let answer = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
        (answer.into_inner().status() == ServingStatus::Serving) == well
    })
    .await;
}

/// A stream's last sequence.
async fn entries(system: &System, stream: &'static str) -> u64 {
    let link = Connection::connect(&nats::Options::at(system.nats.url()), "a witness").await.unwrap();
    Store::new(link, stream).range(Instant::now() + PATIENCE).await.unwrap().last
}

/// Asserts that writes fail at once.
async fn refuses_writes(system: &System) {
    let refused = timeout(SOON, system.place(&new_order("lamp", 1).id("refused"))).await.expect("an answer");
    assert_retryable(&assert_failure(refused, Code::Unavailable, "STORAGE_UNAVAILABLE", "no"));
    let refused = timeout(SOON, system.adjust("lamp", 1)).await.expect("an answer");
    assert_retryable(&assert_failure(refused, Code::Unavailable, "STORAGE_UNAVAILABLE", "no"));
}

#[tokio::test]
async fn a_ledger_that_is_removed_is_missed_at_once_and_by_everybody() {
    let system = System::builder().stock("lamp", 9).start().await;
    api(&system, "STREAM.DELETE.INVENTORY", json!({})).await;
    refuses_writes(&system).await;
    let request = GetStockRequest { product_id: "lamp".to_owned() };
    let read = timeout(SOON, system.inventory().get_stock(request)).await.expect("an answer");
    assert_retryable(&assert_failure(read, Code::Unavailable, "STORAGE_UNAVAILABLE", "no"));
    say(&system, false).await;
    refuses_writes(&system).await;
    assert_eq!(entries(&system, order_streams::ORDERS).await, 0);
}

#[tokio::test]
async fn a_worker_whose_ledger_was_made_anew_ends_and_says_why() {
    let system = System::builder().stock("lamp", 9).start().await;
    let link = Connection::connect(&nats::Options::at(system.nats.url()), "an operator").await.unwrap();
    let change = async {
        until("two workers answer", async || two_workers(&system).await).await;
        api(&system, "STREAM.DELETE.INVENTORY", json!({})).await;
        order_streams::open(&link, 1, true).await.unwrap();
        std::future::pending::<()>().await;
    };
    let end = tokio::select! {
        end = timeout(PATIENCE, inventory_worker::run(system.worker.clone(), std::future::pending())) => end,
        () = change => unreachable!(),
    };
    let end = end.expect("it ends").expect_err("an error");
    assert!(end.to_string().contains("INVENTORY was deleted and created again"), "{end}");
}

/// Whether two workers answer.
async fn two_workers(system: &System) -> bool {
    let nats = system.nats().await;
    let inbox = nats.new_inbox();
    let replies = nats.subscribe(inbox.clone()).await.unwrap();
    nats.publish_with_reply("$SRV.PING.inventory", inbox, "".into()).await.unwrap();
    timeout(Duration::from_secs(1), replies.take(2).count()).await.is_ok()
}

#[tokio::test]
async fn a_stream_that_comes_back_brings_everything_back() {
    let system = System::builder().stock("lamp", 9).start().await;
    for stream in ["DEAD_LETTERS", "OBJ_inventory-snapshots"] {
        api(&system, &format!("STREAM.DELETE.{stream}"), json!({})).await;
        say(&system, false).await;
        refuses_writes(&system).await;
        let link = Connection::connect(&nats::Options::at(system.nats.url()), "an operator").await.unwrap();
        order_streams::open(&link, 1, true).await.unwrap();
        say(&system, true).await;
        system.order("lamp", 1).await.expect("an order");
    }
}

#[tokio::test]
async fn what_is_refused_at_start_refuses_writes_while_it_lasts() {
    let system = System::builder().stock("lamp", 99).start().await;
    let order = system.order("lamp", 1).await.unwrap();
    let edits: [Edit; 7] = [
        ("ORDERS", "discard", |config| {
            (config["discard"], config["max_msgs"]) = (json!("old"), json!(1_000))
        }),
        ("ORDERS", "allow_direct", |config| config["allow_direct"] = json!(true)),
        ("ORDERS", "republish", |config| config["republish"] = Value::Null),
        ("ORDERS", "max_msgs_per_subject", |config| config["max_msgs_per_subject"] = json!(9)),
        ("INVENTORY", "max_age", |config| config["max_age"] = json!(3_600_000_000_000_u64)),
        ("DEAD_LETTERS", "subjects", |config| config["subjects"] = json!(["dead_letters.orders.*"])),
        ("OBJ_inventory-snapshots", "max_msgs", |config| config["max_msgs"] = json!(1_000)),
    ];
    for (stream, field, change) in edits {
        let before = edit(&system, stream, change).await;
        say(&system, false).await;
        let metric = format!("jetstream_stream_fit{{stream=\"{stream}\"}} 0");
        for address in [system.gateways[0].http_addr(), system.workers[0].http().await] {
            assert!(
                crate::harness::http::get(address, "/metrics").await.contains(&metric),
                "{stream} {field}"
            );
        }
        let count = entries(&system, order_streams::ORDERS).await;
        refuses_writes(&system).await;
        assert_eq!(entries(&system, order_streams::ORDERS).await, count, "{stream} {field}");
        // Reads still work.
        assert_eq!(system.get(&order.order_id).await.unwrap(), order);
        assert!(system.check("lamp").await.unwrap());
        api(&system, &format!("STREAM.UPDATE.{stream}"), before).await;
        say(&system, true).await;
        system.order("lamp", 1).await.expect("an order, when it is mended");
    }
}

#[tokio::test]
async fn a_consumer_that_is_paused_or_removed_is_noticed_and_events_arrive_in_the_end() {
    let system = System::builder().stock("lamp", 9).start().await;
    let order = system.order("lamp", 1).await.unwrap();
    api(&system, "CONSUMER.PAUSE.ORDERS.inventory-worker", json!({"pause_until": "2099-01-01T00:00:00Z"}))
        .await;
    let worker = system.workers[0].http().await;
    until("the worker says so", async || !healthz(worker).await).await;
    api(&system, "CONSUMER.PAUSE.ORDERS.inventory-worker", json!({})).await;
    until("it is well again", async || healthz(worker).await).await;
    api(&system, "CONSUMER.DELETE.ORDERS.inventory-worker", json!({})).await;
    system.update(&order, contract::orders::v1::OrderStatus::Cancelled, "").await.unwrap();
    until("the stock is free", async || system.stock("lamp").await == (9, 0)).await;
}

#[tokio::test]
async fn the_stock_of_a_purged_ledger_is_kept_in_a_snapshot() {
    let mut system = System::builder().stock("lamp", 9).start().await;
    system.order("lamp", 1).await.unwrap();
    until("it is bound", async || entries(&system, order_streams::INVENTORY).await >= 3).await;
    api(&system, "STREAM.PURGE.INVENTORY", json!({})).await;
    let snapshots = async || api(&system, "STREAM.INFO.OBJ_inventory-snapshots", json!({})).await;
    until("there is a snapshot", async || {
        assert_eq!(system.stock("lamp").await, (9, 1));
        snapshots().await["state"]["messages"].as_u64() >= Some(2)
    })
    .await;
    system.workers.remove(0).drain().await;
    system.add_worker().await;
    until("the next one answers", async || system.check("lamp").await.is_ok()).await;
    assert_eq!(system.stock("lamp").await, (9, 1));
}

#[tokio::test]
async fn a_stream_that_takes_requests_is_noticed_and_its_acknowledgement_is_no_answer() {
    let system = System::builder().stock("lamp", 9).start().await;
    let thief = json!({"name": "THIEF", "subjects": ["check_inventory"], "storage": "memory"});
    api(&system, "STREAM.CREATE.THIEF", thief).await;
    let mut refused = Vec::new();
    until("it is noticed", async || match system.check("lamp").await {
        // The worker replied before the stream.
        Ok(available) => {
            assert!(available, "an empty answer");
            false
        }
        Err(status) => {
            refused.push(crate::harness::system::reason(&status));
            refused.last().is_some_and(|reason| reason == "SUBJECT_CAPTURED")
        }
    })
    .await;
    let ours = ["CONTRACT_VIOLATION", "SUBJECT_CAPTURED"];
    assert!(refused.iter().all(|reason| ours.contains(&reason.as_str())), "{refused:?}");
    assert_retryable(&assert_failure(
        system.check("lamp").await,
        Code::Unavailable,
        "SUBJECT_CAPTURED",
        "no",
    ));
    until("its health says so", async || system.gateways[0].up("orders.v1.OrderService") == Some(false))
        .await;
    // Other routes are not affected.
    assert_eq!(system.stock("lamp").await, (9, 0));
    api(&system, "STREAM.DELETE.THIEF", json!({})).await;
    until("checks are answered again", async || system.check("lamp").await.is_ok_and(|available| available))
        .await;
    until("its health says so", async || system.gateways[0].up("orders.v1.OrderService") == Some(true)).await;
}

#[tokio::test]
async fn orders_that_a_limit_took_are_the_last_ones() {
    let system = System::builder().stock("lamp", 99).start().await;
    for _ in 0..5 {
        system.order("lamp", 1).await.unwrap();
    }
    let limit = |config: &mut Value| (config["discard"], config["max_msgs"]) = (json!("old"), json!(3));
    let before = edit(&system, "ORDERS", limit).await;
    say(&system, false).await;
    let count = entries(&system, order_streams::ORDERS).await;
    refuses_writes(&system).await;
    assert_eq!(entries(&system, order_streams::ORDERS).await, count);
    api(&system, "STREAM.UPDATE.ORDERS", before).await;
    say(&system, true).await;
    let order = system.order("lamp", 1).await.expect("an order, when it is mended");
    assert_eq!(system.get(&order.order_id).await.unwrap(), order);
}

#[tokio::test]
async fn workers_go_on_with_a_ledger_that_was_restored() {
    let system = System::builder().stock("lamp", 9).start().await;
    system.order("lamp", 1).await.unwrap();
    until("it is bound", async || entries(&system, order_streams::INVENTORY).await >= 3).await;
    let link = Connection::connect(&nats::Options::at(system.nats.url()), "an operator").await.unwrap();
    let (store, limit) = (Store::new(link, order_streams::INVENTORY), Instant::now() + PATIENCE);
    let mut saved = Vec::new();
    for sequence in 1..=entries(&system, order_streams::INVENTORY).await {
        saved.push(store.get(sequence, limit).await.unwrap().unwrap().payload);
    }
    let config = api(&system, "STREAM.INFO.INVENTORY", json!({})).await["config"].take();
    api(&system, "STREAM.DELETE.INVENTORY", json!({})).await;
    say(&system, false).await;
    api(&system, "STREAM.CREATE.INVENTORY", config).await;
    for entry in saved {
        let nothing = Default::default();
        store.append(order_streams::LEDGER_SUBJECT, nothing, entry, nats::Expect::Any, limit).await.unwrap();
    }
    say(&system, true).await;
    assert_eq!(system.stock("lamp").await, (9, 1));
    system.order("lamp", 1).await.expect("an order");
    assert_eq!(system.stock("lamp").await, (9, 2));
}
