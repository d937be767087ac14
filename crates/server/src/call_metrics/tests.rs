//! Call metrics.

use super::*;
use wire::{Failure, Reason};

const PATH: &str = "/orders.v1.OrderService/GetOrder";
const NAME: &str = "orders.v1.OrderService/GetOrder";

fn page(metrics: &CatalogCalls) -> Exposition {
    let mut page = Exposition::default();
    metrics.all.collect(&mut page);
    page
}

fn calls(metrics: &CatalogCalls, code: &str, reason: &str) -> f64 {
    page(metrics).number("gateway_calls_total", &[("method", NAME), ("code", code), ("reason", reason)])
}

fn ends(metrics: &CatalogCalls, failure: Failure) {
    let response = super::super::status(failure).into_http::<tonic::body::Body>();
    metrics.open(PATH, &HeaderMap::new(), Instant::now()).read(response.headers());
}

#[tokio::test]
async fn each_end_is_counted_once_by_its_code_and_reason() {
    let metrics = CallMetrics::new(Tracer::default(), &[]).of(&crate::tests::contract());
    let ok = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
    let mut entry = metrics.open(PATH, &HeaderMap::new(), Instant::now());
    assert_eq!(page(&metrics).number("gateway_calls_in_flight", &[("method", NAME)]), 1.0);
    entry.read(&HeaderMap::new());
    entry.read(&ok);
    drop(entry);
    ends(&metrics, Failure::new(Reason::NatsDisconnected, "away"));
    ends(&metrics, Failure { domain: "elsewhere".into(), ..Failure::new(Reason::Internal, "x") });
    drop(metrics.open(PATH, &HeaderMap::new(), Instant::now()));
    assert_eq!(calls(&metrics, "OK", ""), 1.0);
    assert_eq!(calls(&metrics, "UNAVAILABLE", "NATS_DISCONNECTED"), 1.0);
    assert_eq!(calls(&metrics, "INTERNAL", "OTHER"), 1.0);
    assert_eq!(calls(&metrics, "CANCELLED", ""), 1.0);
    assert_eq!(page(&metrics).number("gateway_calls_in_flight", &[("method", NAME)]), 0.0);
}

#[tokio::test]
async fn what_callers_invent_opens_no_account() {
    let metrics = CallMetrics::new(Tracer::default(), &[]).of(&crate::tests::contract());
    for path in ["/a.B/C", "/orders.v1.OrderService/Nothing", ""] {
        drop(metrics.open(path, &HeaderMap::new(), Instant::now()));
    }
    let labels = [("method", "other"), ("code", "CANCELLED"), ("reason", "")];
    assert_eq!(page(&metrics).number("gateway_calls_total", &labels), 3.0);
}

#[tokio::test]
async fn an_rpc_counts_on_in_another_catalog_and_is_gone_with_its_last_call() {
    let metrics = CallMetrics::new(Tracer::default(), &[]);
    let before = metrics.of(&crate::tests::contract());
    drop(before.open(PATH, &HeaderMap::new(), Instant::now()));
    let after = metrics.of(&crate::tests::contract());
    drop(before);
    assert_eq!(calls(&after, "CANCELLED", ""), 1.0);
    let last = after.open(PATH, &HeaderMap::new(), Instant::now());
    let nothing = metrics.of(&Catalog::default());
    drop(after);
    assert_eq!(page(&nothing).number("gateway_calls_in_flight", &[("method", NAME)]), 1.0);
    drop(last);
    assert!(page(&nothing).numbers("gateway_calls_total").all(|(labels, _)| labels[0] != NAME));
}
