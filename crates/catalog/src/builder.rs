//! Builds a catalog: reads the descriptor set, checks it, and collects everything that is wrong with it. Must not read
//! files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use prost::Message as _;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor, MethodDescriptor, ServiceDescriptor};
use transcode::Codec;

use crate::access::{self, Rule};
use crate::finding::{Finding, Findings};
use crate::join::{Parts, ROUTES, shared_subjects};
use crate::kind::Problems;
use crate::options::{AccessOption, Reader};
use crate::route::{self, Route};
use crate::rpc::{Rpc, Service, path};
use crate::snapshot::Catalog;

/// Which services a catalog has, and how their payloads are converted.
///
/// ```
/// use std::sync::Arc;
///
/// use catalog::{Catalog, Codec, Findings};
///
/// /// One of the services in the set, with a codec of our own for one of its rpcs.
/// fn books(descriptors: &[u8], get_book: Arc<dyn Codec>) -> Result<Arc<Catalog>, Findings> {
///     Catalog::builder(descriptors)
///         .service("bookstore.v1.Books")
///         .codec("/bookstore.v1.Books/GetBook", get_book)
///         .build()
/// }
/// # use catalog::CodecError;
/// # #[derive(Debug)]
/// # struct Raw;
/// # impl Codec for Raw {
/// #     fn request(&self, protobuf: &[u8]) -> Result<Vec<u8>, CodecError> { Ok(protobuf.to_vec()) }
/// #     fn reply(&self, payload: &[u8]) -> Result<Vec<u8>, CodecError> { Ok(payload.to_vec()) }
/// #     fn repeatable(&self, _request: &[u8]) -> bool { false }
/// # }
///
/// // An empty set has neither the service nor the rpc: both are said at once.
/// let findings = books(b"", Arc::new(Raw)).unwrap_err();
/// assert_eq!(findings.iter().count(), 2);
/// ```
pub struct Builder<'a> {
    descriptors: &'a [u8],
    /// None: those that have a route or an access rule.
    services: Option<BTreeSet<String>>,
    codecs: BTreeMap<String, Arc<dyn Codec>>,
    routed: bool,
    trusted: bool,
}

impl Catalog {
    /// The catalog of all services in this encoded `FileDescriptorSet` that have a route or an access rule.
    ///
    /// ```no_run
    /// use catalog::Catalog;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // As written by `buf build -o bookstore.binpb` or `protoc --include_imports -o bookstore.binpb`.
    /// match Catalog::new(&std::fs::read("bookstore.binpb")?) {
    ///     Ok(catalog) => catalog.routes().iter().for_each(|route| println!("{} → {}", route.path, route.subject)),
    ///     // bookstore/v1/books.proto:9: bookstore.v1.Books.GetBook: the scope "B" is not words of …; write it like …
    ///     Err(findings) => findings.iter().for_each(|finding| eprintln!("{finding}")),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the set, as for [`Builder::build`].
    pub fn new(descriptors: &[u8]) -> Result<Arc<Catalog>, Findings> {
        Catalog::builder(descriptors).build()
    }

    /// Begins a catalog of the services in this encoded `FileDescriptorSet`, which has to include its imports.
    pub fn builder(descriptors: &[u8]) -> Builder<'_> {
        Builder::new(descriptors)
    }
}

/// What is read, while it is read.
#[derive(Default)]
struct Draft {
    services: Vec<Service>,
    rpcs: Vec<Arc<Rpc>>,
    routes: Vec<(MethodDescriptor, Arc<Route>)>,
    rules: Vec<Arc<Rule>>,
    findings: Vec<Finding>,
    warnings: Vec<Finding>,
    trusted: bool,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(descriptors: &'a [u8]) -> Builder<'a> {
        Builder { descriptors, services: None, codecs: BTreeMap::new(), routed: false, trusted: false }
    }

    /// Serves the service of this full name, and others only if they are named as well. If none is named, every service
    /// that has a route or an access rule is served.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Builder<'a> {
        self.services.get_or_insert_default().insert(name.into());
        self
    }

