//! HTTP and health beside NATS: metrics for Prometheus, /healthz, /livez and grpc.health.v1, on their own thread. Must
//! not serve anything about the stock.

use std::sync::{Arc, OnceLock};

use admission::HealthRegistry;
use admission::budget::ConnectionMetrics;
use admission::health_server::services;
use admission::registry::{Finding, GATEWAY, reason};
use anyhow::bail;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use listener::{
    Acceptor, Activity, ConnectionLimit, Hosts, Thread, WhenFull, descriptors, http1, http2, restrict_hosts,
};
use nats::Connection;
use telemetry::{Exposition, Registry, Rendering, Source, exposition};
use tokio::net::TcpListener;

use crate::ledger::Ledger;

/// What the worker's health depends on.
#[derive(Clone)]
pub(crate) struct Condition {
    /// Both connections.
    pub(crate) links: [Connection; 2],
    /// The ledger.
    pub(crate) ledger: Ledger,
}

impl Condition {
    /// Why it cannot answer requests; empty if it can.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        if let Some(lost) = self.links.iter().find(|link| !link.connected()) {
            return vec![(reason::NATS_DISCONNECTED, lost.absence()).into()];
        }
        let loading = || (reason::NOT_READY, "the ledger does not accept commands yet".to_owned());
        let ledger = (!self.ledger.ready()).then(loading);
        // It writes only a few tombstones to ORDERS, so that stream does not count.
        let storage = self.ledger.guard().troubles();
        storage.into_iter().chain(ledger).map(Finding::from).collect()
    }
}

/// The metrics of its health.
pub(crate) struct Readiness(pub(crate) HealthRegistry);

impl Source for Readiness {
    fn collect(&self, page: &mut Exposition) {
        self.0.readiness(page, "worker_ready", "worker_not_ready");
    }
}

/// Connection limits of GW_HTTP_ADDR and of GW_HEALTH_ADDR.
const HTTP: u32 = 256;
const HEALTH: u32 = 128;
/// File descriptors for NATS, threads, the program's files, and a margin.
const OTHERS: u64 = 64;

/// The ports beside NATS: their sockets and connection limits.
pub(crate) struct Ports {
    http: (TcpListener, ConnectionLimit),
    health: (TcpListener, ConnectionLimit),
}

impl Ports {
    /// Raises the limit of file descriptors to what these ports and the rest need.
    pub(crate) fn new(http: TcpListener, health: TcpListener) -> anyhow::Result<Ports> {
        // Connections that evict others count twice.
        let needed = OTHERS + 2 * u64::from(HTTP + HEALTH);
        let limit = descriptors::raise(needed);
        if limit < needed {
            bail!(
                "{needed} open files are needed for NATS, HTTP and health, but this process may have {limit}: raise \
                 that limit (ulimit -n, LimitNOFILE)"
            );
        }
        tracing::info!(open_files = limit, reserved = needed, "limits");
        let seats = |port, most| ConnectionLimit::new(port, most, "this limit is fixed", WhenFull::Evict);
        Ok(Ports { http: (http, seats("http", HTTP)), health: (health, seats("health", HEALTH)) })
    }

    /// Their metrics.
    pub(crate) fn limits(&self) -> [ConnectionLimit; 2] {
        [self.http.1.clone(), self.health.1.clone()]
    }

    /// Serves both on their own thread, so that load on them does not slow requests.
    pub(crate) fn serve(
        self,
        late: Late,
        hosts: &[String],
        health: HealthRegistry,
    ) -> anyhow::Result<Thread> {
        let (listener, seats) = self.http;
        let router = router(late, health.clone(), Hosts::new(listener.local_addr()?, hosts));
        let http = (listener.into_std()?, seats);
        let (listener, seats) = self.health;
        let probes = (listener.into_std()?, seats);
        let services = services(health, http2::HEADERS);
        let metrics = |activity: &Activity| ConnectionMetrics {
            whole: activity.whole().clone(),
            wasted: activity.wasted().clone(),
        };
        Ok(Thread::start("http", async move {
            let (http, probes) =
                match (Acceptor::from_std(http.0, http.1), Acceptor::from_std(probes.0, probes.1)) {
                    (Ok(http), Ok(probes)) => (http, probes),
                    (Err(error), _) | (_, Err(error)) => {
                        return tracing::error!(%error, "the HTTP listener failed");
                    }
                };
            tokio::join!(
                http1::serve(http, router, http1::TIMEOUTS),
                http2::serve(probes, |activity| services(metrics(activity)), http2::TIMEOUTS),
            );
        })?)
    }
}

/// The metrics, once they exist: the ports answer from the start.
#[derive(Clone, Default)]
pub(crate) struct Late(Arc<OnceLock<Rendering>>);

impl Late {
    /// Sets them.
    pub(crate) fn set(&self, registry: Arc<Registry>) {
        // It is set once.
        let _ = self.0.set(Rendering::new(move || registry.page().text()));
    }
}

fn router(late: Late, board: HealthRegistry, hosts: Hosts) -> Router {
    let told = Router::new().route("/metrics", get(move || metrics(late)));
    let probes = Router::new()
        .route("/healthz", get(move || health(board)))
        .route("/livez", get(|| async { "alive\n" }));
    restrict_hosts(told, probes, hosts)
}

async fn metrics(late: Late) -> Response {
    match late.0.get() {
        Some(page) => ([(header::CONTENT_TYPE, exposition::MEDIA_TYPE)], page.text().await).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the worker is starting\n").into_response(),
    }
}

/// 200 while the worker can answer; else 503 with a line for each finding.
async fn health(board: HealthRegistry) -> impl IntoResponse {
    if board.up(GATEWAY) == Some(true) {
        return (StatusCode::OK, "SERVING\n".to_owned());
    }
    let findings = board.findings();
    let line = |Finding { reason, message }: &Finding| format!("{reason}: {message}\n");
    let lines: String = findings.iter().map(line).collect();
    (StatusCode::SERVICE_UNAVAILABLE, format!("NOT_SERVING\n{lines}"))
}
