//! Requests that are not gRPC calls, and calls with invalid headers: each is refused before anything is read or done,
//! and the error says what to change.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use prost_reflect::prost::Message as _;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::harness::auth::request;
use crate::harness::codec::ask;
use crate::harness::http::{HttpClient, body, framed};
use crate::harness::status::assert_failure;
use crate::harness::system::{System, new_order, until};

const CREATE: &str = "/orders.v1.OrderService/CreateOrder";
const CHECK: &str = "/orders.v1.OrderService/CheckInventory";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// A pass-through rpc, one with code, health, reflection in both versions, and an unknown one.
const PATHS: [&str; 6] = [
    CHECK,
    CREATE,
    HEALTH,
    REFLECTION,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/nothing.v1.Nothing/Nothing",
];

fn order() -> Body {
    body(framed(&new_order("lamp", 1).request.encode_to_vec()))
}

async fn ports() -> (System, Vec<SocketAddr>) {
    let free = "127.0.0.1:0".parse().unwrap();
    let system = System::builder()
        .stock("lamp", 9)
        .each_gateway(|config| config.health_addr = Some(free))
        .start()
        .await;
    let ports = [system.gateways[0].grpc_addr(), system.gateways[0].health_addr().unwrap()];
    let ports = vec![ports[0], ports[1], system.workers[0].health().await];
    (system, ports)
}

#[tokio::test]
async fn what_is_no_grpc_call_is_refused_and_not_executed() {
    let (system, ports) = ports().await;
    for address in ports {
        let client = HttpClient::at(address);
        for path in PATHS {
            for method in
                [Method::GET, Method::PUT, Method::OPTIONS, Method::HEAD, Method::DELETE, Method::PATCH]
            {
                let request = Request::builder().method(&method).header("content-type", "application/grpc");
                let response = client.send(request, path, order()).await;
                assert_eq!(response.status(), 405, "{method} {path}");
                assert_eq!(response.headers()["allow"], "POST", "{method} {path}");
            }
            for media in
                ["text/plain", "application/grpc-web", "application/grpc-web+proto", "application/json", ""]
            {
                let request = Request::post("/").header("content-type", media);
                assert_eq!(client.send(request, path, order()).await.status(), 415, "{media} {path}");
            }
            assert_eq!(client.send(Request::post("/"), path, order()).await.status(), 415, "{path}");
        }
    }
    assert_eq!(system.stock("lamp").await, (9, 0), "nothing was reserved");
    let good = Request::post("/").header("content-type", "application/grpc+proto; charset=utf-8");
    let client = HttpClient::at(system.gateways[0].grpc_addr());
    assert_eq!(client.send(good, CREATE, order()).await.status(), 200);
    until("the order is there", async || system.stock("lamp").await == (9, 1)).await;
}

#[tokio::test]
async fn an_unknown_path_is_told_as_grpc() {
    let system = System::builder().start().await;
    let client = HttpClient::at(system.gateways[0].grpc_addr());
    let call = Request::post("/").header("content-type", "application/grpc");
    let response = client.send(call, "/nothing.v1.Nothing/Nothing", body(framed(&[]))).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/grpc".parse().unwrap())
    );
    let status = Status::from_header_map(response.headers());
    assert_failure(Err::<(), _>(status.unwrap()), Code::Unimplemented, "UNKNOWN_RPC", "no");
}

#[tokio::test]
async fn a_malformed_deadline_is_refused_and_not_taken_for_none() {
    let (system, ports) = ports().await;
    for address in ports {
        let client = HttpClient::at(address);
        for path in PATHS {
            for values in [&[""][..], &["5"], &["123456789S"], &["1.5S"], &["-1S"], &["soon"], &["5S", "5S"]]
            {
                let call = Request::post("/").header("content-type", "application/grpc");
                let call = values.iter().fold(call, |call, value| call.header("grpc-timeout", *value));
                let response = client.send(call, path, order()).await;
                let status = Status::from_header_map(response.headers()).unwrap();
                let details =
                    assert_failure(Err::<(), _>(status), Code::InvalidArgument, "INVALID_REQUEST", "no");
                assert_eq!(details.error_info().unwrap().metadata["header"], "grpc-timeout", "{values:?}");
                assert_eq!(details.bad_request().unwrap().field_violations[0].field, "grpc-timeout");
            }
        }
    }
    assert_eq!(system.stock("lamp").await, (9, 0), "nothing was reserved");
}

#[tokio::test]
async fn refused_compression_says_what_is_accepted() {
    let (_shop, ports) = ports().await;
    for address in ports {
        let client = HttpClient::at(address);
        for path in PATHS {
            let call =
                Request::post("/").header("content-type", "application/grpc").header("grpc-encoding", "gzip");
            let response = client.send(call, path, order()).await;
            assert_eq!(response.headers()["grpc-accept-encoding"], "identity", "{path}");
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_failure(Err::<(), _>(status), Code::Unimplemented, "UNSUPPORTED_ENCODING", "no");
        }
    }
}

#[tokio::test]
async fn a_large_token_is_read_like_a_small_one() {
    let system = System::builder().stock("lamp", 9).start().await;
    let issuer = crate::harness::issuer::Issuer::new();
    let guarded = crate::harness::auth::AuthGateway::start(&system, issuer.access()).await;
    let groups: Vec<String> = (0..700).map(|number| format!("group-{number}")).collect();
    let token = issuer.with(serde_json::json!({ "groups": groups }));
    assert!((9_000..15_000).contains(&token.len()), "{}", token.len());
    guarded.call(CHECK, request(CHECK, "ann", ""), &token).await.unwrap();
    let key = "k".repeat(9_000);
    let refused =
        ask(&guarded.channel, CHECK, Bytes::new(), &[("authorization", &format!("Bearer {key}"))]).await;
    assert_eq!(refused.unwrap_err().message(), "the token is malformed");
}
