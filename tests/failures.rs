//! The truth table of failures (docs/protocol.md#failures), end to end, with one test for each row: code, reason,
//! `delivered`, and the details that the table names.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use contract::inventory::v1::{GetStockRequest, Item};
use contract::orders::v1::{CheckInventoryRequest, OrderStatus};
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::harness::client::settled;
use crate::harness::roles;
use crate::harness::service::serve;
use crate::harness::status::{assert_failure, assert_retryable};
use crate::harness::system::{System, new_order, order_id, until};

/// Attempts of a call that may be retried: the first, and three more.
const ATTEMPTS: usize = 4;

/// A check of one lamp, with a deadline if there is one.
async fn check(system: &System, limit: Option<Duration>) -> Result<bool, Status> {
    let items = vec![Item { product_id: "lamp".to_owned(), quantity: 1 }];
    let mut request = Request::new(CheckInventoryRequest { items });
    if let Some(limit) = limit {
        request.metadata_mut().insert("grpc-timeout", format!("{}m", limit.as_millis()).parse().unwrap());
    }
    Ok(system.untimed_orders().check_inventory(request).await?.into_inner().available)
}

fn refusal(code: &str, text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Service-Error-Code", code);
    headers.insert("Nats-Service-Error", text);
    headers
}

#[tokio::test]
async fn an_invalid_request_is_told_every_bad_field() {
    let system = System::builder().start().await;
    let refused = system.place(&new_order("not a product", 0).and("lamp", 0).by("").id("not an id")).await;
    let details = assert_failure(refused, Code::InvalidArgument, "INVALID_REQUEST", "no");
    let fields: Vec<_> = details
        .bad_request()
        .unwrap()
        .field_violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    let bad = ["request_id", "customer_id", "items[0].product_id", "items[0].quantity", "items[1].quantity"];
    assert!(bad.iter().all(|field| fields.contains(field)) && fields.len() == bad.len(), "{fields:?}");
}

#[tokio::test]
async fn too_little_stock_names_each_product() {
    let system = System::builder().stock("lamp", 3).stock("rug", 1).start().await;
    for id in ["", "mine"] {
        let refused = system.place(&new_order("lamp", 4).and("rug", 2).id(id)).await;
        let details = assert_failure(refused, Code::FailedPrecondition, "INSUFFICIENT_STOCK", "yes");
        let short: Vec<_> =
            details.precondition_failure().unwrap().violations.iter().map(|v| &v.subject).collect();
        assert_eq!(short, ["products/lamp", "products/rug"]);
    }
}

#[tokio::test]
async fn an_illegal_status_change_is_refused() {
    let system = System::builder().stock("lamp", 3).start().await;
    let order = system.order("lamp", 1).await.unwrap();
    let refused = system.update(&order, OrderStatus::Delivered, "").await;
    assert_failure(refused, Code::FailedPrecondition, "ILLEGAL_TRANSITION", "no");
}

#[tokio::test]
async fn a_stale_etag_is_refused() {
    let system = System::builder().stock("lamp", 3).start().await;
    let order = system.order("lamp", 1).await.unwrap();
    system.update(&order, OrderStatus::Confirmed, "").await.unwrap();
    let refused = system.update(&order, OrderStatus::Shipped, &order.etag).await;
    assert_failure(refused, Code::Aborted, "ETAG_MISMATCH", "no");
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let system = System::builder().start().await;
    let id = "0190a7b2-0000-4000-8000-000000000000";
    let details = assert_failure(system.get(id).await, Code::NotFound, "NOT_FOUND", "yes");
    assert_eq!(details.resource_info().unwrap().resource_name, id);
    let request = GetStockRequest { product_id: "nope".to_owned() };
    let details =
        assert_failure(system.inventory().get_stock(request).await, Code::NotFound, "NOT_FOUND", "yes");
    assert_eq!(details.resource_info().unwrap().resource_name, "nope");
}

