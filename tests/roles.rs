//! The main flow with every process as its user of deploy/nats/roles.conf, and the start-up error with the wrong user.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use bytes::Bytes;
use contract::inventory::v1::ListStockRequest;
use contract::orders::v1::{ListOrdersRequest, OrderStatus, WatchOrdersRequest};
use contract::route;
use futures_util::StreamExt;
use gateway::Gateway;
use gateway::config::Provision;
use gateway::doctor::{Doctor, diagnose};
use gateway::permissions::{GENERAL, ORDERS};
use inventory_worker::file::{export, import};
use nats::{Connection, Store};
use order_streams::DeadLetters;
use orders::backup::{Backup, backup, load, save};
use orders::dead_letters::{every, replay};
use orders::reconcile::reconcile;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::harness::http::get;
use crate::harness::roles::{self, RoleClient, list};
use crate::harness::system::{PATIENCE, System, assert_refused, new_order, until};
use crate::watch::Watch;

async fn role(system: &System, name: &str) -> Connection {
    Connection::connect(&roles::options(&system.nats.url(), name), name).await.unwrap()
}

/// Asserts that the server logged no permission violation.
pub fn assert_quiet(system: &System) {
    let log = std::fs::read_to_string(system.nats.log()).unwrap();
    let refused: Vec<_> = log.lines().filter(|line| line.contains("Violation")).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[tokio::test]
async fn orders_are_placed_read_listed_and_moved_along() {
    use OrderStatus::{Cancelled, Confirmed, Delivered, Shipped};
    let system = System::builder().roles().stock("lamp", 9).workers(2).start().await;
    let order = system.place(&new_order("lamp", 2).id("one")).await.unwrap();
    let other = system.order("lamp", 4).await.unwrap();
    assert_eq!(system.get(&order.order_id).await.unwrap(), order);
    assert_eq!(
        system.list(ListOrdersRequest::default()).await.unwrap().orders,
        [other.clone(), order.clone()]
    );
    assert_eq!((system.stock("lamp").await, system.check("lamp").await.unwrap()), ((9, 6), true));
    assert_refused(system.order("lamp", 9).await, "INSUFFICIENT_STOCK");
    let listed = system.inventory().list_stock(ListStockRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.stock.len(), 1);
    system.update(&other, Cancelled, "").await.unwrap();
    for status in [Confirmed, Shipped, Delivered] {
        system.update(&order, status, "").await.unwrap();
    }
    until("the events are worked off", async || system.stock("lamp").await == (7, 0)).await;
    assert_eq!(system.place(&new_order("lamp", 2).id("one")).await.unwrap().order_id, order.order_id);
    assert_quiet(&system);
}

#[tokio::test]
async fn watches_and_the_console_see_what_happens() {
    let system = System::builder().roles().stock("lamp", 9).start().await;
    let mut watch = Watch::start(&system, WatchOrdersRequest::default()).await;
    let order = system.order("lamp", 1).await.unwrap();
    system.update(&order, OrderStatus::Cancelled, "").await.unwrap();
    assert_eq!(watch.change().await, (order.order_id.clone(), OrderStatus::Pending));
    assert_eq!(watch.change().await, (order.order_id, OrderStatus::Cancelled));
    let address = system.gateways[0].http_addr();
    let figures =
        async || -> serde_json::Value { serde_json::from_str(&get(address, "/console.json").await).unwrap() };
    until("it has seen the worker", async || figures().await["workers"][0]["name"] == "inventory").await;
    until("it has seen all streams", async || figures().await["streams"].as_array().unwrap().len() == 4)
        .await;
    assert_quiet(&system);
}

#[tokio::test]
async fn a_subscriber_hears_order_events_and_pulls_those_it_missed() {
    let system = System::builder().roles().stock("lamp", 9).start().await;
    let subscriber = RoleClient::of(&system.nats.url(), "subscriber").await;
    let mut created = subscriber.client.subscribe("order_created").await.unwrap();
    let mut updated = subscriber.client.subscribe("order_status_updated").await.unwrap();
    // A round trip, after which the server knows the subscriptions: there is no such consumer yet.
    let info = subscriber.client.request("orders.API.CONSUMER.INFO.ORDERS.subscriber", Bytes::new());
    timeout(PATIENCE, info).await.unwrap().unwrap();
    let order = system.order("lamp", 1).await.unwrap();
    system.update(&order, OrderStatus::Cancelled, "").await.unwrap();
    for events in [&mut created, &mut updated] {
        let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&event.payload).contains(&order.order_id));
    }
    let config = pull::Config {
        durable_name: Some("subscriber".to_owned()),
        ack_policy: AckPolicy::Explicit,
        filter_subject: contract::subject::EVENTS.to_owned(),
        ..pull::Config::default()
    };
    let provisioner = jetstream::new(role(&system, "provisioner").await.client().clone());
    let stream = provisioner.get_stream_no_info(order_streams::ORDERS).await.unwrap();
    stream.create_consumer(config).await.expect("the subscriber's consumer");
    let orders = jetstream::with_prefix(subscriber.client.clone(), "orders.API");
    let stream = orders.get_stream_no_info(order_streams::ORDERS).await.unwrap();
    let consumer: PullConsumer = stream.get_consumer("subscriber").await.expect("its consumer");
    let mut messages = consumer.fetch().max_messages(2).messages().await.unwrap();
    for kind in ["order_created", "order_status_updated"] {
        let message = timeout(PATIENCE, messages.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(*message.subject, format!("orders.event.{kind}.{}", order.order_id));
        message.ack().await.unwrap();
    }
    let acknowledged = async || stream.consumer_info("subscriber").await.unwrap().num_ack_pending == 0;
    until("both are acknowledged", acknowledged).await;
    assert_quiet(&system);
}

