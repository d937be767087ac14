//! The gRPC server of one thread: which services there are, and the limits of HTTP/2. Must never know what they do.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use contract::orders::v1::server::order_service_server::{OrderService, OrderServiceServer};
use contract::route::{self, Route};
use futures_util::future::Either;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;
use tower::{BoxError, Service};

pub use super::incoming::Seats;
pub use super::pass::Sizes;

use super::account::Books;
use super::baggage::Baggage;
use super::board::Board;
use super::envelope::Envelope;
use super::health::Checkup;
use super::incoming::connections;
use super::parting::Parting;
use super::pass::Pass;
use crate::bridge::Bridge;

/// Clients that answer no ping are gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

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
}

/// Limits of the server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls at a time on one connection.
    pub streams: u32,
    /// Connections.
    pub seats: Seats,
    /// Message sizes.
    pub sizes: Sizes,
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

/// Serves until `drain`, and then until every call has been answered.
pub async fn serve(
    listener: TcpListener,
    api: Api<impl OrderService>,
    limits: Limits,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let parting = Arc::new(Parting::new(api.bridge.tasks().clone()));
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let serving = Server::builder()
        .layer(Envelope { parting: parting.clone(), books: api.books.clone(), baggage: api.baggage.clone() })
        .max_concurrent_streams(limits.streams)
        // Callers that give up early are no attackers: the library's 20 would close their connection, with all that is
        // in flight on it, whenever this thread is busy.
        .http2_max_pending_accept_reset_streams(usize::try_from(limits.streams).ok())
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .serve_with_incoming_shutdown(
            rpcs(api, limits.sizes)?,
            connections(listener, limits.seats),
            drain.clone().cancelled_owned(),
        );
    // It has to go on while calls are finished: it is what says goodbye to clients, and lets no new ones in.
    tokio::select! {
        ended = serving => ended?,
        // Connections of clients that say nothing stay open; they do not matter once every call is answered.
        () = parting.over(&drain) => {}
    }
    // A caller may have left its call behind.
    parting.worked().await;
    Ok(())
}

/// Every rpc by its path: a routed one needs no code, and goes past the router.
#[derive(Clone)]
struct Rpcs {
    passed: Arc<HashMap<&'static str, Pass>>,
    others: Routes,
}

impl<B> Service<http::Request<B>> for Rpcs
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future =
        Either<<Pass as Service<http::Request<B>>>::Future, <Routes as Service<http::Request<B>>>::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Both always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match self.passed.get(request.uri().path()) {
            Some(pass) => Either::Left(pass.clone().call(request)),
            None => Either::Right(self.others.call(request)),
        }
    }
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
    let others = Routes::new(orders)
        .add_service(HealthServer::new(Checkup::new(api.board)))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare();
    let routes = route::ALL.iter().filter(|route| !route.internal);
    let pass = |route: &&'static Route| (route.path, Pass::new(api.bridge.clone(), route, sizes));
    Ok(Rpcs { passed: Arc::new(routes.map(pass).collect()), others })
}