#[tokio::test]
async fn a_request_id_with_other_content_is_refused() {
    let system = System::builder().stock("lamp", 9).start().await;
    system.place(&new_order("lamp", 1).id("one")).await.unwrap();
    let refused = system.place(&new_order("lamp", 2).id("one")).await;
    assert_failure(refused, Code::AlreadyExists, "REQUEST_ID_REUSED", "yes");
}

#[tokio::test]
async fn a_reservation_that_never_lasts_is_told_to_be_repeated() {
    let system = System::builder().workers(0).start().await;
    // A tombstone in ORDERS that the ledger does not know.
    let id = order_id("one");
    let nats = system.nats().await;
    let context = async_nats::jetstream::new(nats.clone());
    context.publish(format!("orders.fence.expired.{id}"), "{}".into()).await.unwrap().await.unwrap();
    let answers = [
        (
            "check_inventory",
            json!({"available": true, "items": [{"productId": "lamp", "requested": 1, "available": 9}]}),
        ),
        ("reserve_inventory", json!({"orderId": id, "reserved": true, "fence": 0})),
        ("release_inventory", json!({"orderId": id, "released": true})),
    ];
    for (subject, answer) in answers {
        let (nats, mut requests) = (nats.clone(), nats.subscribe(subject).await.unwrap());
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let _ = nats.publish(request.reply.unwrap(), answer.to_string().into()).await;
            }
        });
    }
    settled(&nats).await;
    let details = assert_failure(
        system.place(&new_order("lamp", 1).id("one")).await,
        Code::Aborted,
        "RESERVATION_EXPIRED",
        "no",
    );
    assert_retryable(&details);
}

#[tokio::test]
async fn nobody_subscribed_is_asked_again_and_nothing_was_delivered() {
    let system = System::builder().workers(0).start().await;
    assert_retryable(&assert_failure(check(&system, None).await, Code::Unavailable, "NO_RESPONDERS", "no"));
    assert_retryable(&assert_failure(
        system.order("lamp", 1).await,
        Code::Unavailable,
        "NO_RESPONDERS",
        "no",
    ));
}

#[tokio::test]
async fn without_a_connection_every_rpc_fails_at_once() {
    let mut system = System::builder().stock("lamp", 3).start().await;
    let order = system.order("lamp", 1).await.unwrap();
    system.nats.kill();
    until("the gateway knows", async || system.gateways[0].up("") == Some(false)).await;
    let failed = |details: ErrorDetails| assert_retryable(&details);
    failed(assert_failure(check(&system, None).await, Code::Unavailable, "NATS_DISCONNECTED", "no"));
    failed(assert_failure(system.order("lamp", 1).await, Code::Unavailable, "NATS_DISCONNECTED", "no"));
    failed(assert_failure(system.get(&order.order_id).await, Code::Unavailable, "NATS_DISCONNECTED", "no"));
    let update = system.update(&order, OrderStatus::Confirmed, "").await;
    failed(assert_failure(update, Code::Unavailable, "NATS_DISCONNECTED", "no"));
    failed(assert_failure(system.adjust("lamp", 1).await, Code::Unavailable, "NATS_DISCONNECTED", "no"));
}

#[tokio::test]
async fn a_connection_that_is_lost_during_a_call_leaves_its_outcome_open() {
    let mut system = System::builder().workers(0).start().await;
    let count = serve(&system, |_| None).await;
    let mut client = system.orders();
    let items = vec![Item { product_id: "lamp".to_owned(), quantity: 1 }];
    let call = tokio::spawn(async move { client.check_inventory(CheckInventoryRequest { items }).await });
    until("it is delivered", async || count.load(Ordering::SeqCst) == 1).await;
    system.nats.kill();
    assert_retryable(&assert_failure(call.await.unwrap(), Code::Unavailable, "NATS_DISCONNECTED", "unknown"));
}

