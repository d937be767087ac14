//! HTTP beside gRPC: figures for Prometheus, /healthz and /livez for probes that speak no gRPC, and the console. Must
//! never serve a call.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use telemetry::{Book, page};

use super::console::{self, Console};
use crate::edge::Board;
use crate::edge::board::GATEWAY;

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, board: Board, book: Arc<Book>, console: Option<Console>) {
    let router = Router::new()
        .route("/healthz", get(move || health(board)))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/metrics", get(move || metrics(book)));
    let router = match console {
        Some(console) => router.merge(console::router(console)),
        None => router,
    };
    let served = async { axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await };
    if let Err(error) = served.await {
        tracing::error!(%error, "HTTP is served no more");
    }
}

async fn metrics(book: Arc<Book>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, page::MEDIA_TYPE)], book.page().text())
}

/// 200 while the gateway as a whole is up; every service in the body.
async fn health(board: Board) -> impl IntoResponse {
    let word = |up: bool| if up { "SERVING" } else { "NOT_SERVING" };
    let up = board.up(GATEWAY).unwrap_or(false);
    let services: serde_json::Map<String, serde_json::Value> = board
        .all()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, up)| (name.to_owned(), word(up).into()))
        .collect();
    let body = serde_json::json!({ "status": word(up), "services": services });
    let code = if up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
}