#[tokio::test]
async fn a_reservation_without_an_order_ends() {
    let system = System::builder()
        .roles()
        .stock("lamp", 1)
        .each_worker(|w| w.expiry_interval = Duration::from_millis(50))
        .start()
        .await;
    let gateway = RoleClient::of(&system.nats.url(), "gateway").await;
    let items = r#"[{"productId":"lamp","quantity":1}]"#;
    let request = format!(r#"{{"orderId":"{}","items":{items},"ttlSeconds":1}}"#, Uuid::new_v4());
    let reply = gateway.client.request("reserve_inventory", request.into()).await.unwrap();
    assert!(String::from_utf8_lossy(&reply.payload).contains(r#""reserved":true"#), "{reply:?}");
    assert_eq!(system.stock("lamp").await, (1, 1));
    until("the reservation has ended", async || system.stock("lamp").await == (1, 0)).await;
    assert_quiet(&system);
}

#[tokio::test]
async fn an_operator_looks_after_dead_letters() {
    let system = System::builder().roles().stock("lamp", 5).start().await;
    let (gateway, operator) =
        (RoleClient::of(&system.nats.url(), "gateway").await, role(&system, "operator").await);
    let subject = format!("orders.event.order_created.{}", Uuid::new_v4());
    gateway.client.request(subject, "{nonsense".into()).await.unwrap();
    until("it is a dead letter", async || every(&operator).await.unwrap() == [1]).await;
    let end = replay(&operator, &[1], false).await.unwrap().remove(0).end.unwrap_err();
    assert!(end.contains("UNSETTLED"), "{end}");
    assert!(DeadLetters::new(&operator).remove(1).await.unwrap());
    assert_quiet(&system);
}

#[tokio::test]
async fn a_worker_purges_the_ledger_behind_its_snapshots_and_another_begins_with_them() {
    let mut system = System::builder().roles().each_worker(|w| w.nats.snapshot_every = 5).start().await;
    let ledger = Store::new(role(&system, "operator").await, order_streams::INVENTORY);
    until("the ledger is purged", async || {
        system.adjust("lamp", 1).await.unwrap();
        // By then the first snapshot has been removed too.
        ledger.range(Instant::now() + PATIENCE).await.unwrap().first > 11
    })
    .await;
    let stock = system.stock("lamp").await;
    system.workers.remove(0).drain().await;
    system.add_worker().await;
    until("the new worker answers", async || system.check("lamp").await.is_ok()).await;
    assert_eq!(system.stock("lamp").await, stock);
    assert_quiet(&system);
}

#[tokio::test]
async fn a_worker_drains_without_a_lost_call_and_a_gateway_is_replaced() {
    let mut system = System::builder().roles().stock("lamp", 500).workers(2).start().await;
    let done = std::cell::Cell::new(0);
    let place = async |_| {
        let placed = system.order("lamp", 1).await;
        done.set(done.get() + 1);
        placed
    };
    let placed = futures_util::stream::iter(0..200).map(place).buffer_unordered(32).collect::<Vec<_>>();
    let leaving = async {
        until("calls are in flight", async || done.get() >= 40).await;
        assert!(done.get() < 200, "no call is in flight");
        system.workers[0].drain_in_place().await;
    };
    let (placed, ()) = tokio::join!(placed, leaving);
    assert!(placed.iter().all(Result::is_ok), "{placed:?}");
    system.add_gateway().await;
    system.drain_gateway().await;
    let listed = system.list(ListOrdersRequest { page_size: 1_000, ..Default::default() }).await.unwrap();
    assert_eq!((listed.orders.len(), system.stock("lamp").await), (200, (500, 200)));
    assert_quiet(&system);
}

#[tokio::test]
async fn an_operator_counts_the_stock_backs_all_up_restores_and_reconciles() {
    let mut system = System::builder().roles().stock("lamp", 5).start().await;
    let folder = tempfile::tempdir().unwrap();
    let (counted, exported) = (folder.path().join("counted.csv"), folder.path().join("exported.csv"));
    let order = system.order("lamp", 1).await.unwrap();
    let mut nats = system.worker.nats.clone();
    nats.connection = roles::options(&system.nats.url(), "operator");
    std::fs::write(&counted, "product,on_hand\nlamp,7\n").unwrap();
    import(&counted, false, false, &nats).await.unwrap();
    export(&exported, &nats).await.unwrap();
    assert_eq!(std::fs::read_to_string(exported).unwrap(), "product,on_hand\nlamp,7\n");
    save(&role(&system, "operator").await, &folder.path().join("backup"), true).await.unwrap();
    assert!(reconcile(&role(&system, "operator").await, true, PATIENCE).await.unwrap().clean());
    assert_quiet(&system);
    drop(system);
    system = System::builder().roles().workers(0).gateways(0).unprovisioned().start().await;
    load(&role(&system, "operator").await, &folder.path().join("backup"), None).await.unwrap();
    system.add_worker().await;
    system.add_gateway().await;
    assert_eq!((system.get(&order.order_id).await.unwrap(), system.stock("lamp").await), (order, (7, 1)));
    assert_quiet(&system);
}

#[tokio::test]
async fn a_command_of_another_role_says_whose_it_is_and_leaves_nothing() {
    let system = System::builder().roles().stock("lamp", 5).start().await;
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("backup");
    let nats = roles::options(&system.nats.url(), "gateway");
    let config =
        Backup { folder: folder.clone(), recipient: vec![], recipients_file: vec![], check: false, nats };
    let backup = format!("{:#}", backup(config).await.unwrap_err());
    assert!(
        backup.contains("role operator") && backup.contains("$JS.API.STREAM.SNAPSHOT.ORDERS"),
        "{backup}"
    );
    assert!(!folder.exists());
    let mut nats = system.worker.nats.clone();
    nats.connection = roles::options(&system.nats.url(), "subscriber");
    let export = format!("{:#}", export(&place.path().join("stock"), &nats).await.unwrap_err());
    assert!(export.contains("role operator"), "{export}");
}

/// The reply to a request that has to be permitted and to succeed.
async fn asked(client: &RoleClient, subject: &str, body: &str) -> serde_json::Value {
    let reply = timeout(PATIENCE, client.client.request(subject.to_owned(), body.to_owned().into())).await;
    let answer: serde_json::Value = serde_json::from_slice(&reply.unwrap().unwrap().payload).unwrap();
    assert!(answer["error"].is_null(), "{subject}: {answer}");
    answer
}

#[tokio::test]
async fn an_operator_sees_how_streams_and_consumers_are() {
    let system = System::builder().roles().stock("lamp", 5).start().await;
    let operator = RoleClient::of(&system.nats.url(), "operator").await;
    let listed = asked(&operator, "$JS.API.STREAM.LIST", "{}").await;
    assert_eq!(listed["streams"].as_array().unwrap().len(), order_streams::ALL.len());
    let consumers = asked(&operator, "$JS.API.CONSUMER.LIST.ORDERS", "{}").await;
    let mut names = consumers["consumers"].as_array().unwrap().iter().map(|consumer| &consumer["name"]);
    assert!(names.any(|name| name == "inventory-worker"), "{consumers}");
    for what in ["INFO", "STREAM.NAMES", "CONSUMER.NAMES.ORDERS", "CONSUMER.INFO.ORDERS.inventory-worker"] {
        asked(&operator, &format!("$JS.API.{what}"), "{}").await;
    }
    assert_quiet(&system);
}

#[tokio::test]
async fn break_glass_pauses_edits_purges_and_removes_what_an_operator_restores() {
    let mut system = System::builder().roles().stock("lamp", 5).start().await;
    let order = system.order("lamp", 2).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    save(&role(&system, "operator").await, &folder.path().join("backup"), false).await.unwrap();
    let glass = RoleClient::of(&system.nats.url(), "breakglass").await;
    let consumer = "ORDERS.inventory-worker";
    let pause = format!("$JS.API.CONSUMER.PAUSE.{consumer}");
    let paused = asked(&glass, &pause, r#"{"pause_until":"2099-01-01T00:00:00Z"}"#).await;
    assert_eq!(paused["paused"], true);
    asked(&glass, &pause, "{}").await;
    let mut config = asked(&glass, "$JS.API.STREAM.INFO.DEAD_LETTERS", "").await["config"].clone();
    config["description"] = "edited".into();
    asked(&glass, "$JS.API.STREAM.UPDATE.DEAD_LETTERS", &config.to_string()).await;
    asked(&glass, "$JS.API.STREAM.PURGE.DEAD_LETTERS", "").await;
    while system.workers.pop().is_some() {}
    system.drain_gateway().await;
    asked(&glass, &format!("$JS.API.CONSUMER.DELETE.{consumer}"), "").await;
    for name in order_streams::ALL {
        asked(&glass, &format!("$JS.API.STREAM.DELETE.{name}"), "").await;
    }
    load(&role(&system, "operator").await, &folder.path().join("backup"), None).await.unwrap();
    system.add_worker().await;
    system.add_gateway().await;
    assert_eq!((system.get(&order.order_id).await.unwrap(), system.stock("lamp").await), (order, (5, 2)));
    assert_quiet(&system);
}

#[tokio::test]
async fn the_system_user_sees_the_servers_and_the_streams_of_all_accounts() {
    let system = System::builder().roles().start().await;
    let sys = RoleClient::of(&system.nats.url(), "system").await;
    assert!(asked(&sys, "$SYS.REQ.SERVER.PING", "").await["server"]["id"].is_string());
    let streams = asked(&sys, "$SYS.REQ.SERVER.PING.JSZ", r#"{"streams":true,"accounts":true}"#).await;
    assert!(streams.to_string().contains("OBJ_inventory-snapshots"), "{streams}");
    asked(&sys, "$SYS.REQ.SERVER.PING.CONNZ", "{}").await;
    assert_quiet(&system);
}

#[tokio::test]
async fn a_start_that_nats_does_not_permit_says_what_it_did_not_permit() {
    let mut system = System::builder().roles().gateways(0).unprovisioned().workers(0).start().await;
    system.gateway.provision = Provision::Auto;
    let why = |error: anyhow::Error| format!("{error:#}");
    let missing = Gateway::start(system.gateway.clone()).await.err().map(why).unwrap();
    assert!(
        missing.contains("$JS.API.STREAM.CREATE.ORDERS") && missing.contains("gateway provision"),
        "{missing}"
    );
    roles::provision(&system.nats.url()).await;
    system.gateway.nats.inbox_prefix = "_INBOX_worker".to_owned();
    let inbox = Gateway::start(system.gateway.clone()).await.err().map(why).unwrap();
    assert!(
        inbox.contains("subscribe to \"_INBOX_worker.") && inbox.contains("GW_NATS_INBOX_PREFIX"),
        "{inbox}"
    );
    system.worker.nats.connection = roles::options(&system.nats.url(), "operator");
    let other = inventory_worker::Worker::start(system.worker.clone()).await.err().map(why).unwrap();
    assert!(other.contains("NATS does not permit our user to") && other.contains("roles.conf"), "{other}");
}

#[test]
fn every_route_is_a_subject_of_those_who_send_and_answer_it() {
    let (gateway, worker) = (list("gateway", "publish", "allow"), list("worker", "subscribe", "allow"));
    let operator = list("operator", "publish", "allow");
    let catalog = orders::served::contract();
    for route in route::ALL {
        let vital = !catalog.route(route.path).unwrap().maintenance;
        assert_eq!(gateway.contains(&route.subject), vital, "gateway: {}", route.subject);
        assert!(vital || operator.contains(&route.subject), "operator: {}", route.subject);
        let group = format!("{} {}", route.subject, route.queue_group);
        assert!(worker.contains(&&*group), "worker: {group}");
    }
}

#[tokio::test]
async fn a_doctor_finds_nothing_as_the_gateway_and_as_an_operator_who_judges_no_permissions() {
    let system = System::builder().roles().stock("lamp", 1).start().await;
    for (name, as_operator) in [("gateway", false), ("operator", true)] {
        let nats = roles::options(&system.nats.url(), name);
        let config = Doctor { as_operator, nats, ..Doctor::at("", Default::default()) };
        let found = diagnose(config).await.unwrap();
        let unseen: Vec<_> = found.unseen.iter().map(|unseen| unseen.check).collect();
        assert!(found.findings.is_empty() && found.streams.len() == order_streams::ALL.len(), "{found:?}");
        assert_eq!(unseen, if as_operator { vec!["permissions"] } else { vec![] });
    }
    assert_quiet(&system);
    let nats = roles::options(&system.nats.url(), "operator");
    let other = diagnose(Doctor { nats, ..Doctor::at("", Default::default()) }).await.unwrap();
    assert!(other.findings.iter().any(|finding| finding.check == "permissions"), "{other:?}");
}

#[test]
fn what_a_doctor_knows_of_the_gateways_permissions_is_what_the_role_has() {
    let vital =
        route::ALL.iter().filter(|route| !orders::served::contract().route(route.path).unwrap().maintenance);
    // What it reads of a bucket with contracts.
    let bucket = [
        "$JS.API.STREAM.INFO.KV_contracts",
        "$JS.API.STREAM.MSG.GET.KV_contracts",
        "$JS.API.STREAM.MSG.GET.OBJ_contracts",
    ];
    let known = vital.map(|route| route.subject).chain(GENERAL).chain(ORDERS).chain(bucket);
    let mut known: Vec<&str> = known.collect();
    let mut has = list("gateway", "publish", "allow");
    known.sort_unstable();
    has.sort_unstable();
    assert_eq!(known, has);
}
