//! The gateway: gRPC in front, NATS behind. `edge` speaks gRPC, `order` is the domain, `bridge` passes calls on;
//! imports run in that direction only.

pub mod bridge;
pub mod call;
pub mod config;
pub mod edge;
pub mod feed;
pub mod order;
