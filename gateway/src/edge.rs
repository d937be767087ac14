//! The edge: gRPC. The only place that knows tonic. It turns metadata into a `Call`, a `Failure` into a status, and
//! paths into routes; it must never decide anything about an order or a reply.

mod accept;
pub mod account;
mod admission;
mod baggage;
pub mod board;
mod body;
pub(crate) mod clinic;
mod converse;
mod envelope;
mod explain;
mod finish;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub(crate) mod guard;
mod health;
mod incoming;
mod name;
mod open;
pub mod orders;
mod parting;
mod pass;
mod peer;
pub mod probe;
mod pushback;
mod request;
pub mod server;
mod status;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod unary;
mod vigil;

pub use accept::call_of;
pub use account::Books;
pub(crate) use admission::request_size;
pub use baggage::Baggage;
pub use board::Board;
pub use pushback::status;
