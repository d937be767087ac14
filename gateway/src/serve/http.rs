//! The HTTP endpoints: metrics for Prometheus, /healthz and /livez for probes without gRPC, and the console. Must not
//! serve calls.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use listener::{Acceptor, ConnectionLimit, Hosts, Thread, http1, restrict_hosts};
use telemetry::{Registry, Rendering, exposition};

use super::console::{self, Console};
use super::reloads::Reloads;
use server::registry::{Finding, GATEWAY, Standing};
use server::supervisor::Supervisor;
use server::{HealthRegistry, health_server};

/// A listening socket, and its connection limit.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    pub(super) seats: ConnectionLimit,
}

/// The thread that serves HTTP, and health if it has its own port: load on them does not slow down calls.
pub(super) fn start(
    http: Port,
    router: Router,
    health: Option<Port>,
    board: HealthRegistry,
    supervisor: &Supervisor,
) -> std::io::Result<Thread> {
    let health = health.map(|port| {
        supervisor.watch("health listener", health_server::serve(port.listener, port.seats, board))
    });
    let http = supervisor.watch("HTTP listener", async move {
        match Acceptor::from_std(http.listener, http.seats) {
            Ok(acceptor) => http1::serve(acceptor, router, http1::TIMEOUTS).await,
            Err(error) => tracing::error!(%error, "the HTTP listener failed"),
        }
    });
    Thread::start("http", async move {
        match health {
            Some(health) => drop(tokio::join!(http, health)),
            None => http.await,
        }
    })
}

/// The router of GW_HTTP_ADDR.
pub(super) fn router(
    board: HealthRegistry,
    registry: Arc<Registry>,
    console: Option<Console>,
    reloads: Reloads,
    hosts: Hosts,
) -> Router {
    let page = Rendering::new(move || registry.page().text());
    let told = Router::new().route("/metrics", get(move || metrics(page)));
    let told = match console {
        Some(console) => told.merge(console::router(console)),
        None => told,
    };
    let probes = Router::new()
        .route("/healthz", get(move || health(board, reloads)))
        .route("/livez", get(|| async { "alive\n" }));
    restrict_hosts(told, probes, hosts)
}

async fn metrics(page: Rendering) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, exposition::MEDIA_TYPE)], page.text().await)
}

/// 200 while calls can be served; the body lists every service, and the reasons if one is not serving.
async fn health(board: HealthRegistry, reloads: Reloads) -> impl IntoResponse {
    let standing = board.standing(GATEWAY).unwrap_or_default();
    let up = standing == Standing::Up;
    let services: serde_json::Map<String, serde_json::Value> = board
        .all()
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, standing)| (name.to_string(), standing.name().into()))
        .collect();
    let finding =
        |finding: Finding| serde_json::json!({ "reason": finding.reason, "message": finding.message });
    let findings: Vec<serde_json::Value> = board.findings().into_iter().map(finding).collect();
    let contracts = reloads.told();
    let body = serde_json::json!({
        "status": standing.name(), "services": services, "findings": findings, "contracts": contracts,
    });
    let code = if up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
}
