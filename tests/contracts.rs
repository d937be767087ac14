//! Contracts that are given at start, by proto files and descriptor sets, for services that know nothing of a gateway.

use std::path::PathBuf;

use async_nats::ConnectOptions;
use async_nats::service::{Service, ServiceExt as _};
use catalog_sources::Options;
use futures_util::StreamExt as _;
use gateway::Gateway;
use gateway::config::Serve;
use gateway::contracts;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::codec;
use crate::harness::http::answer;
use crate::harness::roles;
use crate::harness::system::{reason, until};

pub const GET_BOOK: &str = "/bookstore.v1.Books/GetBook";
pub const BOOKSTORE: &str = include_str!("fixtures/books.proto");
/// `{"bookId": "b-7"}`, and `{"title": "b-7", "pages": 3}`.
pub const REQUEST: &[u8] = b"\x0a\x03b-7";
pub const REPLY: &[u8] = b"\x0a\x03b-7\x10\x03";

/// A folder with `books.proto`.
pub fn folder(proto: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.proto");
    std::fs::write(&file, proto).unwrap();
    (folder, file)
}

pub fn serving(file: PathBuf, url: &str) -> Serve {
    Serve { sources: Options { proto: vec![file], ..Options::default() }, threads: 1, ..Serve::at(url) }
}

/// Answers `books.get` with the title that was asked for.
pub async fn bookstore(nats: async_nats::Client) -> Service {
    let service = nats.service_builder().start("books", "1.0.0").await.unwrap();
    let mut requests = service.endpoint_builder().queue_group("books").add("books.get").await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let asked: serde_json::Value = serde_json::from_slice(&request.message.payload).unwrap();
            let reply = format!(r#"{{"title":{},"pages":3}}"#, asked["bookId"]);
            request.respond(Ok(reply.into())).await.unwrap();
        }
    });
    service
}

pub async fn channel(gateway: &Gateway) -> Channel {
    let address = format!("http://{}", gateway.grpc_addr());
    Endpoint::from_shared(address).unwrap().connect().await.unwrap()
}

