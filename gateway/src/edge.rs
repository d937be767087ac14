//! The edge: gRPC. The only place that knows tonic. It turns metadata into a `Call`, a `Failure` into a status, and
//! paths into routes; it must never decide anything about an order or a reply.

mod accept;
pub mod account;
mod baggage;
mod body;
pub mod client;
pub(crate) mod clinic;
mod converse;
mod envelope;
pub(crate) mod expiry;
mod finish;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub(crate) mod guard;
mod incoming;
mod name;
pub mod orders;
mod origin;
mod parting;
mod pass;
mod peer;
pub mod probe;
mod rpcs;
pub mod server;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod unary;
mod vigil;

pub use accept::call_of;
pub use account::Books;
pub use admission::{Board, board, status};
pub use baggage::Baggage;
