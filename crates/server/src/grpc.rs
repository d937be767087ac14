//! The gRPC server of one thread: its services, from start to drain. Must not depend on what they do.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use admission::budget::ConnectionMetrics;
use admission::{Admission, HealthService, MemoryBudget};
use catalog::{Catalog, Route};
use listener::{Acceptor, Activity, ConnectionLimit};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;
use tonic_health::pb::health_server::HealthServer;

pub use super::listener::Tls;
pub use super::pass_through::Sizes;

use super::authorization::{Authorization, AuthorizedService};
use super::baggage::Baggage;
use super::call_layer::CallLayer;
use super::call_metrics::CallMetrics;
use super::drain::Drain;
use super::http2::{Http2Params, converse};
use super::listener::{Conn, Listener};
use super::pass_through::PassThrough;
use super::peer::Peer;
use super::registry::HealthRegistry;
use super::rpcs::Rpcs;
use crate::config::access::Reflection;
use bridge::Bridge;

/// A service with code, beside those whose rpcs are passed through.
pub trait CodedService: Send {
    /// Adds its rpcs, for messages of at most these sizes.
    fn add_to(self: Box<Self>, routes: &mut RoutesBuilder, sizes: Sizes);
}

/// The services of the server, and what they need.
pub struct Api {
    /// For the rpcs that are passed through.
    pub bridge: Bridge,
    /// The services with code.
    pub services: Vec<Box<dyn CodedService>>,
    /// The names of all services, for reflection.
    pub names: Vec<Arc<str>>,
    /// For health checks.
    pub health: HealthRegistry,
    /// Call metrics and access log.
    pub metrics: CallMetrics,
    /// The baggage entries that are forwarded.
    pub baggage: Baggage,
    /// Authentication and authorization; none: everyone may call.
    pub guard: Option<Arc<Authorization>>,
    /// Who may use reflection.
    pub reflection: Reflection,
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

/// The names of all services except health and reflection: those with routes that clients may call, and these with code.
pub fn services(catalog: &Catalog, coded: &[&str]) -> Vec<Arc<str>> {
    let passed = catalog.routes().iter().filter(|route| !route.internal).map(|route| route.service.as_str());
    let mut names: Vec<_> = passed.chain(coded.iter().copied()).map(Arc::from).collect();
    names.sort_unstable();
    names.dedup();
    names
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
    let (headers, most) = (limits.headers as usize, limits.sizes.request);
    let catalog = api.bridge.catalog().clone();
    let sizes = catalog.client_rpcs().map(|rpc| (rpc.path.clone(), most));
    let streaming = catalog.routes().iter().filter(|route| route.kind.streams_requests());
    let admission = Admission::new(headers, sizes, draining.hurry().clone())
        .reading_streams(streaming.map(|route| route.path.clone()), most)
        .of_calls();
    let layer =
        CallLayer { draining: draining.clone(), metrics: api.metrics.clone(), baggage: api.baggage.clone() };
    let guard = api.guard.clone();
    let rpcs = rpcs(api, limits.sizes, &drain)?;
    Ok(async move {
        let connections = TaskTracker::new();
        let begin = |conn: Conn| {
            let Conn { line, peer_identity, standing } = conn;
            let peer = Arc::new(Peer::new(peer_identity, standing, params.grace));
            let activity = line.permit().activity().clone();
            let calls = limits.budget.counting(connection_metrics(&activity));
            let guarded = AuthorizedService {
                rpcs: rpcs.clone(),
                catalog: catalog.clone(),
                guard: guard.clone(),
                peer: peer.clone(),
            };
            let service = layer.around(admission.before(guarded, calls.clone()), activity);
            connections.spawn(converse(line, peer, calls, service, http.clone(), params, drain.clone()));
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

fn rpcs(api: Api, sizes: Sizes, drain: &CancellationToken) -> anyhow::Result<Rpcs> {
    let mut others = RoutesBuilder::default();
    others.add_service(HealthServer::new(HealthService::new(api.health)));
    if api.reflection != Reflection::Off {
        let pools = api.bridge.catalog().descriptors();
        let sets: Vec<_> = pools.iter().map(|pool| pool.encode_to_vec()).collect();
        let reflection = || {
            let builder = tonic_reflection::server::Builder::configure();
            // Of files that several sets have, the first is shown.
            let builder = sets
                .iter()
                .fold(builder, |builder, set| builder.register_encoded_file_descriptor_set(set))
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // Clients need these to decode error details.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .with_service_name(tonic_health::pb::health_server::SERVICE_NAME);
            api.names.iter().fold(builder, |builder, name| builder.with_service_name(&**name))
        };
        others.add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?);
    }
    api.services.into_iter().for_each(|service| service.add_to(&mut others, sizes));
    let routes = api.bridge.catalog().routes().iter().filter(|route| !route.internal);
    let pass = |route: &Arc<Route>| {
        let pass = PassThrough::new(api.bridge.clone(), route.clone(), sizes, drain.clone());
        (route.path.clone(), pass)
    };
    Ok(Rpcs::new(routes.map(pass), others.routes().prepare()))
}
