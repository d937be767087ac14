//! A port for grpc.health.v1 alone, without TLS: probes of Kubernetes and of load balancers have neither certificates
//! nor credentials. Must never serve anything else.

use std::net::TcpListener;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_server::HealthServer;

use super::board::Board;
use super::converse::{Manners, converse};
use super::health::Checkup;
use super::incoming::{Door, Seats};

/// Probes at a time. They are few.
const CONNECTIONS: u32 = 64;
const STREAMS: u32 = 16;
/// Bytes of a probe's headers.
const HEADERS: u32 = 4 << 10;

/// Serves until it is dropped: also while the rest says goodbye.
pub(crate) async fn serve(listener: TcpListener, board: Board) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the port for health is not served"),
    };
    let mut door = Door::new(listener, Seats::new(CONNECTIONS), None);
    let manners = Manners { streams: STREAMS, headers: HEADERS, age: None };
    let (http, service) = (manners.http(), HealthServer::new(Checkup::new(board)));
    let never = CancellationToken::new();
    let mut connections = JoinSet::new();
    loop {
        let guest = door.next().await;
        connections.spawn(converse(guest, service.clone(), http.clone(), manners, never.clone()));
        while connections.try_join_next().is_some() {}
    }
}
