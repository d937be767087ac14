//! Three nats-servers with three replicas: what customers were told stays true on every replica, whatever happens to a
//! leader or the quorum.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use order_streams::{INVENTORY, ORDERS};
use tokio::time::{Instant, sleep};

use crate::cast;
use crate::plant::{Plant, until};

/// Writes succeed again after one or two elections of 4 to 9 s. `loadtest soak` demands 15 s; tests on a busy machine
/// do not.
const BACK: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_orders_outlive_the_kill_of_each_leader() {
    let mut plant = Plant::open().await;
    let customers = plant.customers(12);
    for stream in [ORDERS, INVENTORY] {
        customers.buy_more(20).await;
        let leader = plant.leader(stream).await;
        let fault = Instant::now();
        plant.cluster.node_mut(leader).kill();
        println!("{stream} had a new leader after {:?}", plant.elected(stream, leader).await);
        customers.buy_more(200).await;
        println!("calls failed until {:?} after the kill", customers.failed_until(fault));
        plant.cluster.node_mut(leader).restart().unwrap();
        until("the cluster is whole", async || plant.cluster.is_healthy()).await;
    }
    let gap = customers.longest_gap();
    println!("the longest gap was {gap:?}");
    assert!(gap < BACK, "{gap:?}");
    plant.audit(customers, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_orders_outlive_the_stop_of_a_leader() {
    let mut plant = Plant::open().await;
    let customers = plant.customers(12);
    customers.buy_more(20).await;
    let leader = plant.leader(ORDERS).await;
    let fault = Instant::now();
    plant.cluster.node_mut(leader).stop();
    customers.buy_more(200).await;
    println!("calls failed until {:?} after the stop", customers.failed_until(fault));
    plant.cluster.node_mut(leader).restart().unwrap();
    until("the cluster is whole", async || plant.cluster.is_healthy()).await;
    println!("the longest gap was {:?}", customers.longest_gap());
    plant.audit(customers, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_without_quorum_make_no_answer_untrue() {
    let plant = Plant::open().await;
    let customers = plant.customers(12);
    customers.buy_more(20).await;
    let leader = plant.leader(ORDERS).await;
    let silent = [leader, (leader + 1) % 3].map(|node| &plant.cluster.nodes()[node]);
    silent.iter().for_each(|node| node.pause());
    sleep(Duration::from_secs(10)).await;
    silent.iter().for_each(|node| node.resume());
    customers.buy_more(20).await;
    until("the cluster is whole", async || plant.cluster.is_healthy()).await;
    println!("the longest gap was {:?}", customers.longest_gap());
    plant.audit(customers, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_that_change_all_the_time_lose_and_double_nothing() {
    let plant = Plant::open().await;
    let customers = plant.customers(12);
    let end = Instant::now() + Duration::from_secs(10);
    let mut changes = 0;
    while Instant::now() < end {
        for stream in [ORDERS, INVENTORY] {
            changes += usize::from(plant.step_down(stream, None).await);
        }
        sleep(Duration::from_millis(300)).await;
    }
    customers.buy_more(20).await;
    println!("{changes} changes, the longest gap was {:?}", customers.longest_gap());
    assert!(changes > 4, "{changes}");
    plant.audit(customers, &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_lost_for_good_is_not_missed() {
    let mut plant = Plant::open().await;
    let customers = plant.customers(12);
    customers.buy_more(20).await;
    let lost = plant.leader(INVENTORY).await;
    plant.cluster.node_mut(lost).kill();
    customers.buy_more(200).await;
    plant.audit(customers, &[(lost + 1) % 3, (lost + 2) % 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_frozen_and_comes_back_makes_no_answer_untrue() {
    let plant = Plant::open().await;
    let customers = plant.customers(12);
    customers.buy_more(20).await;
    let leader = plant.leader(ORDERS).await;
    let fault = Instant::now();
    plant.cluster.nodes()[leader].pause();
    customers.buy_more(200).await;
    println!("calls failed until {:?} after the node froze", customers.failed_until(fault));
    plant.cluster.nodes()[leader].resume();
    until("the cluster is whole", async || plant.cluster.is_healthy()).await;
    println!("the longest gap was {:?}", customers.longest_gap());
    plant.audit(customers, &[0, 1, 2]).await;
}

#[test]
fn the_shipped_configurations_are_accepted() {
    let binary = local_nats::find().unwrap().path;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join("nats");
    let passwords = cast::ALL.map(|role| (format!("NATS_{}_PASSWORD", role.to_uppercase()), "a-secret"));
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
