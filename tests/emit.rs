//! Events of dynamic routes, and subjects with fields of the request.

use std::time::Duration;

use async_nats::ConnectOptions;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::timeout;
use tonic::Code;

use crate::harness::client::{next, settled};
use crate::harness::dynamic::{Dynamic, serving};
use crate::harness::proxy::Proxy;
use crate::harness::roles;
use crate::harness::system::{PATIENCE, reason, until};

/// `{"shelf": "a-7"}`.
const KEY: &[u8] = b"\x0a\x03a-7";

#[tokio::test]
async fn an_event_is_published_before_its_call_is_answered() {
    let library = Dynamic::start().await;
    let mut lent = library.client.subscribe("library.lent.*").await.unwrap();
    library.settled().await;
    assert!(library.ask("Lend", KEY).await.unwrap().is_empty());
    let event = timeout(PATIENCE, lent.next()).await.unwrap().unwrap();
    assert_eq!((event.subject.as_str(), event.reply), ("library.lent.a-7", None));
    let fields: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(fields["shelf"], "a-7");
    let headers = event.headers.unwrap();
    assert!(
        headers.get("Content-Type").is_some() && headers.get("Request-Deadline").is_none(),
        "{headers:?}"
    );
    library.gateway.drain().await;
}

#[tokio::test]
async fn an_event_that_needs_a_subscriber_fails_without_one() {
    let library = Dynamic::start().await;
    let alone = library.ask("Call", KEY).await.unwrap_err();
    assert_eq!((alone.code(), reason(&alone).as_str()), (Code::Unavailable, "NO_RESPONDERS"));
    let mut calls = library.client.subscribe("library.called").await.unwrap();
    library.settled().await;
    library.ask("Call", KEY).await.unwrap();
    timeout(PATIENCE, calls.next()).await.unwrap().unwrap();
    // Without that wish, nobody has to be there.
    library.ask("Lend", KEY).await.unwrap();
    library.gateway.drain().await;
}

#[tokio::test]
async fn an_event_for_a_service_of_nestjs_is_in_its_envelope() {
    let library = Dynamic::start().await;
    let mut told = library.client.subscribe("library.told").await.unwrap();
    library.settled().await;
    library.ask("Tell", KEY).await.unwrap();
    let event = timeout(PATIENCE, told.next()).await.unwrap().unwrap();
    let envelope: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!((&envelope["pattern"], &envelope["data"]["shelf"]), (&"library.told".into(), &"a-7".into()));
    assert!(envelope.get("id").is_none(), "{envelope}");
    library.gateway.drain().await;
}

#[tokio::test]
async fn an_event_is_never_kept_for_a_connection_and_one_in_the_dark_is_unknown() {
    let nats = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
    let proxy = Proxy::to(nats.port()).await;
    let library = Dynamic::with(|config, _| config.nats = nats::Options::at(proxy.url())).await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut lent = client.subscribe("library.lent.*").await.unwrap();
    settled(&client).await;
    proxy.mute_after("PUB library.lent.a-7");
    let dark = library.ask("Lend", KEY).await.unwrap_err();
    assert_eq!(dark.code(), Code::DeadlineExceeded, "{dark}");
    assert!(timeout(PATIENCE, lent.next()).await.unwrap().is_some());
    proxy.cut();
    let cut = library.ask("Lend", KEY).await.unwrap_err();
    assert_eq!(reason(&cut), "NATS_DISCONNECTED");
    assert!(timeout(Duration::from_millis(300), lent.next()).await.is_err());
}

#[tokio::test]
async fn what_is_no_token_is_refused_with_its_path_and_nothing_is_sent() {
    let library = Dynamic::start().await;
    let mut all = library.client.subscribe("library.>").await.unwrap();
    library.settled().await;
    for shelf in ["", "a.b", "*", ">", "a b"] {
        let key = [&[0x0a, u8::try_from(shelf.len()).unwrap()], shelf.as_bytes()].concat();
        let refused = library.ask("Lend", key).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("shelf"), "{refused}");
    }
    let unset = library.ask("Get", KEY).await.unwrap_err();
    assert!(unset.message().contains("inner.id") && unset.code() == Code::InvalidArgument, "{unset}");
    assert!(timeout(Duration::from_millis(300), all.next()).await.is_err());
    library.gateway.drain().await;
}

