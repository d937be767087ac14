//! The gateway: gRPC to NATS. `serve` puts the ports (`server`), the bridge and the order system together; `run` and the
//! other commands are what operators call.

pub mod bucket;
pub mod check;
pub mod commands;
pub mod config;
pub mod contracts;
#[cfg(feature = "dev")]
pub mod dev;
pub mod doctor;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod permissions;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
pub mod routes;
pub mod run;
pub mod serve;
pub mod signal;
pub mod waits;

pub use serve::Gateway;
