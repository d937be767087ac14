//! The gRPC server of one thread: which services there are, and how long it serves. Must never know what they do.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use admission::budget::Tally;
use admission::{Admission, Budget, Checkup};
use contract::orders::v1::server::order_service_server::{OrderService, OrderServiceServer};
use contract::route::{self, Route};
use listener::{Acceptor, Activity, Seats};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

pub use super::incoming::Tls;
pub use super::pass::Sizes;

use super::account::Books;
use super::baggage::Baggage;
use super::board::Board;
use super::converse::{Manners, converse};
use super::envelope::Envelope;
use super::guard::{Guard, Guarded};
use super::incoming::{Door, Guest};
use super::parting::Parting;
use super::pass::Pass;
use super::peer::Peer;
use super::rpcs::Rpcs;
use crate::bridge::Bridge;
use crate::config::access::Reflection;

/// What the server answers with.
pub struct Api<O> {
    /// For the rpcs that are passed through.
    pub bridge: Bridge,
    /// For the rpcs with code.
    pub orders: O,
    /// For health checks.
    pub board: Board,
    /// Where calls are entered.
    pub books: Books,
    /// What travels on of a caller's baggage.
    pub baggage: Baggage,
    /// Who may call; without it: anybody.
    pub(crate) guard: Option<Arc<Guard>>,
    /// Whether the contract is told by reflection, and to whom.
    pub reflection: Reflection,
}

/// Limits of the server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls at a time on one connection.
    pub streams: u32,
    /// Bytes of a call's headers.
    pub headers: u32,
    /// How long a connection lasts, roughly; none: as long as its client likes.
    pub age: Option<Duration>,
    /// How long streams go on after that.
    pub grace: Duration,
    /// How long a connection may have no call; none: as long as its client likes.
    pub idle: Option<Duration>,
    /// Connections.
    pub seats: Seats,
    /// Their encryption.
    pub tls: Option<Tls>,
    /// Message sizes.
    pub sizes: Sizes,
    /// Memory of requests.
    pub budget: Budget,
}

/// The names of the services with orders and stock, that is all but health and reflection.
pub fn services() -> Vec<&'static str> {
    let passed = route::ALL.iter().filter(|route| !route.internal).map(|route| route.service);
    let mut names: Vec<_> = passed.chain([ORDERS]).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether a service has rpcs that are not passed through.
pub fn has_code(service: &str) -> bool {
    service == ORDERS
}

const ORDERS: &str = contract::orders::v1::server::order_service_server::SERVICE_NAME;

/// How long connections are still accepted after the wish to stop: those that wait to be.
const LATECOMERS: Duration = Duration::from_millis(50);

/// Serves until `drain`, and then until every call has been answered.
pub async fn serve(
    listener: TcpListener,
    api: Api<impl OrderService>,
    limits: Limits,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let parting = Arc::new(Parting::new(api.bridge.tasks().clone()));
    let mut door = Door::new(Acceptor::from_std(listener, limits.seats)?, limits.tls);
    let manners = Manners {
        streams: limits.streams,
        headers: refusable(limits.headers),
        age: limits.age,
        grace: limits.grace,
        idle: limits.idle,
    };
    let http = manners.http();
    let (headers, most) = (limits.headers as usize, limits.sizes.request);
    let sizes = route::RPCS.iter().map(|rpc| (rpc.path, most));
    let admission = Admission::new(headers, sizes, parting.hurry().clone()).of_calls();
    let envelope =
        Envelope { parting: parting.clone(), books: api.books.clone(), baggage: api.baggage.clone() };
    let guard = api.guard.clone();
    let rpcs = rpcs(api, limits.sizes)?;
    let connections = TaskTracker::new();
    let begin = |guest: Guest| {
        let Guest { line, badge, standing } = guest;
        let peer = Arc::new(Peer::new(badge, standing, manners.grace));
        let activity = line.seat().activity().clone();
        let calls = limits.budget.counting(tally(&activity));
        let guarded = Guarded { rpcs: rpcs.clone(), guard: guard.clone(), peer: peer.clone() };
        let service = envelope.around(admission.before(guarded, calls.clone()), activity);
        connections.spawn(converse(line, peer, calls, service, http.clone(), manners, drain.clone()));
    };
    let accept = async {
        loop {
            begin(door.next().await);
        }
    };
    // Those that have connected by then, and may have sent a call, are answered too: closing the socket resets them.
    let last = async {
        drain.cancelled().await;
        sleep(LATECOMERS).await;
    };
    tokio::select! {
        never = accept => match never {},
        () = last => {}
    }
    // Nobody else can connect now; handshakes under way end as well.
    door.finish().into_iter().for_each(begin);
    connections.close();
    // They have to go on while calls are finished: they are what says goodbye to clients, and lets no new ones in.
    tokio::select! {
        () = connections.wait() => {}
        // Connections of clients that say nothing stay open; they do not matter once every call is answered.
        () = parting.over(&drain) => {}
    }
    // A caller may have left its call behind.
    parting.worked().await;
    Ok(())
}

/// Where a connection's requests are counted, for its patrol.
pub(super) fn tally(activity: &Activity) -> Tally {
    Tally { whole: activity.whole().clone(), wasted: activity.wasted().clone() }
}

/// What HTTP/2 takes of headers, so that a call with more than its limit is told so as gRPC. With more than this it is
/// told 431, by the library.
pub(super) fn refusable(headers: u32) -> u32 {
    headers.saturating_mul(4).min(headers.saturating_add(256 << 10))
}

fn rpcs(api: Api<impl OrderService>, sizes: Sizes) -> anyhow::Result<Rpcs> {
    let orders = OrderServiceServer::new(api.orders)
        .max_decoding_message_size(sizes.request)
        .max_encoding_message_size(sizes.reply);
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(contract::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that clients can read the details of errors.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(tonic_health::pb::health_server::SERVICE_NAME);
        services().into_iter().fold(builder, |builder, name| builder.with_service_name(name))
    };
    let mut others = Routes::new(orders).add_service(HealthServer::new(Checkup::new(api.board)));
    if api.reflection != Reflection::Off {
        others = others.add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?);
    }
    let others = others.prepare();
    let routes = route::ALL.iter().filter(|route| !route.internal);
    let pass = |route: &&'static Route| (route.path, Pass::new(api.bridge.clone(), route, sizes));
    Ok(Rpcs::new(routes.map(pass), others))
}
