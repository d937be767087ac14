//! The gRPC port with TLS: handshakes that are refused, the identity in a client's certificate, and certificates that
//! are replaced while calls are in flight.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use contract::orders::v1::order_service_client::OrderServiceClient;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use server::config::access::Access;
use server::config::tls::ClientAuth;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use crate::drain::closed;
use crate::harness::client::settled;
use crate::harness::issuer::Issuer;
use crate::harness::pki::{Authority, CertAndKey, endpoint, expired};
use crate::harness::system::{PATIENCE, System, until};
use crate::harness::tls::{TlsSystem, list};

/// Sends these bytes, and reads until the server closes.
async fn answer(port: u16, bytes: Vec<u8>) -> Vec<u8> {
    let talk = tokio::task::spawn_blocking(move || {
        let mut peer = TcpStream::connect(("127.0.0.1", port)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).expect("the server closes");
        answer
    });
    talk.await.unwrap()
}

/// A ClientHello of TLS 1.1. It lists signature algorithms as in TLS 1.2, so that only the version is wrong.
fn hello_of_1_1() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    // No session, two cipher suites, no compression, RSA with SHA-256.
    body.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 1]);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}

#[tokio::test]
async fn what_is_no_good_handshake_is_refused() {
    let tls = TlsSystem::start(None, |_, _| {}).await;
    // The first bytes of plaintext HTTP/2 and HTTP/1.1.
    for plain in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let answer = answer(tls.port, plain.to_vec()).await;
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    // A fatal alert: protocol version.
    let alert = answer(tls.port, hello_of_1_1()).await;
    assert_eq!((alert[0], &alert[5..]), (21, &[2, 70][..]), "{alert:?}");
    assert!(tls.shown(&["h2"]).await.is_some());
    for protocols in [&["http/1.1"][..], &[]] {
        assert!(tls.shown(protocols).await.is_none(), "{protocols:?}");
    }
    let other = Authority::new();
    assert!(endpoint(tls.port, &other, None).connect().await.is_err());
    list(tls.connect(None).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn where_a_client_certificate_is_required_nobody_connects_without_a_good_one() {
    let tls = TlsSystem::start(Some(ClientAuth::Required), |_, _| {}).await;
    let name = "spiffe://here/system";
    let good = tls.clients.client(name);
    list(tls.connect(Some(&good)).await.unwrap()).await.unwrap();
    let untrusted = Authority::new().client(name);
    let ended = tls.clients.sign(&[name], expired);
    for (what, client) in [
        ("none", None),
        ("another authority's", Some(&untrusted)),
        ("an expired one", Some(&ended)),
        ("the server's authority's", Some(&tls.authority.client(name))),
    ] {
        // With TLS 1.3 a client notices it in its first call.
        let refused = match tls.connect(client).await {
            Ok(channel) => list(channel).await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{what}");
    }
}

#[tokio::test]
async fn a_certificate_says_who_calls_and_a_token_goes_before_it() {
    let issuer = Issuer::new();
    let tls = TlsSystem::start(Some(ClientAuth::Optional), |config, folder| {
        let list = folder.join("clients");
        std::fs::write(&list, "spiffe://here/ann orders.read,inventory.check ann\n").unwrap();
        config.access = Access {
            tls_clients: Some(list),
            tls_client_scopes: vec!["inventory.check".to_owned()],
            ..issuer.access()
        };
    })
    .await;
    let nats = tls.system.nats().await;
    let mut requests = nats.subscribe("check_inventory").await.unwrap();
    settled(&nats).await;
    let items = crate::harness::system::new_order("lamp", 1).request.items;
    let mut principal = async |client: Option<&CertAndKey>, token: Option<String>| {
        let channel = tls.connect(client).await.unwrap();
        let items = items.clone();
        let mut request = Request::new(contract::orders::v1::CheckInventoryRequest { items });
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        OrderServiceClient::new(channel).check_inventory(request).await?;
        let seen = tokio::time::timeout(PATIENCE, requests.next()).await.expect("a request in time").unwrap();
        Ok::<_, tonic::Status>(seen.headers.unwrap().get("Principal").unwrap().to_string())
    };
    let ann = tls.clients.sign(&["ann.example", "spiffe://here/ann"], |_| {});
    let other = tls.clients.client("till-7.example");
    assert_eq!(principal(Some(&ann), None).await.unwrap(), "cert:spiffe://here/ann");
    assert_eq!(principal(Some(&other), None).await.unwrap(), "cert:till-7.example");
    let token = issuer.token(|_| {});
    assert_eq!(principal(Some(&ann), Some(token.clone())).await.unwrap(), "jwt:ann");
    assert_eq!(principal(None, Some(token)).await.unwrap(), "jwt:ann");
    // A certificate does not make an invalid token valid.
    for (client, token) in [(Some(&ann), Some("x.y.z".to_owned())), (None, None)] {
        assert_eq!(principal(client, token).await.unwrap_err().code(), Code::Unauthenticated);
    }
    let code =
        async |client| list(tls.connect(Some(client)).await.unwrap()).await.map_err(|status| status.code());
    assert_eq!(code(&ann).await, Ok(()));
    assert_eq!(code(&other).await, Err(Code::PermissionDenied));
}

#[tokio::test]
async fn health_is_told_in_the_clear_on_a_port_of_its_own_and_nothing_else_is() {
    let issuer = Issuer::new();
    let tls = TlsSystem::start(None, |config, _| {
        config.health_addr = Some("127.0.0.1:0".parse().unwrap());
        config.access = issuer.access();
    })
    .await;
    let address = tls.system.gateways[0].health_addr().unwrap();
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "liveness", "orders.v1.OrderService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "{service}");
    }
    assert_eq!(list(channel.clone()).await.unwrap_err().code(), Code::Unimplemented);
    let questions = futures_util::stream::pending();
    let reflection = ServerReflectionClient::new(channel).server_reflection_info(questions).await;
    assert_eq!(reflection.unwrap_err().code(), Code::Unimplemented);
    // Over TLS health is also served to everybody.
    let mut health = HealthClient::new(tls.connect(None).await.unwrap());
    assert_eq!(health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status, 1);
    assert_eq!(list(tls.connect(None).await.unwrap()).await.unwrap_err().code(), Code::Unauthenticated);
}

/// Makes calls until told to stop. Returns how many succeeded, and the errors.
async fn load(tls: &TlsSystem, stop: &CancellationToken) -> (usize, Vec<String>) {
    let caller = async |anew: usize| {
        let (mut good, mut bad, mut channel) = (0, Vec::new(), None);
        while !stop.is_cancelled() {
            // Some keep their connection, others open a new one from time to time.
            if channel.is_none() || good % anew == anew - 1 {
                match tls.connect(None).await {
                    Ok(new) => channel = Some(new),
                    Err(error) => bad.push(format!("{error:?}")),
                }
            }
            match list(channel.clone().unwrap()).await {
                Ok(()) => good += 1,
                Err(error) => bad.push(format!("{error:?}")),
            }
        }
        (good, bad)
    };
    let callers = join_all([3, 5, 7, usize::MAX, usize::MAX].map(caller)).await;
    callers.into_iter().fold((0, Vec::new()), |(good, mut bad), (more, wrong)| {
        bad.extend(wrong);
        (good + more, bad)
    })
}

#[tokio::test]
async fn certificates_are_replaced_under_load_and_no_call_fails() {
    let tls = TlsSystem::start(None, |_, _| {}).await;
    let stop = CancellationToken::new();
    let replace = async {
        let der = |pair: &CertAndKey| CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
        for _ in 0..3 {
            let (before, next) = (tls.shown(&["h2"]).await.unwrap(), tls.authority.server());
            // For a while, which is some looks at the files, the certificate does not match the key.
            std::fs::write(tls.folder.path().join("tls.crt"), &next.cert).unwrap();
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            assert_eq!(tls.shown(&["h2"]).await.unwrap(), before);
            next.write(tls.folder.path());
            until("the new one is shown", async || tls.shown(&["h2"]).await == Some(der(&next))).await;
        }
        stop.cancel();
    };
    let ((good, bad), ()) = tokio::join!(load(&tls, &stop), replace);
    assert!(bad.is_empty(), "{} of {}: {:?}", bad.len(), good + bad.len(), bad[0]);
    assert!(good > 100, "{good} calls");
}

#[tokio::test]
async fn handshakes_that_do_not_end_keep_nobody_out() {
    let tls = TlsSystem::start(None, |config, _| config.limits.max_handshakes = 8).await;
    let silent = |_| TcpStream::connect(("127.0.0.1", tls.port)).unwrap();
    let mut peers: Vec<TcpStream> = (0..40).map(silent).collect();
    for _ in 0..3 {
        list(tls.connect(None).await.unwrap()).await.unwrap();
        peers.extend((0..40).map(silent));
    }
    // Those above the limit are closed at once, and the last eight at their timeout.
    for mut peer in peers {
        let closed = tokio::task::spawn_blocking(move || {
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            peer.read(&mut [0]).is_ok_and(|read| read == 0)
        });
        assert!(closed.await.unwrap());
    }
}

/// A connector that counts connections.
#[derive(Clone)]
struct Counted {
    inner: HttpConnector,
    count: Arc<AtomicUsize>,
}

impl tower::Service<http::Uri> for Counted {
    type Response = <HttpConnector as tower::Service<http::Uri>>::Response;
    type Error = <HttpConnector as tower::Service<http::Uri>>::Error;
    type Future = <HttpConnector as tower::Service<http::Uri>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        tower::Service::poll_ready(&mut self.inner, context)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        self.count.fetch_add(1, Ordering::Relaxed);
        tower::Service::call(&mut self.inner, uri)
    }
}

#[tokio::test]
async fn connections_come_of_age_and_no_call_that_came_fails() {
    let system = System::builder()
        .each_gateway(|config| config.limits.max_connection_age = Duration::from_secs(1))
        .start()
        .await;
    let connected = Arc::new(AtomicUsize::new(0));
    let connector = Counted { inner: HttpConnector::new(), count: connected.clone() };
    let uri = format!("http://{}", system.gateways[0].grpc_addr());
    let channel = Channel::from_shared(uri).unwrap().connect_with_connector(connector).await.unwrap();
    let mut calls = 0;
    until("the fourth connection is made", async || {
        let answers = join_all((0..8).map(|_| list(channel.clone()))).await;
        calls += answers.len();
        for answer in answers {
            // tonic's client does not retry by itself what it had not sent before the GOAWAY.
            answer.or_else(|status| if closed(&status) { Ok(()) } else { Err(status) }).unwrap();
        }
        connected.load(Ordering::Relaxed) >= 4
    })
    .await;
    assert!(calls > 100, "{calls} calls");
}
