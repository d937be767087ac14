//! A running gateway: its threads, listeners and connections, from start to drain. Must not depend on what a call does.

mod bucket;
mod cluster;
mod console;
mod descriptors;
mod http;
mod identity;
mod instances;
mod listen;
#[cfg(test)]
mod misbehaving;
mod monitor;
mod nodes;
mod order_system;
mod reload;
mod reloads;
mod runtime;
mod shared;
mod stream_guard;
#[cfg(test)]
mod tests;
mod thread;
mod window;
mod work;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use admission::MemoryBudget;
use anyhow::{Context, anyhow};
use futures_util::future::join_all;
use listener::Hosts;
use nats::{Connection, Guard};
use order_streams::{INVENTORY, ORDERS};
use telemetry::exposition::Tasks;
use telemetry::{Registry, Tracer};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::bucket::Beginning;
use self::cluster::ClusterState;
use self::console::{Aliases, Console};
use self::descriptors::DescriptorBudget;
use self::http::Port;
use self::identity::Identity;
use self::monitor::Monitor;
use self::order_system::OrderSystem;
use self::reload::{Reloader, SourceState};
pub use self::reloads::Reloads;
use self::runtime::Runtime;
use self::shared::Shared;
use self::thread::{Thread, join, spawn};
use self::window::Windows;
use self::work::InHand;
pub use self::{descriptors::check as check_room, listen::check_free};
use crate::config::Serve;
use crate::contracts;
use bridge::{self, RouteStates};
use orders::feed::Feed;
use orders::service::Places;
use server::security::Upkeep;
use server::supervisor::{Supervisor, TaskFailure};
use server::{Current, HealthRegistry, Served};

/// Timeout of the start: the connection to NATS, the streams, and the read of ORDERS.
const START: Duration = Duration::from_secs(60);

/// A gateway that serves. Dropping it stops it immediately, like a crash; `drain` shuts it down gracefully.
pub struct Gateway {
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    health_addr: Option<SocketAddr>,
    drain_limit: Duration,
    shared: Arc<Shared>,
    threads: Vec<Thread>,
}

/// The parameters of the background thread, which serves no calls.
struct BackgroundTask {
    identity: Identity,
    http: std::net::TcpListener,
    health: Option<std::net::TcpListener>,
    upkeep: Upkeep,
    /// The state of the sources of the contracts that are served.
    read: SourceState,
}

impl Gateway {
    /// Starts a gateway: binds its addresses, connects to NATS, finds or creates the streams, and serves.
    pub async fn start(config: Serve) -> anyhow::Result<Gateway> {
        let room = DescriptorBudget::prepare(&config)?;
        let listeners = listen::many(config.grpc_addr, config.thread_count(), "--grpc-addr")?;
        let http = listen::one(config.http_addr, "--http-addr")?;
        let health = config.health_addr.map(|address| listen::one(address, "--health-addr")).transpose()?;
        // Before the files are read: a change meanwhile is another one.
        let files = config.sources.fingerprint();
        config.check_bucket()?;
        let Beginning { catalog, mark, digests } = bucket::start(&config).await?;
        let ready_on = contracts::ready_on(&catalog, &config.ready_on)?;
        let limits = bridge::Limits {
            in_flight: config.limits.max_in_flight as usize,
            nestjs: config.nest_subjects.clone(),
        };
        let states = RouteStates::new(catalog.clone(), catalog.serving_routes(), &limits);
        let served = Served::new(Arc::new(states), shared::coded(&config), config.access.reflection)?;
        let board = HealthRegistry::new(served.names());
        let current = Current::new(served);
        let (secure, upkeep) = config.open_security(&current).await?;
        let drain = CancellationToken::new();
        let shared = Arc::new(Shared {
            places: Arc::new(Places::new(limits.in_flight)),
            room,
            budget: MemoryBudget::new(config.limits.budget()?),
            secure,
            guard: match config.orders() {
                true => order_streams::guard(config.replicas, &[ORDERS, INVENTORY]),
                false => Guard::default(),
            },
            ready_on,
            reloads: Reloads::new(&catalog),
            current,
            board,
            registry: Arc::new(Registry::new("gateway_build_info", version::VERSION, version::COMMIT)),
            tracer: Tracer::start(&config.traces, "gateway")?,
            work: InHand::default(),
            supervisor: Supervisor::new(drain.clone()),
            serving: CancellationToken::new(),
            drain,
            abort: CancellationToken::new(),
            lost: CancellationToken::new(),
            config,
        });
        shared.reloads.follows(digests);
        let mut gateway = Gateway {
            grpc_addr: listeners.first().context("no thread to serve")?.local_addr()?,
            http_addr: http.local_addr()?,
            health_addr: health.as_ref().map(std::net::TcpListener::local_addr).transpose()?,
            drain_limit: shared.config.drain_limit(),
            shared: shared.clone(),
            threads: Vec::new(),
        };
        let identity = Identity::new(gateway.grpc_addr, gateway.http_addr);
        let read = SourceState { files, bucket: mark };
        let feed = gateway.background(BackgroundTask { identity, http, health, upkeep, read }).await?;
        gateway.serve(listeners, feed.as_ref()).await?;
        gateway.shared.serving.cancel();
        gateway.announce();
        Ok(gateway)
    }

