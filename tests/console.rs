//! What the console says is what is so: windows of the last minutes, who is gone, and what is not known.

use serde_json::Value;

use crate::figures::get;
use crate::shop::{Shop, assert_refused, until};

/// The figures behind a gateway's console.
pub async fn figures(shop: &Shop, gateway: usize) -> Value {
    let address = shop.gateways[gateway].http_addr();
    serde_json::from_str(&get(address, "/console.json").await).unwrap()
}

/// The entry of a list that has this under a name.
pub fn entry<'a>(list: &'a Value, name: &str, value: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|entry| entry[name] == value).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn who_opens_the_console_now_sees_the_last_minute_of_calls_and_failures() {
    let mut shop = Shop::open().stock("lamp", 50).ready().await;
    for _ in 0..10 {
        shop.order("lamp", 1).await.unwrap();
    }
    assert_refused(shop.order("lamp", 99).await, "INSUFFICIENT_STOCK");
    shop.workers.remove(0).kill();
    shop.check("lamp").await.unwrap_err();
    // Nobody has asked for the figures before.
    let told = async |name: &str| {
        let told = figures(&shop, 0).await;
        entry(&told["methods"], "name", &format!("orders.v1.OrderService/{name}")).clone()
    };
    // A call is counted when its answer is read to the end, and a rate takes a second.
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
    let history = figures(&shop, 0).await["history"].clone();
    assert!(history.as_array().unwrap().iter().any(|at| at["calls"].as_f64() > Some(0.5)), "{history}");
}

#[tokio::test]
async fn a_killed_worker_is_shown_as_gone_and_one_that_comes_makes_up_for_it() {
    let mut shop = Shop::open().workers(2).ready().await;
    let workers = async |shop: &Shop, state: &str| {
        let workers = figures(shop, 0).await["workers"].clone();
        workers.as_array().unwrap().iter().filter(|worker| worker["state"] == state).count()
    };
    until("both answer", async || workers(&shop, "answers").await == 2).await;
    shop.workers.remove(0).kill();
    until("one is gone", async || workers(&shop, "gone").await == 1).await;
    let told = figures(&shop, 0).await;
    assert_eq!(
        (workers(&shop, "answers").await, told["missing"][0]["count"].as_u64()),
        (1, Some(1)),
        "{told}"
    );
    shop.hire().await;
    until("nobody is missing", async || figures(&shop, 0).await["missing"] == serde_json::json!([])).await;
    assert_eq!((workers(&shop, "answers").await, workers(&shop, "gone").await), (2, 1));
}

#[tokio::test]
async fn while_nats_is_away_nothing_is_said_to_be_well() {
    let mut shop = Shop::open().ready().await;
    let all = async || figures(&shop, 0).await["polled"] == true;
    until("all is known", all).await;
    shop.nats.kill();
    let stale = async || {
        let told = figures(&shop, 0).await;
        let streams = told["streams"].as_array().unwrap();
        told["looked_ms"].as_u64() > told["stale_ms"].as_u64()
            && streams.iter().all(|it| it["trouble"] == "not known")
    };
    until("what it knows is old", stale).await;
    let told = figures(&shop, 0).await;
    assert_eq!((told["polled"].as_bool(), &told["status"]), (Some(false), &"NOT_SERVING".into()));
    assert_eq!((&told["workers"][0]["state"], &told["routes"][0]["up"]), (&"unknown".into(), &Value::Null));
    // What was known is there, with its age.
    assert!(told["streams"][0]["read_ms"].as_u64() > told["stale_ms"].as_u64(), "{told}");
    assert_eq!((&told["streams"][0]["rate"], &told["consumers"]), (&Value::Null, &serde_json::json!([])));
}
