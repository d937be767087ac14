//! Generates Rust from `proto/`, without protoc: message types and clients, proto3 JSON, the servers of the rpcs that
//! have code, the routes of those that have none, the scope that each requires, and the descriptor set for reflection.

// Cargo reads instructions from standard output.
#![allow(clippy::disallowed_macros)]

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;
use prost_reflect::prost_types::FileDescriptorSet;
use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MethodDescriptor, Value};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const FILES: [&str; 3] = [
    "orders/v1/order_service.proto",
    "inventory/v1/inventory_service.proto",
    "inventory/v1/maintenance_service.proto",
];
const PACKAGES: [&str; 2] = ["orders.v1", "inventory.v1"];
/// The idempotency_level of that name.
const IDEMPOTENT: i32 = 2;
/// `ENCODING_PROTOBUF` of nats.gateway.v1.
const PROTOBUF: i64 = 2;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptors.bin"), &descriptors)?;

    let pool = DescriptorPool::decode(descriptors.as_slice())?;
    let routes = Routes::read(&pool)?;
    fs::write(out.join("routes.rs"), routes.source()? + &routes.rpcs(&pool)? + &repeats(&pool)?)?;
    fs::write(out.join("access.rs"), access(&pool)?)?;

    let files = FileDescriptorSet::decode(descriptors.as_slice())?;
    messages_and_clients(files.clone())?;
    servers(routes.strip(files), &out.join("servers"))?;
    pbjson_build::Builder::new()
        .register_descriptors(&descriptors)?
        .extern_path(".google.protobuf", "::pbjson_types")
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
        .extern_path(".google.protobuf", "::pbjson_types")
        .compile_fds(files)?;
    Ok(())
}

/// The server traits of the rpcs without a route: the others need no code.
fn servers(files: FileDescriptorSet, out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    tonic_prost_build::configure()
        .build_client(false)
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .extern_path(".orders.v1", "crate::orders::v1")
        .extern_path(".inventory.v1", "crate::inventory::v1")
        .out_dir(out)
        .compile_fds(files)?;
    Ok(())
}

/// The rpcs that carry a route.
struct Routes {
    methods: Vec<MethodDescriptor>,
    option: ExtensionDescriptor,
}

impl Routes {
    fn read(pool: &DescriptorPool) -> Result<Routes> {
        let option = pool
            .get_extension_by_name("nats.gateway.v1.route")
            .ok_or("proto/nats/gateway/v1 does not define `route`")?;
        let methods = pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .filter(|method| method.options().has_extension(&option))
            .collect();
        Ok(Routes { methods, option })
    }

    /// What clients may call.
    fn rpcs(&self, pool: &DescriptorPool) -> Result<String> {
        let mut source = "/// Every rpc that clients may call.\npub const RPCS: &[Rpc] = &[".to_owned();
        for service in pool.services().filter(|service| PACKAGES.contains(&service.package_name())) {
            for method in service.methods().filter(|method| !self.says(method, "internal")) {
                let (name, streams) =
                    (format!("{}/{}", service.full_name(), method.name()), method.is_server_streaming());
                write!(source, "Rpc {{ name: {name:?}, path: \"/{name}\", streams: {streams} }}, ")?;
            }
        }
        Ok(source + "];\n")
    }

    /// Whether the method's route sets this flag.
    fn says(&self, method: &MethodDescriptor, field: &str) -> bool {
        let options = method.options();
        let route = options.get_extension(&self.option);
        let route = route.as_message();
        route.is_some_and(|route| flag(route, field))
    }

    fn strip(&self, mut files: FileDescriptorSet) -> FileDescriptorSet {
        for file in &mut files.file {
            let package = file.package().to_owned();
            for service in &mut file.service {
                let prefix = format!("{package}.{}", service.name());
                service.method.retain(|method| {
                    let name = format!("{prefix}.{}", method.name());
                    !self.methods.iter().any(|routed| routed.full_name() == name)
                });
            }
            file.service.retain(|service| !service.method.is_empty());
        }
        files
    }

    fn source(&self) -> Result<String> {
        let mut source = String::new();
        for method in &self.methods {
            self.constant(method, &mut source)?;
        }
        let names = |wanted: &dyn Fn(&MethodDescriptor) -> bool| {
            let methods = self.methods.iter().filter(|method| wanted(method));
            methods.map(|method| format!("&{}", constant_name(method))).collect::<Vec<_>>().join(", ")
        };
        let serving = names(&|method| !self.says(method, "maintenance"));
        writeln!(
            source,
            "/// Every route of the contract.\npub const ALL: &[&Route] = &[{}];\n\
             /// The serving routes, which clients' calls need: the others are for an operator's commands.\n\
             pub const SERVING: &[&Route] = &[{serving}];",
            names(&|_| true)
        )?;
        Ok(source)
    }

