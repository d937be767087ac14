//! Credentials that expire or are revoked: calls, streams and connections end with them. And streams end when their
//! connection reaches its maximum age.

use std::time::Duration;

use contract::orders::v1::order_service_client::OrderServiceClient;
use contract::orders::v1::{WatchOrdersRequest, WatchOrdersResponse};
use rcgen::{CertificateParams, date_time_ymd};
use server::auth::apikey;
use server::config::access::Access;
use server::config::tls::ClientAuth;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_types::StatusExt as _;

use crate::harness::auth::AuthGateway;
use crate::harness::issuer::now;
use crate::harness::pki::{Authority, CertAndKey};
use crate::harness::system::{PATIENCE, System, new_order, reason, until};
use crate::harness::tls::{TlsSystem, list};

async fn watch(channel: Channel, token: &str) -> Result<Streaming<WatchOrdersResponse>, Status> {
    let request = WatchOrdersRequest { resume_token: token.to_owned(), ..Default::default() };
    let mut watch = OrderServiceClient::new(channel).watch_orders(request).await?.into_inner();
    watch.message().await?.expect("a bookmark");
    Ok(watch)
}

/// How a stream ends.
async fn end<T>(stream: &mut Streaming<T>) -> Status {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a status"),
                Err(status) => return status,
            }
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("an end in time")
}

/// A gateway that accepts clients with a valid certificate only.
async fn tls(known: bool) -> TlsSystem {
    TlsSystem::start(Some(ClientAuth::Required), |config, _| {
        // No maximum age: nothing else closes a connection.
        config.limits.max_connection_age = Duration::ZERO;
        if known {
            config.access = Access { tls_client_scopes: vec!["orders.read".to_owned()], ..Access::default() };
        }
    })
    .await
}

/// Makes certificates expire soon.
fn soon(params: &mut CertificateParams) {
    let end = u64::try_from(now() + 4).unwrap();
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
}

/// Runs a client, revokes its access by `change`, and expects that its streams and calls end.
async fn ends(tls: &TlsSystem, client: &CertAndKey, change: impl FnOnce()) {
    let channel = tls.connect(Some(client)).await.unwrap();
    list(channel.clone()).await.unwrap();
    let mut watch = watch(channel.clone(), "").await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    let mut health = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    change();
    assert_eq!(end(&mut watch).await.code(), Code::Unauthenticated);
    assert_eq!(end(&mut health).await.code(), Code::Unauthenticated);
    // Also on a new connection, which the client's library opens by itself.
    until("calls are refused", async || list(channel.clone()).await.is_err()).await;
}

#[tokio::test]
async fn streams_end_with_the_certificate_that_admitted_them() {
    for known in [true, false] {
        let tls = tls(known).await;
        let client = tls.clients.sign(&["spiffe://here/system"], soon);
        ends(&tls, &client, || ()).await;
    }
}

#[tokio::test]
async fn streams_end_when_their_authority_is_removed_and_those_of_another_go_on() {
    let tls = tls(true).await;
    let other = Authority::new();
    let ca = tls.folder.path().join("clients.crt");
    std::fs::write(&ca, tls.clients.pem() + &other.pem()).unwrap();
    let name = "spiffe://here/system";
    let stays = other.client(name);
    let mut channel = None;
    until("the other authority is trusted", async || {
        channel = tls.connect(Some(&stays)).await.ok();
        match channel.clone() {
            Some(channel) => list(channel).await.is_ok(),
            None => false,
        }
    })
    .await;
    let mut others = watch(channel.clone().unwrap(), "").await.unwrap();
    ends(&tls, &tls.clients.client(name), || {
        // A key that does not match its certificate must not keep the old authority in force.
        std::fs::write(tls.folder.path().join("tls.key"), &tls.authority.server().key).unwrap();
        std::fs::write(&ca, other.pem()).unwrap();
    })
    .await;
    list(channel.unwrap()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), others.message()).await.is_err());
}

#[tokio::test]
async fn an_authority_that_ends_is_trusted_no_longer() {
    let tls = tls(true).await;
    let brief = Authority::with(soon);
    std::fs::write(tls.folder.path().join("clients.crt"), tls.clients.pem() + &brief.pem()).unwrap();
    let client = brief.client("spiffe://here/system");
    until("the authority is trusted", async || match tls.connect(Some(&client)).await {
        Ok(channel) => list(channel).await.is_ok(),
        Err(_) => false,
    })
    .await;
    ends(&tls, &client, || ()).await;
}

#[tokio::test]
async fn reflection_ends_when_the_key_that_let_it_in_is_taken_off_the_list() {
    let system = System::builder().start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let key = apikey::new(&orders::served::contract(), "till", &["orders.read".to_owned()], None).unwrap();
    std::fs::write(&file, &key.line).unwrap();
    let guarded =
        AuthGateway::start(&system, Access { api_keys: Some(file.clone()), ..Access::default() }).await;
    let mut request = Request::new(futures_util::stream::pending::<ServerReflectionRequest>());
    request.metadata_mut().insert("x-api-key", key.key.parse().unwrap());
    let mut client = ServerReflectionClient::new(guarded.channel.clone());
    let mut answers = client.server_reflection_info(request).await.unwrap().into_inner();
    std::fs::write(&file, "# nobody\n").unwrap();
    assert_eq!(end(&mut answers).await.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn streams_end_some_time_after_their_connection_has_come_of_age_and_watches_with_a_token() {
    let builder = System::builder().stock("lamp", 9).each_gateway(|config| {
        (config.limits.max_connection_age, config.limits.max_connection_age_grace) =
            (Duration::from_secs(1), Duration::from_secs(2));
    });
    let system = builder.start().await;
    let channel = system.channel();
    let mut orders = watch(channel.clone(), "").await.unwrap();
    let questions = futures_util::stream::pending::<ServerReflectionRequest>();
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let mut answers = reflection.server_reflection_info(questions).await.unwrap().into_inner();
    let mut health = HealthClient::new(channel);
    let mut health = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let status = end(&mut orders).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DRAINING"));
    for status in [end(&mut answers).await, end(&mut health).await] {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DRAINING"));
    }
    let details = status.get_error_details();
    assert!(details.retry_info().is_some());
    let token = &details.error_info().unwrap().metadata["resume_token"];
    // Connections keep reaching their maximum age, and tonic's client does not retry what it had not sent.
    let mut order = None;
    until("an order is placed", async || {
        order = system.place(&new_order("lamp", 1).id("r-1")).await.ok();
        order.is_some()
    })
    .await;
    let mut next = None;
    until("a watch goes on with it", async || {
        if let Ok(mut watch) = watch(system.channel(), token).await {
            next = watch.message().await.ok().flatten();
        }
        next.is_some()
    })
    .await;
    let next = next.unwrap().order.unwrap();
    assert_eq!(next.order_id, order.unwrap().order_id);
}

#[tokio::test]
async fn streams_of_one_connection_do_not_end_all_at_once() {
    let builder = System::builder().each_gateway(|config| {
        (config.limits.max_connection_age, config.limits.max_connection_age_grace) =
            (Duration::from_secs(1), Duration::from_secs(4));
    });
    let system = builder.start().await;
    let channel = system.channel();
    let mut ends = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut watch = watch(channel.clone(), "").await.unwrap();
        ends.spawn(async move {
            end(&mut watch).await;
            tokio::time::Instant::now()
        });
    }
    let ends = ends.join_all().await;
    let spread = *ends.iter().max().unwrap() - *ends.iter().min().unwrap();
    assert!(spread > Duration::from_millis(300), "{spread:?}");
}
