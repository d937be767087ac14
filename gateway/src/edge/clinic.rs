//! A port for grpc.health.v1 alone, without TLS: probes of Kubernetes and of load balancers have neither certificates
//! nor credentials. Must never serve anything else.

use std::net::TcpListener;

use listener::{Acceptor, Seats, http2};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_server::HealthServer;
use tower::Layer as _;

use super::admission::{Admission, request_size};
use super::board::Board;
use super::health::Checkup;
use crate::budget::{Budget, Size};

/// Bytes of all probes' requests.
const BYTES: usize = 8 << 20;
/// Watches of all connections, and of one.
const WATCHES: usize = 256;
const CONNECTION_WATCHES: usize = 8;

/// Serves until it is dropped: also while the rest says goodbye.
pub(crate) async fn serve(listener: TcpListener, seats: Seats, board: Board) {
    let budget = Budget::new(Size {
        all: BYTES,
        request: request_size(http2::HEADERS, 0),
        streams: [WATCHES, 0],
        connection_streams: CONNECTION_WATCHES,
    });
    let admission = Admission::new(http2::HEADERS, [], CancellationToken::new(), &budget);
    let service = admission.layer(HealthServer::new(Checkup::new(board)));
    match Acceptor::from_std(listener, seats) {
        Ok(acceptor) => http2::serve(acceptor, || service.connection(&budget), http2::TIMEOUTS).await,
        Err(error) => tracing::error!(%error, "the health port is not served"),
    }
}
