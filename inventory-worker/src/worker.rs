//! A worker from start to end: connect, load the ledger, serve; at shutdown stop accepting requests, finish work in
//! progress, acknowledge, disconnect.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use admission::HealthRegistry;
use admission::registry::GATEWAY;
use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture};
use nats::{Connection, Store};
use telemetry::exposition::Tasks;
use telemetry::{Registry, Tracer};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Nats, Provision, Serve};
use crate::endpoint::maintenance::Upkeep;
use crate::endpoint::shares::Shares;
use crate::endpoint::{Able, Endpoints, Inventory};
use crate::events::{self, Events};
use crate::expiry::Expiry;
use crate::http::{Condition, Late, Ports, Readiness};
use crate::intake::Intake;
use crate::ledger::{Ledger, Settings};
use crate::orders::Orders;
use crate::reconcile::Reconciler;
use crate::release::Releaser;
use crate::retention;

/// The service name in the health protocol, besides the empty one.
const HEALTH_SERVICE: &str = "inventory.v1.InventoryService";

/// Interval of the worker's own health check.
const LOOK: Duration = Duration::from_millis(500);

/// At the start, how long the server may take to process the subscriptions.
const SUBSCRIBE: Duration = Duration::from_secs(10);

/// At shutdown, how long a lost connection has to come back.
const RECONNECT: Duration = Duration::from_secs(2);

/// A running worker.
pub struct Worker {
    endpoints: Endpoints,
    ledger: Ledger,
    link: Connection,
    events: AbortOnDropHandle<()>,
    stop: CancellationToken,
    /// Cancelled when a task ended that must run as long as the worker.
    ended: CancellationToken,
    health: HealthRegistry,
    health_addr: SocketAddr,
    http_addr: SocketAddr,
    tracer: Tracer,
    drain_timeout: Duration,
    _background: Vec<AbortOnDropHandle<()>>,
}

impl Worker {
    /// Starts a worker. It answers requests when this returns.
    pub async fn start(config: Serve) -> anyhow::Result<Worker> {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let watched = |work: BoxFuture<'static, ()>| watched(work, ended.clone());
        let (listener, health_addr) = bind(config.health_addr, "--health-addr").await?;
        let (http, http_addr) = bind(config.http_addr, "--http-addr").await?;
        let tracer = Tracer::start(&config.traces, "inventory-worker")?;
        let health = HealthRegistry::new(&[HEALTH_SERVICE]);
        say(&health, false);
        let (ports, late) = (Ports::new(http, listener)?, Late::default());
        let limits = ports.limits();
        let server = watched(ports.serve(late.clone(), &config.http_hosts, health.clone())?.ended().boxed());

        let (link, ledger) = open(&config.nats, usize::from(config.batch)).await?;
        let intake = Intake::connect(&config.nats.connection, "inventory-worker requests").await?;
        let links = [link.clone(), intake.connection().clone()];
        let requests = Tasks(intake.thread().clone());
        let events = Events::open(&link, ledger.clone(), config.max_deliver, tracer.clone());
        let (events, floor) = link.permitted(events).await??;
        let orders = Orders::new(link.clone(), ledger.guard().clone());
        let releaser = Releaser::new(ledger.clone(), orders.clone());
        let settler = Reconciler::new(ledger.clone(), orders);
        let upkeep = Arc::new(Upkeep { events: events.clone(), floor: floor.clone(), settler });
        let inventory = inventory(&config, ledger.clone(), releaser.clone(), upkeep);
        let endpoints =
            Endpoints::serve(intake, link.clone(), Arc::new(inventory), tracer.clone(), able(&health)).await;
        let endpoints =
            endpoints.map_err(|error| anyhow::anyhow!("cannot subscribe to the endpoints: {error}"))?;
        subscribed(&links[1]).await?;

        let registry = Arc::new(Registry::new("worker_build_info", version::VERSION, version::COMMIT));
        registry.add(Tasks(Handle::current()));
        registry.add(tracer.metrics());
        registry.add(requests);
        limits.into_iter().for_each(|limit| registry.add(limit));
        registry.add(Readiness(health.clone()));
        links.iter().cloned().for_each(|link| registry.add(link));
        registry.add(ledger.clone());
        registry.add(ledger.guard().clone());
        registry.add(endpoints.metrics());
        registry.add(events.metrics());
        let events = watched(events.run(stop.clone()).boxed());
        let pause = config.expiry_interval;
        let expiry = Expiry::new(link.clone(), ledger.clone(), releaser, floor.clone(), pause);
        registry.add(expiry.metrics());
        let guard = ledger.guard().clone().run(link.clone());
        say(&health, true);
        late.set(registry);
        let replies = closed(&links);
        let background = vec![
            server,
            watched(expiry.run().boxed()),
            watched(guard.boxed()),
            watched(events::watch(link.clone(), ledger.guard().clone()).boxed()),
            watched(retention::run(ledger.clone(), floor, config.horizon()).boxed()),
            watched(look(health.clone(), Condition { links, ledger: ledger.clone() }, stop.clone()).boxed()),
            watched(replies.boxed()),
        ];
        Ok(Worker {
            endpoints,
            ledger,
            link,
            events,
            stop,
            ended,
            health,
            health_addr,
            http_addr,
            tracer,
            drain_timeout: config.drain_timeout,
            _background: background,
        })
    }

