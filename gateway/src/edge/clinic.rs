//! A port for grpc.health.v1 alone, without TLS: probes of Kubernetes and of load balancers have neither certificates
//! nor credentials. Must never serve anything else.

use std::net::TcpListener;

use admission::port::services;
use listener::{Acceptor, Seats, http2};

use super::board::Board;
use super::server::tally;

/// Serves until it is dropped: also while the rest says goodbye.
pub(crate) async fn serve(listener: TcpListener, seats: Seats, board: Board) {
    let services = services(board, http2::HEADERS);
    match Acceptor::from_std(listener, seats) {
        Ok(acceptor) => http2::serve(acceptor, |activity| services(tally(activity)), http2::TIMEOUTS).await,
        Err(error) => tracing::error!(%error, "the health port is not served"),
    }
}
