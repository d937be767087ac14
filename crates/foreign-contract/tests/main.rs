//! The foreign contract, end to end: a real nats-server without JetStream, plain services, and gRPC clients.

// One binary: items that its modules share are visible to nothing else.
#![allow(unreachable_pub, clippy::unwrap_used)]

mod callers;
mod client;
#[path = "../../../tests/harness/codec.rs"]
mod codec;
mod served;
mod service;
