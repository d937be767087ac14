//! Requests that are not gRPC calls, and calls with invalid headers: each is refused before anything is read or done,
//! and the error says what to change.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost_reflect::prost::Message as _;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::access::request;
use crate::failures::told;
use crate::raw::ask;
use crate::shop::{PATIENCE, Shop, until, wish};

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

/// A client that sends any HTTP/2 request.
pub struct Stranger {
    client: Client<HttpConnector, Body>,
    address: SocketAddr,
}

impl Stranger {
    pub fn at(address: SocketAddr) -> Stranger {
        Stranger { client: Stranger::client(), address }
    }

    pub fn client() -> Client<HttpConnector, Body> {
        Client::builder(TokioExecutor::new()).http2_only(true).build_http()
    }

    pub async fn send(&self, request: http::request::Builder, path: &str, body: Body) -> Response<()> {
        let uri = format!("http://{}{path}", self.address);
        let sent = self.client.request(request.uri(uri).body(body).unwrap());
        let response = tokio::time::timeout(PATIENCE, sent).await.expect("a response in time").unwrap();
        response.map(drop)
    }
}

/// A message in gRPC's framing.
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat().into()
}

pub fn body(bytes: Bytes) -> Body {
    Body::new(http_body_util::Full::new(bytes))
}

fn order() -> Body {
    body(framed(&wish("lamp", 1).request.encode_to_vec()))
}

async fn ports() -> (Shop, Vec<SocketAddr>) {
    let free = "127.0.0.1:0".parse().unwrap();
    let shop =
        Shop::open().stock("lamp", 9).each_gateway(|config| config.health_addr = Some(free)).ready().await;
    let ports = [shop.gateways[0].grpc_addr(), shop.gateways[0].health_addr().unwrap()];
    let ports = vec![ports[0], ports[1], shop.workers[0].health().await];
    (shop, ports)
}

#[tokio::test]
async fn what_is_no_grpc_call_is_refused_and_not_executed() {
    let (shop, ports) = ports().await;
    for address in ports {
        let stranger = Stranger::at(address);
        for path in PATHS {
            for method in
                [Method::GET, Method::PUT, Method::OPTIONS, Method::HEAD, Method::DELETE, Method::PATCH]
            {
                let request = Request::builder().method(&method).header("content-type", "application/grpc");
                let response = stranger.send(request, path, order()).await;
                assert_eq!(response.status(), 405, "{method} {path}");
                assert_eq!(response.headers()["allow"], "POST", "{method} {path}");
            }
            for media in
                ["text/plain", "application/grpc-web", "application/grpc-web+proto", "application/json", ""]
            {
                let request = Request::post("/").header("content-type", media);
                assert_eq!(stranger.send(request, path, order()).await.status(), 415, "{media} {path}");
            }
            assert_eq!(stranger.send(Request::post("/"), path, order()).await.status(), 415, "{path}");
        }
    }
    assert_eq!(shop.stock("lamp").await, (9, 0), "nothing was reserved");
    let good = Request::post("/").header("content-type", "application/grpc+proto; charset=utf-8");
    let stranger = Stranger::at(shop.gateways[0].grpc_addr());
    assert_eq!(stranger.send(good, CREATE, order()).await.status(), 200);
    until("the order is there", async || shop.stock("lamp").await == (9, 1)).await;
}

#[tokio::test]
async fn an_unknown_path_is_told_as_grpc() {
    let shop = Shop::open().ready().await;
    let stranger = Stranger::at(shop.gateways[0].grpc_addr());
    let call = Request::post("/").header("content-type", "application/grpc");
    let response = stranger.send(call, "/nothing.v1.Nothing/Nothing", body(framed(&[]))).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/grpc".parse().unwrap())
    );
    let status = Status::from_header_map(response.headers());
    told(Err::<(), _>(status.unwrap()), Code::Unimplemented, "UNKNOWN_RPC", "no");
}

#[tokio::test]
async fn a_malformed_deadline_is_refused_and_not_taken_for_none() {
    let (shop, ports) = ports().await;
    for address in ports {
        let stranger = Stranger::at(address);
        for path in PATHS {
            for values in [&[""][..], &["5"], &["123456789S"], &["1.5S"], &["-1S"], &["soon"], &["5S", "5S"]]
            {
                let call = Request::post("/").header("content-type", "application/grpc");
                let call = values.iter().fold(call, |call, value| call.header("grpc-timeout", *value));
                let response = stranger.send(call, path, order()).await;
                let status = Status::from_header_map(response.headers()).unwrap();
                let details = told(Err::<(), _>(status), Code::InvalidArgument, "INVALID_REQUEST", "no");
                assert_eq!(details.error_info().unwrap().metadata["header"], "grpc-timeout", "{values:?}");
                assert_eq!(details.bad_request().unwrap().field_violations[0].field, "grpc-timeout");
            }
        }
    }
    assert_eq!(shop.stock("lamp").await, (9, 0), "nothing was reserved");
}

#[tokio::test]
async fn refused_compression_says_what_is_accepted() {
    let (_shop, ports) = ports().await;
    for address in ports {
        let stranger = Stranger::at(address);
        for path in PATHS {
            let call =
                Request::post("/").header("content-type", "application/grpc").header("grpc-encoding", "gzip");
            let response = stranger.send(call, path, order()).await;
            assert_eq!(response.headers()["grpc-accept-encoding"], "identity", "{path}");
            let status = Status::from_header_map(response.headers()).unwrap();
            told(Err::<(), _>(status), Code::Unimplemented, "UNSUPPORTED_ENCODING", "no");
        }
    }
}

#[tokio::test]
async fn a_large_token_is_read_like_a_small_one() {
    let shop = Shop::open().stock("lamp", 9).ready().await;
    let issuer = crate::issuer::Issuer::new();
    let guarded = crate::access::Guarded::open(&shop, issuer.access()).await;
    let groups: Vec<String> = (0..700).map(|number| format!("group-{number}")).collect();
    let token = issuer.with(serde_json::json!({ "groups": groups }));
    assert!((9_000..15_000).contains(&token.len()), "{}", token.len());
    guarded.call(CHECK, request(CHECK, "ann", ""), &token).await.unwrap();
    let key = "k".repeat(9_000);
    let refused =
        ask(&guarded.channel, CHECK, Bytes::new(), &[("authorization", &format!("Bearer {key}"))]).await;
    assert_eq!(refused.unwrap_err().message(), "the token is malformed");
}