    fn constant(&self, method: &MethodDescriptor, source: &mut String) -> Result<()> {
        let options = method.options();
        let route = options.get_extension(&self.option);
        let route = route.as_message().ok_or("the option route is not a message")?;
        let subject = text(route, "subject")?;
        check_subject(method, &subject)?;
        let (service, rpc) = (method.parent_service().full_name(), method.name());
        let name = constant_name(method);
        let (request, reply) =
            (rust_type(method.input().full_name()), rust_type(method.output().full_name()));
        let json = number(route, "encoding")? != PROTOBUF;
        writeln!(
            source,
            "/// The route of `{service}.{rpc}`.\npub const {name}: Route = Route {{ service: {service:?}, rpc: {rpc:?}, \
             path: \"/{service}/{rpc}\", subject: {subject:?}, queue_group: {:?}, timeout: Duration::from_millis({}), \
             retries: {}, repeatable: {}, internal: {}, json: {json}, repeats: repeats::<{request}>, \
             request: recode_request::<{request}>, reply: recode_reply::<{request}> }};",
            text(route, "queue_group")?,
            millis(route)?,
            number(route, "retries")?,
            repeatable(&options),
            flag(route, "internal"),
        )?;
        let (to, from) = match (json, text(route, "body")?.as_str()) {
            (false, _) => ("to_proto(self)".to_owned(), "from_proto(bytes)".to_owned()),
            (true, "") => ("to_json(self)".to_owned(), "from_json(bytes)".to_owned()),
            (true, body) if method.input().get_field_by_name(body).is_none() => {
                return Err(format!("{}: the request has no field `{body}`", method.full_name()).into());
            }
            (true, body) => (
                format!("to_json(&self.{body})"),
                format!(
                    "Ok(Self {{ {body}: from_json(bytes).map_err(|error| error.under({body:?}))?, ..Default::default() }})"
                ),
            ),
        };
        writeln!(
            source,
            "#[allow(clippy::needless_update)]\nimpl Routed for {request} {{ type Reply = {reply}; const ROUTE: &'static Route = &{name}; \
             fn to_payload(&self) -> Result<Vec<u8>, CodecError> {{ {to} }} \
             fn from_payload(bytes: &[u8]) -> Result<Self, CodecError> {{ {from} }} }}",
        )?;
        Ok(())
    }
}

/// The rules of access, in ascending order of their paths.
fn access(pool: &DescriptorPool) -> Result<String> {
    let option = pool
        .get_extension_by_name("nats.gateway.v1.access")
        .ok_or("proto/nats/gateway/v1 does not define `access`")?;
    let mut rules = Vec::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let options = method.options();
        if !options.has_extension(&option) {
            continue;
        }
        let access = options.get_extension(&option);
        let scope = text(access.as_message().ok_or("the option access is not a message")?, "scope")?;
        let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
        if !scope.split('.').all(word) {
            return Err(format!(
                "{}: the scope {scope:?} must be words of [a-z] joined by dots",
                method.full_name()
            )
            .into());
        }
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        rules.push((path, scope, method.is_server_streaming() || method.is_client_streaming()));
    }
    rules.sort_unstable();
    let mut source =
        String::from("/// Every rule, in ascending order of its path.\npub const RULES: &[Rule] = &[\n");
    for (path, scope, streams) in rules {
        writeln!(source, "Rule {{ path: {path:?}, scope: {scope:?}, streams: {streams} }},")?;
    }
    source.push_str("];\n");
    Ok(source)
}

fn check_subject(method: &MethodDescriptor, subject: &str) -> Result<()> {
    let token = |token: &str| {
        (1..=64).contains(&token.len())
            && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    if subject.split('.').all(token) {
        return Ok(());
    }
    Err(format!(
        "{}: the subject {subject:?} has a token that is not [A-Za-z0-9_-]{{1,64}}",
        method.full_name()
    )
    .into())
}

fn constant_name(method: &MethodDescriptor) -> String {
    let mut name = String::new();
    for letter in method.name().chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn repeatable(options: &DynamicMessage) -> bool {
    level(options) != 0
}

/// The idempotency_level: 0 if none is given.
fn level(options: &DynamicMessage) -> i32 {
    options.get_field_by_name("idempotency_level").and_then(|level| level.as_enum_number()).unwrap_or(0)
}

/// Which requests may be sent again as they are: those of rpcs without side effects and of idempotent ones; if these
/// have a field `request_id`, only if it is set.
fn repeats(pool: &DescriptorPool) -> Result<String> {
    let mut source = String::new();
    for service in pool.services().filter(|service| PACKAGES.contains(&service.package_name())) {
        for method in service.methods() {
            let keyed = method.input().get_field_by_name("request_id").is_some();
            let rule = match level(&method.options()) {
                0 => "false",
                IDEMPOTENT if keyed => "!self.request_id.is_empty()",
                _ => "true",
            };
            let request = rust_type(method.input().full_name());
            writeln!(source, "impl Repeat for {request} {{ fn repeatable(&self) -> bool {{ {rule} }} }}")?;
        }
    }
    Ok(source)
}

fn rust_type(name: &str) -> String {
    format!("crate::{}", name.replace('.', "::"))
}

fn flag(route: &DynamicMessage, field: &str) -> bool {
    route.get_field_by_name(field).and_then(|value| value.as_bool()).unwrap_or(false)
}

fn text(route: &DynamicMessage, field: &str) -> Result<String> {
    let value = route.get_field_by_name(field).ok_or("the route has no such field")?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}

fn number(route: &DynamicMessage, field: &str) -> Result<i64> {
    let value = route.get_field_by_name(field).ok_or("the route has no such field")?;
    Ok(match *value {
        Value::U32(number) => number.into(),
        Value::EnumNumber(number) | Value::I32(number) => number.into(),
        Value::I64(number) => number,
        _ => 0,
    })
}

/// The timeout of one attempt; 5 s by default.
fn millis(route: &DynamicMessage) -> Result<i64> {
    if !route.has_field_by_name("timeout") {
        return Ok(5_000);
    }
    let timeout = route.get_field_by_name("timeout").ok_or("the route has no timeout")?;
    let timeout = timeout.as_message().ok_or("the timeout is not a message")?;
    Ok(number(timeout, "seconds")? * 1_000 + number(timeout, "nanos")? / 1_000_000)
}
