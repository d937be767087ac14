//! The health server: a port for grpc.health.v1 only, without TLS, because probes of Kubernetes and load balancers have
//! neither certificates nor credentials. Must not serve anything else.

use std::net::TcpListener;

use admission::health_server::services;
use listener::{Acceptor, ConnectionLimit, http2};

use super::grpc::connection_metrics;
use super::registry::HealthRegistry;

/// Serves until it is dropped, also during a drain.
pub async fn serve(listener: TcpListener, seats: ConnectionLimit, board: HealthRegistry) {
    let services = services(board, http2::HEADERS);
    match Acceptor::from_std(listener, seats) {
        Ok(acceptor) => {
            http2::serve(acceptor, |activity| services(connection_metrics(activity)), http2::TIMEOUTS).await
        }
        Err(error) => tracing::error!(%error, "the health listener failed"),
    }
}
