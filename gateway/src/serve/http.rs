//! HTTP beside gRPC: figures for Prometheus, /healthz and /livez for probes that speak no gRPC, and the console. Must
//! never serve a call.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use listener::{Acceptor, Hosts, Seats, Thread, guarded, http1};
use telemetry::{Book, Rendering, page};

use super::console::{self, Console};
use crate::edge::board::{Finding, GATEWAY};
use crate::edge::{Board, clinic};

/// A listening socket, and how many may connect.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    pub(super) seats: Seats,
}

/// The thread that serves HTTP, and health where it has a port of its own: whoever hammers them slows no call down.
pub(super) fn start(
    http: Port,
    router: Router,
    health: Option<Port>,
    board: Board,
) -> std::io::Result<Thread> {
    Thread::start("http", async move {
        let health = async {
            match health {
                Some(port) => clinic::serve(port.listener, port.seats, board).await,
                None => std::future::pending().await,
            }
        };
        let http = async {
            match Acceptor::from_std(http.listener, http.seats) {
                Ok(acceptor) => http1::serve(acceptor, router, http1::TIMEOUTS).await,
                Err(error) => tracing::error!(%error, "HTTP is not served"),
            }
        };
        tokio::join!(http, health);
    })
}

/// What is answered on GW_HTTP_ADDR.
pub(super) fn router(board: Board, book: Arc<Book>, console: Option<Console>, hosts: Hosts) -> Router {
    let page = Rendering::new(move || book.page().text());
    let told = Router::new().route("/metrics", get(move || metrics(page)));
    let told = match console {
        Some(console) => told.merge(console::router(console)),
        None => told,
    };
    let probes = Router::new()
        .route("/healthz", get(move || health(board)))
        .route("/livez", get(|| async { "alive\n" }));
    guarded(told, probes, hosts)
}

async fn metrics(page: Rendering) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, page::MEDIA_TYPE)], page.text().await)
}

/// 200 while calls can be served; every service in the body, and what stands in the way.
async fn health(board: Board) -> impl IntoResponse {
    let word = |up: bool| if up { "SERVING" } else { "NOT_SERVING" };
    let up = board.up(GATEWAY).unwrap_or(false);
    let services: serde_json::Map<String, serde_json::Value> = board
        .all()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, up)| (name.to_owned(), word(up).into()))
        .collect();
    let finding =
        |finding: Finding| serde_json::json!({ "reason": finding.reason, "message": finding.message });
    let findings: Vec<serde_json::Value> = board.findings().into_iter().map(finding).collect();
    let body = serde_json::json!({ "status": word(up), "services": services, "findings": findings });
    let code = if up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
}
