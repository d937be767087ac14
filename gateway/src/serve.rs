//! A running gateway: its threads, listeners and connections, from start to drain. Must never know what a call does.

mod census;
mod console;
mod core;
mod http;
mod identity;
mod listen;
mod monitor;
mod nodes;
mod record;
mod room;
mod roster;
mod secure;
mod thread;
mod window;
mod work;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use admission::Budget;
use anyhow::{Context, anyhow};
use futures_util::future::join_all;
use link::{Guard, Link, Streams};
use listener::Hosts;
use telemetry::page::Tasks;
use telemetry::{Book, Tracer};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::census::Around;
use self::console::{Aliases, Console};
use self::core::Core;
use self::http::Port;
use self::identity::Identity;
use self::monitor::Monitor;
use self::record::Record;
use self::room::Room;
use self::secure::Secure;
use self::thread::{Thread, join, spawn};
use self::window::Windows;
use self::work::InHand;
pub use self::{listen::check_free, room::check as check_room};
use crate::auth::Upkeep;
use crate::bridge::{self, Lanes};
use crate::config::{Provision, Serve};
use crate::edge::{Board, server};
use crate::feed::{self, Feed};
use crate::order::Places;

/// Starting takes this long at the most, after NATS has answered.
const START: Duration = Duration::from_secs(60);

/// A gateway that serves. Dropped, it stops at once, as a crash would; `drain` ends it in order.
pub struct Gateway {
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    health_addr: Option<SocketAddr>,
    drain_limit: Duration,
    shared: Arc<Shared>,
    threads: Vec<Thread>,
}

/// What the threads share.
struct Shared {
    config: Serve,
    lanes: Arc<Lanes>,
    /// Whether the streams are as they have to be.
    guard: Guard,
    places: Arc<Places>,
    /// Connections.
    room: Room,
    /// Memory of requests.
    budget: Budget,
    secure: Secure,
    board: Board,
    /// The figures of all threads.
    book: Arc<Book>,
    tracer: Tracer,
    /// What each thread has in hand.
    work: InHand,
    /// Calls in flight finish, and no new ones come.
    drain: CancellationToken,
    /// Everything ends.
    abort: CancellationToken,
    /// The record is not the one that this gateway began with.
    lost: CancellationToken,
}

/// What the thread that serves no calls starts with.
struct Aside {
    identity: Identity,
    http: std::net::TcpListener,
    health: Option<std::net::TcpListener>,
    upkeep: Upkeep,
}

impl Gateway {
    /// Starts a gateway: binds its addresses, connects to NATS, finds or makes the streams, and serves.
    pub async fn start(config: Serve) -> anyhow::Result<Gateway> {
        let room = Room::prepare(&config)?;
        let listeners = listen::many(config.grpc_addr, config.thread_count(), "--grpc-addr")?;
        let http = listen::one(config.http_addr, "--http-addr")?;
        let health = config.health_addr.map(|address| listen::one(address, "--health-addr")).transpose()?;
        let (secure, upkeep) = secure::open(&config).await?;
        let limits = bridge::Limits {
            in_flight: config.limits.max_in_flight as usize,
            nest: config.nest_subjects.clone(),
        };
        let shared = Arc::new(Shared {
            places: Arc::new(Places::new(limits.in_flight)),
            room,
            budget: Budget::new(config.limits.budget()?),
            secure,
            guard: Guard::default(),
            lanes: Arc::new(Lanes::new(contract::route::VITAL, &limits)),
            board: Board::new(&server::services()),
            book: Arc::new(Book::new("gateway_build_info", version::VERSION, version::COMMIT)),
            tracer: Tracer::start(&config.traces, "gateway")?,
            work: InHand::default(),
            drain: CancellationToken::new(),
            abort: CancellationToken::new(),
            lost: CancellationToken::new(),
            config,
        });
        let mut gateway = Gateway {
            grpc_addr: listeners.first().context("no thread to serve")?.local_addr()?,
            http_addr: http.local_addr()?,
            health_addr: health.as_ref().map(std::net::TcpListener::local_addr).transpose()?,
            drain_limit: shared.config.drain_limit(),
            shared: shared.clone(),
            threads: Vec::new(),
        };
        let identity = Identity::new(gateway.grpc_addr, gateway.http_addr);
        let feed = gateway.background(Aside { identity, http, health, upkeep }).await?;
        gateway.serve(listeners, &feed).await?;
        gateway.announce();
        Ok(gateway)
    }

    /// Where gRPC is served.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where health is served besides, without TLS.
    pub fn health_addr(&self) -> Option<SocketAddr> {
        self.health_addr
    }

    /// Whether a service is up; nothing if there is no such service.
    pub fn up(&self, service: &str) -> Option<bool> {
        self.shared.board.up(service)
    }

    /// Returns when the record is no longer the one that this gateway began with: what it knows of orders is worth
    /// nothing then, and only a start can mend that.
    pub async fn lost(&self) {
        self.shared.lost.cancelled().await;
    }

    /// What is in hand, also when it drains.
    pub fn in_hand(&self) -> InHand {
        self.shared.work.clone()
    }

    /// Ends the gateway in order: it is no longer healthy, watches end, calls in flight are answered, within the
    /// drain timeout.
    pub async fn drain(mut self) {
        tracing::info!("draining");
        self.shared.board.end();
        self.shared.drain.cancel();
        let served = join_all(self.threads.iter_mut().map(|thread| &mut thread.served));
        if tokio::time::timeout(self.drain_limit, served).await.is_err() {
            tracing::warn!(limit = ?self.drain_limit, "calls in flight were cut off");
        }
        let (threads, tracer) = (self.abort(), self.shared.tracer.clone());
        // A blocking call, so that whoever waits can still be told to wait no longer. An error is logged there.
        let ended = move || {
            join(threads);
            tracer.stop();
        };
        let _ = tokio::task::spawn_blocking(ended).await;
        tracing::info!("drained");
    }

