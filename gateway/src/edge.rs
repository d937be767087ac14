//! The edge: gRPC. The only place that knows tonic. It turns metadata into a `Call`, a `Failure` into a status, and
//! paths into routes; it must never decide anything about an order or a reply.

mod accept;
pub mod account;
mod baggage;
pub mod board;
mod body;
mod envelope;
mod explain;
mod health;
mod incoming;
pub mod orders;
mod parting;
mod pass;
pub mod probe;
pub mod server;
mod status;
#[cfg(test)]
mod tests;
mod unary;

pub use accept::call_of;
pub use account::Books;
pub use baggage::Baggage;
pub use board::Board;
pub use status::status;
