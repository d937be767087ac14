//! Generates Rust from `proto/`, without protoc: message types and clients, proto3 JSON, the servers of the rpcs that
//! have code, the routes of those that have none, and the descriptor set, of which the gateway makes its catalog.
//! What the catalog refuses is refused here, and so is what generated types cannot express.

// Cargo reads instructions from standard output.
#![allow(clippy::disallowed_macros)]

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use catalog::{Catalog, Encoding, Idempotency, Route, Rpc};
use heck::{ToShoutySnakeCase as _, ToSnakeCase as _, ToUpperCamelCase as _};
use prost::Message as _;
use prost_reflect::prost_types::FileDescriptorSet;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const FILES: [&str; 3] = [
    "orders/v1/order_service.proto",
    "inventory/v1/inventory_service.proto",
    "inventory/v1/maintenance_service.proto",
];
/// The packages whose types are generated. Each has a module in `proto/lib.rs`.
const PACKAGES: [&str; 2] = ["orders.v1", "inventory.v1"];
/// The package of the well-known types, and the crate that has them.
const WELL_KNOWN: (&str, &str) = ("google.protobuf", "::pbjson_types");

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptors.bin"), &descriptors)?;

    let contract = Contract::read(&descriptors)?;
    fs::write(out.join("routes.rs"), contract.routes()? + &contract.repeats()?)?;

    let files = FileDescriptorSet::decode(descriptors.as_slice())?;
    messages_and_clients(files.clone())?;
    servers(contract.strip(files), &out.join("servers"))?;
    pbjson_build::Builder::new()
        .register_descriptors(&descriptors)?
        .extern_path(format!(".{}", WELL_KNOWN.0), WELL_KNOWN.1)
        // Zeros and false are written, for readers without the proto; fields of newer versions are ignored.
        .emit_fields()
        .ignore_unknown_fields()
        .build(&PACKAGES.map(|package| format!(".{package}")))?;
    PACKAGES.iter().try_for_each(|package| numbers(&out.join(format!("{package}.serde.rs"))))
}

/// Makes generated code read numbers with `proto/number.rs`: the library's type takes half of the time to read a reply.
fn numbers(generated: &Path) -> Result<()> {
    let (theirs, ours) = ("::pbjson::private::NumberDeserialize<_>", "crate::number::Number<_>");
    let source = fs::read_to_string(generated)?;
    if !source.contains(theirs) {
        return Err(format!("{} does not read numbers with {theirs}", generated.display()).into());
    }
    fs::write(generated, source.replace(theirs, ours))?;
    Ok(())
}

fn messages_and_clients(files: FileDescriptorSet) -> Result<()> {
    tonic_prost_build::configure()
        .build_server(false)
        .compile_well_known_types(true)
        .extern_path(format!(".{}", WELL_KNOWN.0), WELL_KNOWN.1)
        .compile_fds(files)?;
    Ok(())
}

/// The server traits of the rpcs without a route: the others need no code.
fn servers(files: FileDescriptorSet, out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    let builder = tonic_prost_build::configure()
        .build_client(false)
        .compile_well_known_types(true)
        .extern_path(format!(".{}", WELL_KNOWN.0), WELL_KNOWN.1);
    let external = |builder: tonic_prost_build::Builder, package: &str| {
        builder.extern_path(format!(".{package}"), rust_module(package))
    };
    PACKAGES.into_iter().fold(builder, external).out_dir(out).compile_fds(files)?;
    Ok(())
}

/// The rpcs, their routes and access rules, of which every request is the request of one rpc only.
struct Contract(Arc<Catalog>);

