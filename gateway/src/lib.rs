//! The gateway: gRPC to NATS. `serve` puts the ports (`server`), the bridge and the order system together; `run` and the
//! other commands are what operators call.

pub mod backup;
pub mod check;
pub mod commands;
pub mod config;
pub mod dead_letters;
#[cfg(feature = "dev")]
pub mod dev;
pub mod feed;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod order;
pub mod orders;
pub mod reconcile;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
pub mod run;
pub mod serve;
pub mod served;
mod share;
pub mod signal;
mod typed;
pub mod waits;

pub use serve::Gateway;
