//! The snapshot: look-ups by path and by name. Immutable once it is built.

use std::fmt;
use std::sync::Arc;

use prost_reflect::{DescriptorPool, MethodDescriptor};

use crate::access::Rule;
use crate::finding::Finding;
use crate::route::Route;
use crate::rpc::{Rpc, Service};

/// What a gateway serves. Immutable: a call that keeps its `Arc` sees one state from its beginning to its end. The default
/// serves nothing.
#[derive(Default)]
pub struct Catalog {
    pub(crate) pools: Vec<DescriptorPool>,
    pub(crate) services: Vec<Service>,
    /// Sorted by path, as are routes and rules.
    pub(crate) rpcs: Vec<Arc<Rpc>>,
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) rules: Vec<Arc<Rule>>,
    /// Sorted, each once.
    pub(crate) scopes: Vec<Arc<str>>,
    pub(crate) warnings: Vec<Finding>,
}

impl Catalog {
    /// The descriptors of each source, for reflection: each the whole set, with what is not served.
    pub fn descriptors(&self) -> &[DescriptorPool] {
        &self.pools
    }

    /// What is accepted, but is probably not meant like this.
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    /// The services that are served, as the set declares them.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The service of this full name, if it is served.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// All rpcs of these services, sorted by path.
    pub fn rpcs(&self) -> &[Arc<Rpc>] {
        &self.rpcs
    }

    /// The rpcs that clients may call: those that are not internal.
    pub fn client_rpcs(&self) -> impl Iterator<Item = &Arc<Rpc>> {
        self.rpcs.iter().filter(|rpc| !rpc.internal)
    }

    /// The rpc at this path in HTTP/2, such as `/bookstore.v1.Books/GetBook`.
    pub fn rpc(&self, path: &str) -> Option<&Arc<Rpc>> {
        find(&self.rpcs, path, |rpc| &rpc.path)
    }

    /// All routes, sorted by path.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The routes that clients' calls need, as the set declares them: all but those for maintenance.
    pub fn serving_routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let declared = self.services.iter().flat_map(|service| &service.rpcs);
        declared.filter_map(|rpc| self.route(&rpc.path)).filter(|route| !route.maintenance)
    }

    /// The route of the rpc at this path, if it has one.
    pub fn route(&self, path: &str) -> Option<&Arc<Route>> {
        find(&self.routes, path, |route| &route.path)
    }

    /// All access rules, sorted by path.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The access rule of the rpc at this path. Where callers are authenticated, an rpc without one is denied to
    /// everybody.
    pub fn rule(&self, path: &str) -> Option<&Arc<Rule>> {
        find(&self.rules, path, |rule| &rule.path)
    }

    /// The descriptor of the rpc at this path.
    pub(crate) fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let rpc = self.rpc(path)?;
        let service = self.pools.iter().find_map(|pool| pool.get_service_by_name(&rpc.service))?;
        service.methods().find(|method| method.name() == rpc.method)
    }

    /// Every scope that a rule requires, sorted, each once.
    pub fn scopes(&self) -> &[Arc<str>] {
        &self.scopes
    }

    /// The scope of this name, if a rule requires it.
    pub fn scope(&self, name: &str) -> Option<&Arc<str>> {
        find(&self.scopes, name, |scope| scope)
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.services.iter().map(|service| service.name.as_str()).collect();
        f.debug_struct("Catalog")
            .field("services", &names)
            .field("routes", &self.routes.len())
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

fn find<'a, T>(sorted: &'a [T], key: &str, of: impl Fn(&T) -> &str) -> Option<&'a T> {
    let place = sorted.binary_search_by(|item| of(item).cmp(key)).ok()?;
    sorted.get(place)
}