#[tokio::test]
async fn a_missing_stream_is_storage_that_is_not_available() {
    let system = System::builder().stock("lamp", 3).start().await;
    let order = system.order("lamp", 1).await.unwrap();
    let nats = system.nats().await;
    nats.request("$JS.API.STREAM.DELETE.ORDERS", Bytes::new()).await.unwrap();
    let limit = Duration::from_secs(2);
    assert_retryable(&assert_failure(
        system.get(&order.order_id).await,
        Code::Unavailable,
        "STORAGE_UNAVAILABLE",
        "no",
    ));
    let placed = tokio::time::timeout(limit * 10, system.order("lamp", 1)).await.expect("an end in time");
    assert_retryable(&assert_failure(placed, Code::Unavailable, "STORAGE_UNAVAILABLE", "no"));
}

#[tokio::test]
async fn a_full_stream_is_a_quota() {
    let system = System::builder()
        .stock("lamp", 9)
        .each_worker(|worker| worker.reservation_ttl = Duration::from_secs(1))
        .start()
        .await;
    let order = system.order("lamp", 1).await.unwrap();
    let context = async_nats::jetstream::new(system.nats().await);
    let mut config = context.get_stream("ORDERS").await.unwrap().cached_info().config.clone();
    config.max_messages = 1;
    context.update_stream(&config).await.unwrap();
    let details =
        assert_failure(system.order("lamp", 1).await, Code::ResourceExhausted, "STORAGE_FULL", "no");
    assert!(details.quota_failure().is_some(), "{details:?}");
    let update = system.update(&order, OrderStatus::Confirmed, "").await;
    assert_failure(update, Code::ResourceExhausted, "STORAGE_FULL", "no");
    config.max_messages = -1;
    context.update_stream(&config).await.unwrap();
    until("what it had reserved is free again", async || system.stock("lamp").await == (9, 1)).await;
}

#[tokio::test]
async fn no_reply_is_asked_for_again_within_the_budget_and_then_a_timeout() {
    let system = System::builder().workers(0).start().await;
    let count = serve(&system, |_| None).await;
    // The gateway's own budget is 20 s; the Request-Deadline that a worker gets is the attempt's.
    let status = tokio::time::timeout(Duration::from_secs(40), check(&system, None)).await.expect("an end");
    assert_failure(status, Code::DeadlineExceeded, "TIMEOUT", "unknown");
    assert!((2..=ATTEMPTS).contains(&count.load(Ordering::SeqCst)), "{count:?}");
}

#[tokio::test]
async fn a_callers_deadline_ends_the_call_with_its_own_code() {
    let system = System::builder().workers(0).start().await;
    let count = serve(&system, |_| None).await;
    let late = check(&system, Some(Duration::from_secs(4))).await;
    assert_failure(late, Code::DeadlineExceeded, "DEADLINE", "unknown");
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let late = check(&system, Some(Duration::from_millis(1))).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
}

#[tokio::test]
async fn a_message_over_a_limit_says_size_and_limit() {
    let system = System::builder().workers(0).nats_config("max_payload: 8192").start().await;
    let many = (0..400)
        .fold(new_order("lamp", 1), |order, n| order.and(&format!("a-product-with-a-long-name-{n}"), 1));
    let details =
        assert_failure(system.place(&many).await, Code::ResourceExhausted, "PAYLOAD_TOO_LARGE", "no");
    let info = details.error_info().unwrap();
    let number = |key: &str| info.metadata[key].parse::<usize>().unwrap();
    assert!(number("size") > number("limit") && number("limit") == 8_192, "{info:?}");
}