    /// The address of the gRPC listener.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// The address of the HTTP listener.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The address of the health listener without TLS, if there is one.
    pub fn health_addr(&self) -> Option<SocketAddr> {
        self.health_addr
    }

    /// Whether a service is up; none if there is no such service.
    pub fn up(&self, service: &str) -> Option<bool> {
        self.shared.board.up(service)
    }

    /// Returns when ORDERS is no longer the stream that this gateway started with: its index of orders is then invalid,
    /// and only a restart rebuilds it.
    pub async fn lost(&self) {
        self.shared.lost.cancelled().await;
    }

    /// Returns when a thread or a background task has panicked, or has ended although it must not: the gateway cannot
    /// be relied on any more, and its process should end with this error.
    pub async fn failed(&self) -> TaskFailure {
        self.shared.supervisor.failed().await
    }

    /// The supervisor of its threads and background tasks, also during a drain.
    pub fn supervisor(&self) -> Supervisor {
        self.shared.supervisor.clone()
    }

    /// The work in flight, also during a drain.
    pub fn in_hand(&self) -> InHand {
        self.shared.work.clone()
    }

    /// Asks for its contracts to be read again.
    pub fn reloads(&self) -> Reloads {
        self.shared.reloads.clone()
    }

    /// Shuts the gateway down gracefully: it becomes NOT_SERVING, watches end, and calls in flight are answered within
    /// the drain timeout.
    pub async fn drain(mut self) {
        tracing::info!("draining");
        self.shared.board.end();
        self.shared.drain.cancel();
        let served = join_all(self.threads.iter_mut().map(|thread| &mut thread.served));
        if tokio::time::timeout(self.drain_limit, served).await.is_err() {
            tracing::warn!(limit = ?self.drain_limit, "the drain timeout has passed: calls in flight were aborted");
        }
        let (threads, tracer) = (self.abort(), self.shared.tracer.clone());
        // A blocking task, so that the caller can still stop waiting. `join` logs errors.
        let ended = move || {
            join(threads);
            tracer.stop();
        };
        let _ = tokio::task::spawn_blocking(ended).await;
        tracing::info!("drained");
    }

    /// Stops everything that still runs, and returns the threads to join.
    fn abort(&mut self) -> Vec<JoinHandle<()>> {
        self.shared.abort.cancel();
        self.threads.iter_mut().filter_map(|thread| thread.handle.take()).collect()
    }

    /// Starts the background thread, which serves no calls.
    async fn background(&mut self, aside: BackgroundTask) -> anyhow::Result<Option<Arc<Feed>>> {
        let shared = self.shared.clone();
        let (up, started) = oneshot::channel();
        self.threads.push(spawn("background", self.shared.spawning(), background(shared, aside, up))?);
        started.await.map_err(|_| anyhow!("the background thread ended"))?
    }

    /// Starts the threads that serve calls, one per listener.
    async fn serve(
        &mut self,
        listeners: Vec<std::net::TcpListener>,
        feed: Option<&Arc<Feed>>,
    ) -> anyhow::Result<()> {
        let mut waits = Vec::new();
        for (number, listener) in listeners.into_iter().enumerate() {
            let core = Runtime { number, shared: self.shared.clone(), feed: feed.cloned(), listener };
            let (up, started) = oneshot::channel();
            let name = format!("grpc-{number}");
            self.threads.push(spawn(&name, self.shared.spawning(), core.run(up))?);
            waits.push(started);
        }
        for started in waits {
            started.await.map_err(|_| anyhow!("a serving thread ended"))??;
        }
        Ok(())
    }

    fn announce(&self) {
        tracing::info!(
            version = version::VERSION, commit = version::COMMIT,
            grpc = %self.grpc_addr,
            http = %self.http_addr,
            tls = self.shared.secure.tls.is_some(),
            callers_known = self.shared.secure.guard.is_some(),
            nats = self.shared.config.nats.shown(),
            threads = self.threads.len() - 1,
            "serving"
        );
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        join(self.abort());
    }
}

