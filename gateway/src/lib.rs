//! The gateway: gRPC in front, NATS behind. `edge` speaks gRPC, `auth` says who calls, `order` is the domain, `bridge`
//! passes calls on; imports run in that direction only. `serve` puts them together.

pub mod auth;
pub mod backup;
pub mod bridge;
pub mod call;
pub mod check;
pub mod commands;
pub mod config;
#[cfg(feature = "dev")]
pub mod dev;
pub mod edge;
pub mod feed;
mod fresh;
pub mod gate;
pub mod letters;
pub mod order;
mod provider;
pub mod reconcile;
mod reload;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
pub mod run;
pub mod serve;
pub mod share;
pub mod stop;
pub mod waits;

pub use serve::Gateway;
