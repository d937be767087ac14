//! A port for grpc.health.v1 only: probes of Kubernetes and of load balancers have neither certificates nor
//! credentials. Must not serve anything else.

use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_server::HealthServer;

use crate::budget::{ConnectionMetrics, MemoryBudget, Size};
use crate::health::HealthService;
use crate::layer::{Admission, Admitting, request_size};
use crate::registry::HealthRegistry;

/// Maximum bytes of all probes' requests.
const BYTES: usize = 8 << 20;
/// Maximum watches of all connections, and of one.
const WATCHES: usize = 256;
const CONNECTION_WATCHES: usize = 8;

/// The health server, as hyper calls it.
pub type Health = TowerToHyperService<HealthServer<HealthService>>;

/// Serves health only, to calls with at most so many bytes of headers: one service per connection, with the counts of its requests.
pub fn services(board: HealthRegistry, headers: usize) -> impl Fn(ConnectionMetrics) -> Admitting<Health> {
    let budget = MemoryBudget::new(Size {
        all: BYTES,
        request: request_size(headers, 0),
        answers: BYTES,
        answer: 0,
        streams: [WATCHES, 0],
        connection_streams: [CONNECTION_WATCHES, 0],
    });
    let admission = Admission::new(headers, [], CancellationToken::new());
    let service = Health::new(HealthServer::new(HealthService::new(board)));
    move |tally| admission.before(service.clone(), budget.counting(tally))
}
