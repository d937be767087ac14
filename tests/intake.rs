//! Memory that callers can make the gateway hold while it reads: messages, unfinished requests, metadata, open streams.
//! Above the limits requests are shed, other callers are not affected, and all memory is returned.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{join_all, ready};
use futures_util::stream::{once, pending};
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use wire::failure::Code;

use crate::harness::auth::{AuthGateway, request};
use crate::harness::codec::{ask, call};
use crate::harness::http::HttpClient;
use crate::harness::http::get;
use crate::harness::issuer::Issuer;
use crate::harness::status::{assert_failure, assert_retryable};
use crate::harness::system::{PATIENCE, System, until};

const CREATE: &str = "/orders.v1.OrderService/CreateOrder";
const CHECK: &str = "/orders.v1.OrderService/CheckInventory";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTIONS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The beginning of a message that declares one length and sends fewer bytes. The rest is never sent.
fn half(claims: u32, sent: usize) -> Body {
    let begin = [&[0][..], &claims.to_be_bytes(), &vec![7; sent]].concat();
    let begin = Ok::<_, Status>(Frame::data(Bytes::from(begin)));
    Body::new(StreamBody::new(once(ready(begin)).chain(pending())))
}

fn post() -> http::request::Builder {
    Request::post("/").header("content-type", "application/grpc")
}

