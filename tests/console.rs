//! The console shows the true state: rates of the last minutes, instances that are gone, and what is unknown.

use serde_json::Value;

use crate::harness::cluster::{self, Cluster};
use crate::harness::http::get;
use crate::harness::system::{System, assert_refused, until};

/// The JSON behind a gateway's console.
pub async fn figures(system: &System, gateway: usize) -> Value {
    let address = system.gateways[gateway].http_addr();
    serde_json::from_str(&get(address, "/console.json").await).unwrap()
}

/// The entry of a list with this value of a field.
pub fn entry<'a>(list: &'a Value, name: &str, value: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|entry| entry[name] == value).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn who_opens_the_console_now_sees_the_last_minute_of_calls_and_failures() {
    let mut system = System::builder().stock("lamp", 50).start().await;
    for _ in 0..10 {
        system.order("lamp", 1).await.unwrap();
    }
    assert_refused(system.order("lamp", 99).await, "INSUFFICIENT_STOCK");
    system.workers.remove(0).kill();
    system.check("lamp").await.unwrap_err();
    // This is the first request of the JSON.
    let told = async |name: &str| {
        let told = figures(&system, 0).await;
        entry(&told["methods"], "name", &format!("orders.v1.OrderService/{name}")).clone()
    };
    // A call is counted once its response was read to the end, and a rate takes a second.
    until("it has all calls", async || {
        let (create, check) = (told("CreateOrder").await, told("CheckInventory").await);
        check["minute"]["calls"] == 1.0 && create["minute"]["calls"] == 11.0 && create["rate"].is_number()
    })
    .await;
    let (create, check) = (told("CreateOrder").await, told("CheckInventory").await);
    assert_eq!((&create["minute"]["calls"], &create["minute"]["refused"]), (&11.0.into(), &1.0.into()));
    assert_eq!((&create["minute"]["failed"], &check["minute"]["failed"]), (&0.0.into(), &1.0.into()));
    assert_eq!(check["minute"]["reasons"][0]["reason"], "NO_RESPONDERS");
    assert!(create["rate"].as_f64().unwrap() > 0.1 && create["p99_ms"].as_f64().unwrap() > 0.0, "{create}");
    let history = figures(&system, 0).await["history"].clone();
    assert!(history.as_array().unwrap().iter().any(|at| at["calls"].as_f64() > Some(0.5)), "{history}");
}

#[tokio::test]
async fn a_killed_worker_is_shown_as_gone_and_one_that_comes_makes_up_for_it() {
    let mut system = System::builder().workers(2).start().await;
    let workers = async |system: &System, state: &str| {
        let workers = figures(system, 0).await["workers"].clone();
        workers.as_array().unwrap().iter().filter(|worker| worker["state"] == state).count()
    };
    until("both answer", async || workers(&system, "answers").await == 2).await;
    system.workers.remove(0).kill();
    until("one is gone", async || workers(&system, "gone").await == 1).await;
    let told = figures(&system, 0).await;
    assert_eq!(
        (workers(&system, "answers").await, told["missing"][0]["count"].as_u64()),
        (1, Some(1)),
        "{told}"
    );
    system.add_worker().await;
    until("nobody is missing", async || figures(&system, 0).await["missing"] == serde_json::json!([])).await;
    assert_eq!((workers(&system, "answers").await, workers(&system, "gone").await), (2, 1));
}

#[tokio::test]
async fn while_nats_is_away_nothing_is_said_to_be_well() {
    let mut system = System::builder().start().await;
    let all = async || figures(&system, 0).await["polled"] == true;
    until("all is known", all).await;
    system.nats.kill();
    let stale = async || {
        let told = figures(&system, 0).await;
        let streams = told["streams"].as_array().unwrap();
        told["looked_ms"].as_u64() > told["stale_ms"].as_u64()
            && streams.iter().all(|it| it["trouble"] == "not known")
    };
    until("what it knows is old", stale).await;
    let told = figures(&system, 0).await;
    assert_eq!((told["polled"].as_bool(), &told["status"]), (Some(false), &"NOT_SERVING".into()));
    assert_eq!((&told["workers"][0]["state"], &told["routes"][0]["up"]), (&"unknown".into(), &Value::Null));
    // Earlier values are shown with their age.
    assert!(told["streams"][0]["read_ms"].as_u64() > told["stale_ms"].as_u64(), "{told}");
    assert_eq!((&told["streams"][0]["rate"], &told["consumers"]), (&Value::Null, &serde_json::json!([])));
}

