//! What one thread serves of one catalog, and how it changes to the next: a call sees one of them, from the layer that
//! counts it to its rpc. Must not read contracts.

use std::convert::Infallible;
use std::sync::Arc;

use admission::budget::ConnectionBudget;
use admission::layer::Responding;
use admission::{Admission, HealthRegistry, HealthService};
use arc_swap::ArcSwap;
use bridge::Bridge;
use catalog::{Catalog, Route};
use hyper::service::Service;
use listener::Activity;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic_health::pb::health_server::HealthServer;

use super::authorization::{Authorization, Authorized, AuthorizedService};
use super::baggage::Baggage;
use super::body::CountedBody;
use super::call_layer::{CallLayer, LayeredFuture, LayeredService};
use super::call_metrics::CallMetrics;
use super::drain::Drain;
use super::pass_through::{PassThrough, Sizes};
use super::peer::Peer;
use super::rpcs::Rpcs;
use super::served::{Current, Served};

/// A service with code, beside those whose rpcs are passed through.
pub trait CodedService: Send + Sync {
    /// Adds its rpcs, for messages of at most these sizes.
    fn add_to(&self, routes: &mut RoutesBuilder, sizes: Sizes);
}

/// Everything that calls need of one catalog. Immutable.
pub(super) struct Serving {
    catalog: Arc<Catalog>,
    rpcs: Rpcs,
    admission: Admission,
    layer: CallLayer,
    /// The number of what is served.
    number: u64,
}

/// What stays the same for all catalogs.
pub(super) struct Calls {
    pub(super) bridge: Bridge,
    pub(super) services: Vec<Box<dyn CodedService>>,
    pub(super) health: HealthRegistry,
    pub(super) metrics: CallMetrics,
    pub(super) baggage: Baggage,
    pub(super) draining: Arc<Drain>,
    /// Maximum size of a call's headers, in bytes.
    pub(super) headers: usize,
    pub(super) sizes: Sizes,
    pub(super) drain: CancellationToken,
}

impl Calls {
    /// What this thread serves of it. `before`: what it replaces.
    pub(super) fn serving(&self, served: &Served, before: Option<&Serving>) -> Serving {
        let catalog = served.catalog().clone();
        let most = self.sizes.request;
        let sizes = catalog.client_rpcs().map(|rpc| (rpc.path.clone(), most));
        let streaming = catalog.routes().iter().filter(|route| route.kind.streams_requests());
        let admission = Admission::new(self.headers, sizes, self.draining.hurry().clone())
            .reading_streams(streaming.map(|route| route.path.clone()), most)
            .of_calls();
        let layer = CallLayer {
            draining: self.draining.clone(),
            metrics: self.metrics.of(&catalog),
            baggage: self.baggage.clone(),
        };
        let rpcs = self.rpcs(served, before.map(|before| &before.rpcs));
        Serving { catalog, rpcs, admission, layer, number: served.number() }
    }

    fn rpcs(&self, served: &Served, before: Option<&Rpcs>) -> Rpcs {
        let mut others = RoutesBuilder::default();
        others.add_service(HealthServer::new(HealthService::new(self.health.clone())));
        served.add_reflection(&mut others);
        self.services.iter().for_each(|service| service.add_to(&mut others, self.sizes));
        let bridge = self.bridge.serving(served.states().clone());
        let routes = served.catalog().routes().iter().filter(|route| !route.internal);
        let pass = |route: &Arc<Route>| {
            let before = before.and_then(|before| before.passed(&route.path));
            let pass = PassThrough::new(&bridge, route.clone(), self.sizes, self.drain.clone(), before);
            (route.path.clone(), pass)
        };
        Rpcs::new(routes.map(pass), others.routes().prepare())
    }

    /// Serves what is current, from one change to the next.
    pub(super) async fn follow(&self, current: &Current, serving: &ArcSwap<Serving>) -> Infallible {
        let mut changes = current.changes();
        loop {
            let (served, before) = (current.served(), serving.load_full());
            if served.number() != before.number {
                let next = Arc::new(self.serving(&served, Some(&before)));
                serving.store(next.clone());
                next.rpcs.replace(&before.rpcs);
            }
            drop((served, before));
            // It is never closed: `current` has the sender.
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// All services, for the calls on one connection.
pub(super) struct ConnectionService {
    pub(super) serving: Arc<ArcSwap<Serving>>,
    pub(super) guard: Option<Arc<Authorization>>,
    pub(super) peer: Arc<Peer>,
    pub(super) budget: Arc<ConnectionBudget>,
    pub(super) activity: Arc<Activity>,
}

impl<Q> Service<http::Request<Q>> for ConnectionService
where
    Q: http_body::Body<Data = bytes::Bytes, Error: Into<tower::BoxError> + Send> + Send + Unpin + 'static,
{
    type Response = http::Response<CountedBody>;
    type Error = Infallible;
    type Future = LayeredFuture<Responding<Authorized<Q>>>;

    fn call(&self, request: http::Request<Q>) -> Self::Future {
        // The one look of this call.
        let serving = self.serving.load();
        let Serving { catalog, rpcs, .. } = &**serving;
        let guarded = AuthorizedService { catalog, rpcs, guard: self.guard.as_ref(), peer: &self.peer };
        let admitted = serving.admission.before(guarded, self.budget.clone());
        LayeredService { service: admitted, layer: &serving.layer, activity: &self.activity }.call(request)
    }
}
