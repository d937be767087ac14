//! What becomes of a gateway when a background task fails, and when its services are up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nats::{Connection, Options};
use tokio::time::timeout;

use super::*;
use orders::service::api::SERVICE;
use server::config::access::Place;
use server::config::tls::ClientAuth;
use server::grpc;
use server::registry::GATEWAY;
use server::supervisor::fault::Fault;

/// How long it may take until a failure is reported.
const PATIENCE: Duration = Duration::from_secs(30);

/// The tasks of a gateway that has everything.
const TASKS: [&str; 23] = [
    "HTTP listener",
    "TLS configuration",
    "cluster state",
    "discovery service",
    "health listener",
    "health monitor",
    "identity of ORDERS",
    "index of orders",
    "metrics of the console",
    "monitoring of the NATS servers",
    "reader of ORDERS",
    "refresh of the JWKS (GW_JWT_JWKS)",
    "reload of API keys (GW_API_KEYS)",
    "reload of JWT secret (GW_JWT_SECRET_FILE)",
    "reload of TLS (GW_TLS_CERT, GW_TLS_KEY)",
    "reload of client CA certificates (GW_TLS_CLIENT_CA)",
    "reload of client names (GW_TLS_CLIENTS)",
    "replies to gateway 0",
    "replies to gateway background",
    "stream checks",
    "thread background",
    "thread grpc-0",
    "thread http",
];

async fn nats() -> local_nats::Server {
    tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap()
}

/// A configuration that starts every task.
fn everything(nats: &local_nats::Server, folder: &Path) -> Serve {
    let file = |name: &str, contents: &str| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, contents).unwrap();
        path
    };
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut config = Serve::at(nats.url());
    config.threads = 1;
    config.health_addr = Some(config.http_addr);
    config.console = Some(true);
    config.nats.nats_monitor_url = Some(nats.monitor_url());
    config.tls.tls_cert = Some(file("cert", &cert.pem()));
    config.tls.tls_key = Some(file("key", &signing_key.serialize_pem()));
    config.tls.tls_client_ca = Some(file("ca", &cert.pem()));
    config.tls.tls_client_auth = ClientAuth::Optional;
    config.access.api_keys = Some(file("keys", ""));
    config.access.tls_clients = Some(file("clients", ""));
    config.access.jwt_secret_file = Some(file("secret", &"x".repeat(32)));
    // Nothing listens there: the fetch is repeated.
    config.access.jwt_jwks = Some(Place::Url(::http::Uri::from_static("http://127.0.0.1:1/jwks")));
    config.access.jwt_issuer = Some("https://issuer.example".to_owned());
    config.access.jwt_audience = vec!["gateway".to_owned()];
    config
}

#[tokio::test]
async fn the_gateway_fails_when_any_of_its_tasks_panics_or_ends() {
    let (nats, folder) = (nats().await, tempfile::tempdir().unwrap());
    let config = everything(&nats, folder.path());
    let tasks: Vec<_> = {
        let gateway = Gateway::start(config.clone()).await.unwrap();
        gateway.supervisor().faults.tasks().iter().map(|task| task.to_string()).collect()
    };
    assert_eq!(tasks, TASKS);
    for task in &tasks {
        for fault in [Fault::Panic, Fault::Return] {
            let gateway = Gateway::start(config.clone()).await.unwrap();
            assert_eq!(gateway.supervisor().failure(), None);
            gateway.supervisor().faults.inject(task, fault);
            let failure =
                timeout(PATIENCE, gateway.failed()).await.unwrap_or_else(|_| panic!("{task}: {fault:?}"));
            let wanted = match fault {
                Fault::Panic => "panicked",
                Fault::Return => "ended",
            };
            let failure = failure.to_string();
            assert!(failure.contains(task) && failure.contains(wanted), "{task} {fault:?}: {failure}");
        }
    }
}

#[tokio::test]
async fn no_service_is_up_before_every_thread_serves() {
    let nats = nats().await;
    let mut config = Serve::at(nats.url());
    config.threads = 1;
    let catalog = orders::served::contract();
    config.nest_subjects = catalog.serving_routes().map(|route| route.subject.to_string()).collect();
    let gateway = Gateway::start(config).await.unwrap();
    let up = |board: HealthRegistry| async move {
        while board.up(GATEWAY) != Some(true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, up(gateway.shared.board.clone())).await.expect("it serves");
    // The same gateway, as a monitor sees it while its threads start.
    let (board, serving) = (
        HealthRegistry::new(&grpc::services(&orders::served::contract(), &[SERVICE])),
        CancellationToken::new(),
    );
    let link = Connection::connect(&Options::at(nats.url()), "test").await.unwrap();
    let monitor = Monitor::new(link, &gateway.shared).of(board.clone(), serving.clone());
    let monitor = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(monitor.run()));
    assert!(timeout(Duration::from_secs(2), up(board.clone())).await.is_err());
    serving.cancel();
    timeout(PATIENCE, up(board)).await.expect("it is up");
    drop(monitor);
}
