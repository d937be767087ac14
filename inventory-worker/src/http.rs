//! HTTP and health beside NATS: figures for Prometheus, /healthz, /livez and grpc.health.v1, on a thread of their own.
//! Must never answer for the stock.

use std::sync::{Arc, OnceLock};

use admission::Board;
use admission::board::{Finding, GATEWAY, reason};
use admission::budget::Tally;
use admission::port::services;
use anyhow::bail;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use link::{Link, streams};
use listener::{Acceptor, Activity, Full, Hosts, Seats, Thread, descriptors, guarded, http1, http2};
use telemetry::{Book, Page, Rendering, Source, page};
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
    /// Why it cannot answer.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        if let Some(lost) = self.links.iter().find(|link| !link.connected()) {
            return vec![(reason::NATS_DISCONNECTED, lost.absence()).into()];
        }
        let loading = || (reason::NOT_READY, "the ledger takes no commands yet".to_owned());
        let ledger = (!self.ledger.ready()).then(loading);
        // To ORDERS it writes the few tombstones alone.
        let storage = self.ledger.guard().troubles(&[streams::INVENTORY]);
        storage.into_iter().chain(ledger).map(Finding::from).collect()
    }
}

/// The figures of its health.
pub(crate) struct Readiness(pub(crate) Board);

impl Source for Readiness {
    fn tell(&self, page: &mut Page) {
        self.0.readiness(page, "worker_ready", "worker_not_ready");
    }
}

/// Connections to GW_HTTP_ADDR and to GW_HEALTH_ADDR.
const HTTP: u32 = 256;
const HEALTH: u32 = 128;
/// Descriptors for NATS, threads, the program's files, and a margin.
const OTHERS: u64 = 64;

/// The ports beside NATS: their sockets, and how many may connect.
pub(crate) struct Ports {
    http: (TcpListener, Seats),
    health: (TcpListener, Seats),
}

impl Ports {
    /// Makes sure that the process may have as many descriptors as these ports and the rest need.
    pub(crate) fn new(http: TcpListener, health: TcpListener) -> anyhow::Result<Ports> {
        // Those that make room for others count twice.
        let needed = OTHERS + 2 * u64::from(HTTP + HEALTH);
        let limit = descriptors::raise(needed);
        if limit < needed {
            bail!(
                "{needed} open files are needed for NATS, HTTP and health, but this process may have {limit}: raise \
                 that limit (ulimit -n, LimitNOFILE)"
            );
        }
        tracing::info!(open_files = limit, reserved = needed, "limits");
        let seats = |port, most| Seats::new(port, most, "this limit is fixed", Full::Evict);
        Ok(Ports { http: (http, seats("http", HTTP)), health: (health, seats("health", HEALTH)) })
    }

    /// Their figures.
    pub(crate) fn figures(&self) -> [Seats; 2] {
        [self.http.1.clone(), self.health.1.clone()]
    }

    /// Serves both on a thread of its own, so that whoever hammers them slows no request down.
    pub(crate) fn serve(self, late: Late, hosts: &[String], health: Board) -> anyhow::Result<Thread> {
        let (listener, seats) = self.http;
        let router = router(late, health.clone(), Hosts::new(listener.local_addr()?, hosts));
        let http = (listener.into_std()?, seats);
        let (listener, seats) = self.health;
        let probes = (listener.into_std()?, seats);
        let services = services(health, http2::HEADERS);
        let tally = |activity: &Activity| Tally {
            whole: activity.whole().clone(),
            wasted: activity.wasted().clone(),
        };
        Ok(Thread::start("http", async move {
            let (http, probes) =
                match (Acceptor::from_std(http.0, http.1), Acceptor::from_std(probes.0, probes.1)) {
                    (Ok(http), Ok(probes)) => (http, probes),
                    (Err(error), _) | (_, Err(error)) => return tracing::error!(%error, "HTTP is not served"),
                };
            tokio::join!(
                http1::serve(http, router, http1::TIMEOUTS),
                http2::serve(probes, |activity| services(tally(activity)), http2::TIMEOUTS),
            );
        })?)
    }
}

/// What is told once there is something to tell: the ports answer from the start.
#[derive(Clone, Default)]
pub(crate) struct Late(Arc<OnceLock<Rendering>>);

impl Late {
    /// From now on there is.
    pub(crate) fn set(&self, book: Arc<Book>) {
        // It is set once.
        let _ = self.0.set(Rendering::new(move || book.page().text()));
    }
}

fn router(late: Late, board: Board, hosts: Hosts) -> Router {
    let told = Router::new().route("/metrics", get(move || metrics(late)));
    let probes = Router::new()
        .route("/healthz", get(move || health(board)))
        .route("/livez", get(|| async { "alive\n" }));
    guarded(told, probes, hosts)
}

async fn metrics(late: Late) -> Response {
    match late.0.get() {
        Some(page) => ([(header::CONTENT_TYPE, page::MEDIA_TYPE)], page.text().await).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the worker starts\n").into_response(),
    }
}

/// 200 while it can answer; else a line for each thing that stands in the way.
async fn health(board: Board) -> impl IntoResponse {
    if board.up(GATEWAY) == Some(true) {
        return (StatusCode::OK, "SERVING\n".to_owned());
    }
    let findings = board.findings();
    let line = |Finding { reason, message }: &Finding| format!("{reason}: {message}\n");
    let lines: String = findings.iter().map(line).collect();
    (StatusCode::SERVICE_UNAVAILABLE, format!("NOT_SERVING\n{lines}"))
}
