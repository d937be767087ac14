//! Subscriptions: what is published on a subject reaches all who watch it, and nothing is missed without a word.

mod stored;

use std::time::Duration;

use gateway::Gateway;
use gateway::config::Serve;
use prost::Message as _;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::harness::client::settled;
use crate::harness::codec;
use crate::harness::http::answer;
use crate::harness::proxy::Proxy;
use crate::harness::roles::{self, RoleClient};
use crate::harness::system::{PATIENCE, assert_refused, reason, until};

const PROTO: &str = include_str!("fixtures/events.proto");

#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub customer: String,
    #[prost(string, tag = "2")]
    pub after: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    #[prost(string, tag = "1")]
    pub text: String,
    #[prost(string, tag = "2")]
    pub token: String,
}

/// A folder with `events.proto`, and how it is served.
fn sources(proto: &str) -> (TempDir, catalog_sources::Options) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.proto");
    std::fs::write(&file, proto).unwrap();
    (folder, catalog_sources::Options { proto: vec![file], ..Default::default() })
}

/// A nats-server and a gateway that serves the events.
pub struct Fixture {
    pub gateway: Gateway,
    pub nats: local_nats::Server,
    pub client: async_nats::Client,
    pub config: Serve,
    _folder: TempDir,
}

impl Fixture {
    pub async fn start() -> Fixture {
        Fixture::with(async |_| None).await
    }

    /// With the gateway's connections through the proxy that `between` makes, if any.
    async fn with(between: impl AsyncFnOnce(u16) -> Option<String>) -> Fixture {
        let nats = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
        let (folder, sources) = sources(PROTO);
        let url = between(nats.port()).await.unwrap_or_else(|| nats.url());
        let config = Serve { sources, threads: 1, ..Serve::at(url) };
        let gateway = Gateway::start(config.clone()).await.unwrap();
        let client = async_nats::connect(nats.url()).await.unwrap();
        Fixture { gateway, nats, client, config, _folder: folder }
    }

    pub async fn channel(&self) -> Channel {
        self.endpoint().connect().await.unwrap()
    }

    fn endpoint(&self) -> Endpoint {
        endpoint(&self.gateway)
    }

    pub async fn publish(&self, subject: &str, text: &str) {
        let payload = serde_json::json!({ "text": text }).to_string();
        self.client.publish(subject.to_owned(), payload.into()).await.unwrap();
        settled(&self.client).await;
    }

    /// How many subscriptions to a subject the server has.
    async fn subscriptions(&self, subject: &str) -> usize {
        let address = ([127, 0, 0, 1], self.nats.monitor_port()).into();
        let told = answer(address, "/connz?subs=1").await;
        told.matches(&format!("\"{subject}\"")).count()
    }
}

fn endpoint(gateway: &Gateway) -> Endpoint {
    Endpoint::from_shared(format!("http://{}", gateway.grpc_addr())).unwrap()
}

/// A stream of events.
pub struct Watch {
    pub stream: Streaming<bytes::Bytes>,
    /// The last token.
    pub token: String,
    pub delivery: String,
}

impl Watch {
    pub async fn open(channel: &Channel, rpc: &str, customer: &str, after: &str) -> Result<Watch, Status> {
        let request = Request { customer: customer.to_owned(), after: after.to_owned() };
        let path = format!("/events.v1.Events/{rpc}");
        let response = codec::open(channel, &path, request.encode_to_vec().into(), &[]).await?;
        let header = |name| response.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (token, delivery) = (header("stream-token"), header("stream-delivery"));
        Ok(Watch {
            token: token.unwrap_or_default(),
            delivery: delivery.unwrap_or_default(),
            stream: response.into_inner(),
        })
    }

    /// What comes next.
    pub async fn next(&mut self) -> Result<String, Status> {
        let next = tokio::time::timeout(PATIENCE, self.stream.message()).await.expect("a message in time");
        let event = Event::decode(next?.expect("no end without a status")).unwrap();
        self.token = event.token;
        Ok(event.text)
    }

    /// What comes next, as long as nothing fails.
    pub async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(self.next().await.unwrap());
        }
        texts
    }

    /// How it ends, behind any messages.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

