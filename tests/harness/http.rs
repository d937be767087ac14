//! HTTP as a test needs it: GETs of the HTTP ports, and a client that sends any HTTP/2 request to a gRPC port.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Response;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::body::Body;

use crate::harness::system::PATIENCE;

/// Head and body of the response to a GET.
pub async fn answer(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// The body of the response to a GET.
pub async fn get(address: SocketAddr, path: &str) -> String {
    let text = answer(address, path).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    body.to_owned()
}

/// A client that sends any HTTP/2 request.
pub struct HttpClient {
    client: Client<HttpConnector, Body>,
    address: SocketAddr,
}

impl HttpClient {
    pub fn at(address: SocketAddr) -> HttpClient {
        HttpClient { client: HttpClient::client(), address }
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
