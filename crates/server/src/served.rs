//! What a gateway serves: one immutable value, and which one is current. A reload replaces it as a whole; calls end on the
//! one that they began with. Must not decide when it is replaced.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use bridge::{Limits, RouteStates};
use catalog::Catalog;
use tokio::sync::watch;
use tonic::service::RoutesBuilder;

use crate::config::access::Reflection;

/// The names of all services except health and reflection: those with routes that clients may call, and these with code.
pub fn services(catalog: &Catalog, coded: &[&str]) -> Vec<Arc<str>> {
    let passed = catalog.routes().iter().filter(|route| !route.internal).map(|route| route.service.as_str());
    let mut names: Vec<_> = passed.chain(coded.iter().copied()).map(Arc::from).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What a gateway serves between two reloads.
pub struct Served {
    states: Arc<RouteStates>,
    /// The names of all services except health and reflection.
    names: Vec<Arc<str>>,
    reflection: Option<ReflectionServices>,
    /// How many there were before.
    number: u64,
}

/// Adds the services of reflection to a router.
type ReflectionServices = Arc<dyn Fn(&mut RoutesBuilder) + Send + Sync>;

impl Served {
    /// The routes with these states, the services with code of these names, and their reflection.
    ///
    /// # Errors
    /// If reflection cannot show them.
    pub fn new(states: Arc<RouteStates>, coded: &[&str], reflection: Reflection) -> anyhow::Result<Served> {
        let names = services(states.catalog(), coded);
        let reflection = match reflection {
            Reflection::Off => None,
            Reflection::Open | Reflection::Callers => Some(reflect(states.catalog(), &names)?),
        };
        Ok(Served { states, names, reflection, number: 0 })
    }

    /// The states of its routes.
    pub fn states(&self) -> &Arc<RouteStates> {
        &self.states
    }

    /// Its catalog.
    pub fn catalog(&self) -> &Arc<Catalog> {
        self.states.catalog()
    }

    /// The names of all services except health and reflection.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// How many there were before: another number is another catalog.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Adds reflection to a router, where it is on.
    pub(crate) fn add_reflection(&self, routes: &mut RoutesBuilder) {
        if let Some(add) = &self.reflection {
            add(routes);
        }
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("catalog", self.catalog()).field("number", &self.number).finish()
    }
}

fn reflect(catalog: &Catalog, names: &[Arc<str>]) -> anyhow::Result<ReflectionServices> {
    let sets: Vec<_> = catalog.descriptors().iter().map(|pool| pool.encode_to_vec()).collect();
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
        names.iter().fold(builder, |builder, name| builder.with_service_name(&**name))
    };
    let (v1, v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    Ok(Arc::new(move |routes| {
        routes.add_service(v1.clone()).add_service(v1alpha.clone());
    }))
}

/// What is served now. Clones share it.
#[derive(Debug, Clone)]
pub struct Current(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    served: ArcSwap<Served>,
    changes: watch::Sender<()>,
}

impl Current {
    /// Begins with this.
    pub fn new(served: Served) -> Current {
        Current(Arc::new(Inner { served: ArcSwap::from_pointee(served), changes: watch::Sender::new(()) }))
    }

    /// The rpcs of a catalog that does not change, with the default limits and without reflection.
    pub fn of(catalog: &Arc<Catalog>) -> Current {
        let states = RouteStates::new(catalog.clone(), catalog.serving_routes(), &Limits::default());
        let names = services(catalog, &[]);
        Current::new(Served { states: Arc::new(states), names, reflection: None, number: 0 })
    }

    /// What is served now: for one look, not to be kept across an await.
    pub fn look(&self) -> Guard<Arc<Served>> {
        self.0.served.load()
    }

    /// What is served now, to be kept.
    pub fn served(&self) -> Arc<Served> {
        self.0.served.load_full()
    }

    /// Replaces it: calls that begin from now on see the new one.
    pub fn replace(&self, served: Served) {
        let before = self.served();
        served.states.replace(&before.states);
        self.0.served.store(Arc::new(Served { number: before.number + 1, ..served }));
        self.0.changes.send_replace(());
    }

    /// Resolves with each change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }
}