impl Contract {
    fn read(descriptors: &[u8]) -> Result<Contract> {
        let catalog = match Catalog::new(descriptors) {
            Ok(catalog) => catalog,
            Err(findings) => {
                findings.iter().for_each(|finding| println!("cargo::error=proto/{finding}"));
                return Err("the catalog refuses the protos".into());
            }
        };
        let contract = Contract(catalog);
        let mut rpcs: HashMap<&str, &str> = HashMap::new();
        for rpc in contract.declared() {
            if let Some(other) = rpcs.insert(&rpc.input, rpc.name()) {
                return Err(format!(
                    "{other} and {} both take {}, which can implement the traits Repeat and Routed only once: give each \
                     rpc a request message of its own",
                    rpc.name(),
                    rpc.input
                )
                .into());
            }
        }
        Ok(contract)
    }

    /// All rpcs, as they are declared.
    fn declared(&self) -> impl Iterator<Item = &Arc<Rpc>> {
        self.0.services().iter().flat_map(|service| &service.rpcs)
    }

    /// All rpcs that have a route, as they are declared.
    fn routed(&self) -> impl Iterator<Item = (&Rpc, &Route)> {
        self.declared().filter_map(|rpc| Some((&**rpc, &**self.0.route(&rpc.path)?)))
    }

    fn message(&self, name: &str) -> Result<MessageDescriptor> {
        self.0.descriptors()[0]
            .get_message_by_name(name)
            .ok_or_else(|| format!("there is no message {name}").into())
    }

    /// The files without the rpcs that have a route.
    fn strip(&self, mut files: FileDescriptorSet) -> FileDescriptorSet {
        for file in &mut files.file {
            let package = file.package().to_owned();
            for service in &mut file.service {
                let name =
                    if package.is_empty() { String::new() } else { format!("{package}.") } + service.name();
                service.method.retain(|method| self.0.route(&format!("/{name}/{}", method.name())).is_none());
            }
            file.service.retain(|service| !service.method.is_empty());
        }
        files
    }

    fn routes(&self) -> Result<String> {
        let mut source = String::new();
        for (rpc, route) in self.routed() {
            self.route(rpc, route, &mut source)?;
        }
        let names: Vec<_> = self.routed().map(|(rpc, _)| format!("&{}", constant_name(rpc))).collect();
        writeln!(
            source,
            "/// Every route of the contract.\npub const ALL: &[&Route] = &[{}];",
            names.join(", ")
        )?;
        Ok(source)
    }

    fn route(&self, rpc: &Rpc, route: &Route, source: &mut String) -> Result<()> {
        let name = constant_name(rpc);
        let (input, output) = (self.message(&rpc.input)?, self.message(&rpc.output)?);
        let (request, reply) = (rust_type(&input)?, rust_type(&output)?);
        let Route { service, rpc, path, queue_group, retries, repeatable, internal, .. } = route;
        let subject = route.subject.as_str();
        let (timeout, json) = (route.timeout.as_nanos(), route.encoding == Encoding::Json);
        writeln!(
            source,
            "/// The route of `{service}.{rpc}`.\npub const {name}: Route = Route {{ service: {service:?}, rpc: {rpc:?}, \
             path: {path:?}, subject: {subject:?}, queue_group: {queue_group:?}, timeout: Duration::from_nanos({timeout}), \
             retries: {retries}, repeatable: {repeatable}, internal: {internal}, json: {json}, repeats: repeats::<{request}>, \
             request: recode_request::<{request}>, reply: recode_reply::<{request}> }};",
        )?;
        let (to, from) = match (route.encoding, route.body.as_str()) {
            (Encoding::Protobuf, _) => ("to_proto(self)".to_owned(), "from_proto(bytes)".to_owned()),
            (Encoding::Json, "") => ("to_json(self)".to_owned(), "from_json(bytes)".to_owned()),
            (Encoding::Json, body) => {
                let field = rust_body(&input, body)?;
                let value = format!("from_json(bytes).map_err(|error| error.under({body:?}))?");
                (
                    format!("to_json(&self.{field})"),
                    format!("Ok(Self {{ {field}: {value}, ..Default::default() }})"),
                )
            }
        };
        writeln!(
            source,
            "#[allow(clippy::needless_update)]\nimpl Routed for {request} {{ type Reply = {reply}; const ROUTE: &'static Route = &{name}; \
             fn to_payload(&self) -> Result<Vec<u8>, CodecError> {{ {to} }} \
             fn from_payload(bytes: &[u8]) -> Result<Self, CodecError> {{ {from} }} }}",
        )?;
        Ok(())
    }

