//! Three nats-servers with three replicas: what clients were told stays true on every replica, whatever happens to a
//! leader or the quorum.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nats::backup::BackupError;
use order_streams::{INVENTORY, ORDERS};
use orders::backup::save;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::harness::cluster::{Clients, Cluster, until};
use crate::harness::roles;

/// How long writes may fail after a fault: one or two elections of 4 to 9 s. `loadtest soak` demands 15 s; this holds on
/// a machine that is three times slower.
const BACK: Duration = Duration::from_secs(45);
/// JetStream's error code for a consumer that does not exist.
const NO_CONSUMER: u64 = 10014;
/// How long a fault lasts that the test ends itself.
const FAULT: Duration = Duration::from_secs(10);

/// Asserts that no order was acknowledged for at most this long.
#[track_caller]
fn assert_gap(clients: &Clients, most: Duration) {
    let gap = clients.longest_gap();
    assert!(gap < most, "no order was acknowledged for {gap:?}");
}

/// Asserts that calls failed no longer after a fault than an election takes.
#[track_caller]
fn assert_recovered(clients: &Clients, fault: Instant) {
    let failed = clients.failed_until(fault);
    assert!(failed < BACK, "calls failed until {failed:?} after the fault");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_orders_outlive_the_kill_of_each_leader() {
    let mut cluster = Cluster::start().await;
    let clients = cluster.clients(12);
    for stream in [ORDERS, INVENTORY] {
        clients.place_more(20).await;
        let leader = cluster.leader(stream).await;
        let fault = Instant::now();
        cluster.nats.node_mut(leader).kill();
        let election = cluster.elected(stream, leader).await;
        assert!(election < BACK, "{stream} had a new leader after {election:?}");
        clients.place_more(200).await;
        assert_recovered(&clients, fault);
        cluster.nats.node_mut(leader).restart().unwrap();
        until("the cluster is whole", async || cluster.nats.is_healthy()).await;
    }
    assert_gap(&clients, BACK);
    cluster.audit(clients, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_orders_outlive_the_stop_of_a_leader() {
    let mut cluster = Cluster::start().await;
    let clients = cluster.clients(12);
    clients.place_more(20).await;
    let leader = cluster.leader(ORDERS).await;
    let fault = Instant::now();
    cluster.nats.node_mut(leader).stop();
    clients.place_more(200).await;
    assert_recovered(&clients, fault);
    cluster.nats.node_mut(leader).restart().unwrap();
    until("the cluster is whole", async || cluster.nats.is_healthy()).await;
    assert_gap(&clients, BACK);
    cluster.audit(clients, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_without_quorum_make_no_answer_untrue() {
    let cluster = Cluster::start().await;
    let clients = cluster.clients(12);
    clients.place_more(20).await;
    let leader = cluster.leader(ORDERS).await;
    let silent = [leader, (leader + 1) % 3].map(|node| &cluster.nats.nodes()[node]);
    silent.iter().for_each(|node| node.pause());
    // The fault lasts this long.
    sleep(FAULT).await;
    silent.iter().for_each(|node| node.resume());
    clients.place_more(20).await;
    until("the cluster is whole", async || cluster.nats.is_healthy()).await;
    assert_gap(&clients, FAULT + BACK);
    cluster.audit(clients, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_that_change_all_the_time_lose_and_double_nothing() {
    let cluster = Cluster::start().await;
    let clients = cluster.clients(12);
    let end = Instant::now() + FAULT;
    let mut changes = 0;
    while Instant::now() < end {
        for stream in [ORDERS, INVENTORY] {
            changes += usize::from(cluster.step_down(stream, None).await);
        }
        // The pace of the changes.
        sleep(Duration::from_millis(300)).await;
    }
    clients.place_more(20).await;
    assert_gap(&clients, FAULT + BACK);
    assert!(changes > 4, "{changes}");
    cluster.audit(clients, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_lost_for_good_is_not_missed() {
    let mut cluster = Cluster::start().await;
    let clients = cluster.clients(12);
    clients.place_more(20).await;
    let lost = cluster.leader(INVENTORY).await;
    cluster.nats.node_mut(lost).kill();
    clients.place_more(200).await;
    cluster.audit(clients, &[(lost + 1) % 3, (lost + 2) % 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_frozen_and_comes_back_makes_no_answer_untrue() {
    let cluster = Cluster::start().await;
    let clients = cluster.clients(12);
    clients.place_more(20).await;
    let leader = cluster.leader(ORDERS).await;
    let fault = Instant::now();
    cluster.nats.nodes()[leader].pause();
    clients.place_more(200).await;
    assert_recovered(&clients, fault);
    cluster.nats.nodes()[leader].resume();
    until("the cluster is whole", async || cluster.nats.is_healthy()).await;
    assert_gap(&clients, BACK);
    cluster.audit(clients, &[0, 1, 2]).await;
}

#[test]
fn the_shipped_configurations_are_accepted() {
    let binary = local_nats::find().unwrap().path;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join("nats");
    let passwords = roles::ALL.map(|role| (format!("NATS_{}_PASSWORD", role.to_uppercase()), "a-secret"));
    for file in ["nats.conf", "cluster.conf"].map(|name| folder.join(name)) {
        let mut check = Command::new(&binary);
        check.arg("-t").arg("-c").arg(&file).env("NATS_NAME", "nats-0");
        let said = check.envs(passwords.clone()).output().unwrap();
        assert!(said.status.success(), "{}: {said:?}", file.display());
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("sync_interval: always"));
        let pings = ["ping_interval: \"2s\"", "ping_max: 2"].iter().all(|line| text.contains(line));
        assert!(pings || !text.contains("cluster {"), "{}: a frozen node is noticed late", file.display());
    }
}

/// Creates a consumer of ORDERS with one replica, as a reader's, and returns its node.
async fn reader(cluster: &Cluster, name: &str) -> usize {
    let config = json!({"name": name, "ack_policy": "none", "num_replicas": 1, "mem_storage": true});
    let body = json!({"stream_name": ORDERS, "config": config});
    let made = cluster.ask(&format!("$JS.API.CONSUMER.CREATE.{ORDERS}.{name}"), &body).await;
    let node = made["cluster"]["leader"].as_str().and_then(|leader| cluster.nats.named(leader));
    node.unwrap_or_else(|| panic!("{made}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_names_a_reader_whose_node_is_down_until_it_is_removed() {
    let mut cluster = Cluster::start().await;
    let name = "0123456789abcdef0123456789abcdef";
    let down = reader(&cluster, name).await;
    cluster.nats.node_mut(down).kill();
    let leads = async || cluster.leader(ORDERS).await != down && cluster.leader(INVENTORY).await != down;
    until("the streams have other leaders", leads).await;
    // Consumers of the gateway may be on that node as well, and be named first.
    let mut found = None;
    until("a consumer is missing", async || {
        found = missing_reader(&cluster).await;
        found.is_some()
    })
    .await;
    let (named, said) = found.expect("a consumer is missing");
    assert!(said.contains(&format!("`nats consumer rm ORDERS {named} -f`")), "{said}");
    let subject = format!("$JS.API.CONSUMER.DELETE.{ORDERS}.{named}");
    until("it is removed", async || {
        let removed = cluster.ask(&subject, &json!({})).await;
        removed["success"] == true || removed["error"]["err_code"] == NO_CONSUMER
    })
    .await;
    let again = missing_reader(&cluster).await;
    assert!(again.as_ref().is_none_or(|(next, _)| *next != named), "{again:?}");
}

/// Makes a backup, and returns the consumer whose absence prevents it, if one does, with the error.
async fn missing_reader(cluster: &Cluster) -> Option<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let error = save(&cluster.connection, folder.path(), false).await.err()?;
    // Another stream may still be electing its leader.
    match error.chain().find_map(|cause| cause.downcast_ref()) {
        Some(BackupError::ConsumerDown(name)) => Some((name.clone(), error.to_string())),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_backup_and_the_check_at_start_say_so() {
    let mut cluster = Cluster::start().await;
    let left = cluster.leader(ORDERS).await;
    for node in [(left + 1) % 3, (left + 2) % 3] {
        cluster.nats.node_mut(node).kill();
    }
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    until("the servers have noticed", async || {
        said = match order_streams::open(&cluster.connection, 3, false).await {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        said.contains("temporarily unavailable")
    })
    .await;
    assert!(said.contains("no leader or no quorum") && !said.contains("is it enabled"), "{said}");
    let mut error = String::new();
    // A leader that is alone steps down after some seconds only.
    let copy = until("a stream has no leader", async || {
        let saved = save(&cluster.connection, folder.path(), true).await;
        error = saved.err().map(|error| format!("{error:#}")).unwrap_or_default();
        error.contains("no leader or no quorum")
    });
    copy.await;
    assert!(
        order_streams::ALL.iter().any(|stream| error.contains(&format!("cannot copy {stream}"))),
        "{error}"
    );
}