#[tokio::test]
async fn a_request_goes_to_the_subject_that_its_fields_make() {
    let library = Dynamic::start().await;
    library
        .serve("library.*.*.get", |client, request| async move {
            let text = format!(r#"{{"text":"{}"}}"#, request.subject);
            client.publish(request.reply.unwrap(), text.into()).await.unwrap();
        })
        .await;
    let page = library.ask("Get", &b"\x0a\x03a-7\x12\x04\x0a\x02b8"[..]).await.unwrap();
    assert_eq!(crate::harness::dynamic::text(&page), "library.a-7.b8.get");
    library.gateway.drain().await;
}

#[tokio::test]
async fn the_printed_permissions_are_enough_for_events_and_streams() {
    let folder = tempfile::tempdir().unwrap();
    let proto = include_str!("fixtures/kinds.proto");
    let sources = serving(&folder, proto, "").sources;
    let printed = gateway::permissions::permissions(&gateway::contracts::read(&sources, false).unwrap());
    let users = "authorization { users: [
        {user: gateway, password: \"gateway's secret\", permissions: $gateway_may}
        {user: library, password: \"a secret\", permissions: $library_v1_Library_may}
    ] }";
    let options = local_nats::Options { config: Some(format!("{printed}\n{users}")), ..Default::default() };
    let nats = tokio::task::spawn_blocking(|| local_nats::Server::with(options)).await.unwrap().unwrap();
    let library = Dynamic::with(|config, _| config.nats = roles::options(&nats.url(), "gateway")).await;
    let user = ConnectOptions::new().user_and_password("library".to_owned(), "a secret".to_owned());
    let service = user.custom_inbox_prefix("_INBOX_library").connect(nats.url()).await.unwrap();
    let mut calls = service.subscribe("library.called").await.unwrap();
    let mut reads = service.queue_subscribe("library.read", "library".to_owned()).await.unwrap();
    // It may send nothing to itself, so that one cannot ask whether the server knows the subscriptions.
    until("the events come", async || {
        library.ask("Call", KEY).await.is_ok() && calls.next().now_or_never().is_some()
    })
    .await;
    let (mut stream, mut cancel) = tokio::join!(async { library.open("Read", KEY).await.unwrap() }, async {
        let request = next(&mut reads).await;
        let control = request.headers.unwrap().get("Request-Cancel").unwrap().to_string();
        let cancel = service.subscribe(control).await.unwrap();
        for _ in 0..3 {
            service.publish(request.reply.clone().unwrap(), r#"{"text":"x"}"#.into()).await.unwrap();
        }
        cancel
    });
    for _ in 0..3 {
        stream.message().await.unwrap().unwrap();
    }
    drop(stream);
    timeout(PATIENCE, cancel.next()).await.unwrap().unwrap();
    library.gateway.drain().await;
}

#[tokio::test]
async fn an_event_whose_echo_is_not_permitted_was_sent_all_the_same() {
    let config = "authorization { users: [
        {user: gateway, password: \"gateway's secret\", permissions: {publish: {deny: \"_INBOX_gateway.>\"}}}
        {user: all, password: \"a secret\"}
    ] }";
    let options = local_nats::Options { config: Some(config.to_owned()), ..Default::default() };
    let nats = tokio::task::spawn_blocking(|| local_nats::Server::with(options)).await.unwrap().unwrap();
    let library = Dynamic::with(|config, _| config.nats = roles::options(&nats.url(), "gateway")).await;
    let user = ConnectOptions::new().user_and_password("all".to_owned(), "a secret".to_owned());
    let mut lent = user.connect(nats.url()).await.unwrap().subscribe("library.lent.*").await.unwrap();
    until("the event comes", async || {
        library.ask("Lend", KEY).await.unwrap();
        timeout(Duration::from_millis(200), lent.next()).await.is_ok()
    })
    .await;
    library.gateway.drain().await;
}