    /// Which requests may be sent again as they are: those of rpcs without side effects and of idempotent ones; if these
    /// have a field `request_id`, only if it is set.
    fn repeats(&self) -> Result<String> {
        let mut source = String::new();
        for rpc in self.declared() {
            let input = self.message(&rpc.input)?;
            let rule = match (rpc.idempotency, input.get_field_by_name("request_id")) {
                (Idempotency::Unknown, _) => "false",
                (Idempotency::NoSideEffects, _) | (Idempotency::Idempotent, None) => "true",
                (Idempotency::Idempotent, Some(key)) if is_text(&key) => "!self.request_id.is_empty()",
                (Idempotency::Idempotent, Some(key)) => {
                    return Err(format!("{}: has to be a string without presence", key.full_name()).into());
                }
            };
            let request = rust_type(&input)?;
            writeln!(source, "impl Repeat for {request} {{ fn repeatable(&self) -> bool {{ {rule} }} }}")?;
        }
        Ok(source)
    }
}

/// Named by service and rpc: two services may have rpcs of one name.
fn constant_name(rpc: &Rpc) -> String {
    rpc.name().to_shouty_snake_case()
}

fn is_text(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::String) && !field.is_list() && !field.supports_presence()
}

/// The generated type of a message. Messages within others are in a module named after these.
fn rust_type(message: &MessageDescriptor) -> Result<String> {
    let name = identifier(&message.name().to_upper_camel_case());
    if message.package_name() == WELL_KNOWN.0 && message.parent_message().is_none() {
        return Ok(format!("{}::{name}", WELL_KNOWN.1));
    }
    if !PACKAGES.contains(&message.package_name()) {
        return Err(format!(
            "{}: no types are generated for the package {:?}: add it to PACKAGES in build.rs, and as a module to \
             proto/lib.rs",
            message.full_name(),
            message.package_name()
        )
        .into());
    }
    let outer = std::iter::successors(message.parent_message(), MessageDescriptor::parent_message);
    let mut modules: Vec<_> = outer.map(|outer| identifier(&outer.name().to_snake_case())).collect();
    modules.push(rust_module(message.package_name()));
    modules.reverse();
    Ok(format!("{}::{name}", modules.join("::")))
}

/// The module of a package, as `proto/lib.rs` names it.
fn rust_module(package: &str) -> String {
    format!("crate::{}", package.replace('.', "::"))
}

/// The generated field that alone is the payload. Of some kinds, the generated field has not the JSON of the kind.
fn rust_body(request: &MessageDescriptor, body: &str) -> Result<String> {
    let field = request.get_field_by_name(body).ok_or("the catalog accepts no body that does not exist")?;
    let written = match field.kind() {
        Kind::Message(_) => !field.is_map() && !field.is_group(),
        Kind::String
        | Kind::Bool
        | Kind::Int32
        | Kind::Sint32
        | Kind::Sfixed32
        | Kind::Uint32
        | Kind::Fixed32 => true,
        _ => false,
    };
    if !written || field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) {
        return Err(format!(
            "{}: as a body, generated types write only messages, strings, bools and 32-bit integers outside of a oneof",
            field.full_name()
        )
        .into());
    }
    Ok(identifier(&body.to_snake_case()))
}

/// A raw identifier, as the name may be a keyword. Those that cannot be raw end in an underscore, as prost writes them.
fn identifier(name: &str) -> String {
    match name {
        "self" | "Self" | "super" | "crate" | "extern" | "_" => format!("{name}_"),
        _ => format!("r#{name}"),
    }
}