#[tokio::test]
async fn a_reply_over_the_gateways_limit_was_delivered() {
    let system = System::builder()
        .workers(0)
        .each_gateway(|config| config.limits.max_reply_bytes = 1_024)
        .start()
        .await;
    let items: Vec<_> = (0..200)
        .map(|n| json!({"productId": format!("product-{n}"), "requested": 1, "available": 1}))
        .collect();
    let body = Bytes::from(json!({"available": true, "items": items}).to_string());
    let count = serve(&system, move |_| Some((HeaderMap::new(), body.clone()))).await;
    let details =
        assert_failure(check(&system, None).await, Code::ResourceExhausted, "PAYLOAD_TOO_LARGE", "yes");
    assert!(details.error_info().unwrap().metadata.contains_key("limit"));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_its_details() {
    let system = System::builder().workers(0).start().await;
    let info = json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "CLOSED", "domain": "system.example",
        "metadata": {"delivered": "yes"}});
    let body = Bytes::from(json!({"code": 9, "message": "closed on Mondays", "details": [info]}).to_string());
    let count = serve(&system, move |_| Some((refusal("412", "closed"), body.clone()))).await;
    let details = assert_failure(check(&system, None).await, Code::FailedPrecondition, "CLOSED", "yes");
    assert_eq!(details.error_info().unwrap().domain, "system.example");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_plain_services_refusal_is_understood_and_only_unavailable_is_repeated() {
    let system = System::builder().workers(0).start().await;
    let count = serve(&system, |number| {
        let code = if number < 2 { "503" } else { "404" };
        Some((refusal(code, "no such thing"), Bytes::new()))
    })
    .await;
    let status = check(&system, None).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no such thing"));
    assert_eq!(status.get_details_error_info().unwrap().metadata["delivered"], "yes");
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_reply_that_breaks_the_contract_is_ours_to_answer_for() {
    let system = System::builder().workers(0).start().await;
    let count = serve(&system, |_| Some((HeaderMap::new(), "forty-two".into()))).await;
    assert_failure(check(&system, None).await, Code::Internal, "CONTRACT_VIOLATION", "yes");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn one_call_more_than_fits_is_turned_away_at_once() {
    let system =
        System::builder().workers(0).each_gateway(|config| config.limits.max_in_flight = 2).start().await;
    let count = serve(&system, |_| None).await;
    let limit = Some(Duration::from_secs(5));
    let held = join_all([check(&system, limit), check(&system, limit)]);
    let more = async {
        until("two are in flight", async || count.load(Ordering::SeqCst) == 2).await;
        check(&system, limit).await
    };
    let (held, more) = tokio::join!(held, more);
    let details = assert_failure(more, Code::ResourceExhausted, "OVERLOADED", "no");
    assert!(details.quota_failure().is_some(), "{details:?}");
    assert_retryable(&details);
    assert!(held.into_iter().all(|held| held.unwrap_err().code() == Code::DeadlineExceeded));
}

#[tokio::test]
async fn a_subject_that_nats_does_not_permit_is_ours_to_answer_for() {
    let users = r#"authorization { users: [
        { user: "all", password: "secret" }
        { user: "gateway", password: "secret", permissions: { publish: { deny: ["check_inventory", "orders.event.>"] } } }
    ] }"#;
    let mut system =
        System::builder().user("all", "secret").nats_config(users).stock("lamp", 3).start().await;
    let order = system.order("lamp", 1).await.unwrap();
    system.gateway.nats = roles::by(system.gateway.nats.clone(), "gateway", "secret");
    system.add_gateway().await;
    system.drain_gateway().await;
    let told_so = assert_failure(check(&system, None).await, Code::Internal, "GATEWAY_NOT_PERMITTED", "no");
    assert!(!format!("{told_so:?}").contains("check_inventory"), "{told_so:?}");
    let update = system.update(&order, OrderStatus::Confirmed, "").await;
    assert_failure(update, Code::Internal, "GATEWAY_NOT_PERMITTED", "no");
}

#[tokio::test]
async fn an_outage_causes_few_retries() {
    let system = System::builder().workers(0).start().await;
    let count = serve(&system, |_| Some((refusal("503", "away"), Bytes::new()))).await;
    let calls = 600;
    for _ in 0..calls / 100 {
        let refused = join_all((0..100).map(|_| check(&system, Some(Duration::from_secs(10))))).await;
        assert!(
            refused.iter().all(|call| call.as_ref().is_err_and(|status| status.code() == Code::Unavailable))
        );
    }
    let attempts = count.load(Ordering::SeqCst);
    assert!((calls..=calls * 12 / 10).contains(&attempts), "{attempts} attempts for {calls} calls");
}
