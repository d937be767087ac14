//! Plain NATS clients: what they may request, the replies, and the events they see.

use std::time::Duration;

use async_nats::service::ServiceExt as _;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::client::settled;
use crate::harness::system::{PATIENCE, System, new_order};

async fn ask(
    nats: &async_nats::Client,
    subject: &'static str,
    payload: impl Into<bytes::Bytes>,
) -> (u16, Value) {
    let reply = nats.request(subject, payload.into()).await.unwrap();
    let code = reply.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
    let code = code.map_or(0, |code| code.as_str().parse().unwrap());
    (code, serde_json::from_slice(&reply.payload).unwrap())
}

#[tokio::test]
async fn a_bare_array_is_checked() {
    let system = System::builder().stock("lamp", 3).start().await;
    let nats = system.nats().await;
    let (code, answer) = ask(&nats, "check_inventory", r#"[{"productId":"lamp","quantity":2}]"#).await;
    assert_eq!(code, 0);
    let items = json!([{"productId": "lamp", "requested": 2, "available": 3}]);
    assert_eq!(answer, json!({"available": true, "items": items}));
    let (_, answer) = ask(&nats, "check_inventory", r#"[{"productId":"nope","quantity":1}]"#).await;
    assert_eq!(answer["available"], false);
}

#[tokio::test]
async fn broken_requests_get_an_error_and_the_worker_lives() {
    let system = System::builder().stock("lamp", 3).start().await;
    let nats = system.nats().await;
    let faults = [
        ("[{\"productId\":\"la", "payload"),
        ("", "payload"),
        ("[]", "items"),
        ("[{}]", "items[0].product_id"),
        (r#"[{"productId":"lamp"}]"#, "items[0].quantity"),
        (r#"[{"productId":"lamp","quantity":-1}]"#, "items[0].quantity"),
        (r#"[{"productId":"lamp","quantity":1e30}]"#, "items[0].quantity"),
        (r#"[{"productId":"lamp","quantity":99999999999999999999}]"#, "items[0].quantity"),
        (r#"[{"productId":"a b","quantity":1}]"#, "items[0].product_id"),
        (r#"[{"productId":"lamp","quantity":1},{"productId":"lamp","quantity":1}]"#, "items[1].product_id"),
    ];
    for (payload, field) in faults {
        let (code, status) = ask(&nats, "check_inventory", payload).await;
        assert_eq!(code, 400, "{payload}");
        assert_eq!(status["details"][1]["fieldViolations"][0]["field"], field, "{payload}: {status}");
    }
    let (code, status) = ask(&nats, "reserve_inventory", r#"{"orderId":"7","items":[]}"#).await;
    assert_eq!((code, status["details"][1]["fieldViolations"].as_array().unwrap().len()), (400, 2));
    assert_eq!(system.stock("lamp").await, (3, 0));
}

#[tokio::test]
async fn a_nestjs_client_is_answered_in_its_envelope() {
    let system = System::builder().stock("lamp", 3).start().await;
    let nats = system.nats().await;
    let request = r#"{"pattern":"check_inventory","data":[{"productId":"lamp","quantity":2}],"id":"55"}"#;
    let (_, answer) = ask(&nats, "check_inventory", request).await;
    assert_eq!((&answer["id"], &answer["response"]["available"]), (&json!("55"), &json!(true)));
    assert_eq!(answer["isDisposed"], true);
    let (code, answer) =
        ask(&nats, "check_inventory", r#"{"pattern":"check_inventory","data":[],"id":"56"}"#).await;
    assert_eq!((code, &answer["err"]["reason"]), (400, &json!("INVALID_REQUEST")));
}

#[tokio::test]
async fn a_request_that_is_late_already_is_not_begun() {
    let system = System::builder().stock("lamp", 3).start().await;
    let nats = system.nats().await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Request-Deadline", "1000");
    let payload = r#"{"requestId":"late","adjustments":[{"productId":"lamp","delta":5}]}"#;
    let reply = nats.request_with_headers("adjust_stock", headers, payload.into()).await.unwrap();
    assert_eq!(reply.headers.unwrap().get("Nats-Service-Error-Code").unwrap().as_str(), "504");
    assert_eq!(system.stock("lamp").await, (3, 0));
}

#[tokio::test]
async fn workers_are_found_as_micro_services() {
    let system = System::builder().workers(2).start().await;
    let nats = system.nats().await;
    let inbox = nats.new_inbox();
    let replies = nats.subscribe(inbox.clone()).await.unwrap();
    nats.publish_with_reply("$SRV.PING.inventory", inbox, "".into()).await.unwrap();
    let found =
        tokio::time::timeout(PATIENCE, replies.take(2).collect::<Vec<_>>()).await.expect("two workers");
    assert_ne!(found[0].payload, found[1].payload);
    drop(nats.service_builder());
}

#[tokio::test]
async fn a_subscriber_sees_each_recorded_order_and_no_refused_one() {
    let system = System::builder().stock("lamp", 1).start().await;
    let nats = system.nats().await;
    let mut created = nats.subscribe("order_created").await.unwrap();
    let mut updated = nats.subscribe("order_status_updated").await.unwrap();
    settled(&nats).await;
    system.order("lamp", 2).await.unwrap_err();
    let order = system.place(&new_order("lamp", 1).by("bob")).await.unwrap();
    system.order("lamp", 1).await.unwrap_err();
    let confirmed = system.update(&order, contract::orders::v1::OrderStatus::Confirmed, "").await.unwrap();
    let event = tokio::time::timeout(PATIENCE, created.next()).await.unwrap().unwrap();
    let seen: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!((&seen["orderId"], &seen["customerId"]), (&json!(order.order_id), &json!("bob")));
    assert_eq!(seen["items"], json!([{"productId": "lamp", "quantity": 1}]));
    let event = tokio::time::timeout(PATIENCE, updated.next()).await.unwrap().unwrap();
    let seen: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(
        (&seen["orderId"], &seen["status"]),
        (&json!(confirmed.order_id), &json!("ORDER_STATUS_CONFIRMED"))
    );
    let more = tokio::time::timeout(Duration::from_secs(1), created.next()).await;
    assert!(more.is_err(), "an event of a refused order: {more:?}");
}
