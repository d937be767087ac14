//! The gRPC server. The only module that depends on tonic. It converts metadata into a `Call`, a `Failure` into a
//! status, and paths into routes. Must not decide anything about an order or a reply.

pub(crate) mod authorization;
mod baggage;
mod body;
mod call_layer;
pub mod call_metrics;
pub mod client;
mod drain;
pub(crate) mod expiry;
mod finish;
mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod headers;
pub mod health_client;
pub(crate) mod health_server;
mod http2;
mod listener;
mod metadata;
pub mod orders;
mod origin;
mod pass_through;
mod peer;
mod reauthorization;
mod rpcs;
pub mod server;
#[cfg(test)]
mod tests;
pub(crate) mod tls;

pub use admission::{HealthRegistry, registry, status};
pub use baggage::Baggage;
pub use call_metrics::CallMetrics;
pub use metadata::call_of;
