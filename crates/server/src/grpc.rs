//! The gRPC server of one thread: its services, from start to drain. Must not depend on what they do.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use admission::MemoryBudget;
use admission::budget::ConnectionMetrics;
use arc_swap::ArcSwap;
use listener::{Acceptor, Activity, ConnectionLimit};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use super::listener::Tls;
pub use super::pass_through::Sizes;
pub use super::served::services;
pub use super::serving::CodedService;

use super::authorization::Authorization;
use super::baggage::Baggage;
use super::call_metrics::CallMetrics;
use super::drain::Drain;
use super::http2::{Http2Params, converse};
use super::listener::{Conn, Listener};
use super::peer::Peer;
use super::registry::HealthRegistry;
use super::served::Current;
use super::serving::{Calls, ConnectionService};
use bridge::Bridge;

/// The services of the server, and what they need.
pub struct Api {
    /// For the rpcs that are passed through.
    pub bridge: Bridge,
    /// The services with code.
    pub services: Vec<Box<dyn CodedService>>,
    /// What is served; a change takes effect while the server runs.
    pub current: Current,
    /// For health checks.
    pub health: HealthRegistry,
    /// Call metrics and access log.
    pub metrics: CallMetrics,
    /// The baggage entries that are forwarded.
    pub baggage: Baggage,
    /// Authentication and authorization; none: everyone may call.
    pub guard: Option<Arc<Authorization>>,
}

/// Limits of the server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Concurrent calls on one connection.
    pub streams: u32,
    /// Maximum size of a call's headers, in bytes.
    pub headers: u32,
    /// Maximum age of a connection, ±10 %; none: no limit.
    pub age: Option<Duration>,
    /// How long streams may continue after that.
    pub grace: Duration,
    /// How long a connection may be idle; none: no limit.
    pub idle: Option<Duration>,
    /// The connection limit.
    pub connections: ConnectionLimit,
    /// TLS.
    pub tls: Option<Tls>,
    /// Limits of message sizes.
    pub sizes: Sizes,
    /// The memory budget of requests.
    pub budget: MemoryBudget,
}

/// How long connections in the listen backlog are still accepted after a drain begins.
const LATECOMERS: Duration = Duration::from_millis(50);

/// Prepares to serve on the current runtime. The future that it returns serves until `drain`, and then until every call
/// has been answered.
///
/// # Errors
/// If the socket or a service cannot be set up.
pub fn open(
    listener: TcpListener,
    api: Api,
    limits: Limits,
    drain: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + Send + use<>> {
    let draining = Arc::new(Drain::new(api.bridge.tasks().clone()));
    let mut incoming = Listener::new(Acceptor::from_std(listener, limits.connections)?, limits.tls);
    let params = Http2Params {
        streams: limits.streams,
        headers: refusable(limits.headers),
        age: limits.age,
        grace: limits.grace,
        idle: limits.idle,
    };
    let http = params.http();
    let guard = api.guard.clone();
    let calls = Calls {
        bridge: api.bridge.idle(),
        services: api.services,
        health: api.health,
        metrics: api.metrics,
        baggage: api.baggage,
        draining: draining.clone(),
        headers: limits.headers as usize,
        sizes: limits.sizes,
        drain: drain.clone(),
    };
    let serving = Arc::new(ArcSwap::from_pointee(calls.serving(&api.current.served(), None)));
    Ok(async move {
        let connections = TaskTracker::new();
        let begin = |conn: Conn| {
            let Conn { line, peer_identity, standing } = conn;
            let peer = Arc::new(Peer::new(peer_identity, standing, params.grace));
            let activity = line.permit().activity().clone();
            let budget = limits.budget.counting(connection_metrics(&activity));
            let service = ConnectionService {
                serving: serving.clone(),
                guard: guard.clone(),
                peer: peer.clone(),
                budget: budget.clone(),
                activity,
            };
            connections.spawn(converse(line, peer, budget, service, http.clone(), params, drain.clone()));
        };
        let accept = async {
            loop {
                begin(incoming.next().await);
            }
        };
        // Connections in the backlog may have sent a call, and are served too: closing the socket would reset them.
        let last = async {
            drain.cancelled().await;
            sleep(LATECOMERS).await;
        };
        tokio::select! {
            never = accept => match never {},
            never = calls.follow(&api.current, &serving) => match never {},
            () = last => {}
        }
        // No further connections are accepted now; handshakes in progress are aborted.
        incoming.finish().into_iter().for_each(begin);
        connections.close();
        // Connections continue while calls are finished: they send GOAWAY, and refuse new calls.
        tokio::select! {
            () = connections.wait() => {}
            // Connections of silent clients stay open; they do not matter once every call is answered.
            () = draining.over(&drain) => {}
        }
        // Work may outlive a caller that cancelled.
        draining.worked().await;
    })
}

/// The request counters of a connection, for its frame limiter.
pub(super) fn connection_metrics(activity: &Activity) -> ConnectionMetrics {
    ConnectionMetrics { whole: activity.whole().clone(), wasted: activity.wasted().clone() }
}

/// The header list size that HTTP/2 accepts, larger than the limit, so that a call over the limit gets a gRPC status.
/// Beyond this size the library answers 431.
pub(super) fn refusable(headers: u32) -> u32 {
    headers.saturating_mul(4).min(headers.saturating_add(256 << 10))
}