    /// Uses this codec for the route of the rpc at `path`, such as `/bookstore.v1.Books/GetBook`. Others use one that is
    /// made of their descriptors.
    #[must_use]
    pub fn codec(mut self, path: impl Into<String>, codec: Arc<dyn Codec>) -> Builder<'a> {
        self.codecs.insert(path.into(), codec);
        self
    }

    /// Refuses rpcs without a route, and a set without any: no code could answer them.
    #[must_use]
    pub fn routed(mut self) -> Builder<'a> {
        self.routed = true;
        self
    }

    /// Takes the services' word for whether a request was delivered: they belong to this project. A call may be repeated
    /// because of it.
    #[must_use]
    pub fn trusted(mut self) -> Builder<'a> {
        self.trusted = true;
        self
    }

    /// Reads and checks the set.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, each with its file, rpc and remedy: a set that cannot be decoded, lacks imports
    /// or contradicts itself; a route that has an invalid subject, queue group, timeout, number of retries, body or
    /// encoding, or has a kind that does not fit its rpc; two routes that share a subject and differ; a route for maintenance that
    /// clients could call; an access without or with several requirements, an invalid scope or field for the tenant; options of a newer gateway; a service or codec that matches nothing.
    pub fn build(mut self) -> Result<Arc<Catalog>, Findings> {
        let pool = pool(self.descriptors)?;
        let mut draft = Draft { trusted: self.trusted, ..Draft::default() };
        map_entries(&pool, &mut draft.findings);
        let reader = Reader::new(&pool, &mut draft.findings);
        for service in pool.services() {
            if self.serves(&service, &reader) {
                draft.service(&service, &reader, &mut self.codecs);
            }
        }
        if self.routed {
            draft.unrouted(&pool, &reader);
        }
        self.unmatched(&pool, &mut draft.findings);
        if draft.routes.len() > ROUTES {
            let problem = format!("{} routes are too many", draft.routes.len());
            draft.findings.push(Finding::of_set(
                "",
                problem,
                format!("serve at most {ROUTES} with one gateway"),
            ));
            draft.routes.clear();
        }
        shared_subjects(draft.routes.iter().map(|(method, route)| (method, &**route)), &mut draft.findings);
        match Findings::some(std::mem::take(&mut draft.findings)) {
            Some(findings) => Err(findings),
            None => Ok(Arc::new(draft.snapshot(pool))),
        }
    }

    fn serves(&self, service: &ServiceDescriptor, reader: &Reader) -> bool {
        match &self.services {
            Some(names) => names.contains(service.full_name()),
            None => service.methods().any(|method| reader.annotates(&method)),
        }
    }

    /// Names of services and paths of codecs that nothing in the set has. Codecs that were used are no longer there.
    fn unmatched(&self, pool: &DescriptorPool, findings: &mut Vec<Finding>) {
        for name in self.services.iter().flatten() {
            if pool.get_service_by_name(name).is_none() {
                let names: Vec<_> = pool.services().map(|service| service.full_name().to_owned()).collect();
                let remedy = format!("add its file, or name one of: {}", names.join(", "));
                findings.push(Finding::of_set(name, "no file defines this service", remedy));
            }
        }
        for path in self.codecs.keys() {
            let remedy = "add a route, or remove the codec";
            findings.push(Finding::of_set(path, "a codec is given for an rpc without a route", remedy));
        }
    }
}

impl fmt::Debug for Builder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Builder");
        fields.field("descriptors", &self.descriptors.len()).field("services", &self.services);
        fields.field("codecs", &self.codecs).finish()
    }
}

impl Draft {
    fn service(
        &mut self,
        service: &ServiceDescriptor,
        reader: &Reader,
        codecs: &mut BTreeMap<String, Arc<dyn Codec>>,
    ) {
        let mut rpcs = Vec::new();
        for method in service.methods() {
            let mut internal = false;
            match reader.route(&method) {
                None => {}
                Some(Ok(option)) => {
                    internal = option.internal;
                    let codec = codecs.remove(&path(&method));
                    let route = route::read(&method, option, codec, &mut self.findings);
                    let trusted = self.trusted;
                    self.routes
                        .extend(route.map(|route| (method.clone(), Arc::new(Route { trusted, ..route }))));
                }
                Some(Err(finding)) => {
                    codecs.remove(&path(&method));
                    self.findings.push(finding);
                }
            }
            match reader.access(&method) {
                None => {}
                Some(Ok(option)) => self.access(&method, &option, reader.route(&method).is_some()),
                Some(Err(finding)) => self.findings.push(finding),
            }
            self.doubtful(&method, internal);
            rpcs.push(Arc::new(Rpc::of(&method, internal)));
        }
        self.rpcs.extend(rpcs.iter().cloned());
        self.services.push(Service { name: service.full_name().to_owned(), rpcs });
    }

    /// Takes the access rule of an rpc. Its route, if it has one that can be read, is the last one.
    fn access(&mut self, method: &MethodDescriptor, option: &AccessOption, routed: bool) {
        let mut problems = Problems { method, findings: &mut self.findings };
        let Some(rule) = access::rule(option, &mut problems) else { return };
        match self.routes.last_mut().filter(|(_, route)| route.path == rule.path) {
            Some((_, route)) => {
                let tenant_field = access::tenant(&rule, route, &mut problems);
                Arc::make_mut(route).tenant_field = tenant_field;
            }
            None if rule.tenant_field.is_some() && !routed => {
                let problem = "has `tenant_field`, but no route: only requests of routes are checked";
                problems.add(problem, "remove `tenant_field`; the code that answers the rpc has to check it");
            }
            None => {}
        }
        self.rules.push(Arc::new(rule));
    }

