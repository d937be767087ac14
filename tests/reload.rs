//! Contracts that change while a gateway serves them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_nats::Subscriber;
use bytes::Bytes;
use catalog_sources::Options;
use futures_util::StreamExt as _;
use gateway::Gateway;
use gateway::config::Serve;
use server::auth::apikey;
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::contracts::{BOOKSTORE, GET_BOOK, REPLY, REQUEST, bookstore, channel, folder, nats, serving};
use crate::harness::client::{next, settled};
use crate::harness::codec;
use crate::harness::http::answer;
use crate::harness::system::{PATIENCE, reason, until};

const ROUTE: &str = "{subject: \"books.get\" queue_group: \"books\" retries: 2}";
const RATE: &str = "/bookstore.v1.Ratings/Rate";
/// What a service answers.
const ANSWER: &str = r#"{"title":"b-7","pages":3}"#;
/// Another service, whose rpc has the subject of the first.
const RATINGS: &str = "
    service Ratings {
      rpc Rate(GetBookRequest) returns (Book) {
        option idempotency_level = NO_SIDE_EFFECTS;
        option (natsgateway.v1.access) = {scope: \"books.read\"};
        option (natsgateway.v1.route) = {subject: \"books.get\" queue_group: \"books\" retries: 2};
      }
    }";

/// A gateway that serves a proto file.
struct Shop {
    gateway: Gateway,
    channel: Channel,
    client: async_nats::Client,
    file: PathBuf,
    _folder: TempDir,
    _nats: local_nats::Server,
}

impl Shop {
    async fn open(proto: &str, change: impl FnOnce(&mut Serve)) -> Shop {
        let nats = nats(None).await;
        let (folder, file) = folder(proto);
        let mut config = serving(file.clone(), &nats.url());
        config.threads = 2;
        change(&mut config);
        let gateway = Gateway::start(config).await.unwrap();
        let client = async_nats::connect(nats.url()).await.unwrap();
        Shop { channel: channel(&gateway).await, gateway, client, file, _folder: folder, _nats: nats }
    }

    /// The file gets this text at once, as by an editor or a volume.
    fn write(&self, proto: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, proto).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// The same, and the gateway is asked to read it, until so many reloads have ended like this.
    async fn reload(&self, proto: &str, result: &str, count: u32) {
        self.write(proto);
        self.gateway.reloads().ask();
        let line = format!("gateway_catalog_reloads_total{{result=\"{result}\"}} {count}\n");
        until(&line, async || self.metrics().await.contains(&line)).await;
    }

    async fn metrics(&self) -> String {
        answer(self.gateway.http_addr(), "/metrics").await
    }

    async fn call(&self, path: &str) -> Result<Vec<u8>, Status> {
        codec::ask(&self.channel, path, REQUEST.into(), &[]).await.map(Into::into)
    }

    /// A call that is in flight: its request has arrived at this subscriber.
    async fn begin(
        &self,
        requests: &mut Subscriber,
    ) -> (tokio::task::JoinHandle<Result<Vec<u8>, Status>>, async_nats::Message) {
        let channel = self.channel.clone();
        let call = async move { codec::ask(&channel, GET_BOOK, REQUEST.into(), &[]).await.map(Into::into) };
        let call = tokio::spawn(call);
        (call, next(requests).await)
    }

    /// A service that answers when the test does.
    async fn requests(&self) -> Subscriber {
        let requests = self.client.queue_subscribe("books.get", "books".to_owned()).await.unwrap();
        settled(&self.client).await;
        requests
    }

    async fn reply(&self, request: async_nats::Message) {
        let reply = request.reply.unwrap();
        self.client.publish(reply, ANSWER.into()).await.unwrap();
    }

    /// A stream whose first reply has arrived, and where the service sends the others.
    async fn stream(
        &self,
        path: &str,
        credentials: &[(&'static str, &str)],
        requests: &mut Subscriber,
    ) -> (Streaming<Bytes>, async_nats::Subject) {
        let answered = async {
            let request = next(requests).await;
            let inbox = request.reply.clone().unwrap();
            self.reply(request).await;
            inbox
        };
        let open = async { codec::call(&self.channel, path, REQUEST.into(), credentials).await.unwrap() };
        let (mut opened, inbox) = tokio::join!(open, answered);
        assert_eq!(opened.message().await.unwrap().unwrap(), REPLY);
        (opened, inbox)
    }

    async fn watch(&self, service: &str) -> impl Stream<Item = i32> + Unpin + use<> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let watch = HealthClient::new(self.channel.clone()).watch(request).await.unwrap();
        watch.into_inner().map(|status| status.unwrap().status)
    }
}

/// A key with a scope of this proto, and its line in a list.
pub fn key(proto: &str, scope: &str) -> (String, String) {
    let (_folder, file) = folder(proto);
    let sources = Options { proto: vec![file], ..Options::default() };
    let catalog = gateway::contracts::read(&sources, false).unwrap();
    let new = apikey::new(&catalog, "reader", &[scope.to_owned()], None).unwrap();
    (new.key.to_string(), new.line)
}

/// A service with a stream of replies, whose rpc has this scope.
fn streaming(name: &str, scope: &str) -> String {
    streaming_to(name, &format!("scope: \"{scope}\""))
}

/// The same with this access.
fn streaming_to(name: &str, access: &str) -> String {
    let route = "{subject: \"books.list\" kind: KIND_REQUEST_MANY timeout: {seconds: 60}}";
    format!(
        "service {name} {{ rpc List(GetBookRequest) returns (stream Book) {{
           option (natsgateway.v1.access) = {{{access}}};
           option (natsgateway.v1.route) = {route};
         }} }}"
    )
}

