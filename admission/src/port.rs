//! A port for grpc.health.v1 alone: probes of Kubernetes and of load balancers have neither certificates nor credentials.
//! Must never serve anything else.

use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_server::HealthServer;

use crate::board::Board;
use crate::budget::{Budget, Size, Tally};
use crate::health::Checkup;
use crate::layer::{Admission, Admitting, request_size};

/// Bytes of all probes' requests.
const BYTES: usize = 8 << 20;
/// Watches of all connections, and of one.
const WATCHES: usize = 256;
const CONNECTION_WATCHES: usize = 8;

/// Health, as the connections' library calls it.
pub type Health = TowerToHyperService<HealthServer<Checkup>>;

/// Health alone, of calls with so many bytes of headers: a service for each connection, with its tally.
pub fn services(board: Board, headers: usize) -> impl Fn(Tally) -> Admitting<Health> {
    let budget = Budget::new(Size {
        all: BYTES,
        request: request_size(headers, 0),
        answers: BYTES,
        answer: 0,
        streams: [WATCHES, 0],
        connection_streams: [CONNECTION_WATCHES, 0],
    });
    let admission = Admission::new(headers, [], CancellationToken::new());
    let service = Health::new(HealthServer::new(Checkup::new(board)));
    move |tally| admission.before(service.clone(), budget.counting(tally))
}
