//! The inventory service: stock rules, their ledger on JetStream, and the NATS endpoints in front of them. Imports
//! run one way: worker → intake, endpoint, expiry, retention → events → release, reconcile → ledger → stock.

pub mod config;
pub mod endpoint;
pub mod events;
pub mod expiry;
pub mod file;
mod http;
pub mod intake;
pub mod ledger;
pub mod orders;
pub mod reconcile;
pub mod release;
pub mod remove;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
mod retention;
pub mod stock;
pub mod waits;
mod worker;

pub use worker::{Worker, open, run};