    /// Where grpc.health.v1 is served.
    pub fn health_addr(&self) -> SocketAddr {
        self.health_addr
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The ledger, for reading.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Stops accepting work and finishes work in progress, within the drain timeout.
    pub async fn drain(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.health.end();
        let finish = async {
            let ((), events) = tokio::join!(self.endpoints.close(), self.events);
            events.context("the consumer of ORDERS failed")?;
            flushed(&self.link).await
        };
        let finished = tokio::time::timeout(self.drain_timeout, finish)
            .await
            .context("work in progress took longer than GW_DRAIN_TIMEOUT")?;
        // A blocking call; an error is logged there.
        let _ = tokio::task::spawn_blocking(move || self.tracer.stop()).await;
        finished
    }
}

/// What the service reports of itself: the same as its health.
fn able(health: &HealthRegistry) -> Able {
    let health = health.clone();
    Arc::new(move || health.up(GATEWAY) == Some(true))
}

/// What the request handlers need.
fn inventory(config: &Serve, ledger: Ledger, releaser: Releaser, upkeep: Arc<Upkeep>) -> Inventory {
    let shares = Arc::new(Shares::new(ledger.bounds(), config.horizon()));
    Inventory { ledger, releaser, ttl: config.ttl(), upkeep, wide: Arc::default(), shares }
}

/// Sends the last replies and acknowledgements. Without a connection they are given up: their outcome is stored, and
/// the callers repeat.
async fn flushed(link: &Connection) -> anyhow::Result<()> {
    let given_up = async {
        tokio::time::sleep(RECONNECT).await;
        while link.connected() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        sent = link.client().flush() => sent.context("the last replies were not sent"),
        () = given_up => {
            tracing::warn!("not connected to NATS: the last replies, if any, were not sent");
            Ok(())
        }
    }
}

/// Returns when the server has processed all subscriptions: it reports only permission violations.
async fn subscribed(link: &Connection) -> anyhow::Result<()> {
    let store = Store::new(link.clone(), order_streams::INVENTORY);
    // Any answer will do, even that the stream has no leader: it comes after the server's permission violations.
    let _ = link.permitted(store.range(Instant::now() + SUBSCRIBE)).await?;
    Ok(())
}

/// Connects, finds or creates the streams, and opens the ledger.
pub async fn open(nats: &Nats, batch: usize) -> anyhow::Result<(Connection, Ledger)> {
    let link = Connection::connect(&nats.connection, "inventory-worker").await?;
    let ledger = link.permitted(load(nats, &link, batch)).await??;
    Ok((link, ledger))
}

async fn load(nats: &Nats, link: &Connection, batch: usize) -> anyhow::Result<Ledger> {
    let make = nats.provision == Provision::Auto;
    let replicas = usize::from(nats.replicas);
    let found = order_streams::open(link, replicas, make).await?;
    for warning in found.durability(nats.connection.monitor()).await {
        tracing::warn!(target: "durability", "{warning}");
    }
    Ok(Ledger::open(
        link.clone(),
        Settings { snapshot_every: nats.snapshot_every, batch, bounds: nats.bounds(), replicas },
    )
    .await?)
}

/// Serves until `shutdown`, or until the ledger fails.
pub async fn run(config: Serve, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::pin!(shutdown);
    config.warnings().into_iter().for_each(|warning| tracing::warn!("{warning}"));
    let worker = tokio::select! {
        worker = Worker::start(config) => worker?,
        () = &mut shutdown => return Ok(()),
    };
    let stock = {
        let stock = worker.ledger.stock();
        (stock.sequence(), stock.products(), stock.reservations().0)
    };
    tracing::info!(
        version = version::VERSION,
        commit = version::COMMIT,
        health = %worker.health_addr,
        http = %worker.http_addr,
        sequence = stock.0,
        products = stock.1,
        reservations = stock.2,
        "ready"
    );
    tokio::select! {
        () = shutdown => {}
        broken = worker.ledger.broken() => anyhow::bail!("the ledger failed: {broken}"),
        stream = worker.ledger.guard().lost() => anyhow::bail!(
            "the stream {stream} was deleted and created again: this worker's copy of it is invalid; restart the worker"
        ),
        () = worker.ended.cancelled() => anyhow::bail!("a task of the worker ended; see the log"),
    }
    tracing::info!("draining");
    worker.drain().await?;
    tracing::info!("stopped");
    Ok(())
}

/// Updates the health: the worker serves while both connections are up and the ledger is ready.
async fn look(health: HealthRegistry, condition: Condition, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let findings = condition.findings();
        say(&health, findings.is_empty());
        health.explain(findings);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => {}
        }
    }
}

fn say(health: &HealthRegistry, serves: bool) {
    for service in [GATEWAY, HEALTH_SERVICE] {
        health.set(service, serves);
    }
}

async fn bind(addr: SocketAddr, flag: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let hint =
        format!("is another worker using it? set {flag} to another address, or to port 0 for a free port");
    let listener =
        TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}; {hint}"))?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

/// Completes when one of the connections delivers no replies any more.
fn closed(connections: &[Connection; 2]) -> impl Future<Output = ()> + Send + use<> {
    future::select(connections[0].closed().boxed(), connections[1].closed().boxed()).map(drop)
}

/// Work that must run as long as the worker: `ended` is cancelled when it stops, also by a panic.
fn watched(work: BoxFuture<'static, ()>, ended: CancellationToken) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let _guard = ended.drop_guard();
        work.await;
    }))
}