pub async fn nats(config: Option<String>) -> local_nats::Server {
    let options = local_nats::Options { config, ..Default::default() };
    tokio::task::spawn_blocking(|| local_nats::Server::with(options)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_proto_file_is_served_alone_without_code_and_without_jetstream() {
    let nats = nats(Some("jetstream: disabled".to_owned())).await;
    let (_folder, file) = folder(BOOKSTORE);
    let gateway = Gateway::start(serving(file, &nats.url())).await.unwrap();
    let channel = channel(&gateway).await;
    until("the gateway itself is up", async || gateway.up("") == Some(true)).await;
    let missing = codec::ask(&channel, GET_BOOK, REQUEST.into(), &[]).await.unwrap_err();
    assert_eq!((missing.code(), reason(&missing).as_str()), (Code::Unavailable, "NO_RESPONDERS"));
    let _service = bookstore(async_nats::connect(nats.url()).await.unwrap()).await;
    until("the books are up", async || gateway.up("bookstore.v1.Books") == Some(true)).await;
    assert_eq!(codec::ask(&channel, GET_BOOK, REQUEST.into(), &[]).await.unwrap(), REPLY);
    let names = crate::clients::services(channel.clone()).await;
    assert!(names.contains(&"bookstore.v1.Books".to_owned()), "{names:?}");
    assert!(
        !names.iter().any(|name| name.starts_with("orders.") || name.starts_with("inventory.")),
        "{names:?}"
    );
    gateway.drain().await;
}

#[tokio::test]
async fn a_proto_that_imports_the_options_under_their_former_name_is_served() {
    let nats = nats(None).await;
    let old =
        BOOKSTORE.replace("natsgateway/v1", "nats/gateway/v1").replace("natsgateway.v1", "nats.gateway.v1");
    let (_folder, file) = folder(&old);
    let gateway = Gateway::start(serving(file, &nats.url())).await.unwrap();
    let _service = bookstore(async_nats::connect(nats.url()).await.unwrap()).await;
    until("the books are up", async || gateway.up("bookstore.v1.Books") == Some(true)).await;
    let reply = codec::ask(&channel(&gateway).await, GET_BOOK, REQUEST.into(), &[]).await.unwrap();
    assert_eq!(reply, REPLY);
    let both = BOOKSTORE
        .replace(
            "import \"natsgateway/v1/route",
            "import \"nats/gateway/v1/route.proto\";\nimport \"natsgateway/v1/route",
        )
        .replace(
            "    option (natsgateway.v1.route)",
            "    option (nats.gateway.v1.route) = {subject: \"old\"};\n    option (natsgateway.v1.route)",
        );
    let (_folder, file) = folder(&both);
    let error = Gateway::start(serving(file, &nats.url())).await.err().expect("it is refused").to_string();
    assert!(error.contains("under both its names"), "{error}");
    gateway.drain().await;
}

#[tokio::test]
async fn the_order_system_and_other_contracts_are_served_side_by_side() {
    let nats = nats(None).await;
    let (_folder, file) = folder(BOOKSTORE);
    let config = Serve { orders: Some(true), ..serving(file, &nats.url()) };
    let gateway = Gateway::start(config).await.unwrap();
    let _service = bookstore(async_nats::connect(nats.url()).await.unwrap()).await;
    until("the books are up", async || gateway.up("bookstore.v1.Books") == Some(true)).await;
    let channel = channel(&gateway).await;
    assert_eq!(codec::ask(&channel, GET_BOOK, REQUEST.into(), &[]).await.unwrap(), REPLY);
    let names = crate::clients::services(channel).await;
    for wanted in ["bookstore.v1.Books", "orders.v1.OrderService", "inventory.v1.InventoryService"] {
        assert!(names.contains(&wanted.to_owned()), "{names:?}");
    }
    gateway.drain().await;
}

#[tokio::test]
async fn a_contract_that_is_wrong_stops_the_start_with_its_line() {
    let nats = nats(None).await;
    for (wrong, line) in [
        (BOOKSTORE.replace("books.get", "books.*"), "books.proto:8: bookstore.v1.Books.GetBook: the subject"),
        (BOOKSTORE.replace("int32 pages", "int33 pages"), "books.proto:15:"),
        (BOOKSTORE.replace("Books {", "Books { rpc Put(Book) returns (Book);"), "has no route"),
    ] {
        let (_folder, file) = folder(&wrong);
        let error =
            Gateway::start(serving(file, &nats.url())).await.err().expect("it is refused").to_string();
        assert!(error.contains(line), "{error}");
    }
}

#[tokio::test]
async fn the_permissions_of_routes_are_enough_for_the_gateway_and_its_services() {
    let (_folder, file) = folder(BOOKSTORE);
    let sources = Options { proto: vec![file.clone()], ..Options::default() };
    let printed = gateway::permissions::permissions(&contracts::read(&sources, false).unwrap());
    let users = "authorization { users: [
        {user: gateway, password: \"gateway's secret\", permissions: $gateway_may}
        {user: books, password: \"a secret\", permissions: $bookstore_v1_Books_may}
    ] }";
    let nats = nats(Some(format!("{printed}\n{users}"))).await;
    let config = Serve { nats: roles::options(&nats.url(), "gateway"), ..serving(file, "") };
    let gateway = Gateway::start(config).await.unwrap();
    let options = ConnectOptions::new().user_and_password("books".to_owned(), "a secret".to_owned());
    let _service = bookstore(options.connect(nats.url()).await.unwrap()).await;
    until("the books are up", async || gateway.up("bookstore.v1.Books") == Some(true)).await;
    let reply = codec::ask(&channel(&gateway).await, GET_BOOK, REQUEST.into(), &[]).await.unwrap();
    assert_eq!(reply, REPLY);
    let foreign = roles::RoleClient::of(&nats.url(), "gateway").await;
    foreign.publish_is_denied("books.burn", "").await;
    gateway.drain().await;
}

#[tokio::test]
async fn a_gateway_is_ready_without_a_service_unless_it_is_told_to_wait_for_it() {
    let nats = nats(None).await;
    let (_folder, file) = folder(BOOKSTORE);
    let waiting =
        Serve { ready_on: vec!["bookstore.v1.Books".to_owned()], ..serving(file.clone(), &nats.url()) };
    let wrong = Serve { ready_on: vec!["bookstore.v1.Book".to_owned()], ..waiting.clone() };
    let error = Gateway::start(wrong).await.err().expect("it is refused").to_string();
    assert!(error.contains("name one of bookstore.v1.Books"), "{error}");
    let (waiting, other) =
        (Gateway::start(waiting).await.unwrap(), Gateway::start(serving(file, &nats.url())).await.unwrap());
    until("one of them is ready", async || other.up("") == Some(true)).await;
    assert_eq!((other.up("bookstore.v1.Books"), waiting.up("")), (Some(false), Some(false)));
    let _service = bookstore(async_nats::connect(nats.url()).await.unwrap()).await;
    until("the other is ready", async || waiting.up("") == Some(true)).await;
    waiting.drain().await;
    other.drain().await;
}

#[tokio::test]
async fn a_stream_that_is_gone_takes_the_order_system_down_and_no_other_service() {
    let nats = nats(None).await;
    let (_folder, file) = folder(BOOKSTORE);
    let gateway = Gateway::start(Serve { orders: Some(true), ..serving(file, &nats.url()) }).await.unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    let _service = bookstore(client.clone()).await;
    until("the books are up", async || gateway.up("bookstore.v1.Books") == Some(true)).await;
    async_nats::jetstream::new(client).delete_stream("INVENTORY").await.unwrap();
    let told = async || answer(gateway.http_addr(), "/healthz").await;
    until("the gateway misses the stream", async || told().await.contains("INVENTORY")).await;
    // Health is written anew every 100 ms.
    until("orders are down", async || gateway.up("orders.v1.OrderService") == Some(false)).await;
    assert_eq!((gateway.up("bookstore.v1.Books"), gateway.up("")), (Some(true), Some(false)));
    codec::ask(&channel(&gateway).await, GET_BOOK, REQUEST.into(), &[]).await.unwrap();
    gateway.drain().await;
}

#[tokio::test]
async fn a_service_that_only_calls_can_tell_of_is_unknown_until_they_do() {
    let nats = nats(None).await;
    let (_folder, file) = folder(BOOKSTORE);
    let gateway = Gateway::start(serving(file, &nats.url())).await.unwrap();
    until("the gateway itself is up", async || gateway.up("") == Some(true)).await;
    let channel = channel(&gateway).await;
    let health = async || {
        let request = HealthCheckRequest { service: "bookstore.v1.Books".to_owned() };
        HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner().status()
    };
    let page = async || answer(gateway.http_addr(), "/metrics").await;
    assert_eq!(health().await, ServingStatus::Unknown);
    assert!(!page().await.contains(r#"gateway_service_up{service="bookstore.v1.Books"}"#));
    let call = async || codec::ask(&channel, GET_BOOK, REQUEST.into(), &[]).await;
    until("calls have found nobody", async || {
        call().await.unwrap_err();
        health().await == ServingStatus::NotServing
    })
    .await;
    // A plain subscription, which discovery does not find.
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut requests = client.queue_subscribe("books.get", "books".to_owned()).await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            client.publish(request.reply.unwrap(), r#"{"title":"b-7","pages":3}"#.into()).await.unwrap();
        }
    });
    until("a call is answered", async || call().await.is_ok()).await;
    until("health says so", async || health().await == ServingStatus::Serving).await;
    assert!(page().await.contains("gateway_service_up{service=\"bookstore.v1.Books\"} 1\n"));
    gateway.drain().await;
}