#[tokio::test]
async fn two_gateways_see_each_other_and_the_one_that_is_killed_is_shown_as_gone() {
    let mut system = System::builder().gateways(2).roles().start().await;
    let states = async |system: &System| {
        let told = figures(system, 0).await["gateways"].clone();
        let state =
            |it: &Value| format!("{} {}", it["state"].as_str().unwrap(), it["status"].as_str().unwrap());
        let mut states: Vec<_> = told.as_array().unwrap().iter().map(state).collect();
        states.sort();
        states
    };
    until("both are seen", async || states(&system).await == ["answers SERVING", "answers SERVING"]).await;
    let told = figures(&system, 0).await;
    let this = told["gateways"].as_array().unwrap().iter().find(|it| it["this"] == true).unwrap();
    let address = system.gateways[0].grpc_addr().to_string();
    assert_eq!((&this["grpc"], &told["gateway"]["grpc"]), (&address.clone().into(), &address.into()));
    assert_eq!((&this["commit"], &this["id"]), (&told["gateway"]["commit"], &told["gateway"]["id"]));
    assert!(this["started_ms"].as_u64() > Some(1_700_000_000_000), "{this}");
    // The console does not count gateways as workers.
    assert_eq!(told["workers"].as_array().unwrap().len(), 1);
    drop(system.gateways.remove(1));
    until("one is gone", async || states(&system).await == ["answers SERVING", "gone SERVING"]).await;
    let log = std::fs::read_to_string(system.nats.log()).unwrap();
    assert!(!log.contains("Violation"), "{log}");
}

#[tokio::test]
async fn the_servers_room_is_told_where_the_monitoring_is_known_and_a_frozen_server_is_named() {
    let other = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
    let mut system = System::builder().gateways(0).start().await;
    let urls = format!("{},{}", system.nats.monitor_url(), other.monitor_url());
    system.gateway.nats.nats_monitor_url = Some(urls);
    system.add_gateway().await;
    let nodes = async || figures(&system, 0).await["nodes"].clone();
    let roomy = |node: &&Value| node["state"] == "up" && node["storage"]["max"].as_u64() > Some(1_000_000);
    until("both have room", async || nodes().await.as_array().unwrap().iter().filter(roomy).count() == 2)
        .await;
    let leads = |node: &&Value| node["leads"].as_array().unwrap().len() == 4;
    until("that of our streams leads them all", async || {
        nodes().await.as_array().unwrap().iter().any(|it| leads(&it))
    })
    .await;
    let all = nodes().await;
    let others: Vec<&Value> = all.as_array().unwrap().iter().filter(|node| !leads(node)).collect();
    assert_eq!(others.len(), 1, "{all}");
    let other_is = async |state: &str| {
        entry(&nodes().await, "name", others[0]["name"].as_str().unwrap())["state"] == state
    };
    other.pause();
    until("it is frozen", async || other_is("frozen").await).await;
    other.resume();
    until("it is up", async || other_is("up").await).await;
}

#[tokio::test]
async fn a_node_that_is_gone_and_a_stream_without_a_leader_are_named() {
    let mut cluster = Cluster::start().await;
    let address = cluster.gateway.http_addr();
    let told = async || -> Value { serde_json::from_str(&get(address, "/console.json").await).unwrap() };
    let leader = cluster.leader("ORDERS").await;
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let node = async |node: usize| entry(&told().await["nodes"], "name", &format!("node{node}")).clone();
    cluster::until("all nodes are up", async || {
        let told = told().await;
        told["nodes"].as_array().unwrap().iter().filter(|it| it["state"] == "up").count() == 3
    })
    .await;
    assert!(node(leader).await["leads"].as_array().unwrap().contains(&"ORDERS".into()));
    cluster.nats.node_mut(one).kill();
    let lost =
        async || ["gone", "not heard"].contains(&node(one).await["state"].as_str().unwrap_or_default());
    cluster::until("one is missed", lost).await;
    cluster.nats.node_mut(other).kill();
    let orders = async || entry(&told().await["streams"], "name", "ORDERS").clone();
    cluster::until("there is no leader", async || orders().await["trouble"] == "no leader").await;
    let told = told().await;
    assert_eq!((&orders().await["rate"], &told["status"]), (&Value::Null, &"NOT_SERVING".into()));
    assert_eq!(told["findings"][0]["reason"], "storage_unavailable", "as the health says it");
}
