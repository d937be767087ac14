//! Reads the options of an rpc: `natsgateway.v1.route` and `natsgateway.v1.access`, by their numbers as in the
//! gateway's own copy of their protos. Must not judge their values.

use prost::Message;
use prost_reflect::prost_types::Duration;
use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MethodDescriptor};

use crate::finding::Finding;

/// Each option, and what it was called until 0.2: to be removed with 0.4.
const ROUTE: [(&str, u32); 2] = [("natsgateway.v1.route", 60_432), ("nats.gateway.v1.route", 60_422)];
const ACCESS: [(&str, u32); 2] = [("natsgateway.v1.access", 60_433), ("nats.gateway.v1.access", 60_423)];
const EXTENDED: &str = "google.protobuf.MethodOptions";
const COPY: &str = "use the copy of natsgateway/v1 that belongs to this gateway";

/// `natsgateway.v1.Route`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RouteOption {
    #[prost(string, tag = "1")]
    pub(crate) subject: String,
    #[prost(string, tag = "2")]
    pub(crate) queue_group: String,
    #[prost(string, tag = "3")]
    pub(crate) body: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) timeout: Option<Duration>,
    #[prost(uint32, tag = "5")]
    pub(crate) retries: u32,
    #[prost(int32, tag = "6")]
    pub(crate) encoding: i32,
    #[prost(bool, tag = "7")]
    pub(crate) internal: bool,
    #[prost(bool, tag = "8")]
    pub(crate) maintenance: bool,
    #[prost(int32, tag = "9")]
    pub(crate) kind: i32,
    #[prost(bool, tag = "10")]
    pub(crate) require_subscriber: bool,
    #[prost(message, optional, tag = "11")]
    pub(crate) durable: Option<DurableOption>,
    #[prost(message, optional, tag = "12")]
    pub(crate) replies: Option<RepliesOption>,
    #[prost(message, optional, tag = "13")]
    pub(crate) subscription: Option<SubscriptionOption>,
    #[prost(int32, tag = "14")]
    pub(crate) envelope: i32,
    #[prost(string, tag = "15")]
    pub(crate) response_body: String,
    #[prost(uint32, tag = "16")]
    pub(crate) max_in_flight: u32,
    #[prost(bool, tag = "17")]
    pub(crate) cancel: bool,
    #[prost(message, optional, tag = "18")]
    pub(crate) metadata: Option<MetadataOption>,
}

/// `natsgateway.v1.Durable`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DurableOption {
    #[prost(string, tag = "1")]
    pub(crate) stream: String,
    #[prost(string, tag = "2")]
    pub(crate) message_id: String,
    #[prost(string, tag = "3")]
    pub(crate) expected_sequence: String,
}

/// `natsgateway.v1.Replies`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RepliesOption {
    #[prost(uint32, tag = "1")]
    pub(crate) count: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) idle_timeout: Option<Duration>,
    #[prost(bool, tag = "3")]
    pub(crate) all: bool,
}

/// `natsgateway.v1.Subscription`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SubscriptionOption {
    #[prost(string, tag = "1")]
    pub(crate) stream: String,
    #[prost(string, tag = "2")]
    pub(crate) resume_field: String,
    #[prost(string, tag = "3")]
    pub(crate) token_field: String,
}

/// `natsgateway.v1.Metadata`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetadataOption {
    #[prost(string, repeated, tag = "1")]
    pub(crate) request: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) reply: Vec<String>,
}

/// `natsgateway.v1.Access`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AccessOption {
    #[prost(string, tag = "1")]
    pub(crate) scope: String,
    #[prost(bool, tag = "2")]
    pub(crate) public: bool,
    #[prost(bool, tag = "3")]
    pub(crate) authenticated: bool,
    #[prost(string, tag = "4")]
    pub(crate) tenant_field: String,
    #[prost(bool, tag = "5")]
    pub(crate) across_tenants: bool,
}

/// Reads the options of the rpcs of one descriptor set.
pub(crate) struct Reader {
    routes: Vec<ExtensionDescriptor>,
    access: Vec<ExtensionDescriptor>,
}

impl Reader {
    /// A set that does not define an option has no rpc that carries it.
    pub(crate) fn new(pool: &DescriptorPool, findings: &mut Vec<Finding>) -> Reader {
        let mut find = |(name, number): (&str, u32)| {
            let option = pool.get_extension_by_name(name)?;
            if (option.number(), option.containing_message().full_name()) == (number, EXTENDED) {
                return Some(option);
            }
            let problem = format!("is not field {number} of {EXTENDED}");
            findings.push(Finding::at(option.parent_file().name(), name, problem, COPY));
            None
        };
        let mut of = |names: [(&str, u32); 2]| names.into_iter().filter_map(&mut find).collect();
        Reader { routes: of(ROUTE), access: of(ACCESS) }
    }

    /// The route of an rpc, if it has one.
    pub(crate) fn route(&self, method: &MethodDescriptor) -> Option<Result<RouteOption, Finding>> {
        one(method, &self.routes, 1..=18)
    }

    /// The access of an rpc, if it has one.
    pub(crate) fn access(&self, method: &MethodDescriptor) -> Option<Result<AccessOption, Finding>> {
        one(method, &self.access, 1..=5)
    }

    /// Whether an rpc has a route or an access.
    pub(crate) fn annotates(&self, method: &MethodDescriptor) -> bool {
        let options = method.options();
        self.routes.iter().chain(&self.access).any(|option| options.has_extension(option))
    }
}

/// The option under whichever of its names the rpc has it.
fn one<M: Message + Default>(
    method: &MethodDescriptor,
    names: &[ExtensionDescriptor],
    known: std::ops::RangeInclusive<u32>,
) -> Option<Result<M, Finding>> {
    let mut found = names.iter().filter_map(|name| option(method, name, known.clone()));
    let first = found.next()?;
    match found.next() {
        None => Some(first),
        Some(_) => {
            let problem = "has an option under both its names";
            Some(Err(Finding::of(method, problem, "remove the one of nats.gateway.v1, the former name")))
        }
    }
}

fn option<M: Message + Default>(
    method: &MethodDescriptor,
    option: &ExtensionDescriptor,
    known: std::ops::RangeInclusive<u32>,
) -> Option<Result<M, Finding>> {
    let options = method.options();
    if !options.has_extension(option) {
        return None;
    }
    let refuse = |problem: String| Some(Err(Finding::of(method, problem, COPY)));
    let value = options.get_extension(option);
    let Some(message) = value.as_message() else {
        return refuse(format!("the option {} is not a message", option.full_name()));
    };
    if let Some(number) = numbers(message).find(|number| !known.contains(number)) {
        return refuse(format!(
            "this gateway does not know field {number} of the option {}",
            option.full_name()
        ));
    }
    let encoded = message.encode_to_vec();
    match M::decode(encoded.as_slice()) {
        // What is not known within a message of the option is lost when it is decoded.
        Ok(message) if message.encoded_len() != encoded.len() => {
            refuse(format!("this gateway does not know a field within the option {}", option.full_name()))
        }
        Ok(message) => Some(Ok(message)),
        Err(error) => refuse(format!("the option {} cannot be read: {error}", option.full_name())),
    }
}

/// The numbers of the fields that are set.
fn numbers(message: &DynamicMessage) -> impl Iterator<Item = u32> + '_ {
    let known = message.fields().map(|(field, _)| field.number());
    known.chain(message.unknown_fields().map(prost_reflect::UnknownField::number))
}
