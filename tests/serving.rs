//! Health tells whether calls can be served now, and why not. Calls that cannot be served fail at once.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use inventory_worker::config::Serve;
use order_streams::ORDERS;
use tokio::time::Instant;
use uuid::Uuid;

use crate::expiry::reserve;
use crate::harness::cluster::{Cluster, until};
use crate::harness::http::answer;
use crate::harness::system::{self, System, new_order, reason};

/// A caller's deadline. A failure long before it came without waiting.
const TIME: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_down_is_not_serving_and_calls_end_long_before_their_time() {
    let mut cluster = Cluster::start().await;
    for node in [1, 2] {
        cluster.nats.node_mut(node).kill();
    }
    until("health says so", async || cluster.gateway.up("") == Some(false)).await;
    let why = |page: &str| page.contains("storage_unavailable") || page.contains("nats_disconnected");
    until("/healthz says why", async || why(&answer(cluster.gateway.http_addr(), "/healthz").await)).await;
    let mut refused = String::new();
    until("orders are refused at once", async || {
        let asked = Instant::now();
        refused = cluster.order(TIME).await.map_or_else(|status| reason(&status), |_| "none".to_owned());
        refused == "STORAGE_UNAVAILABLE" && asked.elapsed() < TIME / 10
    })
    .await;
    for node in [1, 2] {
        cluster.nats.node_mut(node).restart().unwrap();
    }
    until("health is well again", async || cluster.gateway.up("") == Some(true)).await;
    until("orders are placed again", async || cluster.order(TIME).await.is_ok()).await;
}

#[tokio::test]
async fn storage_that_is_full_is_not_serving_until_there_is_room() {
    let system =
        System::builder().stock("lamp", 10).nats_config("jetstream { max_file: 8MiB }").start().await;
    let filler = filler(&system).await;
    system::until("an order finds no room", async || {
        system.order("lamp", 1).await.is_err_and(|status| reason(&status) == "STORAGE_FULL")
    })
    .await;
    system::until("health says so", async || system.gateways[0].up("") == Some(false)).await;
    let page = answer(system.workers[0].http().await, "/healthz").await;
    assert!(page.contains("503") && page.contains("storage_full: the stream INVENTORY"), "{page}");
    let page = answer(system.gateways[0].http_addr(), "/metrics").await;
    assert!(page.contains(r#"gateway_not_ready{reason="service_unable"} 1"#), "{page}");
    filler.delete_stream("FILLER").await.unwrap();
    system::until("an order finds room", async || system.order("lamp", 1).await.is_ok()).await;
    system::until("health is well again", async || system.gateways[0].up("") == Some(true)).await;
}

#[tokio::test]
async fn a_record_that_is_full_is_no_trouble_of_workers_who_tried_to_write_to_it() {
    let often = |worker: &mut Serve| worker.expiry_interval = Duration::from_millis(50);
    let system = System::builder().stock("lamp", 10).each_worker(often).start().await;
    system.order("lamp", 1).await.unwrap();
    limit(&system, |bytes| bytes + 1).await;
    // It expires without an order, which needs a tombstone, for which there is no room.
    reserve(&system, Uuid::new_v4(), "lamp", 1).await;
    let worker = system.workers[0].http().await;
    let full = r#"jetstream_stream_full{stream="ORDERS"} 1"#;
    system::until("a worker knows", async || answer(worker, "/metrics").await.contains(full)).await;
    assert_eq!(reason(&system.order("lamp", 1).await.unwrap_err()), "STORAGE_FULL");
    let gateway = system.gateways[0].http_addr();
    let why = r#"gateway_not_ready{reason="storage_full"} 1"#;
    system::until("health says so", async || answer(gateway, "/metrics").await.contains(why)).await;
    let page = answer(worker, "/healthz").await;
    assert!(page.contains("200 OK"), "{page}");
    limit(&system, |_| -1).await;
    system::until("an order finds room", async || system.order("lamp", 1).await.is_ok()).await;
    system::until("health is well again", async || system.gateways[0].up("") == Some(true)).await;
}

/// Sets `max_bytes` of ORDERS, computed from the bytes that it has.
async fn limit(system: &System, bytes: impl FnOnce(i64) -> i64) {
    let context = async_nats::jetstream::new(system.nats().await);
    let info = context.get_stream(ORDERS).await.unwrap().get_info().await.unwrap();
    let max_bytes = bytes(info.state.bytes.try_into().unwrap());
    context.update_stream(Config { max_bytes, ..info.config }).await.unwrap();
}

/// Fills the server's storage.
async fn filler(system: &System) -> async_nats::jetstream::Context {
    let context = async_nats::jetstream::new(system.nats().await);
    let config =
        Config { name: "FILLER".to_owned(), subjects: vec!["filler".to_owned()], ..Default::default() };
    context.create_stream(config).await.unwrap();
    for size in [512 << 10, 16 << 10, 64] {
        while context.publish("filler", vec![0; size].into()).await.unwrap().await.is_ok() {}
    }
    context
}

#[tokio::test]
async fn a_gateway_without_workers_is_not_serving() {
    let mut system = System::builder().workers(0).start().await;
    let address = system.gateways[0].http_addr();
    system::until("health says what is missing", async || {
        let page = answer(address, "/healthz").await;
        page.contains("503") && page.contains("no_responders") && page.contains("check_inventory")
    })
    .await;
    assert_eq!(system.gateways[0].up(""), Some(false));
    assert!(answer(address, "/livez").await.contains("200"), "its own life is another matter");
    system.add_worker().await;
    system::until("health is well", async || system.gateways[0].up("") == Some(true)).await;
    assert!(answer(address, "/healthz").await.contains(r#""findings":[]"#));
}

#[tokio::test]
async fn a_nats_server_that_is_frozen_is_not_serving() {
    let system = System::builder().stock("lamp", 10).start().await;
    system.nats.pause();
    system::until("the gateway says so", async || system.gateways[0].up("") == Some(false)).await;
    let worker = system.workers[0].http().await;
    system::until("the worker says so", async || answer(worker, "/healthz").await.contains("503")).await;
    system.nats.resume();
    system::until("all is well", async || system.gateways[0].up("") == Some(true)).await;
    system::until("orders are placed", async || system.place(&new_order("lamp", 1)).await.is_ok()).await;
}
