//! Puts a catalog together: of what one descriptor set has, or of several catalogs. Must not read options.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{DescriptorPool, FileDescriptor, MethodDescriptor};

use crate::access::{REQUIRE, Rule};
use crate::finding::{Finding, Findings};
use crate::kind::Kind;
use crate::route::Route;
use crate::rpc::{Rpc, Service};
use crate::snapshot::Catalog;
use crate::subject::{covers, overlap};

/// The most routes: each has state, and metrics of its own.
pub(crate) const ROUTES: usize = 2_000;
/// Files of these packages may differ: those of the first source are shown by reflection.
const WELL_KNOWN: [&str; 3] = ["google/protobuf/", "natsgateway/v1/", "nats/gateway/v1/"];
/// Packages of services that a gateway serves itself.
const OWN: [&str; 2] = ["grpc.health.v1.", "grpc.reflection."];

/// What a catalog is made of.
pub(crate) struct Parts {
    pub(crate) pools: Vec<DescriptorPool>,
    pub(crate) services: Vec<Service>,
    pub(crate) rpcs: Vec<Arc<Rpc>>,
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) rules: Vec<Arc<Rule>>,
    pub(crate) warnings: Vec<Finding>,
}

impl Parts {
    pub(crate) fn snapshot(self) -> Catalog {
        let Parts { pools, services, mut rpcs, mut routes, mut rules, warnings } = self;
        rpcs.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        routes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        rules.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let scopes: BTreeSet<_> = rules.iter().filter_map(|rule| rule.scope().cloned()).collect();
        let scopes = scopes.into_iter().collect();
        Catalog { pools, services, rpcs, routes, rules, scopes, warnings }
    }
}

impl Catalog {
    /// One catalog of several. Each keeps its own types: two sources may have messages of one name.
    ///
    /// # Errors
    ///
    /// What the sources contradict each other in: a service that two of them serve, a file of one name with different
    /// contents, a subject whose routes differ; a service that every gateway serves itself; more than 2,000 routes.
    pub fn join(catalogs: &[Arc<Catalog>]) -> Result<Arc<Catalog>, Findings> {
        let mut findings = Vec::new();
        services(catalogs, &mut findings);
        files(catalogs, &mut findings);
        let methods: Vec<_> = catalogs.iter().flat_map(|catalog| methods(catalog)).collect();
        if findings.is_empty() && methods.len() <= ROUTES {
            shared_subjects(methods.iter().map(|(method, route)| (method, *route)), &mut findings);
        }
        if methods.len() > ROUTES {
            let problem = format!("{} routes are too many", methods.len());
            let remedy = format!("serve at most {ROUTES} with one gateway");
            findings.push(Finding::of_set("", problem, remedy));
        }
        if let Some(findings) = Findings::some(findings) {
            return Err(findings);
        }
        let all = || catalogs.iter();
        let parts = Parts {
            pools: all().flat_map(|catalog| catalog.pools.clone()).collect(),
            services: all().flat_map(|catalog| catalog.services.clone()).collect(),
            rpcs: all().flat_map(|catalog| catalog.rpcs.clone()).collect(),
            routes: all().flat_map(|catalog| catalog.routes.clone()).collect(),
            rules: all().flat_map(|catalog| catalog.rules.clone()).collect(),
            warnings: all().flat_map(|catalog| catalog.warnings.clone()).collect(),
        };
        Ok(Arc::new(parts.snapshot()))
    }
}

impl Catalog {
    /// Checks that no route publishes on, or reads, subjects that are not for the services behind a gateway.
    ///
    /// # Errors
    ///
    /// A finding for each route whose subject one of these patterns has in common with it.
    pub fn avoids(&self, patterns: &[&str]) -> Result<(), Findings> {
        let finding = |(method, route): (MethodDescriptor, &Route)| {
            let pattern = route.subject.pattern();
            let taken = patterns.iter().find(|taken| overlap(taken, &pattern))?;
            let problem = format!(
                "the subject {:?} reaches {taken:?}, which is the gateway's own",
                route.subject.as_str()
            );
            Some(Finding::of(&method, problem, "choose another subject"))
        };
        match Findings::some(methods(self).filter_map(finding).collect()) {
            Some(findings) => Err(findings),
            None => Ok(()),
        }
    }
}

