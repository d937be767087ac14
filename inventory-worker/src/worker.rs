//! A worker from start to end: connect, load the ledger, serve; on the way out stop taking, finish, acknowledge,
//! leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use link::{Link, Streams};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic_health::server::HealthReporter;

use crate::config::{Nats, Provision, Serve};
use crate::endpoint::{Endpoints, Inventory};
use crate::events::Events;
use crate::expiry::Expiry;
use crate::forget;
use crate::ledger::{Ledger, Settings};
use crate::orders::Orders;
use crate::release::Releaser;

/// The service that the health protocol knows besides the empty one.
const HEALTH_SERVICE: &str = "inventory.v1.InventoryService";

/// A running worker.
pub struct Worker {
    endpoints: Endpoints,
    ledger: Ledger,
    events: AbortOnDropHandle<()>,
    stop: CancellationToken,
    health: HealthReporter,
    health_addr: SocketAddr,
    drain_timeout: Duration,
    _background: [AbortOnDropHandle<()>; 3],
}

impl Worker {
    /// Starts a worker; it answers requests when this returns.
    pub async fn start(config: Serve) -> anyhow::Result<Worker> {
        let (listener, health_addr) = bind(config.health_addr).await?;
        let (health, service) = tonic_health::server::health_reporter();
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        let server = background(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the health port failed");
            }
        });

        let (link, ledger) = open(&config.nats, usize::from(config.batch)).await?;
        let front = Link::connect(&config.nats.link, "inventory-worker requests").await?;
        let (events, consumer, floor) = Events::open(&link, ledger.clone(), config.max_deliver).await?;
        let releaser = Releaser::new(ledger.clone(), Orders::new(link.clone()));
        let inventory = Inventory { ledger: ledger.clone(), releaser: releaser.clone(), ttl: config.ttl() };
        let endpoints = Endpoints::serve(front, link.clone(), Arc::new(inventory)).await;
        let endpoints =
            endpoints.map_err(|error| anyhow::anyhow!("the endpoints cannot be opened: {error}"))?;

        let stop = CancellationToken::new();
        let events = background(events.run(consumer, stop.clone()));
        let pause = Duration::from_millis(config.expiry_interval_ms);
        let expiry = background(Expiry::new(link, ledger.clone(), releaser, floor.clone(), pause).run());
        let horizon = Duration::from_secs(config.id_horizon.saturating_mul(3_600));
        let forget = background(forget::run(ledger.clone(), floor, horizon));
        for service in ["", HEALTH_SERVICE] {
            health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
        }
        Ok(Worker {
            endpoints,
            ledger,
            events,
            stop,
            health,
            health_addr,
            drain_timeout: Duration::from_secs(config.drain_timeout),
            _background: [server, expiry, forget],
        })
    }

    /// Where grpc.health.v1 is served.
    pub fn health_addr(&self) -> SocketAddr {
        self.health_addr
    }

    /// The ledger, to look at.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Stops taking work, finishes what was taken, within the limit.
    pub async fn drain(self) -> anyhow::Result<()> {
        for service in ["", HEALTH_SERVICE] {
            self.health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
        }
        self.stop.cancel();
        let finish = async {
            self.endpoints
                .close()
                .await
                .map_err(|error| anyhow::anyhow!("the endpoints did not close: {error}"))?;
            self.events.await.context("the consumer of ORDERS failed")
        };
        tokio::time::timeout(self.drain_timeout, finish)
            .await
            .context("the work in hand took longer than the limit")?
    }
}

/// Connects, finds or makes the streams, and opens the ledger.
pub async fn open(nats: &Nats, batch: usize) -> anyhow::Result<(Link, Ledger)> {
    let link = Link::connect(&nats.link, "inventory-worker").await?;
    Streams::open(&link, usize::from(nats.replicas), nats.provision == Provision::Auto).await?;
    let ledger = Ledger::open(link.clone(), Settings { snapshot_every: nats.snapshot_every, batch }).await?;
    Ok((link, ledger))
}

/// Serves until `shutdown`, or until the ledger cannot go on.
pub async fn run(config: Serve, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let worker = Worker::start(config).await?;
    let stock = {
        let stock = worker.ledger.stock();
        (stock.sequence(), stock.products(), stock.reservations().0)
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        health = %worker.health_addr,
        sequence = stock.0,
        products = stock.1,
        reservations = stock.2,
        "ready"
    );
    let ledger = worker.ledger.clone();
    tokio::select! {
        () = shutdown => {}
        broken = ledger.broken() => anyhow::bail!("the ledger cannot go on: {broken}"),
    }
    tracing::info!("draining");
    worker.drain().await?;
    tracing::info!("stopped");
    Ok(())
}

async fn bind(addr: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let hint = "is another worker using it? --health-addr gives this one its own, with port 0 a free one";
    let listener =
        TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}; {hint}"))?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

fn background(work: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(work))
}