/// The proto with another route of its rpc.
fn routed(route: &str) -> String {
    BOOKSTORE.replace(ROUTE, route)
}

#[tokio::test]
async fn a_changed_file_is_served_while_old_calls_go_on() {
    let shop = Shop::open(BOOKSTORE, |_| ()).await;
    let mut requests = shop.requests().await;
    let (old, request) = shop.begin(&mut requests).await;
    assert_eq!(shop.call(RATE).await.unwrap_err().code(), Code::Unimplemented);
    // Nobody asks: the file is watched.
    shop.write(&format!("{BOOKSTORE}{RATINGS}"));
    let _service = bookstore(shop.client.clone()).await;
    drop(requests);
    until("the new rpc answers", async || shop.call(RATE).await.is_ok()).await;
    assert!(!old.is_finished());
    shop.reply(request).await;
    assert_eq!(old.await.unwrap().unwrap(), REPLY);
    assert_eq!(shop.call(GET_BOOK).await.unwrap(), REPLY);
    shop.gateway.drain().await;
}

#[tokio::test]
async fn health_and_reflection_follow_the_contract() {
    let shop = Shop::open(BOOKSTORE, |config| config.allow_breaking = true).await;
    let _service = bookstore(shop.client.clone()).await;
    let mut watch = shop.watch("bookstore.v1.Ratings").await;
    assert_eq!(watch.next().await, Some(ServingStatus::ServiceUnknown as i32));
    shop.reload(&format!("{BOOKSTORE}{RATINGS}"), "taken", 1).await;
    let serves = (&mut watch).any(async |seen| seen == ServingStatus::Serving as i32);
    assert!(timeout(PATIENCE, serves).await.expect("its service is found"));
    let reflected = async || crate::clients::services(shop.channel.clone()).await;
    let shows = async || reflected().await.contains(&"bookstore.v1.Ratings".to_owned());
    until("reflection shows it", shows).await;
    shop.reload(BOOKSTORE, "taken", 2).await;
    assert_eq!(watch.next().await, Some(ServingStatus::ServiceUnknown as i32));
    assert_eq!(shop.gateway.up("bookstore.v1.Ratings"), None);
    until("reflection shows it no more", async || !shows().await).await;
    until("it is gone", async || shop.call(RATE).await.is_err_and(|s| s.code() == Code::Unimplemented)).await;
    until("its metrics are gone", async || !shop.metrics().await.contains("Ratings/Rate")).await;
    shop.reload(&BOOKSTORE.replace("Books {", "Papers {").replace("books.get", "papers.get"), "taken", 3)
        .await;
    let forgotten = async || !shop.metrics().await.contains("books.get");
    until("nothing is left of the first contract", forgotten).await;
    shop.gateway.drain().await;
}

