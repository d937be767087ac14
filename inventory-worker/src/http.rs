//! HTTP beside NATS: figures for Prometheus, and /healthz and /livez. Must never answer for the stock.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use link::Link;
use telemetry::{Book, page};
use tokio::net::TcpListener;

use crate::ledger::Ledger;

/// How the worker is.
#[derive(Clone)]
pub(crate) struct Condition {
    /// Both connections.
    pub(crate) links: [Link; 2],
    /// The ledger.
    pub(crate) ledger: Ledger,
}

impl Condition {
    /// Whether it can answer.
    pub(crate) fn serves(&self) -> bool {
        self.links.iter().all(Link::connected) && self.ledger.ready()
    }
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, condition: Condition, book: Arc<Book>) {
    let router = Router::new()
        .route("/healthz", get(move || health(condition)))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/metrics", get(move || metrics(book)));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "HTTP is served no more");
    }
}

async fn metrics(book: Arc<Book>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, page::MEDIA_TYPE)], book.page().text())
}

async fn health(condition: Condition) -> impl IntoResponse {
    if condition.serves() {
        (StatusCode::OK, "SERVING\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "NOT_SERVING\n")
    }
}