    /// Ends what still runs; what is left is to wait for these threads.
    fn abort(&mut self) -> Vec<JoinHandle<()>> {
        self.shared.abort.cancel();
        self.threads.iter_mut().filter_map(|thread| thread.handle.take()).collect()
    }

    /// Starts the thread that serves no calls.
    async fn background(&mut self, aside: Aside) -> anyhow::Result<Arc<Feed>> {
        let shared = self.shared.clone();
        let (up, started) = oneshot::channel();
        self.threads.push(spawn("background", self.shared.abort.clone(), async move {
            background(shared, aside, up).await
        })?);
        started.await.map_err(|_| anyhow!("the background thread ended"))?
    }

    /// Starts the threads that serve calls, one per listener.
    async fn serve(&mut self, listeners: Vec<std::net::TcpListener>, feed: &Arc<Feed>) -> anyhow::Result<()> {
        let mut waits = Vec::new();
        for (number, listener) in listeners.into_iter().enumerate() {
            let core = Core { number, shared: self.shared.clone(), feed: feed.clone(), listener };
            let (up, started) = oneshot::channel();
            let name = format!("grpc-{number}");
            self.threads.push(spawn(&name, self.shared.abort.clone(), core.run(up))?);
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

/// What a gateway does once, whatever its threads: streams, feed, health, HTTP, certificates and keys.
async fn background(shared: Arc<Shared>, aside: Aside, up: oneshot::Sender<anyhow::Result<Arc<Feed>>>) {
    let started = tokio::time::timeout(START, open(&shared)).await;
    let (link, record, feed) =
        match started.unwrap_or_else(|_| Err(anyhow!("NATS did not answer within {START:?}"))) {
            Ok(parts) => parts,
            Err(error) => {
                // The receiver is gone if the start was given up.
                let _ = up.send(Err(error));
                return;
            }
        };
    let around = Around::new(&aside.identity.id);
    let book = &shared.book;
    book.add(Tasks(Handle::current()));
    book.add(shared.tracer.tally());
    book.add(shared.board.clone());
    book.add(shared.room.clone());
    book.add(shared.secure.figures.clone());
    book.add(shared.budget.clone());
    book.add(shared.lanes.clone());
    book.add(link.clone());
    book.add(shared.guard.clone());
    book.add(around.clone());
    book.add(Arc::downgrade(&feed));
    let windows = Windows::new();
    let console = shared.config.console().then(|| Console {
        book: book.clone(),
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
    match http(&shared, aside.http, aside.health, console) {
        // It serves until everything ends.
        Ok(thread) => drop(tokio::spawn(thread.ended())),
        Err(error) => {
            let _ = up.send(Err(error));
            return;
        }
    }
    tokio::spawn(aside.upkeep.run());
    tokio::spawn(aside.identity.presence(shared.board.clone()).answer(link.clone()));
    tokio::spawn(around.clone().run(link.clone()));
    tokio::spawn(around.visit(shared.config.nats.nats_monitor_url.clone()));
    if shared.config.console() {
        tokio::spawn(windows.run(book.clone()));
    }
    tokio::spawn(shared.guard.clone().run(link.clone(), shared.config.replicas));
    let monitor = Monitor::new(link, shared.lanes.clone(), shared.board.clone(), shared.guard.clone());
    tokio::spawn(monitor.run());
    tokio::spawn(record.watch(feed.clone(), shared.lost.clone()));
    let _ = up.send(Ok(feed.clone()));
    shared.drain.cancelled().await;
    feed.end();
}

/// Serves HTTP, and health where it has a port of its own, on another thread.
fn http(
    shared: &Shared,
    http: std::net::TcpListener,
    health: Option<std::net::TcpListener>,
    console: Option<Console>,
) -> anyhow::Result<listener::Thread> {
    let hosts = Hosts::new(http.local_addr()?, &shared.config.http_hosts);
    let router = http::router(shared.board.clone(), shared.book.clone(), console, hosts);
    let http = Port { listener: http, seats: shared.room.http.clone() };
    let health = health.map(|listener| Port { listener, seats: shared.room.health.clone() });
    Ok(http::start(http, router, health, shared.board.clone())?)
}

async fn open(shared: &Shared) -> anyhow::Result<(Link, Record, Arc<Feed>)> {
    let config = &shared.config.nats;
    let link = Link::connect(config, "gateway background").await?;
    // The record's own time, whatever the clocks of the other streams' leaders say.
    link.clock().follow(link::streams::ORDERS);
    let (record, feed) = link.permitted(read(shared, &link)).await??;
    Ok((link, record, feed))
}

async fn read(shared: &Shared, link: &Link) -> anyhow::Result<(Record, Arc<Feed>)> {
    let make = shared.config.provision == Provision::Auto;
    let streams = Streams::open(link, shared.config.replicas, make).await?;
    tracing::info!(replicas = streams.replicas, made = ?streams.made, "streams");
    let monitor = shared.config.nats.nats_monitor_url.as_deref();
    for warning in streams.durability(monitor).await {
        tracing::warn!(target: "durability", "{warning}");
    }
    shared.guard.keep(link::streams::ORDERS, streams.orders.clone());
    let record = Record::new(link.clone(), streams.orders.clone());
    let feed = Feed::start(
        link.clone(),
        streams.orders,
        feed::Limits { watches: shared.config.limits.max_watches as usize, ..feed::Limits::default() },
    )
    .await?;
    Ok((record, feed))
}