#[tokio::test]
async fn no_call_fails_while_contracts_are_reloaded() {
    let shop = Arc::new(Shop::open(BOOKSTORE, |_| ()).await);
    let _service = bookstore(shop.client.clone()).await;
    until("the books are there", async || shop.call(GET_BOOK).await.is_ok()).await;
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (shop, stop, calls) = (shop.clone(), stop.clone(), calls.clone());
            tokio::spawn(async move {
                let channel = channel(&shop.gateway).await;
                while !stop.load(Ordering::Relaxed) {
                    let reply = codec::ask(&channel, GET_BOOK, REQUEST.into(), &[]).await.unwrap();
                    assert_eq!(reply, REPLY);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut proto = BOOKSTORE.to_owned();
    for number in 1..=20 {
        let before = calls.load(Ordering::Relaxed);
        proto += &RATINGS.replace("Ratings", &format!("Ratings{number}"));
        shop.reload(&proto, "taken", number).await;
        until("calls go on", async || calls.load(Ordering::Relaxed) > before).await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let counted = shop.metrics().await;
    let line = counted.lines().find(|line| line.contains(r#"GetBook",code="OK""#)).unwrap();
    let total: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(total >= calls.load(Ordering::Relaxed), "the count goes on: {line}");
}

#[tokio::test]
async fn what_is_wrong_or_breaks_clients_is_refused_and_told() {
    let shop = Shop::open(BOOKSTORE, |_| ()).await;
    let _service = bookstore(shop.client.clone()).await;
    let told = async || answer(shop.gateway.http_addr(), "/healthz").await;
    until("the books are there", async || shop.call(GET_BOOK).await.is_ok()).await;
    shop.reload(&BOOKSTORE.replace("int32 pages", "int33 pages"), "invalid", 1).await;
    assert!(told().await.contains(r#""refused":"invalid""#));
    let pages = BOOKSTORE.replace("int32 pages = 2", "string pages = 2");
    for (number, breaking) in [pages, routed("{subject: \"books.find\"}")].iter().enumerate() {
        shop.reload(breaking, "breaking", u32::try_from(number).unwrap() + 1).await;
        assert!(told().await.contains(r#""refused":"breaking""#));
        assert!(shop.metrics().await.contains("gateway_catalog_refused 1\n"));
        assert_eq!(shop.call(GET_BOOK).await.unwrap(), REPLY);
    }
    shop.reload(BOOKSTORE, "unchanged", 1).await;
    assert!(told().await.contains(r#""refused":null"#));
    shop.gateway.drain().await;
}

#[tokio::test]
async fn a_route_at_its_limit_stays_there_until_the_limit_is_another() {
    let limited = |most: u32| {
        routed(&format!("{{subject: \"books.get\" queue_group: \"books\" max_in_flight: {most}}}"))
    };
    let shop = Shop::open(&limited(1), |_| ()).await;
    let mut requests = shop.requests().await;
    let (first, request) = shop.begin(&mut requests).await;
    shop.reload(&format!("{}{RATINGS}", limited(1)).replace(" retries: 2", ""), "taken", 1).await;
    until("the new rpc is served", async || {
        crate::clients::services(shop.channel.clone()).await.contains(&"bookstore.v1.Ratings".to_owned())
    })
    .await;
    let refused = shop.call(GET_BOOK).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    shop.reload(&format!("{}{RATINGS}", limited(2)).replace(" retries: 2", ""), "taken", 2).await;
    let (second, other) = shop.begin(&mut requests).await;
    assert_eq!(reason(&shop.call(GET_BOOK).await.unwrap_err()), "OVERLOADED");
    for request in [request, other] {
        shop.reply(request).await;
    }
    for call in [first, second] {
        assert_eq!(call.await.unwrap().unwrap(), REPLY);
    }
    shop.gateway.drain().await;
}

#[tokio::test]
async fn a_removed_rpc_ends_its_streams_and_a_kept_one_does_not() {
    let [kept, gone] = ["Kept", "Gone"].map(|name| streaming(name, "books.read"));
    let shop = Shop::open(&format!("{BOOKSTORE}{kept}{gone}"), |config| config.allow_breaking = true).await;
    let mut requests = shop.client.subscribe("books.list").await.unwrap();
    settled(&shop.client).await;
    let (mut ends, _) = shop.stream("/bookstore.v1.Gone/List", &[], &mut requests).await;
    let (mut stays, inbox) = shop.stream("/bookstore.v1.Kept/List", &[], &mut requests).await;
    shop.reload(&format!("{BOOKSTORE}{kept}"), "taken", 1).await;
    let ended = ends.message().await.unwrap_err();
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unimplemented, "UNKNOWN_RPC"));
    shop.client.publish(inbox, ANSWER.into()).await.unwrap();
    assert_eq!(stays.message().await.unwrap().unwrap(), REPLY);
    drop(stays);
    shop.gateway.drain().await;
}

#[tokio::test]
async fn keys_learn_the_scopes_of_a_new_contract() {
    let rated = format!("{BOOKSTORE}{}", RATINGS.replace("books.read", "books.rate"));
    let list = tempfile::NamedTempFile::new().unwrap();
    let ((old, line), (new, another)) = (key(BOOKSTORE, "books.read"), key(&rated, "books.rate"));
    std::fs::write(list.path(), &line).unwrap();
    let shop = Shop::open(BOOKSTORE, |config| config.access.api_keys = Some(list.path().into())).await;
    let _service = bookstore(shop.client.clone()).await;
    // Until the contract has the scope, the line is wrong.
    std::fs::write(list.path(), format!("{line}\n{another}\n")).unwrap();
    shop.reload(&rated, "taken", 1).await;
    let code = async |key: &str| {
        let answer = codec::ask(&shop.channel, RATE, REQUEST.into(), &[("x-api-key", key)]).await;
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    until("the new key is good", async || code(&new).await == Code::Ok).await;
    assert_eq!(code(&old).await, Code::PermissionDenied);
    shop.gateway.drain().await;
}

#[tokio::test]
async fn a_stream_is_rechecked_by_the_rule_that_is_in_force() {
    let list = tempfile::NamedTempFile::new().unwrap();
    let (key, line) = key(BOOKSTORE, "books.read");
    std::fs::write(list.path(), line).unwrap();
    let proto = |scope: &str| format!("{BOOKSTORE}{}", streaming("Lists", scope));
    let change = |config: &mut Serve| {
        (config.allow_breaking, config.access.api_keys) = (true, Some(list.path().into()));
    };
    let shop = Shop::open(&proto("books.read"), change).await;
    let mut requests = shop.client.subscribe("books.list").await.unwrap();
    settled(&shop.client).await;
    let (path, credentials) = ("/bookstore.v1.Lists/List", [("x-api-key", &*key)]);
    let (mut stream, _) = shop.stream(path, &credentials, &mut requests).await;
    shop.reload(&proto("books.list"), "taken", 1).await;
    let ended = stream.message().await.unwrap_err();
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::PermissionDenied, "PERMISSION_DENIED"));
    shop.gateway.drain().await;
}

#[tokio::test]
async fn a_stream_ends_when_its_rpc_is_no_longer_public_or_is_for_one_tenant() {
    let list = tempfile::NamedTempFile::new().unwrap();
    let (key, line) = key(BOOKSTORE, "books.read");
    std::fs::write(list.path(), format!("{line} b-7")).unwrap();
    let proto = |access: &str| format!("{BOOKSTORE}{}", streaming_to("Lists", access));
    let change = |config: &mut Serve| {
        (config.allow_breaking, config.access.api_keys) = (true, Some(list.path().into()));
    };
    let shop = Shop::open(&proto("public: true"), change).await;
    let mut requests = shop.client.subscribe("books.list").await.unwrap();
    settled(&shop.client).await;
    let path = "/bookstore.v1.Lists/List";
    let (mut stream, _) = shop.stream(path, &[], &mut requests).await;
    shop.reload(&proto("scope: \"books.read\""), "taken", 1).await;
    let ended = stream.message().await.unwrap_err();
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unauthenticated, "UNAUTHENTICATED"));
    let (mut stream, _) = shop.stream(path, &[("x-api-key", &*key)], &mut requests).await;
    shop.reload(&proto("scope: \"books.read\" tenant_field: \"book_id\""), "taken", 2).await;
    let ended = stream.message().await.unwrap_err();
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::PermissionDenied, "PERMISSION_DENIED"));
    // The request of this one is for the tenant of its key.
    shop.stream(path, &[("x-api-key", &*key)], &mut requests).await;
    shop.gateway.drain().await;
}

#[tokio::test]
async fn where_callers_are_known_a_contract_with_an_rpc_without_a_rule_is_not_served() {
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), key(BOOKSTORE, "books.read").1).unwrap();
    let unruled = format!(
        "{BOOKSTORE}{}",
        streaming_to("Lists", "public: true").replace("option (natsgateway.v1.access) = {public: true};", "")
    );
    let shop = Shop::open(BOOKSTORE, |config| config.access.api_keys = Some(list.path().into())).await;
    shop.reload(&unruled, "invalid", 1).await;
    let public = format!("{BOOKSTORE}{}", streaming_to("Lists", "public: true"));
    shop.reload(&public, "taken", 1).await;
    let mut config = serving(shop.file.clone(), &shop._nats.url());
    config.access.api_keys = Some(list.path().into());
    shop.write(&unruled);
    let refused = Gateway::start(config).await.err().expect("it does not start").to_string();
    assert!(refused.contains("books.proto:") && refused.contains("has no access rule"), "{refused}");
    shop.gateway.drain().await;
}