impl Catalog {
    /// Checks that every rpc for clients has an access rule.
    ///
    /// # Errors
    ///
    /// A finding for each that has none: where callers are authenticated, nobody could call it.
    pub fn requires_rules(&self) -> Result<(), Findings> {
        let unruled = self.client_rpcs().filter(|rpc| self.rule(&rpc.path).is_none());
        let finding =
            |method| Finding::of(&method, "has no access rule, and callers are authenticated", REQUIRE);
        match Findings::some(unruled.filter_map(|rpc| self.method(&rpc.path)).map(finding).collect()) {
            Some(findings) => Err(findings),
            None => Ok(()),
        }
    }

    /// Checks that every route keeps to these patterns of subjects: whatever a request says, its subject fits one of them.
    ///
    /// # Errors
    ///
    /// A finding for each route whose subject is, or can become, another one.
    pub fn keeps_to(&self, allowed: &[&str]) -> Result<(), Findings> {
        let finding = |(method, route): (MethodDescriptor, &Route)| {
            let pattern = route.subject.pattern();
            if allowed.iter().any(|allowed| covers(allowed, &pattern)) {
                return None;
            }
            let problem = format!(
                "the subject {:?} is outside of what is allowed: {}",
                route.subject.as_str(),
                allowed.join(", ")
            );
            Some(Finding::of(&method, problem, "choose another subject, or have its operator allow it"))
        };
        match Findings::some(methods(self).filter_map(finding).collect()) {
            Some(findings) => Err(findings),
            None => Ok(()),
        }
    }
}

/// The routes of a catalog, each with its rpc.
fn methods(catalog: &Catalog) -> impl Iterator<Item = (MethodDescriptor, &Route)> {
    let method = |route: &Route| {
        let service = catalog.pools.iter().find_map(|pool| pool.get_service_by_name(&route.service))?;
        service.methods().find(|method| method.name() == route.rpc)
    };
    catalog.routes.iter().filter_map(move |route| Some((method(route)?, &**route)))
}

fn services(catalogs: &[Arc<Catalog>], findings: &mut Vec<Finding>) {
    let mut known = BTreeSet::new();
    for service in catalogs.iter().flat_map(|catalog| &catalog.services) {
        let name = service.name.as_str();
        if OWN.iter().any(|package| name.starts_with(package)) {
            let remedy = "remove its routes: the gateway serves it itself";
            findings.push(Finding::of_set(name, "this service is the gateway's own", remedy));
        }
        if !known.insert(name) {
            let remedy = "leave one of them out, or give its package another name";
            findings.push(Finding::of_set(name, "two sources define this service", remedy));
        }
    }
}

/// Reflection finds files by name.
fn files(catalogs: &[Arc<Catalog>], findings: &mut Vec<Finding>) {
    let mut known: HashMap<String, FileDescriptor> = HashMap::new();
    let all = catalogs.iter().flat_map(|catalog| &catalog.pools).flat_map(DescriptorPool::files);
    for file in all.filter(|file| !WELL_KNOWN.iter().any(|known| file.name().starts_with(known))) {
        match known.get(file.name()) {
            Some(first) if bare(first) != bare(&file) => {
                let problem = "two sources have files of this name, with different contents";
                let remedy = "give one of them another name, such as one with its package as folder";
                findings.push(Finding::at(file.name(), "", problem, remedy));
            }
            Some(_) => {}
            None => drop(known.insert(file.name().to_owned(), file)),
        }
    }
}

