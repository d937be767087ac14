//! Misbehaving clients against a whole gateway without services.

mod raw;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream::{once, pending};
use nats::Connection;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::Gateway;
use crate::config::{Limits, Serve};
use raw::Raw;

const CREATE: &str = "/orders.v1.OrderService/CreateOrder";
const CHECK: &str = "/orders.v1.OrderService/CheckInventory";

async fn nats() -> local_nats::Server {
    tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap()
}

async fn gateway(nats: &local_nats::Server) -> (Gateway, Channel) {
    let mut config = Serve::at(nats.url());
    config.threads = 2;
    let gateway = Gateway::start(config).await.unwrap();
    let uri = format!("http://{}", gateway.grpc_addr());
    (gateway, Endpoint::from_shared(uri).unwrap().connect().await.unwrap())
}

async fn call(channel: &Channel, path: &'static str, request: Request<Bytes>) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    Ok(grpc.unary(request, path, Raw).await?.into_inner())
}

/// Waits until this many connections are accepted.
async fn until_accepted(gateway: &Gateway, count: usize) {
    let metric = format!("\ngateway_connections {count}\n");
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let mut http = tokio::net::TcpStream::connect(gateway.http_addr()).await.unwrap();
        http.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut page = String::new();
        http.read_to_string(&mut page).await.unwrap();
        if page.contains(&metric) {
            return;
        }
        assert!(Instant::now() < limit, "waited too long until there are {count} connections: {page}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn said(error: &Status) -> (Code, String) {
    (error.code(), error.get_details_error_info().map(|info| info.reason).unwrap_or_default())
}

#[tokio::test]
async fn whatever_a_client_sends_the_error_says_what_was_wrong() {
    let nats = nats().await;
    let (_gateway, channel) = gateway(&nats).await;
    let garbage = Bytes::from_static(&[0xff; 9]);
    let large = Bytes::from(vec![0; Limits::default().max_request_bytes + 1]);
    let cases = [
        ("/orders.v1.OrderService/Nothing", Bytes::new(), Code::Unimplemented, "UNKNOWN_RPC"),
        ("/nothing.v1.Nothing/Nothing", Bytes::new(), Code::Unimplemented, "UNKNOWN_RPC"),
        (
            "/inventory.v1.ReservationService/ReserveInventory",
            Bytes::new(),
            Code::Unimplemented,
            "UNKNOWN_RPC",
        ),
        (CREATE, garbage.clone(), Code::InvalidArgument, "INVALID_REQUEST"),
        (CHECK, garbage, Code::InvalidArgument, "INVALID_REQUEST"),
        (CREATE, large.clone(), Code::ResourceExhausted, "PAYLOAD_TOO_LARGE"),
        (CHECK, large, Code::ResourceExhausted, "PAYLOAD_TOO_LARGE"),
        (CHECK, Bytes::new(), Code::Unavailable, "NO_RESPONDERS"),
    ];
    for (path, message, code, reason) in cases {
        let error = call(&channel, path, Request::new(message)).await.unwrap_err();
        assert_eq!(said(&error), (code, reason.to_owned()), "{path}: {error:?}");
    }
}

#[tokio::test]
async fn a_deadline_that_passed_is_never_cancelled() {
    let nats = nats().await;
    let (_gateway, channel) = gateway(&nats).await;
    // A service that receives requests, and does not answer.
    let silent = Connection::connect(&nats::Options::at(nats.url()), "silent").await.unwrap();
    let _requests = silent.client().subscribe("check_inventory").await.unwrap();
    silent.client().flush().await.unwrap();
    for timeout in ["700m", "2S"] {
        let mut request = Request::new(Bytes::new());
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        let error = call(&channel, CHECK, request).await.unwrap_err();
        assert_eq!(said(&error), (Code::DeadlineExceeded, "DEADLINE".to_owned()), "{timeout}: {error:?}");
    }
}

#[tokio::test]
async fn a_drain_is_over_although_a_silent_peer_stays() {
    let nats = nats().await;
    let (gateway, channel) = gateway(&nats).await;
    let address = gateway.grpc_addr();
    let _silent = TcpStream::connect(address).unwrap();
    let mut watches = Vec::new();
    for service in ["", "nothing"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        watches.push(HealthClient::new(channel.clone()).watch(request).await.unwrap().into_inner());
    }
    until_accepted(&gateway, 2).await;
    let first = watches[0].message().await.unwrap().unwrap().status;
    let start = Instant::now();
    gateway.drain().await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    if first == ServingStatus::Serving as i32 {
        let last = watches[0].message().await.unwrap().unwrap();
        assert_eq!(last.status, ServingStatus::NotServing as i32);
    }
    assert!(watches[0].message().await.unwrap().is_none());
    assert_eq!(watches[1].message().await.unwrap().unwrap().status, ServingStatus::ServiceUnknown as i32);
    assert!(watches[1].message().await.unwrap().is_none());
    assert!(TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn a_drain_does_not_wait_for_the_rest_of_a_request() {
    let nats = nats().await;
    let (gateway, channel) = gateway(&nats).await;
    let mut calls = Vec::new();
    for path in [CREATE, CHECK] {
        // A complete message, but no END_STREAM.
        let start = Request::new(once(ready(Bytes::new())).chain(pending()));
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(path);
        let call = tokio::spawn(async move {
            let answer: Result<tonic::Response<Bytes>, _> = grpc.client_streaming(start, path, Raw).await;
            answer.unwrap_err()
        });
        calls.push(call);
    }
    // An answered call on the same connection shows that the server has received what was sent before.
    call(&channel, CHECK, Request::new(Bytes::new())).await.unwrap_err();
    let start = Instant::now();
    gateway.drain().await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for call in calls {
        assert_eq!(said(&call.await.unwrap()), (Code::Unavailable, "DRAINING".to_owned()));
    }
}

#[tokio::test]
async fn two_gateways_live_in_one_process_and_one_that_is_dropped_is_gone() {
    let nats = nats().await;
    let ((first, _), (second, channel)) = (gateway(&nats).await, gateway(&nats).await);
    let address = first.grpc_addr();
    assert_ne!(address, second.grpc_addr());
    drop(first);
    assert!(TcpStream::connect(address).is_err());
    let request = HealthCheckRequest { service: "liveness".to_owned() };
    let alive = HealthClient::new(channel).check(request).await.unwrap().into_inner();
    assert_eq!(alive.status, ServingStatus::Serving as i32);
}
