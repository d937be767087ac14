//! The gRPC port of a gateway: TLS, authentication and authorization, rpcs with a route and services with code, health,
//! reflection, drain, call metrics. It
//! converts metadata into a `CallContext`, a `Failure` into a status, and paths into routes. Must not decide anything
//! about a message or a reply.

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod auth;
mod authorization;
mod baggage;
mod body;
mod call_layer;
pub mod call_metrics;
pub mod client;
mod client_stream;
pub mod config;
mod crypto;
mod drain;
mod expiry;
mod finish;
mod framing;
mod fresh;
#[cfg(any(test, fuzzing, feature = "fuzz"))]
pub mod fuzz;
pub mod grpc;
mod headers;
pub mod health_client;
pub mod health_server;
mod http2;
mod listener;
mod metadata;
mod origin;
mod pass_through;
mod peer;
mod reauthorization;
mod reload;
#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
mod rpcs;
pub mod security;
pub mod served;
mod serving;
pub mod supervisor;
#[cfg(test)]
mod tests;
mod tls;

pub use admission::{HealthRegistry, registry, status};
pub use baggage::Baggage;
pub use call_metrics::CallMetrics;
pub use metadata::call_of;
pub use origin::leaving;
pub use served::{Current, Served};
