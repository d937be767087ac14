//! One of three nats-servers freezes: the one that a worker is connected to for requests. Callers with deadlines of 3 s
//! are hardly affected, although the other servers route requests to it until they drop it.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::inventory::v1::Item;
use contract::orders::v1::CreateOrderRequest;
use contract::orders::v1::order_service_client::OrderServiceClient;
use order_streams::{INVENTORY, ORDERS};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Status};

use crate::harness::cluster::{Cluster, until};
use crate::harness::system::reason;

/// Interval of calls. A debug build on a machine that runs all tests cannot do more.
const EVERY: Duration = Duration::from_millis(40);
const DEADLINE: Duration = Duration::from_secs(3);
/// Time before the fault, and its duration.
const CALM: Duration = Duration::from_secs(3);
const FROZEN: Duration = Duration::from_secs(16);
/// The share of calls that may fail meanwhile. On a quiet machine less than 5 % fail; without hedged requests and with
/// the server's default pings, a third.
const FAILED: f64 = 0.15;

/// Half of the calls end sooner, in seconds: those that a quorum and a reachable worker serve.
const USUAL: f64 = 1.5;

/// When a call was sent and when it ended, in seconds since the node froze, and its result.
type Call = (f64, f64, Result<(), Status>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_go_on_while_the_node_of_a_workers_requests_is_frozen() {
    let mut cluster = Cluster::start().await;
    let node = worker(&mut cluster).await;
    freeze(&cluster, node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_go_on_while_the_node_of_the_gateway_is_frozen() {
    let cluster = Cluster::start().await;
    let node = cluster.nodes_of("gateway 0").await[0];
    lead(&cluster, (node + 1) % 3).await;
    freeze(&cluster, node).await;
}

/// Freezes a node under load, and asserts that few calls fail until it thaws.
async fn freeze(cluster: &Cluster, node: usize) {
    let freeze = Instant::now() + CALM;
    let calls = tokio::spawn(load(cluster.orders(), freeze));
    sleep_until(freeze).await;
    cluster.nats.nodes()[node].pause();
    sleep_until(freeze + FROZEN).await;
    cluster.nats.nodes()[node].resume();
    let calls = calls.await.unwrap();
    until("the cluster is whole", async || cluster.nats.is_healthy()).await;
    let (share, median, report) = summary(&calls);
    assert!(share < FAILED, "{report}");
    assert!(median < USUAL, "{report}");
}

/// A node that one of two workers is connected to for requests and that leads no stream. The other worker and the
/// gateway are connected to one other node each.
async fn worker(cluster: &mut Cluster) -> usize {
    loop {
        let gateway = cluster.nodes_of("gateway 0").await[0];
        let workers = cluster.nodes_of("inventory-worker requests").await;
        if let [one, other] = workers[..]
            && one != other
            && ![one, other].contains(&gateway)
        {
            lead(cluster, gateway).await;
            return one;
        }
        cluster.workers.remove(0).drain().await;
        cluster.add_worker().await;
    }
}

/// Makes this node the leader of both streams: an election, which stops all writes for 4 to 9 s, would be another
/// fault.
async fn lead(cluster: &Cluster, node: usize) {
    for stream in [ORDERS, INVENTORY] {
        cluster.make_leader(stream, node).await;
    }
}

/// Places orders in an open loop until the node thaws.
async fn load(client: OrderServiceClient<tonic::transport::Channel>, freeze: Instant) -> Vec<Call> {
    let (mut calls, mut next) = (JoinSet::new(), Instant::now());
    while next < freeze + FROZEN - DEADLINE {
        sleep_until(next).await;
        let mut client = client.clone();
        calls.spawn(async move {
            let items = vec![Item { product_id: "lamp".to_owned(), quantity: 1 }];
            let (request_id, customer_id) = (String::new(), "ann".to_owned());
            let mut request = Request::new(CreateOrderRequest { request_id, customer_id, items });
            request.set_timeout(DEADLINE);
            let since = |at: Instant| at.duration_since(freeze).as_secs_f64() - (freeze - at).as_secs_f64();
            let sent = since(Instant::now());
            let result = client.create_order(request).await.map(drop);
            (sent, since(Instant::now()), result)
        });
        next += EVERY;
    }
    calls.join_all().await
}

/// The share of the calls that failed since the node froze, their median time in seconds, and how and when calls failed.
fn summary(calls: &[Call]) -> (f64, f64, String) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let failed: Vec<&Call> = calls.iter().filter(|(_, _, result)| result.is_err()).collect();
    for (_, ended, result) in &failed {
        let status = result.as_ref().unwrap_err();
        *kinds.entry(format!("{:02.0} s {:?} {}", ended, status.code(), reason(status))).or_default() += 1;
    }
    let meanwhile = |(_, ended, _): &&Call| *ended > 0.0;
    let share = failed.len() as f64 / calls.iter().filter(meanwhile).count() as f64;
    let first = failed.iter().map(|(_, ended, _)| *ended).fold(f64::INFINITY, f64::min);
    let last = failed.iter().map(|(_, ended, _)| *ended).fold(f64::NEG_INFINITY, f64::max);
    let mut times: Vec<f64> =
        calls.iter().filter(|call| meanwhile(call)).map(|(sent, ended, _)| ended - sent).collect();
    times.sort_unstable_by(f64::total_cmp);
    let at = |part: usize| times[times.len() * part / 100];
    let report = format!(
        "{} calls, {} failed ({:.1} %) from {first:.1} to {last:.1} s: {kinds:#?}; p50 {:.3} s, p95 {:.3} s, p99 {:.3} s",
        calls.len(),
        failed.len(),
        share * 100.0,
        at(50),
        at(95),
        at(99),
    );
    (share, at(50), report)
}
