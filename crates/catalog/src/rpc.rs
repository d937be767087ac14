//! Services and rpcs as the protos declare them. Must not know how an rpc is served.

use std::sync::Arc;

use prost_reflect::MethodDescriptor;
use prost_reflect::prost_types::method_options::IdempotencyLevel;

/// A service that is served.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its full name, such as `bookstore.v1.Books`.
    pub name: String,
    /// Its rpcs, as they are declared.
    pub rpcs: Vec<Arc<Rpc>>,
}

/// An rpc of a service that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rpc {
    /// The full name of its service.
    pub service: String,
    /// Its name within the service.
    pub method: String,
    /// Its path in HTTP/2: `/service/rpc`.
    pub path: String,
    /// The full name of its request message.
    pub input: String,
    /// The full name of its reply message.
    pub output: String,
    /// Whether its request is a stream.
    pub client_streaming: bool,
    /// Whether its reply is a stream.
    pub server_streaming: bool,
    /// Whether it may be repeated.
    pub idempotency: Idempotency,
    /// Whether only the gateway itself calls it: it is not served to clients.
    pub internal: bool,
}

/// The `idempotency_level` of an rpc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// Not given: a call must not be repeated once it may have been delivered.
    Unknown,
    /// The rpc changes nothing.
    NoSideEffects,
    /// Two calls have the effect of one. If the request has a field `request_id`, only where that is set.
    Idempotent,
}

impl Rpc {
    /// Its name in logs and metrics: `service/rpc`.
    pub fn name(&self) -> &str {
        self.path.trim_start_matches('/')
    }

    /// Whether its request or its reply is a stream.
    pub fn streams(&self) -> bool {
        self.client_streaming || self.server_streaming
    }

    pub(crate) fn of(method: &MethodDescriptor, internal: bool) -> Rpc {
        Rpc {
            service: method.parent_service().full_name().to_owned(),
            method: method.name().to_owned(),
            path: path(method),
            input: method.input().full_name().to_owned(),
            output: method.output().full_name().to_owned(),
            client_streaming: method.is_client_streaming(),
            server_streaming: method.is_server_streaming(),
            idempotency: Idempotency::of(method),
            internal,
        }
    }
}

impl Idempotency {
    pub(crate) fn of(method: &MethodDescriptor) -> Idempotency {
        let options = method.method_descriptor_proto().options.as_ref();
        match options.map_or(IdempotencyLevel::IdempotencyUnknown, |options| options.idempotency_level()) {
            IdempotencyLevel::IdempotencyUnknown => Idempotency::Unknown,
            IdempotencyLevel::NoSideEffects => Idempotency::NoSideEffects,
            IdempotencyLevel::Idempotent => Idempotency::Idempotent,
        }
    }
}

/// The path of an rpc in HTTP/2.
pub(crate) fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}