/// What a gateway does once, independent of its serving threads: streams, feed, health, HTTP, certificates and keys.
async fn background(
    shared: Arc<Shared>,
    aside: BackgroundTask,
    up: oneshot::Sender<anyhow::Result<Option<Arc<Feed>>>>,
) {
    let started = tokio::time::timeout(START, open(&shared)).await;
    let (link, orders) =
        match started.unwrap_or_else(|_| Err(anyhow!("NATS did not answer within {START:?}"))) {
            Ok(parts) => parts,
            Err(error) => {
                // The receiver is gone if the start was cancelled.
                let _ = up.send(Err(error));
                return;
            }
        };
    let around = ClusterState::new(&aside.identity.id, shared.config.orders());
    register(&shared, &link, &around);
    let feed = orders.as_ref().map(|orders| orders.feed.clone());
    if let Some(feed) = &feed {
        shared.registry.add(Arc::downgrade(feed));
    }
    let windows = Windows::new();
    let console = shared.config.console().then(|| Console {
        current: shared.current.clone(),
        registry: shared.registry.clone(),
        windows: windows.clone(),
        identity: aside.identity.clone(),
        board: shared.board.clone(),
        around: around.clone(),
        feed: feed.clone(),
        link: link.clone(),
        guard: shared.guard.clone(),
        url: shared.config.nats.shown().into(),
        since: Instant::now(),
        aliases: Aliases::new(),
        monitored: shared.config.nats.nats_monitor_url.is_some(),
    });
    let supervisor = &shared.supervisor;
    match http(&shared, aside.http, aside.health, console) {
        Ok(thread) => supervisor.spawn("thread http", thread.ended()),
        Err(error) => {
            let _ = up.send(Err(error));
            return;
        }
    }
    aside.upkeep.spawn(supervisor);
    supervisor.spawn("replies to gateway background", link.closed());
    supervisor.spawn("discovery service", aside.identity.presence(shared.board.clone()).answer(link.clone()));
    supervisor.spawn("cluster state", around.clone().run(link.clone()));
    if let Some(monitor) = shared.config.nats.monitor() {
        supervisor.spawn("monitoring of the NATS servers", around.visit(monitor));
    }
    if shared.config.console() {
        supervisor.spawn("metrics of the console", windows.run(shared.registry.clone()));
    }
    supervisor.spawn("stream checks", shared.guard.clone().run(link.clone()));
    if shared.config.changes() {
        let reloader = Reloader::new(shared.clone(), &link, aside.read);
        supervisor.spawn("reload of contracts", reloader.run());
    }
    supervisor.spawn("health monitor", Monitor::new(link, &shared).run());
    if let Some(OrderSystem { record, feed }) = orders {
        supervisor.spawn("identity of ORDERS", record.watch(feed, shared.lost.clone()));
    }
    let _ = up.send(Ok(feed.clone()));
    shared.drain.cancelled().await;
    if let Some(feed) = feed {
        feed.end();
    }
}

/// Adds the metrics of what exists once.
fn register(shared: &Shared, link: &Connection, cluster: &ClusterState) {
    let registry = &shared.registry;
    registry.add(Tasks(Handle::current()));
    registry.add(shared.tracer.metrics());
    registry.add(shared.board.clone());
    registry.add(shared.room.clone());
    registry.add(shared.secure.metrics.clone());
    registry.add(shared.budget.clone());
    registry.add(shared.current.look().states().learned().clone());
    registry.add(shared.reloads.clone());
    registry.add(link.clone());
    registry.add(shared.guard.clone());
    registry.add(cluster.clone());
}

/// Serves HTTP, and health if it has its own port, on another thread.
fn http(
    shared: &Shared,
    http: std::net::TcpListener,
    health: Option<std::net::TcpListener>,
    console: Option<Console>,
) -> anyhow::Result<listener::Thread> {
    let hosts = Hosts::new(http.local_addr()?, &shared.config.http_hosts);
    let router =
        http::router(shared.board.clone(), shared.registry.clone(), console, shared.reloads.clone(), hosts);
    let http = Port { listener: http, seats: shared.room.http.clone() };
    let health = health.map(|listener| Port { listener, seats: shared.room.health.clone() });
    Ok(http::start(http, router, health, shared.board.clone(), &shared.supervisor)?)
}

async fn open(shared: &Shared) -> anyhow::Result<(Connection, Option<OrderSystem>)> {
    let link = Connection::connect(&shared.config.nats, "gateway background").await?;
    let orders = match shared.config.orders() {
        true => Some(OrderSystem::open(shared, &link).await?),
        false => None,
    };
    Ok((link, orders))
}
