//! The procedures of docs/nodes.md with real servers while orders are placed: a server is added, replicas are moved to
//! it, a server is removed, and a lost one is replaced.

use nats::Connection;
use serde_json::{Value, json};

use crate::harness::cluster::until;
use crate::harness::deployment::{Deployment, ask};

async fn stream(link: &Connection, name: &str) -> Value {
    ask(link, &format!("$JS.API.STREAM.INFO.{name}"), &json!({})).await["cluster"].clone()
}

/// The servers with a replica. Empty while one of them is not current or offline, or there is no leader.
fn members(cluster: &Value) -> Vec<String> {
    let replicas = cluster["replicas"].as_array().cloned().unwrap_or_default();
    let whole = replicas.iter().all(|peer| peer["current"] == true && peer["offline"] != true);
    let names = replicas.iter().map(|peer| &peer["name"]).chain([&cluster["leader"]]);
    let names: Vec<_> = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
    if whole && names.len() == replicas.len() + 1 { names } else { Vec::new() }
}

/// Whether every stream has three current replicas, none of them on this server.
async fn are_off(link: &Connection, server: &str) -> bool {
    for name in order_streams::ALL {
        let members = members(&stream(link, name).await);
        if members.len() != 3 || members.iter().any(|member| member == server) {
            return false;
        }
    }
    true
}

/// `nats stream cluster peer-remove NAME SERVER`, for each stream that has a replica there, one after the other.
async fn move_off(link: &Connection, server: &str) {
    for name in order_streams::ALL {
        let body = json!({"peer": server});
        until("the stream has left the server", async || {
            let members = members(&stream(link, name).await);
            if members.len() == 3 && members.iter().all(|member| member != server) {
                return true;
            }
            let subject = format!("$JS.API.STREAM.PEER.REMOVE.{name}");
            if members.len() == 3 && ask(link, &subject, &body).await["success"] == true {
                let left = async || !self::members(&stream(link, name).await).iter().any(|one| one == server);
                until("it is no member", left).await;
            }
            false
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_added_and_another_is_taken_out_and_no_order_is_lost() {
    let mut deployment = Deployment::start().await;
    let orders = deployment.place_orders();
    deployment.add().await;
    let system = deployment.connect("breakglass_system").await;
    until("four servers are one cluster", async || cluster_size(&deployment).await == 4).await;
    let admin = deployment.connect("breakglass").await;
    move_off(&admin, "nats-0").await;
    until("no stream has a replica there", async || are_off(&admin, "nats-0").await).await;
    // SIGTERM: it hands over its leaderships.
    deployment.stop(0);
    until("it is known to be away", async || is_offline(&deployment, "nats-0").await).await;
    // The stopped server may have been the meta leader: then there is none for a moment.
    until("it is removed", async || {
        ask(&system, "$JS.API.SERVER.REMOVE", &json!({"peer": "nats-0"})).await["success"] == true
    })
    .await;
    until("three servers are one cluster", async || cluster_size(&deployment).await == 3).await;
    until("each stream has three replicas", async || are_off(&admin, "nats-0").await).await;
    deployment.audit(orders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_server_is_replaced_by_one_of_its_name_with_an_empty_disk() {
    let mut deployment = Deployment::start().await;
    let orders = deployment.place_orders();
    let link = deployment.connect("breakglass").await;
    until("each stream has three replicas", async || are_off(&link, "nobody").await).await;
    deployment.replace(1).await;
    until("each stream has three replicas again", async || {
        let mut whole = true;
        for name in order_streams::ALL {
            whole &= members(&stream(&link, name).await).iter().any(|member| member == "nats-1");
        }
        whole && deployment.server(1).is_healthy()
    })
    .await;
    deployment.audit(orders).await;
}

/// The meta leader's view of the cluster.
async fn meta(deployment: &Deployment) -> Value {
    for number in 0..deployment.servers.len() {
        if deployment.servers[number].is_some() {
            let meta = deployment.monitor(number, "/jsz").await["meta_cluster"].clone();
            // Only the meta leader knows all of them.
            if meta["leader"] == format!("nats-{number}") {
                return meta;
            }
        }
    }
    Value::Null
}

async fn cluster_size(deployment: &Deployment) -> usize {
    let meta = meta(deployment).await;
    let replicas = meta["replicas"].as_array().cloned().unwrap_or_default();
    let here = replicas.iter().filter(|peer| peer["current"] == true && peer["offline"] != true).count();
    if meta["cluster_size"] == here + 1 { here + 1 } else { 0 }
}

async fn is_offline(deployment: &Deployment, server: &str) -> bool {
    let replicas = meta(deployment).await["replicas"].as_array().cloned().unwrap_or_default();
    replicas.iter().any(|peer| peer["name"] == server && peer["offline"] == true)
}