/// A file without its comments and lines.
fn bare(file: &FileDescriptor) -> FileDescriptorProto {
    FileDescriptorProto { source_code_info: None, ..file.file_descriptor_proto().clone() }
}

/// A route with its rpc, and all subjects that it publishes on.
struct Published<'a> {
    method: &'a MethodDescriptor,
    route: &'a Route,
    pattern: String,
}

/// Routes that share a subject reach the same service, which cannot tell their requests apart: they have to be alike.
/// What only the gateway calls is reached by no other rpc, whatever a request says.
pub(crate) fn shared_subjects<'a>(
    routes: impl Iterator<Item = (&'a MethodDescriptor, &'a Route)>,
    findings: &mut Vec<Finding>,
) {
    let all = routes.map(|(method, route)| Published { method, route, pattern: route.subject.pattern() });
    let (heard, published): (Vec<_>, Vec<_>) =
        all.partition(|one| matches!(one.route.kind, Kind::Subscribe(_)));
    for one in &heard {
        let asked =
            published.iter().find(|other| other.route.kind.asks() && overlap(&other.pattern, &one.pattern));
        if let Some(asked) = asked {
            let (subject, name) = (one.route.subject.as_str(), asked.method.full_name());
            let problem = format!("the subject {subject:?} has the requests of {name}, of whatever caller");
            findings.push(Finding::of(one.method, problem, "choose another subject"));
        }
    }
    let mut first: HashMap<&str, &Published<'_>> = HashMap::new();
    for one in published.iter().filter(|one| one.route.subject.is_fixed()) {
        let known = *first.entry(&one.pattern).or_insert(one);
        collide(known, one, findings);
    }
    for (at, one) in published.iter().enumerate().filter(|(_, one)| !one.route.subject.is_fixed()) {
        // Of two templates, the one that is declared first.
        let others = published
            .iter()
            .enumerate()
            .filter(|(other, published)| *other < at || (*other > at && published.route.subject.is_fixed()));
        for (_, other) in others.filter(|(_, other)| overlap(&other.pattern, &one.pattern)) {
            collide(other, one, findings);
        }
    }
}

/// Judges two routes with a subject in common.
fn collide(one: &Published<'_>, other: &Published<'_>, findings: &mut Vec<Finding>) {
    let name = one.method.full_name();
    let subject = other.route.subject.as_str();
    let template = !one.route.subject.is_fixed() || !other.route.subject.is_fixed();
    if template && one.route.internal != other.route.internal {
        let problem =
            format!("the subject {subject:?} can become that of {name}, and one of the two is internal");
        findings.push(Finding::of(other.method, problem, "choose another subject"));
        return;
    }
    let differences: Vec<_> = differences((one.method, one.route), (other.method, other.route)).collect();
    if !differences.is_empty() {
        let problem =
            format!("the subject {subject:?} is that of {name} too, with another {}", differences.join(", "));
        findings.push(Finding::of(other.method, problem, "choose another subject, or make the routes alike"));
    }
}

fn differences<'a>(
    (method, route): (&'a MethodDescriptor, &'a Route),
    (other_method, other): (&'a MethodDescriptor, &'a Route),
) -> impl Iterator<Item = &'static str> + 'a {
    // Nobody replies to what is published, so that replies may differ.
    let asks = route.kind.asks();
    [
        ("request message", method.input().full_name() == other_method.input().full_name()),
        ("reply message", !asks || method.output().full_name() == other_method.output().full_name()),
        ("encoding", route.encoding == other.encoding),
        ("body", route.body == other.body),
        ("response body", !asks || route.response_body == other.response_body),
        ("envelope", route.envelope == other.envelope),
        ("queue group", !asks || route.queue_group == other.queue_group),
        ("kind: one is answered, the other is not", asks == other.kind.asks()),
    ]
    .into_iter()
    .filter_map(|(name, same)| (!same).then_some(name))
}
