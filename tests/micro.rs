//! What `nats micro` reads from the workers: PING, INFO and STATS of ADR-32, requested as that command does.

use serde_json::{Value, json};

use crate::harness::system::{PATIENCE, System, new_order, until};

/// The reply of the only worker.
async fn asked(system: &System, subject: &str) -> Value {
    let nats = system.nats().await;
    let answer = tokio::time::timeout(PATIENCE, nats.request(subject.to_owned(), "".into()));
    serde_json::from_slice(&answer.await.expect("an answer in time").unwrap().payload).unwrap()
}

/// The statistics of one endpoint.
async fn endpoint(system: &System, name: &str) -> Value {
    let stats = asked(system, "$SRV.STATS.inventory").await;
    let endpoints = stats["endpoints"].as_array().unwrap();
    endpoints.iter().find(|endpoint| endpoint["name"] == name).unwrap().clone()
}

#[tokio::test]
async fn statistics_count_requests_and_refusals_of_each_endpoint() {
    let system = System::builder().stock("lamp", 3).start().await;
    let nats = system.nats().await;
    let before = endpoint(&system, "check_inventory").await["num_requests"].as_u64().unwrap();
    for _ in 0..3 {
        assert!(system.check("lamp").await.unwrap());
    }
    nats.request("check_inventory", r#"[{"productId":"","quantity":0}]"#.into()).await.unwrap();
    // A request is counted before its reply is sent.
    let check = endpoint(&system, "check_inventory").await;
    assert_eq!((check["num_requests"].as_u64(), check["num_errors"].as_u64()), (Some(before + 4), Some(1)));
    let last = check["last_error"].as_str().unwrap();
    assert!(last.starts_with("400:") && last.len() > 8, "{last:?}");
    let (total, average) = (check["processing_time"].as_u64(), check["average_processing_time"].as_u64());
    assert!(total.unwrap() > 0 && average.unwrap() == total.unwrap() / (before + 4), "{check}");
    let other = endpoint(&system, "get_stock").await;
    assert_eq!((&other["num_errors"], &other["last_error"]), (&json!(0), &json!("")));
}

#[tokio::test]
async fn a_refused_reservation_is_an_error_of_its_endpoint_with_its_text() {
    let system = System::builder().stock("lamp", 3).start().await;
    system.place(&new_order("lamp", 9).id("too-much")).await.unwrap_err();
    let refused = async || endpoint(&system, "reserve_inventory").await["num_errors"] == 1;
    until("the refusal is counted", refused).await;
    let last = endpoint(&system, "reserve_inventory").await["last_error"].clone();
    assert!(last.as_str().unwrap().starts_with("4"), "{last}");
}

#[tokio::test]
async fn a_worker_says_who_it_is_by_all_its_names() {
    let system = System::builder().start().await;
    let ping = asked(&system, "$SRV.PING").await;
    assert_eq!(
        (&ping["type"], &ping["name"]),
        (&json!("io.nats.micro.v1.ping_response"), &json!("inventory"))
    );
    assert_eq!(ping["metadata"], json!({"commit": version::COMMIT}));
    let info = asked(&system, &format!("$SRV.INFO.inventory.{}", ping["id"].as_str().unwrap())).await;
    assert_eq!((&info["type"], &info["id"]), (&json!("io.nats.micro.v1.info_response"), &ping["id"]));
    let subjects: Vec<&str> = info["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| endpoint["subject"].as_str().unwrap())
        .collect();
    assert!(
        ["check_inventory", "reserve_inventory", "adjust_stock"].iter().all(|one| subjects.contains(one)),
        "{info}"
    );
    let stats = asked(&system, "$SRV.STATS").await;
    assert_eq!(stats["type"], "io.nats.micro.v1.stats_response");
    let started = stats["started"].as_str().unwrap();
    assert!(started.contains('T') && (started.ends_with('Z') || started.ends_with("+00:00")), "{stats}");
}