#[tokio::test]
async fn watchers_see_what_is_published_after_their_response_began_and_share_one_subscription() {
    let fixture = Fixture::start().await;
    let channel = fixture.channel().await;
    fixture.publish("events.ann", "before").await;
    let mut one = Watch::open(&channel, "Watch", "ann", "").await.unwrap();
    assert_eq!(one.delivery, "at-most-once");
    fixture.publish("events.ann", "1").await;
    assert_eq!(one.next().await.unwrap(), "1");
    let mut two = Watch::open(&channel, "Watch", "ann", "").await.unwrap();
    fixture.publish("events.ann", "2").await;
    assert_eq!((one.next().await.unwrap(), two.next().await.unwrap()), ("2".to_owned(), "2".to_owned()));
    assert_eq!(fixture.subscriptions("events.ann").await, 1);
    drop(one);
    fixture.publish("events.ann", "3").await;
    assert_eq!(two.next().await.unwrap(), "3");
    drop(two);
    until("nobody subscribes", async || fixture.subscriptions("events.ann").await == 0).await;
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn the_permissions_of_routes_are_enough_for_subscriptions() {
    let (_folder, sources) = sources(PROTO);
    let printed = gateway::permissions::permissions(&gateway::contracts::read(&sources, false).unwrap());
    let users = "authorization { users: [
        {user: gateway, password: \"gateway's secret\", permissions: $gateway_may}
        {user: events, password: \"events's secret\", permissions: $events_v1_Events_may}
        {user: admin, password: \"admin's secret\"}
    ] }";
    let options = local_nats::Options { config: Some(format!("{printed}\n{users}")), ..Default::default() };
    let nats = tokio::task::spawn_blocking(|| local_nats::Server::with(options)).await.unwrap().unwrap();
    let nats_options = roles::options(&nats.url(), "gateway");
    let config = Serve { sources, threads: 1, nats: nats_options, ..Serve::at("") };
    let (admin, service) =
        (RoleClient::of(&nats.url(), "admin").await, RoleClient::of(&nats.url(), "events").await);
    stored::create(&admin.client).await;
    let gateway = Gateway::start(config).await.unwrap();
    let channel = endpoint(&gateway).connect().await.unwrap();
    for (rpc, subject) in [("Watch", "events.ann"), ("Follow", "stored.ann")] {
        let mut watch = Watch::open(&channel, rpc, "ann", "").await.unwrap();
        service.client.publish(subject, r#"{"text": "1"}"#.into()).await.unwrap();
        assert_eq!(watch.next().await.unwrap(), "1");
    }
    service.publish_is_denied("other.ann", "").await;
    gateway.drain().await;
}

#[tokio::test]
async fn a_subscription_that_nats_does_not_permit_is_refused() {
    let (_folder, sources) = sources(PROTO);
    let config = "authorization { users: [
        {user: gateway, password: \"gateway's secret\", permissions: {subscribe: {deny: \"events.>\"}}}
    ] }";
    let options = local_nats::Options { config: Some(config.to_owned()), ..Default::default() };
    let nats = tokio::task::spawn_blocking(|| local_nats::Server::with(options)).await.unwrap().unwrap();
    let nats_options = roles::options(&nats.url(), "gateway");
    let config = Serve { sources, threads: 1, nats: nats_options, ..Serve::at("") };
    let gateway = Gateway::start(config).await.unwrap();
    let channel = endpoint(&gateway).connect().await.unwrap();
    let refused = match Watch::open(&channel, "Watch", "ann", "").await {
        Err(status) => status,
        Ok(mut watch) => watch.end().await,
    };
    assert_eq!(reason(&refused), "GATEWAY_NOT_PERMITTED");
    gateway.drain().await;
}

#[tokio::test]
async fn the_fields_of_a_subject_keep_customers_apart() {
    let fixture = Fixture::start().await;
    let channel = fixture.channel().await;
    let mut ann = Watch::open(&channel, "Watch", "ann", "").await.unwrap();
    let mut bob = Watch::open(&channel, "Watch", "bob", "").await.unwrap();
    fixture.publish("events.bob", "for bob").await;
    fixture.publish("events.ann", "for ann").await;
    assert_eq!(ann.next().await.unwrap(), "for ann");
    assert_eq!(bob.next().await.unwrap(), "for bob");
    for wildcard in ["*", ">", "a.b", ""] {
        let refused = Watch::open(&channel, "Watch", wildcard, "").await.map(|_| ());
        assert_refused(refused, "INVALID_REQUEST");
    }
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn a_route_has_as_many_watchers_as_it_says() {
    let nats = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
    let (_folder, sources) = sources(&PROTO.replace("max_in_flight: 4096", "max_in_flight: 2"));
    let gateway = Gateway::start(Serve { sources, threads: 1, ..Serve::at(nats.url()) }).await.unwrap();
    let channel = endpoint(&gateway).connect().await.unwrap();
    let open = async |customer| Watch::open(&channel, "Watch", customer, "").await;
    let (one, _two) = (open("ann").await.unwrap(), open("bob").await.unwrap());
    assert_refused(open("ann").await.map(|_| ()), "OVERLOADED");
    drop(one);
    until("there is room", async || open("ann").await.is_ok()).await;
    gateway.drain().await;
}

#[tokio::test]
async fn a_watcher_is_told_to_move_when_its_connection_has_reached_its_age() {
    let nats = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
    let (_folder, sources) = sources(PROTO);
    let mut config = Serve { sources, threads: 1, ..Serve::at(nats.url()) };
    config.limits.max_connection_age = Duration::from_secs(1);
    config.limits.max_connection_age_grace = Duration::from_secs(1);
    let gateway = Gateway::start(config).await.unwrap();
    let channel = endpoint(&gateway).connect().await.unwrap();
    let mut watch = Watch::open(&channel, "Watch", "ann", "").await.unwrap();
    assert_eq!(reason(&watch.end().await), "DRAINING");
    Watch::open(&channel, "Watch", "ann", "").await.unwrap();
    gateway.drain().await;
}

#[tokio::test]
async fn an_event_of_nestjs_is_taken_out_of_its_envelope() {
    let nats = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
    let (_folder, sources) = sources(&PROTO.replace("max_in_flight: 4096", "envelope: ENVELOPE_NEST"));
    let gateway = Gateway::start(Serve { sources, threads: 1, ..Serve::at(nats.url()) }).await.unwrap();
    let channel = endpoint(&gateway).connect().await.unwrap();
    let mut watch = Watch::open(&channel, "Watch", "ann", "").await.unwrap();
    let client = async_nats::connect(nats.url()).await.unwrap();
    for payload in [r#"{"pattern": "events.ann", "data": {"text": "1"}}"#, r#"{"text": "2"}"#] {
        client.publish("events.ann", payload.into()).await.unwrap();
    }
    assert_eq!(watch.texts(2).await, ["1", "2"]);
    gateway.drain().await;
}

#[tokio::test]
async fn a_message_that_violates_the_contract_is_left_out_and_counted() {
    let fixture = Fixture::start().await;
    let mut watch = Watch::open(&fixture.channel().await, "Watch", "ann", "").await.unwrap();
    for payload in ["nonsense", r#"{"text": 7}"#, r#"{"text": "fine"}"#] {
        fixture.client.publish("events.ann", payload.into()).await.unwrap();
    }
    assert_eq!(watch.next().await.unwrap(), "fine");
    let metrics = answer(fixture.gateway.http_addr(), "/metrics").await;
    assert!(metrics.contains("gateway_route_skipped_total{route=\"events.{customer}\"} 2"), "{metrics}");
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn a_watcher_that_reads_too_slowly_ends_alone() {
    let fixture = Fixture::start().await;
    let narrow = fixture.endpoint().initial_stream_window_size(1 << 16).connect().await.unwrap();
    let mut slow = Watch::open(&narrow, "Watch", "ann", "").await.unwrap();
    let mut quick = Watch::open(&fixture.channel().await, "Watch", "ann", "").await.unwrap();
    let text = "x".repeat(32 << 10);
    for _ in 0..20 {
        for _ in 0..20 {
            fixture.publish("events.ann", &text).await;
        }
        assert!(quick.texts(20).await.iter().all(|got| *got == text));
    }
    let end = slow.end().await;
    assert_eq!((end.code(), reason(&end).as_str()), (tonic::Code::ResourceExhausted, "SLOW_CLIENT"));
    fixture.publish("events.ann", "more").await;
    assert_eq!(quick.next().await.unwrap(), "more");
    fixture.gateway.drain().await;
}

#[tokio::test]
async fn a_lost_connection_ends_watches_of_a_subject_and_a_new_one_begins_when_it_is_back() {
    let mut proxy = None;
    let fixture = Fixture::with(async |port| Some(proxy.insert(Proxy::to(port).await).url())).await;
    let (proxy, channel) = (proxy.unwrap(), fixture.channel().await);
    let mut watch = Watch::open(&channel, "Watch", "ann", "").await.unwrap();
    fixture.publish("events.ann", "1").await;
    assert_eq!(watch.next().await.unwrap(), "1");
    proxy.cut();
    assert_eq!(reason(&watch.end().await), "NATS_DISCONNECTED");
    assert_refused(Watch::open(&channel, "Watch", "ann", "").await.map(|_| ()), "NATS_DISCONNECTED");
    proxy.restore();
    let mut watch = None;
    until("a watch begins", async || {
        watch = Watch::open(&channel, "Watch", "ann", "").await.ok();
        watch.is_some()
    })
    .await;
    fixture.publish("events.ann", "2").await;
    assert_eq!(watch.unwrap().next().await.unwrap(), "2");
    fixture.gateway.drain().await;
}