/// The sum of the metrics whose lines contain all of these texts.
async fn figure(http: SocketAddr, texts: &[&str]) -> f64 {
    let page = get(http, "/metrics").await;
    let lines = page.lines().filter(|line| texts.iter().all(|text| line.contains(text)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn system() -> System {
    let free = "127.0.0.1:0".parse().unwrap();
    let change = |config: &mut gateway::config::Serve| {
        config.health_addr = Some(free);
        config.access.reflection = server::config::access::Reflection::Open;
    };
    System::builder().stock("lamp", 9).each_gateway(change).start().await
}

#[tokio::test]
async fn services_for_everybody_take_small_messages_alone() {
    let system = system().await;
    let (grpc, health) = (system.gateways[0].grpc_addr(), system.gateways[0].health_addr().unwrap());
    let worker = system.workers[0].health().await;
    let cases =
        [(grpc, HEALTH), (health, HEALTH), (worker, HEALTH), (grpc, REFLECTIONS[0]), (grpc, REFLECTIONS[1])];
    for (address, path) in cases {
        // It is refused by its declared length, without waiting for the rest.
        let refused = call_half(address, path, 4 << 20).await;
        assert_failure(Err::<(), _>(refused), Code::ResourceExhausted, "PAYLOAD_TOO_LARGE", "no");
    }
}

/// The status of a call that declares a message of this length.
async fn call_half(address: SocketAddr, path: &str, claims: u32) -> Status {
    let uri = format!("http://{address}{path}");
    let sent = HttpClient::client().request(post().uri(uri).body(half(claims, 9)).unwrap());
    let response = timeout(PATIENCE, sent).await.expect("a response in time").unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    let trailers = http_body_util::BodyExt::collect(response.into_body());
    let trailers = timeout(PATIENCE, trailers).await.expect("an end in time").unwrap();
    Status::from_header_map(trailers.trailers().expect("trailers")).unwrap()
}

async fn watch(channel: &Channel) -> Result<Streaming<HealthCheckResponse>, Status> {
    let mut watch =
        HealthClient::new(channel.clone()).watch(HealthCheckRequest::default()).await?.into_inner();
    assert!(watch.message().await?.is_some());
    Ok(watch)
}

#[tokio::test]
async fn health_watches_are_bounded_on_each_port_and_room_comes_back() {
    let system = system().await;
    let (grpc, health) = (system.gateways[0].grpc_addr(), system.gateways[0].health_addr().unwrap());
    let worker = system.workers[0].health().await;
    for (address, most) in [(grpc, 64), (health, 8), (worker, 8)] {
        let channel = channel(address).await;
        let mut open = Vec::new();
        for _ in 0..most {
            open.push(watch(&channel).await.unwrap());
        }
        let refused = watch(&channel).await.map(drop);
        assert_retryable(&assert_failure(refused, Code::ResourceExhausted, "OVERLOADED", "no"));
        HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
        open.pop();
        until("there is room again", async || watch(&channel).await.is_ok()).await;
    }
    let open = ["gateway_open_streams{", "health_watch"];
    until("all are closed", async || figure(system.gateways[0].http_addr(), &open).await == 0.0).await;
    assert!(
        figure(system.gateways[0].http_addr(), &["gateway_open_streams_refused_total{", "health_watch"])
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn reflection_streams_are_bounded() {
    let system = system().await;
    let channel = channel(system.gateways[0].grpc_addr()).await;
    let mut open = Vec::new();
    for number in 0..17 {
        // ServerReflectionRequest { list_services: "" }.
        let asks = once(ready(Bytes::from_static(&[0x3a, 0]))).chain(pending());
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(REFLECTIONS[number % 2]);
        let answer = grpc.streaming(tonic::Request::new(asks), path, crate::harness::codec::BytesCodec).await;
        match answer {
            Ok(answer) => open.push(answer),
            Err(refused) => {
                assert_retryable(&assert_failure(
                    Err::<(), _>(refused),
                    Code::ResourceExhausted,
                    "OVERLOADED",
                    "no",
                ));
            }
        }
    }
    assert_eq!(open.len(), 16);
}

#[tokio::test]
async fn a_known_caller_who_half_sends_holds_a_share_and_others_are_served() {
    let system =
        System::builder().stock("lamp", 9).each_gateway(|config| config.limits.max_buffered_bytes = 16 << 20);
    let system = system.start().await;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    let [ann, bob] = ["ann", "bob"].map(|name| issuer.with(json!({"sub": name})));
    let bearer = format!("Bearer {ann}");
    let address = guarded.gateway.grpc_addr();
    // On 3 connections, as the limit per connection equals that per caller.
    let clients: Vec<_> = (0..3).map(|_| HttpClient::at(address)).collect();
    let sends = (0..60).map(|number| {
        let call = post().header("authorization", &bearer);
        let sent = clients[number % 3].send(
            call,
            if number % 2 == 0 { CHECK } else { CREATE },
            half(1 << 20, 600_000),
        );
        async move { timeout(Duration::from_secs(4), sent).await.ok() }
    });
    let http = guarded.gateway.http_addr();
    let looks = async {
        until("it holds a share", async || figure(http, &["gateway_request_bytes "]).await > 3e6).await;
        // Twenty looks over a second, in which the share must hold.
        for _ in 0..20 {
            let held = figure(http, &["gateway_request_bytes "]).await;
            assert!(held <= f64::from(5 << 20), "{held}");
            guarded.call(CHECK, request(CHECK, "bob", ""), &bob).await.expect("another caller is served");
            sleep(Duration::from_millis(50)).await;
        }
    };
    let (answers, ()) = tokio::join!(join_all(sends), looks);
    let shed: Vec<_> = answers.into_iter().flatten().collect();
    assert!(shed.len() >= 50, "{}", shed.len());
    for response in shed {
        let status = Status::from_header_map(response.headers()).unwrap();
        let details = assert_failure(Err::<(), _>(status), Code::ResourceExhausted, "QUOTA_EXCEEDED", "no");
        assert_retryable(&details);
    }
    assert!(figure(http, &["gateway_request_bytes_shed_total{", "\"caller\""]).await >= 50.0);
    until("all is given back", async || figure(http, &["gateway_request_bytes "]).await < 1e5).await;
}

#[tokio::test]
async fn metadata_past_the_limit_is_told_as_grpc() {
    let system = system().await;
    let (grpc, health) = (system.gateways[0].grpc_addr(), system.gateways[0].health_addr().unwrap());
    for (address, path, size) in [
        (grpc, CHECK, 17_000),
        (grpc, CREATE, 60_000),
        (grpc, HEALTH, 30_000),
        (health, HEALTH, 5_000),
        (system.workers[0].health().await, HEALTH, 9_000),
    ] {
        let long = "v".repeat(size);
        let refused = ask(&channel(address).await, path, Bytes::new(), &[("x-long", &long)]).await;
        let details = assert_failure(refused, Code::ResourceExhausted, "PAYLOAD_TOO_LARGE", "no");
        let limit: usize = details.error_info().unwrap().metadata["limit"].parse().unwrap();
        assert!([16 << 10, 4 << 10].contains(&limit), "{limit}");
    }
}

#[tokio::test]
async fn a_client_that_dies_while_it_sends_counts_as_cancelled() {
    let system = system().await;
    let (address, http) = (system.gateways[0].grpc_addr(), system.gateways[0].http_addr());
    let cases = [
        (CHECK, "orders.v1.OrderService/CheckInventory"),
        (CREATE, "orders.v1.OrderService/CreateOrder"),
        (HEALTH, "grpc.health.v1.Health/Check"),
    ];
    for (path, method) in cases {
        for sent in [0, 40] {
            // The client closes its connection, or resets the call.
            for reset in [false, true] {
                let client = HttpClient::at(address);
                let call = Box::pin(client.send(post(), path, half(99, sent)));
                let arrived = async || figure(http, &["gateway_calls_in_flight{", method]).await > 0.0;
                tokio::select! {
                    response = call => panic!("{response:?}"),
                    () = until("the call has arrived", arrived) => {}
                }
                if reset {
                    client.send(post(), "/a.B/C", half(0, 0)).await;
                }
            }
        }
        let texts = |code| ["gateway_calls_total{", method, code];
        let cancelled = async || figure(http, &texts("\"CANCELLED\"")).await;
        until("all are entered", async || cancelled().await >= 4.0).await;
        for other in ["\"UNKNOWN\"", "\"INTERNAL\"", "\"INVALID_ARGUMENT\""] {
            assert_eq!(figure(http, &texts(other)).await, 0.0, "{method} {other}");
        }
    }
    until("all is given back", async || figure(http, &["gateway_request_bytes "]).await == 0.0).await;
    assert!(call(&channel(address).await, CHECK, request(CHECK, "ann", ""), &[]).await.is_ok());
}
