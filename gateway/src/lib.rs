//! The gateway: gRPC to NATS. `edge` serves gRPC, `auth` authenticates callers, `orders` is the domain, `bridge`
//! forwards calls to NATS; imports go in that direction only. `serve` puts them together.

pub mod auth;
pub mod backup;
pub mod bridge;
pub mod call;
pub mod check;
pub mod commands;
pub mod concurrency;
pub mod config;
mod crypto;
pub mod dead_letters;
#[cfg(feature = "dev")]
pub mod dev;
pub mod edge;
pub mod feed;
mod fresh;
pub mod order;
pub mod orders;
pub mod reconcile;
mod reload;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
pub mod run;
pub mod serve;
pub mod served;
pub mod share;
pub mod signal;
pub mod supervisor;
mod typed;
pub mod waits;

pub use serve::Gateway;