    /// Looks at an rpc that may be meant like this, but probably is not.
    fn doubtful(&mut self, method: &MethodDescriptor, internal: bool) {
        let path = path(method);
        if !internal && self.rules.last().is_none_or(|rule| rule.path != path) {
            let problem =
                "has no access rule: where callers are authenticated, a gateway does not serve this contract";
            let remedy = access::REQUIRE;
            self.warnings.push(Finding::of(method, problem, remedy));
        }
        let Some((_, route)) = self.routes.last().filter(|(_, route)| route.path == path) else { return };
        let rule = self.rules.last().filter(|rule| rule.path == path);
        if let Some((problem, remedy)) = rule.and_then(|rule| access::shared(rule, route)) {
            self.warnings.push(Finding::of(method, problem, remedy));
        }
        if route.retries > 0 && !route.repeatable {
            let problem = "has retries, but no idempotency_level: only attempts that surely were not delivered are \
                           repeated";
            let remedy =
                "add `option idempotency_level = IDEMPOTENT;` (or NO_SIDE_EFFECTS) if it may be repeated";
            self.warnings.push(Finding::of(method, problem, remedy));
        }
    }

    /// Rpcs that nothing answers.
    fn unrouted(&mut self, pool: &DescriptorPool, reader: &Reader) {
        if self.services.is_empty() {
            let remedy = "add `option (natsgateway.v1.route) = {subject: \"things.get\"};` to an rpc";
            self.findings.push(Finding::of_set("", "no rpc has a route", remedy));
        }
        let served = self.services.iter().filter_map(|service| pool.get_service_by_name(&service.name));
        for method in served.flat_map(|service| service.methods().collect::<Vec<_>>()) {
            if reader.route(&method).is_none() {
                let remedy = "add `option (natsgateway.v1.route)`, or move it to a service of its own";
                self.findings.push(Finding::of(&method, "has no route, and no code answers it", remedy));
            }
        }
    }

    fn snapshot(self, pool: DescriptorPool) -> Catalog {
        let Draft { services, rpcs, routes, rules, warnings, .. } = self;
        let routes = routes.into_iter().map(|(_, route)| route).collect();
        Parts { pools: vec![pool], services, rpcs, routes, rules, warnings }.snapshot()
    }
}

/// Decodes the set. The library panics where a file has another syntax than the two that it knows, such as editions.
fn pool(descriptors: &[u8]) -> Result<DescriptorPool, Findings> {
    let undecodable = |error: &dyn fmt::Display| {
        let remedy = "build it with all imports (`buf build -o`, `protoc --include_imports -o`)";
        Findings::from(Finding::of_set("", format!("cannot be decoded: {error}"), remedy))
    };
    let set = FileDescriptorSet::decode(descriptors).map_err(|error| undecodable(&error))?;
    let unknown = |file: &&FileDescriptorProto| !matches!(file.syntax(), "" | "proto2" | "proto3");
    let strange = set.file.iter().filter(unknown).map(|file| {
        let problem = format!("the syntax {:?} is not supported", file.syntax());
        Finding::at(file.name(), "", problem, "write `syntax = \"proto3\";`")
    });
    match Findings::some(strange.collect()) {
        Some(findings) => Err(findings),
        None => DescriptorPool::decode(descriptors).map_err(|error| undecodable(&error)),
    }
}

/// The library does not check the shape of map entries, and panics when it meets one without key or value. No compiler
/// writes such a set.
fn map_entries(pool: &DescriptorPool, findings: &mut Vec<Finding>) {
    for entry in pool.all_messages().filter(MessageDescriptor::is_map_entry) {
        let part = |number| entry.get_field(number).filter(|field| !field.is_list());
        let key = part(1).is_some_and(|key| match key.kind() {
            Kind::Double | Kind::Float | Kind::Bytes | Kind::Message(_) | Kind::Enum(_) => false,
            Kind::Bool | Kind::String => true,
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Sint32 | Kind::Sint64 => true,
            Kind::Fixed32 | Kind::Fixed64 | Kind::Sfixed32 | Kind::Sfixed64 => true,
        });
        if !key || part(2).is_none() || entry.fields().len() != 2 {
            let problem = "is a map entry that has not one key and one value";
            let remedy = "declare the field as `map<key, value>`, and compile the proto again";
            findings.push(Finding::at(entry.parent_file().name(), entry.full_name(), problem, remedy));
        }
    }
}
