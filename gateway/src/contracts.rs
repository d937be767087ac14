//! Which contracts a gateway serves: what is compiled in, and the sources that its flags name. Must not start anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use catalog::{Catalog, Findings};
use catalog_bucket::ActiveSet;
use catalog_sources::Options;

/// The catalog of these sources. What is compiled in belongs to it where no source is named, or orders are wanted. Warns
/// of what is probably not meant.
///
/// # Errors
/// Everything that is wrong with the sources, and what they contradict each other in.
pub fn catalog(sources: &Options, orders: bool) -> anyhow::Result<Arc<Catalog>> {
    let catalog = read(sources, orders)?;
    catalog.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(catalog)
}

/// The services of a catalog without which a gateway is not ready: those that are compiled in, and these.
///
/// # Errors
/// If one of these is not served.
pub fn ready_on(catalog: &Catalog, also: &[String]) -> anyhow::Result<Vec<Arc<str>>> {
    for name in also {
        if catalog.service(name).is_none() {
            let known: Vec<_> = catalog.services().iter().map(|service| service.name.as_str()).collect();
            bail!("GW_READY_ON: the service {name:?} is not served: name one of {}", known.join(", "));
        }
    }
    let compiled = catalog.services().iter().map(|service| &service.name).filter(|name| is_compiled_in(name));
    Ok(compiled.chain(also).map(|name| name.as_str().into()).collect())
}

/// Whether a service of this name belongs to the order system.
pub(crate) fn is_compiled_in(service: &str) -> bool {
    orders::served::contract().service(service).is_some()
}

/// The catalog of these sources, as above, without warning.
///
/// # Errors
/// As above, a line each.
pub fn read(sources: &Options, orders: bool) -> anyhow::Result<Arc<Catalog>> {
    if sources.is_empty() && sources.proto_path.is_empty() {
        return Ok(orders::served::contract());
    }
    join(sources.read()?, orders)
}

/// The catalog of these sources and of what a bucket has.
///
/// # Errors
/// As above, and what a set of the bucket may not have; a line each.
pub(crate) fn with(sources: &Options, outside: &Outside, orders: bool) -> anyhow::Result<Arc<Catalog>> {
    let mut catalogs = sources.read()?;
    catalogs.extend(outside.catalogs()?);
    join(catalogs, orders)
}

fn join(mut catalogs: Vec<Arc<Catalog>>, orders: bool) -> anyhow::Result<Arc<Catalog>> {
    for catalog in &catalogs {
        avoids_own(catalog)?;
    }
    if orders {
        catalogs.insert(0, orders::served::contract());
    }
    Ok(Catalog::join(&catalogs)?)
}

/// Checks that no route has a subject of the gateway, of its internal routes, or of the streams of the order system.
pub(crate) fn avoids_own(catalog: &Catalog) -> Result<(), Findings> {
    let contract = orders::served::contract();
    let internal =
        contract.routes().iter().filter(|route| route.internal).map(|route| route.subject.as_str());
    let own: Vec<&str> =
        order_streams::SUBJECTS.into_iter().chain(internal).chain([bridge::CONTROL]).collect();
    catalog.avoids(&own)
}

/// Contracts that others maintain, and what they may use.
pub(crate) struct Outside {
    /// The sets of a bucket.
    pub(crate) sets: Vec<ActiveSet>,
    /// Patterns of the subjects that their routes may have.
    pub(crate) allow: Vec<String>,
    /// Whether they may let anybody call.
    pub(crate) anonymous: bool,
}

impl Outside {
    /// The digest of each set, by name.
    pub(crate) fn digests(&self) -> BTreeMap<String, String> {
        self.sets.iter().map(|set| (set.name.clone(), set.digest.to_string())).collect()
    }

    /// The catalog of each set.
    fn catalogs(&self) -> anyhow::Result<Vec<Arc<Catalog>>> {
        let allow: Vec<&str> = self.allow.iter().map(String::as_str).collect();
        let (mut catalogs, mut problems) = (Vec::new(), Vec::new());
        for ActiveSet { name, set, .. } in &self.sets {
            let catalog = Catalog::builder(set).routed().build();
            match catalog.and_then(|catalog| catalog.keeps_to(&allow).map(|()| catalog)) {
                Ok(catalog) => {
                    let claims = self.claims(&catalog);
                    problems.extend(claims.into_iter().map(|claim| format!("active/{name}: {claim}")));
                    catalogs.push(catalog);
                }
                Err(findings) => {
                    problems.extend(findings.iter().map(|finding| format!("active/{name}: {finding}")));
                }
            }
        }
        if !problems.is_empty() {
            bail!(problems.join("\n"));
        }
        Ok(catalogs)
    }

    /// What a contract that others maintain may not say, whatever subjects it may use.
    fn claims(&self, catalog: &Catalog) -> Vec<String> {
        let services = catalog.services().iter().map(|service| &service.name);
        let own = services
            .filter(|name| is_compiled_in(name))
            .map(|name| format!("the service {name} is one of the order system: rename it"));
        let routes = catalog.routes().iter().filter(|route| route.internal || route.maintenance);
        let internal = routes.map(|route| {
            format!("{} is internal or for maintenance: only what is compiled in may be", route.path)
        });
        let is_public = |path: &str| catalog.rule(path).is_some_and(|rule| rule.is_public());
        let open = catalog.client_rpcs().filter(|rpc| !self.anonymous && is_public(&rpc.path)).map(|rpc| {
            format!("{} is public, and --allow-anonymous is not given: require a scope", rpc.path)
        });
        own.chain(internal).chain(open).collect()
    }
}
